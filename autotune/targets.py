"""The devices Prism knows by name, and how it recognises the one it runs on.

Peaks are datasheet figures for dense operands, so that times bounded by them are bounded truly. The bandwidth
and size of the last-level cache, the latency and the cost of a launch are not on datasheets: those are
assumptions to order kernels by, until a calibration on the device replaces them.

**fp32 dot products.** ``dot_flops_per_s[FP32]`` is the rate of the arithmetic that an ``input_precision="ieee"``
dot compiles to: fused multiply-adds outside the tensor cores, the same as ``pointwise_flops_per_s``. Tensor
cores read fp32 as tf32, which drops 13 bits and is another function numerically; who prints such dots takes
their peak from ``TF32_FLOPS_PER_S`` (``tf32x3``, three products for nearly fp32 accuracy: a third of it).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sgraph.errors import UnknownTarget
from sgraph.program import DType
from sgraph.target import Target

log = logging.getLogger("prism.target")

KIB: Final = 1024
MIB: Final = 1024 * KIB
TERA: Final = 1e12

SHARED_MEMORY_LIMIT_BYTES: Final[Mapping[int, int]] = MappingProxyType(
    {
        75: 64 * KIB,
        80: 163 * KIB,
        86: 99 * KIB,
        87: 163 * KIB,
        89: 99 * KIB,
        90: 227 * KIB,
        100: 227 * KIB,
        103: 227 * KIB,
        120: 99 * KIB,
        121: 99 * KIB,
    }
)
"""Shared memory one block may use, by compute capability times ten (CUDA programming guide)."""

TENSOR_MEMORY_COLUMNS: Final = 512
"""Columns of tensor memory a block may use, on architectures that have it (100 and up)."""

MAX_WARPS: Final = 32
"""Warps of one block on every architecture; 64 of them compile and do not launch."""

MAX_GRID: Final = (2**31 - 1, 65535, 65535)
"""Largest grid along x, y and z on every architecture."""


def _dots(bf16: float, fp32: float, fp64: float) -> dict[DType, float]:
    """Dense rates by operand type, given in TFLOP/s; fp16 runs as fast as bf16 on all of these."""
    return {DType.BF16: bf16 * TERA, DType.FP16: bf16 * TERA, DType.FP32: fp32 * TERA, DType.FP64: fp64 * TERA}


_A100 = Target(
    name="a100",
    kind="cuda",
    architecture=80,
    processors=108,
    shared_memory_bytes=163 * KIB,
    shared_memory_per_processor_bytes=164 * KIB,
    registers=65536,
    l2_bytes=40 * MIB,
    dram_bytes_per_s=2.04e12,
    l2_bytes_per_s=4.5e12,
    dot_flops_per_s=_dots(312, 19.5, 19.5),
    pointwise_flops_per_s=19.5e12,
    launch_s=1.5e-6,
    memory_latency_s=0.57e-6,
)
"""A100 SXM, 80 GB."""

_H100 = Target(
    name="h100",
    kind="cuda",
    architecture=90,
    processors=132,
    shared_memory_bytes=227 * KIB,
    shared_memory_per_processor_bytes=228 * KIB,
    registers=65536,
    l2_bytes=50 * MIB,
    dram_bytes_per_s=3.35e12,
    l2_bytes_per_s=5.6e12,
    dot_flops_per_s=_dots(989, 67, 67),
    pointwise_flops_per_s=67e12,
    launch_s=1.5e-6,
    memory_latency_s=0.65e-6,
)
"""H100 SXM, 80 GB."""

_H200 = replace(_H100, name="h200", l2_bytes=60 * MIB, dram_bytes_per_s=4.8e12, memory_latency_s=0.70e-6)
"""H200 SXM: the H100's processor with more and faster memory. The driver reports 60 MB of L2."""

_B200 = Target(
    name="b200",
    kind="cuda",
    architecture=100,
    processors=148,
    shared_memory_bytes=227 * KIB,
    shared_memory_per_processor_bytes=228 * KIB,
    registers=65536,
    l2_bytes=126 * MIB,
    dram_bytes_per_s=8e12,
    l2_bytes_per_s=9e12,
    dot_flops_per_s=_dots(2250, 75, 40),
    pointwise_flops_per_s=75e12,
    launch_s=1.5e-6,
    memory_latency_s=0.80e-6,
)
"""B200 SXM."""


def _last_level_cache_bytes() -> int:
    """The largest cache the kernel reports for the first core; 32 MiB, a guess, where it reports none."""
    sizes: list[int] = []
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            match = re.fullmatch(r"(\d+)([KM])", size.read_text().strip())
        except OSError:
            continue
        if match:
            sizes.append(int(match[1]) * {"K": KIB, "M": MIB}[match[2]])
    return max(sizes, default=32 * MIB)


def _cpu() -> Target:
    """This machine's processor. Cores and cache are read; **the rest is rough assumption**.

    Assumed: 50 GB/s of memory bandwidth, 20 GB/s of last-level cache per core, 3 GHz with two 512-bit fused
    multiply-add units per core (192 GFLOP/s fp32), 16-bit dots twice and fp64 half as fast, 1 MiB of private
    cache in the place of shared memory, 5 µs to dispatch one torch operator. The CPU target is measured, never
    modelled: these only make its figures readable.
    """
    cores = os.cpu_count() or 1
    fp32 = 0.192 * cores
    return Target(
        name="cpu",
        kind="cpu",
        architecture=0,
        processors=cores,
        shared_memory_bytes=1 * MIB,
        shared_memory_per_processor_bytes=1 * MIB,
        registers=32 * 16,
        l2_bytes=_last_level_cache_bytes(),
        dram_bytes_per_s=50e9,
        l2_bytes_per_s=20e9 * cores,
        dot_flops_per_s=_dots(2 * fp32, fp32, fp32 / 2),
        pointwise_flops_per_s=fp32 * TERA,
        launch_s=5e-6,
        memory_latency_s=0.1e-6,
    )


