"""Time bounds and order: what a family cannot beat, and which family to look at first.

``lower_bound`` is a true one: datasheet peaks, every tensor moved once, nothing charged for what fits in the
last-level cache. ``kernel_estimate`` adds what the bound is blind to (work repeated by programs, too few programs) at
default tiles; it orders families and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sgraph.axis import Axis
from sgraph.dags import elements, is_dot, tops
from sgraph.expr import REDUCTIONS, Expr, Op, factors, leaves, reduction, walk
from sgraph.ir import Kernel, Role, SGraph
from sgraph.program import DType, Tensor
from sgraph.scaled import stabilise
from sgraph.target import Target

DEFAULT_TILE: Final = 64
"""Tile of a grid axis that takes part in dot products, in ``kernel_estimate``."""
DEFAULT_ELEMENTS: Final = 2048
"""Elements that one program of a kernel without dot products takes, in ``kernel_estimate``."""
DEFAULT_STEP: Final = 16
"""Tile of an axis that is looped over, in ``kernel_estimate``."""
RESIDENT_WORDS: Final = 65_536
"""32-bit registers of one multiprocessor, where a target does not say: what a tile must fit into."""
DEFAULT_CELLS: Final = 8
"""Cells of a split axis in ``kernel_estimate``."""


def lower_bound(graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """Seconds that no instance of this family can beat on the target, launches included."""
    return work_bound(graph, target, sizes) + launches(graph) * target.launch_s


def work_bound(graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """The bound without launches, which is the same for every role assignment of a plan.

    Inputs are read and outputs written once (what is measured is cold). Of anything else that moves, a later
    read or an intermediate, as much as the last-level cache holds may stay there. Folds have run before: what they
    stored is read like an input.
    """
    return PlanBounds(target, sizes).work_s(graph)


class PlanBounds:
    """``work_bound`` for the plans of one search: the arithmetic of kernels they share is looked at once."""

    def __init__(self, target: Target, sizes: Mapping[Axis, int]) -> None:
        self.target = target
        self.sizes = sizes
        self._arithmetic: dict[object, float] = {}

    def work_s(self, graph: SGraph) -> float:
        """See ``work_bound``."""
        touched: set[str] = set()
        total = 0.0
        tensors = _tensors(graph)
        outputs = {o.tensor.name for o in graph.program.outputs}
        for kernel in graph.kernels:
            if kernel.fold:
                continue
            moved = 0
            for name in kernel.reads:
                size = tensor_bytes(tensors[name], self.sizes)
                moved += max(0, size - self.target.l2_bytes) if name in touched else size
            for store in kernel.stores:
                size = tensor_bytes(store.tensor, self.sizes)
                moved += size if store.tensor.name in outputs else max(0, size - self.target.l2_bytes)
            touched.update(kernel.reads, (s.tensor.name for s in kernel.stores))
            total += max(moved / self.target.dram_bytes_per_s, self._arithmetic_s(kernel, graph, tensors))
        return total

    def _arithmetic_s(self, kernel: Kernel, graph: SGraph, tensors: Mapping[str, Tensor]) -> float:
        key = (tuple(s.value for s in kernel.stores), tuple(tensors[name].dtype for name in kernel.reads))
        if key not in self._arithmetic:
            self._arithmetic[key] = max(arithmetic_seconds(kernel, graph, self.target, self.sizes))
        return self._arithmetic[key]


def _tensors(graph: SGraph) -> dict[str, Tensor]:
    """Every tensor of a graph by name."""
    outputs = (o.tensor for o in graph.program.outputs)
    return {t.name: t for t in (*graph.program.inputs, *outputs, *graph.intermediates)}


def speed_of_light(graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """Seconds for this family's compulsory traffic and arithmetic, without launches."""
    called = [k for k in graph.kernels if not k.fold]
    read = {name for kernel in called for name in kernel.reads}
    inputs = (t for t in (*graph.program.inputs, *graph.folded) if t.name in read)
    moved = sum(tensor_bytes(t, sizes) for t in (*inputs, *(o.tensor for o in graph.program.outputs)))
    arithmetic = [arithmetic_seconds(k, graph, target, sizes) for k in called]
    return max(moved / target.dram_bytes_per_s, sum(d for d, _ in arithmetic), sum(p for _, p in arithmetic))


def launches(graph: SGraph) -> int:
    """Device kernels of a call: one each, two where an axis is split, none for a fold."""
    return sum(2 if k.with_role(Role.SPLIT) else 1 for k in graph.kernels if not k.fold)


