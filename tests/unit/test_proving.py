# pyright: reportUnknownLambdaType=false
"""Any two torch functions: proved, refuted with numbers that hold at the example's sizes, or unknown with a reason."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import prism
from prism.cli import main
from sgraph.axis import Size
from sgraph.errors import InputError, UnsupportedOperator
from verify.verdict import Status, Verdict

X = torch.empty(8, 4096)
SQUARE = torch.empty(4, 4)
WIDE = torch.empty(4, 6)

Function = Callable[..., object]


def rmsnorm(x: Tensor, g: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g


def rmsnorm_by_hand(x: Tensor, g: Tensor) -> Tensor:
    return g * x / ((x * x).sum(-1, keepdim=True) / x.shape[-1] + 1e-6).sqrt()


def rmsnorm_without_mean(x: Tensor, g: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6) * g


def status(f: Function, g: Function, *inputs: Tensor) -> Status:
    return prism.prove(f, g, *inputs).status


# ------------------------------------------------------------------------------------------------ verdicts


def test_a_rewriting_is_proved_with_the_facts_it_uses() -> None:
    verdict = prism.prove(rmsnorm, lambda x, g: torch.nn.functional.rms_norm(x, (4096,), g, 1e-6), X, X[0])
    assert verdict.status == "proved"
    verdict = prism.prove(rmsnorm, rmsnorm_by_hand, X, X[0])
    assert verdict.status == "proved"
    assert "k = 4096" in verdict.facts[0]
    assert any("is not 0" in fact for fact in verdict.facts)
    assert verdict.counterexample is None
    assert verdict.seconds > 0


def test_a_refutation_has_numbers_that_can_be_pasted() -> None:
    verdict = prism.prove(rmsnorm, rmsnorm_without_mean, X, X[0])
    assert verdict.status == "refuted"
    assert verdict.counterexample is not None
    names: dict[str, dict[str, np.ndarray]] = {}
    exec(verdict.counterexample, names)
    x, g = (torch.tensor(names["tensors"][name]) for name in ("x", "g"))
    assert not torch.allclose(rmsnorm(x, g), rmsnorm_without_mean(x, g))


def test_the_difference_is_confirmed_at_the_sizes_of_the_example() -> None:
    verdict = prism.prove(rmsnorm, rmsnorm_without_mean, X, X[0])
    assert verdict.counterexample is not None
    head, *recipe = verdict.counterexample.split("# and at the extents of the example, ")[1].splitlines()
    names: dict[str, np.ndarray] = {}
    exec("import numpy\n" + "\n".join(line.removeprefix("#   ") for line in recipe), {}, names)
    x, g = torch.tensor(names["x"]), torch.tensor(names["g"])
    assert x.shape == X.shape
    found = re.match(r"left is (\S+), right is (\S+) at \{'k': (\d+), 'm': (\d+)\}", head)
    assert found is not None
    k, m = int(found[3]), int(found[4])
    assert rmsnorm(x, g)[m, k].item() == pytest.approx(float(found[1]), rel=1e-9)
    assert rmsnorm_without_mean(x, g)[m, k].item() == pytest.approx(float(found[2]), rel=1e-9)


def test_what_is_equal_at_the_examples_sizes_only_is_not_refuted() -> None:
    assert status(lambda x: x.mean(-1), lambda x: x.sum(-1) / 4096, X) is Status.PROVED
    assert status(lambda x: x.mean(-1), lambda x: x.sum(-1) / 4095, X) is Status.REFUTED
    assert status(lambda x: x.sum(-1) + 6, lambda x: x.sum(-1) + torch.ones_like(x).sum(-1), WIDE) is Status.PROVED
    # Equal at 4 rows only, and beyond the normal form: never refuted.
    verdict = prism.prove(
        lambda x: x.sum(0) * (torch.arange(4.0) == 3).to(x.dtype).sum(),
        lambda x: x.sum(0),
        SQUARE,
    )
    assert verdict.status is not Status.REFUTED


def test_a_symbolic_size_is_proved_for_all_of_its_range() -> None:
    sizes = {"x": (Size("M", 1, 64), Size("K", 1, 8192))}
    assert prism.prove(lambda x: x.mean(-1), lambda x: x.sum(-1) / x.shape[-1], X, sizes=sizes).status == "proved"
    verdict = prism.prove(lambda x: x.mean(-1), lambda x: x.sum(-1) / 4096, X, sizes=sizes)
    assert verdict.status == "refuted"


def test_the_first_function_is_the_specification() -> None:
    assert status(lambda x: x * x / x, lambda x: x + 0, SQUARE) is Status.PROVED
    assert status(lambda x: x + 0, lambda x: x * x / x, SQUARE) is Status.REFUTED


def test_unknown_has_a_reason() -> None:
    verdict = prism.prove(lambda x: (2 * x).sin(), lambda x: 2 * x.sin() * x.cos(), SQUARE)
    assert verdict.status == "unknown"
    assert "not proved equal" in verdict.reason


# ---------------------------------------------------------------------------------------------------- axes


def test_axes_that_only_one_of_the_functions_joins() -> None:
    assert status(lambda x: x @ x, lambda x: (x.T @ x.T).T, SQUARE) is Status.PROVED
    assert status(lambda x: x @ x, lambda x: x @ x.T, SQUARE) is Status.REFUTED
    assert status(lambda x: x.sum(0), lambda x: x.sum(1), SQUARE) is Status.REFUTED
    assert status(lambda x: x * 2, lambda x: x + x.T, SQUARE) is Status.REFUTED
    assert status(lambda x: x * 2 + 0 * x.T, lambda x: x + x, SQUARE) is Status.PROVED
    assert status(lambda x: x * 1, lambda x: x.T * 1, SQUARE) is Status.REFUTED
    assert status(lambda x: x @ x.T, lambda x: (x @ x.T).T, WIDE) is Status.PROVED
    assert status(lambda a, b: a @ b, lambda a, b: b @ a, SQUARE, SQUARE) is Status.REFUTED


def test_an_axis_that_only_one_of_the_functions_splits_or_merges() -> None:
    x = torch.empty(2, 3, 4)
    assert status(lambda x: x.flatten(1).sum(-1), lambda x: x.sum(-1).sum(-1), x) is Status.PROVED
    assert status(lambda x: x.flatten(1).mean(-1), lambda x: x.sum((1, 2)) / 8, x) is Status.REFUTED


def test_several_results_are_matched_by_position() -> None:
    h = torch.empty(8, 64)

    def spec(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        return x + r, (x + r) ** 2

    assert status(spec, lambda x, r: (r + x, x * x + 2 * x * r + r * r), h, h) is Status.PROVED
    verdict = prism.prove(spec, lambda x, r: (r + x, x * x + x * r + r * r), h, h)
    assert verdict.status == "refuted"
    assert verdict.reason.startswith("result 1")
    assert [o.status for o in verdict.obligations] == [Status.PROVED, Status.REFUTED]
    assert status(spec, lambda x, r: ((x + r) ** 2, x + r), h, h) is Status.REFUTED


def test_minus_infinity_in_a_mask() -> None:
    def spec(s: Tensor, mask: Tensor) -> Tensor:
        return (s + mask).softmax(-1)

    def shifted(s: Tensor, mask: Tensor) -> Tensor:
        scores = s + mask
        weight = (scores - scores.amax(-1, keepdim=True)).exp()
        return weight / weight.sum(-1, keepdim=True)

    given = (WIDE, WIDE)
    assert prism.prove(spec, shifted, *given, may_hold_minus_inf=["mask"]).status == "proved"
    assert prism.prove(spec, lambda s, mask: s.softmax(-1), *given, may_hold_minus_inf=["mask"]).status == "refuted"
    assert (
        prism.prove(spec, lambda s, mask: (s + mask).exp() / s.exp().sum(-1, keepdim=True), *given).status != "proved"
    )


# ------------------------------------------------------------------------------------------------- modules


def test_modules_are_functions_of_their_inputs_and_parameters() -> None:
    linear = torch.nn.Linear(4, 5)
    assert status(linear, lambda x, w, b: x @ w.T + b, SQUARE) is Status.PROVED
    assert status(lambda x, w, b: x @ w.T + b, linear, SQUARE) is Status.PROVED
    assert status(linear, torch.nn.Linear(4, 5), SQUARE) is Status.PROVED
    assert status(linear, lambda x, w, b: x @ w.T - b, SQUARE) is Status.REFUTED
    normed = torch.nn.Sequential(torch.nn.RMSNorm(4, 1e-6), linear)
    assert status(normed, lambda x, g, w, b: (rmsnorm(x, g)) @ w.T + b, SQUARE) is Status.PROVED
    with pytest.raises(InputError, match="parameters and buffers of Linear and Linear differ"):
        prism.prove(linear, torch.nn.Linear(4, 6), SQUARE)


# ------------------------------------------------------------------------------------------------ mistakes

MISTAKES: dict[str, tuple[Function, Function, type[Exception], str]] = {
    "other number of inputs": (lambda x: x + 1, lambda x, y: x + y, InputError, "takes 2 inputs"),
    "other number of results": (lambda x: x + 1, lambda x: (x + 1, x), InputError, "returns 1 tensors"),
    "other sizes": (lambda x: x + 1, lambda x: x.sum(-1), InputError, r"float32\[4,6\].*float32\[4\]"),
    "other element type": (lambda x: x + 1, lambda x: (x + 1).half(), InputError, "float32.*float16"),
    "no real numbers": (lambda x: x > 1, lambda x: x > 1, InputError, "torch.bool"),
    "unsupported operator": (lambda x: x + 1, lambda x: torch.cumsum(x, 0), UnsupportedOperator, "cumsum"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_compared_is_said(mistake: str) -> None:
    first, second, kind, words = MISTAKES[mistake]
    with pytest.raises(kind, match=words):
        prism.prove(first, second, WIDE)


def test_a_verdict_has_no_truth_value() -> None:
    verdict: Verdict = prism.prove(lambda x: x + 1, lambda x: 1 + x, WIDE)
    with pytest.raises(TypeError, match="three values"):
        bool(verdict)


# -------------------------------------------------------------------------------------------- command line

PLAIN = """
import torch

