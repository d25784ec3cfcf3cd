"""Arguments of an emitted kernel function: how it declares them, and what the launcher passes."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotune.layout import MIN_DOT, Layout
from autotune.lower.names import FileNames
from sgraph.axis import Axis
from sgraph.expr import Expr
from sgraph.ir import Kernel, Role
from sgraph.program import Tensor


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter of a kernel function."""

    name: str
    """As the function declares it."""
    passed: str
    """What the launcher passes: an expression over its variables."""
    constexpr: bool
    """Whether it is known at compile time."""


@dataclass(slots=True)
class Partials:
    """Workspaces of a split kernel: the name of each accumulator's."""

    names: FileNames
    by_value: dict[Expr, str] = field(default_factory=dict[Expr, str])
    """Launcher variable of each accumulator's workspace."""

    def name(self, value: Expr, hint: str) -> str:
        """The variable of an accumulator's workspace."""
        if value not in self.by_value:
            self.by_value[value] = self.names.names.fresh(f"partial_{hint}")
        return self.by_value[value]


class Arguments:
    """The parameters of one function, collected as its text needs them."""

    def __init__(self, kernel: Kernel, layout: Layout, names: FileNames) -> None:
        self.kernel = kernel
        self.layout = layout
        self.names = names
        self._pointers: dict[str, Argument] = {}
        self._sizes: dict[str, Argument] = {}
        self._constants: dict[str, Argument] = {}
        self._strides: dict[str, Argument] = {}
        self._tiles: dict[str, Argument] = {}

    def in_order(self) -> tuple[Argument, ...]:
        """Pointers, run-time sizes, then compile-time sizes, strides and parameters."""
        groups = (self._pointers, self._sizes, self._constants, self._strides, self._tiles)
        return tuple(a for group in groups for a in group.values())

    def pointer(self, variable: str) -> str:
        """The pointer to what a launcher variable holds."""
        return _add(self._pointers, Argument(f"{variable}_ptr", variable, constexpr=False))

    def size(self, axis: Axis) -> str:
        """An axis's extent: a constant where it is static, else an integer at run time."""
        name = self.names.size_of(axis)
        if isinstance(axis.extent, int):
            return _add(self._constants, Argument(name, name, constexpr=True))
        return _add(self._sizes, Argument(name, name, constexpr=False))

    def stride(self, tensor: Tensor, place: int) -> str:
        """The stride of a tensor's dimension, counted among all its dimensions."""
        variable = self.names.tensor[tensor.name]
        axis = tensor.axes[place]
        assert axis is not None
        repeated = sum(a == axis for a in tensor.axes) > 1
        token = f"{self.names.token[axis]}_{place}" if repeated else self.names.token[axis]
        name = f"stride_{variable}_{token}"
        return _add(self._strides, Argument(name, f"{variable}.stride({place})", constexpr=True))

    def block(self, axis: Axis) -> str:
        """An axis's tile: a parameter, or for a resident axis the next power of two of its extent."""
        name = self.names.block(axis)
        if self.kernel.role[axis] is not Role.WHOLE:
            return _add(self._tiles, Argument(name, f'tuned["tile_{axis}"]', constexpr=True))
        padded = f"triton.next_power_of_2({self.names.size_of(axis)})"
        if axis in self.layout.dot_axes:
            padded = f"max({MIN_DOT}, {padded})"
        return _add(self._tiles, Argument(name, padded, constexpr=True))

    def parameter(self, name: str) -> str:
        """A parameter that is no tile: ``SPLIT``, ``GROUP``, ``STAGES``."""
        return _add(self._tiles, Argument(name, f'tuned["{name.lower()}"]', constexpr=True))

    def precision(self) -> str:
        """How float32 dot products are computed."""
        passed = '"tf32" if tuned["allow_tf32"] else "ieee"'
        return _add(self._tiles, Argument("PRECISION", passed, constexpr=True))


def _add(group: dict[str, Argument], argument: Argument) -> str:
    group.setdefault(argument.name, argument)
    return argument.name
