"""Compiling for architectures that are not here: figures, failures as data, and a pool that survives its workers."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from autotune.compile_pool import CompileJob, CompilePool, OutcomeCache
from autotune.interpreter import interpreted
from autotune.module import bind_launch, launch_grid, load_file, load_source
from autotune.offline import (
    CompileFailure,
    LaunchDoesNotCompile,
    Meta,
    Outcome,
    Reason,
    Resources,
    compile_launch,
    outcome_from_json,
    outcome_to_json,
    try_compile,
)
from autotune.targets import TARGETS
from sgraph.errors import CompilationFailed, UnknownTarget

KERNELS = Path(__file__).parent / "kernels"
MATMUL = (KERNELS / "matmul.py").read_text()
BF16 = (Meta((512, 4096), "bfloat16"), Meta((4096, 4096), "bfloat16"))
WIDE = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
OVERFLOW = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "num_stages": 8, "num_warps": 8}
NOTHING = "def launch(*arguments, config=None):\n    pass\n"


@pytest.fixture(scope="module", autouse=True)
def _own_triton_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Compile in earnest: the user's cache must neither help nor be filled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


@pytest.fixture(scope="module")
def matmul() -> ModuleType:
    return load_source(MATMUL, "matmul")


@pytest.fixture(scope="module")
def arithmetic() -> ModuleType:
    return load_file(KERNELS / "arithmetic.py")


# --------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize(("architecture", "kind"), [(80, "mma"), (90, "wgmma"), (100, "tcgen05")])
def test_one_source_compiles_for_every_architecture(matmul: ModuleType, architecture: int, kind: str) -> None:
    (found,) = compile_launch(matmul, architecture, BF16, WIDE)
    assert (found.kernel, found.architecture, found.warps, found.grid) == ("matmul", architecture, 4, (8, 64, 1))
    assert found.programs == 512
    assert 32 <= found.registers <= 255
    assert found.spill_bytes == 0
    assert not found.spills
    buffers = 2 if architecture == 80 else 3  # num_stages, less one where the dot reads from registers
    assert found.shared_bytes == pytest.approx(buffers * 2 * (64 * 32 + 32 * 64), abs=1024)
    counts = {"mma": found.mma, "wgmma": found.wgmma, "tcgen05": found.tcgen05}
    assert counts.pop(kind) == found.dot_instructions > 0
    assert set(counts.values()) == {0}
    assert found.async_copies > 0
    assert found.seconds > 0
    assert found.fits(TARGETS["h200"])


def test_repeated_launches_compile_once(arithmetic: ModuleType) -> None:
    smaller, again, total = compile_launch(arithmetic, 90, [Meta((64,), "float32")] * 2, {"num_warps": 1})
    assert [smaller.kernel, again.kernel, total.kernel] == ["smaller", "smaller", "row_sum"]
    assert smaller.seconds > 0
    assert again == replace(smaller, seconds=0.0)
    assert total.warps == 1
    assert total.dot_instructions == 0


def test_residency_follows_the_tightest_limit() -> None:
    h200 = TARGETS["h200"]
    some = Resources("k", 90, 32, 0, 1024, 4, 0, 0, 0, 0, 0, (1, 1, 1), 0.1)
    assert some.resident_programs(h200) == 16  # 64 warps
    assert replace(some, warps=1).resident_programs(h200) == 32  # blocks
    assert replace(some, registers=129).resident_programs(h200) == 3  # 136 registers are handed out
    assert replace(some, shared_bytes=100 * 1024).resident_programs(h200) == 2
    assert replace(some, shared_bytes=227 * 1024).fits(h200)
    assert not replace(some, shared_bytes=227 * 1024).fits(TARGETS["a100"])
    assert not replace(some, warps=64).fits(h200)
    assert replace(some, spill_bytes=72).spills
    assert not replace(some, spill_bytes=64).spills


# -------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("config", "reason", "detail"),
    [
        ({"BLOCK_N": 48}, Reason.COMPILER, "power of 2"),
        ({"BLOCK_K": 8}, Reason.COMPILER, "K >= 16"),
        ({"num_warps": 3}, Reason.COMPILER, "num_warps must be a power of 2"),
        ({"num_warps": 64}, Reason.WARPS, "64 warps, at most 32"),
        ({"maxnreg": 16}, Reason.ASSEMBLER, "Insufficient registers"),
        (OVERFLOW, Reason.SHARED_MEMORY, r"matmul needs \d+ bytes of 232448"),
        ({"BLOK": 3}, Reason.COMPILER, "no parameter or launch option 'BLOK'"),
    ],
)
def test_a_bad_configuration_is_data(
    matmul: ModuleType, config: dict[str, object], reason: Reason, detail: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = try_compile(matmul, 90, BF16, config)
    assert isinstance(outcome, CompileFailure)
    assert outcome.reason == reason
    assert outcome.lasting
    assert re.search(detail, outcome.detail)
    assert capfd.readouterr().out == ""  # an assembler error prints the PTX


def test_a_grid_too_large_is_refused() -> None:
    source = MATMUL.replace("return triton.cdiv(m,", "return 1, 65536 + triton.cdiv(m,")
    outcome = try_compile(load_source(source, "grid"), 90, BF16, {})
    assert isinstance(outcome, CompileFailure)
    assert outcome.reason == "grid too large"


def test_compile_launch_raises_what_try_compile_returns(matmul: ModuleType) -> None:
    with pytest.raises(LaunchDoesNotCompile, match="too many warps") as failure:
        compile_launch(matmul, 90, BF16, {"num_warps": 64})
    assert failure.value.failure.reason == Reason.WARPS
    assert "sm_90" in failure.value.where
    with pytest.raises(LaunchDoesNotCompile, match="launcher error: ValueError: x has 4096 columns and w 512 rows"):
        compile_launch(matmul, 90, BF16[::-1], {})
    with pytest.raises(UnknownTarget, match="sm_91") as unknown:
        compile_launch(matmul, 91, BF16, {})
    assert "90" in unknown.value.do


# ------------------------------------------------------------------------------- one process, one source file


def test_compiling_and_interpreting_share_a_process(arithmetic: ModuleType) -> None:
    """``tl.minimum`` and ``tl.sum``, the two ways in which a naive switch of modes leaks."""
    vector = [Meta((32,), "float32")] * 2
    x, y = torch.arange(8.0), torch.ones(8)
    before = driver.__dict__["_active"]
    for warps in (1, 2):  # another configuration each time: nothing comes from a cache
        with interpreted():
            assert arithmetic.launch(x, y)[0] == 28.0
        kinds = [r.kernel for r in compile_launch(arithmetic, 90, vector, {"num_warps": warps})]
        assert kinds == ["smaller", "smaller", "row_sum"]
        with pytest.raises(RuntimeError, match=r"compile_launch\(\) inside interpreted\(\)"), interpreted():
            compile_launch(arithmetic, 90, vector, {})
    assert driver.__dict__["_active"] is before
    kernels = [k for k in vars(arithmetic).values() if isinstance(k, JITFunction)]
    assert kernels
    assert all(not k.device_caches for k in kernels)  # a long search must not keep what it compiled


@pytest.mark.slow
def test_interpreting_first_leaves_the_compiler_intact(matmul: ModuleType) -> None:
    """In a fresh process, where Triton's code generator, and its own ``min``, may be imported at a bad time."""
    script = f"""
import sys, types
sys.path[:] = {sys.path!r}
import torch
from pathlib import Path
from autotune.module import load_source
from autotune.interpreter import interpreted
from autotune.offline import Meta, compile_launch
kernels = Path({str(KERNELS)!r})
arithmetic = load_source((kernels / "arithmetic.py").read_text(), "arithmetic")
with interpreted():
    import triton.compiler.code_generator
    arithmetic.launch(torch.ones(8), torch.ones(8))
compile_launch(arithmetic, 90, [Meta((32,), "float32")] * 2, {{}})
capped = types.SimpleNamespace(launch=lambda x, y, config: arithmetic.capped[(1,)](x, y, 7, 5), __name__="capped")
compile_launch(capped, 90, [Meta((32,), "float32")] * 2, {{}})
matmul = load_source((kernels / "matmul.py").read_text(), "matmul")
print(compile_launch(matmul, 80, {BF16!r}, {{"BLOCK_N": 64}})[0].registers)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == compile_launch(matmul, 80, BF16, {"BLOCK_N": 64})[0].registers


def test_a_kernel_source_runs_without_prism() -> None:
    names = runpy.run_path(str(KERNELS / "matmul.py"))
    assert isinstance(names["matmul"], JITFunction)


def test_sources_are_loaded_once_and_fail_with_their_reason(tmp_path: Path) -> None:
    module = load_source(MATMUL, "matmul")
    assert load_source(MATMUL, "matmul") is module
    assert load_source(MATMUL, "another") is not module
    assert load_source(MATMUL + "\n", "matmul") is not module
    file = tmp_path / "kernel.py"
    file.write_text("answer = 42\n")
    assert load_file(file).__dict__["answer"] == 42
    with pytest.raises(CompilationFailed, match="cannot read kernel source") as missing:
        load_file(tmp_path / "none.py")
    assert "none.py" in missing.value.where
    modules = set(sys.modules)
    with pytest.raises(CompilationFailed, match="ZeroDivisionError: division by zero"):
        load_source("1 / 0", "broken")
    with pytest.raises(CompilationFailed, match="SyntaxError"):
        load_source("def", "broken")
    assert set(sys.modules) == modules


def test_launch_arguments_and_grids(matmul: ModuleType) -> None:
    kernel = matmul.matmul
    blocks = {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32}
    bound, options = bind_launch(kernel, (1, 2, 3, 4, 5, 6), {**blocks, "num_warps": 8})
    assert (bound["x_ptr"], bound["N"], bound["BLOCK_K"]) == (1, 6, 32)
    assert options == {"num_warps": 8}
    with pytest.raises(TypeError, match="BLOCK_M"):
        bind_launch(kernel, (1, 2, 3, 4, 5, 6), {})

    def grid(arguments: Mapping[str, int]) -> tuple[int, int]:
        return arguments["N"], 2

    assert launch_grid(grid, bound) == (6, 2, 1)
    assert launch_grid(7, bound) == (7, 1, 1)
    with pytest.raises(ValueError, match="three dimensions"):
        launch_grid((1, 2, 3, 4), bound)


# ------------------------------------------------------------------------------------------------------ pool


def job(source: str = MATMUL, **config: object) -> CompileJob:
    return CompileJob(source, 90, BF16, config)


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def running(pid: int) -> bool:
    """Whether a process exists and is not a zombie that nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_pool_answers_every_job_whatever_happens_to_its_workers(tmp_path: Path) -> None:
    sleeper = f"""
import pathlib, subprocess, time
child = subprocess.Popen(["sleep", "600"])
pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
time.sleep(600)
"""
    jobs = {
        "good": job(),
        "shared": replace(job(), config=OVERFLOW),
        "block": job(BLOCK_N=48),
        "abort": job("import os\nos.write(2, b'LLVM ERROR: no')\nos.abort()\n"),
        "sleep": job(sleeper),
        "exit": job("raise SystemExit(3)\n"),
        "noise": job("import os\nos.write(1, b'not JSON')\nprint('nor this')\n" + NOTHING),
        "again": job(),
        "lists": job("def launch(*tensors, config):\n    assert config == {'tiles': (1, (2, 3))}\n", tiles=[1, [2, 3]]),
    }
    with CompilePool(2, cache_dir=tmp_path / "cache", time_limit_s=10.0) as pool:
        outcomes = dict(zip(jobs, pool.map(jobs.values()), strict=True))
    good = outcomes["good"]
    assert isinstance(good, list)
    assert [r.kernel for r in good] == ["matmul"]
    assert outcomes["again"] is good
    assert outcomes["noise"] == []
    assert outcomes["lists"] == []
    failures = {name: o for name, o in outcomes.items() if isinstance(o, CompileFailure)}
    assert {name: str(f.reason) for name, f in failures.items()} == {
        "shared": "out of shared memory",
        "block": "compiler error",
        "abort": "crash",
        "sleep": "timeout",
        "exit": "source does not load",
    }
    assert "SIGABRT" in failures["abort"].detail
    assert "LLVM ERROR: no" in failures["abort"].detail
    assert "after 10 s" in failures["sleep"].detail
    assert eventually(lambda: not running(int((tmp_path / "child").read_text())))  # nor what a worker started

    # What was learned of the jobs is on disk; what happened to the machine is not.
    records = {json.loads(path.read_text()).get("failure", {}).get("reason") for path in tmp_path.glob("cache/*/*")}
    assert records == {None, "out of shared memory", "compiler error", "source does not load"}
    with CompilePool(1, cache_dir=tmp_path / "cache") as later:
        start = time.monotonic()
        assert later.submit(jobs["good"]).result(0) == good
        assert later.submit(jobs["block"]).result(0) == outcomes["block"]
        assert time.monotonic() - start < 1.0  # long before a worker is up
        waiting = later.submit(jobs["sleep"])
        assert not waiting.done()
    with pytest.raises(CancelledError):
        waiting.result(0)


