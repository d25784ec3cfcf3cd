"""Plans: where a program is cut into kernels, and what each kernel computes from what.

A plan is a set of stored classes and, for every kernel, one definition of each class it needs. Any class of
the table can be stored, a partial product included, because reading the table stops at stored classes.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from sgraph.axis import Axis, ordered
from sgraph.bounds import PlanBounds, operations, tensor_bytes
from sgraph.cuts import Cuts, CutSet
from sgraph.dags import Bodies, bodies, elements, is_dot
from sgraph.expr import Expr, Op, factors, leaf, reduction, rename, walk
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import DType, Program, Tensor
from sgraph.table import Table
from sgraph.target import Target
from sgraph.view import Readings, View


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """How far plans are enumerated. Limits, not proofs: what they cut is counted."""

    stored: int = 2
    """Intermediates stored between kernels, at most."""
    folds: int = 2
    """Tensors computed once from constant inputs, at most."""
    per_cut_set: int = 24
    """Plans of one set of stored classes that differ in the bodies of their kernels."""
    cut_sets: int = 600
    """Sets of stored classes looked at."""
    bodies: int = 1000
    """Bodies listed for one kernel before they are compared."""
    groupings: int = 60
    """Ways to group the outputs into kernels."""
    reads: int = 4
    """Stored tensors that one kernel reads, at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Kernels whose roles are undecided."""

    graph: SGraph
    """The kernels, without roles."""
    work_s: float
    """Seconds of traffic and arithmetic that no instance can beat, without launches."""
    bound_s: float
    """The same with the fewest launches it can have."""


SLACK: Final = 1.1
"""A plan is looked at before the sets of stored classes whose bound is lower by less than this factor: a set takes much
longer to turn into plans than its bound tells."""

PASSED_OVER: Final = "deferred: plans of one set of stored tensors"
"""The reason of plans beyond ``PlanLimits.per_cut_set``."""

Roots = tuple[tuple[int, ...], ...]
"""Outputs, by position, grouped into kernels."""


class Planner:
    """Enumerates the plans of one program from its table, least lower bound first."""

    def __init__(
        self, program: Program, table: Table, target: Target, sizes: Mapping[Axis, int], limits: PlanLimits
    ) -> None:
        self.program = program
        self.table = table
        self.target = target
        self.sizes = sizes
        self.limits = limits
        self.cut_sets = 0
        """Sets of stored classes looked at."""
        self.waiting: list[tuple[float, float, int, Plan]] = []
        """Plans made and not yet asked for."""
        self._dropped: Counter[str] = Counter()
        self._inputs = self._input_leaves()
        self._readings = Readings(table)
        self._view = View(table, frozenset(self._inputs), self._readings)
        self._reachable = _reachable(self._view, table.roots)
        self._axes = ordered(frozenset[Axis]().union(*(table.free(c) for c in self._reachable)))
        self._copies: dict[int, dict[int, Expr]] = {}
        self._bodies: dict[tuple[tuple[int, ...], frozenset[int]], Bodies] = {}
        self._tensors: dict[int, Tensor] = {}
        self._representatives: dict[int, Expr] = {}
        self._axis_order = _axis_order(program)
        self._cuts = Cuts(program, self._view, self._reachable, self._tensor, target, sizes)
        self._possible, self._sets = self._cuts.sets(limits.stored, limits.folds, self._views)
        self._upcoming: tuple[float, CutSet] | None = None
        self._passed_over_s: tuple[float, ...] = ()
        self._bounds = PlanBounds(target, sizes)
        self._least: dict[tuple[int, ...], float] = {}
        self._groupings = self._list_groupings()

    @property
    def dropped(self) -> Counter[str]:
        """What was set aside, by reason."""
        return self._dropped + self._cuts.dropped + self._readings.dropped

    @property
    def deferred_sets(self) -> int:
        """Sets of stored classes that were not looked at."""
        return self._possible - self.cut_sets

    @property
    def next_bound_s(self) -> float | None:
        """No plan that is still to come, or was passed over, has a lower bound; None if there is none."""
        bounds = [self.waiting[0][0]] if self.waiting else []
        if self._upcoming is not None:
            bounds.append(self._upcoming[0])
        return min((*bounds, *self._passed_over_s), default=None)

    def plans(self) -> Iterator[Plan]:
        """Every plan within the limits by its lower bound on time (see ``SLACK``), without duplicates."""
        seen: set[tuple[Kernel, ...]] = set()
        numbers = itertools.count()
        self._upcoming = self._next_set()
        while self.waiting or (self._upcoming is not None and self.cut_sets < self.limits.cut_sets):
            if (
                self._upcoming is not None
                and self.cut_sets < self.limits.cut_sets
                and (not self.waiting or SLACK * self._upcoming[0] < self.waiting[0][0])
            ):
                bound_s, cuts = self._upcoming
                before = self._dropped[PASSED_OVER]
                self.cut_sets += 1
                for roots in self._groupings:
                    for kernels in self._kernels(cuts, roots):
                        if kernels not in seen:
                            seen.add(kernels)
                            plan = self._plan(kernels)
                            heapq.heappush(self.waiting, (plan.bound_s, cuts.cached_s, next(numbers), plan))
                if self._dropped[PASSED_OVER] > before:
                    self._passed_over_s = (min((bound_s, *self._passed_over_s)),)
                self._upcoming = self._next_set()
            else:
                yield heapq.heappop(self.waiting)[-1]

    def _plan(self, kernels: tuple[Kernel, ...]) -> Plan:
        graph = SGraph(self.program, kernels)
        work_s = self._bounds.work_s(graph)
        launched = sum(1 for kernel in kernels if not kernel.fold)
        return Plan(graph, work_s, work_s + launched * self.target.launch_s)

    def _next_set(self) -> tuple[float, CutSet] | None:
        """The next set of stored classes with a lower bound for its plans; None after the last."""
        cuts = next(self._sets, None)
        if cuts is None:
            return None
        launches_s = min(map(len, self._groupings), default=0) * self.target.launch_s
        return self._least_work(cuts.folds) + launches_s + cuts.bound_s, cuts

    def _least_work(self, folds: tuple[int, ...]) -> float:
        """Seconds that every plan with these folds needs at least for what it reads, writes and contracts.

        Cutting a kernel never removes a contraction, so that one kernel for everything has the fewest.
        """
        if folds not in self._least:
            leaf_of = {**{view: leaf for fold in folds for view, leaf in self._views(fold).items()}, **self._inputs}
            must = [t for t in self.program.inputs if not self._computable_without(t.name, frozenset(leaf_of))]
            moved = sum(tensor_bytes(t, self.sizes) for t in (*must, *(o.tensor for o in self.program.outputs)))
            view = View(self.table, frozenset(leaf_of), self._readings)
            found = bodies(view, self.table.roots, leaf_of, self.sizes, self.limits.bodies)
            flops = 0 if found.cut_off else min((_dot_flops(v, self.sizes) for v in found.values), default=0)
            rate = max(self.target.pointwise_flops_per_s, *self.target.dot_flops_per_s.values())
            self._least[folds] = max(moved / self.target.dram_bytes_per_s, flops / rate)
        return self._least[folds]

    def _computable_without(self, name: str, readable: frozenset[int]) -> bool:
        """Whether some plan computes the outputs from readable classes without this input."""
        mine = {cls for cls, leaf in self._inputs.items() if leaf.name == name}
        known = {c for c in self._reachable if (c in readable and c not in mine) or self._view.constant(c)}
        waiting = [c for c in self._reachable if c not in known and c not in mine]
        grown = True
        while grown:
            found = [c for c in waiting if any(known.issuperset(n.args) for n in self.table.nodes(c))]
            known.update(found)
            waiting = [c for c in waiting if c not in known]
            grown = bool(found)
        return known.issuperset(self.table.roots)

    def _list_groupings(self) -> tuple[Roots, ...]:
        """Ways to group the outputs into kernels: together, apart, then what lies between."""
        outputs = tuple(range(len(self.table.roots)))
        apart = tuple((i,) for i in outputs)
        found: dict[Roots, None] = {(outputs,): None, apart: None} if outputs else {(): None}
        for grouping in itertools.islice(_partitions(outputs), self.limits.groupings):
            if len(found) < self.limits.groupings:
                found[grouping] = None
        self._dropped["limit: groupings of outputs"] += _number_of_partitions(len(outputs)) - len(found)
        return tuple(found)

    # ------------------------------------------------------------------------------------------ kernels

    def _kernels(self, cuts: CutSet, roots: Roots) -> Iterator[tuple[Kernel, ...]]:
        """The plans that store exactly these classes, outputs grouped into kernels as given."""
        stored = (*cuts.folds, *cuts.stored)
        outputs = dict.fromkeys(r for r in self.table.roots if not self._view.terminal(r))
        targets = [*((c,) for c in stored), *(tuple(self.table.roots[i] for i in group) for group in roots)]
        writer = {cls: i for i, cls in enumerate(stored)}
        # Of outputs that are equal the first one is what other kernels read.
        first = {self.table.roots.index(cls): cls for cls in outputs}
        writer |= {first[o]: len(stored) + i for i, group in enumerate(roots) for o in group if o in first}
        readable = [self._readable(target, (*stored, *outputs)) for target in targets]
        for reads in itertools.product(*readable):
            order = _order(writer, reads)
            if order is None or not frozenset[int]().union(*reads).issuperset(stored):
                continue
            pairs = zip(targets, reads, strict=True)
            options = [self._bodies_of(target, read, fold=target[0] in cuts.folds) for target, read in pairs]
            found = math.prod(map(len, options))
            for values in itertools.islice(_by_rank(options), self.limits.per_cut_set):
                yield self._assemble(targets, roots, len(stored), values, order)
            self._dropped[PASSED_OVER] += max(0, found - self.limits.per_cut_set)

    def _readable(self, target: tuple[int, ...], stored: tuple[int, ...]) -> list[frozenset[int]]:
        """The sets of stored classes that the kernel of these classes may read."""
        below = 0
        for cls in target:
            below |= self._readings.below(cls)
        others = sorted(c for c in set(stored) - set(target) if any(below >> view & 1 for view in self._views(c)))
        most = min(len(others), self.limits.reads)
        self._dropped["limit: stored tensors read by one kernel"] += 2 ** len(others) - sum(
            math.comb(len(others), n) for n in range(most + 1)
        )
        return [frozenset(read) for n in range(most + 1) for read in itertools.combinations(others, n)]

    def _views(self, cls: int) -> dict[int, Expr]:
        """The leaves that read a stored class, under its own axes and under copies of them (``h[i]``, ``h[j]``)."""
        if cls not in self._copies:
            value, tensor = self._representative(cls), self._tensor(cls)
            found = {cls: tensor.read()}
            axes = tensor.named_axes
            choices = [[a for a in self._axes if a.base == axis.base] for axis in axes]
            for renamed in itertools.product(*choices):
                if renamed != axes and len(set(renamed)) == len(renamed):
                    view = self.table.lookup(rename(value, dict(zip(axes, renamed, strict=True))))
                    if view is not None and view not in found and not self._view.terminal(view):
                        found[view] = leaf(tensor.name, renamed, finite=tensor.finite)
            self._copies[cls] = found
        return self._copies[cls]

    def _bodies_of(self, target: tuple[int, ...], read: frozenset[int], *, fold: bool) -> tuple[tuple[Expr, ...], ...]:
        """Bodies that compute the target classes and use every stored class in ``read``; a fold's read constants."""
        key = (target, read)
        if key not in self._bodies:
            stored = {view: leaf for c in sorted(read) for view, leaf in self._views(c).items()}
            leaf_of = {**{c: leaf for c, leaf in stored.items() if c not in target}, **self._inputs}
            view = View(self.table, frozenset(leaf_of), self._readings)
            found = bodies(view, target, leaf_of, self.sizes, self.limits.bodies)
            self._dropped["dominated"] += found.dominated
            self._dropped["limit: bodies of one kernel"] += found.cut_off
            needed = {self._tensor(c).name for c in read}
            used = tuple(v for v in found.values if needed <= _names(v))
            self._bodies[key] = Bodies(used, found.dominated, found.cut_off)
        found = self._bodies[key].values
        if not fold:
            return found
        constant = {t.name for t in self.program.inputs if t.constant} | {self._tensor(c).name for c in read}
        return tuple(values for values in found if _names(values) <= constant)

    def _assemble(
        self,
        targets: Sequence[tuple[int, ...]],
        roots: Sequence[tuple[int, ...]],
        cuts: int,
        values: Sequence[tuple[Expr, ...]],
        order: Sequence[int],
    ) -> tuple[Kernel, ...]:
        kernels: list[Kernel] = []
        in_dots = _only_in_dots(values)
        for position, i in enumerate(order):
            if i < cuts:
                cls = targets[i][0]
                tensor = self._tensor(cls)
                narrow = tensor.name in in_dots
                stored = self._narrowed(tensor) if narrow else tensor
                stores = (Store(stored, values[i][0], self._representative(cls)),)
            else:
                outputs = [self.program.outputs[o] for o in roots[i - cuts]]
                stores = tuple(Store(o.tensor, v, o.value) for o, v in zip(outputs, values[i], strict=True))
            kernels.append(Kernel(f"k{position}", stores))
        return tuple(kernels)

    def _narrowed(self, tensor: Tensor) -> Tensor:
        """An intermediate that is only ever a dot operand is rounded to the operands' type there anyway."""
        floating = [t.dtype for t in self.program.inputs if t.dtype in {DType.BF16, DType.FP16, DType.FP32}]
        dtype = max(floating, key=lambda d: d.bytes, default=DType.FP32)
        return tensor if tensor.dtype is DType.FP64 else replace(tensor, dtype=dtype)

    def _tensor(self, cls: int) -> Tensor:
        """The tensor that holds a class: an output's own, or a new intermediate in float32 or wider."""
        if cls not in self._tensors:
            given = (*self.program.inputs, *(o.tensor for o in self.program.outputs))
            for output, root in zip(self.program.outputs, self.table.roots, strict=True):
                if root == cls:
                    self._tensors[cls] = output.tensor
                    break
            else:
                axes = sorted(self.table.free(cls), key=lambda a: (self._axis_order[a.base], a.key))
                dtype = DType.FP64 if any(t.dtype is DType.FP64 for t in given) else DType.FP32
                name = _unused(f"t{cls}", {t.name for t in given})
                finite = self._representative(cls).finite
                self._tensors[cls] = Tensor(name, tuple(axes), dtype, self._cuts.folds(cls), finite)
        return self._tensors[cls]

    def _representative(self, cls: int) -> Expr:
        if cls not in self._representatives:
            self._representatives[cls] = self.table.representative(cls)
        return self._representatives[cls]

    def _input_leaves(self) -> dict[int, Expr]:
        """The class of every program input under every set of axes it is read by."""
        found: dict[int, Expr] = {}
        for node in walk(o.value for o in self.program.outputs):
            if node.op is Op.LEAF:
                cls = self.table.lookup(node)
                assert cls is not None, f"the table lost {node}"
                found[cls] = node
        order = {t.name: i for i, t in enumerate(self.program.inputs)}
        return dict(sorted(found.items(), key=lambda item: (order[item[1].name], item[1].digest)))


