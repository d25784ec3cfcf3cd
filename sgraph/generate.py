"""The generator: sGraph families of a program, best first, and an account of what was left out."""

from __future__ import annotations

import heapq
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
    plan_count: int = 250
    """Plans looked at, cheapest cuts first."""


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
    stop: Callable[[], bool] = lambda: False,
) -> Search:
    """Every family of the program within the limits (paper section 4; design sections 4 and 6).

    Args:
        program: what to compute.
        table: its saturated classes, roots in the order of the program's outputs.
        target: limits for feasibility, peaks for bounds.
        sizes: extents at which work and bounds are compared, one per complete axis.
        limits: how far to go.
        on_progress: called with the number of plans found so far.
        stop: asked before each plan after the first; True ends the search with what it has.
    """
    planner = Planner(program, table, target, sizes, limits.plans)
    pricing = _Pricing(target, sizes)
    streams: list[Iterator[Family]] = []
    wanted = 0
    for plan in planner.plans():
        if len(streams) == limits.plan_count or (stop() and streams):
            stopped = "limit: plans" if len(streams) == limits.plan_count else "deferred: plans after the stop"
            planner.dropped[stopped] += 1
            break
        choices = [pricing.mapped(kernel) for kernel in plan.kernels]
        wanted += math.prod(len(c) for c in choices)
        streams.append(_families(plan, choices, pricing))
        if on_progress is not None:
            on_progress(len(streams))
    families = list(itertools.islice(heapq.merge(*streams, key=lambda f: f.estimate_s), limits.families))
    families.sort(key=lambda f: f.estimate_s)
    dropped = planner.dropped + pricing.dropped  # the sum leaves out what is zero
    if wanted > len(families):
        dropped["limit: families"] += wanted - len(families)
    kernels = {_anonymous(k) for f in families for k in f.graph.kernels}
    return Search(tuple(families), dict(sorted(dropped.items())), planner.cut_sets, len(streams), len(kernels))


class _Pricing:
    """Kernels with their roles and estimates, each worked out once."""

    def __init__(self, target: Target, sizes: Mapping[Axis, int]) -> None:
        self.target = target
        self.sizes = sizes
        self.dropped: Counter[str] = Counter()
        """Role assignments set aside, by reason."""
        self._mapped: dict[Kernel, tuple[Mapped, ...]] = {}
        self._estimates: dict[object, float] = {}

    def mapped(self, kernel: Kernel) -> tuple[Mapped, ...]:
        """A kernel's role assignments that fit the target."""
        key = _anonymous(kernel)
        if key not in self._mapped:
            self._mapped[key] = self._fitting(key)
        return tuple(_named(m, kernel.name) for m in self._mapped[key])

    def _fitting(self, kernel: Kernel) -> tuple[Mapped, ...]:
        found, dropped = assignments(kernel)
        for reason, count in dropped.items():
            self.dropped[reason if reason.startswith("limit: ") else f"infeasible: {reason}"] += count
        fitting: list[Mapped] = []
        for choice in found:
            reason = violated(choice.schedule, self.target)
            if reason is None:
                fitting.append(choice)
            else:
                self.dropped[f"infeasible: {reason.split(':')[0]}"] += 1
        return tuple(fitting)

    def estimate(self, kernel: Kernel, plan: SGraph) -> float:
        """Seconds of one kernel at default tiles; what it reads may have another type in another plan."""
        key = (_anonymous(kernel), tuple(plan.tensor(name).dtype for name in kernel.reads))
        if key not in self._estimates:
            self._estimates[key] = kernel_estimate(kernel, plan, self.target, self.sizes)
        return self._estimates[key]


def _families(plan: SGraph, choices: Sequence[Sequence[Mapped]], pricing: _Pricing) -> Iterator[Family]:
    """The families of a plan, best estimate first, made only as they are asked for."""
    if not all(choices):
        return
    bound_s = work_bound(plan, pricing.target, pricing.sizes)
    priced = [sorted(((pricing.estimate(m.kernel, plan), i) for i, m in enumerate(options))) for options in choices]

    def entry(ranks: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        return sum(options[rank][0] for options, rank in zip(priced, ranks, strict=True)), ranks

    first: tuple[int, ...] = (0,) * len(priced)
    heap = [entry(first)]
    seen: set[tuple[int, ...]] = {first}
    while heap:
        seconds, ranks = heapq.heappop(heap)
        combination = [o[p[r][1]] for o, p, r in zip(choices, priced, ranks, strict=True)]
        graph = replace(plan, kernels=tuple(m.kernel for m in combination))
        bound = bound_s + launches(graph) * pricing.target.launch_s
        yield Family(graph, tuple(m.schedule for m in combination), bound, max(bound, seconds))
        for i, rank in enumerate(ranks):
            later = (*ranks[:i], rank + 1, *ranks[i + 1 :])
            if rank + 1 < len(priced[i]) and later not in seen:
                seen.add(later)
                heapq.heappush(heap, entry(later))


def _named(mapped: Mapped, name: str) -> Mapped:
    kernel = replace(mapped.kernel, name=name)
    return Mapped(kernel, replace(mapped.schedule, kernel=kernel))


def _anonymous(kernel: Kernel) -> Kernel:
    """A kernel without its position: what makes it the same in another plan."""
    return replace(kernel, name="")
