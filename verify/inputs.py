"""Inputs for a program at chosen sizes: normal ones, and hostile ones that well-meant kernels fail on.

Imports torch at once: import this module at first use only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import torch

from sgraph.axis import Axis, Size
from sgraph.border import parameters, pinned
from sgraph.errors import InputError
from sgraph.program import DType, Program, Tensor


class Distribution(StrEnum):
    """How the contents of the inputs are drawn. Weights (constant inputs) are always drawn from a normal one."""

    NORMAL = "normal"  # mean 0, variance 1
    LARGE_OFFSET = "large offset"  # far from 0 compared with its spread: breaks one-pass variances
    HUGE = "huge"  # squares still fit into float32, fourth powers do not
    TINY = "tiny"  # squares far below any epsilon
    NEGATIVE = "negative"  # the first input far below zero, the others above: scores and their maxima below zero
    ZERO_ROWS = "zero rows"  # the first row of every input is zero
    DENORMAL = "denormal"  # below the smallest normal number
    MASKED_ROWS = "masked rows"  # where an additive mask is declared, all of its first row is minus infinity


HOSTILE: Final = tuple(d for d in Distribution if d is not Distribution.NORMAL)

_FLOATS: Final = frozenset({DType.BF16, DType.FP16, DType.FP32, DType.FP64})
_HUGE_EXPONENT: Final = {DType.FP16: 7, DType.BF16: 40, DType.FP32: 40, DType.FP64: 300}
_TINY_EXPONENT: Final = {DType.FP16: -12, DType.BF16: -40, DType.FP32: -40, DType.FP64: -300}
_DENORMAL_EXPONENT: Final = {DType.FP16: -16, DType.BF16: -128, DType.FP32: -130, DType.FP64: -1030}
_OFFSET: Final = 100.0
_BELOW_ZERO: Final = 32.0
_MASKED_FRACTION: Final = 0.25


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch element type of the same name."""
    found: object = getattr(torch, dtype.value)
    assert isinstance(found, torch.dtype)
    return found


def is_float(dtype: DType) -> bool:
    """Whether elements are floating-point numbers."""
    return dtype in _FLOATS


def resolve_sizes(program: Program, given: Mapping[str, int] | None = None, *, odd: bool = False) -> dict[str, int]:
    """The extent of every axis of the program's tensors, by axis name.

    An extent that is not given is the program's own; a symbolic one is small, or, if ``odd``, a prime-like number
    that no tile divides (as far as its range and divisor allow).

    Raises:
        InputError: an axis is unknown, or a size violates what the program declares of it.
    """
    given = dict(given or {})
    tensors = (*parameters(program), *program.inputs, *(o.tensor for o in program.outputs))
    axes = {a.name: a.base for t in tensors for a in t.named_axes}
    unknown = sorted(set(given) - set(axes))
    if unknown:
        raise InputError(
            f"size given for axis {unknown[0]!r}, which {program.name} does not have",
            do=f"one of {', '.join(sorted(axes))}",
        )
    fixed = sorted(name for name in pinned(program) & set(given) if given[name] != axes[name].extent)
    if fixed:
        raise InputError(
            f"size given for axis {fixed[0]!r}, whose extent {axes[fixed[0]].extent} is written in a view of an input",
            do="leave it out",
        )
    chosen: dict[str, int] = {}
    symbols: dict[str, int] = {}
    for name, axis in sorted(axes.items()):
        size = given.get(name, axis.extent)
        if isinstance(size, Size):
            size = symbols.get(size.name, _pick(size, odd))
        _check_size(axis, size)
        if isinstance(axis.extent, Size) and symbols.setdefault(axis.extent.name, size) != size:
            raise InputError(f"axis {name} has extent {axis.extent}, which is {symbols[axis.extent.name]} and {size}")
        chosen[name] = size
    return chosen


