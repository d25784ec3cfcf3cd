"""Compile what a launcher would launch, for a named architecture, without a driver and without a GPU.

``compile_launch`` runs ``module.launch`` on meta tensors. Every ``kernel[grid](...)`` in it compiles with the very
specialisation a launch of 16-byte aligned tensors would get, and answers with what the compiler spent: registers,
spills, shared memory, instructions. Launch limits that compilation itself does not test are tested here.

In a search, compile through ``autotune.compile_pool``: a bad tile can take minutes, or take the process with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from autotune.module import Grid, JitKernel, Patches, bind_launch, launch_grid, patching
from autotune.targets import MAX_GRID, MAX_WARPS, SHARED_MEMORY_LIMIT_BYTES, TENSOR_MEMORY_COLUMNS
from sgraph.errors import CompilationFailed, UnknownTarget
from sgraph.target import Target

SPILL_LIMIT_BYTES: Final = 64
"""Stack frames up to this size appear without real spilling."""
RESERVED_SHARED_BYTES: Final = 1024
"""Shared memory the system keeps for itself per resident block."""
DETAIL_CHARACTERS: Final = 2000
"""Longest part of a compiler's message that is kept: its end, where the message is."""

INSTRUCTIONS: Final[Mapping[str, str]] = {
    "wgmma": r"wgmma\.mma_async\.sync",
    "mma": r"(?<![\w.])mma\.sync",
    "tcgen05": r"tcgen05\.mma",
    "cp_async": r"cp\.async\.c[ag]\.",
    "bulk": r"cp\.async\.bulk\.tensor",
}
"""What is counted in the PTX."""


@dataclass(frozen=True, slots=True)
class Meta:
    """A contiguous tensor argument, without contents."""

    shape: tuple[int, ...]
    """Its extents."""
    dtype: str
    """Its element type, by torch name: ``bfloat16``."""


Argument = Meta | int | float | bool
"""One positional argument of a launcher."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one kernel launch takes, as the compiler reports it."""

    kernel: str
    """Name of the kernel function."""
    architecture: int
    """Compute capability times ten that it was compiled for."""
    registers: int
    """32-bit registers per thread."""
    spill_bytes: int
    """Stack frame per thread: a proxy for spilled registers, exact where it is 0."""
    shared_bytes: int
    """Shared memory per block."""
    warps: int
    """Warps per block."""
    dot_instructions: int
    """Tensor-core instructions in the text: the sum of the next three."""
    wgmma: int
    """Warp-group instructions (sm_90)."""
    mma: int
    """Warp instructions (every architecture; slower than the architecture's own from sm_90 on)."""
    tcgen05: int
    """Tensor-memory instructions (sm_100)."""
    async_copies: int
    """Asynchronous copies to shared memory, tensor (TMA) copies included; 0 means the loop is not pipelined."""
    grid: Grid
    """Blocks launched along x, y, z."""
    seconds: float
    """Time to compile it; 0 for a launch that repeats an earlier one of the same call."""

    @property
    def programs(self) -> int:
        """Blocks launched in all."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def spills(self) -> bool:
        """Whether it spills registers in earnest."""
        return self.spill_bytes > SPILL_LIMIT_BYTES

    def fits(self, target: Target) -> bool:
        """Whether at least one block can be resident on a multiprocessor of the target."""
        return self.shared_bytes <= target.shared_memory_bytes and self.resident_programs(target) > 0

    def resident_programs(self, target: Target) -> int:
        """Blocks that one multiprocessor of the target can hold at a time (CUDA occupancy rules; 0: none)."""
        if self.warps > MAX_WARPS:
            return 0
        registers_per_warp = 32 * 8 * -(-max(self.registers, 1) // 8)  # handed out eight per thread at a time
        by_registers = target.registers // (registers_per_warp * self.warps)
        shared = self.shared_bytes + RESERVED_SHARED_BYTES
        by_shared = target.shared_memory_per_processor_bytes // shared
        return min(by_registers, by_shared, 64 // self.warps, 32)


class Reason(StrEnum):
    """Why there is no kernel, in a few words."""

    SHARED_MEMORY = "out of shared memory"
    TENSOR_MEMORY = "out of tensor memory"
    WARPS = "too many warps"
    GRID = "grid too large"
    COMPILER = "compiler error"
    ASSEMBLER = "assembler error"
    LAUNCHER = "launcher error"
    SOURCE = "source does not load"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class CompileFailure:
    """Why a launch does not compile. Data, not an exception: in a search it is an ordinary outcome."""

    reason: Reason
    """The class of failure; compares equal to its text."""
    detail: str
    """The end of the compiler's message."""

    @property
    def lasting(self) -> bool:
        """Whether the same job would fail again: not so for a timeout or a crash, which depend on the machine."""
        return self.reason not in {Reason.TIMEOUT, Reason.CRASH}


