"""Pieces of emitted expressions: text with the tile dimensions and the operator precedence it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from fractions import Fraction

from sgraph.axis import Axis

Dims = tuple[Axis, ...]
"""Tile dimensions in the order of the kernel's layout."""
Order = Callable[[Iterable[Axis]], Dims]
"""Puts axes into that order."""


class Level(IntEnum):
    """How tightly a piece of text binds, from loose to tight."""

    OR = 0
    AND = 1
    COMPARE = 2
    SUM = 3
    PRODUCT = 4
    SIGN = 5
    ATOM = 6


class Kind(StrEnum):
    """Element type class of an expression."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"


@dataclass(frozen=True, slots=True)
class Code:
    """One expression of the emitted text."""

    text: str
    """What is printed."""
    dims: Dims = ()
    """Tile dimensions of its value; none for a number."""
    level: Level = Level.ATOM
    """Precedence of its outermost operator."""
    kind: Kind = Kind.FLOAT
    """What its elements are."""
    static: bool = False
    """Whether it is known when the kernel is compiled: literals, constexpr sizes, arithmetic on them."""
    value: Fraction | None = None
    """The number it is, for a literal."""
    divisor: Code | None = None
    """What it is the reciprocal of, so that a product prints as a division."""

    @property
    def is_name(self) -> bool:
        """Whether repeating the text repeats no work."""
        return self.text.isidentifier()

    def within(self, level: Level) -> str:
        """The text where something that binds at least as tightly as ``level`` is expected."""
        return self.text if self.level >= level else f"({self.text})"

    def spread(self, dims: Dims) -> Code:
        """The value with dimensions of extent 1 where ``dims`` has more; numbers need none."""
        if not self.dims or self.dims == dims:
            return self
        index = ", ".join(":" if a in self.dims else "None" for a in dims)
        return Code(f"{self.within(Level.ATOM)}[{index}]", dims, Level.ATOM, self.kind)


def literal(value: Fraction, *, real: bool = False) -> Code:
    """A number; ``real`` writes an integer with a decimal point."""
    whole = value.denominator == 1
    text = f"{value.numerator}" if whole and not real else repr(float(value))
    level = Level.SIGN if value < 0 else Level.ATOM
    return Code(text, (), level, Kind.INT if whole and not real else Kind.FLOAT, static=True, value=value)


def as_real(code: Code) -> Code:
    """A literal with a decimal point; others as they are."""
    return literal(code.value, real=True) if code.value is not None and code.kind is Kind.INT else code


def joined_dims(pieces: Iterable[Code], order: Order) -> Dims:
    """The dimensions of a value computed elementwise from others."""
    return order({a for p in pieces for a in p.dims})


def infix(operator: str, left: Code, right: Code, level: Level, order: Order) -> Code:
    """``left operator right``, broadcast to common dimensions."""
    dims = joined_dims((left, right), order)
    real = Kind.FLOAT in (left.kind, right.kind)
    if real:
        left, right = as_real(left), as_real(right)
    text = f"{left.spread(dims).within(level)} {operator} {right.spread(dims).within(_tighter(level))}"
    kind = Kind.BOOL if level is Level.COMPARE else Kind.FLOAT if real or operator == "/" else Kind.INT
    return Code(text, dims, level, kind, static=left.static and right.static)


def _tighter(level: Level) -> Level:
    return Level(level + 1)


def call(function: str, arguments: Sequence[Code], order: Order, *, kind: Kind = Kind.FLOAT) -> Code:
    """``function(arguments)``, broadcast to common dimensions."""
    dims = joined_dims(arguments, order)
    if kind is Kind.FLOAT:
        arguments = [as_real(a) for a in arguments]
    text = ", ".join(a.spread(dims).text for a in arguments)
    return Code(f"{function}({text})", dims, Level.ATOM, kind)


def reciprocal(code: Code) -> Code:
    """``1.0 / code``."""
    return Code(f"1.0 / {as_real(code).within(Level.SIGN)}", code.dims, Level.PRODUCT, static=code.static, divisor=code)


def product(pieces: Sequence[Code], order: Order) -> tuple[bool, Code]:
    """Whether the product is negative, and its magnitude.

    Factors of few dimensions are multiplied with one another before they meet a whole tile.
    """
    constant = Fraction(1)
    rest: list[Code] = []
    for piece in pieces:
        if piece.value is not None:
            constant *= piece.value
        else:
            rest.append(piece)
    negative = constant < 0
    magnitude = literal(abs(constant))
    if not rest:
        return negative, magnitude
    if magnitude.value != 1:
        rest.insert(0, magnitude)
    groups: dict[Dims, Code] = {}
    for piece in rest:
        known = groups.get(piece.dims)
        groups[piece.dims] = piece if known is None else _times(known, piece, order)
    while len(groups) > 1:
        by_rank = sorted(groups, key=len)
        low = by_rank[0]
        into = next((d for d in by_rank[1:] if set(low) <= set(d)), None)
        if into is None:
            break
        groups[into] = _times(groups[into], groups.pop(low), order)
    total: Code | None = None
    for dims in sorted(groups, key=len, reverse=True):
        total = groups[dims] if total is None else _times(total, groups[dims], order)
    assert total is not None
    return negative, total


def _times(left: Code, right: Code, order: Order) -> Code:
    """``left * right``, a literal first, a reciprocal as a division."""
    if left.divisor is not None and right.divisor is None:
        left, right = right, left
    if right.divisor is not None and right.level is Level.PRODUCT:
        quotient = infix("/", as_real(left), right.divisor, Level.PRODUCT, order)
        return replace(quotient, kind=Kind.FLOAT)
    if right.value is not None:
        left, right = right, left
    return infix("*", left, right, Level.PRODUCT, order)


def negated(code: Code) -> Code:
    """``-code``."""
    return replace(code, text=f"-{code.within(Level.SIGN)}", level=Level.SIGN, value=None, divisor=None)
