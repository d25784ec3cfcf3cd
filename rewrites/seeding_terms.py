"""Sums of products at the surface of an expression: what the transformations of ``rewrites.seeding_forms`` work on.

Only the outermost additions, products and reciprocals are opened; every other operand is an opaque base, by
identity. Nothing is decided here: equal bases cancel and like terms merge without a look at definedness, because
a seed counts only after the normal form has proved it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from typing import Final

from sgraph.axis import Axis, ordered
from sgraph.expr import REDUCTIONS, Expr, Op, add, const, exp, extent, make, mul, negate, product, recip, sum_over, walk

Powers = Mapping[Expr, int]
"""Bases with their exponents, none of them 0, in order of appearance."""


@dataclass(frozen=True)
class Term:
    """A coefficient times powers of opaque bases."""

    coefficient: Fraction
    """Rational factor."""
    powers: Powers
    """The other factors."""

    @cached_property
    def free(self) -> frozenset[Axis]:
        """The axes the term depends on."""
        return frozenset[Axis]().union(*(base.free for base in self.powers))

    @property
    def key(self) -> frozenset[tuple[Expr, int]]:
        """Equal for like terms."""
        return frozenset(self.powers.items())

    @property
    def expression(self) -> Expr:
        """The term as a product: coefficient, numerator, denominator."""
        above = [base for base, n in self.powers.items() for _ in range(n)]
        below = [recip(base) for base, n in self.powers.items() for _ in range(-n)]
        if not above and not below:
            return const(self.coefficient)
        value = product([*above, *below])
        match self.coefficient:
            case Fraction(numerator=1, denominator=1):
                return value
            case Fraction(numerator=-1, denominator=1):
                return negate(value)
            case other:
                return mul(const(other), value)

    def times(self, other: Term) -> Term:
        """The product; opposite powers cancel."""
        powers = dict(self.powers)
        for base, n in other.powers.items():
            powers[base] = powers.get(base, 0) + n
        return Term(self.coefficient * other.coefficient, {b: n for b, n in powers.items() if n})

    def over(self, divisor: Powers) -> Term:
        """The term divided by powers of bases."""
        return self.times(Term(Fraction(1), {base: -n for base, n in divisor.items()}))

    def split(self, axes: frozenset[Axis]) -> tuple[Term, Term]:
        """The factors that depend on some of the axes, and the rest with the coefficient."""
        inside = {b: n for b, n in self.powers.items() if b.free & axes}
        outside = {b: n for b, n in self.powers.items() if not b.free & axes}
        return Term(Fraction(1), inside), Term(self.coefficient, outside)


ONE: Final = Term(Fraction(1), {})


def term_of(e: Expr) -> Term:
    """An expression as one product, nested products and reciprocals opened."""
    coefficient = Fraction(1)
    powers: dict[Expr, int] = {}
    stack = [(e, 1)]
    while stack:
        node, sign = stack.pop()
        match node.op:
            case Op.MUL:
                stack.extend((a, sign) for a in reversed(node.args))
            case Op.RECIP:
                stack.append((node.args[0], -sign))
            case Op.CONST if node.value or sign > 0:
                coefficient *= node.value**sign
            case _:
                powers[node] = powers.get(node, 0) + sign
    return Term(coefficient, {b: n for b, n in powers.items() if n})


def terms_of(e: Expr) -> tuple[Term, ...]:
    """The terms of an addition, nested ones and those behind a coefficient opened; other expressions are one term."""
    found: list[Term] = []
    stack = [(Fraction(1), e)]
    while stack:
        scale, node = stack.pop()
        if node.op is Op.ADD:
            stack.extend((scale, a) for a in reversed(node.args))
            continue
        term = term_of(node)
        match list(term.powers.items()):
            case [(base, 1)] if base.op is Op.ADD:
                stack.append((scale * term.coefficient, base))
            case _:
                found.append(Term(scale * term.coefficient, term.powers))
    return tuple(found)


def additive(term: Term) -> tuple[Expr, ...]:
    """The factors of a term that are additions of at least two terms, in the numerator."""
    return tuple(b for b, n in term.powers.items() if n > 0 and b.op is Op.ADD and len(terms_of(b)) > 1)


def distributed(term: Term, factor: Expr) -> tuple[Term, ...]:
    """The terms that multiplying out one additive factor of a term gives."""
    rest = term.over({factor: 1})
    return tuple(t.times(rest) for t in terms_of(factor))


def multiplied_out(e: Expr) -> tuple[Term, ...]:
    """The terms of an addition, terms with just one additive factor multiplied out: ``(x - mean) * scale``."""
    found: list[Term] = []
    for term in terms_of(e):
        factors = additive(term)
        found += distributed(term, factors[0]) if len(factors) == 1 else [term]
    return tuple(found)


def combined(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Like terms merged, those that cancel left out; each at its first place."""
    found: dict[frozenset[tuple[Expr, int]], Term] = {}
    for term in terms:
        before = found.get(term.key)
        coefficient = term.coefficient + (before.coefficient if before else 0)
        found[term.key] = Term(coefficient, before.powers if before else term.powers)
    return tuple(t for t in found.values() if t.coefficient)


