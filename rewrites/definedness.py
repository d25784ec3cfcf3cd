"""Where an expression is defined: what must not be 0, negative or minus infinity for it to have a value.

The normal form cancels; what it cancels by must not be lost. So definedness is collected from the expression
itself, as obligations on normalised subjects: a reciprocal needs its operand not to be 0, a root needs it not to be
negative, everything but ``+``, ``max`` and ``exp`` needs its operands to be finite. A reduction needs its operand's
obligations at every index; a branch of ``where`` needs its own only where it is taken. A candidate is defined
wherever its specification is, if each of its obligations follows from signs or from obligations of the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from typing import Final

from rewrites.atoms import (
    ONE,
    PAD,
    VALID,
    ZERO,
    Applied,
    Atom,
    Base,
    Choice,
    Element,
    Exponential,
    Highest,
    Larger,
    Monomial,
    Polynomial,
    Prime,
    atom,
    factor_sign,
    is_indicator,
    power_of,
    restricted_to,
    sign_of,
    summand,
    term,
)
from rewrites.conditions import indicator, is_infinity
from rewrites.division import divide, square_root
from rewrites.reductions import Reducer
from sgraph.axis import Axis
from sgraph.expr import Sign, unused_copy

MAX_GUARDS: Final = 6
"""Guards of one obligation of which every subset is looked up."""

Under = frozenset[tuple[Atom, bool]]


class Need(StrEnum):
    """What a subject must be, as a phrase."""

    NONZERO = "is not 0"
    NONNEGATIVE = "is >= 0"
    FINITE = "is finite"
    IN_DOMAIN = "is defined"


@dataclass(frozen=True, slots=True)
class Obligation:
    """One thing that must hold for an expression to be defined."""

    need: Need
    """What."""
    subject: Polynomial
    """Of what."""
    bound: frozenset[Axis] = frozenset()
    """At every index of these axes."""
    under: Under = frozenset()
    """Only where these conditions, as ``where`` atoms, hold or do not."""
    known: bool = False
    """Whether the expression's own sign facts imply it."""

    def __str__(self) -> str:
        return f"{self.subject} {self.need.value}"


Obligations = frozenset[Obligation]
NOWHERE: Final = Obligation(Need.NONZERO, ZERO)
"""What cannot hold; under conditions: that they never hold together."""
_Fact = tuple[Need, tuple[Axis, ...], Polynomial]


# ------------------------------------------------------------------------------------------- collecting


def nonzero(algebra: Reducer, p: Polynomial, *, known: bool = False) -> Obligations:
    """What it takes for ``p`` not to be 0: that no factor of it is."""
    if not p:
        return frozenset({Obligation(Need.NONZERO, ZERO)})
    out: set[Obligation] = set()
    pending = [p]
    while pending:
        subject = pending.pop()
        if subject.single is None:
            _, common, subject = algebra.content(subject, whole=True)
            root = square_root(subject)
            if subject.single is None and root is None:
                out.add(Obligation(Need.NONZERO, subject, known=known))
                pending.append(term(common))
            else:
                pending += [term(common), root or subject]
            continue
        for a, _ in subject.single[0]:
            match a.form:
                case Base(q):
                    pending.append(q)
                case Exponential(argument):
                    out |= finite(term(argument))
                case Prime():
                    pass
                case _:
                    out.add(Obligation(Need.NONZERO, power_of(a), known=known))
    return frozenset(out)


def nonnegative(algebra: Reducer, p: Polynomial, *, known: bool = False) -> Obligations:
    """That ``p`` is not negative; its positive factors do not count."""
    number, common, rest = (1, (), p) if p.single is not None else algebra.content(p, whole=False)
    if p.single is not None:
        (common, number), rest = p.single, ONE
    kept = tuple((a, e) for a, e in common if factor_sign(a, e) is not Sign.POSITIVE)
    if number > 0 and rest == ONE and len(kept) == 1 and factor_sign(*kept[0]) is Sign.ANY:
        kept = ((kept[0][0], 1),)  # an odd power is negative where its base is
    subject = algebra.times(term(kept, 1 if number > 0 else -1), rest)
    return frozenset({Obligation(Need.NONNEGATIVE, subject, known=known)})


def finite(p: Polynomial) -> Obligations:
    """That no part of ``p`` is minus infinity."""
    if is_infinity(p):
        return frozenset({NOWHERE})
    return frozenset(Obligation(Need.FINITE, power_of(a)) for a in p.atoms if not a.finite)