TARGETS: Final[Mapping[str, Target]] = MappingProxyType({t.name: t for t in (_A100, _H100, _H200, _B200, _cpu())})
"""Every target that has a name."""

TF32_FLOPS_PER_S: Final[Mapping[str, float]] = MappingProxyType(
    {"a100": 156e12, "h100": 495e12, "h200": 495e12, "b200": 1125e12}
)
"""Dense peak of dots that read fp32 operands as tf32, by target name; a CPU has none."""


def find_target(name: str) -> Target:
    """The target of that name, in any case; or the one that a ``.toml`` file describes (``autotune.target_file``).

    Raises:
        UnknownTarget: there is none; the message lists what there is and what looks alike.
        InputError: the file does not describe a target.
    """
    if name.strip().endswith(".toml"):
        from autotune.target_file import read_target

        return read_target(Path(name.strip()), TARGETS)
    wanted = name.strip().lower()
    if wanted in TARGETS:
        return TARGETS[wanted]
    alike = get_close_matches(wanted, TARGETS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    raise UnknownTarget(
        f"no target named {name!r}", where="--target", do=f"{hint}known: {', '.join(TARGETS)}, or a .toml file"
    )


# ------------------------------------------------------------------------------------------------ detection


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the driver says of one device."""

    name: str
    """Marketing name: ``NVIDIA H100 80GB HBM3``."""
    architecture: int
    """Compute capability times ten."""
    processors: int
    """Streaming multiprocessors."""
    shared_memory_bytes: int
    """Most shared memory a block may opt into; 0 if not reported."""
    shared_memory_per_processor_bytes: int
    """Shared memory of one multiprocessor; 0 if not reported."""
    registers: int
    """32-bit registers of one multiprocessor; 0 if not reported."""
    l2_bytes: int
    """Last-level cache; 0 if not reported."""
    dram_bytes_per_s: float
    """Bandwidth from memory clock and bus width; 0 if not reported."""


def detect_target(device: int = 0) -> Target:
    """The CUDA device with that index as a target, or the CPU where there is no CUDA device.

    Figures of the device itself replace those of the named target it matches. A device of no known name gets
    the peaks of the nearest architecture, and a warning in the log (``prism.target``) that says so.
    """
    import torch

    if not torch.cuda.is_available():
        return TARGETS["cpu"]
    return target_of(_device_facts(torch.cuda.get_device_properties(device)))


def _device_facts(properties: Any) -> DeviceFacts:  # a torch class without stubs, fields differ by version
    def number(name: str) -> int:
        return int(getattr(properties, name, 0) or 0)

    clock_hz, bus_bits = number("memory_clock_rate") * 1e3, number("memory_bus_width")
    return DeviceFacts(
        name=str(properties.name),
        architecture=10 * number("major") + number("minor"),
        processors=number("multi_processor_count"),
        shared_memory_bytes=number("shared_memory_per_block_optin"),
        shared_memory_per_processor_bytes=number("shared_memory_per_multiprocessor"),
        registers=number("regs_per_multiprocessor"),
        l2_bytes=number("L2_cache_size"),
        dram_bytes_per_s=2 * clock_hz * bus_bits / 8,  # two transfers per clock
    )


def target_of(facts: DeviceFacts) -> Target:
    """The target that describes a CUDA device."""
    words = set(re.split(r"[^a-z0-9]+", facts.name.lower()))
    named = [t for t in TARGETS.values() if t.name in words and t.architecture == facts.architecture]
    if named and named[0].processors == facts.processors:
        return _with_facts(named[0], facts)
    near = min(
        (t for t in TARGETS.values() if t.kind == "cuda"),
        key=lambda t: (
            abs(t.architecture - facts.architecture),
            t.name not in words,
            abs(t.dram_bytes_per_s - facts.dram_bytes_per_s),
        ),
    )
    log.warning(
        "%s (sm_%d, %d multiprocessors) is not a device Prism has figures for: arithmetic peaks are those of %s, "
        "so shares of the speed of light are only indicative",
        facts.name,
        facts.architecture,
        facts.processors,
        near.name,
    )
    name = re.sub(r"[^a-z0-9]+", "-", facts.name.lower()).strip("-")
    limit = SHARED_MEMORY_LIMIT_BYTES.get(facts.architecture, near.shared_memory_bytes)
    return replace(
        _with_facts(near, facts),
        name=name,
        architecture=facts.architecture,
        shared_memory_bytes=facts.shared_memory_bytes or limit,
        dram_bytes_per_s=facts.dram_bytes_per_s or near.dram_bytes_per_s,
    )


def _with_facts(target: Target, facts: DeviceFacts) -> Target:
    """``target`` with what the device reported of itself; datasheet bandwidth and peaks stay."""
    return replace(
        target,
        processors=facts.processors or target.processors,
        shared_memory_bytes=facts.shared_memory_bytes or target.shared_memory_bytes,
        shared_memory_per_processor_bytes=(
            facts.shared_memory_per_processor_bytes or target.shared_memory_per_processor_bytes
        ),
        registers=facts.registers or target.registers,
        l2_bytes=facts.l2_bytes or target.l2_bytes,
    )
