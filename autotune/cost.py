"""The analytical cost model: a modelled time for one kernel at one parameter assignment.

It ranks instances where nothing can be measured and orders them before measuring. Every term is visible in
``Cost``. The form follows public knowledge of the hardware; its constants are not calibrated, so a modelled
time is called modelled wherever it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from autotune.parameters import KernelParameters, tile_sizes
from autotune.resources import registers_per_thread, shared_memory_bytes
from sgraph.axis import Axis
from sgraph.bounds import dot_dtype, is_dot, tensor_bytes
from sgraph.expr import Expr, reduction
from sgraph.ir import Role, SGraph
from sgraph.program import Tensor
from sgraph.schedule import (
    Accumulate,
    Compute,
    Load,
    Loop,
    Merge,
    Phase,
    Reduce,
    Schedule,
    Statement,
    Write,
    WritePartial,
)
from sgraph.target import Target

DRAM_EFFICIENCY: Final = 0.92
"""Share of the datasheet bandwidth that a copy reaches."""
MMA_SHARE: Final = 0.6
"""Share of the dot peak that the older per-warp instruction reaches on architectures with a wide one."""
LEAST_TRIP_S: Final = 30e-9
"""Shortest time of one loop iteration: barriers and address arithmetic."""
CACHE_SHARE: Final = 0.6
"""Share of the last-level cache that a reuse window may fill before it spills to memory."""
MIN_DOT_ROWS: Final = 16
BUSY_WARPS: Final = 8
"""Resident warps that keep the four schedulers of a multiprocessor busy."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Modelled seconds of one kernel, term by term; the terms of one phase overlap."""

    launch_s: float
    """Launches."""
    dram_s: float
    """Memory traffic at the bandwidth that the bytes in flight allow."""
    l2_s: float
    """Traffic through the last-level cache, re-reads included."""
    dot_s: float
    """Dot products, padding and repeated work included."""
    pointwise_s: float
    """Other arithmetic."""
    chain_s: float
    """Latency of the longest chain of loop iterations."""
    combine_s: float
    """The combine phase of a split."""
    programs: int
    """Programs in the grid."""
    resident: int
    """Programs that fit one multiprocessor at once."""

    @property
    def total_s(self) -> float:
        """Modelled time of the kernel."""
        overlapped = max(self.dram_s, self.l2_s, self.dot_s, self.pointwise_s, self.chain_s)
        return self.launch_s + overlapped + self.combine_s


def kernel_cost(
    graph: SGraph, schedule: Schedule, parameters: KernelParameters, target: Target, sizes: Mapping[Axis, int]
) -> Cost:
    """The modelled cost of one kernel of a family.

    Args:
        graph: the family, for tensors and element types.
        schedule: of the kernel.
        parameters: its tiles, split, warps and stages.
        target: the device.
        sizes: extents, one per complete axis.
    """
    shape = _Shape(graph, schedule, parameters, sizes)
    main = schedule.phases[0]
    programs = shape.tiles_of(main.grid) * (parameters.split if main.split is not None else 1)
    resident = _resident(graph, schedule, parameters, target, sizes)
    per_processor = min(resident, math.ceil(programs / target.processors))
    waves = math.ceil(programs / (resident * target.processors))
    slots = waves * resident * target.processors
    tail = programs / slots if waves > 1 else programs / (math.ceil(programs / target.processors) * target.processors)

    streamed, trips = shape.streamed(main)
    in_flight = per_processor * max(parameters.stages - 1, 0.5) * streamed / max(trips, 1) * target.processors
    reach = min(1.0, in_flight / (target.dram_bytes_per_s * target.memory_latency_s))
    dram_bytes = _dram_bytes(graph, schedule, shape, target)
    issue = min(1.0, per_processor * parameters.warps / BUSY_WARPS)
    peak = target.dot_flops_per_s.get(dot_dtype(schedule.kernel, graph), target.pointwise_flops_per_s)
    share = 1.0 if _wide_dots(shape, main, parameters, target) else MMA_SHARE
    stall = target.memory_latency_s * 0.15 / max(parameters.stages - 1, 1)
    return Cost(
        launch_s=target.launch_s * len(schedule.phases),
        dram_s=dram_bytes / (DRAM_EFFICIENCY * target.dram_bytes_per_s * max(reach * tail, 1e-3)),
        l2_s=programs * streamed / (target.l2_bytes_per_s * tail * issue),
        dot_s=programs * shape.dot_flops(main) / (peak * share * tail * issue),
        pointwise_s=programs * shape.pointwise(main) / (target.pointwise_flops_per_s / 2 * tail * issue),
        chain_s=waves * (trips * max(stall, LEAST_TRIP_S) + 1.5 * target.memory_latency_s),
        combine_s=_combine_seconds(schedule, shape, parameters, target),
        programs=programs,
        resident=resident,
    )


