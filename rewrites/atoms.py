"""What polynomials of the normal form are made of: interned atoms, monomials, and what is known of their signs.

A polynomial is a sum of monomials with rational coefficients; a monomial is a product of atoms with rational
exponents; an atom is what the algebra of ``+`` and ``*`` does not look into: a tensor element, an exponential of a
monomial, a sum over bound axes, a power base that does not factor. Atoms are interned (equality is identity) and
ordered by a digest of their structure, so every order below is the same in every process.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, assert_never

from sgraph.axis import Axis
from sgraph.expr import NONNEGATIVE_CALLS, POSITIVE_CALLS, Op, Read, Sign, nonempty

Number = int | Fraction
"""An exact rational; integral values are kept as ``int``, which is many times faster."""

MAX_SIGN_CASES: Final = 4
"""Conditions of a value whose sign is looked for case by case."""
VALID: Final = "valid:"
"""Leaves of this prefix are 1 inside the extent of a tile-split axis and 0 outside."""
PAD: Final = "pad:"
"""Leaves of this prefix are 0 inside the extent of a tile-split axis and minus infinity outside."""
INTEGRAL: Final = "index:"
"""Leaves of this prefix are positions along a tile-split axis: integers."""
LEVELS: Final = frozenset[str]({"cell", "step", "lane"})
"""The atoms of a tile split."""


def exact(value: Number) -> Number:
    """The same number, as ``int`` if it is one."""
    return value.numerator if value.denominator == 1 else value


def inhabited(axis: Axis) -> bool:
    """Whether an axis, or the complete axis of which it is an atom, is known to have an index.

    A tile split is a rectangle of cells, steps and lanes with a mask, so that each of its atoms has an index
    where the complete axis has one.
    """
    return nonempty(axis.base)


# ------------------------------------------------------------------------------------------------ forms


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a tensor."""

    read: Read


@dataclass(frozen=True, slots=True)
class Length:
    """The extent of a complete axis."""

    axis: Axis


@dataclass(frozen=True, slots=True)
class Position:
    """The index along an axis."""

    axis: Axis


@dataclass(frozen=True, slots=True)
class Infinity:
    """Minus infinity."""


@dataclass(frozen=True, slots=True)
class Prime:
    """A number that is kept as the base of a proper root; its exponents lie between 0 and 1."""

    number: int


@dataclass(frozen=True, slots=True)
class Exponential:
    """``exp`` of a monomial without coefficient; the coefficient is the atom's exponent."""

    argument: Monomial


@dataclass(frozen=True, slots=True)
class Logarithm:
    """``log`` of what does not split into factors."""

    argument: Polynomial


@dataclass(frozen=True, slots=True)
class Applied:
    """A unary function without a theory."""

    function: str
    argument: Polynomial


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over bound axes of a connected monomial; no factor of it is free of them all."""

    bound: tuple[Axis, ...]
    body: Monomial


@dataclass(frozen=True, slots=True)
class Highest:
    """A maximum over bound axes of a connected polynomial."""

    bound: tuple[Axis, ...]
    body: Polynomial


@dataclass(frozen=True, slots=True)
class Larger:
    """The largest of several polynomials, sorted; none is known to be below another."""

    operands: tuple[Polynomial, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison; ``left`` is 0 where both sides are finite."""

    op: Op
    left: Polynomial
    right: Polynomial


@dataclass(frozen=True, slots=True)
class Choice:
    """``where``."""

    condition: Condition
    then: Polynomial
    otherwise: Polynomial


@dataclass(frozen=True, slots=True)
class Base:
    """A polynomial without common factors as the base of a negative or fractional power."""

    polynomial: Polynomial


Form = (
    Element
    | Length
    | Position
    | Infinity
    | Prime
    | Exponential
    | Logarithm
    | Applied
    | Total
    | Highest
    | Larger
    | Choice
    | Base
)


class Atom:
    """One interned form with its derived facts. Build it with :func:`atom`."""

    __slots__ = ("__weakref__", "conditions", "depth", "digest", "finite", "form", "free", "sign", "special")

    form: Form
    """What it is."""
    free: frozenset[Axis]
    """Axes it depends on."""
    sign: Sign
    """What is known of its value wherever it is defined."""
    finite: bool
    """Whether it is known never to be minus infinity."""
    special: bool
    """Whether a product of two of its powers may be more than a power with the exponents added."""
    depth: int
    """How deeply atoms are nested in it."""
    conditions: tuple[Atom, ...]
    """The conditions, as indicators, by which it chooses between values; none inside of other functions."""
    digest: bytes
    """Content hash, the same in every process."""


