"""sGraphs: small hierarchical programs whose execution parameters are symbols.

An sGraph is a list of kernels. A kernel stores one or more tensors, each given by an expression over the
tensors it reads, and gives every axis a role. Because axes are named, one role per axis replaces the
per-tensor mapping matrices of Mirage and Prism: which inputs are tiled, which are replicated, and where
outputs go follows. Tile sizes, split factors, warps and pipeline stages are not part of it: they are
parameters of an instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sgraph.axis import Axis, ordered
from sgraph.expr import Expr, leaves, walk
from sgraph.program import Program, Tensor


class Role(StrEnum):
    """What a kernel does with an axis."""

    GRID = "grid"  # one program per tile of it
    LOOP = "loop"  # iterated inside a program, tile by tile
    WHOLE = "whole"  # resident: every program holds all of it
    SPLIT = "split"  # a reduction cut over the grid; a combine kernel finishes its accumulators


@dataclass(frozen=True, slots=True)
class Store:
    """One tensor that a kernel writes."""

    tensor: Tensor
    """Where it goes."""
    value: Expr
    """What is written, over the tensors that the kernel reads."""
    claim: Expr
    """What it denotes, over the program's inputs alone. A claim is proved by ``verify``, never trusted."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One block graph: stores that share programs, and a role for every axis."""

    name: str
    """Unique in its sGraph, a Python identifier."""
    stores: tuple[Store, ...]
    """What it writes."""
    roles: tuple[tuple[Axis, Role], ...] = field(default=())
    """Role of each axis in canonical order; empty while the mapping is undecided."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis the kernel touches, free or bound, each copy by itself."""
        found: set[Axis] = set()
        for node in walk(s.value for s in self.stores):
            found |= node.free
        return ordered(found)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the tensors it reads, in order of first use."""
        return tuple(dict.fromkeys(x.name for x in leaves(s.value for s in self.stores)))

    @property
    def fold(self) -> bool:
        """Whether it runs once, not at every call: what it stores is constant. It reads constants alone."""
        return bool(self.stores) and all(s.tensor.constant for s in self.stores)

    @property
    def role(self) -> Mapping[Axis, Role]:
        """Roles as a mapping."""
        return dict(self.roles)

    def with_role(self, role: Role) -> tuple[Axis, ...]:
        """The axes that have this role, in canonical order."""
        return tuple(a for a, r in self.roles if r is role)


@dataclass(frozen=True, slots=True)
class SGraph:
    """Kernels in execution order that together compute a program."""

    program: Program
    """What is computed."""
    kernels: tuple[Kernel, ...]
    """In order; each reads inputs and tensors stored before it."""

    @property
    def decided(self) -> bool:
        """Whether every kernel has its roles; a plan has not."""
        return all(k.roles or not k.axes for k in self.kernels)

    @property
    def intermediates(self) -> tuple[Tensor, ...]:
        """Stored tensors that are not outputs of the program."""
        outputs = {o.tensor.name for o in self.program.outputs}
        return tuple(s.tensor for k in self.kernels for s in k.stores if s.tensor.name not in outputs)

    @property
    def folded(self) -> tuple[Tensor, ...]:
        """Intermediates that are computed once from constant inputs."""
        return tuple(t for t in self.intermediates if t.constant)

    def tensor(self, name: str) -> Tensor:
        """The input, intermediate or output with this name.

        Raises:
            KeyError: there is none.
        """
        for tensor in self.intermediates:
            if tensor.name == name:
                return tensor
        return self.program.tensor(name)

    def __str__(self) -> str:
        from sgraph.printer import sgraph_text

        return sgraph_text(self)
