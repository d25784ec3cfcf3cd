"""Plans: where a program is cut into kernels, and what each kernel computes from what.

A plan is a set of stored classes and, for every kernel, one definition of each class it needs. Any class of
the table can be stored, a partial product included, because reading the table stops at stored classes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from sgraph.axis import Axis
from sgraph.bounds import is_dot, tensor_bytes
from sgraph.dags import Bodies, bodies, elements
from sgraph.expr import REDUCTIONS, Expr, Op, factors, reduction, walk
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
        self._bodies: dict[tuple[tuple[int, ...], frozenset[int]], Bodies] = {}
        self._tensors: dict[int, Tensor] = {}
        self._axis_order = _axis_order(program)

    def plans(self) -> Iterator[SGraph]:
        """Every plan within the limits, by the traffic of its cuts, without duplicates."""
        seen: set[tuple[Kernel, ...]] = set()
        for cuts in self._cut_sets():
            self.cut_sets += 1
            for roots in _partitions(tuple(range(len(self.table.roots)))):
                for kernels in self._kernels(cuts, roots):
                    if kernels not in seen:
                        seen.add(kernels)
                        yield SGraph(self.program, kernels)

    # ------------------------------------------------------------------------------------------ cuts

    def _cut_sets(self) -> Iterator[tuple[int, ...]]:
        candidates = self.candidates()
        sets = [s for n in range(self.limits.stored + 1) for s in itertools.combinations(candidates, n)]
        sets.sort(key=lambda s: sum(self._cut_cost(c) for c in s))
        self.dropped["limit: sets of stored tensors"] += max(0, len(sets) - self.limits.cut_sets)
        yield from sets[: self.limits.cut_sets]

    def _cut_cost(self, cls: int) -> float:
        """Seconds that storing a class and reading it again costs at least."""
        moved = tensor_bytes(self._tensor(cls), self.sizes)
        dram_s = 2 * moved / self.target.dram_bytes_per_s if moved > self.target.l2_bytes else 0.0
        return self.target.launch_s + dram_s + 2 * moved / self.target.l2_bytes_per_s

    def candidates(self) -> tuple[int, ...]:
        """Classes worth storing: reductions below them, no larger than the program's tensors, chain ends."""
        view = View(self.table, frozenset(self._inputs))
        tensors = (*self.program.inputs, *(o.tensor for o in self.program.outputs))
        largest = max(elements(t.named_axes, self.sizes) for t in tensors)
        found: list[int] = []
        for cls in _reachable(view, self.table.roots):
            if view.terminal(cls) or cls in self.table.roots or not self._has_reduction(cls):
                continue
            if elements(self.table.free(cls), self.sizes) > largest:
                self.dropped["limit: intermediate larger than every input and output"] += 1
            elif carries_scale(self.table.representative(cls)):
                self.dropped["limit: scaled value stored between kernels"] += 1
            elif self._chain_end(view, cls):
                found.append(cls)
        return tuple(found)

    def _has_reduction(self, cls: int) -> bool:
        return any(n.op in REDUCTIONS for n in walk([self.table.representative(cls)]))

    def _chain_end(self, view: View, cls: int) -> bool:
        """Whether some user does more than apply one more unary operator or constant to the class.

        A chain of those is stored at its end: the same bytes, less repeated work.
        """
        users = self._users().get(cls, ())
        own = self.table.free(cls)
        for user, others in users:
            scalar = all(view.constant(o) for o in others)
            if not scalar or self.table.free(user) != own:
                return True
        return not users

    def _users(self) -> Mapping[int, list[tuple[int, tuple[int, ...]]]]:
        """For each class, the classes computed from it and the other operands."""
        users: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        view = View(self.table, frozenset(self._inputs))
        for user in _reachable(view, self.table.roots):
            for node in self.table.nodes(user):
                for i, argument in enumerate(node.args):
                    if argument != user:
                        others = node.args[:i] + node.args[i + 1 :]
                        users.setdefault(argument, []).append((user, others))
        return users

    # ------------------------------------------------------------------------------------------ kernels

    def _kernels(self, cuts: tuple[int, ...], roots: tuple[tuple[int, ...], ...]) -> Iterator[tuple[Kernel, ...]]:
        """The plans that store exactly these classes, outputs grouped into kernels as given."""
        root_classes = tuple(dict.fromkeys(self.table.roots))
        targets = [*((c,) for c in cuts), *(tuple(self.table.roots[i] for i in group) for group in roots)]
        stored = frozenset((*cuts, *root_classes))
        options: list[list[tuple[frozenset[int], tuple[Expr, ...]]]] = []
        for target in targets:
            others = sorted(stored - set(target))
            options.append(
                [
                    (frozenset(read), values)
                    for n in range(len(others) + 1)
                    for read in itertools.combinations(others, n)
                    for values in self._bodies_of(target, frozenset(read))
                ]
            )
        for choice in itertools.product(*options):
            order = _order(targets, [reads for reads, _ in choice])
            read = frozenset[int]().union(*(reads for reads, _ in choice))
            if order is None or not set(cuts) <= read:
                continue
            yield self._assemble(targets, roots, len(cuts), [choice[i][1] for i in range(len(choice))], order)

    def _bodies_of(self, target: tuple[int, ...], read: frozenset[int]) -> tuple[tuple[Expr, ...], ...]:
        """Bodies that compute the target classes and use every stored class in ``read``."""
        key = (target, read)
        if key not in self._bodies:
            leaf_of = {**self._inputs, **{c: self._tensor(c).read() for c in sorted(read)}}
            view = View(self.table, frozenset(leaf_of))
            found = bodies(view, target, leaf_of, self.sizes, self.limits.bodies)
            self.dropped["dominated"] += found.dominated
            self.dropped["limit: bodies of one kernel"] += found.cut_off
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
        return Tensor(tensor.name, tensor.axes, max(floating, key=lambda d: d.bytes, default=DType.FP32))

    def _tensor(self, cls: int) -> Tensor:
        """The tensor that holds a class: an output's own, or a new intermediate in float32."""
        if cls not in self._tensors:
            for output, root in zip(self.program.outputs, self.table.roots, strict=True):
                if root == cls:
                    self._tensors[cls] = output.tensor
                    break
            else:
                axes = sorted(self.table.free(cls), key=lambda a: (self._axis_order[a.base], a.key))
                self._tensors[cls] = Tensor(f"t{cls}", tuple(axes), DType.FP32)
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


def _order(targets: Sequence[tuple[int, ...]], reads: Sequence[frozenset[int]]) -> list[int] | None:
    """Kernels in an order in which each reads what was stored before, None if there is none."""
    writer = {cls: i for i, target in enumerate(targets) for cls in target}
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(targets)))
    graph.add_edges_from((writer[c], i) for i, needed in enumerate(reads) for c in sorted(needed))
    try:
        return list(nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible:
        return None