def at_every_index(obligations: Obligations, axis: Axis) -> Obligations:
    """The obligations of a reduction over ``axis``, which is not empty, from those of its operand."""
    out: set[Obligation] = set()
    for o in obligations:
        depends = axis in o.subject.free or any(axis in a.free for a, _ in o.under)
        out.add(replace(o, bound=o.bound | {axis}) if depends else o)
    return frozenset(out)


def by_condition(algebra: Reducer, p: Polynomial, needed: Callable[[Polynomial], Obligations]) -> Obligations:
    """What is needed of a value: where its first condition holds, and where it does not."""
    c = p.conditions[0]
    then, otherwise = (needed(algebra.restricted(p, c, holds)) for holds in (True, False))
    both = then & otherwise
    return both | where_taken(algebra, then - both, c, True) | where_taken(algebra, otherwise - both, c, False)


def where_taken(algebra: Reducer, obligations: Obligations, condition: Atom, taken: bool) -> Obligations:
    """The obligations of a branch of ``where``."""
    out: set[Obligation] = set()
    for o in obligations:
        if (condition, not taken) in o.under:
            continue  # nowhere
        # The condition's axes are not those that the branch binds, even if they have their names.
        apart = _renamed_apart(algebra, o, condition.free)
        out.add(replace(apart, under=apart.under | {(condition, taken)}))
    return frozenset(out)


def _renamed_apart(algebra: Reducer, o: Obligation, taken: frozenset[Axis]) -> Obligation:
    used = taken | o.subject.free.union(*(a.free for a, _ in o.under))
    names: dict[Axis, Axis] = {}
    for axis in sorted(o.bound & taken):
        names[axis] = unused_copy(axis, used)
        used |= {names[axis]}
    if not names:
        return o
    under: set[tuple[Atom, bool]] = set()
    for a, holds in o.under:
        (renamed,) = algebra.rename(power_of(a), names).atoms
        under.add((renamed, holds))
    bound = frozenset(names.get(a, a) for a in o.bound)
    return replace(o, subject=algebra.rename(o.subject, names), bound=bound, under=frozenset(under))


# -------------------------------------------------------------------------------------------- deciding


class Domain:
    """Where a specification is defined, as facts to discharge a candidate's obligations by."""

    def __init__(self, algebra: Reducer, obligations: Obligations) -> None:
        self._algebra = algebra
        # Where a condition never holds the opposite is no condition.
        always = {(c, not h) for o in obligations if _is_never(o) for c, h in _only(o.under)}
        obligations = frozenset(replace(o, under=o.under - always) for o in obligations)
        self._facts = {self._closed(o, o.under) for o in obligations}
        self._totals: list[tuple[tuple[Axis, ...], Polynomial, Obligation]] = []
        self._nonzero: list[Polynomial] = []
        for o in obligations:
            if o.need is Need.NONZERO and len(o.subject) > 1 and not (o.bound or o.under):
                self._nonzero.append(o.subject)
            found = summand(o.subject) if o.need is Need.NONZERO else None
            if found is not None:
                self._totals.append((*found, o))

    def _closed(self, o: Obligation, under: Under) -> _Fact:
        """A key that does not depend on what bound axes are called, in the subject and in its guards alike."""
        parts = [power_of(atom(Applied("subject", o.subject)))]
        parts += [_guard(a, holds) for a, holds in under]
        together = self._algebra.sum(parts)
        return (o.need, *self._algebra.canonical(o.bound & together.free, together))

    def implies(self, o: Obligation) -> bool:
        """Whether the obligation holds wherever the specification is defined."""
        if o.known or self.shows(o) or self._given(o):
            return True
        match o.need:
            case Need.NONZERO:
                return self._divides_or_divided(o)
            case Need.NONNEGATIVE:
                return self._nonnegative_factors(o)
            case Need.FINITE:
                return self._finite(o)
            case _:
                return False

    def _divides_or_divided(self, o: Obligation) -> bool:
        """Whether the subject is a factor of something that is not 0, or a product of such things."""
        rest = o.subject
        if rest.single is not None or o.bound:
            return False
        for p in self._nonzero:
            if len(p) >= len(rest) and divide(p, rest) is not None:
                return True
            while len(rest) > 1 and (quotient := divide(rest, p)) is not None:
                rest = quotient
        needed = nonzero(self._algebra, rest) if len(rest) == 1 else ()
        return len(rest) == 1 and all(self.shows(n) or self._given(n) for n in needed)

    def _nonnegative_factors(self, o: Obligation) -> bool:
        """Whether the subject is a product of factors none of which is negative."""
        if o.subject.single is None:
            number, common, rest = self._algebra.content(o.subject, whole=True)
        else:
            (common, number), rest = o.subject.single, ONE
        if number < 0 or not common or (len(common) == 1 and rest == ONE):
            return False
        factors = [power_of(a, e if factor_sign(a, e) is not Sign.ANY else 1) for a, e in common]
        return all(self.implies(replace(o, subject=f)) for f in (*factors, rest))

    def _given(self, o: Obligation) -> bool:
        guards = sorted(o.under, key=lambda g: (g[0].digest, g[1]))
        sizes = range(len(guards) + 1) if len(guards) <= MAX_GUARDS else (0, len(guards))
        weaker = (frozenset(c) for n in sizes for c in combinations(guards, n))
        return any(
            self._closed(x, under) in self._facts for under in weaker for x in (o, replace(NOWHERE, bound=o.bound))
        )

    def shows(self, o: Obligation) -> bool:
        """Whether what is known of signs implies the obligation."""
        match o.need:
            case Need.NONZERO:
                opposite = Polynomial({m: -c for m, c in o.subject.terms.items()})
                return Sign.POSITIVE in (sign_of(o.subject), sign_of(opposite))
            case Need.NONNEGATIVE:
                return sign_of(o.subject) is not Sign.ANY
            case Need.FINITE:
                return o.subject.finite
            case _:
                return False

    def _finite(self, o: Obligation) -> bool:
        (a,) = o.subject.atoms
        match a.form:
            case Larger(operands):
                return any(self._all_finite(o, p.atoms) for p in operands)
            case Choice(_, then, otherwise):
                return self._all_finite(o, (*then.atoms, *otherwise.atoms))
            case Highest(bound, body):
                # A sum that is not 0 has an index where its summand is not 0.
                masks = [b for b in body.atoms if not b.finite]
                return any(
                    axes == bound
                    and all(_finite_where_counted(b, counted) for b in masks)
                    and _applies(fact, o, counted.free.difference(bound))
                    for axes, counted, fact in self._totals
                )
            case _:
                return False

    def _all_finite(self, o: Obligation, atoms: Iterable[Atom]) -> bool:
        return all(a.finite or self.implies(replace(o, subject=power_of(a))) for a in atoms)


