"""What a number in a program means: floats are meant as decimals, fractions or square roots, not as binary."""

from __future__ import annotations

import math
from fractions import Fraction

from sgraph.expr import Expr, const, negate, recip, sqrt

SHORT_DECIMAL_DIGITS = 12
"""Someone may have typed a decimal of at most this many digits; longer ones come out of a computation."""
LARGEST_TERM = 1 << 16
"""Largest numerator and denominator of a lifted value: few enough fractions that a chance hit is unlikely (1e-6)."""


def literal(value: float) -> tuple[Expr, str | None]:
    """A finite number as an exact constant, and the fact to record if it was read as something else than a decimal.

    ``1e-6`` is 1/10**6; ``0.08838834764831845`` is 1/sqrt(128).
    """
    if isinstance(value, int):
        return const(value), None
    decimal = Fraction(repr(value))
    if len(repr(value).partition("e")[0].replace(".", "").strip("-0")) <= SHORT_DECIMAL_DIGITS:
        return const(decimal), None
    size = abs(value)
    fraction = Fraction(size).limit_denominator(LARGEST_TERM)
    if fraction and fraction.numerator <= LARGEST_TERM and float(fraction) == size:
        return const(-fraction if value < 0 else fraction), f"{value!r} is read as {_signed(value, str(fraction))}"
    square = (Fraction(size) ** 2).limit_denominator(LARGEST_TERM)
    if square and square.numerator <= LARGEST_TERM and size in _roundings(square):
        root, text = _root(square)
        return (negate(root) if value < 0 else root), f"{value!r} is read as {_signed(value, text)}"
    return const(decimal), None


def _roundings(square: Fraction) -> set[float]:
    """The values that the usual ways to compute a square root in float64 give; they differ in the last place."""
    a, b = square.numerator, square.denominator
    return {
        math.sqrt(a / b),
        math.sqrt(a) / math.sqrt(b),
        1 / math.sqrt(b / a),
        (a / b) ** 0.5,
        (b / a) ** -0.5,
    }


def _root(square: Fraction) -> tuple[Expr, str]:
    if square.numerator == 1:
        return recip(sqrt(const(square.denominator))), f"1/sqrt({square.denominator})"
    return sqrt(const(square)), f"sqrt({square})"


def _signed(value: float, text: str) -> str:
    return f"-{text}" if value < 0 else text
