"""The generator: sGraph families of a program, best first, and an account of what was left out."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sgraph.axis import Axis
from sgraph.bounds import kernel_estimate, launches, work_bound
from sgraph.feasibility import violated
from sgraph.ir import Kernel, SGraph
from sgraph.plans import PlanLimits, Planner
from sgraph.program import Program
from sgraph.roles import Mapped, assignments
from sgraph.schedule import Schedule
from sgraph.table import Table
from sgraph.target import Target


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """How far the search goes. What a limit cuts is counted under its name."""

    plans: PlanLimits = field(default_factory=PlanLimits)
    """Limits on plans."""
    families: int = 4000
    """Families listed, best first by their kernels' order."""


@dataclass(frozen=True, slots=True)
class Family:
    """An sGraph with every role decided, and its schedules."""

    graph: SGraph
    """What is computed how; tile sizes are still symbols."""
    schedules: tuple[Schedule, ...]
    """One per kernel."""
    bound_s: float
    """No instance is faster than this on the target."""
    estimate_s: float
    """Only for order."""


@dataclass(frozen=True, slots=True)
class Search:
    """What the generator found."""

    families: tuple[Family, ...]
    """Best estimate first; ties in the order of enumeration."""
    dropped: Mapping[str, int]
    """What was set aside, by reason."""
    cut_sets: int
    """Sets of stored classes looked at."""
    plans: int
    """Plans found."""
    kernels: int
    """Distinct kernels with roles among them."""


def generate(
    program: Program,
    table: Table,
    target: Target,
    sizes: Mapping[Axis, int],
    limits: SearchLimits,
    on_progress: Callable[[int], None] | None = None,
) -> Search:
    """Every family of the program within the limits (paper section 4; design sections 4 and 6).

    Args:
        program: what to compute.
        table: its saturated classes, roots in the order of the program's outputs.
        target: limits for feasibility, peaks for bounds.
        sizes: extents at which work and bounds are compared, one per complete axis.
        limits: how far to go.
        on_progress: called with the number of plans found so far.
    """
    planner = Planner(program, table, target, sizes, limits.plans)
    mapped: dict[Kernel, tuple[Mapped, ...]] = {}
    dropped: Counter[str] = Counter()
    families: list[Family] = []
    plans = 0
    for plan in planner.plans():
        plans += 1
        if on_progress is not None:
            on_progress(plans)
        choices = [_mapped(kernel, target, mapped, dropped) for kernel in plan.kernels]
        wanted = math.prod(len(c) for c in choices)
        room = limits.families - len(families)
        dropped["limit: families"] += max(0, wanted - room)
        families.extend(itertools.islice(_families(plan, choices, target, sizes), max(0, room)))
    families.sort(key=lambda f: f.estimate_s)
    total = planner.dropped + dropped
    kernels = {k for f in families for k in _anonymous(f.graph.kernels)}
    return Search(tuple(families), dict(sorted(total.items())), planner.cut_sets, plans, len(kernels))


def _mapped(
    kernel: Kernel, target: Target, memo: dict[Kernel, tuple[Mapped, ...]], dropped: Counter[str]
) -> tuple[Mapped, ...]:
    """A kernel's role assignments that fit the target, worked out once per kernel."""
    if kernel not in memo:
        found, unscheduled = assignments(kernel)
        dropped.update({f"infeasible: {reason}": n for reason, n in unscheduled.items()})
        fitting: list[Mapped] = []
        for choice in found:
            reason = violated(choice.schedule, target)
            if reason is None:
                fitting.append(choice)
            else:
                dropped[f"infeasible: {reason.split(':')[0]}"] += 1
        memo[kernel] = tuple(fitting)
    return memo[kernel]


def _families(
    plan: SGraph, choices: Sequence[Sequence[Mapped]], target: Target, sizes: Mapping[Axis, int]
) -> Iterator[Family]:
    bound_s = work_bound(plan, target, sizes)
    priced = [[(m, kernel_estimate(m.kernel, plan, target, sizes)) for m in options] for options in choices]
    for combination in itertools.product(*priced):
        graph = replace(plan, kernels=tuple(m.kernel for m, _ in combination))
        schedules = tuple(m.schedule for m, _ in combination)
        bound = bound_s + launches(graph) * target.launch_s
        yield Family(graph, schedules, bound, max(bound, sum(seconds for _, seconds in combination)))


def _anonymous(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels without their position, to count distinct ones."""
    return [replace(k, name="") for k in kernels]