Monomial = tuple[tuple[Atom, Number], ...]
"""Atoms with their exponents, sorted by digest; no exponent is 0."""


class Polynomial:
    """A sum of monomials with coefficients that are not 0. It is never changed after it is made."""

    __slots__ = ("_conditions", "_denominators", "_finite", "_free", "_hash", "_ordered", "terms")

    def __init__(self, terms: dict[Monomial, Number]) -> None:
        self.terms: Mapping[Monomial, Number] = terms
        self._hash: int | None = None
        self._ordered: tuple[tuple[Monomial, Number], ...] | None = None
        self._free: frozenset[Axis] | None = None
        self._finite: bool | None = None
        self._denominators: tuple[Atom, ...] | None = None
        self._conditions: tuple[Atom, ...] | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Polynomial) and self.terms == other.terms)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def free(self) -> frozenset[Axis]:
        """The axes it depends on."""
        if self._free is None:
            self._free = frozenset[Axis]().union(*(free_axes(m) for m in self.terms))
        return self._free

    @property
    def ordered(self) -> tuple[tuple[Monomial, Number], ...]:
        """Its terms in canonical order."""
        if self._ordered is None:
            self._ordered = tuple(sorted(self.terms.items(), key=lambda t: monomial_key(t[0])))
        return self._ordered

    @property
    def key(self) -> tuple[object, ...]:
        """Sort key by structure."""
        return tuple((monomial_key(m), c) for m, c in self.ordered)

    @property
    def single(self) -> tuple[Monomial, Number] | None:
        """Its only term, if it has just one."""
        return next(iter(self.terms.items())) if len(self.terms) == 1 else None

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """The atoms of its monomials, each once, in canonical order."""
        return tuple(sorted({a for m in self.terms for a, _ in m}, key=_digest_of))

    @property
    def finite(self) -> bool:
        """Whether it is known never to be minus infinity."""
        if self._finite is None:
            self._finite = all(a.finite for m in self.terms for a, _ in m)
        return self._finite

    @property
    def conditions(self) -> tuple[Atom, ...]:
        """The conditions by which its atoms choose between values, as indicators, in canonical order."""
        if self._conditions is None:
            found = {c for m in self.terms for a, _ in m for c in a.conditions}
            self._conditions = tuple(sorted(found, key=_digest_of)) if found else ()
        return self._conditions

    @property
    def denominators(self) -> tuple[Atom, ...]:
        """The polynomial bases of its negative powers, in canonical order."""
        if self._denominators is None:
            found = {a for m in self.terms for a, e in m if a.special and e < 0 and isinstance(a.form, Base)}
            self._denominators = tuple(sorted(found, key=_digest_of))
        return self._denominators

    def __str__(self) -> str:
        from rewrites.polynomial_text import text

        return text(self)

    __repr__ = __str__


ZERO: Final = Polynomial({})
ONE: Final = Polynomial({(): 1})


def constant(value: Number) -> Polynomial:
    """A number as a polynomial."""
    return Polynomial({(): exact(value)}) if value else ZERO


def term(monomial: Monomial, coefficient: Number = 1) -> Polynomial:
    """A polynomial of one term."""
    return Polynomial({monomial: coefficient}) if coefficient else ZERO


def power_of(base: Atom, exponent: Number = 1) -> Polynomial:
    """A power of an atom as a polynomial."""
    return Polynomial({((base, exponent),): 1})


def monomial_key(m: Monomial) -> tuple[tuple[bytes, Number], ...]:
    """Sort key of a monomial by structure."""
    return tuple((a.digest, e) for a, e in m)


def monomial(exponents: Mapping[Atom, Number]) -> Monomial:
    """The monomial with these exponents."""
    return tuple(sorted(((a, e) for a, e in exponents.items() if e), key=lambda t: t[0].digest))


def free_axes(m: Monomial) -> frozenset[Axis]:
    """The axes a monomial depends on."""
    return frozenset[Axis]().union(*(a.free for a, _ in m))


def _digest_of(a: Atom) -> bytes:
    return a.digest


# ------------------------------------------------------------------------------------------- interning

_interned: weakref.WeakValueDictionary[Form, Atom] = weakref.WeakValueDictionary()


def atom(form: Form) -> Atom:
    """The one atom of this form."""
    found = _interned.get(form)
    if found is not None:
        return found
    made = Atom()
    made.form = form
    inner = tuple(_polynomials(form))
    made.free = _free(form, inner)
    made.depth = 1 + max((a.depth for p in inner for m in p.terms for a, _ in m), default=0)
    made.digest = _digest(form)
    made.sign = _sign(form)
    made.finite = _finite(form)
    made.special = isinstance(form, Base | Prime) or is_valid(made) or _is_sine(form) or is_indicator(made)
    made.conditions = _conditions(made)
    _interned[form] = made
    return made


