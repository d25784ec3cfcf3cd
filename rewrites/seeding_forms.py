"""The transformations that make seeds: general forms of one node that need cancellation or distributivity.

Each function takes a node and yields other ways to compute it. They propose; the normal form decides
(``rewrites.seeds``). None knows a workload: each looks at terms, factors and which axes they depend on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rewrites.seeding_terms import (
    ONE,
    Term,
    additive,
    combined,
    distributed,
    passes,
    shared,
    summed,
    term_of,
    terms_of,
    total,
)
from sgraph.axis import Axis
from sgraph.expr import REDUCTIONS, Expr, Op, exp, log, rebuild, reduction, walk

# ------------------------------------------------------------------------------------- products under a sum


@dataclass(frozen=True)
class _Product:
    """``sum(axes; additive factors and others)``, with what does not depend on the axes in front."""

    axes: tuple[Axis, ...]
    front: Term
    inside: Term

    @property
    def over(self) -> frozenset[Axis]:
        """The axes as a set."""
        return frozenset(self.axes)

    def of(self, terms: Iterable[Term]) -> Expr:
        """The front times the sums of these terms, each with what leaves its sum."""
        value = total(summed(self.axes, t) for t in terms)
        return Term(Fraction(1), self.front.powers).times(term_of(value)).expression if self.plain else self.scaled(value)

    @property
    def plain(self) -> bool:
        """Whether the front has no coefficient."""
        return self.front.coefficient == 1

    def scaled(self, value: Expr) -> Expr:
        """The front, coefficient included, times a value."""
        return self.front.times(term_of(value)).expression
