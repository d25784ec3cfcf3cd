"""Time bounds and order: what a family cannot beat, and which family to look at first.

``lower_bound`` is a true one: datasheet peaks, every tensor moved once, nothing charged for what fits in the
last-level cache. ``kernel_estimate`` adds what the bound is blind to (work repeated by programs, too few programs) at
default tiles; it orders families and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from sgraph.axis import Axis
from sgraph.dags import elements
from sgraph.expr import REDUCTIONS, Expr, Op, factors, reduction, walk
from sgraph.ir import Kernel, Role, SGraph
from sgraph.program import DType, Tensor
from sgraph.target import Target

DEFAULT_TILE: Final = 64
"""Tile of a grid axis that takes part in dot products, in ``kernel_estimate``."""
DEFAULT_ELEMENTS: Final = 2048
"""Elements that one program of a kernel without dot products takes, in ``kernel_estimate``."""
DEFAULT_CELLS: Final = 8
"""Cells of a split axis in ``kernel_estimate``."""


def is_dot(value: Expr) -> bool:
    """Whether a sum contracts two operands, each with an axis of its own: work for tensor cores."""
    if value.op is not Op.SUM:
        return False
    axes, operand = reduction(value)
    spans = [f.free for f in factors(operand) if f.free & frozenset(axes)]
    widest = {s for s in spans if not any(s < t for t in spans)}
    return len(widest) == 2


def lower_bound(graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """Seconds that no instance of this family can beat on the target, launches included."""
    return work_bound(graph, target, sizes) + launches(graph) * target.launch_s


def work_bound(graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """The bound without launches, which is the same for every role assignment of a plan."""
    seen: set[str] = set()
    total = 0.0
    for kernel in graph.kernels:
        moved = 0
        for name in kernel.reads:
            tensor = graph.tensor(name)
            if name not in seen or tensor_bytes(tensor, sizes) > target.l2_bytes:
                moved += _dram_bytes(graph, tensor, sizes, target)
            seen.add(name)
        moved += sum(_dram_bytes(graph, s.tensor, sizes, target) for s in kernel.stores)
        dot_s, pointwise_s = arithmetic_seconds(kernel, graph, target, sizes)
        total += max(moved / target.dram_bytes_per_s, dot_s, pointwise_s)
    return total


def speed_of_light(graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """Seconds for the program's compulsory traffic and for this family's arithmetic, without launches."""
    program = graph.program
    moved = sum(tensor_bytes(t, sizes) for t in (*program.inputs, *(o.tensor for o in program.outputs)))
    arithmetic = [arithmetic_seconds(k, graph, target, sizes) for k in graph.kernels]
    return max(moved / target.dram_bytes_per_s, sum(d for d, _ in arithmetic), sum(p for _, p in arithmetic))


def launches(graph: SGraph) -> int:
    """Device kernels: one each, two where an axis is split."""
    return sum(2 if k.with_role(Role.SPLIT) else 1 for k in graph.kernels)


def tensor_bytes(tensor: Tensor, sizes: Mapping[Axis, int]) -> int:
    """Size of a tensor at these extents."""
    return tensor.dtype.bytes * elements(tensor.named_axes, sizes)


def _dram_bytes(graph: SGraph, tensor: Tensor, sizes: Mapping[Axis, int], target: Target) -> int:
    """What must cross the memory bus: nothing for an intermediate that fits in the last-level cache."""
    size = tensor_bytes(tensor, sizes)
    return 0 if size <= target.l2_bytes and tensor in graph.intermediates else size


def arithmetic_seconds(kernel: Kernel, graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> tuple[float, float]:
    """Least seconds of dot products and of other arithmetic, each at its peak."""
    peak = target.dot_flops_per_s.get(dot_dtype(kernel, graph), target.pointwise_flops_per_s)
    dot = other = 0
    for node in walk(s.value for s in kernel.stores):
        if node.op in REDUCTIONS:
            axes, operand = reduction(node)
            flops = 2 * elements(operand.free | frozenset(axes), sizes)
            dot, other = (dot + flops, other) if is_dot(node) else (dot, other + flops // 2)
        elif node.op in {Op.ADD, Op.RECIP, Op.SQRT, Op.EXP, Op.LOG, Op.CALL}:
            other += elements(node.free, sizes)
    return dot / peak, other / target.pointwise_flops_per_s


def dot_dtype(kernel: Kernel, graph: SGraph) -> DType:
    """Element type of the kernel's dot operands: the narrowest floating type it reads."""
    read = [graph.tensor(n).dtype for n in kernel.reads]
    floating = [d for d in read if d in {DType.BF16, DType.FP16, DType.FP32, DType.FP64}]
    return min(floating, key=lambda d: d.bytes, default=DType.FP32)


