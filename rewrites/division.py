"""Exact quotients and square roots of polynomials.

Exponents are counted from the lowest of each atom and packed into one integer, a field per atom with a guard bit
above it, so that a product of monomials is a sum of integers, their order is that of integers, and one mask tells
whether a field would have become negative. Coefficients are integers: by the lemma of Gauss a quotient by a
polynomial of integers without a common divisor has integral coefficients, or there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isqrt, lcm

from rewrites.atoms import Atom, Monomial, Number, Polynomial, exact, monomial

Packed = dict[int, int]
"""Integral coefficients by packed exponents."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """Where the exponent of each atom is in a packed monomial."""

    atoms: tuple[Atom, ...]
    scales: tuple[int, ...]
    """By what an atom's exponents are multiplied to be integral."""
    width: int
    """Bits of a field without its guard."""

    @property
    def guards(self) -> int:
        """The guard bits of all fields."""
        return sum(1 << (i * (self.width + 1) + self.width) for i in range(len(self.atoms)))

    def packed(self, exponents: Iterable[int]) -> int:
        """Exponents as one integer, the first atom's in the highest field."""
        out = 0
        for e in exponents:
            out = out << (self.width + 1) | e
        return out

    def unpacked(self, key: int) -> list[int]:
        """The inverse."""
        mask, out = (1 << self.width) - 1, list[int]()
        for _ in self.atoms:
            out.append(key & mask)
            key >>= self.width + 1
        return out[::-1]


@dataclass(frozen=True, slots=True)
class _Dense:
    """A polynomial as a table of exponents: ``content * x^lowest * sum(coefficient * x^row)``."""

    rows: list[list[int]]
    coefficients: list[int]
    lowest: list[int]
    spans: list[int]
    content: Fraction


def _columns(p: Polynomial, atoms: tuple[Atom, ...]) -> list[list[Number]]:
    place = {a: i for i, a in enumerate(atoms)}
    rows: list[list[Number]] = []
    for m in p.terms:
        row: list[Number] = [0] * len(atoms)
        for a, e in m:
            row[place[a]] = e
        rows.append(row)
    return rows