def total(terms: Iterable[Term]) -> Expr:
    """The addition of some terms, like ones merged."""
    parts = [t.expression for t in combined(terms)]
    return reduce(add, parts) if parts else const(0)


def shared(first: Powers, second: Powers) -> dict[Expr, int]:
    """The powers that both have: numerators with numerators, denominators with denominators."""
    common: dict[Expr, int] = {}
    for base, n in first.items():
        other = second.get(base, 0)
        if n * other > 0:
            common[base] = min(n, other, key=abs)
    return common


def summed(axes: Iterable[Axis], term: Term) -> Term:
    """A term summed over some axes: what does not depend on them is outside, and unused axes are extents."""
    over = frozenset(axes)
    inside, outside = term.split(over)
    for axis in ordered(over - inside.free):
        outside = outside.times(term_of(extent(axis)))
    used = [a for a in axes if a in inside.free]
    if not used:
        return outside
    return outside.times(Term(Fraction(1), {sum_over(used, inside.expression): 1}))


def passes(e: Expr) -> int:
    """The longest chain of reductions over one axis of which each needs the one before."""
    done: dict[Expr, dict[Axis, int]] = {}
    for node in walk([e]):
        below: dict[Axis, int] = {}
        for argument in node.args:
            for axis, depth in done[argument].items():
                below[axis] = max(below.get(axis, 0), depth)
        if node.op in REDUCTIONS:
            below[node.axis.base] = below.get(node.axis.base, 0) + 1
        done[node] = below
    return max(done[e].values(), default=0)


def canonical(e: Expr) -> Expr:
    """One expression for all that differ by order, association, like terms, cancelled factors, what stands outside
    of a sum, and whether exponentials are joined.
    """
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        rebuilt = make(node.op, tuple(done[a] for a in node.args), node.attr)
        match node.op:
            case Op.ADD:
                terms = sorted((_sorted(t) for t in combined(terms_of(rebuilt))), key=lambda t: t.expression.digest)
                rebuilt = total(terms)
            case Op.MUL | Op.RECIP:
                rebuilt = _sorted(term_of(rebuilt)).expression
            case Op.SUM:
                rebuilt = _canonical_sum(rebuilt)
            case Op.EXP:
                rebuilt = _canonical_exponential(rebuilt)
            case _:
                pass
        done[node] = rebuilt
    return done[e]


def _canonical_sum(e: Expr) -> Expr:
    """A sum with what does not depend on its axis outside, merged with a sum directly below it."""
    inside = term_of(e.args[0])
    axes = [e.axis]
    match list(inside.powers.items()):
        case [(base, 1)] if base.op is Op.SUM and base.axis not in axes:
            while base.op is Op.SUM and base.axis not in axes:
                axes.append(base.axis)
                base = base.args[0]
            inside = Term(inside.coefficient, {}).times(term_of(base))
        case _:
            pass
    return _sorted(summed(ordered(frozenset(axes)), _sorted(inside))).expression


def _canonical_exponential(e: Expr) -> Expr:
    """The exponential of an addition as a product, negative terms below the line."""
    value = ONE
    for term in multiplied_out(e.args[0]):
        factor = exp(Term(abs(term.coefficient), term.powers).expression)
        value = value.times(Term(Fraction(1), {factor: 1 if term.coefficient > 0 else -1}))
    return _sorted(value).expression


def _sorted(term: Term) -> Term:
    return Term(term.coefficient, dict(sorted(term.powers.items(), key=lambda item: item[0].digest)))