def is_indicator(a: Atom) -> bool:
    """Whether an atom is 1 where a condition holds and 0 where it does not."""
    return isinstance(a.form, Choice) and a.form.then == ONE and a.form.otherwise == ZERO


def _conditions(a: Atom) -> tuple[Atom, ...]:
    match a.form:
        case Choice(condition, then, otherwise):
            own = a if is_indicator(a) else atom(Choice(condition, ONE, ZERO))
            found = {own, *then.conditions, *otherwise.conditions}
            return tuple(sorted(found, key=_digest_of))
        case _:
            return ()


def _is_sine(form: Form) -> bool:
    return isinstance(form, Applied) and form.function == "sin"


def is_valid(a: Atom) -> bool:
    """Whether an atom is the 0-or-1 mask of a tile split."""
    return isinstance(a.form, Element) and a.form.read.tensor.startswith(VALID)


def _polynomials(form: Form) -> Iterable[Polynomial]:
    """The polynomials inside a form; a monomial as a polynomial of one term."""
    match form:
        case Exponential(argument) | Total(_, argument):
            return (term(argument),)
        case Logarithm(p) | Applied(_, p) | Highest(_, p) | Base(p):
            return (p,)
        case Larger(operands):
            return operands
        case Choice(condition, then, otherwise):
            return (condition.left, condition.right, then, otherwise)
        case _:
            return ()


def _free(form: Form, inner: tuple[Polynomial, ...]) -> frozenset[Axis]:
    match form:
        case Element(read):
            return frozenset(read.axes)
        case Position(axis):
            return frozenset({axis})
        case Total(bound, _) | Highest(bound, _):
            return inner[0].free.difference(bound)
        case _:
            return frozenset[Axis]().union(*(p.free for p in inner))


def axis_text(axis: Axis) -> str:
    """An axis for hashing: everything that tells it from others."""
    return f"{axis}:{axis.extent!r}"


def _digest(form: Form) -> bytes:
    state = hashlib.blake2b(type(form).__name__.encode(), digest_size=16)
    match form:
        case Element(read):
            state.update(f"{read.tensor}|{read.finite}|{'|'.join(map(axis_text, read.axes))}".encode())
        case Length(axis) | Position(axis):
            state.update(axis_text(axis).encode())
        case Prime(number):
            state.update(str(number).encode())
        case Applied(function, _):
            state.update(f"{function}|".encode())
        case Total(bound, _) | Highest(bound, _):
            state.update("|".join(map(axis_text, bound)).encode())
        case Choice(condition, _, _):
            state.update(condition.op.value.encode())
        case _:
            pass
    for p in _polynomials(form):
        state.update(b"(")
        for m, c in p.ordered:
            state.update(f"+{c}".encode())
            for a, e in m:
                state.update(a.digest + f"^{e}".encode())
    return state.digest()


# ----------------------------------------------------------------------------------------------- signs


def factor_sign(a: Atom, exponent: Number) -> Sign:
    """The sign of a power, wherever it is defined: a negative power is not 0, a fractional one not negative."""
    if a.sign is Sign.POSITIVE:
        return Sign.POSITIVE
    even = exponent.denominator != 1 or exponent.numerator % 2 == 0
    if a.sign is Sign.ANY and not even:
        return Sign.ANY
    return Sign.NONNEGATIVE if exponent > 0 else Sign.POSITIVE


def monomial_sign(m: Monomial) -> Sign:
    """The sign of a product."""
    worst = Sign.POSITIVE
    for a, e in m:
        sign = factor_sign(a, e)
        if sign is Sign.ANY:
            return sign
        if sign is Sign.NONNEGATIVE:
            worst = sign
    return worst


def sign_of(p: Polynomial) -> Sign:
    """The sign of a sum: known where every term is nonnegative, and positive where one is positive.

    Where indicators occur also if it is known in each case; and of a difference of sums over the same axes as one sum.
    """
    sign = _sign_by_terms(p)
    if sign is not Sign.ANY or len(p) < 2:
        return sign
    if 0 < len(p.conditions) <= MAX_SIGN_CASES:
        cases = {sign_of(restricted_to(p, p.conditions[0], holds)) for holds in (True, False)}
        return Sign.ANY if Sign.ANY in cases else Sign.NONNEGATIVE if len(cases) > 1 else cases.pop()
    together = summand(p)
    if together is None or not together[1].conditions or sign_of(together[1]) is Sign.ANY:
        return Sign.ANY
    return Sign.NONNEGATIVE


