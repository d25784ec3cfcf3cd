"""Calibrations, target files, the refit of the model, and the commands that show them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from autotune.calibration import Calibration, calibrate, calibrated, calibration_file, keep
from autotune.cost import Cost
from autotune.fit import Factors, fit, keep_factors, read_factors, spearman
from autotune.targets import find_target
from prism.cli import app
from sgraph.errors import InputError
from sgraph.program import DType

FOUND = Calibration("h200", "a device", "2026-01-01", 4.3e12, 7e12, {"float32": 5e13, "bfloat16": 7e14}, 2e-6, 9e-7)


def test_a_calibration_replaces_what_is_assumed_and_keeps_the_datasheet(tmp_path: Path) -> None:
    h200 = find_target("h200")
    assert calibrated(h200, tmp_path) is h200
    keep(FOUND, tmp_path)
    found = calibrated(h200, tmp_path)
    assert (found.l2_bytes_per_s, found.launch_s, found.memory_latency_s) == (7e12, 2e-6, 9e-7)
    assert found.dram_bytes_per_s == h200.dram_bytes_per_s
    assert found.dot_flops_per_s == h200.dot_flops_per_s
    keep(replace(FOUND, target="cpu"), tmp_path)
    cpu = calibrated(find_target("cpu"), tmp_path)
    assert cpu.dram_bytes_per_s == 4.3e12 and cpu.dot_flops_per_s[DType.BF16] == 7e14


def test_a_broken_calibration_is_said(tmp_path: Path) -> None:
    h200 = find_target("h200")
    for text in ("{", "{}", json.dumps({**json.loads(FOUND.to_json()), "dot_flops_per_s": {"float3": 1}})):
        calibration_file(tmp_path, h200).write_text(text)
        with pytest.raises(InputError, match="not a calibration"):
            calibrated(h200, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where no device is")
def test_a_gpu_cannot_be_calibrated_without_one() -> None:
    with pytest.raises(InputError, match="no CUDA device"):
        calibrate(find_target("h200"))


@pytest.mark.slow
def test_this_processor_is_calibrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["calibrate", "--target", "cpu", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert 1e8 < figures["copy_bytes_per_s"] < 1e13
    assert 1e-8 < figures["launch_s"] < 1e-3
    assert Path(figures["kept"]).parent == tmp_path / "calibrations"


# ---------------------------------------------------------------------------------------------- target files


def test_a_target_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "h100"\nprocessors = 66\ndram_bytes_per_s = 2e12\n[dot_flops_per_s]\nbfloat16 = 5e14\n')
    mine, h100 = find_target(str(path)), find_target("h100")
    assert (mine.name, mine.processors, mine.dram_bytes_per_s) == ("mine", 66, 2e12)
    assert mine.dot_flops_per_s == {**h100.dot_flops_per_s, DType.BF16: 5e14}
    assert mine.shared_memory_bytes == h100.shared_memory_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("processors = 66", "base = None is no known target"),
        ('base = "h101"', "base = 'h101' is no known target"),
        ('base = "h100"\nprocesors = 66', "did you mean processors"),
        ('base = "h100"\nprocessors = -1', "not a positive number"),
        ('base = "h100"\nprocessors = 6.5', "not a whole number"),
        ('base = "h100"\nl2_bytes = "big"', "not a positive number"),
        ('base = "h100"\ndot_flops_per_s = 5', "is not a table"),
        ('base = "h100"\n[dot_flops_per_s]\nbf17 = 5', "is no element type"),
        ("base = ", "not TOML"),
    ],
)
def test_mistakes_in_a_target_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        find_target(str(path))


def test_a_target_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match="cannot read a target"):
        find_target("/nonexistent/mine.toml")


# ----------------------------------------------------------------------------------------------- the refit


def _cost(dram: float, dot: float) -> Cost:
    return Cost(1e-6, dram, 0.0, dot, 0.0, 0.0, 0.0, 1, 1)


def test_a_refit_finds_the_factors_and_ranks_better(tmp_path: Path) -> None:
    costs = [_cost(1e-6 * n, 1e-6 * (21 - n)) for n in range(1, 21)]
    observed = [(c, 1e-6 + max(3 * c.dram_s, 0.5 * c.dot_s)) for c in costs]
    # Only measurements that agree with the model on what counts can speak of a term.
    observed = [(c, s) for c, s in observed if (c.dram_s > c.dot_s) == (3 * c.dram_s > 0.5 * c.dot_s)]
    factors = fit(observed * 20)
    assert math.isclose(factors.terms["dram_s"], 3, rel_tol=0.05)
    assert math.isclose(factors.terms["dot_s"], 0.5, rel_tol=0.25)
    assert factors.rank_after > factors.rank_before
    keep_factors(factors, tmp_path / "factors.json")
    assert read_factors(tmp_path / "factors.json") == factors
    assert read_factors(tmp_path / "none.json") == Factors()
    assert fit([]) == Factors()


def test_few_measurements_change_little() -> None:
    assert fit([(_cost(1e-5, 1e-6), 1e-6 + 1e-4)]).terms["dram_s"] < 2


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == 1
    assert spearman([1, 2, 3], [3, 2, 1]) == -1
    assert spearman([1, 1, 1], [3, 2, 1]) == 0
    assert spearman([], []) == 0


# -------------------------------------------------------------------------------------------- explain-cost

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'rmsnorm_linear.py'}::rmsnorm_linear"


def test_explain_cost_shows_every_term(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["explain-cost", EXAMPLE, "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.output)
    (kernel,) = record["kernels"][:1]
    overlapped = max(kernel[t] for t in ("dram_s", "l2_s", "dot_s", "pointwise_s", "chain_s"))
    assert math.isclose(kernel["total_s"], kernel["launch_s"] + overlapped + kernel["combine_s"])
    assert kernel[kernel["dominant"]] == overlapped
    assert record["modelled_us"] == pytest.approx(1e6 * sum(k["total_s"] for k in record["kernels"]))
    refused = CliRunner().invoke(app, ["explain-cost", EXAMPLE, "--family", "99999"])
    assert isinstance(refused.exception, InputError)
    assert "no proved family 99999" in str(refused.exception)
    refused = CliRunner().invoke(app, ["explain-cost", EXAMPLE, "--target", "cpu"])
    assert "measured, not modelled" in str(refused.exception)
