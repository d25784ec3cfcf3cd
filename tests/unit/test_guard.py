"""A found kernel runs only on inputs that the program declares; others run as the function was written."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.targets import find_target
from autotune.torch_printer import load_torch, print_torch
from prism.effort import effort
from prism.frontend import capture
from prism.guard import FARTHEST, Guarded, log, misfit
from prism.modules import with_state, without_state
from prism.pipeline import concrete_sizes, search
from prism.progress import Progress
from prism.settings import load
from sgraph.axis import Axis, Size
from sgraph.expr import sum_over
from sgraph.program import DType, Output, Program
from sgraph.program import Tensor as Declared

M, K, N = Axis("m", Size("M", 1, 64, 2)), Axis("k", 8), Axis("n", 4)
X, W = Declared("x", (M, K), DType.FP32), Declared("W", (K, N), DType.FP32)
PROGRAM = Program("linear", (X, W), (Output(Declared("out", (M, N), DType.FP32), sum_over(K, X.read() * W.read())),))
WEIGHT = torch.ones(8, 4)


class Marked(Tensor):
    """A subclass, which may mean anything by its operators."""


def negated() -> Tensor:
    return torch.complex(torch.ones(6, 8), torch.ones(6, 8)).conj().imag


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ((torch.ones(6, 8),), "1 inputs"),
        ((torch.ones(6, 8), 3), "not a tensor"),
        ((torch.ones(6, 8), None), "not a tensor"),
        ((torch.ones(6, 8, dtype=torch.float64), WEIGHT), "float64"),
        ((torch.ones(6, 8, dtype=torch.complex64), WEIGHT), "complex64"),
        ((torch.ones(6, 9), WEIGHT), "axis k"),
        ((torch.ones(0, 8), WEIGHT), "M = 0"),
        ((torch.ones(66, 8), WEIGHT), "M = 66"),
        ((torch.ones(3, 8), WEIGHT), "multiple of 2"),
        ((torch.ones(6, 8, 1), WEIGHT), "3 dimensions"),
        ((torch.ones(()), WEIGHT), "0 dimensions"),
        ((torch.ones(6, 8, requires_grad=True), WEIGHT), "gradient"),
        ((torch.ones(6, 8).to_sparse(), WEIGHT), "not dense"),
        ((torch.ones(6, 8, device="meta"), WEIGHT), "meta"),
        ((torch.ones(6, 8).as_subclass(Marked), WEIGHT), "Marked"),
        ((negated(), WEIGHT), "negates"),
    ],
)
def test_a_misfit_is_named(inputs: tuple[object, ...], word: str) -> None:
    reason = misfit(PROGRAM, inputs)
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(8, 6).t(),
        torch.ones(1, 8).expand(6, 8),
        torch.ones(12, 16)[::2, ::2],
        torch.ones(20).as_strided((6, 8), (2, 1)),
        torch.nn.Parameter(torch.ones(6, 8), requires_grad=False),
    ],
)
def test_any_strides_fit(x: Tensor) -> None:
    assert misfit(PROGRAM, (x, WEIGHT)) is None


def test_strides_beyond_what_offsets_are_checked_for_do_not_fit() -> None:
    # A view of memory that is mapped and never touched.
    far = torch.empty(FARTHEST + 16, dtype=torch.float32).as_strided((2, 8), (FARTHEST, 1))
    reason = misfit(PROGRAM, (far, WEIGHT))
    assert reason is not None
    assert "spans" in reason


def test_autocast_does_not_fit() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        reason = misfit(PROGRAM, (torch.ones(6, 8), WEIGHT))
    assert reason is not None
    assert "autocast" in reason


def test_inside_vmap_the_original_runs() -> None:
    def original(x: Tensor, w: Tensor) -> Tensor:
        return x @ w

    guarded = Guarded(PROGRAM, lambda *_: pytest.fail("the kernel cannot read these"), original)
    x = torch.randn(3, 6, 8)
    torch.testing.assert_close(torch.vmap(guarded, in_dims=(0, None))(x, WEIGHT), x @ WEIGHT)
    assert "vmap" in guarded.reason


def test_fitting_inputs_run_what_was_found_and_others_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []

    def noted(text: str, *_: object) -> None:
        warnings.append(text)

    monkeypatch.setattr(log, "warning", noted)
    guarded = Guarded(PROGRAM, lambda *_: "found", lambda *_: "original")
    assert guarded(torch.ones(6, 8), WEIGHT) == "found"
    assert guarded(torch.ones(6, 9), torch.ones(9, 4)) == "original"
    assert guarded(torch.ones(6, 9), torch.ones(9, 4)) == "original"
    assert guarded.fallbacks == 2
    assert "axis k" in guarded.reason
    assert len(warnings) == 1


def test_arguments_by_name_find_their_places() -> None:
    def original(x: Tensor, w: Tensor, scale: float = 1.0) -> str:
        return f"original {scale}"

    guarded = Guarded(PROGRAM, lambda *_: "found", original)
    assert guarded(w=WEIGHT, x=torch.ones(6, 8)) == "found"
    assert guarded(torch.ones(6, 8), w=WEIGHT) == "found"
    assert guarded(torch.ones(6, 8), WEIGHT, scale=2.0) == "original 2.0"
    with pytest.raises(TypeError, match="unexpected keyword"):
        guarded(torch.ones(6, 8), weight=WEIGHT)


# ------------------------------------------------------------------------------------------------ modules


def _module() -> tuple[torch.nn.Module, Any, list[int]]:
    """A module, the same through a guard, and a list that grows when the guard lets a call through."""
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Dropout(0.5)).eval()
    program = capture(module, (torch.ones(6, 8),))
    run, ran = with_state(module), list[int]()

    def found(*values: Tensor) -> object:
        ran.append(1)
        return run(*values)

    return module, without_state(Guarded(program, found, run), module), ran


def test_a_module_runs_itself_where_it_is_not_what_it_was() -> None:
    module, guarded, ran = _module()
    x = torch.randn(6, 8)
    with torch.no_grad():
        torch.testing.assert_close(guarded(x), module(x))
        assert len(ran) == 1
        module[0].weight.mul_(2.0)  # type: ignore[operator,union-attr]  # pyright: ignore
        torch.testing.assert_close(guarded(x), module(x))
        assert len(ran) == 2, "other contents of a parameter are what it is read for"
        module.train()
        guarded(x)
        assert "training" in guarded.reason
        module.eval()
        module[0].bias = None  # pyright: ignore
        torch.testing.assert_close(guarded(x), module(x))
        assert "parameters" in guarded.reason
    assert len(ran) == 2
    assert guarded.fallbacks == 2


def test_a_module_gives_gradients_where_they_are_asked_for() -> None:
    module, guarded, ran = _module()
    guarded(torch.randn(6, 8)).sum().backward()
    assert module[0].weight.grad is not None  # pyright: ignore
    assert not ran


def test_hooks_added_later_are_called() -> None:
    module, guarded, ran = _module()
    called: list[int] = []
    module.register_forward_hook(lambda *_: called.append(1))  # pyright: ignore[reportUnknownLambdaType]
    with torch.no_grad():
        guarded(torch.randn(6, 8))
    assert called
    assert not ran


# ------------------------------------------------------------------------------------------ adversarial calls


def spec(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g) @ w


def _found() -> Guarded:
    """A family that the search proved, printed as torch, behind the guard."""
    x, g, w = torch.randn(6, 8), torch.randn(8), torch.randn(8, 4)
    program = capture(spec, (x, g, w), sizes={"x": (Size("M", 1, 64), 8)})
    sizes = concrete_sizes(program, (x, g, w))
    found = search(program, sizes, find_target("cpu"), effort("quick"), load(), Progress())
    printed = load_torch(print_torch(found.proved[0].family.graph))
    return Guarded(program, printed, spec)


HOSTILE: tuple[Callable[[Tensor, random.Random], object], ...] = (
    lambda t, r: t,
    lambda t, r: t[: r.randrange(0, len(t) + 1)] if t.dim() else t,
    lambda t, r: t.t().contiguous().t() if t.dim() == 2 else t.flip(0),
    lambda t, r: t[:1].expand(t.shape) if t.dim() else t,
    lambda t, r: t.double(),
    lambda t, r: t.half(),
    lambda t, r: t.to(torch.int64),
    lambda t, r: t.unsqueeze(r.randrange(0, 2)),
    lambda t, r: t.sum(),
    lambda t, r: t.clone().requires_grad_(),
    lambda t, r: t.as_subclass(Marked),
    lambda t, r: torch.cat([t, t]),
    lambda t, r: t.repeat_interleave(2, 0)[::2],
    lambda t, r: torch.full_like(t, float("nan")),
    lambda t, r: torch.full_like(t, 1e15),
    lambda t, r: torch.zeros_like(t),
    lambda t, r: t.to_sparse(),
    lambda t, r: t.to("meta"),
    lambda t, r: t.bool(),
    lambda t, r: torch.complex(t, t).conj().imag,
    lambda t, r: t.new_empty(0),
    lambda t, r: 2.0,
    lambda t, r: None,
    lambda t, r: [t],
    lambda t, r: torch.nn.Parameter(t),
)


def _answer(function: Callable[..., object], arguments: tuple[object, ...], named: dict[str, object]) -> object:
    try:
        return function(*arguments, **named)
    except Exception as error:
        return type(error)


def _close(got: Tensor, expected: Tensor, values: list[Any]) -> None:
    """Equal up to rounding, which grows with the terms that a sum adds up."""
    terms = spec(*(v.detach().double().abs() if isinstance(v, Tensor) else abs(v) for v in values))
    gap = (got.detach().double() - expected.detach().double()).abs()
    undefined = expected.detach().isnan()
    assert bool((got.detach().isnan() == undefined).all())
    assert bool((gap <= 1e-5 * terms + 1e-30)[~undefined].all()), f"off by {gap.max()}"


def test_two_hundred_adversarial_calls_answer_as_the_function_does() -> None:
    guarded = _found()
    draw = random.Random(0)
    torch.manual_seed(0)
    through = 0
    for number in range(200):
        values: list[object] = [torch.randn(draw.choice((1, 2, 6, 64, 65)), 8), torch.randn(8), torch.randn(8, 4)]
        for _ in range(draw.randrange(0, 3)):
            place = draw.randrange(0, 3)
            value = values[place]
            values[place] = draw.choice(HOSTILE)(value, draw) if isinstance(value, Tensor) else value
        if draw.random() < 0.1:
            values = values[: draw.randrange(0, 3)]
        by_name = draw.randrange(0, 4) if draw.random() < 0.3 else 3
        arguments = tuple(values[:by_name])
        named: dict[str, object] = dict(list(zip(("x", "g", "w"), values, strict=False))[by_name:])
        before = guarded.fallbacks
        with torch.no_grad() if draw.random() < 0.7 else torch.enable_grad():
            expected, got = _answer(spec, arguments, named), _answer(guarded, arguments, named)
        through += guarded.fallbacks == before
        if isinstance(expected, type):
            assert got is expected, (number, expected, got)
            continue
        assert isinstance(got, Tensor)
        assert isinstance(expected, Tensor)
        assert (got.requires_grad, got.dtype, got.shape, type(got)) == (
            expected.requires_grad,
            expected.dtype,
            expected.shape,
            type(expected),
        ), number
        if not any(isinstance(v, Tensor) and v.is_meta for v in values):  # torch gives arbitrary numbers there
            _close(got, expected, values)
    assert 40 < through < 160, f"{through} of 200 calls ran what was found"
