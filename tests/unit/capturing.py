"""Capturing a function and comparing its equations with torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from reference import results
from torch import Tensor

from prism.frontend import capture
from sgraph.axis import Size
from sgraph.border import returned, viewed
from sgraph.program import Program

Function = (
    Callable[[Tensor], object]
    | Callable[[Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], object]
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(draw(*shape, seed=seed) for seed, shape in enumerate(shapes))


def assert_same(program: Program, function: Function, inputs: tuple[Tensor, ...], **sizes: int) -> None:
    """The program's equations agree with torch in float64."""
    taken = viewed(program, [x.double().numpy() for x in inputs])
    tensors = {t.name: x for t, x in zip(program.inputs, taken, strict=True)}
    expected = cast("Callable[..., object]", function)(*inputs)
    for found, wanted in zip(
        returned(program, results(program, tensors, sizes)),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    ):
        assert isinstance(wanted, Tensor)
        assert found.shape == tuple(wanted.shape)
        torch.testing.assert_close(torch.from_numpy(found.copy()), wanted, rtol=1e-9, atol=1e-10)


def captured(
    function: Function, *inputs: Tensor, masks: tuple[str, ...] = (), **sizes: Sequence[int | Size]
) -> Program:
    return capture(function, inputs, may_hold_minus_inf=masks, sizes=sizes)


def check(function: Function, *inputs: Tensor, masks: tuple[str, ...] = ()) -> Program:
    program = captured(function, *inputs, masks=masks)
    assert_same(program, function, inputs)
    return program