Outcome = list[Resources] | CompileFailure
"""One record per kernel launch, or why there is none."""


class LaunchDoesNotCompile(CompilationFailed):
    """``compile_launch`` found that a launch does not compile, or could not be launched."""

    def __init__(self, failure: CompileFailure, *, where: str) -> None:
        super().__init__(f"{failure.reason}: {failure.detail}", where=where, do="smaller tiles, fewer stages or warps")
        self.failure = failure
        """The same as data."""


def compile_launch(
    module: ModuleType, architecture: int, arguments: Sequence[Argument], config: Mapping[str, object]
) -> list[Resources]:
    """Compile every kernel launch of ``module.launch(*arguments, config=config)``; one record per launch, in order.

    Nothing runs. Other threads that interpret or compile through this package wait meanwhile. The compiled
    kernels stay in Triton's own cache on disk, where a later launch on a device of that architecture finds them.

    Raises:
        LaunchDoesNotCompile: the compiler, or a launch limit of the architecture, or the launcher refuses.
        UnknownTarget: no such architecture.
        SettingsError: ``TRITON_INTERPRET`` is set.
    """
    outcome = try_compile(module, architecture, arguments, config)
    if isinstance(outcome, CompileFailure):
        raise LaunchDoesNotCompile(outcome, where=f"{module.__name__} for sm_{architecture}")
    return outcome


def try_compile(
    module: ModuleType, architecture: int, arguments: Sequence[Argument], config: Mapping[str, object]
) -> Outcome:
    """``compile_launch`` with its failures as data."""
    check_architecture(architecture)
    launches, inputs = _Launches(architecture), _meta_tensors(arguments)
    noise = io.StringIO()  # ptxas errors print the whole PTX before they are raised
    with patching("compile_launch()") as patches, _stand_in_driver(architecture), contextlib.redirect_stdout(noise):
        launches.divert(patches)
        try:
            module.launch(*inputs, config=dict(config))
        except _Refused as refused:
            return refused.failure
        except Exception as error:
            return CompileFailure(Reason.LAUNCHER, _message(error))
        finally:
            launches.forget()
    return launches.resources


def _meta_tensors(arguments: Sequence[Argument]) -> list[object]:
    import torch

    return [
        torch.empty(a.shape, dtype=getattr(torch, a.dtype), device="meta") if isinstance(a, Meta) else a
        for a in arguments
    ]


def check_architecture(architecture: int) -> None:
    """Raise UnknownTarget for an architecture without known limits."""
    if architecture not in SHARED_MEMORY_LIMIT_BYTES:
        known = ", ".join(map(str, SHARED_MEMORY_LIMIT_BYTES))
        raise UnknownTarget(f"no architecture sm_{architecture}", do=f"known: {known}")


# ------------------------------------------------------------------------------------------------- launches


class _StandInDriver:
    """What ``JITFunction.run`` asks of a driver when it only compiles."""

    def __init__(self, architecture: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self) -> object:
        return self.target

    def get_current_device(self) -> str:
        """The key of the kernel cache; never that of a real device, which is a number."""
        return _device_key(self.target.arch)

    def get_current_stream(self, device: object) -> int:
        del device
        return 0


def _device_key(architecture: object) -> str:
    return f"prism-sm_{architecture}"


