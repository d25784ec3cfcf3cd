"""What a value holds in the padded lanes of a ragged tile, and so where a reduction must mask.

Lanes beyond the end of an axis hold what their loads put there, carried through pointwise arithmetic. A sum is
right if they hold 0, a maximum if they hold minus infinity. Where that is not certain (``x - mean``,
``exp(x - M)``) the reduction masks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Final

from sgraph.axis import Axis
from sgraph.expr import REDUCTIONS, Expr, Op, walk


class Lanes(Enum):
    """What is known of padded lanes."""

    NUMBER = "a known number"
    NEGATIVE_INFINITY = "minus infinity"
    POSITIVE_INFINITY = "infinity"
    VALID = "the same finite value as valid lanes"
    FINITE = "some finite value"
    UNKNOWN = "anything"


@dataclass(frozen=True, slots=True)
class Padding:
    """Contents of the padded lanes of one axis."""

    lanes: Lanes
    """What is known."""
    number: Fraction = Fraction(0)
    """The known number."""

    @property
    def finite(self) -> bool:
        """Whether 0 times it is 0."""
        return self.lanes in {Lanes.NUMBER, Lanes.VALID, Lanes.FINITE}


ZERO: Final = Padding(Lanes.NUMBER)
LOWEST: Final = Padding(Lanes.NEGATIVE_INFINITY)
HIGHEST: Final = Padding(Lanes.POSITIVE_INFINITY)
VALID: Final = Padding(Lanes.VALID)
FINITE: Final = Padding(Lanes.FINITE)
UNKNOWN: Final = Padding(Lanes.UNKNOWN)

NEUTRAL: Final[Mapping[Op, Padding]] = {Op.SUM: ZERO, Op.MAX: LOWEST, Op.MIN: HIGHEST}
"""What each reduction ignores."""
NEUTRAL_TEXT: Final[Mapping[Op, str]] = {Op.SUM: "0.0", Op.MAX: 'float("-inf")', Op.MIN: 'float("inf")'}
"""The same as emitted text."""
ZERO_AT_ZERO: Final = frozenset({"silu", "tanh", "gelu", "gelu_tanh", "relu", "erf", "abs"})
"""Functions that map 0 to 0."""


def padding(value: Expr, axis: Axis, known: Mapping[Expr, Padding]) -> Padding:
    """What ``value`` holds in the padded lanes of ``axis``.

    Args:
        value: over the kernel's tensors.
        axis: a tile dimension.
        known: what leaves are loaded with, and values that are masked already.
    """
    found: dict[Expr, Padding] = {}
    for node in walk([value]):
        if node in known and axis in node.free:
            found[node] = known[node]
        elif axis not in node.free:
            found[node] = _constant_padding(node)
        else:
            found[node] = _padding(node, [found[a] for a in node.args])
    return found[value]


def product_padding(factors: Iterable[Expr], axis: Axis, known: Mapping[Expr, Padding]) -> Padding:
    """What a product holds in the padded lanes of ``axis``."""
    total = Padding(Lanes.NUMBER, Fraction(1))
    for factor in factors:
        total = _times(total, padding(factor, axis, known))
    return total


def _constant_padding(node: Expr) -> Padding:
    if node.op is Op.CONST:
        return Padding(Lanes.NUMBER, node.value)
    if node.op is Op.NEG_INF:
        return LOWEST
    return VALID if node.finite else UNKNOWN


def _padding(node: Expr, args: list[Padding]) -> Padding:
    match node.op:
        case Op.INDEX:
            return FINITE
        case Op.ADD:
            return _plus(args[0], args[1])
        case Op.MUL:
            return _times(args[0], args[1])
        case Op.EXP:
            if args[0] == LOWEST:
                return ZERO
            return FINITE if args[0] == ZERO else UNKNOWN
        case Op.SQRT:
            return args[0] if args[0] == ZERO else UNKNOWN
        case Op.CALL:
            if args[0] == ZERO and node.name in ZERO_AT_ZERO:
                return ZERO
            return FINITE if args[0].finite else UNKNOWN
        case Op.MAX2 | Op.MIN2:
            return args[0] if args[0] == args[1] else _either(args)
        case Op.WHERE:
            return args[1] if args[1] == args[2] else _either(args[1:])
        case op if op in REDUCTIONS:
            return args[0] if args[0] == NEUTRAL[op] else UNKNOWN
        case _:
            return UNKNOWN


def _either(args: Iterable[Padding]) -> Padding:
    return FINITE if all(a.finite for a in args) else UNKNOWN


def _plus(a: Padding, b: Padding) -> Padding:
    for one, other in ((a, b), (b, a)):
        if one in (LOWEST, HIGHEST):
            return one if other.finite or other == one else UNKNOWN
    if a.lanes is b.lanes is Lanes.NUMBER:
        return Padding(Lanes.NUMBER, a.number + b.number)
    if a.finite and b.finite:
        return VALID if a.lanes is b.lanes is Lanes.VALID else FINITE
    return UNKNOWN


def _times(a: Padding, b: Padding) -> Padding:
    if a.lanes is b.lanes is Lanes.NUMBER:
        return Padding(Lanes.NUMBER, a.number * b.number)
    if (a == ZERO and b.finite) or (b == ZERO and a.finite):
        return ZERO
    for one, other in ((a, b), (b, a)):
        if one in (LOWEST, HIGHEST) and other.lanes is Lanes.NUMBER and other.number:
            return one if other.number > 0 else (HIGHEST if one == LOWEST else LOWEST)
        if one.lanes is Lanes.NUMBER and other.finite:
            return FINITE
    # A product of two unbounded values may overflow to infinity in lanes that nobody looks at.
    return VALID if a.lanes is b.lanes is Lanes.VALID else UNKNOWN
