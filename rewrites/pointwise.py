"""Pointwise functions in the normal form: ``exp``, ``log``, the larger of two, ``where``, and functions by name.

Each is an identity wherever the expression that is being normalised is defined. What has no theory becomes an atom
over its normalised operands.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from typing import Final

from rewrites.atoms import (
    ONE,
    ZERO,
    Applied,
    Atom,
    Base,
    Exponential,
    Form,
    Highest,
    Infinity,
    Larger,
    Logarithm,
    Monomial,
    Number,
    Polynomial,
    atom,
    constant,
    exact,
    factor_sign,
    monomial,
    monomial_sign,
    power_of,
    sign_of,
    term,
)
from rewrites.conditions import Conditional, is_infinity
from rewrites.division import square_root
from rewrites.polynomial import (
    common_exponents,
    content_of,
    merged,
    prime_powers,
    without,
)
from sgraph.expr import Sign

MAX_OPERANDS: Final = 64
"""Operands that a largest-of is opened into."""
ODD_CALLS: Final = frozenset({"erf", "sin"})
"""Functions with f(-x) = -f(x)."""
EVEN_CALLS: Final = frozenset({"cos", "abs"})
"""Functions with f(-x) = f(x)."""


class Pointwise(Conditional):
    """The algebra with pointwise functions."""

    # --------------------------------------------------------------------------- exponentials, logarithms

    def exp(self, p: Polynomial) -> Polynomial:
        """``exp`` of a sum as a product; ``exp(-inf) = 0``."""
        if p.conditions:
            return self.by_cases(self.exp, p)
        exponents: dict[Atom, Number] = {}
        others: list[Polynomial] = []
        for m, c in p.terms.items():
            match m:
                case ((Atom(form=Infinity()), _),):
                    return ZERO
                case ((Atom(form=Logarithm(argument)), 1),):
                    others.append(self.power(argument, c))
                case _:
                    exponents[self.new(Exponential(m))] = c
        return self.product([self.assemble(exponents), *others])

    def log(self, p: Polynomial) -> Polynomial:
        """``log`` of a product as a sum, split by factors that are known not to be negative."""
        if p.conditions:
            return self.by_cases(self.log, p)
        if not p:
            return ZERO
        if p.single is not None:
            (common, number), rest = p.single, ONE
        else:
            number, common, rest = self.content(p, whole=False)
        parts = [self._log_of_number(abs(number))]
        unknown: dict[Atom, Number] = {}
        for a, e in common:
            given = a in self.nonnegative
            known = given or factor_sign(a, e) is not Sign.ANY
            match a.form:
                case Exponential(argument) if known:
                    parts.append(term(argument, e))
                case _ if not known:
                    unknown[a] = e
                case _ if a.sign is Sign.ANY and e.denominator == 1 and not given:
                    # log(a^2) is 2 log |a|, not 2 log a.
                    square = self._log_atom(self.power(_unwrapped(a), 2))
                    parts.append(self.scale(square, exact(Fraction(e) / 2)))
                case _:
                    parts.append(self.scale(self._log_atom(_unwrapped(a)), e))
        self.note_factors(tuple((a, e) for a, e in common if a not in unknown))
        if len(unknown) == 1 and number > 0:
            ((a, e),) = unknown.items()
            parts.append(self.scale(self._log_atom(_unwrapped(a)), e))
        elif unknown or number < 0:
            parts.append(self._log_atom(term(monomial(unknown), 1 if number > 0 else -1)))
        if rest != ONE:
            parts.append(self._log_of_primitive(rest))
        return self.sum(parts)

    def _log_of_primitive(self, p: Polynomial) -> Polynomial:
        root = square_root(p)
        for q in () if root is None else (root, self.scale(root, -1)):
            if sign_of(q) is not Sign.ANY:
                return self.scale(self._log_of_primitive(q), 2)
        return self._log_atom(p)

    def _log_atom(self, p: Polynomial) -> Polynomial:
        return power_of(self.new(Logarithm(p)))

    def _log_of_number(self, number: Number) -> Polynomial:
        return self.sum(self.scale(self._log_atom(constant(n)), e) for n, e in prime_powers(Fraction(number)))

    def call(self, function: str, p: Polynomial) -> Polynomial:
        """A unary function by name."""
        if p.conditions:
            return self.by_cases(partial(self.call, function), p)
        match function:
            case "sigmoid":
                grown = self.exp(p)
                return self.times(grown, self.power(self.add(grown, ONE), -1))
            case "silu":
                return self.times(p, self.call("sigmoid", p))
            case "tanh":
                return self.subtract(self.scale(self.call("sigmoid", self.scale(p, 2)), 2), ONE)
            case "softplus":
                return self.log(self.add(self.exp(p), ONE))
            case "gelu":
                inner = self.times(p, self.power(constant(2), Fraction(-1, 2)))
                return self.times(self.scale(p, Fraction(1, 2)), self.add(self.call("erf", inner), ONE))
            case "relu":
                return self.larger([p, ZERO])
            case "abs":
                return self._absolute(p)
            case _ if function in EVEN_CALLS and p and p.ordered[0][1] < 0:
                return self.call(function, self.scale(p, -1))
            case _ if function in ODD_CALLS:
                if not p:
                    return ZERO
                sign = 1 if p.ordered[0][1] > 0 else -1
                return self.scale(power_of(self.new(Applied(function, self.scale(p, sign)))), sign)
            case _:
                return power_of(self.new(Applied(function, p)))

    def _absolute(self, p: Polynomial) -> Polynomial:
        if not p:
            return ZERO
        number, common, rest = self.content(p, whole=True)
        if rest.single is not None:
            common, rest = monomial(merged(common, rest.single[0])), ONE
        parts = [constant(abs(number))]
        for a, e in common:
            known = a in self.nonnegative or factor_sign(a, e) is not Sign.ANY
            parts.append(self.assemble({a: e} if known else {atom(Base(power_of(a, 2))): exact(Fraction(e) / 2)}))
        if rest != ONE:
            parts.append(rest if sign_of(rest) is not Sign.ANY else power_of(self.new(Applied("abs", rest))))
        return self.product(parts)

    def larger(self, operands: Iterable[Polynomial]) -> Polynomial:
        """The largest of several values: a set, with what all have in common taken out."""
        given = list(operands)
        if any(p.conditions for p in given):
            return self.by_cases(lambda *cases: self.larger(cases), *given)
        found: dict[Polynomial, None] = {}
        listed, lowered = self._raised(given)
        for p in listed:
            found |= dict.fromkeys(self._flat(p))
        kept = self._undominated([p for p in found if not is_infinity(p)] or list(found)[:1])
        if lowered:
            return self.subtract(self.larger(kept), lowered)
        if len(kept) == 1:
            return kept[0]
        if len(kept) == 2 and kept[0] == self.scale(kept[1], -1):
            return self._absolute(kept[0])
        shared = common_addend(kept)
        kept = [self.subtract(p, shared) for p in kept]
        number, common = positive_content(kept)
        inverse = self.assemble({a: -e for a, e in common.items()}, Fraction(1) / number)
        kept = sorted((self.times(p, inverse) for p in kept), key=lambda p: p.key)
        self.note_factors(monomial(common))
        largest = power_of(self.new(Larger(tuple(kept))))
        return self.add(shared, self.times(largest, self.assemble(common, number)))

    def _raised(self, operands: list[Polynomial]) -> tuple[list[Polynomial], Polynomial]:
        """The operands raised by every largest-of that one of them subtracts, and by how much: no smallest is left.

        So ``max(x, min(y, z))`` is a difference of two largest-of: the lattice is one of tropical rational functions.
        """
        lowered = ZERO
        for p in operands:
            for m, c in p.ordered:
                found = positive_multiple(m, -c, Larger)
                if found is not None and all(q.finite for q in operands):
                    subtracted = term(m, -c)
                    have = lowered.terms.get(m, 0)
                    if -c > have:
                        lowered = self.add(lowered, self.scale(subtracted, exact(Fraction(-c - have) / -c)))
        return [self.add(p, lowered) for p in operands], lowered

    def same_largest(self, p: Polynomial) -> bool:
        """Whether a difference of sums of largest-of is 0: both sides of it open to the same set."""
        added: dict[Monomial, Number] = {}
        subtracted: dict[Monomial, Number] = {}
        for m, c in self._with_largest(p).terms.items():
            if positive_multiple(m, -c, Larger) is not None:
                subtracted[m] = -c
            else:
                added[m] = c
        if not subtracted or not p.finite:
            return False
        left, right = (self._flat(Polynomial(x)) for x in (added, subtracted))
        return self.larger(left) == self.larger(right)

    def _with_largest(self, p: Polynomial) -> Polynomial:
        """The same with ``|x|`` as ``max(x, -x)``."""
        out: list[Polynomial] = []
        for m, c in p.terms.items():
            exponents = dict(m)
            for a, e in m:
                if isinstance(a.form, Base) and e == Fraction(1, 2) and (inner := _squared(a.form.polynomial)):
                    del exponents[a]
                    largest = atom(Larger(tuple(sorted((inner, self.scale(inner, -1)), key=lambda q: q.key))))
                    exponents[largest] = 1
                    break
            out.append(term(monomial(exponents), c))
        return self.sum(out)

    def _flat(self, p: Polynomial) -> list[Polynomial]:
        """The operands of ``p`` as a largest-of: terms that are one, times something positive, are opened."""
        out = [p]
        for m, c in p.ordered:
            found = positive_multiple(m, c, Larger)
            if found is None:
                continue
            choice, rest = found
            assert isinstance(choice, Larger)
            if len(out) * len(choice.operands) <= MAX_OPERANDS:
                scaled = [self.times(r, rest) for r in choice.operands]
                out = [self.add(q, r) for q in (self.subtract(q, term(m, c)) for q in out) for r in scaled]
        return out

    def _undominated(self, operands: list[Polynomial]) -> list[Polynomial]:
        kept: list[Polynomial] = []
        for p in operands:
            if any(sign_of(self.subtract(q, p)) is not Sign.ANY for q in kept):
                continue
            kept = [q for q in kept if sign_of(self.subtract(p, q)) is Sign.ANY]
            kept.append(p)
        return kept


# ---------------------------------------------------------------------------------------------- helpers


def positive_multiple(m: Monomial, c: Number, kind: type[Larger] | type[Highest]) -> tuple[Form, Polynomial] | None:
    """A term as a form of this kind times something positive, if it is one."""
    found = [a for a, e in m if isinstance(a.form, kind) and e == 1]
    if len(found) != 1 or c < 0:
        return None
    rest = without(m, found[0])
    return (found[0].form, term(rest, c)) if monomial_sign(rest) is Sign.POSITIVE else None


def _squared(p: Polynomial) -> Polynomial | None:
    """The atom of which a polynomial is the square."""
    match p.single:
        case (((a, 2),), 1):
            return power_of(a)
        case _:
            return None


def _unwrapped(a: Atom) -> Polynomial:
    return a.form.polynomial if isinstance(a.form, Base) else power_of(a)


def common_addend(operands: list[Polynomial]) -> Polynomial:
    """What all operands have in common as an addend."""
    terms: dict[Monomial, Number] = {}
    for m, _ in operands[0].ordered:
        found = [p.terms.get(m, 0) for p in operands]
        if all(c > 0 for c in found):
            terms[m] = min(found)
        elif all(c < 0 for c in found):
            terms[m] = max(found)
    return Polynomial(terms)


def positive_content(operands: list[Polynomial]) -> tuple[Number, dict[Atom, Number]]:
    """A positive number and powers of positive atoms that all operands have as a factor."""
    number = content_of(c for p in operands for c in p.terms.values())
    merged = Polynomial({m: 1 for p in operands for m in p.terms})
    common = common_exponents(merged, whole=True)
    # A denominator that only some have stays with them: multiplied out it would hide what the others share.
    return number, {
        a: e for a, e in common.items() if a.sign is Sign.POSITIVE and not (e < 0 and _is_partly_below(merged, a))
    }


def _is_partly_below(p: Polynomial, a: Atom) -> bool:
    """Whether an atom is a polynomial base that does not occur in every term."""
    return isinstance(a.form, Base) and any(all(b is not a for b, _ in m) for m in p.terms)
