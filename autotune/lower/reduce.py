"""Reductions of tiles: sums, maxima and dot products, with the masks that ragged tiles need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from autotune.layout import Contraction
from autotune.lower.code import Code, Dims, Level, product
from autotune.lower.function import Function, Scope
from autotune.lower.padding import NEUTRAL, NEUTRAL_TEXT, ZERO, padding, product_padding
from autotune.lower.pointwise import as_tensor
from sgraph.axis import Axis
from sgraph.expr import Expr, Op, leaves, reduction
from sgraph.program import DType

FUNCTIONS: Final[Mapping[Op, str]] = {Op.SUM: "tl.sum", Op.MAX: "tl.max", Op.MIN: "tl.min"}
"""Reductions of a tile along one dimension."""
PAIRWISE: Final[Mapping[Op, str]] = {Op.MAX: "tl.maximum", Op.MIN: "tl.minimum"}
"""The same of two tiles, element by element, where it is no operator."""


def operand(function: Function, scope: Scope, op: Op, value: Expr, axes: Iterable[Axis]) -> Code:
    """The tile that a reduction reduces, neutral in its padded lanes."""
    code = as_tensor(scope.pointwise.signed(value))
    reduced = function.layout.dims(axes)
    dims = function.layout.dims({*code.dims, *reduced})
    known = [a in code.dims and padding(value, a, function.pads | scope.pads) == NEUTRAL[op] for a in reduced]
    if len(reduced) > 1 and value.op is not Op.LEAF:
        known = [False] * len(reduced)  # a value constant along one axis may be anything in the padding of another
    ragged = [a for a, neutral in zip(reduced, known, strict=True) if not neutral]
    return masked(function, code, ragged, dims, NEUTRAL_TEXT[op])


def masked(function: Function, code: Code, axes: Sequence[Axis], dims: Dims, neutral: str) -> Code:
    """The tile with a neutral element in the padded lanes of some axes."""
    mask = function.tiles.mask(axes, dims)
    if mask is None:
        return code.spread(dims)
    return Code(f"tl.where({mask.text}, {code.spread(dims).text}, {neutral})", dims)


def reduced_tile(function: Function, scope: Scope, value: Expr) -> Code:
    """A chain of reductions of one tile, without a dot product."""
    axes, inner = reduction(value)
    code = operand(function, scope, value.op, inner, axes)
    for axis in reversed(function.layout.dims(axes)):
        place = code.dims.index(axis)
        dims = tuple(a for a in code.dims if a != axis)
        code = Code(f"{FUNCTIONS[value.op]}({code.text}, axis={place})", dims)
    return code


def dot(function: Function, scope: Scope, contraction: Contraction, accumulator: str) -> str:
    """A dot product added to an accumulator."""
    dtype, text = _dot_type(function, scope, contraction)
    rows, inner, columns = contraction.axes
    left_zero, right_zero = (
        product_padding(side, inner, function.pads | scope.pads) for side in (contraction.left, contraction.right)
    )
    safe = (left_zero == ZERO and right_zero.finite) or (right_zero == ZERO and left_zero.finite)
    operands: list[str] = []
    for side, shape, pad in (
        (contraction.left, (rows, inner), left_zero),
        (contraction.right, (inner, columns), right_zero),
    ):
        plain = len(side) == 1 and side[0].op is Op.LEAF
        code = scope.raw[side[0]] if plain else _product(function, scope, side)
        dims = function.layout.dims(shape)
        code = masked(function, code, () if safe or pad == ZERO else (inner,), dims, "0.0")
        same = plain and function.dtype(side[0]) is dtype
        if not same and (plain or dtype is not DType.FP32):
            code = Code(f"{code.within(Level.ATOM)}.to({text})", dims)
        operands.append(code.text if dims == shape else f"tl.trans({code.text})")
    precision = f", input_precision={function.arguments.precision()}" if dtype is DType.FP32 else ""
    return f"tl.dot({', '.join(operands)}, {accumulator}{precision})"


def _product(function: Function, scope: Scope, side: Sequence[Expr]) -> Code:
    negative, code = product([scope.operand(f) for f in side], function.layout.dims)
    return Code(f"-{code.within(Level.SIGN)}", code.dims, Level.SIGN) if negative else code


def _dot_type(function: Function, scope: Scope, contraction: Contraction) -> tuple[DType, str]:
    """Element type of a dot's operands, and how the text names it.

    A tile that is loaded keeps its type; a computed one takes that of the other operand, and of two computed ones
    both take the narrowest type that they were loaded with.
    """
    sides = (contraction.left, contraction.right)
    plain = [s[0] for s in sides if len(s) == 1 and s[0].op is Op.LEAF]
    read = plain or [v for v in leaves([*contraction.left, *contraction.right]) if _is_float(function.dtype(v))]
    types = [function.dtype(v) for v in read]
    chosen = (max if plain else min)(types, key=_width, default=DType.FP32)
    if not _is_float(chosen) or any(t is not chosen and t.bytes == chosen.bytes for t in types):
        return DType.FP32, "tl.float32"
    source = next((v for v in read if function.dtype(v) is chosen and v in function.pads), None)
    if source is None:  # it was loaded in another phase
        return chosen, f"tl.{chosen.value}"
    if plain:
        return chosen, f"{scope.raw[source].text}.dtype"
    pointer = function.arguments.pointer(function.file.tensor[source.name])
    return chosen, f"{pointer}.dtype.element_ty"


def _width(dtype: DType) -> int:
    return dtype.bytes


def _is_float(dtype: DType) -> bool:
    return dtype in {DType.BF16, DType.FP16, DType.FP32}
