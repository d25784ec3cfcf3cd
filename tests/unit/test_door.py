"""The front door: whole programs, programs in regions, what is said of either, options, the decorator."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prism
from prism import backend
from prism.cli import main
from prism.effort import EFFORTS
from prism.partitioned import Partitioned
from prism.result import Result
from sgraph.errors import InputError, UnsupportedOperator, UnsupportedProgram


@pytest.fixture(autouse=True)
def _short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    torch.compiler.reset()
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(EFFORTS, "quick", replace(EFFORTS["quick"], measure_s=0.5, tuned=1, proved=2))  # type: ignore[index]


@dataclass
class Plain:
    """A region as it was written, in place of a search's result."""

    run: Callable[..., object]

    def report(self) -> str:
        return "as it was written"

    def to_json(self) -> str:
        return "{}"


@pytest.fixture
def unsearched(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(region: object, seen: object, function: Callable[..., object], asked: object) -> Plain:
        return Plain(function)

    monkeypatch.setattr(backend, "_search", plain)


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def whole(x: Tensor, w: Tensor) -> Tensor:
    return norm(x) @ w


def mixed(x: Tensor, w: Tensor, times: int = 2) -> Tensor:
    """Two regions around an operator that the language does not have, and an effect of Python's."""
    print("called")  # noqa: T201
    return norm(torch.cumsum(norm(x) @ w, 0)) * times


X, W = torch.randn(6, 16), torch.randn(16, 16)


# ------------------------------------------------------------------------------------------------ explain


def test_a_whole_program_is_explained_without_running_it() -> None:
    found = prism.explain(whole, torch.empty(6, 16, device="meta"), torch.empty(16, 16, device="meta"))
    assert found.whole
    assert "captured as one program" in found.text
    assert "sum[k]" in found.regions[0].equations
    cost = found.regions[0].cost
    assert cost is not None
    assert cost.classes > 5
    assert json.loads(found.to_json())["whole"] is True
    assert "<pre>" in found._repr_html_()  # pyright: ignore[reportPrivateUsage]


def test_what_cuts_a_function_is_explained_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(*_: object) -> None:
        pytest.fail("explain does not search")

    monkeypatch.setattr("prism.pipeline.run", searched)
    found = prism.explain(mixed, X, W)
    assert not found.whole
    assert len(found.regions) == 2
    (cut,) = found.cuts
    assert cut.operator == "cumsum"
    assert "test_door.py" in cut.line
    assert "not supported" in cut.reason
    for words in ("region", "cumsum", "test_door.py", "rewrite table"):
        assert words in found.text


def test_gradients_are_mentioned() -> None:
    found = prism.explain(whole, X, W.clone().requires_grad_())
    assert "gradient" in found.notes[0]


# ------------------------------------------------------------------------------------------- region by region


@pytest.mark.usefixtures("unsearched")
def test_regions_and_the_rest_give_what_the_function_gives(capsys: pytest.CaptureFixture[str]) -> None:
    fast = prism.superoptimize(mixed, X, W, target="cpu", effort="quick")
    assert isinstance(fast, Partitioned)
    capsys.readouterr()
    torch.testing.assert_close(fast(X, W), mixed(X, W))
    torch.testing.assert_close(fast(x=X, w=W), mixed(X, W))
    assert capsys.readouterr().out.count("called") == 4, "what Python does beside is done at every call"
    assert fast.fallbacks == 0
    assert "2 to search" in fast.report()
    assert json.loads(fast.to_json())["explanation"]["graphs"] == 1


@pytest.mark.usefixtures("unsearched")
def test_calls_that_are_not_like_the_example_run_the_original() -> None:
    fast = prism.superoptimize(mixed, X, W, 2, target="cpu", effort="quick")
    assert isinstance(fast, Partitioned)
    calls: list[tuple[tuple[Any, ...], str]] = [
        ((X[:3], W, 2), "(3, 16)"),
        ((X.double(), W.double(), 2), "float64"),
        ((X, W, 3), "3"),
        ((X, W), "2 inputs"),
        ((X.clone().requires_grad_(), W, 2), "True"),
        ((X.t().contiguous().t(), W, 2), "Dynamo"),
    ]
    for number, (arguments, word) in enumerate(calls, 1):
        torch.testing.assert_close(fast(*arguments), mixed(*arguments))
        assert fast.fallbacks == number
        assert word in fast.reason
    assert "6 calls ran the original" in fast.report()


@pytest.mark.usefixtures("unsearched")
def test_trying_a_function_changes_nothing_of_the_callers() -> None:
    def changes(x: Tensor) -> Tensor:
        x += 1.0
        return norm(x).softmax(-1)

    given = X.clone()
    fast = prism.superoptimize(changes, given, target="cpu", effort="quick")
    torch.testing.assert_close(given, X, rtol=0, atol=0)
    with torch.no_grad():
        fast(given)
    torch.testing.assert_close(given, X + 1.0)


@pytest.mark.usefixtures("unsearched")
def test_a_decision_by_contents_is_taken_at_every_call() -> None:
    def decides(x: Tensor) -> Tensor:
        y = norm(x)
        return y.softmax(-1) if x.sum() > 0 else y.exp().sum(-1)

    fast = prism.superoptimize(decides, X.abs(), target="cpu", effort="quick")
    for given in (X.abs(), -X.abs()):
        torch.testing.assert_close(fast(given), decides(given))


@pytest.mark.usefixtures("unsearched")
def test_a_declared_range_of_sizes() -> None:
    fast = prism.superoptimize(mixed, X, W, target="cpu", effort="quick", dynamic={"x": {0: (2, 64)}})
    assert isinstance(fast, Partitioned)
    for rows in (2, 7, 64):
        given = torch.randn(rows, 16)
        torch.testing.assert_close(fast(given, W), mixed(given, W))
    assert fast.fallbacks == 0
    fast(torch.randn(65, 16), W)
    assert fast.fallbacks == 1


def test_without_fallback_the_operator_is_an_error() -> None:
    with pytest.raises(UnsupportedOperator, match="cumsum"):
        prism.superoptimize(mixed, X, W, target="cpu", effort="quick", fallback=False)
    with pytest.raises(UnsupportedProgram, match="contents of a tensor"):
        prism.superoptimize(lambda x: x if x.sum() > 0 else -x, X, fallback=False)  # pyright: ignore


# --------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("dynamic", "words"),
    [
        ({"y": {0: (1, 4)}}, "no input"),
        ({"x": {2: (1, 4)}}, "dimension 2"),
        ({"x": {0: (4, 1)}}, r"\(4, 1\)"),
        ({"x": {0: 4}}, "gives 4"),
    ],
)
def test_wrong_ranges_are_named(dynamic: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        prism.superoptimize(whole, X, W, target="cpu", dynamic=dynamic)


def test_dynamic_sizes_of_a_whole_program() -> None:
    fast = prism.superoptimize(whole, X, W, target="cpu", effort="quick", dynamic={"x": {0: (1, 64)}}, fallback=False)
    assert "1..64" in fast.record.equations
    for rows in (1, 33):
        given = torch.randn(rows, 16)
        torch.testing.assert_close(fast(given, W), whole(given, W), rtol=1e-4, atol=1e-5)
    assert fast.fallbacks == 0
    fast(torch.randn(65, 16), W)
    assert fast.fallbacks == 1


def test_a_mask_may_hold_minus_infinity() -> None:
    def masked(s: Tensor, mask: Tensor) -> Tensor:
        return (s + mask).softmax(-1)

    mask = torch.zeros(6, 16).masked_fill(torch.arange(16) > 9, float("-inf"))
    fast = prism.superoptimize(
        masked, X, mask, target="cpu", effort="quick", may_hold_minus_inf=["mask"], fallback=False
    )
    assert "may hold -inf" in fast.record.equations
    torch.testing.assert_close(fast(X, mask), masked(X, mask))


# ------------------------------------------------------------------------------------------------- decorator


def test_the_decorator_searches_at_the_first_call() -> None:
    @prism.superoptimize(target="cpu", effort="quick")
    def decorated(x: Tensor, w: Tensor) -> Tensor:
        """Its own words."""
        return norm(x) @ w

    assert decorated.__doc__ == "Its own words."
    assert decorated.result is None
    torch.testing.assert_close(decorated(X, w=W), whole(X, W), rtol=1e-4, atol=1e-5)
    assert isinstance(decorated.result, Result)
    torch.testing.assert_close(decorated(X[:2], W), whole(X[:2], W))
    assert decorated.result.fallbacks == 1


def test_the_decorator_leaves_training_alone() -> None:
    @prism.superoptimize(target="cpu", effort="quick")
    def decorated(x: Tensor, w: Tensor) -> Tensor:
        return norm(x) @ w

    w = W.clone().requires_grad_()
    answer = decorated(X, w)
    assert isinstance(answer, Tensor)
    answer.sum().backward()
    assert w.grad is not None
    assert decorated.result is None


def test_the_decorator_searches_ahead_of_time_for_an_example() -> None:
    @prism.superoptimize(target="cpu", effort="quick", example=(X, W))
    def decorated(x: Tensor, w: Tensor) -> Tensor:
        return norm(x) @ w

    assert isinstance(decorated.result, Result)


# ---------------------------------------------------------------------------------------------- command line

FILE = """
import torch

def f(x, w):
    return torch.cumsum(x.softmax(-1) @ w, 0)

def inputs():
    return torch.randn(6, 16), torch.randn(16, 16)
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prism", *arguments])
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def test_the_command_line_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.py").write_text(FILE)
    target = f"{tmp_path / 'plain.py'}::f"
    assert run(monkeypatch, "explain", target) == 0
    shown = capsys.readouterr().out
    assert "left to torch: cumsum" in shown
    assert "plain.py:5" in shown
    assert run(monkeypatch, "explain", target, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cuts"][0]["operator"] == "cumsum"
    assert run(monkeypatch, "optimize", target, "--no-fallback", "--target", "cpu") == 2
    assert "cumsum" in capsys.readouterr().err


def test_a_search_leaves_the_random_numbers_alone() -> None:
    def noisy(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, -1) + torch.rand(x.shape)

    x = torch.randn(4, 8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    prism.superoptimize(noisy, x, effort="quick", target="cpu")
    assert torch.equal(torch.rand(3), expected)