@pytest.mark.slow
def test_closing_ends_a_job_in_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    source = f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    with CompilePool(1, time_limit_s=300) as pool:
        running_job, waiting = pool.submit(job(source)), pool.submit(job(NOTHING))
        assert pool.submit(job(source)) is running_job
        assert eventually(lambda: started.exists() and started.read_text() != "", 100)
        assert list(temporary.iterdir())
        start = time.monotonic()
    assert time.monotonic() - start < 5
    outcome = running_job.result(0)
    assert isinstance(outcome, CompileFailure)
    assert outcome.reason == Reason.CRASH
    assert waiting.cancelled()
    assert not running(int(started.read_text()))
    assert not list(temporary.iterdir())
    with pytest.raises(RuntimeError, match="not open"):
        pool.submit(job())


@pytest.mark.slow
def test_workers_end_with_their_caller_even_while_they_compile(tmp_path: Path) -> None:
    """However the caller ends; and a script needs no ``__main__`` guard, and no Triton of its own."""
    started = tmp_path / "started"
    source = f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    script = f"""
import os, sys, time
sys.path[:] = {sys.path!r}
from pathlib import Path
from autotune.compile_pool import CompileJob, CompilePool
pool = CompilePool(1, time_limit_s=300).__enter__()
pool.submit(CompileJob({source!r}, 90, (), {{}}))
while not Path({str(started)!r}).exists():
    time.sleep(0.05)
print("triton" in sys.modules, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "False"
    assert eventually(lambda: not running(int(started.read_text())))


def test_bad_jobs_are_the_callers_mistake() -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        CompilePool(1).submit(job())
    with pytest.raises(UnknownTarget, match="sm_7"):
        CompilePool(1).submit(replace(job(), architecture=7))
    with pytest.raises(TypeError, match="JSON"):
        _ = job(dtype=torch.float32).key


def test_job_keys_are_their_contents() -> None:
    assert job(a=1, b=2).key == job(b=2, a=1).key
    assert replace(job(), name="other").key == job().key
    others = [job(a=1), job(a=2), job(a=1.0), job(a=True), job(NOTHING, a=1), replace(job(a=1), architecture=80)]
    others.append(replace(job(a=1), arguments=(Meta((512, 4096), "float16"), BF16[1])))
    assert len({j.key for j in others}) == len(others)


def test_outcomes_survive_json_and_damage_is_noticed() -> None:
    resources = Resources("k", 90, 32, 8, 1024, 4, 3, 1, 1, 1, 6, (2, 3, 4), 0.25)
    outcomes: list[Outcome] = [[], [resources, resources], CompileFailure(Reason.ASSEMBLER, "no")]
    for outcome in outcomes:
        assert outcome_from_json(json.loads(json.dumps(outcome_to_json(outcome)))) == outcome
    record = outcome_to_json([resources])
    del record["resources"][0]["registers"]
    for damaged in (record, {}, [], {"failure": {"reason": "whim", "detail": ""}}, {"resources": [{"grid": [1]}]}):
        with pytest.raises(ValueError, match=r"Reason|record|unpack"):
            outcome_from_json(damaged)


def test_a_damaged_or_unusable_cache_is_only_slower(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = job().key
    cache = OutcomeCache(tmp_path / "cache")
    assert cache.get(key) is None
    cache.put(key, [])
    assert cache.get(key) == []
    (path,) = tmp_path.glob("cache/*/*")
    assert path.name == f"{key}.json"
    path.write_text("{")
    assert cache.get(key) is None
    assert "compile cache: cannot read" in caplog.text
    cache.put(key, [])
    assert cache.get(key) == []

    caplog.clear()
    file = tmp_path / "file"
    file.write_text("")
    unusable = OutcomeCache(file)
    unusable.put(key, [])
    unusable.put(key, [])
    assert unusable.get(key) is None
    assert caplog.text.count("compile cache: cannot") == 1
