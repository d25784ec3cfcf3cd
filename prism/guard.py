"""The guard at call time: the found kernel runs on what it was proved and checked for, anything else as before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from sgraph.axis import Size
from sgraph.border import parameters
from sgraph.program import Program, Tensor

if TYPE_CHECKING:
    import torch

log = logging.getLogger("prism.search")


class Guarded:
    """A callable that falls back to the original function where an input is not what the program declares."""

    def __init__(self, program: Program, found: Callable[..., object], original: Callable[..., object]) -> None:
        self.program = program
        """What the found callable computes."""
        self.found = found
        """Runs where the guard holds."""
        self.original = original
        """Runs elsewhere."""
        self.fallbacks = 0
        """Calls that the original function answered."""

    def __call__(self, *inputs: object) -> object:
        """Run the found callable, or the original one where an input does not fit; the first time with a warning."""
        reason = misfit(self.program, inputs)
        if reason is None:
            return self.found(*inputs)
        if not self.fallbacks:
            log.warning("%s runs as it was written: %s", self.program.name, reason)
        self.fallbacks += 1
        return self.original(*inputs)


def misfit(program: Program, inputs: tuple[object, ...]) -> str | None:
    """How the inputs differ from what the program declares; None if they fit."""
    import torch

    from verify.inputs import torch_dtype

    expected = parameters(program)
    if len(inputs) != len(expected):
        return f"{len(inputs)} inputs given, {len(expected)} expected"
    symbols: dict[str, int] = {}
    for tensor, given in zip(expected, inputs, strict=True):
        if not isinstance(given, torch.Tensor):
            return f"{tensor.name} is a {type(given).__name__}, not a tensor"
        if given.dtype != torch_dtype(tensor.dtype):
            return f"{tensor.name} is {given.dtype}, {tensor.dtype.value} expected"
        if given.requires_grad and torch.is_grad_enabled():
            return f"{tensor.name} requires a gradient, which kernels do not give"
        wrong = _wrong_shape(tensor, given, symbols)
        if wrong is not None:
            return wrong
    return None


def _wrong_shape(tensor: Tensor, given: torch.Tensor, symbols: dict[str, int]) -> str | None:
    name, axes = tensor.name, tensor.axes
    if given.dim() != len(axes):
        return f"{name} has {given.dim()} dimensions, {len(axes)} expected"
    for axis, size in zip(axes, given.shape, strict=True):
        extent = 1 if axis is None else axis.extent
        if isinstance(extent, Size):
            if symbols.setdefault(extent.name, int(size)) != size:
                return f"{extent.name} is {symbols[extent.name]} and, in {name}, {size}"
            if not extent.low <= size <= extent.high or size % extent.divisor:
                allowed = f"a multiple of {extent.divisor} from {extent.low} to {extent.high}"
                return f"{extent.name} = {size} in {name} is not {allowed}"
        elif size != extent:
            return f"{name} has shape {tuple(given.shape)}; axis {axis or 1} has extent {extent}"
    return None