def tensor_bytes(tensor: Tensor, sizes: Mapping[Axis, int]) -> int:
    """Size of a tensor at these extents."""
    return tensor.dtype.bytes * elements(tensor.named_axes, sizes)


def _dram_bytes(graph: SGraph, tensor: Tensor, sizes: Mapping[Axis, int], target: Target) -> int:
    """What an estimate charges to the memory bus: nothing for an intermediate that fits in the last-level cache."""
    size = tensor_bytes(tensor, sizes)
    given = (*graph.program.inputs, *graph.folded, *(o.tensor for o in graph.program.outputs))
    external = any(t.name == tensor.name for t in given)
    return size if external or size > target.l2_bytes else 0


def arithmetic_seconds(kernel: Kernel, graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> tuple[float, float]:
    """Least seconds of dot products and of other arithmetic, each at its peak."""
    dot, other = arithmetic(kernel, sizes)
    return dot / fastest_dot_rate(dot_dtype(kernel, graph), target), other / target.pointwise_flops_per_s


def arithmetic(kernel: Kernel, sizes: Mapping[Axis, int]) -> tuple[int, int]:
    """Operations of dot products, and other ones.

    Counted on the stabilised values, which are what runs: there exponentials may have cancelled.
    """
    dot = other = 0
    for value, space in operations(tuple(stabilise(s.value) for s in kernel.stores)):
        if is_dot(value):
            dot += 2 * elements(space, sizes)
        else:
            other += elements(space, sizes)
    return dot, other


@lru_cache(maxsize=4096)
def operations(values: tuple[Expr, ...]) -> Operations:
    """Everything below some values that costs arithmetic, each with its index space. Products are free."""
    found: list[tuple[Expr, frozenset[Axis]]] = []
    for node in tops(values):
        if node.op in REDUCTIONS:
            axes, operand = reduction(node)
            found.append((node, operand.free | frozenset(axes)))
        elif node.op in {Op.ADD, Op.RECIP, Op.SQRT, Op.EXP, Op.LOG, Op.CALL}:
            found.append((node, node.free))
    return tuple(found)


def fastest_dot_rate(dtype: DType, target: Target) -> float:
    """The highest rate at which any instance can contract operands of this type: tensor cores read fp32 operands as
    tf32, half as fast as 16-bit ones, and a contraction can also be printed without them."""
    rates = [target.pointwise_flops_per_s, target.dot_flops_per_s.get(dtype, 0.0)]
    if dtype is DType.FP32:
        rates.append(target.dot_flops_per_s.get(DType.BF16, 0.0) / 2)
    return max(rates)


def dot_dtype(kernel: Kernel, graph: SGraph) -> DType:
    """Element type of the kernel's dot operands: the narrowest floating type it reads."""
    read = [graph.tensor(n).dtype for n in kernel.reads]
    floating = [d for d in read if d in {DType.BF16, DType.FP16, DType.FP32, DType.FP64}]
    return min(floating, key=lambda d: d.bytes, default=DType.FP32)


def kernel_estimate(kernel: Kernel, graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """Seconds of one kernel at default tiles, repeated work and idle processors included. It only orders.

    The best of a few ways to tile counts, so that less work never costs more. ``graph`` names the tensors; its
    roles do not matter. A fold costs nothing: it does not run at a call.
    """
    if kernel.fold:
        return 0.0
    work = operations(tuple(s.value for s in kernel.stores))
    traffic = _traffic(kernel, graph, target, sizes)
    busiest = min(
        _busiest_s(kernel, graph, target, sizes, traffic, work, grid) for grid in _default_grids(kernel, sizes, work)
    )
    partials = 0.0
    split = kernel.with_role(Role.SPLIT)
    if split:
        free = frozenset(a for s in kernel.stores for a in s.tensor.named_axes)
        partials = 2 * DEFAULT_CELLS * 4 * elements(free, sizes) / target.l2_bytes_per_s
    return busiest + partials + (2 if split else 1) * (target.launch_s + target.memory_latency_s)


Operations = tuple[tuple[Expr, frozenset[Axis]], ...]
"""What costs arithmetic, each with its index space."""


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What a kernel moves, whatever its tiles."""

    unique: int
    """Bytes that cross the memory bus once."""
    streamed: tuple[tuple[frozenset[Axis], int], ...]
    """Per tensor read: its axes, and the bytes that the programs of one tile of the other axes stream."""


def _traffic(kernel: Kernel, graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> _Traffic:
    tensors = [graph.tensor(name) for name in kernel.reads]
    unique = sum(_dram_bytes(graph, t, sizes, target) for t in (*tensors, *(s.tensor for s in kernel.stores)))
    looped = set(kernel.with_role(Role.LOOP))
    passes = _passes(kernel, looped)
    streamed = tuple(
        (frozenset(t.named_axes), tensor_bytes(t, sizes) * (passes if looped & set(t.named_axes) else 1))
        for t in tensors
    )
    return _Traffic(unique, streamed)


def _busiest_s(
    kernel: Kernel,
    graph: SGraph,
    target: Target,
    sizes: Mapping[Axis, int],
    traffic: _Traffic,
    work: Operations,
    grid: Mapping[Axis, int],
) -> float:
    """Seconds of the resource that a kernel keeps busiest with these tiles per grid axis."""
    programs = math.prod(grid.values()) * (DEFAULT_CELLS if kernel.with_role(Role.SPLIT) else 1)
    busy = min(1.0, max(programs, 1) / target.processors)
    cached = sum(moved * _repeats(axes, grid) for axes, moved in traffic.streamed)
    dot = other = 0
    for value, space in work:
        flops = elements(space, sizes) * _repeats(space, grid)
        if is_dot(value):
            dot += 2 * flops
        else:
            other += 2 * flops if value.op in REDUCTIONS else flops
    dot_s = dot / target.dot_flops_per_s.get(dot_dtype(kernel, graph), target.pointwise_flops_per_s)
    other_s = other / target.pointwise_flops_per_s
    busiest = max(traffic.unique / target.dram_bytes_per_s, cached / target.l2_bytes_per_s, dot_s, other_s)
    return busiest / busy * max(1.0, _widest_tile(kernel, sizes, work, grid) / RESIDENT_WORDS)


def _repeats(axes: frozenset[Axis], grid: Mapping[Axis, int]) -> int:
    """How many programs repeat what varies over these axes alone."""
    return math.prod(tiles for axis, tiles in grid.items() if axis not in axes)


def _default_grids(kernel: Kernel, sizes: Mapping[Axis, int], work: Operations) -> list[dict[Axis, int]]:
    """Tiles per grid axis: squares, for dot products one index of their batch axes; rows that fill a program."""
    order = {a: i for i, a in enumerate(kernel.stores[0].tensor.named_axes)}
    axes = sorted(kernel.with_role(Role.GRID), key=lambda a: (order.get(a, len(order)), a.key))
    batch = frozenset[Axis]().union(*(_batch_axes(v) for v, _ in work if is_dot(v)))
    outer = [frozenset(axes[:n]) for n in range(len(axes))]
    squares = [
        {a: sizes[a.base] if a in single else math.ceil(sizes[a.base] / DEFAULT_TILE) for a in axes}
        for single in dict.fromkeys((batch, *outer))
    ]
    inside = max(1, elements((a for a, r in kernel.roles if r in {Role.LOOP, Role.WHOLE, Role.SPLIT}), sizes))
    rows: dict[Axis, int] = {}
    for axis in reversed(axes):
        tile = max(1, DEFAULT_ELEMENTS // inside)
        rows[axis] = math.ceil(sizes[axis.base] / tile)
        inside *= max(1, min(tile, sizes[axis.base]))
    return [*squares, rows]


def _widest_tile(kernel: Kernel, sizes: Mapping[Axis, int], work: Operations, grid: Mapping[Axis, int]) -> int:
    """Elements of the largest tile that a program holds at default tiles: held axes count in full."""

    def tile(axis: Axis, role: Role) -> int:
        size = elements((axis,), sizes)
        if role is Role.GRID:
            return math.ceil(size / max(1, grid[axis]))
        return size if role is Role.WHOLE else min(size, DEFAULT_STEP)

    tiles = {a: tile(a, role) for a, role in kernel.roles}
    spaces = {v.free if is_dot(v) else space for v, space in work}
    spaces |= {x.free for x in leaves(s.value for s in kernel.stores)}
    return max((math.prod(tiles[a] for a in space) for space in spaces), default=1)


def _batch_axes(dot: Expr) -> frozenset[Axis]:
    """Axes that both operands of a dot product have and its result keeps: one product per index."""
    axes, operand = reduction(dot)
    spans = {f.free for f in factors(operand) if f.free & frozenset(axes)}
    widest = [s for s in spans if not any(s < t for t in spans)]
    return frozenset.intersection(*widest) - frozenset(axes)


def _passes(kernel: Kernel, looped: set[Axis]) -> int:
    """How often a program streams what it loops over: once per reduction that waits for the one before."""
    depth: dict[Expr, int] = {}
    for node in walk(s.value for s in kernel.stores):
        below = max((depth[a] for a in node.args), default=0)
        depth[node] = below + (node.op in REDUCTIONS and node.axis in looped)
    return max(1, *depth.values())