def f(x, W):
    return (2 * x) @ W

def inputs():
    return torch.randn(8, 32), torch.randn(32, 48)
"""
FAST = """
import torch

def right(x, W):
    return 2 * (x @ W)

def wrong(x, W):
    return 3 * (x @ W)

def circle(x, W):
    return (2 * x) @ W * (x[0, 0].sin() ** 2 + x[0, 0].cos() ** 2)
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prism", "prove", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "fast.py").write_text(FAST)
    return str(tmp_path / "plain.py"), str(tmp_path / "fast.py")


@pytest.mark.parametrize(("candidate", "code", "word"), [("right", 0, "proved"), ("wrong", 1, "refuted")])
def test_exit_code_and_one_screen(
    candidate: str,
    code: int,
    word: str,
    files: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, fast = files
    assert run(monkeypatch, f"{plain}::f", f"{fast}::{candidate}") == code
    shown = capsys.readouterr().out
    assert word in shown
    assert len(shown.splitlines()) <= 24
    assert ("counterexample" in shown) == bool(code)


def test_json_and_symbolic_inputs(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, fast = files
    arguments = (f"{plain}::f", f"{fast}::wrong", "--json", "--input", "x=bf16[M:1..64,32]", "--input", "W=bf16[32,48]")
    assert run(monkeypatch, *arguments) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "refuted"
    assert record["left"].endswith("plain.py::f")
    assert "tensors" in record["counterexample"]
    assert record["seconds"] > 0
    assert record["facts"] == []


def test_mistakes_end_with_2(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, fast = files
    assert run(monkeypatch, f"{plain}::f", f"{fast}::rihgt") == 2
    assert "right" in capsys.readouterr().err
    assert run(monkeypatch, f"{plain}::f", f"{plain}x::f") == 2


# ---------------------------------------------------------------------------------------------------- masks


def later(s: torch.Tensor) -> torch.Tensor:
    return torch.ones(s.shape[-2:], dtype=torch.bool).triu(1)


def causal(s: torch.Tensor) -> torch.Tensor:
    return s.masked_fill(later(s), float("-inf"))


MASKED: dict[str, tuple[Callable[..., torch.Tensor], bool]] = {
    "padding under the causal mask": (lambda s, pad: causal(s + pad).softmax(-1), True),
    "causal mask as an addend": (
        lambda s, pad: (s + pad + torch.zeros(s.shape[-2:]).masked_fill(later(s), float("-inf"))).softmax(-1),
        True,
    ),
    "causal mask twice": (lambda s, pad: (causal(causal(s)) + pad).softmax(-1), True),
    "masked exponentials": (
        lambda s, pad: (
            torch.where(later(s), 0.0, (s + pad).exp())
            / torch.where(later(s), 0.0, (s + pad).exp()).sum(-1, keepdim=True)
        ),
        True,
    ),
    "no padding": (lambda s, pad: causal(s).softmax(-1), False),
    "not causal": (lambda s, pad: (s + pad).softmax(-1), False),
    "the sum of all": (
        lambda s, pad: torch.where(later(s), 0.0, (s + pad).exp()) / (s + pad).exp().sum(-1, keepdim=True),
        False,
    ),
}


@pytest.mark.parametrize("name", list(MASKED))
def test_a_causal_and_a_padding_mask(name: str) -> None:
    candidate, right = MASKED[name]
    inputs = (torch.empty(4, 64, 64), torch.empty(4, 1, 64))
    spec: Callable[..., torch.Tensor] = lambda s, pad: (causal(s) + pad).softmax(-1)  # noqa: E731
    found = prism.prove(spec, candidate, *inputs, may_hold_minus_inf=("pad",))
    assert found.status is (Status.PROVED if right else Status.REFUTED)
