"""Small programs that a fuzzer found: each was once captured, proved, printed or searched for wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from capturing import Function, check, draw
from torch import Tensor
from torch.nn import functional

import prism
from autotune.targets import find_target
from autotune.torch_printer import load_torch, print_torch
from prism.effort import effort
from prism.pipeline import Request, captured, search
from prism.progress import Progress
from prism.settings import load
from rewrites.normal_form import compare
from sgraph.axis import Axis
from sgraph.evaluate import numerically_equal
from sgraph.expr import Expr, Op, const, exp, index, leaf, less, less_equal, make, max_over, neg_inf, sum_over, where
from sgraph.ir import Kernel, SGraph, Store
from sgraph.scaled import stabilise

M, K = Axis("m", 6), Axis("k", 5)
X, Y, MASK = leaf("x", [M, K]), leaf("y", [M, K]), leaf("mask", [M, K], finite=False)


def unit_rows(x: Tensor, y: Tensor) -> Tensor:
    return functional.cosine_similarity(x, y, dim=0)


@pytest.mark.parametrize(("first", "second"), [((4,), (4, 4, 1)), ((1, 5), (3, 5)), ((3, 1), (5,)), ((3, 5), (3, 5))])
def test_a_vector_that_is_repeated_is_longer(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    check(unit_rows, draw(*first), draw(*second, seed=1))


@pytest.mark.parametrize("places", [(0, -1), (-1, 0), ((0,), (-1,))])
def test_a_single_element_has_no_dimension_to_move(places: tuple[int, int]) -> None:
    check(lambda x: x.sum().movedim(*places) * 2, draw(3, 5))


CONDITIONS: dict[str, Function] = {
    "all": lambda x, y: torch.where((x > 0.5).all(-1, keepdim=True), x, y),
    "any of an or": lambda x, y: torch.where(((x > 1) | (y > 1)).any(-1, keepdim=True), x, y),
    "any of an exclusive or": lambda x, y: torch.where(((x > 1) ^ (y > 1)).any(-1, keepdim=True), x, y),
    "or with a negation": lambda x, y: torch.where((x.sum() > 0) | ~(y >= 0.25), x, y),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_over_an_axis_are_proved_and_printed(name: str) -> None:
    function, inputs = CONDITIONS[name], (draw(3, 5), draw(3, 5, seed=1))
    program = check(function, *inputs)
    (output,) = program.outputs
    graph = SGraph(program, (Kernel("k0", (Store(output.tensor, output.value, output.value),)),))
    printed = load_torch(print_torch(graph))
    wanted = cast("Callable[..., Tensor]", function)(*inputs)
    torch.testing.assert_close(cast("Tensor", printed(*inputs)), wanted)
    assert prism.prove(cast("Callable[..., Tensor]", function), printed, *inputs).status.value == "proved"


def test_a_truth_without_an_indicator_chooses_a_branch() -> None:
    def chosen(then: Expr, otherwise: Expr) -> Expr:
        some = max_over(K, less(const(0), X))
        return make(Op.WHERE, (some, then, otherwise))

    assert compare(chosen(X, Y) * 2, chosen(2 * X, 2 * Y)).equal
    assert not compare(chosen(X, Y), chosen(Y, X)).equal
    assert compare(exp(chosen(X, neg_inf())), chosen(exp(X), const(0))).equal


SQUARES = {
    "mask as a sum": X + where(less_equal(index(K), index(M)), const(0), neg_inf()),
    "mask as a choice": where(less_equal(index(K), index(M)), X, neg_inf()),
    "mask as an input": X + MASK,
    "mask of whole sums": where(less(index(M), const(2)), X, neg_inf()),
    "mask of whole sums, the other branch": where(less(index(M), const(2)), neg_inf(), X),
}


@pytest.mark.parametrize("name", SQUARES)
def test_powers_of_masked_exponentials_stay_defined(name: str) -> None:
    weight = exp(SQUARES[name])
    spec = sum_over(K, weight * weight)
    hidden = "input" in name  # of which a row may be masked as a whole, so that its maximum is not finite
    assert hidden or numerically_equal(spec, stabilise(spec)) is None
    assert compare(spec, stabilise(spec)).equal is ("whole" in name)


def masked_variance(x: Tensor) -> Tensor:
    hidden = torch.full((3, 3), -torch.inf, dtype=x.dtype).triu(1)
    return torch.softmax(x.sum(1) + hidden, -1).var(0, correction=0)


def masked_unit_columns(x: Tensor) -> Tensor:
    weight = torch.where(torch.arange(x.shape[-1]) < 2, x, -torch.inf).exp()
    return functional.normalize(weight, dim=0)


@pytest.mark.parametrize(
    ("function", "shape"), [(masked_variance, (2, 3, 3, 3)), (masked_unit_columns, (3, 3))], ids=("variance", "columns")
)
def test_maxima_of_masked_elements_alone_stop_no_search(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    x = draw(*shape).float()
    program, sizes = captured(Request(function, (x,)))
    found = search(program, sizes, find_target("h200"), effort("default"), load(), Progress())
    assert found.proved or any("refuted" in status for status in found.statuses)


@pytest.mark.parametrize("name", ["sum", "mean of squares"])
def test_a_kernel_of_a_single_number_is_evaluated_exactly(name: str, tmp_path: Path) -> None:
    def single(x: Tensor) -> Tensor:
        return x.sum() if name == "sum" else x.square().mean()

    x = draw(3, 5).float()
    found = prism.superoptimize(single, x, target="h200", effort="quick", use_store=False, fallback=False, out=tmp_path)
    assert found.source
    torch.testing.assert_close(cast("Tensor", found(x)), single(x))
