"""Every operator of the coverage table means what torch computes in float64; what is refused is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from capturing import inputs_of
from torch import Tensor

from prism.frontend import capture
from prism.proving import prove
from sgraph.border import parameters
from sgraph.errors import PrismError
from sgraph.evaluate import evaluate_program
from tests.coverage_operators import GROUPS, REFUSED, Function, shapes_of
from verify.verdict import Status

LINES = {name: line for group in GROUPS.values() for name, line in group.items()}


def assert_captured(function: Function, inputs: tuple[Tensor, ...], masks: tuple[str, ...] = ()) -> None:
    """The captured equations, evaluated in double precision, are what torch computes in float64."""
    program = capture(function, inputs, may_hold_minus_inf=masks)
    expected = cast("Callable[..., object]", function)(*inputs)
    wanted = cast("tuple[Tensor, ...]", expected if isinstance(expected, tuple) else (expected,))
    arrays = {t.name: x.numpy() for t, x in zip(parameters(program), inputs, strict=True)}
    for found, value in zip(evaluate_program(program, arrays).values(), wanted, strict=True):
        assert found.shape == tuple(value.shape)
        np.testing.assert_allclose(found, value.double().numpy(), rtol=2e-7, atol=1e-9)


def test_no_name_stands_in_two_groups() -> None:
    assert len(LINES) == sum(map(len, GROUPS.values()))


@pytest.mark.parametrize("name", list(LINES))
def test_an_operator_means_what_torch_computes(name: str) -> None:
    function, shapes = LINES[name]
    assert_captured(function, inputs_of(*shapes_of(shapes)))


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_not_covered_is_refused_with_a_reason(name: str) -> None:
    function, shapes, message = REFUSED[name]
    with pytest.raises(PrismError) as caught:
        capture(function, inputs_of(*shapes_of(shapes)))
    assert message in str(caught.value)
    assert caught.value.do and "coverage_operators.py" in caught.value.where


def test_rows_that_an_additive_mask_hides_from_every_key_are_zero() -> None:
    q, k, v = inputs_of((2, 4, 8), (2, 5, 8), (2, 5, 6))
    mask = torch.zeros(4, 5, dtype=torch.float64)
    mask[0, 1:] = mask[2] = -torch.inf

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask)

    assert bool((attention(q, k, v, mask)[:, 2] == 0).all())
    assert_captured(attention, (q, k, v, mask), masks=("attn_mask",))
    # A finite number hides nothing from a row that holds nothing else.
    assert_captured(attention, (q, k, v, mask.clamp_min(-50.0)), masks=("attn_mask",))


def test_a_mask_of_positions_is_looked_at_when_it_is_captured() -> None:
    q, k, v = inputs_of((2, 4, 8), (2, 4, 8), (2, 4, 6))

    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def with_its_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keep = torch.ones(4, 4, dtype=torch.bool).tril()
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, keep)

    def below_it(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keep = torch.ones(4, 4, dtype=torch.bool).tril(-1)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, keep)

    assert prove(causal, with_its_mask, (q, k, v)).status is Status.PROVED
    # The first row sees nothing: torch gives 0, and so does the program.
    assert_captured(below_it, (q, k, v))
    assert prove(causal, below_it, (q, k, v)).status is Status.REFUTED
