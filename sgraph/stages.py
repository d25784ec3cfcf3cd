"""Stages from roles: where in a kernel each value is loaded, computed, accumulated and stored.

The algorithm places every value at the outermost point where all it needs is known, which yields prologue,
loops, interludes, further passes over an axis and epilogue without naming them. A value that varies over a
loop axis, and an accumulator that does, exists within one iteration only: a later pass that needs it emits it
again. Avoiding that is what the role ``whole`` is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Final

import networkx as nx

from sgraph.axis import Axis, ordered
from sgraph.expr import REDUCTIONS, Expr, Op, factors, reduction
from sgraph.ir import Kernel, Role, Store
from sgraph.scaled import online_scale, stabilise
from sgraph.schedule import (
    Accumulate,
    Compute,
    Load,
    Loop,
    Merge,
    Phase,
    Reduce,
    Schedule,
    Statement,
    Write,
    WritePartial,
)

TRIVIAL: Final = frozenset({Op.CONST, Op.EXTENT, Op.INDEX, Op.NEG_INF})
"""Values that need no statement: they are written where they are used."""

MAX_NESTING: Final = 2
"""Loops inside one another. A limit, not a proof: deeper nests are reported as such."""


class Unschedulable(Exception):
    """A role assignment that has no schedule; the message is the reason a family is dropped for."""


def derive(kernel: Kernel) -> Schedule:
    """The schedule of a kernel whose roles are decided.

    Raises:
        Unschedulable: loops would have to nest in a cycle or too deep, or a split axis has a later pass.
    """
    return _Staging(kernel).schedule()


@lru_cache(maxsize=65_536)
def atoms_of(value: Expr) -> tuple[Expr, ...]:
    """The atoms that a value is computed from: its operands with products flattened, trivial ones left out."""
    operands = (reduction(value)[1],) if value.op in REDUCTIONS else value.args
    found = [f for operand in operands for f in factors(operand) if f.op not in TRIVIAL]
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4096)
def _stabilised(value: Expr) -> Expr:
    """The same for every role assignment of a kernel."""
    return stabilise(value)


@dataclass(frozen=True, slots=True)
class _Group:
    """Reductions that are accumulated by one statement."""

    values: tuple[Expr, ...]
    scale: Expr | None
    needs: tuple[Expr, ...]
    axes: frozenset[Axis]

    @property
    def state(self) -> tuple[Expr, ...]:
        return self.values if self.scale is None else (self.scale, *self.values)


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to emit at the end of a path of loops: a store or an accumulation."""

    work: _Group | Store
    needs: tuple[Expr, ...]
    path: tuple[tuple[Axis, int], ...]
    """Loop axes, outer first, each with the pass over it."""


