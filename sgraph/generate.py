"""The generator: sGraph families of a program, best first, and an account of what was left out."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sgraph.axis import Axis
from sgraph.bounds import kernel_estimate, launches
from sgraph.feasibility import violated
from sgraph.ir import Kernel, SGraph
from sgraph.plans import Plan, PlanLimits, Planner
from sgraph.program import Program
from sgraph.roles import MAX_ASSIGNMENTS, Mapped, assignments
from sgraph.schedule import Schedule
from sgraph.table import Table
from sgraph.target import Target


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """How far the search goes. What a limit cuts is counted under its name."""

    plans: PlanLimits = field(default_factory=PlanLimits)
    """Limits on plans."""
    families: int = 4000
    """Families listed, best estimate first."""
    plan_count: int = 250
    """Plans whose roles are looked at, least lower bound first."""
    per_plan: int = 64
    """Role assignments listed of one plan, best estimate first, so that no plan crowds out the others."""
    per_kernel: int = MAX_ASSIGNMENTS
    """Role assignments of one kernel for which stages are derived."""


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
    """Plans whose roles were looked at."""
    kernels: int
    """Distinct kernels with roles among the families."""
    next_bound_s: float | None = None
    """No family that was deferred is faster than this on the target; None where none was."""


def generate(
    program: Program,
    table: Table,
    target: Target,
    sizes: Mapping[Axis, int],
    limits: SearchLimits,
    on_progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Search:
    """The families of the program within the limits (paper section 4; design sections 4 and 6).

    Plans are looked at least lower bound first, and no further than to where the next bound exceeds the estimates of
    all the families that are wanted. What was not looked at is counted as deferred.

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
    pricing = _Pricing(target, sizes, limits.per_kernel)
    listing = _Listing(limits, pricing)
    reason = ""
    for plan in planner.plans():
        reason = listing.full(min(plan.bound_s, planner.next_bound_s or plan.bound_s)) or (
            "after the stop" if stop() and listing.plans else ""
        )
        if reason:
            heapq.heappush(planner.waiting, (plan.bound_s, 0.0, -1, plan))
            break
        listing.add(plan)
        if on_progress is not None:
            on_progress(len(listing.plans))
    families, left = listing.families()
    dropped = planner.dropped + pricing.dropped  # the sum leaves out what is zero
    dropped["deferred: families beyond the effort"] += left
    dropped[f"deferred: plans {reason}"] += len(planner.waiting)
    dropped["deferred: sets of stored tensors beyond the effort"] += planner.deferred_sets
    bounds = [b for b in (planner.next_bound_s, listing.least_bound_left_s) if b is not None]
    return Search(
        families,
        dict(sorted((+dropped).items())),
        planner.cut_sets,
        len(listing.plans),
        len({_anonymous(k) for f in families for k in f.graph.kernels}),
        min(bounds, default=None),
    )


@dataclass(frozen=True, slots=True)
class _Priced:
    """A plan with the role assignments of its kernels, each kernel's best estimate first."""

    plan: Plan
    options: tuple[tuple[tuple[float, Mapped], ...], ...]
    listed: int
    """How many of its combinations took part in the listing."""

    @property
    def combinations(self) -> int:
        return math.prod(map(len, self.options))