def _reachable(view: View, roots: Sequence[int]) -> tuple[int, ...]:
    """Every class some computation of the roots can go through."""
    found: dict[int, None] = {}
    stack = list(reversed(roots))
    while stack:
        cls = stack.pop()
        if cls in found:
            continue
        found[cls] = None
        if not view.terminal(cls):
            stack.extend(a for node in view.table.nodes(cls) for a in reversed(node.args))
    return tuple(sorted(found))


def _axis_order(program: Program) -> Mapping[Axis, int]:
    """Axes by first appearance in the program's tensors: the dimension order of new intermediates."""
    seen: dict[Axis, int] = {}
    for tensor in (*program.inputs, *(o.tensor for o in program.outputs)):
        for axis in tensor.named_axes:
            seen.setdefault(axis.base, len(seen))
    return seen


def _names(values: Sequence[Expr]) -> frozenset[str]:
    return frozenset(n.name for n in walk(values) if n.op is Op.LEAF)


def _dot_flops(values: Sequence[Expr], sizes: Mapping[Axis, int]) -> int:
    return sum(2 * elements(space, sizes) for node, space in operations(tuple(values)) if is_dot(node))


def _only_in_dots(values: Sequence[tuple[Expr, ...]]) -> frozenset[str]:
    """Tensors whose every use is as a factor of a dot product."""
    used = [_uses(roots) for roots in values]
    return frozenset[str]().union(*(inside for inside, _ in used)) - frozenset[str]().union(*(out for _, out in used))


