"""Two prime fields in place of the real numbers: identities are tested where no rounding can hide a difference.

An element is a pair of residues modulo ``P`` and ``Q``, where ``Q`` divides ``P - 1``. ``exp`` takes the residue
modulo ``Q`` to a power of an element of order ``Q`` modulo ``P``, so that sums become products (Mirage, Wu et al.,
OSDI 2025); what follows has no residue modulo ``Q`` any more. Square roots are a power map, ``erf`` a random oracle,
minus infinity an extra element, and a maximum follows a random order of the elements: a result that depends on that
order, an exponential inside of an exponential, a logarithm or a comparison of sizes has no meaning here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from enum import StrEnum
from fractions import Fraction
from functools import reduce
from typing import Any, Final

import numpy as np

from sgraph.arithmetic import Arithmetic, Array
from sgraph.expr import Op
from verify.exact_literals import meaning

Q: Final = 2305843009213681559
P: Final = 258 * Q + 1
"""Both primes are 3 modulo 4, of 61 and 70 bits."""
ROOT: Final = pow(2, (P - 1) // Q, P)
"""Of order ``Q`` modulo ``P``: not 1, and ``Q`` is prime."""
LARGEST_INPUT: Final = 2**53
"""Inputs are drawn below this number, which doubles still hold exactly."""


class FieldStatus(StrEnum):
    """What one field says."""

    AGREE = "agree"
    DIFFER = "differ"
    NOT_APPLICABLE = "not applicable"  # it cannot say


class NotApplicable(Exception):
    """The fields have no meaning for something that was computed."""


class Element:
    """A pair of residues; None where there is none, minus infinity apart."""

    __slots__ = ("bottom", "p", "q")

    def __init__(self, p: int | None, q: int | None, bottom: bool = False) -> None:
        self.p = None if p is None else p % P
        self.q = None if q is None or p is None else q % Q
        self.bottom = bottom

    def __add__(self, other: Element | int) -> Element:
        b = element(other)
        if self.bottom or b.bottom:
            return UNDEFINED if self.undefined or b.undefined else BOTTOM
        return Element(_plus(self.p, b.p), _plus(self.q, b.q))

    def __mul__(self, other: Element | int) -> Element:
        b = element(other)
        if self.bottom or b.bottom:
            return UNDEFINED
        return Element(_times(self.p, b.p), _times(self.q, b.q))

    def __neg__(self) -> Element:
        return self * -1

    def __sub__(self, other: Element | int) -> Element:
        b = element(other)
        return UNDEFINED if b.bottom else self + -b

    def inverse(self) -> Element:
        """1 divided by it; undefined for zero."""
        if self.bottom or not self.p:
            return UNDEFINED
        return Element(pow(self.p, -1, P), pow(self.q, -1, Q) if self.q else None)

    def __truediv__(self, other: Element | int) -> Element:
        return self * element(other).inverse()

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Element | int) -> Element:
        return element(other) - self

    def __rtruediv__(self, other: Element | int) -> Element:
        return element(other) / self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Element) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> tuple[int | None, int | None, bool]:
        """What makes it equal to others."""
        return (self.p, self.q, self.bottom)

    @property
    def undefined(self) -> bool:
        """Whether it has no value at all."""
        return self.p is None and not self.bottom


UNDEFINED: Final = Element(None, None)
BOTTOM: Final = Element(None, None, bottom=True)


def _plus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _times(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a * b


def element(value: Element | Fraction | float) -> Element:
    """A rational number, or minus infinity, as an element.

    Raises:
        NotApplicable: it is plus infinity.
    """
    if isinstance(value, Element):
        return value
    if isinstance(value, float) and not np.isfinite(value):
        if value > 0:
            raise NotApplicable("plus infinity")
        return UNDEFINED if np.isnan(value) else BOTTOM
    exact = Fraction(value)
    p, q = (exact.numerator * pow(exact.denominator, -1, m) for m in (P, Q))
    return Element(p, q)


class Fields:
    """Numbers of both fields. Oracles depend on one seed, the order that maxima follow on another."""

    def __init__(self, constants: Iterable[Fraction] = (), *, seed: int = 0, selection: int = 0) -> None:
        self.seed = seed
        self.selection = selection
        self.undefined: Any = UNDEFINED
        self.bottom: Any = BOTTOM
        self.constants = tuple(constants)
        self.selected = False
        """Whether a maximum was taken of two different elements."""
        self.rooted_nonsquare = False
        """Whether a square root was taken of something that is no square modulo ``P``."""
        self.functions: Mapping[str, Callable[[Any], Any]] = {
            "exp": self.exp,
            "exp2": lambda a: self.exp(a * self.oracle("log(2)")),
            "log": _no("log"),
            "log2": _no("log2"),
            "sqrt": self.sqrt,
            "rsqrt": lambda a: self.sqrt(a).inverse(),
            "erf": lambda a: self.oracle("erf", a),
            "abs": _no("abs"),
            "sigmoid": self.sigmoid,
        }
        """Unary functions by the name that ``triton.language`` gives them."""

    @property
    def top(self) -> Any:
        """Plus infinity.

        Raises:
            NotApplicable: always.
        """
        raise NotApplicable("plus infinity")

    def working(self) -> Any:
        """The context to compute in."""
        return nullcontext()

    def integer(self, value: int) -> Any:
        """An integer."""
        return element(value)

    def literal(self, value: float) -> Any:
        """What a literal of the text stands for; a named constant is a random element."""
        found = meaning(value, self.constants)
        return self.oracle(found) if isinstance(found, str) else element(found)

    def element(self, value: float) -> Any:
        """An element of an input."""
        return element(value)

    def is_undefined(self, value: Any) -> bool:
        """Whether an element has no value."""
        return value.undefined

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two in a random order of all elements; minus infinity is the smallest."""
        if a.undefined or b.undefined:
            return UNDEFINED
        if a.bottom or b.bottom or a == b:
            return b if a.bottom else a
        self.selected = True
        return max(a, b, key=self._rank)

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two in the same order."""
        if a.undefined or b.undefined or a.bottom or b.bottom:
            return UNDEFINED
        return b if a is self.maximum(a, b) else a

    def _rank(self, a: Element) -> bytes:
        return hashlib.blake2b(repr((self.selection, a.key)).encode(), digest_size=16).digest()

    def compare(self, operator: str, a: Any, b: Any) -> Any:
        """Whether a comparison holds. Minus infinity is below everything; nothing else is ordered.

        Raises:
            NotApplicable: neither is minus infinity.
        """
        if a.undefined or b.undefined:
            return UNDEFINED
        if operator not in {"==", "!="} or not (a.bottom or b.bottom):
            raise NotApplicable("a comparison")
        return (a == b) is (operator == "==")

    def exp(self, a: Element) -> Element:
        """A power of ``ROOT``.

        Raises:
            NotApplicable: the exponent is itself a result of exp.
        """
        if a.bottom:
            return element(0)
        if a.undefined:
            return UNDEFINED
        if a.q is None:
            raise NotApplicable("an exponential inside of an exponential")
        return Element(pow(ROOT, a.q, P), None)

    def sqrt(self, a: Element) -> Element:
        """A power map: multiplicative, and a root of every square; of other elements a root of their opposite."""
        if a.bottom or a.undefined:
            return UNDEFINED
        self.rooted_nonsquare |= pow(a.p or 0, (P - 1) // 2, P) == P - 1
        p, q = pow(a.p or 0, (P + 1) // 4, P), None if a.q is None else pow(a.q, (Q + 1) // 4, Q)
        return Element(p, q)

    def sigmoid(self, a: Element) -> Element:
        """1 / (1 + exp(-a))."""
        return (1 + self.exp(-a)).inverse()

    def oracle(self, name: str, a: Element | None = None) -> Element:
        """A random element for every function and argument."""
        if a is not None and (a.bottom or a.undefined):
            return UNDEFINED
        words = repr((self.seed, name, None if a is None else a.key)).encode()
        digest = hashlib.blake2b(words, digest_size=32).digest()
        return Element(int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:], "big"))

    def call(self, name: str, values: Array) -> Array:
        """A unary function of the language.

        Raises:
            NotApplicable: it has no meaning here.
        """
        known: Mapping[str, Callable[[Element], Element]] = {
            "sigmoid": self.sigmoid,
            "silu": lambda a: a * self.sigmoid(a),
            "tanh": lambda a: 2 * self.sigmoid(2 * a) - 1,
            "erf": self.functions["erf"],
            "gelu": lambda a: a / 2 * (1 + self.oracle("erf", a * self.oracle("sqrt(1/2)"))),
            "gelu_tanh": self._gelu_tanh,
        }
        return np.frompyfunc(known.get(name, _no(name)), 1, 1)(values)

    def _gelu_tanh(self, a: Element) -> Element:
        return a * self.sigmoid(self.oracle("2*sqrt(2/pi)") * (a + element(Fraction("0.044715")) * a * a * a))

    def arithmetic(self) -> Arithmetic:
        """The same numbers for the evaluation of expressions."""
        listed: dict[Op, tuple[Callable[..., Any], int]] = {
            Op.ADD: (Element.__add__, 2),
            Op.MUL: (Element.__mul__, 2),
            Op.RECIP: (Element.inverse, 1),
            Op.SQRT: (self.sqrt, 1),
            Op.EXP: (self.exp, 1),
            Op.LOG: (_no("log"), 1),
            Op.MAX2: (self.maximum, 2),
            Op.MIN2: (self.minimum, 2),
            Op.LT: (_no("<"), 2),
            Op.LE: (_no("<="), 2),
            Op.EQ: (_no("=="), 2),
            Op.WHERE: (_no("where"), 3),
        }
        operators: dict[Op, Any] = {op: np.frompyfunc(f, n, 1) for op, (f, n) in listed.items()}
        pairs = {Op.SUM: (Element.__add__, element(0)), Op.MAX: (self.maximum, BOTTOM)}
        reductions: dict[Op, Any] = {op: _folded(f, unit) for op, (f, unit) in pairs.items()}
        reductions[Op.MIN] = _no("min")
        return Arithmetic(object, element, operators, reductions, self.call)


def _folded(function: Callable[[Any, Any], Any], unit: Element) -> Callable[[Array, int], Array]:
    def fold(values: Array, dimension: int) -> Array:
        rows = np.moveaxis(values, dimension, -1)
        out = np.empty(rows.shape[:-1], dtype=object)
        for index in np.ndindex(out.shape):
            out[index] = reduce(function, rows[index], unit)
        return out

    return fold


def _no(what: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise NotApplicable(what)

    return refuse


def agreement(numbers: Fields, got: Array, wanted: Array) -> dict[str, FieldStatus]:
    """What either field says about a result, over the elements that are defined where they are wanted."""
    pairs = [(g, w) for g, w in zip(got.flat, wanted.flat, strict=True) if not w.undefined]
    found: dict[str, FieldStatus] = {}
    for field in ("p", "q"):
        residues = [(getattr(element(g), field), getattr(w, field)) for g, w in pairs]
        if not residues or any(w is None for _, w in residues):
            found[field] = FieldStatus.NOT_APPLICABLE
        elif all(g == w for g, w in residues):
            found[field] = FieldStatus.AGREE
        else:
            unsure = numbers.rooted_nonsquare or (field == "q" and any(g is None for g, _ in residues))
            found[field] = FieldStatus.NOT_APPLICABLE if unsure else FieldStatus.DIFFER
    return found
