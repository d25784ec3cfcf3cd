"""The CPU protocol on synthetic callables, and measurement of printed plans."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from autotune import cpu_baselines, timing
from autotune.cpu import CpuRow, measure_cpu
from autotune.cpu_baselines import AUTOTUNED, DEFAULT, compile_function, environment
from autotune.timing import CpuComparison, Timing, compare
from sgraph.axis import Axis
from sgraph.errors import CompilationFailed
from sgraph.expr import call, sum_over
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import DType, Output, Program, Tensor
from tests.programs import program, tensor

SMALL = {"m": 4, "k": 64, "n": 48}


def busy(loops: int) -> Callable[[], object]:
    def run() -> object:
        total = 0
        for i in range(loops):
            total += i
        return total

    return run


# --------------------------------------------------------------------------------------------- timing


def test_a_known_ratio_is_measured() -> None:
    compared = compare({"one": busy(4000), "two": busy(8000)}, seconds=2, min_samples=15)
    assert [r.name for r in compared.rows] == ["one", "two"]
    one, two = compared.rows
    assert one.ratio_to_reference == 1
    assert 1.7 < two.ratio_to_reference < 2.35
    assert one.median_us > 0 and one.samples >= 3 and one.spread_percent >= 0
    assert compared.complete and not compared.failures
    assert compared.row("two") is two and compared.row("three") is None


def test_equal_candidates_differ_by_noise_only() -> None:
    compared = compare({"a": busy(5000), "b": busy(5000)}, seconds=2, min_samples=20)
    b = compared.row("b")
    assert b is not None
    assert abs(b.ratio_to_reference - 1) < 0.25
    assert compared.noise_percent < 25


def _always(*_: object) -> bool:
    return True


def test_the_order_of_the_rounds_depends_on_the_seed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(seed: int) -> list[str]:
        seen: list[str] = []
        entries = {name: (lambda name=name: seen.append(name)) for name in "abc"}
        monkeypatch.setattr(timing, "_calibrated", _always)
        monkeypatch.setattr(timing, "_preemptions", lambda: 0)
        compare(entries, seconds=1, min_samples=6, seed=seed)
        return seen

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_preempted_samples_are_dropped_unless_there_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = iter(range(10**9))
    monkeypatch.setattr(timing, "_preemptions", lambda: next(switches))
    compared = compare({"a": busy(2000)}, seconds=0.3)
    assert "busy" in compared.fallback
    assert compared.row("a") is not None

    # Every other sample is preempted: only the others count.
    pairs = iter(n // 4 if n % 4 else n // 4 - 0.5 for n in range(10**9))
    monkeypatch.setattr(timing, "_preemptions", lambda: next(pairs))
    compared = compare({"a": busy(2000)}, seconds=5, min_samples=5)
    row = compared.row("a")
    assert row is not None and row.samples >= 5 and not compared.fallback


def test_a_failing_candidate_is_a_failure_not_an_exception() -> None:
    def broken() -> object:
        raise ValueError("no such thing\nmore")

    calls = 0

    def later() -> object:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise RuntimeError("worn out")
        time.sleep(0.003)
        return None

    compared = compare({"a": busy(1000), "broken": broken, "later": later}, seconds=3, min_samples=8)
    assert compared.failures == {"broken": "ValueError: no such thing", "later": "RuntimeError: worn out"}
    assert [r.name for r in compared.rows] == ["a"]


def test_an_interrupt_keeps_what_was_measured() -> None:
    calls = 0

    def interrupted() -> object:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        time.sleep(0.003)
        return None

    compared = compare({"a": busy(1000), "b": interrupted}, seconds=5)
    assert not compared.complete
    assert compared.row("a") is not None
    assert compared.fallback


def test_slow_candidates_get_their_rounds_even_after_the_deadline() -> None:
    compared = compare({"slow": lambda: time.sleep(0.02)}, seconds=0.01)
    assert compared.row("slow") is not None
    assert "time was up" in compared.fallback or "busy" in compared.fallback


# ------------------------------------------------------------------------------------------- baselines


def test_the_environment_is_recorded() -> None:
    machine = environment()
    assert machine.threads == torch.get_num_threads()
    assert machine.model and machine.torch_version == torch.__version__
    assert machine.mkl_shim in ("not needed", "active", "missing")
    assert machine.large_blocks in ("kept", "page faults")


def test_malloc_tunables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"
    )
    assert environment().large_blocks == "kept"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    assert environment().large_blocks == "page faults"


def test_without_a_compiler_inductor_is_a_recorded_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/compiler")
    baseline = cpu_baselines.inductor(torch.sin, [torch.ones(3)], 5)
    assert baseline.function is None
    assert "C++ compiler" in baseline.failure
    assert environment().compiler is None


# --------------------------------------------------------------------------------------- measure_cpu


def _linear() -> Program:
    m, k, n = (Axis(name, SMALL[name]) for name in "mkn")
    x, w = tensor("x", m, k, dtype=DType.FP32), tensor("W", k, n, dtype=DType.FP32)
    return program("linear", (x, w), (tensor("out", m, n, dtype=DType.FP32), sum_over(k, x.read() * w.read())))


def _whole(p: Program) -> SGraph:
    return SGraph(p, (Kernel("whole", tuple(Store(o.tensor, o.value, o.value) for o in p.outputs)),))


def _inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 64, generator=generator), torch.randn(64, 48, generator=generator)]


def _slow(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(x.shape[0], w.shape[1])
    for i in range(x.shape[1]):
        out = out + x[:, i : i + 1] * w[i]
    return out


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled; one thread, since on a busy machine a second one is waited for."""
    monkeypatch.setenv("CXX", "/nonexistent/compiler")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("no_compiler")