def _pick(size: Size, odd: bool) -> int:
    """A multiple of the divisor within the range, near 131 if ``odd`` and near 16 if not."""
    wanted = 131 if odd else 16
    count = max(1, round(wanted / size.divisor))
    if odd and count % 2 == 0:
        count += 1
    lowest, highest = -(-size.low // size.divisor), size.high // size.divisor
    return min(max(count, lowest), highest) * size.divisor


def _check_size(axis: Axis, size: int) -> None:
    if size < 0:
        raise InputError(f"axis {axis} has the size {size}", do="a size is not negative")
    declared = axis.extent
    if isinstance(declared, Size) and not (declared.low <= size <= declared.high and size % declared.divisor == 0):
        raise InputError(
            f"axis {axis} has the size {size}",
            do=f"a multiple of {declared.divisor} from {declared.low} to {declared.high}, as the program declares",
        )


def shape_of(tensor: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a tensor at these sizes; a dimension without an axis has extent 1."""
    return tuple(1 if a is None else size_at(a, sizes) for a in tensor.axes)


def size_at(axis: Axis, sizes: Mapping[str, int]) -> int:
    """The extent of an axis at these sizes; its own where no input has it."""
    if axis.name not in sizes and isinstance(axis.extent, int):
        return axis.extent
    return sizes[axis.name]


def make_inputs(
    program: Program,
    sizes: Mapping[str, int],
    *,
    seed: int,
    distribution: Distribution = Distribution.NORMAL,
    dtype: DType | None = None,
    device: str = "cpu",
) -> tuple[torch.Tensor, ...]:
    """What the program's function takes, in order. The same arguments give the same numbers on every device.

    Args:
        program: Whose inputs.
        sizes: Extent of every axis by name (``resolve_sizes``).
        seed: Of the random generator.
        distribution: What the contents are like.
        dtype: Element type in place of each float input's own.
        device: Where they are put; drawn on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    made: list[torch.Tensor] = []
    leading = next((t.name for t in parameters(program) if _drawn(t)), "")
    for tensor in parameters(program):
        shape = shape_of(tensor, sizes)
        kind = dtype if dtype is not None and is_float(tensor.dtype) else tensor.dtype
        if not is_float(kind):
            high = 2 if kind is DType.BOOL else 8
            values = torch.randint(0, high, shape, generator=generator)
        elif not tensor.finite:
            values = _mask(shape, generator, every=distribution is Distribution.MASKED_ROWS)
        else:
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            values = _shaped(normal, distribution, kind, tensor.name == leading) if _drawn(tensor) else normal
        made.append(values.to(torch_dtype(kind)).to(device))
    return tuple(made)


def _drawn(tensor: Tensor) -> bool:
    """Whether hostile contents apply: to floats that change from call to call."""
    return is_float(tensor.dtype) and tensor.finite and not tensor.constant


def _shaped(normal: torch.Tensor, distribution: Distribution, dtype: DType, leading: bool) -> torch.Tensor:
    match distribution:
        case Distribution.NORMAL | Distribution.MASKED_ROWS:
            return normal
        case Distribution.LARGE_OFFSET:
            return normal + _OFFSET
        case Distribution.HUGE:
            return normal * 2.0 ** _HUGE_EXPONENT[dtype]
        case Distribution.TINY:
            return normal * 2.0 ** _TINY_EXPONENT[dtype]
        case Distribution.DENORMAL:
            return normal * 2.0 ** _DENORMAL_EXPONENT[dtype]
        case Distribution.NEGATIVE:
            return -(normal.abs() + _BELOW_ZERO) if leading else normal.abs()
        case Distribution.ZERO_ROWS:
            rows = normal.clone()
            if rows.ndim == 1:
                return torch.zeros_like(rows)
            if rows.numel():
                rows[0] = 0.0
            return rows


def _mask(shape: tuple[int, ...], generator: torch.Generator, *, every: bool) -> torch.Tensor:
    """An additive mask: 0 or minus infinity, with something left in every row unless a full row is wanted."""
    hidden = torch.rand(shape, generator=generator) < _MASKED_FRACTION
    values = torch.zeros(shape, dtype=torch.float64).masked_fill(hidden, -torch.inf)
    if values.numel() and values.ndim:
        values[..., 0] = 0.0
        if every:
            values.view(-1, values.shape[-1])[0] = -torch.inf
    return values
