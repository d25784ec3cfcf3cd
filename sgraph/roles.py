"""Roles: every useful assignment of grid, loop, whole and split to the axes of a kernel."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sgraph.axis import Axis, largest
from sgraph.expr import REDUCTIONS, Expr, reduction, walk
from sgraph.ir import Kernel, Role
from sgraph.schedule import Schedule
from sgraph.stages import Unschedulable, derive

MAX_RESIDENT: Final = 65_536
"""Longest axis that is offered the role ``whole``: a tile of one row of it fills the registers of a program."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A kernel with its roles, and the schedule that follows from them."""

    kernel: Kernel
    schedule: Schedule


def assignments(kernel: Kernel) -> tuple[tuple[Mapped, ...], Mapping[str, int]]:
    """Every role assignment of a kernel that has a schedule, and the others counted by reason."""
    facts = _Facts.of(kernel)
    options = _options(kernel, facts)
    found: list[Mapped] = []
    dropped: Counter[str] = Counter()
    for choice in itertools.product(*options.values()):
        roles = dict(zip(options, choice, strict=True))
        if choice.count(Role.SPLIT) > 1 or any(facts.one_trip(a, roles) for a in roles):
            continue
        decided = replace(kernel, roles=tuple(roles.items()))
        try:
            found.append(Mapped(decided, derive(decided)))
        except Unschedulable as reason:
            dropped[str(reason)] += 1
    return tuple(found), dropped


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the reductions of a kernel say about its axes."""

    reduced: frozenset[Axis]
    """Axes that some reduction binds."""
    stored: frozenset[Axis]
    """Axes that some stored tensor has."""
    again: frozenset[Axis]
    """Axes that a second reduction, or a store, visits after one has finished."""
    results: tuple[tuple[frozenset[Axis], frozenset[Axis]], ...]
    """Per reduction: the axes it binds and those its result varies over."""

    @staticmethod
    def of(kernel: Kernel) -> _Facts:
        nodes = list(walk(s.value for s in kernel.stores))
        stored = frozenset(a for s in kernel.stores for a in s.tensor.named_axes)
        results = tuple((frozenset(reduction(n)[0]), n.free) for n in nodes if n.op in REDUCTIONS)
        reduced = frozenset(a for axes, _ in results for a in axes)
        depth: dict[Expr, dict[Axis, int]] = {}
        again = set(reduced & stored)
        for node in nodes:
            below: dict[Axis, int] = {}
            for argument in node.args:
                for axis, count in depth[argument].items():
                    below[axis] = max(below.get(axis, 0), count)
            if node.op in REDUCTIONS:
                below[node.axis] = below.get(node.axis, 0) + 1
            again |= {a for a, count in below.items() if count > 1}
            depth[node] = below
        return _Facts(reduced, stored, frozenset(again), results)

    def one_trip(self, axis: Axis, roles: Mapping[Axis, Role]) -> bool:
        """Whether holding a reduced axis is no more than looping over it in one trip.

        It is more where the axis is visited again, where a reduction over it runs inside another loop, or
        where it would enclose the loop of another reduction.
        """
        if roles[axis] is not Role.WHOLE or axis in self.again or axis not in self.reduced:
            return False

        def looped(axes: frozenset[Axis]) -> bool:
            return any(roles[a] in {Role.LOOP, Role.SPLIT} for a in axes)

        inside = any(axis in bound and looped(free) for bound, free in self.results)
        encloses = any(axis in free and looped(bound) for bound, free in self.results)
        return not inside and not encloses


def _options(kernel: Kernel, facts: _Facts) -> dict[Axis, tuple[Role, ...]]:
    """The roles worth trying for each axis.

    An axis that every store has and nothing reduces is tiled over the grid: holding all of it is the same with
    one tile. A reduced axis is looped over, held, or, if no store has it, split.
    """
    in_all = frozenset.intersection(*(frozenset(s.tensor.named_axes) for s in kernel.stores))
    options: dict[Axis, tuple[Role, ...]] = {}
    for axis in kernel.axes:
        whole = (Role.WHOLE,) if largest(axis.extent) <= MAX_RESIDENT else ()
        if axis not in facts.reduced:
            options[axis] = (Role.GRID,) if axis in in_all else (Role.LOOP, *whole)
        elif axis in facts.stored:
            options[axis] = (Role.LOOP, *whole)
        else:
            options[axis] = (Role.LOOP, Role.SPLIT, *whole)
    return options
