"""A found kernel runs only on inputs that the program declares; others run as the function was written."""

from __future__ import annotations

import pytest
import torch

from prism.guard import Guarded, log, misfit
from sgraph.axis import Axis, Size
from sgraph.expr import sum_over
from sgraph.program import DType, Output, Program, Tensor

M, K, N = Axis("m", Size("M", 1, 64, 2)), Axis("k", 8), Axis("n", 4)
X, W = Tensor("x", (M, K), DType.FP32), Tensor("W", (K, N), DType.FP32)
PROGRAM = Program("linear", (X, W), (Output(Tensor("out", (M, N), DType.FP32), sum_over(K, X.read() * W.read())),))


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ((torch.ones(6, 8),), "1 inputs"),
        ((torch.ones(6, 8), 3), "not a tensor"),
        ((torch.ones(6, 8, dtype=torch.float64), torch.ones(8, 4)), "float64"),
        ((torch.ones(6, 9), torch.ones(8, 4)), "axis k"),
        ((torch.ones(66, 8), torch.ones(8, 4)), "M = 66"),
        ((torch.ones(3, 8), torch.ones(8, 4)), "multiple of 2"),
        ((torch.ones(6, 8, 1), torch.ones(8, 4)), "3 dimensions"),
        ((torch.ones(6, 8, requires_grad=True), torch.ones(8, 4)), "gradient"),
    ],
)
def test_a_misfit_is_named(inputs: tuple[object, ...], word: str) -> None:
    reason = misfit(PROGRAM, inputs)
    assert reason is not None
    assert word in reason


def test_fitting_inputs_run_what_was_found_and_others_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []

    def noted(text: str, *_: object) -> None:
        warnings.append(text)

    monkeypatch.setattr(log, "warning", noted)
    guarded = Guarded(PROGRAM, lambda *_: "found", lambda *_: "original")
    assert guarded(torch.ones(6, 8), torch.ones(8, 4)) == "found"
    assert guarded(torch.ones(6, 9), torch.ones(9, 4)) == "original"
    assert guarded(torch.ones(6, 9), torch.ones(9, 4)) == "original"
    assert guarded.fallbacks == 2
    assert len(warnings) == 1