def _is_never(o: Obligation) -> bool:
    """Whether an obligation says that its conditions do not hold, whatever axes are bound."""
    return o.need is Need.NONZERO and not o.subject and not o.bound


def _only(under: Under) -> Under:
    """The condition of what has just one."""
    return under if len(under) == 1 else frozenset()


def _guard(a: Atom, holds: bool) -> Polynomial:
    """A condition that holds, or does not, as a value that is not taken by cases."""
    assert isinstance(a.form, Choice)
    condition = a.form.condition
    left, right = atom(Applied("left", condition.left)), atom(Applied("right", condition.right))
    sides = Polynomial({((left, 1),): 1, ((right, 1),): 1})
    return power_of(atom(Applied(f"{condition.op} is {holds}", sides)))


def _applies(fact: Obligation, o: Obligation, axes: frozenset[Axis]) -> bool:
    """Whether a fact on something over these axes holds wherever an obligation on the same has to."""
    everywhere = axes.union(*(a.free for a, _ in fact.under)) & o.bound
    return fact.under <= o.under and everywhere <= fact.bound


def _finite_where_counted(a: Atom, counted: Polynomial) -> bool:
    """Whether an atom is finite at every index at which a summand is not 0.

    There one of its terms is not 0: the arguments of its exponentials are finite, and its masks are 1, so that pads of
    the same split are 0. A condition without which the summand is 0 holds.
    """
    if isinstance(a.form, Choice) and not is_indicator(a):
        c = indicator(a.form.condition)
        return all(
            not (rest := restricted_to(counted, c, holds))
            or all(b.finite or _finite_where_counted(b, rest) for b in branch.atoms)
            for holds, branch in ((True, a.form.then), (False, a.form.otherwise))
        )
    return all(_finite_where_not_zero(a, m) for m in counted.terms)


def _finite_where_not_zero(a: Atom, m: Monomial) -> bool:
    for b, e in m:
        match b.form, a.form:
            case Exponential(argument), _ if e > 0 and any(c is a for c, _ in argument):
                return True
            case Element(mask), Element(pad) if mask.axes == pad.axes:
                if mask.tensor.startswith(VALID) and pad.tensor == PAD + mask.tensor.removeprefix(VALID):
                    return True
            case _:
                pass
    return False
