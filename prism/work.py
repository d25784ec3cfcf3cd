"""What a plan has to do, whatever its parameters: arithmetic and memory traffic, for rooflines."""

from __future__ import annotations

from collections.abc import Mapping

from sgraph.axis import Axis
from sgraph.bounds import arithmetic, tensor_bytes
from sgraph.ir import SGraph


def work_of(graph: SGraph, sizes: Mapping[Axis, int]) -> tuple[float, float]:
    """Floating-point operations of a call, and bytes that its kernels read and write once each; folds are no part."""
    flops = moved = 0
    for kernel in (k for k in graph.kernels if not k.fold):
        flops += sum(arithmetic(kernel, sizes))
        tensors = [*map(graph.tensor, kernel.reads), *(s.tensor for s in kernel.stores)]
        moved += sum(tensor_bytes(t, sizes) for t in tensors)
    return float(flops), float(moved)
