"""Layers of model families from the ``transformers`` library are divided without changing a bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="a test dependency only")

from benchmarks.coverage_models import cover
from benchmarks.hf_models import FAMILIES, model
from prism.backend import Backend, Options
from prism.effort import EFFORTS
from prism.result import Result

QUICK = ("opt", "bert")


@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in sorted(FAMILIES)]
)
def test_a_family_is_divided_and_computes_the_same(family: str) -> None:
    found = cover(family)
    assert found.same, "dividing changed the result"
    assert found.searches < found.regions, "the two layers have regions in common"
    assert found.covered > 0.6 * found.operators
    if family == "mixtral":
        assert "topk" in found.cuts


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_family_searched_computes_the_same_within_rounding(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(EFFORTS, "quick", replace(EFFORTS["quick"], measure_s=1.0, tuned=1, proved=2))  # type: ignore[index]
    torch.compiler.reset()
    function: Callable[..., torch.Tensor]
    function, inputs = model(family)
    backend = Backend(Options(target="cpu", effort="quick", fallback="eager"))
    compiled = torch.compile(function, backend=backend, dynamic=False)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(*inputs), function(*inputs), rtol=1e-4, atol=1e-4)
    results = [r for g in backend.graphs for r in g.results.values()]
    assert backend.searches.done < len(results)
    assert any(isinstance(r, Result) and r.record.families.proved for r in results)
