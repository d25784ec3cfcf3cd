"""The options of the front door, checked and in the form that the pipeline takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sgraph.axis import Extent, Size
from sgraph.errors import InputError

if TYPE_CHECKING:
    import torch

Dynamic = Mapping[str, Mapping[int, "Size | tuple[int, int] | tuple[int, int, int]"]]
"""By parameter and dimension: a ``Size``, or (low, high), or (low, high, divisor)."""


def sizes_of(
    function: Callable[..., object],
    inputs: Sequence[object],
    dynamic: Dynamic | None,
    sizes: Mapping[str, Sequence[Extent]] | None,
) -> dict[str, tuple[Extent, ...]]:
    """Declared sizes, those given dimension by dimension included.

    Raises:
        InputError: a parameter or dimension does not exist, a range is none, or one is declared twice.
    """
    found = {name: tuple(extents) for name, extents in (sizes or {}).items()}
    if not dynamic:
        return found
    names = _names(function, inputs)
    for name, dimensions in dynamic.items():
        if name not in names:
            raise InputError(f"dynamic names {name!r}, which is no input", do=f"use one of {', '.join(names)}")
        if name in found:
            raise InputError(f"both sizes and dynamic declare {name!r}", do="use one of them for one input")
        tensor = _tensor(name, inputs[names.index(name)])
        extents: list[Extent] = list(tensor.shape)
        for dimension, given in dimensions.items():
            if not -tensor.dim() <= dimension < tensor.dim():
                raise InputError(
                    f"dynamic names dimension {dimension} of {name}, which has {tensor.dim()}",
                    do=f"use one of 0 to {tensor.dim() - 1}",
                )
            place = dimension % tensor.dim()
            extents[place] = _size(f"{name}_{place}", given)
        found[name] = tuple(extents)
    return found


def _size(name: str, given: object) -> Size:
    match given:
        case Size():
            return given
        case (int(low), int(high)) if 1 <= low <= high:
            return Size(name, low, high)
        case (int(low), int(high), int(divisor)) if 1 <= low <= high and divisor >= 1:
            return Size(name, low, high, divisor)
        case _:
            raise InputError(
                f"dynamic gives {given!r} for {name}",
                do="give (low, high), (low, high, divisor), or an sgraph.axis.Size to use one size in several places",
            )


def ranges_of(
    function: Callable[..., object], inputs: Sequence[object], sizes: Mapping[str, Sequence[Extent]] | None
) -> dict[int, dict[int, tuple[int, int]]]:
    """The open sizes by the positions of inputs and dimensions."""
    if not sizes:
        return {}
    names = _names(function, inputs)
    return {
        names.index(name): {d: (e.low, e.high) for d, e in enumerate(extents) if isinstance(e, Size)}
        for name, extents in sizes.items()
        if name in names
    }


def _names(function: Callable[..., object], inputs: Sequence[object]) -> list[str]:
    from prism.frontend.arguments import function_name, location, parameter_names

    return parameter_names(function, inputs, function_name(function), location(function))


def _tensor(name: str, value: object) -> torch.Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise InputError(f"dynamic names {name!r}, which is a {type(value).__name__}", do="name tensors only")
    return value