class _Shape:
    """Tile extents and counts of one kernel at one parameter assignment."""

    def __init__(
        self, graph: SGraph, schedule: Schedule, parameters: KernelParameters, sizes: Mapping[Axis, int]
    ) -> None:
        self.graph = graph
        self.sizes = sizes
        self.split = parameters.split
        self.split_axes = frozenset(schedule.kernel.with_role(Role.SPLIT))
        self.tile = tile_sizes(schedule.kernel, parameters, {a.name: n for a, n in sizes.items()})

    def tiles_of(self, axes: tuple[Axis, ...]) -> int:
        """Tiles over some axes together."""
        return math.prod(math.ceil(self.sizes[a.base] / self.tile[a]) for a in axes)

    def trips(self, axis: Axis) -> int:
        """Iterations of a loop over an axis in one program."""
        tiles = math.ceil(self.sizes[axis.base] / self.tile[axis])
        return math.ceil(tiles / self.split) if axis in self.split_axes else tiles

    def elements(self, value: Expr) -> int:
        """Elements of one tile of a value."""
        return math.prod(self.tile[a] for a in value.free)

    def streamed(self, phase: Phase) -> tuple[float, int]:
        """Bytes that one program loads, and the iterations of its longest chain of loops."""
        loaded = 0.0
        longest = 0
        for statement, trips in self.statements(phase.body):
            if isinstance(statement, Load):
                size = self.graph.tensor(statement.value.name).dtype.bytes
                loaded += trips * size * min(self.elements(statement.value), self._actual(statement.value))
            if isinstance(statement, Accumulate):
                longest += trips
        return loaded, longest

    def _actual(self, value: Expr) -> int:
        """Elements that exist: masked lanes of a tile wider than its axis load nothing."""
        return math.prod(min(self.tile[a], self.sizes[a.base]) for a in value.free)

    def statements(self, body: tuple[Statement, ...], trips: int = 1) -> Iterator[tuple[Statement, int]]:
        """Every statement that is no loop, with how often one program executes it."""
        for statement in body:
            if isinstance(statement, Loop):
                yield from self.statements(statement.body, trips * self.trips(statement.axis))
            else:
                yield statement, trips

    def dots(self, phase: Phase) -> Iterator[tuple[Expr, int]]:
        """Dot products of a phase, with how often one program executes them."""
        for statement, trips in self.statements(phase.body):
            values = statement.values if isinstance(statement, Accumulate) else ()
            if isinstance(statement, Reduce):
                values = (statement.value,)
            yield from ((v, trips) for v in values if is_dot(v))

    def dot_flops(self, phase: Phase) -> float:
        """Flops of one program's dot products at padded tiles."""
        return sum(2.0 * trips * self._space(v, MIN_DOT_ROWS) for v, trips in self.dots(phase))

    def _space(self, value: Expr, least: int) -> int:
        axes, operand = reduction(value)
        return math.prod(max(least, self.tile[a]) for a in operand.free | frozenset(axes))

    def pointwise(self, phase: Phase) -> float:
        """Elementwise operations of one program, reductions without a dot included."""
        total = 0.0
        for statement, trips in self.statements(phase.body):
            match statement:
                case Compute() | Load():
                    total += trips * self.elements(statement.value)
                case Accumulate():
                    total += sum(trips * self._space(v, 1) for v in statement.state if not is_dot(v))
                case Reduce() if not is_dot(statement.value):
                    total += trips * self._space(statement.value, 1)
                case Reduce() | Loop() | Merge() | Write() | WritePartial():
                    pass
        return total


def _resident(
    graph: SGraph, schedule: Schedule, parameters: KernelParameters, target: Target, sizes: Mapping[Axis, int]
) -> int:
    """Programs that one multiprocessor holds at once, at least one."""
    named = {a.name: n for a, n in sizes.items()}
    registers = registers_per_thread(graph, schedule, parameters, named, target)
    shared = shared_memory_bytes(graph, schedule, parameters, named, target)
    by_registers = target.registers // (max(8, -(-registers // 8) * 8) * 32 * parameters.warps)
    by_shared = target.shared_memory_per_processor_bytes // (shared + 1024)
    return max(1, min(by_registers, 64 // parameters.warps, 32, by_shared))


def _dram_bytes(graph: SGraph, schedule: Schedule, shape: _Shape, target: Target) -> float:
    """Bytes over the memory bus: each tensor once, or once per re-read where it cannot stay in the cache."""
    total = 0.0
    grid = {a: math.ceil(shape.sizes[a.base] / shape.tile[a]) for a in schedule.phases[0].grid}
    for name in schedule.kernel.reads:
        tensor = graph.tensor(name)
        size = tensor_bytes(tensor, shape.sizes)
        rereads = math.prod(n for a, n in grid.items() if a not in tensor.named_axes)
        fits = size <= CACHE_SHARE * target.l2_bytes
        if fits and tensor in graph.intermediates:
            continue
        total += size if fits else size * _reread_factor(rereads, tensor, shape, target)
    for store in schedule.kernel.stores:
        size = tensor_bytes(store.tensor, shape.sizes)
        held = store.tensor in graph.intermediates and size <= CACHE_SHARE * target.l2_bytes
        total += 0 if held else size
    return total


def _reread_factor(rereads: int, tensor: Tensor, shape: _Shape, target: Target) -> float:
    """How often a large tensor crosses the bus: programs that run side by side share one crossing."""
    varying = math.prod(math.ceil(shape.sizes[a.base] / shape.tile.get(a, 1)) for a in tensor.named_axes[-1:])
    side_by_side = max(1, target.processors // max(1, varying))
    return max(1.0, rereads / side_by_side)


def _wide_dots(shape: _Shape, phase: Phase, parameters: KernelParameters, target: Target) -> bool:
    """Whether the dots use the architecture's widest instruction: 64 rows and a warp group."""
    if target.architecture < 90:
        return True
    rows = [max((shape.tile[a] for a in v.free), default=1) for v, _ in shape.dots(phase)]
    least = [min((shape.tile[a] for a in v.free), default=1) for v, _ in shape.dots(phase)]
    return bool(rows) and parameters.warps >= 4 and min(least) >= 64


def _combine_seconds(schedule: Schedule, shape: _Shape, parameters: KernelParameters, target: Target) -> float:
    """Partial results written and read once through the cache, and the latency of doing so."""
    if len(schedule.phases) == 1:
        return 0.0
    partial = sum(
        math.prod(shape.sizes[a.base] for a in s.value.free)
        for s in schedule.phases[0].body
        if isinstance(s, WritePartial)
    )
    return 2 * parameters.split * partial * 4 / target.l2_bytes_per_s + target.memory_latency_s
