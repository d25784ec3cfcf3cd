"""The pipeline end to end on small programs, from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import prism
from prism.result import Result, parse_report
from sgraph.axis import Size
from sgraph.errors import InputError, PrismError


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path / "cache"))


def rmsnorm_linear(x: torch.Tensor, g: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g) @ weight


def inputs(rows: int = 8) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return torch.randn(rows, 96), torch.randn(96), torch.randn(96, 64)


@pytest.fixture(scope="module")
def on_h200(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("run")
    return prism.superoptimize(rmsnorm_linear, *inputs(), target="h200", effort="quick", out=folder, fallback=False)


def test_a_cuda_target_is_modelled_proved_and_checked(on_h200: Result) -> None:
    record = on_h200.record
    assert record.timing == "modelled"
    assert on_h200.speedup is None, "nothing was timed"
    assert record.verdict is not None
    assert record.verdict.status == "proved"
    assert record.accuracy is not None
    assert record.accuracy.passed
    assert record.best is not None
    assert record.best.modelled_us is not None
    assert "@triton.jit" in on_h200.source
    assert "modelled" in on_h200.report()


def test_every_listed_family_is_accounted_for(on_h200: Result) -> None:
    families = on_h200.record.families
    assert sum(families.statuses.values()) == families.enumerated


def test_the_result_runs_on_cpu_tensors(on_h200: Result) -> None:
    given = inputs()
    got, expected = on_h200(*given), rmsnorm_linear(*given)
    assert isinstance(got, torch.Tensor)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_shape_that_was_not_searched_runs_the_original(on_h200: Result) -> None:
    given = inputs(rows=5)
    torch.testing.assert_close(on_h200(*given), rmsnorm_linear(*given))


def test_the_run_folder_holds_the_evidence(on_h200: Result, tmp_path: Path) -> None:
    folder = on_h200.save(tmp_path / "saved")
    names = {p.name for p in folder.iterdir()}
    evidence = {"report.json", "kernel.py", "torch_form.py", "sgraph.py", "certificate.json"}
    assert names == {*evidence, "program.py", "run.json"}
    assert parse_report((folder / "report.json").read_text()) == on_h200.record
    assert json.loads((folder / "certificate.json").read_text())["status"] == "proved"


def test_the_same_seed_gives_the_same_source(on_h200: Result, tmp_path: Path) -> None:
    again = prism.superoptimize(rmsnorm_linear, *inputs(), target="h200", effort="quick", out=tmp_path)
    assert again.source == on_h200.source


def test_symbolic_rows_give_one_kernel_for_all() -> None:
    x, g, weight = inputs()
    sizes = {"x": (Size("M", 1, 64), 96)}
    found = prism.superoptimize(rmsnorm_linear, x, g, weight, target="h200", effort="quick", sizes=sizes)
    for rows in (1, 7, 64):
        given = inputs(rows)
        got = found(*given)
        assert isinstance(got, torch.Tensor)
        torch.testing.assert_close(got, rmsnorm_linear(*given), rtol=1e-4, atol=1e-4)


def test_a_module_is_called_with_its_own_inputs() -> None:
    module = torch.nn.Linear(32, 48, bias=False)
    x = torch.randn(8, 32)
    found = prism.superoptimize(module, x, target="h200", effort="quick")
    with torch.no_grad():
        got = found(x)
        assert isinstance(got, torch.Tensor)
        torch.testing.assert_close(got, module(x), rtol=1e-4, atol=1e-4)


def test_mistakes_are_prism_errors() -> None:
    with pytest.raises(PrismError):
        prism.superoptimize(rmsnorm_linear, *inputs(), target="h2")
    with pytest.raises(InputError):
        prism.superoptimize(rmsnorm_linear, *inputs(), effort="much")


def test_a_truncated_table_is_said_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    import rewrites.saturate as engine

    whole = engine.saturate

    def small(*given: Any, **named: Any) -> Any:
        return whole(*given, **{**named, "limits": engine.Limits(e_nodes=30)})

    monkeypatch.setattr(engine, "saturate", small)
    result = prism.superoptimize(rmsnorm_linear, *inputs(), target="h200", effort="quick", fallback=False)
    assert "the rewrite table hit a limit: the search is not complete" in result.record.notes
