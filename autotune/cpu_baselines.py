"""What a printed plan has to beat on a CPU: eager torch, and Inductor with and without autotuning.

Also what has to be known of the machine to believe a CPU time. This module imports torch at the top: import it at
first use. Three traps make CPU speed-ups look larger than they are: MKL's slow path on AMD, page faults of large
temporaries, and ``options={"freezing": True}``, which torch ignores (it must be set globally around the first
call). The first two are recorded, the third is avoided.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import re
import shutil
import signal
import threading
import time
import types
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch

from sgraph.errors import CompilationFailed

Function = Callable[..., object]

log = logging.getLogger("prism.cpu")


@dataclass(frozen=True, slots=True)
class CpuEnvironment:
    """Facts about the machine that CPU times depend on."""

    model: str
    """CPU model."""
    threads: int
    """Threads that torch uses."""
    compiler: str | None
    """Path of the C++ compiler that Inductor needs; None if there is none."""
    mkl_shim: str
    """``not needed`` (no AMD CPU), ``active`` or ``missing`` (MKL takes its slow path)."""
    large_blocks: str
    """``kept`` if glibc keeps freed blocks above 32 MB, else ``page faults``."""
    cache_bytes: int
    """Size of the last-level cache; 0 if unknown."""
    torch_version: str
    """Version of torch."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """One baseline, ready to call, or why there is none."""

    name: str
    """``eager``, ``inductor``, ``inductor max-autotune``."""
    function: Function | None
    """None if it failed."""
    failure: str = ""
    """Why it failed."""


DEFAULT: Final = "inductor"
AUTOTUNED: Final = "inductor max-autotune"


def environment() -> CpuEnvironment:
    """The facts as they are now."""
    return CpuEnvironment(
        model=_model(),
        threads=torch.get_num_threads(),
        compiler=compiler(),
        mkl_shim=_mkl_shim(),
        large_blocks=_large_blocks(os.environ.get("GLIBC_TUNABLES", "")),
        cache_bytes=_last_level_cache(),
        torch_version=str(torch.__version__),
    )


def compiler() -> str | None:
    """The C++ compiler that Inductor would use."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, ("g++", "clang++"))), None)


def eager(function: Function) -> Baseline:
    """The function as it is."""
    return Baseline("eager", function)


def inductor(function: Function, inputs: Sequence[torch.Tensor], seconds: float) -> Baseline:
    """``torch.compile`` with its defaults, compiled for these inputs within a number of seconds."""
    return _built(DEFAULT, lambda: compile_function(function, inputs, seconds))


def autotuned(function: Function, inputs: Sequence[torch.Tensor], seconds: float) -> Baseline:
    """``torch.compile`` with max-autotune and freezing, compiled for these inputs within a number of seconds."""
    return _built(AUTOTUNED, lambda: compile_function(function, inputs, seconds, autotune=True))


def compile_function(
    function: Function, inputs: Sequence[torch.Tensor], seconds: float, *, autotune: bool = False
) -> Function:
    """The function compiled by Inductor; the first call, which compiles, has been made.

    The result belongs to these shapes: others compile again. After ``seconds`` the C++ compiler is ended.

    Raises:
        CompilationFailed: there is no compiler, or the time was up. Whatever else the compiler raises is passed on.
    """
    if compiler() is None:
        raise CompilationFailed("Inductor needs a C++ compiler", do="install g++ or set CXX")
    deadline = time.monotonic() + seconds
    try:
        return _compiled(function, inputs, autotune, deadline, fast_start=True)
    except Exception as error:
        if time.monotonic() >= deadline:
            raise CompilationFailed(f"not compiled within {seconds:.0f} s", do="raise the budget") from error
        # The short cuts trust the processor's own list of instruction sets; an old compiler may know fewer.
        log.info("inductor: second attempt with its own checks, after %s", type(error).__name__)
    return _compiled(function, inputs, autotune, deadline, fast_start=False)