@lru_cache(maxsize=16_384)
def _uses(roots: tuple[Expr, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Tensors of one kernel that are factors of a dot product, and those with another use."""
    contracted: set[Expr] = set()
    for node in walk(roots):
        if is_dot(node):
            contracted.update(f for f in factors(reduction(node)[1]) if f.op is Op.LEAF)
    return frozenset(f.name for f in contracted), frozenset(_used_elsewhere(roots))


def _used_elsewhere(roots: Sequence[Expr]) -> set[str]:
    """Tensors with a use that is not directly a factor under a dot product's sum."""
    found: set[str] = set()
    stack = [(r, False) for r in roots]
    seen: set[tuple[Expr, bool]] = set()
    while stack:
        node, under_dot = stack.pop()
        if (node, under_dot) in seen:
            continue
        seen.add((node, under_dot))
        if node.op is Op.LEAF and not under_dot:
            found.add(node.name)
        passes_on = is_dot(node) or (under_dot and node.op in {Op.MUL, Op.SUM})
        stack.extend((a, passes_on) for a in node.args)
    return found


def _partitions(items: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every way to group the outputs into kernels, all together first."""
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for n in range(len(rest), -1, -1):
        for together in itertools.combinations(rest, n):
            left = tuple(i for i in rest if i not in together)
            for others in _partitions(left):
                yield ((first, *together), *others)


def _number_of_partitions(items: int) -> int:
    """How many ways there are to group some items (Bell number)."""
    numbers = [1]
    for n in range(items):
        numbers.append(sum(math.comb(n, k) * numbers[k] for k in range(n + 1)))
    return numbers[items]


def _unused(name: str, taken: Collection[str]) -> str:
    """The name, or the first one made from it that is not taken."""
    numbered = (f"{name}_{i}" for i in itertools.count(1))
    return next(n for n in itertools.chain((name,), numbered) if n not in taken)


def _by_rank(options: Sequence[Sequence[tuple[Expr, ...]]]) -> Iterator[tuple[tuple[Expr, ...], ...]]:
    """Every choice of one body per kernel, those first that are early in their lists."""
    for total in range(sum(len(o) - 1 for o in options) + 1):
        for ranks in itertools.product(*(range(min(len(o), total + 1)) for o in options)):
            if sum(ranks) == total:
                yield tuple(o[r] for o, r in zip(options, ranks, strict=True))


def _order(writer: Mapping[int, int], reads: Sequence[frozenset[int]]) -> list[int] | None:
    """Kernels in an order in which each reads what was stored before, None if there is none."""
    waits = [{writer[c] for c in needed} for needed in reads]
    order: list[int] = []
    while len(order) < len(waits):
        able = next((i for i, before in enumerate(waits) if i not in order and before.issubset(order)), None)
        if able is None:
            return None
        order.append(able)
    return order