class _Staging:
    """The working state of one derivation."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.loops = frozenset(kernel.with_role(Role.LOOP)) | frozenset(kernel.with_role(Role.SPLIT))
        self.stores = [(store, _stabilised(store.value)) for store in kernel.stores]
        self.atoms = _dependency_order([a for _, value in self.stores for a in _store_needs(value)])
        self.passes: dict[Expr, Mapping[Axis, int]] = {}
        self.online: dict[Expr, Expr] = {}
        self._count_passes()
        self.group = self._groups()
        self.nest = self._nest_order()

    # ------------------------------------------------------------------------------------------ analysis

    def context(self, axes: Iterable[Axis]) -> frozenset[Axis]:
        return self.loops & frozenset(axes)

    def needs(self, value: Expr) -> tuple[Expr, ...]:
        """What must be available to emit a value; an online sum needs its exponent, not the finished scale."""
        scale = self.online.get(value)
        return atoms_of(value) if scale is None else _online_needs(value, scale)

    def reduced(self, value: Expr) -> frozenset[Axis]:
        """The loop axes that a value accumulates over."""
        return self.context(reduction(value)[0]) if value.op in REDUCTIONS else frozenset()

    def operand_passes(self, needs: Iterable[Expr]) -> dict[Axis, int]:
        found = list(needs)
        return {a: max((self.passes[n][a] for n in found), default=0) for a in self.loops}

    def _count_passes(self) -> None:
        for value in self.atoms:
            scale = online_scale(value) if self.reduced(value) else None
            if scale is not None and self._in_step(value, scale):
                self.online[value] = scale
            before = self.operand_passes(self.needs(value))
            after = self.reduced(value)
            self.passes[value] = {a: p + (a in after) for a, p in before.items()}

    def _in_step(self, value: Expr, scale: Expr) -> bool:
        """Whether a sum and its scale can be accumulated by one statement: same loops, same passes."""
        mine, its = _online_needs(value, scale), atoms_of(scale)
        same_loops = self.context(_free(mine)) == self.context(_free(its))
        return same_loops and self.operand_passes(mine) == self.operand_passes(its)

    def _groups(self) -> dict[Expr, _Group]:
        """The accumulation that each loop reduction belongs to."""
        sums: dict[Expr, list[Expr]] = {}
        for value, scale in self.online.items():
            sums.setdefault(scale, []).append(value)
        found: dict[Expr, _Group] = {}
        for value in self.atoms:
            if not self.reduced(value) or value in self.online:
                continue
            members = tuple(sums.get(value, ()))
            scale = value if members else None
            values = members or (value,)
            needs = tuple(dict.fromkeys(n for v in (value, *members) for n in self.needs(v)))
            group = _Group(values, scale, needs, frozenset(reduction(value)[0]))
            found.update(dict.fromkeys(group.state, group))
        return found

    def _nest_order(self) -> tuple[Axis, ...]:
        """Loop axes, outer first: a reduced axis lies inside every loop axis its result still varies over."""
        graph: nx.DiGraph[Axis] = nx.DiGraph()
        graph.add_nodes_from(ordered(self.loops))
        for group in self.group.values():
            context = self.context(_free(group.needs))
            graph.add_edges_from((outer, a) for outer in context - group.axes for a in context & group.axes)
        try:
            return tuple(nx.lexicographical_topological_sort(graph, key=attrgetter("key")))
        except nx.NetworkXUnfeasible:
            raise Unschedulable("the loops would have to lie inside one another in a cycle") from None

    def path(self, needs: Sequence[Expr], entered: frozenset[Axis] = frozenset()) -> tuple[tuple[Axis, int], ...]:
        """The loops, not yet entered, that lead to work with these needs, and the pass over each."""
        axes = self.context(_free(needs))
        if len(axes) > MAX_NESTING:
            raise Unschedulable(f"limit: loops nested more than {MAX_NESTING} deep")
        passes = self.operand_passes(needs)
        return tuple((a, passes[a]) for a in self.nest if a in axes - entered)

    # ------------------------------------------------------------------------------------------ emission

    def schedule(self) -> Schedule:
        split = self.kernel.with_role(Role.SPLIT)
        grid = self._grid()
        if not split:
            items = [_Item(store, n, self.path(n)) for store, n in self._store_items()]
            phases = (Phase("main", grid, None, self._scope(items, frozenset(), set())),)
        else:
            phases = self._split_phases(split[0], grid)
        return Schedule(self.kernel, phases)

    def _store_items(self) -> list[tuple[Store, tuple[Expr, ...]]]:
        return [(Store(store.tensor, value, store.claim), tuple(_store_needs(value))) for store, value in self.stores]

    def _grid(self) -> tuple[Axis, ...]:
        """Grid axes in the order of the first stored tensor."""
        grid = self.kernel.with_role(Role.GRID)
        order = self.kernel.stores[0].tensor.named_axes
        return tuple(sorted(grid, key=lambda a: (order.index(a) if a in order else len(order), a.key)))

    def _split_phases(self, split: Axis, grid: tuple[Axis, ...]) -> tuple[Phase, Phase]:
        groups = [g for g in dict.fromkeys(self.group.values()) if not self.context(_free(g.state))]
        if any(split in g.axes and g not in groups for g in self.group.values()):
            raise Unschedulable("a partial result of a split axis varies over a loop")
        for group in groups:
            if split not in group.axes:
                raise Unschedulable("a reduction beside a split axis does not take part in the split")
            if self.operand_passes(group.needs)[split]:
                raise Unschedulable("a later reduction needs a finished one over a split axis")
        if any(split in value.free for _, value in self.stores):
            raise Unschedulable("an axis is split, and a result varies over it")
        items = [_Item(g, g.needs, self.path(g.needs)) for g in groups]
        body = self._scope(items, frozenset(), set(), started=False)
        partials = tuple(WritePartial(v) for g in groups for v in g.state)
        merged = {v for g in groups for v in g.state}
        merges: tuple[Statement, ...] = tuple(Merge(g.values, g.scale) for g in groups)
        stores = [_Item(store, n, self.path(n)) for store, n in self._store_items()]
        tail = self._scope(stores, frozenset(), merged)
        return Phase("main", grid, split, (*body, *partials)), Phase("combine", grid, split, (*merges, *tail))

    def _scope(
        self, given: Sequence[_Item], entered: frozenset[Axis], available: set[Expr], *, started: bool = True
    ) -> tuple[Statement, ...]:
        """The statements of one loop body (or of the kernel): the given work and what it needs here.

        ``started`` says that the given accumulations were set to their unit further out.
        """
        local = self._local_groups(given, entered, available)
        fresh = set(local) if started else {*local, *(i.work for i in given if isinstance(i.work, _Group))}
        items = [*given, *(_Item(g, g.needs, self.path(g.needs, entered)) for g in local)]
        out: list[Statement] = []
        while items:
            bundle = self._next_bundle(items, available)
            items = [i for i in items if i not in bundle]
            out.extend(self._place(bundle, entered, available))
            if not bundle[0].path:
                out.extend(_leaf_statement(bundle[0]))
                continue
            axis = bundle[0].path[0][0]
            start = tuple(v for i in bundle if isinstance(i.work, _Group) and i.work in fresh for v in i.work.state)
            inner = [_Item(i.work, i.needs, i.path[1:]) for i in bundle]
            out.append(Loop(axis, start, self._scope(inner, entered | {axis}, set(available))))
            available.update(start)
        return tuple(out)

    def _local_groups(
        self, given: Sequence[_Item], entered: frozenset[Axis], available: set[Expr]
    ) -> tuple[_Group, ...]:
        """Accumulations that the given work needs and that can be finished here."""
        held = {i.work for i in given if isinstance(i.work, _Group)}
        found: dict[_Group, None] = {}
        for value in self._missing([n for i in given for n in i.needs], available):
            group = self.group.get(value)
            if group is not None and group not in held and self.context(_free(group.state)) <= entered:
                found[group] = None
        return tuple(found)

    def _missing(self, needs: Iterable[Expr], available: set[Expr]) -> list[Expr]:
        """Everything not yet available below ``needs``, operands first."""
        return _dependency_order(list(needs), self.needs, stop=available)

    def _next_bundle(self, items: Sequence[_Item], available: set[Expr]) -> list[_Item]:
        """The work to emit next: a statement, or all work that shares the next loop and pass."""
        pending = {v for i in items if isinstance(i.work, _Group) for v in i.work.state}

        def ready(item: _Item) -> bool:
            own: set[Expr] = set(item.work.state) if isinstance(item.work, _Group) else set()
            return not any(v in pending and v not in own for v in self._missing(item.needs, available))

        able = [i for i in items if ready(i)]
        assert able, "work items wait for one another"
        for item in able:
            if not item.path:
                return [item]
        heads = list(dict.fromkeys(i.path[0] for i in able))
        complete = [h for h in heads if all(i in able for i in items if i.path and i.path[0] == h)]
        head = (complete or heads)[0]
        return [i for i in able if i.path[0] == head]

    def _place(self, bundle: Sequence[_Item], entered: frozenset[Axis], available: set[Expr]) -> list[Statement]:
        """Loads and computations that the bundle needs and that can stand here, outside its loops."""
        out: list[Statement] = []
        for value in self._missing([n for i in bundle for n in i.needs], available):
            if value in self.group or not self.context(value.free) <= entered:
                continue
            match value.op:
                case Op.LEAF:
                    out.append(Load(value))
                case op if op in REDUCTIONS:
                    out.append(Reduce(value))
                case _:
                    out.append(Compute(value))
            available.add(value)
        return out


def _leaf_statement(item: _Item) -> list[Statement]:
    if isinstance(item.work, Store):
        return [Write(item.work.tensor, item.work.value)]
    return [Accumulate(item.work.values, item.work.scale)]


def _free(values: Iterable[Expr]) -> frozenset[Axis]:
    return frozenset[Axis]().union(*(v.free for v in values))


def _store_needs(value: Expr) -> list[Expr]:
    return [f for f in dict.fromkeys(factors(value)) if f.op not in TRIVIAL]


def _online_needs(value: Expr, scale: Expr) -> tuple[Expr, ...]:
    """Needs of a sum accumulated relative to its running maximum: the exponent itself and the other factors."""
    exponent = reduction(scale)[1]
    others = [f for f in factors(reduction(value)[1]) if f.op is not Op.EXP or not _shifted_by(f, scale)]
    found = [f for f in (*others, *factors(exponent)) if f.op not in TRIVIAL]
    return tuple(dict.fromkeys(found))


def _shifted_by(exponential: Expr, scale: Expr) -> bool:
    inner = exponential.args[0]
    return inner.op is Op.ADD and scale in factors(inner.args[1])


def _dependency_order(
    roots: Sequence[Expr],
    needs: Callable[[Expr], tuple[Expr, ...]] = atoms_of,
    stop: Collection[Expr] = frozenset(),
) -> list[Expr]:
    """Every atom below the roots once, operands first, not descending below ``stop``."""
    done: dict[Expr, None] = {}
    stack = [(r, False) for r in reversed(roots)]
    while stack:
        value, expanded = stack.pop()
        if value in done or value in stop:
            continue
        if expanded:
            done[value] = None
        else:
            stack.append((value, True))
            stack.extend((n, False) for n in reversed(needs(value)))
    return list(done)
