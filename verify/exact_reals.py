"""The real numbers of exact evaluation, to fifty digits and ten more for its own rounding.

They are ``decimal.Decimal``, whose arithmetic runs in C and shares no code with the evaluation of programs. An
undefined value (a masked lane, 0/0, infinity minus infinity) is NaN and stays NaN; nothing overflows.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any, Final

from sgraph.arithmetic import DIGITS
from verify.exact_literals import meaning

WORKING_DIGITS: Final = DIGITS + 10
NAN: Final = Decimal("NaN")
BOTTOM: Final = Decimal("-Infinity")
TOP: Final = Decimal("Infinity")


@contextmanager
def digits() -> Generator[None]:
    """The precision that the numbers here are computed in, without exceptions for undefined results."""
    context = decimal.Context(prec=WORKING_DIGITS, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])
    with decimal.localcontext(context):
        yield


@cache
def _mpmath() -> Any:
    from mpmath.ctx_mp import MPContext

    mp: Any = MPContext()
    mp.dps = WORKING_DIGITS
    return mp


def from_mpmath(value: Any) -> Decimal:
    """The same number."""
    mp = _mpmath()
    if mp.isnan(value) or mp.isinf(value):
        return NAN if mp.isnan(value) else TOP if value > 0 else BOTTOM
    sign, mantissa, exponent, _ = value._mpf_
    whole = Decimal(int(-mantissa if sign else mantissa))
    return whole * Decimal(2) ** int(exponent)


@cache
def named() -> Mapping[str, Decimal]:
    """The constants of ``exact_literals.NAMED`` to all digits."""
    with digits():
        pi, log2 = Decimal(str(_mpmath().pi)), Decimal(2).ln()
        return {
            "sqrt(1/2)": Decimal("0.5").sqrt(),
            "sqrt(2)": Decimal(2).sqrt(),
            "sqrt(2/pi)": (2 / pi).sqrt(),
            "2*sqrt(2/pi)": 2 * (2 / pi).sqrt(),
            "log(2)": log2,
            "1/log(2)": 1 / log2,
            "pi": pi,
        }


class Reals:
    """Numbers to fifty digits."""

    def __init__(self, constants: Iterable[Fraction] = ()) -> None:
        self.undefined: Any = NAN
        self.bottom: Any = BOTTOM
        self.top: Any = TOP
        self._constants = tuple(constants)
        self.functions: Mapping[str, Callable[[Any], Any]] = {
            "exp": cache(_exp),
            "exp2": cache(_exp2),
            "log": _log,
            "log2": lambda a: _log(a) / Decimal(2).ln(),
            "sqrt": _sqrt,
            "rsqrt": lambda a: 1 / _sqrt(a),
            "erf": _erf,
            "abs": abs,
            "sigmoid": lambda a: 1 / (1 + _exp(-a)),
        }
        """Unary functions by the name that ``triton.language`` gives them."""

    def working(self) -> Any:
        """The context to compute in."""
        return digits()

    def integer(self, value: int) -> Any:
        """An integer as a real number."""
        return Decimal(value)

    def fraction(self, value: Fraction) -> Any:
        """A rational number."""
        return Decimal(value.numerator) / Decimal(value.denominator)

    def literal(self, value: float) -> Any:
        """What a literal of the text stands for."""
        found = meaning(value, self._constants)
        return named()[found] if isinstance(found, str) else self.fraction(found)

    def element(self, value: float) -> Any:
        """An element of an input."""
        return Decimal(float(value))

    def is_undefined(self, value: Any) -> bool:
        """Whether a number is undefined."""
        return value.is_nan()

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two."""
        return NAN if a.is_nan() or b.is_nan() else max(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two."""
        return NAN if a.is_nan() or b.is_nan() else min(a, b)

    def compare(self, operator: str, a: Any, b: Any) -> Any:
        """Whether a comparison holds; undefined if an operand is."""
        if a.is_nan() or b.is_nan():
            return NAN
        return bool(COMPARISONS[operator](a, b))


COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
"""Comparisons by how they are written; of integers, reals and arrays of integers."""


def _exp(a: Decimal) -> Decimal:
    return a.exp()


def _exp2(a: Decimal) -> Decimal:
    return (a * Decimal(2).ln()).exp()


def _log(a: Decimal) -> Decimal:
    return a.ln()


def _sqrt(a: Decimal) -> Decimal:
    return a.sqrt()


def _erf(a: Decimal) -> Decimal:
    if not a.is_finite():
        return a if a.is_nan() else Decimal(1).copy_sign(a)
    return from_mpmath(_mpmath().erf(_mpmath().mpf(str(a))))
