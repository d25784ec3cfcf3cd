"""What a device really does, measured in seconds and kept: replaces the assumptions of a target, not its datasheet.

Lower bounds stay true ones: datasheet peaks of a GPU are never lowered. Replaced are the cache's bandwidth, the
latency and the cost of a launch, which are on no datasheet; and of a CPU everything, for nothing of it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from sgraph.errors import InputError
from sgraph.program import DType
from sgraph.target import Target

DRAM_BYTES: Final = 1 << 28
"""Bytes of a copy that no cache holds."""
REPEATS: Final = 5


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured on one device."""

    target: str
    """Name of the target it belongs to."""
    device: str
    date: str
    copy_bytes_per_s: float
    """Memory copy, read and write counted."""
    cache_bytes_per_s: float
    """The same within the last-level cache."""
    dot_flops_per_s: Mapping[str, float]
    """Matrix product by element type."""
    launch_s: float
    """One more kernel in a captured graph; on a CPU one more torch operator."""
    latency_s: float
    """Of one dependent load from memory."""

    def to_json(self) -> str:
        """As kept."""
        return json.dumps(asdict(self), indent=1) + "\n"


def calibration_file(folder: Path, target: Target) -> Path:
    """Where the calibration of a target is kept."""
    return folder / f"{target.name}.json"


def keep(calibration: Calibration, folder: Path) -> Path:
    """Write it where ``calibrated`` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{calibration.target}.json"
    path.write_text(calibration.to_json(), encoding="utf-8")
    return path


def calibrated(target: Target, folder: Path) -> Target:
    """The target with what was measured of it; as it is where nothing was.

    Raises:
        InputError: the file is not a calibration.
    """
    path = calibration_file(folder, target)
    if not path.exists():
        return target
    try:
        found = Calibration(**json.loads(path.read_text(encoding="utf-8")))
        dots = {DType(name): float(flops) for name, flops in found.dot_flops_per_s.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"not a calibration: {error}", where=str(path), do="remove it, or calibrate again") from error
    assumed = replace(
        target,
        l2_bytes_per_s=found.cache_bytes_per_s,
        launch_s=found.launch_s,
        memory_latency_s=found.latency_s,
    )
    if target.kind != "cpu":
        return assumed
    known = {**target.dot_flops_per_s, **dots}
    return replace(
        assumed,
        dram_bytes_per_s=found.copy_bytes_per_s,
        dot_flops_per_s=known,
        pointwise_flops_per_s=known[DType.FP32],
    )


def calibrate(target: Target, device: int = 0) -> Calibration:
    """Measure this machine's processor, or its CUDA device; about ten seconds.

    Raises:
        InputError: the target is a GPU, and there is none or another one.
    """
    import torch

    if target.kind == "cpu":
        from autotune.cpu_baselines import environment

        return _measured(target, environment().model, torch.device("cpu"), _cpu_seconds)
    if not torch.cuda.is_available():
        raise InputError(
            f"{target.name} cannot be calibrated: this machine has no CUDA device",
            where="--target",
            do="run it on a machine with the GPU, or name --target cpu",
        )
    from autotune.targets import detect_target

    here = detect_target(device)
    if here.name != target.name:
        raise InputError(f"the device here is {here.name}, not {target.name}", where="--target", do="leave it out")
    return _measured(here, torch.cuda.get_device_name(device), torch.device("cuda", device), _cuda_seconds)


def _measured(target: Target, device: str, where: Any, seconds: Callable[[Callable[[], object]], float]) -> Calibration:
    import torch

    def copy(size: int) -> float:
        source = torch.ones(size // 4, device=where)
        sink = torch.empty_like(source)
        return 2 * size / seconds(lambda: sink.copy_(source))

    def dot(dtype: torch.dtype) -> float:
        n = 1024 if target.kind == "cpu" else 8192
        a, b = (torch.randn(n, n, device=where).to(dtype) for _ in range(2))
        return 2 * n**3 / seconds(lambda: a @ b)

    tiny = torch.ones(8, device=where)
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    chain = 64
    launch = seconds(lambda: [tiny.add_(0) for _ in range(chain)]) / chain
    return Calibration(
        target.name,
        device,
        time.strftime("%Y-%m-%d"),
        copy(DRAM_BYTES if target.kind == "cpu" else 4 * DRAM_BYTES),
        copy(max(1 << 16, target.l2_bytes // 8)),
        {n: dot(k) for n, k in kinds.items()},
        launch,
        _latency(where, seconds, launch) or target.memory_latency_s,
    )


def _latency(where: Any, seconds: Callable[[Callable[[], object]], float], launch: float) -> float:
    """A gather of one element at a random place of a large table, again and again, less the operators' own cost.

    0 where the operators' cost hides it.
    """
    import torch

    table = torch.randperm(1 << 24, device=where)
    place = torch.zeros(1, dtype=torch.int64, device=where)
    chain = 64

    def walk() -> object:
        at = place
        for _ in range(chain):
            at = table[at]
        return at

    found = seconds(walk) / chain - launch
    return found if found > 2e-8 else 0.0


def _cpu_seconds(call: Callable[[], object]) -> float:
    """The fastest of several calls."""
    call()
    times: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def _cuda_seconds(call: Callable[[], object]) -> float:
    """The fastest of several replays of a captured graph."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    times: list[float] = []
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e-3 * start.elapsed_time(end))
    return min(times)
