"""The benchmark runner: rows with reasons, a run that survives its file, the rendered page."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autotune.targets import find_target
from benchmarks import render, runner
from benchmarks.runner import Row, Run, line, one, points_of, read, write
from benchmarks.workloads import WORKLOADS
from prism.effort import effort
from prism.settings import load

WON = Row("w", {"M": 8}, "fp32", "measured", ours_us=50.0, baseline_us=100.0, baseline="eager", ratio=2.0, returned=2.0)
LOST = replace(WON, workload="v", ours_us=200.0, ratio=0.5, returned=1.0, winner="eager")
FAILED = Row("u", {}, "bf16", "failed", "NoSuchThing: no")
GUESS = Row("t", {"M": 1}, "bf16", "modelled", modelled_us=12.0, limit_percent=50.0, families=4, proved=3)
RUN = Run(
    1, "2026-01-02T00:00:00", "python -m benchmarks", "cpu", "a processor", (0.5, 0.0, 0.0), 2, {}, [WON, LOST, FAILED]
)


def test_a_run_survives_its_file_and_says_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "2026-01-02-cpu-core.json"
    write(RUN, path)
    assert read(path) == RUN
    assert not list(tmp_path.glob("*.part"))
    assert RUN.losses() == [LOST] and RUN.failures() == [FAILED]


def test_the_page_shows_losses_and_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    write(RUN, tmp_path / "2026-01-02-cpu-core.json")
    write(replace(RUN, date="2025-01-01", rows=[WON]), tmp_path / "2025-01-01-cpu-core.json")
    write(replace(RUN, target="h200", rows=[GUESS]), tmp_path / "2026-01-02-h200-core.json")
    (tmp_path / "other.json").write_text('[{"rows": 1}]')
    render.main()
    page = (tmp_path / "README.md").read_text()
    assert "2025-01-01" not in page, "only the latest run of a target and set"
    assert "Geometric mean over 2 rows: 1.00x ours, 1.41x returned." in page
    assert "Rows where no plan of ours is faster: 1 of 2." in page
    assert "u  bf16: failed: NoSuchThing: no" in page
    assert "Modelled, not measured" in page and "12.0" in page
    plot = (tmp_path / "2026-01-02-cpu-core.svg").read_text()
    assert plot.count("<rect") == 3 and "0.50x" in plot
    assert not (tmp_path / "2026-01-02-h200-core.svg").exists(), "nothing was timed"


def test_lines() -> None:
    assert "2.00x" in line(WON) and "failed: NoSuchThing" in line(FAILED) and "modelled 12.0 us" in line(GUESS)


def test_sets_and_sizes() -> None:
    assert {w.name for w, _ in points_of([], "paper", quick=True)} == {
        w.name for w in WORKLOADS.values() if "paper" in w.sets
    }
    assert len(points_of(["lora"], "core", quick=False)) == len(WORKLOADS["lora"].points)
    assert len(points_of([], "all", quick=True)) == len(WORKLOADS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_the_gpu_the_model_is_run_and_nothing_is_timed() -> None:
    workload = WORKLOADS["add_rmsnorm"]
    row = one(workload, {"M": 64}, "bf16", find_target("h200"), effort("quick"), load(), 0)
    assert row.status == "modelled" and row.modelled_us and row.ratio is None
    assert row.limit_percent is not None and 0 < row.limit_percent <= 100


def test_what_is_too_large_is_not_run_and_errors_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, spent = find_target("cpu"), effort("quick")
    row = one(WORKLOADS["gqa_decode"], {"B": 64, "L": 8192}, "bf16", cpu, spent, load(), 0)
    assert row.status == "not run" and "GiB" in row.reason
    row = one(WORKLOADS["gated_mlp"], {"M": 2048}, "bf16", cpu, spent, load(), 0)
    assert row.status == "not run" and "flops" in row.reason

    def broken(*_: object) -> Row:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(runner, "_run", broken)
    row = one(WORKLOADS["softmax"], {"M": 4, "k": 8}, "fp32", cpu, spent, load(), 0)
    assert row.status == "failed" and row.reason.startswith("RuntimeError: out of luck")


def test_an_unknown_workload_is_an_error_with_the_names() -> None:
    command = [sys.executable, "-m", "benchmarks", "--workload", "sofmax"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2 and "no workload named 'sofmax'" in done.stderr
