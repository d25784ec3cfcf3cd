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

import networkx as nx

from sgraph.axis import Axis, ordered
from sgraph.bounds import tensor_bytes
from sgraph.dags import Bodies, bodies, elements, is_dot
from sgraph.expr import REDUCTIONS, Expr, Op, factors, leaf, reduction, rename, walk
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import DType, Program, Tensor
from sgraph.scaled import carries_scale
from sgraph.table import Table
from sgraph.target import Target
from sgraph.view import View


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """How far plans are enumerated. Limits, not proofs: what they cut is counted."""

    stored: int = 2
    """Intermediates stored between kernels, at most."""
    cut_sets: int = 600
    """Sets of stored classes looked at."""
    bodies: int = 3000
    """Bodies listed for one kernel before they are compared."""
    groupings: int = 60
    """Ways to group the outputs into kernels."""
    reads: int = 4
    """Stored tensors that one kernel reads, at most."""


class Planner:
    """Enumerates the plans of one program from its table."""

    def __init__(
        self, program: Program, table: Table, target: Target, sizes: Mapping[Axis, int], limits: PlanLimits
    ) -> None:
        self.program = program
        self.table = table
        self.target = target
        self.sizes = sizes
        self.limits = limits
        self.dropped: Counter[str] = Counter()
        """What was set aside, by reason."""
        self.cut_sets = 0
        """Sets of stored classes looked at."""
        self._inputs = self._input_leaves()
        self._view = View(table, frozenset(self._inputs))
        self._reachable = _reachable(self._view, table.roots)
        self._users = self._all_users()
        self._axes = ordered(frozenset[Axis]().union(*(table.free(c) for c in self._reachable)))
        self._copies: dict[int, dict[int, Expr]] = {}
        self._below: dict[int, frozenset[int]] = {}
        self._bodies: dict[tuple[tuple[int, ...], frozenset[int]], Bodies] = {}
        self._tensors: dict[int, Tensor] = {}
        self._axis_order = _axis_order(program)
        self._groupings = self._list_groupings()

    def plans(self) -> Iterator[SGraph]:
        """Every plan within the limits, by the traffic of its cuts, without duplicates."""
        seen: set[tuple[Kernel, ...]] = set()
        for cuts in self._cut_sets():
            self.cut_sets += 1
            for roots in self._groupings:
                for kernels in self._kernels(cuts, roots):
                    if kernels not in seen:
                        seen.add(kernels)
                        yield SGraph(self.program, kernels)

    def _list_groupings(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Ways to group the outputs into kernels: together, apart, then what lies between."""
        outputs = tuple(range(len(self.table.roots)))
        apart = tuple((i,) for i in outputs)
        found: dict[tuple[tuple[int, ...], ...], None] = {(outputs,): None, apart: None} if outputs else {(): None}
        for grouping in itertools.islice(_partitions(outputs), self.limits.groupings):
            if len(found) < self.limits.groupings:
                found[grouping] = None
        self.dropped["limit: groupings of outputs"] += _number_of_partitions(len(outputs)) - len(found)
        return tuple(found)

    # ------------------------------------------------------------------------------------------ cuts

    def _cut_sets(self) -> Iterator[tuple[int, ...]]:
        """Sets of stored classes, cheapest first, made only as they are asked for."""
        candidates = sorted(self.candidates(), key=self._cut_cost)
        costs = [self._cut_cost(c) for c in candidates]
        most = min(self.limits.stored, len(candidates))
        possible = sum(math.comb(len(candidates), n) for n in range(most + 1))
        heap: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for _ in range(min(possible, self.limits.cut_sets)):
            cost, chosen = heapq.heappop(heap)
            yield tuple(sorted(candidates[i] for i in chosen))
            following = chosen[-1] + 1 if chosen else 0
            if following == len(candidates):
                continue
            if len(chosen) < most:
                heapq.heappush(heap, (cost + costs[following], (*chosen, following)))
            if chosen:
                heapq.heappush(heap, (cost - costs[following - 1] + costs[following], (*chosen[:-1], following)))
        self.dropped["limit: sets of stored tensors"] += max(0, possible - self.limits.cut_sets)

    def _cut_cost(self, cls: int) -> float:
        """Seconds that storing a class and reading it again costs at least."""
        moved = tensor_bytes(self._tensor(cls), self.sizes)
        dram_s = 2 * moved / self.target.dram_bytes_per_s if moved > self.target.l2_bytes else 0.0
        return self.target.launch_s + dram_s + 2 * moved / self.target.l2_bytes_per_s

    def candidates(self) -> tuple[int, ...]:
        """Classes worth storing: reductions below them, no larger than the program's tensors, chain ends."""
        reasons = {cls: self._unstorable(cls) for cls in self._reachable if not self._given(cls)}
        self.dropped.update(reason for reason in reasons.values() if reason)
        found = [c for c, reason in reasons.items() if not reason and self._chain_end(c, reasons)]
        kept: dict[int, None] = {}
        copies: set[int] = set()
        # Of classes that are one tensor under copies of its axes, the one with the plainest axes is stored.
        for cls in sorted(found, key=lambda c: (sum(a.copy for a in self.table.free(c)), c)):
            if cls not in copies:
                kept[cls] = None
                copies.update(self._views(cls))
        return tuple(kept)

    def _given(self, cls: int) -> bool:
        """Whether a class is in memory in every plan: an input, a constant, an output."""
        return self._view.terminal(cls) or cls in self.table.roots

    def _unstorable(self, cls: int) -> str:
        """The limit that keeps a class from being stored; empty if there is none."""
        value = self.table.representative(cls)
        tensors = (*self.program.inputs, *(o.tensor for o in self.program.outputs))
        if not any(n.op in REDUCTIONS for n in walk([value])):
            return "limit: intermediate without a reduction"
        if elements(self.table.free(cls), self.sizes) > max(elements(t.named_axes, self.sizes) for t in tensors):
            return "limit: intermediate larger than every input and output"
        return "limit: scaled value stored between kernels" if carries_scale(value) else ""

    def _chain_end(self, cls: int, reasons: Mapping[int, str]) -> bool:
        """Whether storing a class is more than storing the one that all its users compute from it.

        Where its only user applies a unary operator or a constant, that one is as large, can be stored too (or is
        an output) and saves work.
        """
        users = self._users.get(cls, ())
        only = {user for user, _ in users}
        if len(only) != 1 or not all(self._view.constant(o) for _, others in users for o in others):
            return bool(only)
        (user,) = only
        same = self.table.free(user) == self.table.free(cls)
        return not same or bool(reasons.get(user, ""))

    def _all_users(self) -> Mapping[int, list[tuple[int, tuple[int, ...]]]]:
        """For each class, the classes computed from it and the other operands."""
        users: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        for user in self._reachable:
            for node in self.table.nodes(user):
                for i, argument in enumerate(node.args):
                    if argument != user:
                        others = node.args[:i] + node.args[i + 1 :]
                        users.setdefault(argument, []).append((user, others))
        return users

    # ------------------------------------------------------------------------------------------ kernels

    def _kernels(self, cuts: tuple[int, ...], roots: tuple[tuple[int, ...], ...]) -> Iterator[tuple[Kernel, ...]]:
        """The plans that store exactly these classes, outputs grouped into kernels as given."""
        outputs = dict.fromkeys(r for r in self.table.roots if not self._view.terminal(r))
        targets = [*((c,) for c in cuts), *(tuple(self.table.roots[i] for i in group) for group in roots)]
        stored = frozenset((*cuts, *outputs))
        writer = {cls: i for i, cls in enumerate(cuts)}
        # Of outputs that are equal the first one is what other kernels read.
        first = {self.table.roots.index(cls): cls for cls in outputs}
        writer |= {first[o]: len(cuts) + i for i, group in enumerate(roots) for o in group if o in first}
        options: list[list[tuple[frozenset[int], tuple[Expr, ...]]]] = []
        for target in targets:
            below = frozenset[int]().union(*(self._classes_below(t) for t in target))
            others = sorted(c for c in stored - set(target) if not below.isdisjoint(self._views(c)))
            most = min(len(others), self.limits.reads)
            self.dropped["limit: stored tensors read by one kernel"] += 2 ** len(others) - sum(
                math.comb(len(others), n) for n in range(most + 1)
            )
            options.append(
                [
                    (frozenset(read), values)
                    for n in range(most + 1)
                    for read in itertools.combinations(others, n)
                    for values in self._bodies_of(target, frozenset(read))
                ]
            )
        for choice in itertools.product(*options):
            order = _order(writer, [reads for reads, _ in choice])
            read = frozenset[int]().union(*(reads for reads, _ in choice))
            if order is None or not set(cuts) <= read:
                continue
            yield self._assemble(targets, roots, len(cuts), [choice[i][1] for i in range(len(choice))], order)

    def _views(self, cls: int) -> dict[int, Expr]:
        """The leaves that read a stored class, under its own axes and under copies of them (``h[i]``, ``h[j]``)."""
        if cls not in self._copies:
            value, tensor = self.table.representative(cls), self._tensor(cls)
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

    def _classes_below(self, cls: int) -> frozenset[int]:
        """Every class that some computation of a class can go through."""
        if cls not in self._below:
            self._below[cls] = frozenset(_reachable(self._view, (cls,)))
        return self._below[cls]

    def _bodies_of(self, target: tuple[int, ...], read: frozenset[int]) -> tuple[tuple[Expr, ...], ...]:
        """Bodies that compute the target classes and use every stored class in ``read``."""
        key = (target, read)
        if key not in self._bodies:
            stored = {view: leaf for c in sorted(read) for view, leaf in self._views(c).items()}
            leaf_of = {**{c: leaf for c, leaf in stored.items() if c not in target}, **self._inputs}
            view = View(self.table, frozenset(leaf_of))
            found = bodies(view, target, leaf_of, self.sizes, self.limits.bodies)
            self.dropped["dominated"] += found.dominated
            self.dropped["limit: bodies of one kernel"] += found.cut_off
            self.dropped.update(view.dropped)
            needed = {self._tensor(c).name for c in read}
            used = tuple(v for v in found.values if needed <= _names(v))
            self._bodies[key] = Bodies(used, found.dominated, found.cut_off)
        return self._bodies[key].values

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
                stores = (Store(stored, values[i][0], self.table.representative(cls)),)
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
                finite = self.table.representative(cls).finite
                self._tensors[cls] = Tensor(name, tuple(axes), dtype, finite=finite)
        return self._tensors[cls]

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


def _only_in_dots(values: Sequence[Sequence[Expr]]) -> frozenset[str]:
    """Tensors whose every use is as a factor of a dot product."""
    inside: set[str] = set()
    outside: set[str] = set()
    for roots in values:
        contracted: set[Expr] = set()
        for node in walk(roots):
            if is_dot(node):
                contracted.update(f for f in factors(reduction(node)[1]) if f.op is Op.LEAF)
        inside |= {f.name for f in contracted}
        outside |= _used_elsewhere(roots)
    return frozenset(inside - outside)


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


def _order(writer: Mapping[int, int], reads: Sequence[frozenset[int]]) -> list[int] | None:
    """Kernels in an order in which each reads what was stored before, None if there is none."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(reads)))
    graph.add_edges_from((writer[c], i) for i, needed in enumerate(reads) for c in sorted(needed))
    try:
        return list(nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible:
        return None
