"""Where a program is in each axis: grid coordinates, offsets, masks and pointer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from autotune.layout import Layout
from autotune.lower.arguments import Arguments
from autotune.lower.code import Code, Dims, Kind, Level
from autotune.lower.names import FileNames
from sgraph.axis import Axis, largest
from sgraph.ir import Role
from sgraph.program import Tensor
from sgraph.schedule import Phase

NARROW: Final = 2**31 - 1
"""Largest offset, in elements, that 32-bit arithmetic reaches."""
MOST_CELLS: Final = 64
"""Cells of a split axis that workspace offsets are sized for."""


def is_wide(axes: Iterable[Axis], factor: int = 1) -> bool:
    """Whether a tensor over these axes may have elements beyond 32-bit offsets."""
    return math.prod(largest(a.extent) for a in axes) * factor > NARROW


class Tiles:
    """Indices of one function. What is asked for is remembered, and defined where its axis is entered."""

    def __init__(self, phase: Phase, layout: Layout, names: FileNames, arguments: Arguments) -> None:
        self.phase = phase
        self.layout = layout
        self.names = names
        self.arguments = arguments
        self._asked: set[str] = set()

    # ---------------------------------------------------------------------------------------- inside tiles

    def index(self, axis: Axis, *, wide: bool = False) -> Code:
        """Positions along an axis: a vector, or one number for a scalar axis."""
        if axis in self.layout.scalar:
            name = self._position(axis)
            return Code(f"tl.cast({name}, tl.int64)" if wide else name, (), kind=Kind.INT)
        return Code(
            self._ask(f"wide_{self.names.token[axis]}" if wide else self.names.offsets(axis)), (axis,), kind=Kind.INT
        )

    def mask(self, axes: Iterable[Axis], dims: Dims) -> Code | None:
        """Which lanes of a tile of these dimensions lie inside the given axes; None if all always do."""
        pieces = [Code(self._ask(self.names.mask(a)), (a,)).spread(dims).text for a in self.layout.dims(axes)]
        if not pieces:
            return None
        return Code(" & ".join(pieces), dims, Level.AND if len(pieces) > 1 else Level.ATOM, Kind.BOOL)

    def address(self, tensor: Tensor, axes: Sequence[Axis], dims: Dims) -> str:
        """Pointers to a tile of a tensor that is read or written under the given axes."""
        wide = is_wide(tensor.named_axes)
        places = [i for i, a in enumerate(tensor.axes) if a is not None]
        terms = [self.arguments.pointer(self.names.tensor[tensor.name])]
        for place, axis in zip(places, axes, strict=True):
            position = self.index(axis, wide=wide).spread(dims)
            terms.append(f"{position.text} * {self.arguments.stride(tensor, place)}")
        return " + ".join(terms)

    def partial_address(self, variable: str, axes: Sequence[Axis], dims: Dims) -> str:
        """Pointers to a tile of one cell's part of a contiguous workspace ``[cell, *axes]``."""
        offset = "tl.cast(cell, tl.int64)" if is_wide(axes, MOST_CELLS) else "cell"
        for i, axis in enumerate(axes):
            inner = f"({offset})" if i else offset
            offset = f"{inner} * {self.arguments.size(axis)} + {self.index(axis).spread(dims).text}"
        return f"{self.arguments.pointer(variable)} + {offset}"

    # ----------------------------------------------------------------------------------------- definitions

    def program_lines(self) -> list[str]:
        """Coordinates of this program in the grid; the last axis varies fastest."""
        rest = list(self.phase.grid)
        if not rest:
            return []
        if len(rest) == 1:
            return [f"{self._pid(rest[0])} = tl.program_id(0)"]
        lines = ["pid = tl.program_id(0)"]
        if self._grouped():
            lines += self._band_lines(rest)
            rest = rest[:-2]
        for axis in reversed(rest[1:]):
            lines.append(f"{self._tiles(axis)} = {self._count(axis)}")
            lines.append(f"{self._pid(axis)} = pid % {self._tiles(axis)}")
            lines.append(f"pid = pid // {self._tiles(axis)}")
        return [*lines, f"{self._pid(rest[0])} = pid"] if rest else lines

    def _grouped(self) -> bool:
        """Whether the last two grid axes are the rows and columns of a dot product."""
        return set(self.phase.grid[-2:]) <= self.layout.dot_axes

    def _band_lines(self, grid: list[Axis]) -> list[str]:
        rows, columns = grid[-2:]
        lines = [f"{self._tiles(a)} = {self._count(a)}" for a in (rows, columns)]
        every = f"({self._tiles(rows)} * {self._tiles(columns)})"
        tile = "pid"
        if len(grid) > 2:
            tile = "tile"
            lines += [f"tile = pid % {every}", f"pid = pid // {every}"]
        group = self.arguments.parameter("GROUP")
        token = self.names.token[rows]
        return [
            *lines,
            "# bands of GROUP row tiles share the column tiles in the cache",
            f"band = {group} * {self._tiles(columns)}",
            f"first_{token} = {tile} // band * {group}",
            f"rows = tl.minimum({self._tiles(rows)} - first_{token}, {group})",
            f"{self._pid(rows)} = first_{token} + {tile} % band % rows",
            f"{self._pid(columns)} = {tile} % band // rows",
        ]

    def resident_lines(self) -> list[str]:
        """Definitions for grid and resident axes, as far as they were asked for."""
        lines: list[str] = []
        for axis in self.layout.order:
            role = self.arguments.kernel.role[axis]
            if role is Role.GRID:
                lines += self._axis_lines(axis, f"{self._pid(axis)} * {self.arguments.block(axis)} + ")
            elif role is Role.WHOLE:
                lines += self._axis_lines(axis, "")
        return lines

    def enter(self, axis: Axis) -> None:
        """Begin a loop over an axis: what was asked for in an earlier loop over it is forgotten."""
        token = self.names.token[axis]
        self._asked -= {self.names.offsets(axis), self.names.mask(axis), f"wide_{token}"}

    def loop_lines(self, axis: Axis, *, pipelined: bool) -> tuple[list[str], str, list[str]]:
        """What stands before a loop over an axis, its head, and the definitions its body begins with."""
        size = self.arguments.size(axis)
        step = "" if axis in self.layout.scalar else f", {self.arguments.block(axis)}"
        before: list[str] = []
        bounds = f"0, {size}"
        if axis == self.phase.split:
            split = self.arguments.parameter("SPLIT")
            count = self._count(axis) if step else size
            stride = f" * {self.arguments.block(axis)}" if step else ""
            token = self.names.token[axis]
            before = [
                f"# this cell's share of {axis}",
                f"steps = tl.cdiv({count}, {split})",
                f"first_{token} = cell * steps{stride}",
                f"last_{token} = tl.minimum(first_{token} + steps{stride}, {size})",
            ]
            bounds = f"first_{token}, last_{token}"
        stages = f", num_stages={self.arguments.parameter('STAGES')}" if pipelined else ""
        head = f"for {self._position(axis)} in tl.range({bounds}{step}{stages}):"
        return before, head, self._axis_lines(axis, f"{self._position(axis)} + ") if step else []

    def is_first(self, axes: Iterable[Axis]) -> str:
        """The condition that this is the first program along some grid axes."""
        terms = [f"({self._pid(a)} == 0)" for a in axes]
        return " & ".join(terms) if len(terms) > 1 else terms[0][1:-1]

    def _axis_lines(self, axis: Axis, start: str) -> list[str]:
        offsets, mask, wide = self.names.offsets(axis), self.names.mask(axis), f"wide_{self.names.token[axis]}"
        if not {offsets, mask, wide} & self._asked:
            return []
        block = self.arguments.block(axis)
        lines = [f"{offsets} = {start}tl.arange(0, {block})"]
        if mask in self._asked:
            size = self.arguments.size(axis)
            static = isinstance(axis.extent, int)
            inside = f"{offsets} < {size}"
            lines.append(f"{mask} = ({inside}) | ({size} % {block} == 0)" if static else f"{mask} = {inside}")
        if wide in self._asked:
            lines.append(f"{wide} = {offsets}.to(tl.int64)")
        return lines

    def _ask(self, name: str) -> str:
        self._asked.add(name)
        return name

    def _position(self, axis: Axis) -> str:
        return self._pid(axis) if axis in self.phase.grid else f"{self.names.token[axis]}0"

    def _pid(self, axis: Axis) -> str:
        return f"pid_{self.names.token[axis]}"

    def _tiles(self, axis: Axis) -> str:
        return f"tiles_{self.names.token[axis]}"

    def _count(self, axis: Axis) -> str:
        size = self.arguments.size(axis)
        return size if axis in self.layout.scalar else f"tl.cdiv({size}, {self.arguments.block(axis)})"
