"""Folds in emitted files: constants computed from constants, once, and again when one of them changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from autotune.interpreter import interpreted
from autotune.module import load_source
from autotune.offline import Meta, compile_launch
from sgraph.errors import LoweringLimit
from sgraph.expr import leaf, sum_over
from sgraph.ir import SGraph
from sgraph.program import Output, Tensor
from tests.unit.test_lower import FP32, GRID, LOOP, K, M, N, family, g, kernel, out, rms, small_config, source, w, x
from verify.exact import check_exactly

T = torch.Tensor
SIZES = {"m": 3, "k": 40, "n": 21}


def gained() -> SGraph:
    """RMSNorm and a projection, the gain folded into the weight."""
    weight = Tensor("gw", (K, N), FP32, constant=True)
    first = kernel("scale", {weight: g * w}, {K: GRID, N: GRID})
    value = sum_over(K, x * weight.read()) * rms(x, K)
    second = kernel("project", {out("y", M, N): value}, {M: GRID, N: GRID, K: LOOP})
    graph = family([x, g, w], first, second)
    inputs = tuple(replace(t, constant=t.name != "x") for t in graph.program.inputs)
    output = Output(graph.program.outputs[0].tensor, sum_over(K, x * g * w) * rms(x, K))
    return replace(graph, program=replace(graph.program, inputs=inputs, outputs=(output,)))


def expected(a: T, gain: T, weight: T) -> T:
    return (a * torch.rsqrt(a.square().mean(-1, keepdim=True) + 1e-6) * gain) @ weight


class Emitted:
    """The emitted file, with its folds counted."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.folds = 0
        stated = module.fold
        self.config = small_config(gained(), SIZES)

        def counted(*tensors: T, **options: object) -> object:
            self.folds += 1
            return stated(*tensors, **options)

        vars(module)["fold"] = counted

    def check(self, *tensors: T) -> None:
        with interpreted():
            y = self.module.launch(*tensors, config=self.config)
        wanted = expected(*(t.double() for t in tensors))
        assert torch.allclose(y.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture
def emitted() -> Iterator[Emitted]:
    module = load_source(source(gained()), "folds")
    stated = module.fold
    yield Emitted(module)
    vars(module)["fold"] = stated
    module.FOLDED.clear()


@pytest.fixture
def tensors() -> tuple[T, T, T]:
    torch.manual_seed(0)
    return torch.randn(3, 40), torch.randn(40), torch.randn(40, 21)


def test_what_is_folded_is_computed_once(emitted: Emitted, tensors: tuple[T, T, T]) -> None:
    a, gain, weight = tensors
    for scale in (1.0, 2.0, 3.0):
        emitted.check(a * scale, gain, weight)
    assert emitted.folds == 1
    emitted.check(a, gain.detach(), weight.view(40, 21))
    assert emitted.folds == 1, "another view of the same memory"


def test_a_write_in_place_is_noticed(emitted: Emitted, tensors: tuple[T, T, T]) -> None:
    a, gain, weight = tensors
    emitted.check(a, gain, weight)
    weight.mul_(2)
    emitted.check(a, gain, weight)
    gain.detach().add_(1)
    emitted.check(a, gain, weight)
    assert emitted.folds == 3


def test_every_weight_has_its_own(emitted: Emitted, tensors: tuple[T, T, T]) -> None:
    """Memory that was given back is never taken for what lay there before: the file keeps what it folded."""
    a, gain, _ = tensors
    for layer in range(4):
        emitted.check(a, gain, torch.full((40, 21), float(layer)))
    assert emitted.folds == 4
    assert len(emitted.module.FOLDED) == 4
    both = torch.randn(40, 42)
    emitted.check(a, gain, both[:, :21])
    emitted.check(a, gain, both[:, 21:])
    assert emitted.folds == 6, "other parts of one tensor"


def test_no_more_is_remembered_than_stated(
    emitted: Emitted, tensors: tuple[T, T, T], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, gain, weight = tensors
    monkeypatch.setattr(emitted.module, "MOST_FOLDED", 2)
    for layer in range(5):
        emitted.check(a, gain, weight + layer)
    assert len(emitted.module.FOLDED) <= 2


def test_tensors_without_a_count_of_writes_are_folded_at_every_call(emitted: Emitted, tensors: tuple[T, T, T]) -> None:
    a, gain, weight = tensors
    with torch.inference_mode():
        untracked = weight * 1
    for _ in range(2):
        emitted.check(a, gain, untracked)
    assert emitted.folds == 2


def test_a_fold_checks_its_inputs(emitted: Emitted, tensors: tuple[T, T, T]) -> None:
    _, gain, weight = tensors
    with pytest.raises(ValueError, match="W: axis k has extent 39"):
        emitted.module.fold(gain, weight[:39])


def test_both_gates_see_through_it() -> None:
    graph = gained()
    text = source(graph)
    assert check_exactly(graph.program, text).passed
    for wrong in (
        text.replace("W_kn * g_k[:, None]", "W_kn"),
        text.replace("(gw,) = _folded(g, W", "(gw,) = (W,)  # _folded(g, W"),
        text.replace("FOLDED[key] = (given, fold(g, W", "FOLDED[key] = (given, fold(W[0], W"),
    ):
        assert wrong != text
        assert not check_exactly(graph.program, wrong).passed


def test_both_kernels_compile_and_only_one_is_launched_again() -> None:
    graph = gained()
    module = load_source(source(graph), "folds")
    shapes = [Meta((16, 512), "float32"), Meta((512,), "float32"), Meta((512, 256), "float32")]
    for _ in range(2):
        names = [r.kernel for r in compile_launch(module, 80, shapes, small_config(graph, SIZES))]
        assert names == ["scale", "project"], "without memory behind them, tensors are folded at every call"
    assert not module.FOLDED


def test_a_fold_of_an_axis_that_no_constant_has_is_refused() -> None:
    rows = Tensor("rows", (M,), FP32, constant=True)
    first = kernel("rows", {rows: sum_over(K, leaf("g", (K,)))}, {M: GRID, K: LOOP})
    second = kernel("use", {out("y", M): rows.read()}, {M: GRID})
    with pytest.raises(LoweringLimit, match="no input has axis m"):
        source(family([x, g], first, second))
