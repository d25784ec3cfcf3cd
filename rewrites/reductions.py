"""Sums and maxima over bound axes in the normal form, and the canonical choice of what bound axes are called.

A sum distributes over its terms; of each term, factors that do not depend on the axis leave, sums inside join, and
what is left falls apart into connected components. A maximum works likewise with ``+`` in the place of ``*``.
Two bound axes of one name are interchangeable copies. So that equal reductions become one atom, copies are ordered
by what they index: colours are refined by occurrence until they tell the copies apart (as in canonical labelling of
graphs), and where they do not, every choice is tried and the least result taken.

An atom of a tile split (``k.cell``, ``k.step``, ``k.lane``) is an axis of its own here, of unknown extent: renaming
a bound one alone is sound, because a mask is a function of its atoms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import partial
from typing import Final, Self, TypeVar

from rewrites.atoms import (
    ZERO,
    Applied,
    Atom,
    Base,
    Choice,
    Element,
    Exponential,
    Form,
    Highest,
    Larger,
    Length,
    Logarithm,
    Monomial,
    Number,
    Polynomial,
    Position,
    Total,
    atom,
    axis_text,
    covers_split,
    free_axes,
    is_valid,
    monomial,
    power_of,
    term,
)
from rewrites.conditions import values_of
from rewrites.pointwise import EVEN_CALLS, ODD_CALLS, Pointwise, common_addend, positive_content, positive_multiple
from rewrites.polynomial import MAX_POWER, GaveUp, rational_content
from sgraph.axis import Axis, ordered
from sgraph.expr import Sign, nonempty, unused_copy

MAX_CHOICES: Final = 120
"""Orders of interchangeable bound axes that are tried."""

T = TypeVar("T")
Renaming = Mapping[Axis, Axis]
Colours = Mapping[Axis, bytes]


class Reducer(Pointwise):
    """The algebra with reductions over bound axes."""

    def __init__(self, nonnegative: frozenset[Polynomial] = frozenset()) -> None:
        super().__init__(nonnegative)
        self._renamed: dict[tuple[Atom, frozenset[tuple[Axis, Axis]]], Polynomial] = {}
        self._shapes: dict[tuple[Atom, frozenset[tuple[Axis, bytes]]], bytes] = {}
        self._canonical: dict[tuple[frozenset[Axis], Polynomial], tuple[tuple[Axis, ...], Polynomial]] = {}

    def copy(self) -> Self:
        """An algebra with the same memory, and as much of its budget left."""
        made = super().copy()
        made._renamed, made._shapes, made._canonical = dict(self._renamed), dict(self._shapes), dict(self._canonical)
        return made

    # --------------------------------------------------------------------------------------------- sums

    def sum_over(self, bound: Iterable[Axis], p: Polynomial) -> Polynomial:
        """The sum over bound axes."""
        axes = frozenset(bound)
        return self.sum(self.scale(self._sum_of_monomial(axes, m), c) for m, c in p.terms.items())

    def _sum_of_monomial(self, bound: frozenset[Axis], m: Monomial) -> Polynomial:
        outside = tuple(t for t in m if t[0].free.isdisjoint(bound))
        inside = tuple(t for t in m if not t[0].free.isdisjoint(bound))
        axes, body = self._opened(bound, inside)
        total = self._sum_of_factors(axes, inside) if body is None else self.sum_over(axes, body)
        return self.times(term(outside), total)

    def _opened(self, bound: frozenset[Axis], m: Monomial) -> tuple[frozenset[Axis], Polynomial | None]:
        """Sums among the factors merged into the sum outside; None for a body in which there are none."""
        plain: dict[Atom, Number] = {}
        bodies: list[Polynomial] = []
        used = set(bound) | free_axes(m)
        axes = set(bound)
        for a, e in m:
            if not isinstance(a.form, Total) or e.denominator != 1 or e < 0:
                plain[a] = e
                continue
            if e > MAX_POWER:
                raise GaveUp(f"power {e} of a sum inside a sum")
            for _ in range(int(e)):
                inner, body = self._freshened(a.form.bound, term(a.form.body), used)
                axes |= set(inner)
                used |= set(inner)
                bodies.append(body)
        if not bodies:
            return bound, None
        return frozenset(axes), self.product([term(monomial(plain)), *bodies])

    def _freshened(
        self, bound: Iterable[Axis], body: Polynomial, used: set[Axis]
    ) -> tuple[tuple[Axis, ...], Polynomial]:
        """A bound body with its bound axes renamed out of the way."""
        names: dict[Axis, Axis] = {}
        taken = used | body.free
        for axis in bound:
            if axis in used:
                names[axis] = unused_copy(axis, taken)
                taken = taken | {names[axis]}
        return tuple(names.get(a, a) for a in bound), self.rename(body, names)

    def _sum_of_factors(self, bound: frozenset[Axis], m: Monomial) -> Polynomial:
        """A product of one sum per connected component; every factor depends on a bound axis."""
        parts = [self._vacuous_sum(a) for a in ordered(bound - free_axes(m))]
        pieces = [(a.free & bound, (a, e)) for a, e in m]
        for axes, factors in _components(pieces):
            parts.append(self._total(axes, monomial(dict(factors))))
        return self.product(parts)

    def _vacuous_sum(self, axis: Axis) -> Polynomial:
        if not axis.level:
            return power_of(atom(Length(axis.base)))
        # How many cells, steps or lanes there are is unknown; it is a number of its own.
        return power_of(self.new(Total((axis.renamed(0),), ())))

    def _total(self, bound: frozenset[Axis], m: Monomial) -> Polynomial:
        match m:
            case ((mask, 1),) if is_valid(mask) and mask.free == bound and covers_split(bound, bound):
                return power_of(atom(Length(min(bound).base)))
            case _:
                axes, body = self.canonical(bound, term(m))
                return self.sum(self.scale(power_of(self.new(Total(axes, n))), c) for n, c in body.terms.items())

    # ------------------------------------------------------------------------------------------- maxima

    def max_over(self, bound: Iterable[Axis], p: Polynomial) -> Polynomial:
        """The maximum over bound axes; of an empty one, minus infinity."""
        axes = frozenset(bound)
        outer = [c for c in p.conditions if c.free.isdisjoint(axes)]
        if outer:
            return self.split(outer[0], partial(self.max_over, axes), p)
        if p.conditions and not p.finite:
            shared, number, p = self._tree_content(axes, p)
            highest = self._highest_of(axes, p)
            return self.add(shared, self.times(number, highest))
        return self._highest_of(axes, p)

    def _tree_content(self, bound: frozenset[Axis], p: Polynomial) -> tuple[Polynomial, Polynomial, Polynomial]:
        """What the values of a tree have in common and does not vary over bound axes: an addend, a positive factor."""
        values = values_of(p)
        free = [Polynomial({m: c for m, c in v.terms.items() if free_axes(m).isdisjoint(bound)}) for v in values]
        shared = common_addend(free) if values else ZERO
        shared = shared if shared.finite else ZERO
        p = self.mapped(p, lambda v: self.subtract(v, shared))
        number, common = positive_content(values_of(p))
        kept = {a: e for a, e in common.items() if a.free.isdisjoint(bound)}
        factor = self.assemble(kept, number)
        inverse = self.assemble({a: -e for a, e in kept.items()}, Fraction(1) / number)
        return shared, factor, self.mapped(p, lambda v: self.times(v, inverse))

    def _highest_of(self, axes: frozenset[Axis], p: Polynomial) -> Polynomial:
        inside = Polynomial({m: c for m, c in p.terms.items() if not free_axes(m).isdisjoint(axes)})
        outside = Polynomial({m: c for m, c in p.terms.items() if free_axes(m).isdisjoint(axes)})
        axes, inside = self._opened_max(axes, inside)
        return self.add(outside, self._max_of_terms(axes, inside))

    def _opened_max(self, bound: frozenset[Axis], p: Polynomial) -> tuple[frozenset[Axis], Polynomial]:
        """Maxima among the terms merged into the maximum outside."""
        axes, used = set(bound), set(bound) | p.free
        parts: list[Polynomial] = []
        for m, c in p.ordered:
            found = positive_multiple(m, c, Highest)
            if found is None:
                parts.append(term(m, c))
                continue
            form, rest = found
            assert isinstance(form, Highest)
            names, body = self._freshened(form.bound, form.body, used)
            axes |= set(names)
            used |= set(names)
            parts.append(self.times(body, rest))
        return frozenset(axes), self.sum(parts)

    def _max_of_terms(self, bound: frozenset[Axis], p: Polynomial) -> Polynomial:
        smallest = self._smallest_inside(bound, p)
        if smallest is not None:
            return smallest
        choice = self._choice_inside(p)
        if choice is not None:
            return self.larger(self.max_over(bound, q) for q in choice)
        parts: list[Polynomial] = []
        for axis in ordered(bound - p.free):
            if nonempty(axis):
                self.notes.add(("is not empty", axis))
            else:
                parts.append(power_of(self.new(Highest((axis.renamed(0),), ZERO))))
        parts.append(Polynomial({m: c for m, c in p.terms.items() if free_axes(m).isdisjoint(bound)}))
        pieces = [(free_axes(m) & bound, (m, c)) for m, c in p.terms.items() if free_axes(m) & bound]
        for axes, terms in _components(pieces):
            parts.append(self._highest(axes, Polynomial(dict(terms))))
        return self.sum(parts)

    def _smallest_inside(self, bound: frozenset[Axis], p: Polynomial) -> Polynomial | None:
        """``max(k, min(z, x_k))`` as ``min(z, max(k, x_k))`` for what does not vary over the axes, if it is one."""
        match p.single:
            case (m, c) if (found := positive_multiple(m, -c, Larger)) is not None and p.finite:
                form, scale = found
                assert isinstance(form, Larger)
            case _:
                return None
        operands = [self.times(q, scale) for q in form.operands]
        outside = [q for q in operands if q.free.isdisjoint(bound)]
        inside = [q for q in operands if not q.free.isdisjoint(bound)]
        if not outside or not inside or not all(map(nonempty, bound)):
            return None
        highest = self.max_over(bound, self.scale(self.larger(inside), -1))
        return self.scale(self.larger([*outside, self.scale(highest, -1)]), -1)

    def _choice_inside(self, p: Polynomial) -> list[Polynomial] | None:
        """Operands of the only largest-of term, with the other terms added: maxima go inside of it."""
        found = [(m, c, f) for m, c in p.terms.items() if (f := positive_multiple(m, c, Larger)) is not None]
        if len(found) != 1:
            return None
        ((m, c, (choice, scale)),) = found
        assert isinstance(choice, Larger)
        rest = self.subtract(p, term(m, c))
        return [self.add(rest, self.times(q, scale)) for q in choice.operands]

    def _highest(self, bound: frozenset[Axis], p: Polynomial) -> Polynomial:
        common = _positive_factors(p, bound)
        if common:
            self.note_factors(monomial(common))
            inner = self.times(p, self.assemble({a: -e for a, e in common.items()}))
            return self.times(self.assemble(common), self.max_over(bound, inner))
        number = rational_content(p)
        axes, body = self.canonical(bound, self.scale(p, Fraction(1) / number))
        return self.scale(power_of(self.new(Highest(axes, body))), number)

    # ----------------------------------------------------------------------------------------- renaming

    def rename(self, p: Polynomial, names: Renaming) -> Polynomial:
        """``p`` with free axes renamed, all at once; no two of its axes may become one."""
        relevant = {a: b for a, b in names.items() if a in p.free and a != b}
        if not relevant:
            return p
        return self.sum(self.scale(self._rename_monomial(m, relevant), c) for m, c in p.terms.items())

    def _rename_monomial(self, m: Monomial, names: Renaming) -> Polynomial:
        self.spend(len(m))
        exponents: dict[Atom, Number] = {}
        others: list[Polynomial] = []
        for a, e in m:
            if isinstance(a.form, Base):
                others.append(self.power(self.rename(a.form.polynomial, names), e))
                continue
            renamed = self._rename_atom(a, names)
            match renamed.single:
                case (((b, 1),), 1):
                    exponents[b] = exponents.get(b, 0) + e
                case _:
                    others.append(self.power(renamed, e))
        return self.product([self.assemble(exponents), *others])

    def _rename_atom(self, a: Atom, names: Renaming) -> Polynomial:
        relevant = {x: y for x, y in names.items() if x in a.free}
        if not relevant:
            return power_of(a)
        key = (a, frozenset(relevant.items()))
        found = self._renamed.get(key)
        if found is None:
            found = self._renamed[key] = self._rename_form(a.form, relevant)
        return found

    def _rename_form(self, form: Form, names: Renaming) -> Polynomial:
        match form:
            case Element(read):
                axes = tuple(names.get(x, x) for x in read.axes)
                return power_of(atom(Element(type(read)(read.tensor, axes, read.finite))))
            case Position(axis):
                return power_of(atom(Position(names.get(axis, axis))))
            case Exponential(argument):
                return self.exp(self.rename(term(argument), names))
            case Logarithm(argument):
                return self.log(self.rename(argument, names))
            case Applied(function, argument):
                return self.call(function, self.rename(argument, names))
            case Larger(operands):
                return self.larger(self.rename(p, names) for p in operands)
            case Choice(condition, then, otherwise):
                left, right = self.rename(condition.left, names), self.rename(condition.right, names)
                compared = self.compared(condition.op, left, right)
                return self.where(compared, self.rename(then, names), self.rename(otherwise, names))
            case Total(bound, body):
                axes, inner = self._rename_bound(bound, term(body), names)
                return self.sum_over(axes, inner)
            case Highest(bound, body):
                axes, inner = self._rename_bound(bound, body, names)
                return self.max_over(axes, inner)
            case _:
                raise AssertionError(f"{form} has no axes")

    def _rename_bound(
        self, bound: tuple[Axis, ...], body: Polynomial, names: Renaming
    ) -> tuple[tuple[Axis, ...], Polynomial]:
        axes, inner = self._freshened(bound, body, set(names.values()))
        return axes, self.rename(inner, names)

    # --------------------------------------------------------------------------------- canonical bound axes

    def canonical(self, bound: frozenset[Axis], body: Polynomial) -> tuple[tuple[Axis, ...], Polynomial]:
        """The body with its bound axes under canonical names, and these names in order."""
        key = (bound, body)
        found = self._canonical.get(key)
        if found is None:
            found = self._canonical[key] = self._canonically_named(bound, body)
        return found

    def _canonically_named(self, bound: frozenset[Axis], body: Polynomial) -> tuple[tuple[Axis, ...], Polynomial]:
        taken = body.free - bound
        kinds: dict[tuple[str, str], list[Axis]] = {}
        for axis in ordered(bound):
            kinds.setdefault((axis.name, axis.level), []).append(axis)
        targets: dict[Axis, list[Axis]] = {}
        for members in kinds.values():
            free: list[Axis] = []
            while len(free) < len(members):
                free.append(unused_copy(members[0], taken | set(free)))
            targets |= dict.fromkeys(members, free)
        colours = {a: f"{a.name}.{a.level}".encode() for a in bound}
        tied = [a for members in kinds.values() if len(members) > 1 for a in members]
        best: tuple[tuple[object, ...], Polynomial] | None = None
        for order in self._orders(body, colours, tied):
            names: dict[Axis, Axis] = {}
            for members in kinds.values():
                names |= dict(zip(sorted(members, key=order.__getitem__), targets[members[0]], strict=True))
            renamed = self.rename(body, names)
            if best is None or renamed.key < best[0]:
                best = (renamed.key, renamed)
        assert best is not None
        return ordered({t for ts in targets.values() for t in ts}), best[1]

    def _orders(self, body: Polynomial, colours: Colours, tied: list[Axis]) -> list[Colours]:
        """Colourings that tell all tied axes apart, one per choice that the structure leaves open."""
        pending = [self._refined(body, colours, tied)]
        done: list[Colours] = []
        while pending:
            if len(pending) + len(done) > MAX_CHOICES:
                raise GaveUp(f"more than {MAX_CHOICES} orders of interchangeable bound axes")
            current = pending.pop()
            cell = _first_tie(current, tied)
            if not cell:
                done.append(current)
                continue
            for axis in self._representatives(body, cell):
                marked = dict(current) | {axis: current[axis] + b"!"}
                pending.append(self._refined(body, marked, tied))
        return done

    def _representatives(self, body: Polynomial, cell: list[Axis]) -> list[Axis]:
        """Members of a cell without those that trade places with an earlier one and change nothing."""
        kept: list[Axis] = []
        for axis in cell:
            if not any(self.rename(body, {axis: other, other: axis}) == body for other in kept):
                kept.append(axis)
        return kept

    def _refined(self, body: Polynomial, colours: Colours, tied: list[Axis]) -> Colours:
        current = dict(colours)
        while True:
            before = len({current[a] for a in tied})
            if before == len(tied):
                return current
            seen = {a: self._shape(body, {**current, a: current[a] + b"*"}) for a in tied}
            current |= {a: _hash(current[a], seen[a]) for a in tied}
            if len({current[a] for a in tied}) == before:
                return current

    # ------------------------------------------------------------------------------------------- shapes

    def _shape(self, p: Polynomial, colours: Colours) -> bytes:
        """A digest of a polynomial in which coloured axes count by colour alone."""
        parts = [_hash(str(c).encode(), self._shape_of_monomial(m, colours)) for m, c in p.terms.items()]
        return _hash(*sorted(parts))

    def _unsigned_shape(self, p: Polynomial, colours: Colours) -> bytes:
        opposite = Polynomial({m: -c for m, c in p.terms.items()})
        return min(self._shape(p, colours), self._shape(opposite, colours))

    def _shape_of_monomial(self, m: Monomial, colours: Colours) -> bytes:
        self.spend(len(m))
        return _hash(*sorted(_hash(self._shape_of_atom(a, colours), str(e).encode()) for a, e in m))

    def _shape_of_atom(self, a: Atom, colours: Colours) -> bytes:
        relevant = {x: c for x, c in colours.items() if x in a.free}
        if not relevant:
            return a.digest
        key = (a, frozenset(relevant.items()))
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = _hash(type(a.form).__name__.encode(), *self._shape_parts(a.form, relevant))
        return found

    def _shape_parts(self, form: Form, colours: Colours) -> list[bytes]:
        match form:
            case Element(read):
                return [read.tensor.encode(), *(colours.get(x, axis_text(x).encode()) for x in read.axes)]
            case Position(axis):
                return [colours.get(axis, axis_text(axis).encode())]
            case Exponential(argument):
                return [self._shape_of_monomial(argument, colours)]
            case Applied(function, argument) if function in ODD_CALLS | EVEN_CALLS:
                return [function.encode(), self._unsigned_shape(argument, colours)]
            case Applied(function, argument):
                return [function.encode(), self._shape(argument, colours)]
            case Logarithm(argument):
                return [self._shape(argument, colours)]
            case Base(p):
                return [self._unsigned_shape(p, colours)]
            case Larger(operands):
                return sorted(self._shape(p, colours) for p in operands)
            case Choice(condition, then, otherwise):
                compared = (self._unsigned_shape(p, colours) for p in (condition.left, condition.right))
                return [condition.op.encode(), *compared, *(self._shape(p, colours) for p in (then, otherwise))]
            case Total(bound, body):
                return [self._shape_of_monomial(body, _inner(colours, bound))]
            case Highest(bound, body):
                return [self._shape(body, _inner(colours, bound))]
            case _:
                raise AssertionError(f"{form} has no axes")


# ---------------------------------------------------------------------------------------------- helpers


def _components(pieces: list[tuple[frozenset[Axis], T]]) -> list[tuple[frozenset[Axis], list[T]]]:
    """Pieces that share axes, directly or through others, together."""
    groups: list[tuple[frozenset[Axis], list[T]]] = []
    for axes, piece in pieces:
        joined, members = axes, [piece]
        apart: list[tuple[frozenset[Axis], list[T]]] = []
        for group in groups:
            if group[0].isdisjoint(axes):
                apart.append(group)
            else:
                joined, members = joined | group[0], group[1] + members
        groups = [*apart, (joined, members)]
    return groups


def _positive_factors(p: Polynomial, bound: frozenset[Axis]) -> dict[Atom, Number]:
    """Powers of positive atoms that are free of the bound axes and common to all terms."""
    out: dict[Atom, Number] = {}
    for a in p.atoms:
        if a.sign is Sign.POSITIVE and a.free.isdisjoint(bound):
            exponents = [dict(m).get(a, 0) for m in p.terms]
            if min(exponents):
                out[a] = min(exponents)
    return out


def _first_tie(colours: Colours, tied: list[Axis]) -> list[Axis]:
    """The members of the first colour that several tied axes have."""
    cells: dict[bytes, list[Axis]] = {}
    for axis in tied:
        cells.setdefault(colours[axis], []).append(axis)
    return min(((c, m) for c, m in cells.items() if len(m) > 1), default=(b"", []))[1]


def _inner(colours: Colours, bound: Iterable[Axis]) -> Colours:
    """Colours inside a binder: its own axes count by name and level only."""
    return {**colours, **{b: f"bound {b.name}.{b.level}".encode() for b in bound}}


def _hash(*parts: bytes) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(4, "little"))
        state.update(part)
    return state.digest()
