"""The numbers that expressions are evaluated in: double precision, or fifty digits.

Both follow the language's partial semantics (``docs/language.md``): an undefined value is NaN and stays NaN, and
minus infinity may be used only under ``+``, where it absorbs, ``max`` and ``exp``. Overflow is not undefinedness:
in double precision a value beyond the range is an infinity, as on a device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sgraph.expr import Op
from sgraph.functions import function

Array = npt.NDArray[Any]
"""An array of double precision numbers, or of objects holding fifty-digit ones."""

DIGITS: Final = 50
"""Decimal digits of the precise arithmetic."""


LARGEST_EXPONENT: Final = 10**5
"""Arguments of exponential functions beyond which the precise arithmetic gives up, before numbers fill the memory."""


class Indecisive(Exception):
    """Fifty digits cannot say: rounding could decide whether a value is defined, or an exponential is too large."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Constants and operators on one kind of number."""

    dtype: type
    """Element type of the arrays."""
    number: Callable[[Fraction | float], Any]
    """A constant."""
    operators: dict[Op, Callable[..., Array]]
    """Element-wise operators and conditions (1, 0 or NaN), by operator."""
    reductions: dict[Op, Callable[[Array, int], Array]]
    """Reductions over one dimension, by operator."""
    call: Callable[[str, Array], Array]
    """A unary function by name."""

    def array(self, values: Array) -> Array:
        """An array of this kind of number."""
        if self.dtype is not object:
            return np.asarray(values, dtype=self.dtype)
        out = np.empty(values.shape, dtype=object)
        for position in np.ndindex(values.shape):
            out[position] = self.number(float(values[position]))
        return out


# ------------------------------------------------------------------------------------------- double precision


def _no_minus_infinity(result: Array, *operands: Array) -> Array:
    """``result``, undefined wherever an operand is minus infinity."""
    for operand in operands:
        if np.isneginf(operand).any():
            result = np.where(np.isneginf(operand), np.nan, result)
    return result


def _mul(a: Array, b: Array) -> Array:
    return _no_minus_infinity(a * b, a, b)


def _recip(a: Array) -> Array:
    return _no_minus_infinity(np.where(a == 0, np.nan, 1.0 / a), a)


def _sqrt(a: Array) -> Array:
    return np.sqrt(a)


def _log(a: Array) -> Array:
    return np.where(a > 0, np.log(a), np.nan)


def _min(a: Array, b: Array) -> Array:
    return _no_minus_infinity(np.minimum(a, b), a, b)


