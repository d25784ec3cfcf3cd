"""Unary functions that the algebra keeps whole, each with its meaning in double precision and in any precision.

This table is the only place where the name in ``call(f; e)`` gets a value. Every function is defined on all finite
arguments; each double precision form is accurate where a textbook form cancels or overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sgraph.errors import UnsupportedOperator

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Function:
    """One unary function."""

    name: str
    """Its name in ``call``, the same as torch's."""
    meaning: str
    """The defining formula."""
    numpy: Callable[[Array], Array]
    """Element by element in double precision."""
    mpmath: Callable[[Any, Any], Any]
    """Of an mpmath context and one of its numbers; the caller chooses the precision."""


def function(name: str) -> Function:
    """The function with this name.

    Raises:
        UnsupportedOperator: there is none.
    """
    found = FUNCTIONS.get(name)
    if found is None:
        known = ", ".join(FUNCTIONS)
        raise UnsupportedOperator(f"the function {name} has no value here", do=f"use one of {known}")
    return found


_ERF: Final = np.frompyfunc(math.erf, 1, 1)
_ERFC: Final = np.frompyfunc(math.erfc, 1, 1)


def _erf(x: Array) -> Array:
    return np.asarray(_ERF(x), dtype=np.float64)


def _erfc(x: Array) -> Array:
    return np.asarray(_ERFC(x), dtype=np.float64)


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _sigmoid(x: Array) -> Array:
    return np.exp(-_softplus(-x))


def _gelu(x: Array) -> Array:
    return 0.5 * x * _erfc(-x * math.sqrt(0.5))


def _gelu_tanh(x: Array) -> Array:
    # (1 + tanh(u)) / 2 is sigmoid(2 u), which keeps its digits where tanh(u) is close to -1.
    return x * _sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def _exact_gelu_tanh(mp: Any, x: Any) -> Any:
    inner = mp.sqrt(2 / mp.pi) * (x + mp.mpf(44715) / 1000000 * x**3)
    return x / 2 * (1 + mp.tanh(inner))


def _table(*functions: Function) -> dict[str, Function]:
    return {f.name: f for f in functions}


FUNCTIONS: Final[Mapping[str, Function]] = _table(
    Function("sigmoid", "1 / (1 + exp(-x))", _sigmoid, lambda mp, x: 1 / (1 + mp.exp(-x))),
    Function("silu", "x / (1 + exp(-x))", _silu, lambda mp, x: x / (1 + mp.exp(-x))),
    Function("tanh", "hyperbolic tangent", np.tanh, lambda mp, x: mp.tanh(x)),
    Function("erf", "error function", _erf, lambda mp, x: mp.erf(x)),
    Function("gelu", "x/2 * (1 + erf(x / sqrt(2)))", _gelu, lambda mp, x: x / 2 * mp.erfc(-x / mp.sqrt(2))),
    Function("gelu_tanh", "x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))", _gelu_tanh, _exact_gelu_tanh),
    Function("relu", "max(x, 0)", _relu, lambda mp, x: max(x, mp.mpf(0))),
    Function("softplus", "log(1 + exp(x))", _softplus, lambda mp, x: mp.log1p(mp.exp(x))),
    Function("abs", "absolute value", np.abs, lambda mp, x: abs(x)),
    Function("sin", "sine", np.sin, lambda mp, x: mp.sin(x)),
    Function("cos", "cosine", np.cos, lambda mp, x: mp.cos(x)),
)
"""Every known function by its name."""