def test_a_faster_plan_wins_and_failures_are_rows() -> None:
    said: list[str] = []
    result, callables = measure_cpu(
        _slow, [("whole", _whole(_linear()))], _inputs(), seconds=0.8, on_progress=said.append
    )
    assert result.winner == "whole (eager)"
    assert result.speedup is not None and result.speedup > 3
    assert "fastest baseline" in result.why and DEFAULT in result.why
    assert set(callables) == {"eager", "whole (eager)"}
    x, w = _inputs()
    out = callables[result.winner](x, w)
    assert isinstance(out, torch.Tensor)
    assert torch.allclose(out, x @ w, atol=1e-4)
    assert [r.name for r in result.rows] == ["eager", DEFAULT, AUTOTUNED, "whole (eager)", "whole (inductor)"]
    for name in (DEFAULT, AUTOTUNED, "whole (inductor)"):
        assert "C++ compiler" in result.row(name).failure and result.row(name).median_us is None
    assert "def run(" in result.row("whole (eager)").source
    assert result.row("eager").ratio == 1
    assert result.input_sets == 3
    assert any("whole" in text for text in said)


@pytest.mark.usefixtures("no_compiler")
def test_never_slower_the_baseline_wins_when_a_plan_is_no_faster() -> None:
    wasteful = Tensor("h", (Axis("m", 4), Axis("k", 64)), DType.FP32)
    p = _linear()
    x = p.inputs[0].read()
    chain = x
    for _ in range(8):
        chain = call("tanh", chain)
    store = Store(wasteful, chain, chain)
    graph = SGraph(p, (Kernel("waste", (store,)), *_whole(p).kernels))
    result, _ = measure_cpu(torch.matmul, [("wasteful", graph)], _inputs(), seconds=0.4)
    assert result.winner == "eager"
    assert result.speedup == 1
    assert "no plan beats eager" in result.why


@pytest.mark.usefixtures("no_compiler")
def test_a_refused_candidate_is_not_timed() -> None:
    def check(function: Callable[..., object]) -> str | None:
        return "row 3 is off by 0.5"

    result, callables = measure_cpu(_slow, [("whole", _whole(_linear()))], _inputs(), seconds=0.4, check=check)
    assert result.winner == "eager"
    row = result.row("whole (eager)")
    assert row.failure == "row 3 is off by 0.5" and row.median_us is None
    assert "whole (eager)" not in callables
    assert "no plan of ours was timed" in result.why