def _condition(compare: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def holds(a: Array, b: Array) -> Array:
        undefined = np.isnan(a) | np.isnan(b) | np.isneginf(a) | np.isneginf(b)
        return np.where(undefined, np.nan, compare(a, b))

    return holds


def _where(condition: Array, then: Array, otherwise: Array) -> Array:
    return np.where(np.isnan(condition), np.nan, np.where(condition == 1, then, otherwise))


def _sum(a: Array, dimension: int) -> Array:
    return _no_minus_infinity(a.sum(axis=dimension), a.min(axis=dimension, initial=np.inf))


def _max_over(a: Array, dimension: int) -> Array:
    return np.maximum.reduce(a, axis=dimension, initial=-np.inf)


def _min_over(a: Array, dimension: int) -> Array:
    if not a.shape[dimension]:
        return np.full(np.delete(a.shape, dimension), np.nan)
    return np.where(np.isneginf(a).any(axis=dimension), np.nan, a.min(axis=dimension))


def _call(name: str, a: Array) -> Array:
    return _no_minus_infinity(function(name).numpy(a), a)


DOUBLE: Final = Arithmetic(
    dtype=np.float64,
    number=float,
    operators={
        Op.ADD: np.add,
        Op.MUL: _mul,
        Op.RECIP: _recip,
        Op.SQRT: _sqrt,
        Op.EXP: np.exp,
        Op.LOG: _log,
        Op.MAX2: np.maximum,
        Op.MIN2: _min,
        Op.LT: _condition(np.less),
        Op.LE: _condition(np.less_equal),
        Op.EQ: _condition(np.equal),
        Op.WHERE: _where,
    },
    reductions={Op.SUM: _sum, Op.MAX: _max_over, Op.MIN: _min_over},
    call=_call,
)
"""Double precision. Callers silence numpy's warnings with ``np.errstate``."""


# ---------------------------------------------------------------------------------------------- fifty digits


class _Precise:
    """Scalar operators on the numbers of one mpmath context."""

    def __init__(self, mp: Any) -> None:
        self.mp = mp
        self.nan = mp.mpf("nan")
        self.bottom = mp.mpf("-inf")
        self.doubtful = mp.mpf(10) ** (-DIGITS // 2)

    def number(self, value: Fraction | float) -> Any:
        if isinstance(value, Fraction):
            return self.mp.mpf(value.numerator) / value.denominator
        return self.mp.mpf(value)

    def decided(self, value: Any) -> Any:
        """``value``, if its sign is not a matter of rounding.

        Raises:
            Indecisive: it is neither zero nor clearly different from zero.
        """
        if value != 0 and abs(value) < self.doubtful:
            raise Indecisive
        return value

    def usable(self, *values: Any) -> bool:
        return not any(self.mp.isnan(v) or v == self.bottom for v in values)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def accumulate(self, a: Any, b: Any) -> Any:
        return a + b if self.usable(a, b) else self.nan

    def mul(self, a: Any, b: Any) -> Any:
        return a * b if self.usable(a, b) else self.nan

    def recip(self, a: Any) -> Any:
        return 1 / a if self.usable(a) and self.decided(a) != 0 else self.nan

    def sqrt(self, a: Any) -> Any:
        return self.mp.sqrt(a) if self.usable(a) and self.decided(a) >= 0 else self.nan

    def log(self, a: Any) -> Any:
        return self.mp.log(a) if self.usable(a) and self.decided(a) > 0 else self.nan

    def moderate(self, a: Any) -> Any:
        """``a``, if exponential functions of it are of a reasonable size.

        Raises:
            Indecisive: they are not.
        """
        if abs(a) > LARGEST_EXPONENT:
            raise Indecisive
        return a

    def exp(self, a: Any) -> Any:
        if self.mp.isnan(a):
            return self.nan
        return self.mp.mpf(0) if a == self.bottom else self.mp.exp(self.moderate(a))

    def maximum(self, a: Any, b: Any) -> Any:
        return self.nan if self.mp.isnan(a) or self.mp.isnan(b) else max(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return min(a, b) if self.usable(a, b) else self.nan

    def less(self, a: Any, b: Any) -> Any:
        return self.mp.mpf(self.decided(a - b) < 0) if self.usable(a, b) else self.nan

    def less_equal(self, a: Any, b: Any) -> Any:
        return self.mp.mpf(self.decided(a - b) <= 0) if self.usable(a, b) else self.nan

    def equal(self, a: Any, b: Any) -> Any:
        return self.mp.mpf(self.decided(a - b) == 0) if self.usable(a, b) else self.nan

    def where(self, condition: Any, then: Any, otherwise: Any) -> Any:
        return self.nan if self.mp.isnan(condition) else then if condition == 1 else otherwise

    def call(self, name: str, a: Array) -> Array:
        meaning = function(name).mpmath

        def one(x: Any) -> Any:
            return meaning(self.mp, self.moderate(x)) if self.usable(x) else self.nan

        return np.frompyfunc(one, 1, 1)(a)


@cache
def precise() -> Arithmetic:
    """Fifty digits, in a context of its own.

    Its operators raise ``Indecisive`` where an argument of ``1/x``, ``sqrt`` or ``log``, or the difference of two
    compared values, is so close to zero that even fifty digits could be mistaken about it, and for arguments of
    exponentials and functions beyond ``LARGEST_EXPONENT``.
    """
    from mpmath.ctx_mp import MPContext

    mp: Any = MPContext()
    mp.dps = DIGITS
    scalar = _Precise(mp)
    listed: dict[Op, tuple[Callable[..., Any], int]] = {
        Op.ADD: (scalar.add, 2),
        Op.MUL: (scalar.mul, 2),
        Op.RECIP: (scalar.recip, 1),
        Op.SQRT: (scalar.sqrt, 1),
        Op.EXP: (scalar.exp, 1),
        Op.LOG: (scalar.log, 1),
        Op.MAX2: (scalar.maximum, 2),
        Op.MIN2: (scalar.minimum, 2),
        Op.LT: (scalar.less, 2),
        Op.LE: (scalar.less_equal, 2),
        Op.EQ: (scalar.equal, 2),
        Op.WHERE: (scalar.where, 3),
    }
    operators: dict[Op, Any] = {op: np.frompyfunc(f, n, 1) for op, (f, n) in listed.items()}
    largest = scalar.mp.mpf("inf")

    def least(a: Array, dimension: int) -> Array:
        found = operators[Op.MIN2].reduce(a, axis=dimension, initial=largest)
        return found if a.shape[dimension] else np.full_like(found, scalar.nan)

    accumulate: Any = np.frompyfunc(scalar.accumulate, 2, 1)
    reductions: dict[Op, Callable[[Array, int], Array]] = {
        Op.SUM: lambda a, dimension: accumulate.reduce(a, axis=dimension, initial=scalar.mp.mpf(0)),
        Op.MAX: lambda a, dimension: operators[Op.MAX2].reduce(a, axis=dimension, initial=scalar.bottom),
        Op.MIN: least,
    }
    return Arithmetic(object, scalar.number, operators, reductions, scalar.call)
