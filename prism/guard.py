"""The guard at call time: the found kernel runs on what it was proved and checked for, anything else as before."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sgraph.axis import Size
from sgraph.border import parameters
from sgraph.program import Program, Tensor

if TYPE_CHECKING:
    import torch

log = logging.getLogger("prism.search")

FARTHEST: Final = 1 << 31
"""Elements that a strided tensor may span; kernels are checked for offsets up to here."""


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
        self.reason = ""
        """Why it answered the last of them."""
        self._names = parameter_order(original)

    def __call__(self, *inputs: object, **named: object) -> object:
        """Run the found callable, or the original one where an input does not fit; the first time with a warning."""
        values = positional(self._names, inputs, named) if named else inputs
        reason = misfit(self.program, values) if values is not None else unplaced(named)
        if reason is None and values is not None:
            return self.found(*values)
        self.missed(reason or "")
        return self.original(*inputs, **named)

    def missed(self, reason: str) -> None:
        """Count a call that the original function answers, and warn of the first."""
        if not self.fallbacks:
            log.warning("%s runs as it was written: %s", self.program.name, reason)
        self.fallbacks += 1
        self.reason = reason


def parameter_order(function: Callable[..., object]) -> tuple[str, ...]:
    """Names of the parameters that may be given by position; none where a function does not tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    return tuple(name for name, p in signature.parameters.items() if p.kind in kinds)


def positional(
    names: Sequence[str], inputs: tuple[object, ...], named: Mapping[str, object]
) -> tuple[object, ...] | None:
    """The arguments of a call in the order of the parameters; None where a name has no place there."""
    rest = names[len(inputs) :]
    wanted = rest[: len(named)]
    return (*inputs, *(named[n] for n in wanted)) if set(wanted) == set(named) else None


def unplaced(named: Mapping[str, object]) -> str:
    """Why arguments by name have no place."""
    return f"it was not searched for with the arguments {', '.join(map(repr, named))}"


def misfit(program: Program, inputs: tuple[object, ...]) -> str | None:
    """How the inputs differ from what the program declares; None if they fit."""
    import torch

    from verify.inputs import torch_dtype

    expected = parameters(program)
    if len(inputs) != len(expected):
        return f"{len(inputs)} inputs given, {len(expected)} expected"
    symbols: dict[str, int] = {}
    device: torch.device | None = None
    for tensor, given in zip(expected, inputs, strict=True):
        if not isinstance(given, torch.Tensor):
            return f"{tensor.name} is a {type(given).__name__}, not a tensor"
        wrong = _wrong_kind(tensor.name, given)
        if wrong is not None:
            return wrong
        if given.dtype != torch_dtype(tensor.dtype):
            return f"{tensor.name} is {given.dtype}, {tensor.dtype.value} expected"
        if device is not None and given.device != device:
            return f"{tensor.name} lies on {given.device}, the inputs before it on {device}"
        device = given.device
        wrong = _wrong_shape(tensor, given, symbols)
        if wrong is not None:
            return wrong
    if device is not None and torch.is_autocast_enabled(device.type):
        return "autocast is on, which chooses the types of operators"
    return None


def _wrong_kind(name: str, given: torch.Tensor) -> str | None:
    """What keeps a tensor from being read as plain memory, whatever its shape."""
    import torch

    if type(given) not in (torch.Tensor, torch.nn.Parameter):
        return f"{name} is of the tensor subclass {type(given).__name__}"
    if torch._C._functorch.is_functorch_wrapped_tensor(given):  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
        return f"{name} is inside a function transform such as vmap"
    if given.layout is not torch.strided:
        return f"{name} is not dense: {given.layout}"
    if given.device.type not in ("cpu", "cuda"):
        return f"{name} lies on {given.device}"
    if given.requires_grad and torch.is_grad_enabled():
        return f"{name} requires a gradient, which kernels do not give"
    if given.is_neg() or given.is_conj():
        return f"{name} is a view that torch negates or conjugates when it reads it"
    spanned = sum((n - 1) * s for n, s in zip(given.shape, given.stride(), strict=True))
    if spanned >= FARTHEST and not given.is_contiguous():
        return f"{name} spans {spanned} elements"
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
