"""Conditions in the normal form: ``where`` by indicators that are 0 or 1, or as an ordered tree where -inf is at stake.

``where(c, a, b)`` of finite values is ``b + [c] * (a - b)``: an indicator is its own square, sums and products need
nothing else, and what is not linear is taken by cases, ``f(p) = [c] f(p | c) + (1 - [c]) f(p | not c)``. So ``where``
moves through every function, nested conditions meet, and complementary ones add up to 1. Minus infinity cannot be
multiplied: a value that may hold it is a decision tree with its conditions in canonical order (Bryant, IEEE Trans.
Computers C-35(8), 1986), and ``+`` and maxima are taken by cases.

A branch that is not taken may be undefined. Every step is an identity of each branch by itself, so nothing that one
branch cancels is lost to the other; that they are defined where they are taken is collected apart, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import partial
from math import floor
from typing import Final

from rewrites.atoms import (
    INTEGRAL,
    ONE,
    ZERO,
    Atom,
    Choice,
    Condition,
    Element,
    Infinity,
    Length,
    Number,
    Polynomial,
    Position,
    atom,
    constant,
    exact,
    is_indicator,
    power_of,
    sign_of,
    term,
)
from rewrites.polynomial import Algebra, GaveUp, content_of, rational_content
from sgraph.expr import Op, Sign

MAX_CONDITIONS: Final = 6
"""Conditions of one value that is taken by cases."""


class Conditional(Algebra):
    """The algebra with conditions."""

    def power(self, p: Polynomial, exponent: Number) -> Polynomial:
        """``p`` to a rational power, by cases unless it is a natural one."""
        if p.conditions and (exponent.denominator != 1 or exponent < 0):
            return self.by_cases(partial(self.power, exponent=exponent), p)
        return super().power(p, exponent)

    def by_cases(self, function: Callable[..., Polynomial], *operands: Polynomial) -> Polynomial:
        """A function of operands that depend on conditions: of each case by itself.

        Raises:
            GaveUp: there are too many conditions.
        """
        conditions = conditions_of(operands)
        if len(conditions) > MAX_CONDITIONS:
            raise GaveUp(f"more than {MAX_CONDITIONS} conditions of one value")
        return self.split(conditions[0], function, *operands)

    def split(self, c: Atom, function: Callable[..., Polynomial], *operands: Polynomial) -> Polynomial:
        """A function of operands where one condition holds, and where it does not."""
        then, otherwise = (function(*(self.restricted(p, c, holds) for p in operands)) for holds in (True, False))
        return self.chosen(c, then, otherwise)

    def restricted(self, p: Polynomial, c: Atom, holds: bool) -> Polynomial:
        """What ``p`` is where a condition holds, or where it does not."""
        if c not in p.conditions:
            return p
        parts: list[Polynomial] = []
        for m, k in p.terms.items():
            inside = [(a, e) for a, e in m if c in a.conditions]
            out = term(tuple(t for t in m if c not in t[0].conditions), k)
            for a, e in inside:
                out = self.times(out, self.power(self._restricted_atom(a, c, holds), e))
            parts.append(out)
        return self.sum(parts)

    def _restricted_atom(self, a: Atom, c: Atom, holds: bool) -> Polynomial:
        assert isinstance(a.form, Choice)
        own, then, otherwise = indicator(a.form.condition), a.form.then, a.form.otherwise
        if own is c:
            return then if holds else otherwise
        return self.chosen(own, self.restricted(then, c, holds), self.restricted(otherwise, c, holds))

    def chosen(self, c: Atom, then: Polynomial, otherwise: Polynomial) -> Polynomial:
        """One of two values by a condition on which neither depends any more."""
        if then == otherwise:
            return then
        if then.finite and otherwise.finite:
            return self._linear(c, then, otherwise)
        least = min([c, *conditions_of([then, otherwise])], key=lambda a: a.digest)
        if least is c:
            assert isinstance(c.form, Choice)
            return power_of(self.new(Choice(c.form.condition, then, otherwise)))
        return self.split(least, partial(self.chosen, c), then, otherwise)

    def _linear(self, c: Atom, then: Polynomial, otherwise: Polynomial) -> Polynomial:
        difference = self.subtract(then, otherwise)
        assert isinstance(c.form, Choice)
        condition = c.form.condition
        if condition.op is Op.LE and not condition.left and not condition.right.conditions:
            ratio = _ratio(difference, condition.right)
            if ratio is not None:  # where(0 <= x, x, 0) is max(x, 0)
                return self.add(otherwise, self.scale(self.larger([condition.right, ZERO]), ratio))
        return self.add(otherwise, self.times(power_of(c), difference))

    def larger(self, operands: Iterable[Polynomial]) -> Polynomial:
        """The largest of several values."""
        raise NotImplementedError

    def where(self, test: Polynomial, then: Polynomial, otherwise: Polynomial) -> Polynomial:
        """``where``, of a condition as :meth:`compared` gives it."""
        if test in (ONE, ZERO):
            return then if test == ONE else otherwise
        if not test.conditions:  # a truth without an indicator: that of a maximum or a product over an axis
            return self.where(self.compared(Op.EQ, test, ZERO), otherwise, then)
        return self.split(test.conditions[0], self.where, test, then, otherwise)

    def plus(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """``p + q``, where minus infinity absorbs and trees are added by cases."""
        for x in (p, q):
            if is_infinity(x):
                return x
        if any(a.conditions and not a.finite for x in (p, q) for a in x.atoms):
            return self.by_cases(self.plus, p, q)
        return self.add(p, q)

    def compared(self, op: Op, left: Polynomial, right: Polynomial) -> Polynomial:
        """A comparison as a polynomial in indicators: 1 where it holds, 0 where it does not.

        Of finite values, ``<`` is expressed by the opposite ``<=``, and of integers one of each two complementary
        comparisons by the other, so that complements add up to 1.
        """
        if left.conditions or right.conditions:
            return self.by_cases(partial(self.compared, op), left, right)
        if not (left.finite and right.finite):
            return power_of(atom(Choice(Condition(op, left, right), ONE, ZERO)))
        difference = self.subtract(right, left)
        if op is Op.LT:
            return self.subtract(ONE, self.compared(Op.LE, right, left))
        if op is Op.LE and _is_integral(difference):
            difference = _tightened(difference)
            if difference.terms.get((), 0) < 0:
                opposite = self.subtract(constant(-1), difference)
                return self.subtract(ONE, self._at_least_zero(opposite))
        return self._at_least_zero(difference) if op is Op.LE else self._indicator(op, difference)

    def _at_least_zero(self, p: Polynomial) -> Polynomial:
        return self._indicator(Op.LE, p)

    def _indicator(self, op: Op, difference: Polynomial) -> Polynomial:
        scale = rational_content(difference)
        if op is Op.EQ and difference and difference.ordered[0][1] < 0:
            scale = -scale
        condition = Condition(op, ZERO, self.scale(difference, Fraction(1) / scale))
        known = decide(condition)
        if known is not None:
            return ONE if known else ZERO
        return power_of(indicator(condition))

    def mapped(self, p: Polynomial, function: Callable[[Polynomial], Polynomial]) -> Polynomial:
        """A tree with a function applied to the values that are not minus infinity."""
        if is_infinity(p):
            return p
        match p.single:
            case (((Atom(form=Choice() as form) as a, 1),), 1) if not is_indicator(a):
                then, otherwise = self.mapped(form.then, function), self.mapped(form.otherwise, function)
                return self.chosen(indicator(form.condition), then, otherwise)
            case _:
                return function(p)


def values_of(p: Polynomial) -> list[Polynomial]:
    """The values of a tree that are not minus infinity; a polynomial that is no tree by itself."""
    if is_infinity(p):
        return []
    match p.single:
        case (((Atom(form=Choice() as form) as a, 1),), 1) if not is_indicator(a):
            return [*values_of(form.then), *values_of(form.otherwise)]
        case _:
            return [p]


def indicator(condition: Condition) -> Atom:
    """The atom that is 1 where a condition holds and 0 where it does not."""
    return atom(Choice(condition, ONE, ZERO))


def conditions_of(operands: Iterable[Polynomial]) -> list[Atom]:
    """The conditions on which values depend, as indicators, in canonical order."""
    return sorted({c for p in operands for c in p.conditions}, key=lambda a: a.digest)


def is_infinity(p: Polynomial) -> bool:
    """Whether a sum has minus infinity among its terms."""
    return not p.finite and any(isinstance(a.form, Infinity) for m in p.terms for a, _ in m)


def decide(condition: Condition) -> bool | None:
    """Whether a comparison is known to hold, or not to."""
    if condition.left:
        return None
    sign, opposite = sign_of(condition.right), sign_of(Polynomial({m: -c for m, c in condition.right.terms.items()}))
    match condition.op:
        case Op.LT:
            return True if sign is Sign.POSITIVE else False if opposite is not Sign.ANY else None
        case Op.LE:
            return True if sign is not Sign.ANY else False if opposite is Sign.POSITIVE else None
        case _:
            return True if not condition.right else False if Sign.POSITIVE in (sign, opposite) else None


def _ratio(p: Polynomial, q: Polynomial) -> Number | None:
    """The number by which ``q`` is multiplied to give ``p``."""
    if p.terms.keys() != q.terms.keys():
        return None
    ratios = {Fraction(c) / q.terms[m] for m, c in p.terms.items()}
    return exact(ratios.pop()) if len(ratios) == 1 else None


def _is_integral(p: Polynomial) -> bool:
    """Whether a multiple of it by a number is known to be an integer: it is made of positions and extents."""
    return any(p.terms) and all(e.denominator == 1 and e > 0 and _integral_atom(a) for m in p.terms for a, e in m)


def _integral_atom(a: Atom) -> bool:
    match a.form:
        case Position() | Length():
            return True
        case Element(read):
            return read.tensor.startswith(INTEGRAL)
        case _:
            return False


def _tightened(p: Polynomial) -> Polynomial:
    """An integer whose sign ``0 <= p`` asks for, without common divisors: ``0 <= 2 i - 1`` is ``0 <= i - 1``."""
    step = content_of(c for m, c in p.terms.items() if m)
    terms = {m: exact(Fraction(c) / step) for m, c in p.terms.items() if m}
    rest = floor(Fraction(p.terms.get((), 0)) / step)
    return Polynomial({**terms, (): rest} if rest else terms)