def _dense(p: Polynomial, rows: list[list[Number]], scales: tuple[int, ...]) -> _Dense:
    whole = [[int(e * s) for e, s in zip(row, scales, strict=True)] for row in rows]
    lowest = [min(column) for column in zip(*whole, strict=True)]
    spans = [max(column) - low for column, low in zip(zip(*whole, strict=True), lowest, strict=True)]
    shifted = [[e - low for e, low in zip(row, lowest, strict=True)] for row in whole]
    bottom = lcm(*(c.denominator for c in p.terms.values()))
    integral = [int(c * bottom) for c in p.terms.values()]
    top = gcd(*integral)
    return _Dense(shifted, [c // top for c in integral], lowest, spans, Fraction(top, bottom))


def _scales(rows: list[list[Number]]) -> tuple[int, ...]:
    return tuple(lcm(*(e.denominator for e in column)) for column in zip(*rows, strict=True))


def divide(numerator: Polynomial, denominator: Polynomial) -> Polynomial | None:
    """The exact quotient by a polynomial that is not 0, or None if there is none (or none of reasonable size)."""
    if not numerator:
        return numerator
    if not set(denominator.atoms) <= set(numerator.atoms) and len(denominator) > 1:
        # An atom whose exponents differ in the denominator differs in the numerator by at least as much.
        known = set(numerator.atoms)
        if any(len({dict(m).get(a, 0) for m in denominator.terms}) > 1 for a in denominator.atoms if a not in known):
            return None
    atoms = tuple(sorted({*numerator.atoms, *denominator.atoms}, key=lambda a: a.digest))
    if not atoms:
        return Polynomial({(): exact(Fraction(numerator.terms[()]) / denominator.terms[()])})
    above, below = _columns(numerator, atoms), _columns(denominator, atoms)
    scales = _scales(above + below)
    n, d = _dense(numerator, above, scales), _dense(denominator, below, scales)
    if any(a < b for a, b in zip(n.spans, d.spans, strict=True)):
        return None  # degrees add
    fields = _Fields(atoms, scales, max(1, *(s.bit_length() for s in n.spans)))
    rest = dict(zip(map(fields.packed, n.rows), n.coefficients, strict=True))
    by = dict(zip(map(fields.packed, d.rows), d.coefficients, strict=True))
    most = fields.packed(a - b for a, b in zip(n.spans, d.spans, strict=True))
    quotient = _divided(rest, by, fields.guards, most)
    if quotient is None:
        return None
    offset = [a - b for a, b in zip(n.lowest, d.lowest, strict=True)]
    return _sparse(quotient, fields, offset, n.content / d.content)


def _divided(rest: Packed, by: Packed, guards: int, most: int) -> Packed | None:
    """The quotient, of which no exponent exceeds ``most``; ``rest`` is used up."""
    lead, last = max(by), min(by)
    if _step(min(rest), last, guards, most) is None or rest[min(rest)] % by[last]:
        return None
    quotient: Packed = {}
    for _ in range(len(rest) + 64):
        if not rest:
            return quotient
        top = max(rest)
        step = _step(top, lead, guards, most)
        c, remainder = divmod(rest[top], by[lead])
        if step is None or remainder:
            return None
        quotient[step] = c
        _subtract_multiple(rest, by, step, c)
    return None


def _step(top: int, lead: int, guards: int, most: int) -> int | None:
    """The difference of packed exponents, unless one of them is below 0 or above ``most``."""
    step = (top | guards) - lead
    if step & guards != guards:
        return None
    step ^= guards
    return step if ((most | guards) - step) & guards == guards else None


def _subtract_multiple(rest: Packed, p: Packed, at: int, c: int) -> None:
    """Subtract ``c * x^at * p`` from ``rest``, in place."""
    for k, d in p.items():
        key = k + at
        left = rest.get(key, 0) - c * d
        if left:
            rest[key] = left
        else:
            rest.pop(key, None)


def _sparse(terms: Packed, fields: _Fields, offset: list[int], content: Fraction) -> Polynomial:
    out: dict[Monomial, Number] = {}
    for key, c in terms.items():
        exponents = zip(fields.unpacked(key), offset, fields.scales, strict=True)
        powers = {a: exact(Fraction(e + o, s)) for a, (e, o, s) in zip(fields.atoms, exponents, strict=True)}
        out[monomial(powers)] = exact(content * c)
    return Polynomial(out)


def square_root(p: Polynomial) -> Polynomial | None:
    """A polynomial of several terms whose square is ``p``, or None."""
    if len(p) < 3:
        return None
    atoms = p.atoms
    rows = _columns(p, atoms)
    if any(e.denominator != 1 for row in rows for e in row):
        return None
    dense = _dense(p, rows, (1,) * len(atoms))
    if any(n % 2 for n in (*dense.lowest, *dense.spans)):
        return None
    content = Fraction(isqrt(dense.content.numerator), isqrt(dense.content.denominator))
    if content * content != dense.content:
        return None
    fields = _Fields(atoms, (1,) * len(atoms), max(1, *(s.bit_length() for s in dense.spans)))
    rest = dict(zip(map(fields.packed, dense.rows), dense.coefficients, strict=True))
    root = _rooted(rest, fields, fields.packed(s // 2 for s in dense.spans))
    return None if root is None else _sparse(root, fields, [low // 2 for low in dense.lowest], content)


def _rooted(rest: Packed, fields: _Fields, most: int) -> Packed | None:
    """The square root, of which no exponent exceeds ``most``; ``rest`` is used up."""
    limit = len(rest)
    top = max(rest)
    halves = fields.unpacked(top)
    number = isqrt(max(rest[top], 0))
    if any(e % 2 for e in halves) or number == 0 or number * number != rest[top]:
        return None
    lead = fields.packed(e // 2 for e in halves)
    root: Packed = {lead: number}
    rest.pop(top)
    for _ in range(limit):
        if not rest:
            return root
        top = max(rest)
        step = _step(top, lead, fields.guards, most)
        c, remainder = divmod(rest[top], 2 * number)
        if step is None or remainder or step >= lead:
            return None
        _subtract_multiple(rest, root, step, 2 * c)
        _subtract_multiple(rest, {step: c}, step, c)
        root[step] = c
    return None