def kernel_estimate(kernel: Kernel, graph: SGraph, target: Target, sizes: Mapping[Axis, int]) -> float:
    """Seconds of one kernel at default tiles, repeated work and idle processors included. It only orders.

    ``graph`` names the tensors; its roles do not matter.
    """
    grid = _default_grid(kernel, sizes)
    split = kernel.with_role(Role.SPLIT)
    programs = math.prod(grid.values()) * (DEFAULT_CELLS if split else 1)
    busy = min(1.0, programs / target.processors)

    def repeated(axes: frozenset[Axis]) -> int:
        return math.prod(tiles for axis, tiles in grid.items() if axis not in axes)

    cached = unique = 0
    for name in kernel.reads:
        tensor = graph.tensor(name)
        size = tensor_bytes(tensor, sizes)
        unique += _dram_bytes(graph, tensor, sizes, target)
        cached += size * repeated(frozenset(tensor.named_axes)) * _passes(kernel, tensor)
    unique += sum(_dram_bytes(graph, s.tensor, sizes, target) for s in kernel.stores)
    dot_s, pointwise_s = _repeated_arithmetic(kernel, graph, target, sizes, grid)
    busiest = max(unique / target.dram_bytes_per_s, cached / target.l2_bytes_per_s, dot_s, pointwise_s)
    partials = 0.0
    if split:
        free = frozenset(a for s in kernel.stores for a in s.tensor.named_axes)
        partials = 2 * DEFAULT_CELLS * 4 * elements(free, sizes) / target.l2_bytes_per_s
    return busiest / busy + partials + (2 if split else 1) * (target.launch_s + target.memory_latency_s)


def _default_grid(kernel: Kernel, sizes: Mapping[Axis, int]) -> dict[Axis, int]:
    """Tiles per grid axis: squares for dot products, else rows, the last axis filling a program."""
    axes = kernel.with_role(Role.GRID)
    if any(is_dot(n) for n in walk(s.value for s in kernel.stores)):
        return {a: math.ceil(sizes[a.base] / DEFAULT_TILE) for a in axes}
    inside = elements((a for a, r in kernel.roles if r in {Role.LOOP, Role.WHOLE, Role.SPLIT}), sizes)
    grid: dict[Axis, int] = {}
    for axis in reversed(axes):
        tile = max(1, DEFAULT_ELEMENTS // inside)
        grid[axis] = math.ceil(sizes[axis.base] / tile)
        inside *= min(tile, sizes[axis.base])
    return grid


def _passes(kernel: Kernel, tensor: Tensor) -> int:
    """How often a program streams a tensor: once per chain of loops over it, once if it is held."""
    looped = set(kernel.with_role(Role.LOOP))
    if not looped & set(tensor.named_axes):
        return 1
    users = [n for n in walk(s.value for s in kernel.stores) if n.op in REDUCTIONS]
    deepest = max((_waits(n, looped) for n in users), default=1)
    return max(1, deepest)


def _waits(value: Expr, looped: set[Axis]) -> int:
    """Reductions over looped axes on the longest chain below a value, itself included."""
    depth: dict[Expr, int] = {}
    for node in walk([value]):
        below = max((depth[a] for a in node.args), default=0)
        depth[node] = below + (node.op in REDUCTIONS and node.axis in looped)
    return depth[value]


def _repeated_arithmetic(
    kernel: Kernel, graph: SGraph, target: Target, sizes: Mapping[Axis, int], grid: Mapping[Axis, int]
) -> tuple[float, float]:
    """Arithmetic with what every program repeats because its result does not vary over a grid axis."""
    peak = target.dot_flops_per_s.get(dot_dtype(kernel, graph), target.pointwise_flops_per_s)
    dot = other = 0.0
    for node in walk(s.value for s in kernel.stores):
        repeats = math.prod(tiles for axis, tiles in grid.items() if axis not in node.free)
        if node.op in REDUCTIONS:
            axes, operand = reduction(node)
            flops = 2 * elements(operand.free | frozenset(axes), sizes) * repeats
            dot, other = (dot + flops, other) if is_dot(node) else (dot, other + flops)
        elif node.op in {Op.ADD, Op.RECIP, Op.SQRT, Op.EXP, Op.LOG, Op.CALL}:
            other += elements(node.free, sizes) * repeats
    return dot / peak, other / target.pointwise_flops_per_s