def reason(error: BaseException) -> str:
    """An exception as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def _built(name: str, build: Callable[[], Function]) -> Baseline:
    try:
        return Baseline(name, build())
    except Exception as error:
        return Baseline(name, None, reason(error))


def _compiled(
    function: Function, inputs: Sequence[torch.Tensor], autotune: bool, deadline: float, *, fast_start: bool
) -> Function:
    import torch._inductor.config as settings

    changes: dict[str, Any] = {"compile_threads": 1}
    if fast_start:
        # Test compiles of every instruction set and a precompiled header cost 30 s on a cold cache.
        changes["cpp.vec_isa_ok"] = True
        changes["cpp_cache_precompile_headers"] = _headers_precompiled()
    if autotune:
        changes["freezing"] = True
    options: dict[str, str | int | bool | Callable[..., Any]] | None = {"max_autotune": True} if autotune else None
    compiled: Function = torch.compile(_own_copy(function), dynamic=False, options=options)
    # Freezing needs gradients off, at compile time and, because dynamo guards on the mode, at every call.
    chosen = _without_gradients(compiled) if autotune else compiled
    with cast("Any", settings).patch(changes), _quiet(), _time_limit(deadline):
        chosen(*inputs)
    return chosen


def _without_gradients(function: Function) -> Function:
    def call(*inputs: object) -> object:
        with torch.no_grad():
            return function(*inputs)

    return call


def _own_copy(function: Function) -> Function:
    """A function with a code object of its own: dynamo caches by code object, and copies must not share."""
    if not isinstance(function, types.FunctionType):
        return function
    code = function.__code__.replace(co_name=function.__code__.co_name)
    copy = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


@contextmanager
def _quiet() -> Generator[None]:
    """Silence the compilers' loggers, warnings and autotuning tables."""
    import torch._inductor.select_algorithm as selection

    loggers = [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor", "torch._functorch")]
    levels = [logger.level for logger in loggers]
    tables = cast("Any", selection)
    printing = tables.PRINT_AUTOTUNE
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        tables.PRINT_AUTOTUNE = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tables.PRINT_AUTOTUNE = printing
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _time_limit(deadline: float) -> Generator[None]:
    """End the C++ compilers that this process starts, from the deadline until the block ends.

    Python cannot stop a compile from outside; without its compiler Inductor raises by itself.
    """
    before = set(_compilers())
    finished = threading.Event()

    def watch() -> None:
        if finished.wait(max(0.0, deadline - time.monotonic())):
            return
        while not finished.wait(0.2):
            for process in set(_compilers()) - before:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    watcher = threading.Thread(target=watch, name="prism-compile-limit", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _compilers() -> Iterator[int]:
    """Descendants of this process that compile, assemble or link; none where the system does not list them."""
    todo = [os.getpid()]
    while todo:
        parent = todo.pop()
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                todo += map(int, listed.read_text(encoding="ascii").split())
        with suppress(OSError):
            name = Path(f"/proc/{parent}/comm").read_text(encoding="utf-8").strip()
            if parent != os.getpid() and re.search(r"cc1plus|g\+\+|clang|collect2|^as$|^ld|^c\+\+", name):
                yield parent


def _headers_precompiled() -> bool:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    return any((Path(default_cache_dir()) / "precompiled_headers").glob("**/*.gch"))


# ------------------------------------------------------------------------------------------- the machine


def _model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def _mkl_shim() -> str:
    if not (torch.backends.mkl.is_available() and "AMD" in _model()):
        return "not needed"
    for library in re.split(r"[ :]+", os.environ.get("LD_PRELOAD", "").strip()):
        try:
            if library and hasattr(ctypes.CDLL(library), "mkl_serv_intel_cpu_true"):
                return "active"
        except OSError:
            continue
    return "missing"


def _large_blocks(tunables: str) -> str:
    found = re.search(r"glibc\.malloc\.mmap_threshold=(\d+)", tunables)
    return "kept" if found and int(found.group(1)) > 32 << 20 else "page faults"


def _last_level_cache() -> int:
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KMG]?)", path.read_text(encoding="ascii").strip())
        if found:
            sizes.append(int(found.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[found.group(2)])
    return max(sizes)
