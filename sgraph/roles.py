"""Roles: every useful assignment of grid, loop, whole and split to the axes of a kernel."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sgraph.axis import Axis, largest, ordered
from sgraph.dags import tops
from sgraph.expr import REDUCTIONS, Expr, reduction, walk
from sgraph.ir import Kernel, Role
from sgraph.schedule import Schedule
from sgraph.stages import Unschedulable, derive

MAX_RESIDENT: Final = 65_536
"""Longest axis that is offered the role ``whole``: a tile of one row of it fills the registers of a program."""
MAX_ASSIGNMENTS: Final = 3000
"""Role assignments of one kernel that are tried. A limit, not a proof: what it cuts is counted."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A kernel with its roles, and the schedule that follows from them."""

    kernel: Kernel
    schedule: Schedule


def assignments(kernel: Kernel, most: int = MAX_ASSIGNMENTS) -> tuple[tuple[Mapped, ...], Mapping[str, int]]:
    """Every role assignment of a kernel that has a schedule, and the others counted by reason.

    Where there are more than ``most``, those go first in which axes of the same reductions have one role.
    """
    facts = _Facts.of(kernel)
    options = _options(kernel, facts)
    dropped: Counter[str] = Counter()
    long = [a for a in kernel.axes if Role.WHOLE not in options[a] and a in facts.reduced]
    dropped["limit: axis too long to be held"] += len(long)
    possible = math.prod(map(len, options.values()))
    single = [c for c in _products(options, facts, most) if c.count(Role.SPLIT) <= 1]
    dropped["limit: more than one split axis"] += min(possible, MAX_ASSIGNMENTS) - len(single)
    listed = single[:most]
    dropped["limit: role assignments"] += max(0, possible - MAX_ASSIGNMENTS) + len(single) - len(listed)
    found: dict[tuple[Role, ...], Mapped | None] = {}
    # Fewest held axes first: what holding an axis is the same as has then been looked at.
    for choice in sorted(listed, key=lambda c: c.count(Role.WHOLE)):
        if any(c in found for c in _same_with_one_trip(choice, tuple(options), facts)):
            found[choice] = None
        else:
            decided = replace(kernel, roles=tuple(zip(options, choice, strict=True)))
            try:
                found[choice] = Mapped(decided, derive(decided))
            except Unschedulable as reason:
                dropped[str(reason)] += 1
    in_order = (found.get(choice) for choice in listed)
    return tuple(m for m in in_order if m is not None), +dropped


def _products(options: Mapping[Axis, tuple[Role, ...]], facts: _Facts, most: int) -> list[tuple[Role, ...]]:
    """Choices of one role per axis, in order; if there are too many, first those that treat like axes alike."""
    found = list(itertools.islice(itertools.product(*options.values()), MAX_ASSIGNMENTS))
    if len(found) <= most:
        return found
    groups: dict[object, list[int]] = {}
    for i, axis in enumerate(options):
        taken = tuple((axis in bound, axis in free) for bound, free in facts.results)
        groups.setdefault((taken, axis in facts.stored), []).append(i)
    return sorted(found, key=lambda choice: sum(len({choice[i] for i in group}) - 1 for group in groups.values()))


def _same_with_one_trip(choice: tuple[Role, ...], axes: tuple[Axis, ...], facts: _Facts) -> Iterator[tuple[Role, ...]]:
    """Assignments that do with one trip of a loop what this one does with a held axis."""
    roles = dict(zip(axes, choice, strict=True))
    for i, axis in enumerate(axes):
        if facts.one_trip(axis, roles):
            yield (*choice[:i], Role.LOOP, *choice[i + 1 :])


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
        results = tuple((frozenset(reduction(n)[0]), n.free) for n in tops(nodes) if n.op in REDUCTIONS)
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
    varied = frozenset(a for n in walk(s.value for s in kernel.stores) for a in n.free)
    for axis in ordered(varied):
        whole = (Role.WHOLE,) if largest(axis.extent) <= MAX_RESIDENT else ()
        if axis not in facts.reduced:
            options[axis] = (Role.GRID,) if axis in in_all else (Role.LOOP, *whole)
        elif axis in facts.stored:
            options[axis] = (Role.LOOP, *whole)
        else:
            options[axis] = (Role.LOOP, Role.SPLIT, *whole)
    # An axis that no operand has is summed at once: there is nothing to iterate over.
    return options | {axis: (Role.WHOLE,) for axis in ordered(facts.reduced) if axis not in options}
