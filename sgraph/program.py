"""Programs: what a captured subgraph computes, and from which tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sgraph.axis import Axis, largest, ordered
from sgraph.expr import Expr, leaf, walk


class DType(StrEnum):
    """Element types, by their torch names."""

    BF16 = "bfloat16"
    FP16 = "float16"
    FP32 = "float32"
    FP64 = "float64"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"

    @property
    def bytes(self) -> int:
        """Size of one element."""
        return {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8, "int32": 4, "int64": 8, "bool": 1}[self.value]

    @property
    def short(self) -> str:
        """The name used on the command line: ``bf16``, ``fp32``, ``i64``."""
        return self.name.lower().replace("int", "i")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in device memory: an input, an output, or an intermediate between kernels."""

    name: str
    """Its name, a Python identifier, unique in the program."""
    axes: tuple[Axis | None, ...]
    """Axis of each dimension; None for a dimension of extent 1, which has no axis."""
    dtype: DType
    """Element type."""
    constant: bool = False
    """Whether its contents stay the same between calls (weights)."""
    finite: bool = True
    """False for an additive mask that may hold minus infinity."""

    @property
    def named_axes(self) -> tuple[Axis, ...]:
        """The axes without the dimensions of extent 1, in order."""
        return tuple(a for a in self.axes if a is not None)

    def read(self) -> Expr:
        """The leaf that reads this tensor under its own axes."""
        return leaf(self.name, self.named_axes, finite=self.finite)

    def largest_bytes(self) -> int:
        """Size in memory at the largest extents."""
        size = self.dtype.bytes
        for axis in self.named_axes:
            size *= largest(axis.extent)
        return size


@dataclass(frozen=True, slots=True)
class Output:
    """One result of a program."""

    tensor: Tensor
    """Where it goes: name, axis order, element type."""
    value: Expr
    """What it is, over the program's inputs."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """Some indices of one dimension."""

    dim: int
    """Which dimension, counted when the step is taken."""
    start: int
    """The first index; a negative one counts from the end."""
    length: int
    """How many."""


@dataclass(frozen=True, slots=True)
class Split:
    """One dimension as several, in row-major order."""

    dim: int
    """Which dimension, counted when the step is taken."""
    sizes: tuple[int, ...]
    """Their extents."""


@dataclass(frozen=True, slots=True)
class View:
    """How a program's input lies in what the function takes: steps that never copy."""

    parameter: str
    """Name of the tensor that the function takes."""
    steps: tuple[Narrow | Split, ...] = ()
    """Taken in order; none where the input is the whole tensor."""


@dataclass(frozen=True, slots=True)
class Border:
    """What the function takes and returns, where its tensors have other dimensions than the program's."""

    parameters: tuple[Tensor, ...]
    """The tensors that the function takes, in order, with an axis of their own for dimensions that are viewed."""
    views: tuple[View, ...]
    """One for each input of the program."""
    merges: tuple[tuple[int, ...], ...]
    """For each output, how many of its dimensions each dimension of the function's result merges."""


@dataclass(frozen=True, slots=True)
class Program:
    """A subgraph as a set of equations: outputs as expressions over the inputs."""

    name: str
    """Name of the captured function."""
    inputs: tuple[Tensor, ...]
    """In the order of the function's parameters; of one parameter there may be several views."""
    outputs: tuple[Output, ...]
    """In the order of the function's results."""
    source: str = ""
    """Where it was captured from, ``file:line``."""
    facts: tuple[str, ...] = field(default=())
    """What capture assumed, in words (a lifted constant, a declared sign)."""
    border: Border | None = None
    """What the function takes and returns; None where that is what the program reads and computes (``border``)."""
    trace: str = field(default="", compare=False)
    """Fingerprint of the operators it was captured from, inner types included, which equations leave out; empty where
    it was not captured. What is computed does not depend on it; what rounding may do does."""

    def tensor(self, name: str) -> Tensor:
        """The input or output with this name.

        Raises:
            KeyError: there is none.
        """
        for tensor in (*self.inputs, *(o.tensor for o in self.outputs)):
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every complete axis of the program, free or bound, in canonical order."""
        found = {a.base for t in self.inputs for a in t.named_axes}
        for node in walk(o.value for o in self.outputs):
            found |= {a.base for a in node.free}
            if isinstance(node.attr, Axis):  # a reduction of a constant varies over no axis, and binds one
                found.add(node.axis.base)
        return ordered(found)

    def __str__(self) -> str:
        from sgraph.printer import program_text

        return program_text(self)
