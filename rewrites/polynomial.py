"""Arithmetic of the normal form: sums of products with rational exponents, ``exp`` and ``log`` as homomorphisms.

Every step here is an identity wherever the expression that is being normalised is defined: ``a^p * a^-q`` may
cancel because that expression divides by ``a`` somewhere, and ``a^(1/2) * a^(1/2)`` may because it takes a root of
``a``. Which definedness an expression needs is collected apart (``rewrites.definedness``), from the expression and
not from its normal form, so nothing is lost by cancelling. Signs decide only how roots and logarithms of products
split: by factors that are known not to be negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import reduce
from math import gcd, isqrt, lcm
from typing import Final, Self

from rewrites.atoms import (
    ONE,
    VALID,
    ZERO,
    Applied,
    Atom,
    Base,
    Choice,
    Element,
    Form,
    Monomial,
    Number,
    Polynomial,
    Prime,
    atom,
    constant,
    exact,
    factor_sign,
    is_indicator,
    is_valid,
    monomial,
    power_of,
    sign_of,
    term,
)
from rewrites.division import divide, square_root
from sgraph.axis import Axis
from sgraph.expr import Sign

MAX_MONOMIALS: Final = 20_000
"""A polynomial of more terms is given up."""
MAX_WORK: Final = 500_000
"""Products of monomials that one comparison may form."""
MAX_BITS: Final = 4096
"""Length of the numerators and denominators that are computed with."""
MAX_POWER: Final = 16
"""Highest power of a sum, or of a reduction inside a reduction, that is expanded."""
MAX_DEPTH: Final = 64
"""How deeply atoms may be nested."""
Note = tuple[str, Polynomial | Axis]
"""A fact that a step relied on: of what, and a phrase that completes it."""


class GaveUp(Exception):
    """A limit was reached; the message says which. It never leaves ``rewrites.normal_form``."""


class Algebra:
    """Operations on polynomials, with a budget and a memory of products.

    Polynomials given as ``nonnegative`` (single atoms among them) are taken to be so, besides what shows its sign.
    """

    def __init__(self, nonnegative: frozenset[Polynomial] = frozenset()) -> None:
        self.notes: set[Note] = set()
        self.given = nonnegative
        self.nonnegative = frozenset(a for p in nonnegative if len(p) == 1 for a in p.atoms)
        self._left = MAX_WORK
        self._reducing = True
        self._products: dict[tuple[Polynomial, Polynomial], Polynomial] = {}

    def restart(self) -> None:
        """Grant the full budget again."""
        self._left = MAX_WORK

    def copy(self) -> Self:
        """An algebra with the same memory, and as much of its budget left."""
        made = type(self)(self.given)
        made._left = self._left
        made._products = dict(self._products)
        return made

    def spend(self, steps: int) -> None:
        """Count work done.

        Raises:
            GaveUp: the budget is used up.
        """
        self._left -= steps
        if self._left < 0:
            raise GaveUp(f"more than {MAX_WORK} steps of work")

    # ------------------------------------------------------------------------------------ sums, products

    def add(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """``p + q``."""
        if not p or not q:
            return p or q
        if len(p) < len(q):
            p, q = q, p
        terms = dict(p.terms)
        self.spend(len(q))
        for m, c in q.terms.items():
            total = exact(terms.get(m, 0) + c)
            if total:
                terms[m] = _bounded(total)
            else:
                del terms[m]
        if len(terms) > MAX_MONOMIALS:
            raise GaveUp(f"more than {MAX_MONOMIALS} terms")
        out = Polynomial(terms)
        return self._reduced(out) if p.denominators or q.denominators else out

    def sum(self, polynomials: Iterable[Polynomial]) -> Polynomial:
        """The sum of several polynomials."""
        terms: dict[Monomial, Number] = {}
        for p in polynomials:
            self.spend(len(p))
            for m, c in p.terms.items():
                terms[m] = terms.get(m, 0) + c
        return self._made(terms)

    def scale(self, p: Polynomial, c: Number) -> Polynomial:
        """``c * p``."""
        if c == 1:
            return p
        return Polynomial({m: exact(c * d) for m, d in p.terms.items()}) if c else ZERO

    def subtract(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """``p - q``."""
        return self.add(p, self.scale(q, -1))

    def times(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """``p * q``."""
        if p == ONE or not q:
            return q
        if q == ONE or not p:
            return p
        key = (p, q)
        found = self._products.get(key)
        if found is None:
            found = self._products[key] = self._times(p, q)
        return found

    def product(self, polynomials: Iterable[Polynomial]) -> Polynomial:
        """The product of several polynomials."""
        return reduce(self.times, polynomials, ONE)

    def _times(self, p: Polynomial, q: Polynomial) -> Polynomial:
        self.spend(len(p) * len(q))
        right = [(n, d, any(a.special for a, _ in n)) for n, d in q.terms.items()]
        terms: dict[Monomial, Number] = {}
        for m, c in p.terms.items():
            special = any(a.special for a, _ in m)
            for n, d, other in right:
                exponents = merged(m, n)
                if special and other:
                    for k, e in self.assemble(exponents, c * d).terms.items():
                        terms[k] = terms.get(k, 0) + e
                else:
                    k = monomial(exponents)
                    terms[k] = terms.get(k, 0) + c * d
        return self._made(terms)

    def _made(self, terms: dict[Monomial, Number]) -> Polynomial:
        """A polynomial of these terms, zeros dropped, fractions reduced, within the limits."""
        kept = {m: _bounded(exact(c)) for m, c in terms.items() if c}
        if len(kept) > MAX_MONOMIALS:
            raise GaveUp(f"more than {MAX_MONOMIALS} terms")
        return self._reduced(Polynomial(kept))

    def assemble(self, exponents: Mapping[Atom, Number], coefficient: Number = 1) -> Polynomial:
        """The product of powers of atoms: bases with natural exponents expanded, roots of numbers split."""
        plain: dict[Atom, Number] = {}
        expanded: list[Polynomial] = []
        for a, exponent in exponents.items():
            e = exact(exponent)
            match a.form:
                case Prime(number):
                    whole = e.numerator // e.denominator
                    coefficient = exact(coefficient * _integer_power(number, whole))
                    e = exact(e - whole)
                case Base(p) if e.denominator == 1 and (e > 0 or len(p) == 1):
                    expanded.append(self.power(p, e))
                    e = 0
                case Base(p) if e > 1:
                    whole = e.numerator // e.denominator
                    expanded.append(self.power(p, whole))
                    e = exact(e - whole)
                case Applied("sin", p) if e.denominator == 1 and e not in (0, 1):
                    # sin^2 + cos^2 = 1
                    cosine = self.subtract(ONE, power_of(self.new(Applied("cos", p)), 2))
                    expanded.append(self.power(cosine, e.numerator // 2))
                    e = e.numerator % 2
                case Choice() if is_indicator(a) and e > 0:
                    e = 1
                case Element(read) if read.tensor.startswith(VALID) and e > 0:
                    e = 1  # 0 and 1 are their own powers
                case _:
                    pass
            if e:
                plain[a] = e
        return self.product([term(monomial(plain), coefficient), *expanded])

    # ------------------------------------------------------------------------------------------- powers

    def power(self, p: Polynomial, exponent: Number) -> Polynomial:
        """``p`` to a rational power; a zero base stays zero (its reciprocal is undefined, see definedness)."""
        e = exact(exponent)
        if e == 1 or not p:
            return p
        if e == 0:
            return ONE
        if p.single is not None:
            return self._power_of_term(*p.single, e)
        if e.denominator == 1 and e > 0:
            if e > MAX_POWER:
                raise GaveUp(f"power {e} of a sum")
            half = self.power(p, e // 2)
            square = self.times(half, half)
            return self.times(square, p) if e % 2 else square
        number, common, rest = self.content(p, whole=e.denominator == 1)
        out = self.times(self._power_of_term(common, number, e), self._power_of_primitive(rest, e))
        if e.denominator != 1:
            self.note_factors(common)
        return out

    def _power_of_primitive(self, p: Polynomial, e: Number) -> Polynomial:
        if p.single is not None:
            return self._power_of_term(*p.single, e)
        root = square_root(p)
        if root is not None:
            for q in (root, self.scale(root, -1)):
                if e.denominator == 1 or sign_of(q) is not Sign.ANY or q in self.given:
                    return self.power(q, 2 * e)
        return self.assemble({self.new(Base(p)): e})

    def _power_of_term(self, m: Monomial, c: Number, e: Number) -> Polynomial:
        if e.denominator == 1:
            return self.times(constant(_rational_power(c, e.numerator)), self.assemble({a: x * e for a, x in m}))
        kept: dict[Atom, Number] = {}
        rest: dict[Atom, Number] = {}
        for a, x in m:
            if a in self.nonnegative:
                kept[a] = kept.get(a, 0) + x * e
            elif factor_sign(a, x) is Sign.ANY:
                rest[a] = x
            elif a.sign is Sign.ANY and x.denominator == 1:
                # (a^2)^(1/2) is |a|, not a.
                square = atom(Base(power_of(a, 2)))
                kept[square] = kept.get(square, 0) + exact(Fraction(x * e) / 2)
            else:
                kept[a] = kept.get(a, 0) + x * e
        out = self.times(_root(abs(c), e), self.assemble(kept))
        if c > 0 and not rest:
            return out
        if c > 0 and len(rest) == 1:
            ((a, x),) = rest.items()
            return self.times(out, self.assemble({a: x * e}))
        return self.times(out, self.assemble({atom(Base(term(monomial(rest), 1 if c > 0 else -1))): e}))

    def content(self, p: Polynomial, *, whole: bool) -> tuple[Number, Monomial, Polynomial]:
        """A number, a monomial and a polynomial without common factors whose product is ``p``.

        With ``whole`` every atom counts, and the leading coefficient becomes positive. Otherwise only what is
        known not to be negative is taken out, and the number is positive.
        """
        common: dict[Atom, Number] = {}
        for _ in range(MAX_POWER):
            found = common_exponents(p, whole, self.nonnegative)
            if not found:
                break
            common = dict(merged(tuple(common.items()), tuple(found.items())))
            p = self.times(p, self.assemble({a: -e for a, e in found.items()}))
            if not p or p.single is not None:
                break
        number = rational_content(p)
        if whole and p and p.ordered[0][1] < 0:
            number = -number
        return number, monomial(common), self.scale(p, Fraction(1) / number)

    def note_factors(self, m: Monomial) -> None:
        """Record that a step relied on the signs of these factors."""
        for a, _ in m:
            if a.sign is not Sign.ANY and not isinstance(a.form, Prime):
                self.notes.add((f"is {a.sign.value}", power_of(a)))

    # ----------------------------------------------------------------------------------------- fractions

    def _reduced(self, p: Polynomial) -> Polynomial:
        """Cancel polynomial denominators that divide what stands over them."""
        if len(p) < 2 or not self._reducing:
            return p
        for base in p.denominators:
            exponents = {e for m in p.terms for a, e in m if a is base}
            for e in sorted(x for x in exponents if x < 0):
                over = Polynomial({without(m, base): c for m, c in p.terms.items() if (base, e) in m})
                if len(over) < 2:
                    continue
                assert isinstance(base.form, Base)
                quotient = divide(over, base.form.polynomial)
                if quotient is not None:
                    self.spend(len(over) * len(quotient))
                    left = {m: c for m, c in p.terms.items() if (base, e) not in m}
                    up = [self.assemble(merged(m, ((base, exact(e + 1)),)), c) for m, c in quotient.terms.items()]
                    return self.sum([Polynomial(left), *up])
        return p

    def cleared(self, p: Polynomial) -> Polynomial:
        """``p`` times powers of its polynomial denominators, none of which can be 0, so that none is left."""
        # Where all denominators go, looking for what cancels is lost time; products are not remembered unreduced.
        remembered, self._products, self._reducing = self._products, {}, False
        try:
            for _ in range(MAX_POWER):
                if not p.denominators:
                    break
                base = p.denominators[0]
                lowest = min(e for m in p.terms for a, e in m if a is base)
                up = -(lowest.numerator // lowest.denominator)
                p = self.sum(self.assemble(merged(m, ((base, up),)), c) for m, c in p.terms.items())
        finally:
            self._products, self._reducing = remembered, True
        return p

    def new(self, form: Form) -> Atom:
        """The atom of a form, unless it is nested too deeply."""
        made = atom(form)
        if made.depth > MAX_DEPTH:
            raise GaveUp(f"functions nested more than {MAX_DEPTH} deep")
        return made


# ---------------------------------------------------------------------------------------------- helpers


def merged(m: Monomial, n: Monomial) -> dict[Atom, Number]:
    """Exponents of a product of monomials; cancelled ones are 0."""
    exponents = dict(m)
    for a, e in n:
        exponents[a] = exact(exponents.get(a, 0) + e)
    return exponents


def without(m: Monomial, a: Atom) -> Monomial:
    """A monomial without the power of one atom."""
    return tuple(t for t in m if t[0] is not a)


def _bounded(c: Number) -> Number:
    if c.numerator.bit_length() + c.denominator.bit_length() > MAX_BITS:
        raise GaveUp(f"a coefficient of more than {MAX_BITS} bits")
    return c


def rational_content(p: Polynomial) -> Number:
    """The content of a polynomial's coefficients."""
    return content_of(p.terms.values())