class _Listing:
    """The best families of the plans seen so far, as positions in them: families are built in the end."""

    def __init__(self, limits: SearchLimits, pricing: _Pricing) -> None:
        self.plans: list[_Priced] = []
        """The plans looked at."""
        self.least_bound_left_s: float | None = None
        """Least bound of the plans of which not every family is listed; set by ``families``."""
        self._limits = limits
        self._pricing = pricing
        self._best: list[tuple[float, int, tuple[int, ...]]] = []
        """Largest first: minus the estimate, minus the plan's position, minus the ranks."""

    def full(self, next_bound_s: float) -> str:
        """Why no plan need be looked at of which none has a lower bound; empty if they must."""
        if len(self.plans) == self._limits.plan_count:
            return "beyond the effort"
        enough = len(self._best) == self._limits.families
        return "that no listed family need fear" if enough and next_bound_s >= -self._best[0][0] else ""

    def add(self, plan: Plan) -> None:
        """Look at the families of a plan, no further than to those that can be listed."""
        options = self._pricing.options(plan.graph)
        position, listed = len(self.plans), 0
        if all(options):
            for seconds, ranks in _combinations(options):
                estimate_s = max(seconds, plan.bound_s)
                enough = len(self._best) == self._limits.families
                if listed == self._limits.per_plan or (enough and estimate_s >= -self._best[0][0]):
                    break
                listed += 1
                entry = (-estimate_s, -position, tuple(-r for r in ranks))
                (heapq.heappushpop if enough else heapq.heappush)(self._best, entry)
        self.plans.append(_Priced(plan, options, listed))

    def families(self) -> tuple[tuple[Family, ...], int]:
        """The families listed, best estimate first, and how many others the plans have."""
        left = Counter({i: priced.combinations for i, priced in enumerate(self.plans)})
        found: list[Family] = []
        for estimate, position, ranks in sorted(self._best, reverse=True):
            priced = self.plans[-position]
            chosen = [o[-r][1] for o, r in zip(priced.options, ranks, strict=True)]
            chosen = [_named(m, k.name) for m, k in zip(chosen, priced.plan.graph.kernels, strict=True)]
            graph = replace(priced.plan.graph, kernels=tuple(m.kernel for m in chosen))
            bound_s = priced.plan.work_s + launches(graph) * self._pricing.target.launch_s
            found.append(Family(graph, tuple(m.schedule for m in chosen), bound_s, max(bound_s, -estimate)))
            left[-position] -= 1
        self.least_bound_left_s = min((self.plans[i].plan.bound_s for i, n in left.items() if n), default=None)
        found.sort(key=lambda f: f.estimate_s)
        return tuple(found), left.total()


def _combinations(options: Sequence[Sequence[tuple[float, Mapped]]]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Every choice of one option per kernel by its total, as positions, made only as they are asked for."""

    def entry(ranks: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        return sum(priced[rank][0] for priced, rank in zip(options, ranks, strict=True)), ranks

    first: tuple[int, ...] = (0,) * len(options)
    heap = [entry(first)]
    seen: set[tuple[int, ...]] = {first}
    while heap:
        yield heap[0]
        _, ranks = heapq.heappop(heap)
        for i, rank in enumerate(ranks):
            later = (*ranks[:i], rank + 1, *ranks[i + 1 :])
            if rank + 1 < len(options[i]) and later not in seen:
                seen.add(later)
                heapq.heappush(heap, entry(later))


class _Pricing:
    """Kernels with their roles and estimates, each worked out once."""

    def __init__(self, target: Target, sizes: Mapping[Axis, int], per_kernel: int) -> None:
        self.target = target
        self.sizes = sizes
        self.per_kernel = per_kernel
        self.dropped: Counter[str] = Counter()
        """Role assignments set aside, by reason."""
        self._fitted: dict[Kernel, tuple[Mapped, ...]] = {}
        self._priced: dict[object, tuple[tuple[float, Mapped], ...]] = {}

    def options(self, plan: SGraph) -> tuple[tuple[tuple[float, Mapped], ...], ...]:
        """For every kernel of a plan its role assignments that fit the target, best estimate first."""
        dtypes = {t.name: t.dtype for t in plan.intermediates}
        out: list[tuple[tuple[float, Mapped], ...]] = []
        for kernel in plan.kernels:
            anonymous = _anonymous(kernel)
            # What it reads may have another type in another plan, or be folded there.
            key = (anonymous, tuple(dtypes.get(name) for name in kernel.reads))
            if key not in self._priced:
                mapped = self._mapped(anonymous)
                seconds = (kernel_estimate(m.kernel, plan, self.target, self.sizes) for m in mapped)
                ranked = sorted(zip(seconds, range(len(mapped)), mapped, strict=True), key=lambda entry: entry[:2])
                self._priced[key] = tuple((s, m) for s, _, m in ranked)
            out.append(self._priced[key])
        return tuple(out)

    def _mapped(self, kernel: Kernel) -> tuple[Mapped, ...]:
        if kernel not in self._fitted:
            self._fitted[kernel] = self._fitting(kernel)
        return self._fitted[kernel]

    def _fitting(self, kernel: Kernel) -> tuple[Mapped, ...]:
        found, dropped = assignments(kernel, self.per_kernel)
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


def _named(mapped: Mapped, name: str) -> Mapped:
    kernel = replace(mapped.kernel, name=name)
    return Mapped(kernel, replace(mapped.schedule, kernel=kernel))


def _anonymous(kernel: Kernel) -> Kernel:
    """A kernel without its position: what makes it the same in another plan."""
    return replace(kernel, name="")
