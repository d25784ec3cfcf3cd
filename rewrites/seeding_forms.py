"""The transformations that make seeds: other forms of one node that need cancellation or distributivity.

Each function takes a node and yields other ways to compute it. They propose; the normal form decides
(``rewrites.seeds``). None knows a workload: each looks at terms, factors and the axes they depend on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rewrites.seeding_terms import (
    Term,
    additive,
    combined,
    distributed,
    multiplied_out,
    passes,
    shared,
    summed,
    term_of,
    terms_of,
    total,
)
from sgraph.axis import Axis
from sgraph.expr import REDUCTIONS, Expr, Op, exp, log, rebuild, reduction, sum_over, walk

# ----------------------------------------------------------------------------- additive factors under a sum


@dataclass(frozen=True)
class _Sum:
    """``front * sum(axes; inside)``: what depends on none of the axes stands in front."""

    axes: tuple[Axis, ...]
    inside: Term
    front: Term

    @classmethod
    def of(cls, node: Expr) -> _Sum:
        axes, operand = reduction(node)
        return cls(axes, *term_of(operand).split(frozenset(axes)))

    def rest(self, factor: Expr) -> Term:
        """What one additive factor is multiplied with under the sum."""
        return self.inside.over({factor: 1})

    def depends(self, term: Term) -> bool:
        """Whether a term varies over a summed axis."""
        return not term.free.isdisjoint(self.axes)

    def with_terms(self, terms: Iterable[Term]) -> Expr:
        """The front times the sum of each of these terms."""
        return self.front.times(term_of(total(summed(self.axes, t) for t in terms))).expression

    def parts(self, factor: Expr) -> tuple[Term, ...]:
        """An additive factor's terms, those that differ in summed factors only taken together.

        ``x + r - mean`` has two parts over the axis of the mean: ``x + r``, and the mean.
        """
        groups: dict[frozenset[tuple[Expr, int]], tuple[Term, list[Term]]] = {}
        for term in terms_of(factor):
            varying, fixed = term.split(frozenset(self.axes))
            scale = Term(Fraction(1), fixed.powers)
            _, members = groups.setdefault(scale.key, (scale, []))
            members.append(Term(fixed.coefficient, varying.powers))
        if len(groups) < 2:
            return terms_of(factor)
        return tuple(term_of(total(members)).times(scale) for scale, members in groups.values())

    def mixed(self, factor: Expr) -> bool:
        """Whether parts of an additive factor have different factors that do not vary over the axes."""
        scales = {Term(Fraction(1), t.split(frozenset(self.axes))[1].powers).key for t in terms_of(factor)}
        return len(scales) > 1


def one_level_expansion(node: Expr) -> Iterator[Expr]:
    """``sum(k, (a + b) * c)  ->  sum(k, a*c) + sum(k, b*c)``.

    Only if one of the products is less than the whole: it varies over fewer axes, or has a sum of its own.
    """
    if node.op is not Op.SUM:
        return
    this = _Sum.of(node)
    for factor in additive(this.inside):
        rest = this.rest(factor)
        if this.inside.powers[factor] > 1 or not this.depends(rest) or this.mixed(factor):
            continue
        products = distributed(this.inside, factor)
        own_sum = any(base.op is Op.SUM for term in terms_of(factor) for base in term.powers)
        if own_sum or any(p.free < this.inside.free for p in products):
            yield this.with_terms(products)


def folded_mean(node: Expr) -> Iterator[Expr]:
    """``sum(k, (x - mean) * w)  ->  sum(k, x*w) - mean * sum(k, w)``, for any part with a factor free of ``k``."""
    if node.op is not Op.SUM:
        return
    this = _Sum.of(node)
    centred = [f for f in additive(this.inside) if this.mixed(f)]
    if len(centred) != 1 or this.inside.powers[centred[0]] != 1:
        return  # two of them are a moment
    rest = this.rest(centred[0])
    if this.depends(rest):
        yield this.with_terms(part.times(rest) for part in this.parts(centred[0]))


def one_pass_moments(node: Expr) -> Iterator[Expr]:
    """``sum(k, (x - mean)^2)  ->  sum(k, x^2) - sum(k, x)^2 / |k|``, for any two factors that wait for a sum."""
    if node.op is not Op.SUM:
        return
    this = _Sum.of(node)
    centred = [f for f in additive(this.inside) if this.mixed(f)]
    for first, second in itertools.combinations_with_replacement(centred, 2):
        if first is second and this.inside.powers[first] < 2:
            continue
        rest = this.rest(first).over({second: 1})
        products = [a.times(b).times(rest) for a in this.parts(first) for b in this.parts(second)]
        moments = combined(summed(this.axes, p) for p in combined(products))
        # Horner's scheme: collected scales leave far fewer ways to regroup the sums.
        collected = _collected(moments, itertools.combinations(range(len(moments)), 2))
        form = this.front.times(term_of(next(collected, total(moments)))).expression
        if passes(form) < passes(node):
            yield form


# --------------------------------------------------------------------------------------------- common factors


def collected_factors(node: Expr) -> Iterator[Expr]:
    """``a*b + a*c  ->  a * (b + c)``."""
    if node.op is not Op.ADD:
        return
    terms = combined(terms_of(node))
    yield from _collected(terms, itertools.combinations(range(len(terms)), 2))


def _collected(terms: Sequence[Term], pairs: Iterable[tuple[int, int]]) -> Iterator[Expr]:
    """For each pair of terms with a common factor, the addition with that factor collected wherever it occurs."""
    seen: set[frozenset[tuple[Expr, int]]] = set()
    for i, j in pairs:
        common = Term(Fraction(1), shared(terms[i].powers, terms[j].powers))
        if not common.free or common.key in seen:
            continue
        seen.add(common.key)
        members = [n for n, t in enumerate(terms) if shared(t.powers, common.powers) == common.powers]
        inner = total(terms[n].over(common.powers) for n in members)
        others = [t for n, t in enumerate(terms) if n not in members]
        first = members[0]
        yield total([*others[:first], common.times(term_of(inner)), *others[first:]])


def merged_weights(node: Expr) -> Iterator[Expr]:
    """``sum(k, x*w) + sum(r, sum(k, x*a) * b)  ->  sum(k, x * (w + sum(r, a*b)))``."""
    if node.op is not Op.ADD:
        return
    terms = combined(terms_of(node))
    opened = [_openings(t) for t in terms]
    for i, j in itertools.combinations(range(len(terms)), 2):
        for first, second in itertools.product(opened[i], opened[j]):
            axes = tuple(a for a in first.axes if a in second.axes)
            common = Term(Fraction(1), shared(first.inside.powers, second.inside.powers))
            if common.free.isdisjoint(axes):
                continue
            members = {n: m for n, options in enumerate(opened) for m in options if _merges(m, axes, common)}
            if not {i, j} <= members.keys():
                continue
            inner = total(m.remainder(axes, common) for m in members.values())
            merged = term_of(sum_over(axes, common.times(term_of(inner)).expression))
            form = total([merged, *(t for n, t in enumerate(terms) if n not in members)])
            # Weights are shared along an axis of what they weigh; anything else must at least not wait longer.
            if not common.free <= inner.free or passes(form) <= passes(node):
                yield form


@dataclass(frozen=True)
class _Opened:
    """A term with some of its sums in front: ``sum(axes; inside)``."""

    axes: tuple[Axis, ...]
    inside: Term

    def remainder(self, axes: tuple[Axis, ...], common: Term) -> Term:
        """What the common factor is multiplied with under a sum over the common axes."""
        rest = self.inside.over(common.powers)
        for axis in self.axes:
            if axis not in axes:
                rest = summed((axis,), rest)
        return rest


def _merges(opened: _Opened, axes: tuple[Axis, ...], common: Term) -> bool:
    others = [a for a in opened.axes if a not in axes]
    has_factor = shared(opened.inside.powers, common.powers) == common.powers
    return has_factor and set(axes) <= set(opened.axes) and common.free.isdisjoint(others)


def _openings(term: Term) -> tuple[_Opened, ...]:
    """A term with its sums of products moved to the front, once for each sum that can be the first to move."""
    first = [b for b, n in term.powers.items() if n == 1 and b.op is Op.SUM]
    found: dict[frozenset[tuple[Expr, int]], _Opened] = {}
    for base in first:
        opened = _Opened((), term)
        agenda = [base, *(b for b in first if b is not base)]
        while agenda:
            candidate = agenda.pop(0)
            axes, operand = reduction(candidate)
            rest = opened.inside.over({candidate: 1})
            # Moving the sum outwards must not capture an axis of the other factors.
            if len(set(axes)) < len(axes) or not rest.free.isdisjoint(axes) or not set(opened.axes).isdisjoint(axes):
                continue
            inside = term_of(operand)
            opened = _Opened((*opened.axes, *axes), rest.times(inside))
            agenda = [b for b, n in inside.powers.items() if n == 1 and b.op is Op.SUM] + agenda
        if opened.axes:
            found.setdefault(opened.inside.key, opened)
    return tuple(found.values())


def interpolation(node: Expr) -> Iterator[Expr]:
    """``h + a*(n - h)  <->  (1 - a)*h + a*n``: one product multiplied out, and another factor collected."""
    if node.op is not Op.ADD:
        return
    terms = combined(terms_of(node))
    for position, term in enumerate(terms):
        others = terms[:position] + terms[position + 1 :]
        for factor in additive(term):
            new = distributed(term, factor)
            spread = [*others[:position], *new, *others[position:]]
            pairs = [
                (i, j)
                for i in range(position, position + len(new))
                for j in range(len(spread))
                if not position <= j < position + len(new)
                # A factor that all the new terms have would only put them together again.
                and not all(shared(spread[i].powers, spread[j].powers).items() <= n.powers.items() for n in new)
            ]
            yield from _collected(spread, pairs)


# ---------------------------------------------------------------------------------------------- exponentials


def unshifted_exponentials(node: Expr) -> Iterator[Expr]:
    """``exp(x - max) / sum(k, exp(x - max))  ->  exp(x) / sum(k, exp(x))``, for any shift that waits for a pass."""
    if node.op is Op.MUL and any(n < 0 for n in term_of(node).powers.values()):
        candidates = (_without_shift(node, shift) for shift in _shifts(node))
    elif node.op is Op.ADD:
        candidates = _unshifted_logarithms(node)
    else:
        return
    for form in candidates:
        if passes(form) < passes(node):
            yield form


def _unshifted_logarithms(node: Expr) -> Iterator[Expr]:
    """``x - max - log(sum(k, exp(x - max)))  ->  x - log(sum(k, exp(x)))``."""
    terms = terms_of(node)
    for position, term in enumerate(terms):
        match list(term.powers.items()):
            case [(base, 1)] if base.op is Op.LOG:
                for shift in _shifts(base):
                    inner = term_of(log(_without_shift(base.args[0], shift)))
                    new = [replace(t, coefficient=t.coefficient * term.coefficient) for t in (inner, shift)]
                    yield total([*terms[:position], *new, *terms[position + 1 :]])
            case _:
                pass


def _shifts(root: Expr) -> tuple[Term, ...]:
    """Terms of exponents that hold a reduction and vary over fewer axes than their exponent."""
    found: dict[tuple[object, ...], Term] = {}
    for node in walk([root]):
        if node.op is Op.EXP:
            for term in multiplied_out(node.args[0]):
                waits = any(part.op in REDUCTIONS for part in walk(term.powers))
                if waits and term.free < node.free:
                    found.setdefault((term.coefficient, term.key), term)
    return tuple(found.values())


def _without_shift(root: Expr, shift: Term) -> Expr:
    """The expression with a term left out of every exponent that has it."""
    replacements: dict[Expr, Expr] = {}
    for node in walk([root]):
        if node.op is Op.EXP:
            terms = multiplied_out(node.args[0])
            kept = [t for t in terms if (t.coefficient, t.key) != (shift.coefficient, shift.key)]
            if kept and len(kept) < len(terms):
                replacements[node] = exp(total(kept))
    return rebuild(root, replacements)
