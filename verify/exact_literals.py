"""What a literal of an emitted text stands for.

A literal is the rounding of a number: of a constant of the program, of a named constant such as the square root of
1/2, of a simple fraction, or else it is meant digit by digit. How far it is from that number is a matter of
rounding, which the numerical contract judges.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Final

LARGEST_DENOMINATOR: Final = 100_000
"""Of a fraction that a literal is taken for."""
NAMED: Final[Mapping[str, float]] = {
    "sqrt(1/2)": 0.7071067811865476,
    "sqrt(2)": math.sqrt(2),
    "sqrt(2/pi)": 0.7978845608028654,
    "2*sqrt(2/pi)": 1.5957691216057308,
    "log(2)": math.log(2),
    "1/log(2)": 1 / math.log(2),
    "pi": math.pi,
}
"""Irrational constants as the doubles next to them."""


def meaning(value: float, constants: Iterable[Fraction] = ()) -> Fraction | str:
    """The number that a literal rounds, or the name of a constant in ``NAMED``.

    Args:
        value: The literal, not negative.
        constants: Numbers that the program itself contains.
    """
    for constant in constants:
        if float(abs(constant)) == value:
            return abs(constant)
    for name, rounded in NAMED.items():
        if rounded == value:
            return name
    simple = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
    return simple if float(simple) == value else Fraction(repr(value))