def content_of(coefficients: Iterable[Number]) -> Number:
    """The greatest positive rational of which every coefficient is an integral multiple; 1 if there are none."""
    top, bottom = 0, 1
    for c in coefficients:
        top, bottom = gcd(top, c.numerator), lcm(bottom, c.denominator)
    return exact(Fraction(top or 1, bottom))


def common_exponents(p: Polynomial, whole: bool, nonnegative: frozenset[Atom] = frozenset()) -> dict[Atom, Number]:
    """Exponents that can be taken out of every term; below 0 where a term has the atom in its denominator.

    Unless ``whole``, only powers that are not negative: even ones of atoms that may be.
    """
    out: dict[Atom, Number] = {}
    for a in p.atoms:
        exponents = [dict(m).get(a, 0) for m in p.terms]
        lowest = min(exponents)
        if not whole and a.sign is Sign.ANY and a not in nonnegative:
            lowest = 2 * (lowest.numerator // (2 * lowest.denominator))
        if is_valid(a) or is_indicator(a):
            lowest = max(lowest, 0)
        if lowest:
            out[a] = lowest
    return out


def _integer_power(base: int, exponent: int) -> Number:
    if base.bit_length() * abs(exponent) > MAX_BITS:
        raise GaveUp(f"a coefficient of more than {MAX_BITS} bits")
    return exact(Fraction(base) ** exponent)


def _rational_power(c: Number, exponent: int) -> Number:
    top, bottom = _integer_power(c.numerator, exponent), _integer_power(c.denominator, exponent)
    return exact(Fraction(top) / bottom)


def _root(c: Number, exponent: Number) -> Polynomial:
    """A rational power of a positive number: an integer part, and primes with exponents between 0 and 1."""
    coefficient: Number = 1
    exponents: dict[Atom, Number] = {}
    for n, e in prime_powers(Fraction(c)):
        power = exact(e * exponent)
        whole = power.numerator // power.denominator
        coefficient = coefficient * _integer_power(n, whole)
        exponents[atom(Prime(n))] = exact(power - whole)
    return term(monomial(exponents), exact(coefficient))


def prime_powers(number: Fraction) -> list[tuple[int, int]]:
    """Primes below 1000 and at most two larger cofactors, whose powers make a positive number."""
    exponents: dict[int, int] = {}
    for value, sign in ((number.numerator, 1), (number.denominator, -1)):
        rest = value
        for p in _PRIMES:
            while rest % p == 0:
                rest //= p
                exponents[p] = exponents.get(p, 0) + sign
        if rest > 1:
            root = isqrt(rest)
            base, times = (root, 2) if root * root == rest else (rest, 1)
            exponents[base] = exponents.get(base, 0) + sign * times
    return sorted((p, e) for p, e in exponents.items() if e)


_PRIMES: Final = tuple(p for p in range(2, 1000) if all(p % d for d in range(2, isqrt(p) + 1)))
