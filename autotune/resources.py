"""What an instance needs of a device, from formulas: the filter before any compilation.

Measured against 349 random configurations compiled for sm_90, the shared-memory formula predicted no false fit
and the register estimate found 72 of 77 spilling ones. Both are estimates from above: offline compilation
decides, these save its time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from autotune.layout import MIN_DOT, Contraction, Layout, layout_of
from autotune.parameters import KernelParameters, tile_sizes, tiled_axes
from sgraph.axis import Axis
from sgraph.expr import Expr, Op
from sgraph.ir import Kernel, Role, SGraph
from sgraph.schedule import Accumulate, Compute, Load, Loop, Merge, Reduce, Schedule, Statement, Write, WritePartial
from sgraph.target import Target

MOST_ELEMENTS: Final = 2**20
"""Elements of a tile that Triton accepts."""
MOST_WARPS: Final = 32
"""Warps of a program that a device launches."""
MOST_CELLS: Final = 65_535
"""Programs along the second dimension of a grid."""
SPILL_ESTIMATE: Final = 140
"""Register estimate above which kernels were seen to spill."""
BASE_REGISTERS: Final = 32
"""Registers for addresses, indices and temporaries."""
WIDE_ROWS: Final = 64
"""Rows, and 4 warps, from which the dot instruction of sm_90 and later reads operands from shared memory."""


def shared_memory_bytes(
    graph: SGraph, schedule: Schedule, parameters: KernelParameters, sizes: Mapping[str, int], target: Target
) -> int:
    """Shared memory of one program: streamed tiles of its deepest pipeline, or the operands of a resident dot.

    Args:
        graph: for element types.
        schedule: of the kernel.
        parameters: its parameters.
        sizes: extent of each axis by name.
        target: decides how many buffers the pipeline holds.
    """
    tiles = _Tiles(graph, schedule, parameters, sizes)
    return max(_shared_bytes(p.body, tiles, parameters, target) for p in schedule.phases)


def registers_per_thread(
    graph: SGraph,
    schedule: Schedule,
    parameters: KernelParameters,
    sizes: Mapping[str, int],
    target: Target | None = None,
) -> int:
    """Estimated 32-bit registers of a thread: accumulators, resident tiles, and half of the operand fragments."""
    tiles = _Tiles(graph, schedule, parameters, sizes)
    threads = 32 * parameters.warps
    return max(
        math.ceil(BASE_REGISTERS + (held + 0.5 * fragments) / threads)
        for held, fragments in (_live_words(p.body, tiles, parameters, target) for p in schedule.phases)
    )


def violated(
    graph: SGraph, schedule: Schedule, parameters: KernelParameters, sizes: Mapping[str, int], target: Target
) -> str | None:
    """The first constraint that an instance violates on a target, with its figures; None if it may run."""
    structural = _structural(schedule.kernel, parameters)
    if structural is not None or target.kind != "cuda":
        return structural
    tiles = _Tiles(graph, schedule, parameters, sizes)
    for value in (v for p in schedule.phases for v in _values(p.body)):
        elements = tiles.elements(value)
        if elements > MOST_ELEMENTS:
            return f"tile of {elements} elements > {MOST_ELEMENTS}"
    shared = shared_memory_bytes(graph, schedule, parameters, sizes, target)
    if shared > target.shared_memory_bytes:
        return f"shared memory {math.ceil(shared / 1024)} KiB > {target.shared_memory_bytes // 1024} KiB"
    registers = registers_per_thread(graph, schedule, parameters, sizes, target)
    if registers > SPILL_ESTIMATE:
        return f"registers: estimate {registers} per thread > {SPILL_ESTIMATE}"
    return None


def _structural(kernel: Kernel, parameters: KernelParameters) -> str | None:
    """What is wrong with the parameters on any device."""
    layout = layout_of(kernel)
    given = dict(parameters.tiles)
    for axis in tiled_axes(kernel):
        tile = given.get(str(axis))
        if tile is None:
            return f"axis {axis} has no tile"
        if tile < 1 or tile & (tile - 1):
            return f"tile {tile} of axis {axis} is not a power of two"
        if axis in layout.scalar and tile != 1:
            return f"tile {tile} of axis {axis} != 1: it is held as one index"
        if axis in layout.dot_axes and tile < MIN_DOT:
            return f"tile {tile} of axis {axis} < {MIN_DOT}: it takes part in a dot product"
    if parameters.warps < 1 or parameters.warps & (parameters.warps - 1) or parameters.warps > MOST_WARPS:
        return f"warps {parameters.warps}: not a power of two up to {MOST_WARPS}"
    if parameters.stages < 1 or parameters.group < 1:
        return f"stages {parameters.stages}, group {parameters.group}: both must be at least 1"
    split = kernel.with_role(Role.SPLIT)
    most = MOST_CELLS if split else 1
    if not 1 <= parameters.split <= most:
        return f"split {parameters.split}: not from 1 to {most}"
    return None


class _Tiles:
    """Tile sizes of one kernel at one assignment."""

    def __init__(
        self, graph: SGraph, schedule: Schedule, parameters: KernelParameters, sizes: Mapping[str, int]
    ) -> None:
        self.graph = graph
        self.layout: Layout = layout_of(schedule.kernel)
        self.tile: dict[Axis, int] = tile_sizes(schedule.kernel, parameters, sizes)

    def elements(self, value: Expr) -> int:
        return math.prod(self.tile[a] for a in value.free)

    def loaded_bytes(self, value: Expr) -> int:
        return self.elements(value) * self.graph.tensor(value.name).dtype.bytes


def _shared_bytes(body: tuple[Statement, ...], tiles: _Tiles, parameters: KernelParameters, target: Target) -> int:
    """Tiles of nested loops are held at once, those of loops after one another are not."""
    most = 0
    for statement in body:
        if isinstance(statement, Loop):
            streamed = _streamed(statement, tiles)
            dots = [d for s in statement.body for d in _dots(s, tiles)]
            buffered = _buffers(dots, tiles, parameters, target) * sum(map(tiles.loaded_bytes, streamed))
            held = {f for d in dots for f in _plain_operands(d) if f not in streamed}
            inner = _shared_bytes(tuple(s for s in statement.body if isinstance(s, Loop)), tiles, parameters, target)
            most = max(most, buffered + sum(map(tiles.loaded_bytes, held)) + inner)
        else:
            most = max([most, *(_resident_bytes(d, tiles) for d in _dots(statement, tiles))])
    return most


def _plain_operands(dot: Contraction) -> list[Expr]:
    """Operands that are loaded as they are."""
    return [side[0] for side in (dot.left, dot.right) if _plain(side)]


def _resident_bytes(dot: Contraction, tiles: _Tiles) -> int:
    """Both operands of a dot outside loops; a computed one changes its place among threads in 16 bits."""
    rows, inner, columns = (tiles.tile[a] for a in dot.axes)
    left = tiles.loaded_bytes(dot.left[0]) if _plain(dot.left) else 2 * rows * inner
    right = tiles.loaded_bytes(dot.right[0]) if _plain(dot.right) else 2 * inner * columns
    return left + right


def _streamed(loop: Loop, tiles: _Tiles) -> list[Expr]:
    """The tiles that a loop brings anew in each step."""
    loads = [s.value for s in loop.body if isinstance(s, Load)]
    return [v for v in loads if loop.axis in v.free and tiles.layout.dims(v.free)]


def _plain(operand: tuple[Expr, ...]) -> bool:
    return len(operand) == 1 and operand[0].op is Op.LEAF


def _dots(statement: Statement, tiles: _Tiles) -> list[Contraction]:
    """The dot products of one statement."""
    values: tuple[Expr, ...] = ()
    match statement:
        case Accumulate():
            values = statement.values
        case Reduce():
            values = (statement.value,)
        case _:
            pass
    return [tiles.layout.contractions[v] for v in values if v in tiles.layout.contractions]


def _wide(dot: Contraction, tiles: _Tiles, parameters: KernelParameters, target: Target | None) -> bool:
    """Whether a dot uses the instruction that reads its operands from shared memory."""
    modern = target is not None and target.architecture >= 90
    return modern and parameters.warps >= 4 and tiles.tile[dot.rows] >= WIDE_ROWS


def _buffers(dots: list[Contraction], tiles: _Tiles, parameters: KernelParameters, target: Target) -> int:
    """Copies of each streamed tile that a pipelined loop holds."""
    if any(_wide(d, tiles, parameters, target) for d in dots):
        return parameters.stages
    return max(parameters.stages - 1, 1 if dots else 0)


def _values(body: tuple[Statement, ...]) -> Iterator[Expr]:
    """Every value that statements of a body name, nested loops included."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        match statement:
            case Loop():
                stack.extend(reversed(statement.body))
            case Accumulate() | Merge():
                yield from statement.state
            case Load() | Compute() | Reduce() | Write() | WritePartial():
                yield statement.value


def _live_words(
    body: tuple[Statement, ...], tiles: _Tiles, parameters: KernelParameters, target: Target | None
) -> tuple[int, int]:
    """32-bit words that live across the worst point of a body, and words of operands that pass through."""
    held = widest = fragments = 0
    inner: list[tuple[int, int]] = []
    for statement in body:
        match statement:
            case Loop():
                held += sum(tiles.elements(v) for v in statement.start)
                inner.append(_live_words(statement.body, tiles, parameters, target))
            case Load():
                fragments += math.ceil(tiles.loaded_bytes(statement.value) / 4)
            case Compute():
                widest = max(widest, tiles.elements(statement.value))
            case Merge():
                held += 2 * sum(tiles.elements(v) for v in statement.state)
            case Reduce() | Accumulate() | Write() | WritePartial():
                pass
        for dot in _dots(statement, tiles):
            if _wide(dot, tiles, parameters, target):
                fragments -= sum(math.ceil(tiles.loaded_bytes(f) / 4) for f in dot.right if _plain(dot.right))
    deepest = max(inner, key=sum, default=(0, 0))
    return held + max(widest, deepest[0]), max(0, fragments) + deepest[1]