def restricted_to(p: Polynomial, c: Atom, holds: bool) -> Polynomial:
    """What ``p`` is where an indicator is 1, or 0; other choices stay as they are."""
    terms: dict[Monomial, Number] = {}
    for m, k in p.terms.items():
        rest = tuple(t for t in m if t[0] is not c)
        if holds or len(rest) == len(m):
            terms[rest] = terms.get(rest, 0) + k
    return Polynomial({m: k for m, k in terms.items() if k})


def summand(p: Polynomial) -> tuple[tuple[Axis, ...], Polynomial] | None:
    """A combination of sums over the same axes as bound axes and one summand; None if it is none."""
    terms: dict[Monomial, Number] = {}
    bound: set[tuple[Axis, ...]] = set()
    for m, c in p.terms.items():
        match m:
            case ((Atom(form=Total(axes, body)), 1),):
                bound.add(axes)
                terms[body] = c
            case _:
                return None
    return (bound.pop(), Polynomial(terms)) if len(bound) == 1 else None


def _sign_by_terms(p: Polynomial) -> Sign:
    best = Sign.NONNEGATIVE
    for m, c in p.terms.items():
        sign = monomial_sign(m) if c > 0 else Sign.ANY
        if sign is Sign.ANY:
            return sign
        if sign is Sign.POSITIVE:
            best = sign
    return best


def _sign(form: Form) -> Sign:
    match form:
        case Element(read):
            return Sign.NONNEGATIVE if read.tensor.startswith(VALID) else Sign.ANY
        case Length(axis):
            return Sign.POSITIVE if nonempty(axis) else Sign.NONNEGATIVE
        case Position():
            return Sign.NONNEGATIVE
        case Prime():
            return Sign.POSITIVE
        case Exponential(argument):
            # exp(-inf) = 0
            return Sign.POSITIVE if all(a.finite for a, _ in argument) else Sign.NONNEGATIVE
        case Applied(function, argument):
            if function in POSITIVE_CALLS:
                return Sign.POSITIVE if argument.finite else Sign.NONNEGATIVE
            return Sign.NONNEGATIVE if function in NONNEGATIVE_CALLS else Sign.ANY
        case Total():
            return _sign_of_total(form)
        case Highest(bound, body):
            return sign_of(body) if all(nonempty(b) for b in bound) else Sign.ANY
        case Larger(operands):
            order = (Sign.POSITIVE, Sign.NONNEGATIVE, Sign.ANY)
            return min((sign_of(p) for p in operands), key=order.index)
        case Choice(_, then, otherwise):
            signs = {sign_of(then), sign_of(otherwise)}
            return Sign.ANY if Sign.ANY in signs else Sign.NONNEGATIVE if len(signs) > 1 else signs.pop()
        case Base(p):
            return sign_of(p)
        case Infinity() | Logarithm():
            return Sign.ANY
        case _:
            assert_never(form)


def _sign_of_total(total: Total) -> Sign:
    sign = monomial_sign(total.body)
    if sign is Sign.ANY:
        return sign
    # Every index of a complete split is valid somewhere: masks whose atoms are all bound do not make the sum 0.
    covered: set[Axis] = set()
    for a, _ in total.body:
        if is_valid(a) and covers_split(a.free, total.bound) and not covered & a.free:
            covered |= a.free
    rest = tuple((a, e) for a, e in total.body if not (is_valid(a) and a.free <= covered))
    some = all(nonempty(b) or (b in covered and inhabited(b)) for b in total.bound)
    return Sign.POSITIVE if some and monomial_sign(rest) is Sign.POSITIVE else Sign.NONNEGATIVE


def covers_split(axes: frozenset[Axis], bound: Iterable[Axis]) -> bool:
    """Whether these axes are all three atoms of one split, all among the bound ones."""
    complete = frozenset(a.level for a in axes) == LEVELS and len(axes) == 3
    return complete and len({a.name for a in axes}) == 1 and axes <= set(bound)


def _finite(form: Form) -> bool:
    match form:
        case Element(read):
            return read.finite
        case Infinity():
            return False
        case Highest(bound, body):
            return all(inhabited(b) for b in bound) and all(
                a.finite or _reaches_inside(a, bound) for m in body.terms for a, _ in m
            )
        case Larger(operands):
            return any(p.finite for p in operands)
        case Choice(_, then, otherwise):
            return then.finite and otherwise.finite
        case _:
            # Every other operator takes finite operands only and gives a finite value.
            return True


def _reaches_inside(a: Atom, bound: Iterable[Axis]) -> bool:
    """Whether an atom is a pad that is 0 at some index of the bound axes: all three atoms of its split are bound."""
    return isinstance(a.form, Element) and a.form.read.tensor.startswith(PAD) and covers_split(a.free, bound)
