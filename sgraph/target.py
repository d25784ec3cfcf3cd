"""What a device can do, as data: limits that decide feasibility, peaks that bound time from below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sgraph.program import DType


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of device. Peaks are datasheet values: a lower bound on time must be a true one."""

    name: str
    """As given on the command line: ``h200``."""
    kind: str
    """``cuda`` or ``cpu``."""
    architecture: int
    """CUDA compute capability times ten (90), 0 for a CPU."""
    processors: int
    """Streaming multiprocessors, or CPU cores."""
    shared_memory_bytes: int
    """Shared memory that one program may use."""
    shared_memory_per_processor_bytes: int
    """Shared memory of one multiprocessor, shared by its resident programs."""
    registers: int
    """32-bit registers per multiprocessor."""
    l2_bytes: int
    """Last-level cache."""
    dram_bytes_per_s: float
    """Peak memory bandwidth."""
    l2_bytes_per_s: float
    """Peak bandwidth of the last-level cache."""
    dot_flops_per_s: Mapping[DType, float]
    """Peak dense dot-product rate by operand type."""
    pointwise_flops_per_s: float
    """Peak rate of fp32 arithmetic outside dot products."""
    launch_s: float
    """Cost of one more kernel in a captured graph."""
    memory_latency_s: float
    """Latency of a load that misses every cache."""