@contextlib.contextmanager
def _stand_in_driver(architecture: int) -> Generator[None]:
    from triton.runtime.driver import driver

    active: Any = driver._active  # pyright: ignore[reportPrivateUsage]  # .active would look for a real driver
    driver.set_active(cast(Any, _StandInDriver(architecture)))
    try:
        yield
    finally:
        driver._active = active  # pyright: ignore[reportPrivateUsage]


class _Refused(Exception):
    """Carries a failure out of the launcher."""

    def __init__(self, failure: CompileFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class _Launches:
    """The launches of one launcher call, each compiled as it comes."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture
        self.resources: list[Resources] = []
        self._kernels: list[JitKernel] = []
        self._seen: dict[int, tuple[Any, dict[str, int]]] = {}

    def divert(self, patches: Patches) -> None:
        """Make every kernel launch a compilation."""
        from triton.runtime.jit import JITFunction

        compile_only: Callable[..., Any] = JITFunction.__dict__["run"]

        def run(kernel: JitKernel, *args: object, grid: object, warmup: bool, **keywords: object) -> object:
            del warmup
            self._kernels.append(kernel)
            start = time.perf_counter()
            try:
                bound, _ = bind_launch(kernel, args, keywords)
                sizes = launch_grid(grid, bound)
                compiled: Any = compile_only(kernel, *args, grid=sizes, warmup=True, **keywords)
                self._record(compiled, kernel, sizes, start)
            except _Refused:
                raise
            except Exception as error:
                raise _Refused(_classified(error)) from error
            return compiled

        patches.set(JITFunction, "run", run)

    def forget(self) -> None:
        """Let go of the compiled kernels: a long search would keep them all in memory."""
        for kernel in self._kernels:
            kernel.device_caches.pop(_device_key(self.architecture), None)

    def _record(self, compiled: Any, kernel: JitKernel, grid: Grid, start: float) -> None:
        repeated = id(compiled) in self._seen
        if not repeated:  # the kernel is kept with its figures, so that its id stays its own
            self._seen[id(compiled)] = compiled, _figures(compiled, kernel.fn.__name__)
        figures = self._seen[id(compiled)][1]
        resources = Resources(
            kernel=kernel.fn.__name__,
            architecture=self.architecture,
            dot_instructions=figures["wgmma"] + figures["mma"] + figures["tcgen05"],
            grid=grid,
            seconds=0.0 if repeated else round(time.perf_counter() - start, 4),
            **figures,
        )
        _check_limits(resources, int(getattr(compiled.metadata, "tmem_size", None) or 0))
        self.resources.append(resources)


def _check_limits(resources: Resources, tensor_memory_columns: int) -> None:
    """What only a launch would refuse."""
    limit = SHARED_MEMORY_LIMIT_BYTES[resources.architecture]
    name, shared, warps = resources.kernel, resources.shared_bytes, resources.warps
    if shared > limit:
        raise _Refused(CompileFailure(Reason.SHARED_MEMORY, f"{name} needs {shared} bytes of {limit}"))
    if tensor_memory_columns > TENSOR_MEMORY_COLUMNS:
        columns = f"{tensor_memory_columns} columns of {TENSOR_MEMORY_COLUMNS}"
        raise _Refused(CompileFailure(Reason.TENSOR_MEMORY, f"{name} needs {columns}"))
    if warps > MAX_WARPS:
        raise _Refused(CompileFailure(Reason.WARPS, f"{name} runs on {warps} warps, at most {MAX_WARPS} launch"))
    if any(n > most for n, most in zip(resources.grid, MAX_GRID, strict=True)):
        raise _Refused(CompileFailure(Reason.GRID, f"{name} has grid {resources.grid}, at most {MAX_GRID}"))


def _classified(error: Exception) -> CompileFailure:
    """An exception out of Triton's compiler as a failure."""
    match type(error).__name__:
        case "OutOfResources":
            shared = "shared" in str(getattr(error, "name", ""))
            return CompileFailure(Reason.SHARED_MEMORY if shared else Reason.TENSOR_MEMORY, _message(error))
        case "PTXASError":
            return CompileFailure(Reason.ASSEMBLER, _message(error))
        case _:
            return CompileFailure(Reason.COMPILER, _message(error))


def _message(error: BaseException) -> str:
    """Class and message of an error, with those it was raised from; the end of it if long."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        lines.append(f"{type(seen).__name__}: {seen}")
        seen = seen.__cause__
    return "\n".join(lines)[-DETAIL_CHARACTERS:]


# ------------------------------------------------------------------------------------------------- figures


def _figures(compiled: Any, name: str) -> dict[str, int]:
    """What the compiled kernel says of itself, and what cuobjdump reads from it."""
    ptx: str = compiled.asm["ptx"]
    counts = {kind: len(re.findall(pattern, ptx)) for kind, pattern in INSTRUCTIONS.items()}
    registers, stack = _registers_and_stack(compiled.asm["cubin"], name)
    return {
        "registers": registers,
        "spill_bytes": stack,
        "shared_bytes": int(compiled.metadata.shared),
        "warps": int(compiled.metadata.num_warps),
        "wgmma": counts["wgmma"],
        "mma": counts["mma"],
        "tcgen05": counts["tcgen05"],
        "async_copies": counts["cp_async"] + counts["bulk"],
    }


def _registers_and_stack(cubin: bytes, name: str) -> tuple[int, int]:
    """Registers and stack bytes per thread, by the ``cuobjdump`` that ships with Triton."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(prefix="prism-", suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        dump = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.findall(r"REG:(\d+) STACK:(\d+)", dump.stdout)
    if not found:
        raise RuntimeError(f"cuobjdump says nothing of {name}: {dump.stderr or dump.stdout}")
    return max(int(r) for r, _ in found), max(int(s) for _, s in found)


def remember_triton_key(record: Path) -> None:
    """Spare a process the hash over all of Triton (3 s of work) by which Triton names what it caches.

    The hash is kept beside the outcomes, and holds as long as no file of Triton changes its size or time.
    """
    import triton
    from triton.runtime import cache

    root = Path(triton.__file__).parent
    files = sorted(p for kind in ("*.py", "*.so") for p in root.rglob(kind))
    stamps = [f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files]
    stamp = hashlib.sha256("\n".join(stamps).encode()).hexdigest()
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        key = str(kept["key"]) if kept["stamp"] == stamp else ""
    except (OSError, ValueError, KeyError, TypeError):
        key = ""
    if not key:
        key = cache.triton_key()
        write_json(record, {"stamp": stamp, "key": key})
    cache.triton_key = lambda: key


# ----------------------------------------------------------------------------------------------------- JSON


def argument_to_json(argument: Argument) -> object:
    """An argument as a JSON value."""
    match argument:
        case Meta(shape, dtype):
            return {"shape": list(shape), "dtype": dtype}
        case _:
            return argument


def argument_from_json(value: Any) -> Argument:
    """The argument that ``argument_to_json`` wrote."""
    return Meta(tuple(value["shape"]), value["dtype"]) if isinstance(value, dict) else value


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values."""
    if isinstance(outcome, CompileFailure):
        return {"failure": asdict(outcome)}
    return {"resources": [asdict(r) for r in outcome]}


def outcome_from_json(record: Any) -> Outcome:
    """The outcome that ``outcome_to_json`` wrote.

    Raises:
        ValueError: the record is something else.
    """
    try:
        if "failure" in record:
            return CompileFailure(Reason(record["failure"]["reason"]), str(record["failure"]["detail"]))
        return [_resources_from_json(r) for r in record["resources"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a compilation record: {error}") from error


def _resources_from_json(record: dict[str, Any]) -> Resources:
    x, y, z = (int(n) for n in record["grid"])
    kernel, seconds = str(record["kernel"]), float(record["seconds"])
    counts = {k: int(v) for k, v in record.items() if k not in {"grid", "kernel", "seconds"}}
    return Resources(kernel=kernel, grid=(x, y, z), seconds=seconds, **counts)


def write_json(path: Path, value: object) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(value, file)
    Path(file.name).replace(path)