@pytest.mark.usefixtures("no_compiler")
def test_a_plan_that_cannot_be_printed_or_run_is_a_row() -> None:
    p = _linear()
    unknown = Program(p.name, p.inputs, (Output(p.outputs[0].tensor, call("besselj", p.outputs[0].value)),))
    misfit = Program(p.name, (p.inputs[1], p.inputs[0]), p.outputs)
    graphs = [("unknown", _whole(unknown)), ("misfit", _whole(misfit))]
    result, _ = measure_cpu(_slow, graphs, _inputs(), seconds=0.4)
    assert "besselj" in result.row("unknown (eager)").failure
    assert "RuntimeError" in result.row("misfit (eager)").failure
    assert result.winner == "eager"


@pytest.mark.usefixtures("no_compiler")
def test_many_plans_are_halved() -> None:
    graphs = [(f"plan{i}", _whole(_linear())) for i in range(6)]
    result, _ = measure_cpu(_slow, graphs, _inputs(), seconds=0.8)
    dropped = [r for r in result.rows if "first round" in r.failure]
    assert len(dropped) == 2
    assert result.winner.startswith("plan") and not result.row(result.winner).failure


@pytest.mark.usefixtures("no_compiler")
def test_an_interrupt_returns_the_baseline() -> None:
    def check(function: Callable[..., object]) -> str | None:
        raise KeyboardInterrupt

    result, callables = measure_cpu(_slow, [("whole", _whole(_linear()))], _inputs(), seconds=0.4, check=check)
    assert not result.complete
    assert result.winner == "eager" and "eager" in callables
    assert result.speedup is None


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(
    ("ours", "noise", "wins"), [(80.0, 5.0, True), (95.0, 5.0, False), (80.0, 20.0, False), (95.0, 0.5, None)]
)
def test_a_win_needs_twice_the_noise(
    monkeypatch: pytest.MonkeyPatch, ours: float, noise: float, wins: bool | None
) -> None:
    def compared(calls: object, **options: object) -> CpuComparison:
        rows = (Timing("eager", 100.0, 1, 20, 1), Timing("whole (eager)", ours, 1, 20, ours / 100))
        return CpuComparison(rows, noise, complete=True)

    monkeypatch.setattr("autotune.cpu.compare", compared)
    for cache, memory_bound in ((1 << 40, False), (1, True)):
        monkeypatch.setattr(cpu_baselines, "_last_level_cache", lambda cache=cache: cache)
        result, _ = measure_cpu(_slow, [("whole", _whole(_linear()))], _inputs(), seconds=0.4)
        expected = wins if wins is not None else not memory_bound
        assert (result.winner == "whole (eager)") is expected
        assert result.threshold_percent == (max(2 * noise, 10) if memory_bound else 2 * noise)


def test_rows_are_found_by_name() -> None:
    row = CpuRow("eager", "baseline", "eager")
    assert row.median_us is None and row.failure == ""


# ------------------------------------------------------------------------------------------- Inductor


def _tanh_linear(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) @ w


def _plain(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


@pytest.mark.slow
def test_inductor_takes_part() -> None:
    result, callables = measure_cpu(_plain, [("whole", _whole(_linear()))], _inputs(), seconds=90)
    for name in (DEFAULT, AUTOTUNED, "whole (inductor)"):
        assert result.row(name).median_us is not None, result.row(name).failure
        out = callables[name](*_inputs())
        x, w = _inputs()
        assert isinstance(out, torch.Tensor)
        assert torch.allclose(out, x @ w, atol=1e-4)
    import torch._inductor.config as settings

    assert settings.freezing is False


def test_a_compiler_process_is_ended_when_its_time_is_up(tmp_path: Path) -> None:
    # A process with the name of the compiler stands in for it.
    stand_in = tmp_path / "cc1plus"
    shutil.copy("/bin/sleep", stand_in)
    started = time.monotonic()
    with cpu_baselines._time_limit(started + 0.3):  # pyright: ignore[reportPrivateUsage]
        done = subprocess.run([str(stand_in), "30"], check=False)
    assert done.returncode == -9
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_a_compile_without_time_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with pytest.raises(CompilationFailed, match="not compiled within"):
        compile_function(_tanh_linear, _inputs(), 0.0)
