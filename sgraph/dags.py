"""Kernel bodies: every useful way to compute some classes in one kernel from what it may read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sgraph.axis import Axis
from sgraph.expr import (
    REDUCTIONS,
    Expr,
    Op,
    factors,
    leaves,
    make,
    max_over,
    min_over,
    product,
    reduction,
    sum_over,
    walk,
)
from sgraph.view import Definition, Flat, View, widest_spans

Part = tuple[str, frozenset[Axis]]
"""One operator of a body: its kind (``dot``, ``reduction``, ``special``, ``simple``) and its index space."""

STEPS_PER_BODY: Final = 20
"""Steps of the search for bodies per body of its limit: what ends a search that finds too few."""

FREE: Final = frozenset({Op.LEAF, Op.CONST, Op.EXTENT, Op.INDEX, Op.MUL, Op.NEG_INF})
"""Operators that are not counted as work."""

SPECIAL: Final = frozenset({Op.RECIP, Op.SQRT, Op.EXP, Op.LOG, Op.CALL})
"""Pointwise operators that cost more than an addition or a comparison."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel body costs, whatever its roles: compared part by part, never added up."""

    reads: frozenset[str]
    """Tensors it loads."""
    parts: Mapping[Part, int]
    """How many operators of each kind and index space it has."""
    passes: Mapping[Axis, int]
    """Per axis the longest chain of reductions over it that wait for one another."""
    flops: int
    """Multiply-adds of its reductions, counted twice."""
    pointwise: int
    """Elements computed by other operators."""
    operators: int = field(init=False, compare=False)
    """How many operators it has."""
    uses_dots: bool = field(init=False, compare=False)
    """Bodies with and without dot products are tiled differently and not comparable."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", sum(self.parts.values()))
        object.__setattr__(self, "uses_dots", any(kind == "dot" for kind, _ in self.parts))

    def covers(self, other: Work) -> bool:
        """Whether this work is part by part no more than the other, at any extents and under any roles."""
        return (
            self.flops <= other.flops
            and self.pointwise <= other.pointwise
            and self.uses_dots == other.uses_dots
            and self.no_deeper(other.passes)
            and self.within(other)
        )

    def within(self, other: Work) -> bool:
        """Whether it reads no other tensors, and each of its operators can be charged to one of the other's."""
        return self.reads <= other.reads and _injects(self.parts, other.parts)

    def no_deeper(self, passes: Mapping[Axis, int]) -> bool:
        """Whether no axis has a longer chain of reductions than it has there."""
        return all(depth <= passes.get(axis, 0) for axis, depth in self.passes.items())


def _injects(small: Mapping[Part, int], large: Mapping[Part, int]) -> bool:
    """Whether every part can be charged to one of the others that does at least as much.

    Equal parts are paired first, which loses nothing; the rest greedily, which may miss a pairing and then
    keeps a body too many.
    """
    left = Counter(small) - Counter(large)
    room = Counter(large) - Counter(small)
    for (kind, space), count in sorted(left.items(), key=lambda item: -len(item[0][1])):
        kinds = {kind, "special"} if kind == "simple" else {kind}
        fitting = [p for p in room if p[0] in kinds and space <= p[1]]
        for _ in range(count):
            found = next((p for p in fitting if room[p]), None)
            if found is None:
                return False
            room[found] -= 1
    return True


@dataclass(frozen=True, slots=True)
class Bodies:
    """The kernel bodies for some targets, and how many were set aside."""

    values: tuple[tuple[Expr, ...], ...]
    """Per body, one expression per target."""
    dominated: int
    """Bodies that do a superset of another's work."""
    cut_off: bool
    """Whether the limit was reached before all were listed."""


def bodies(
    view: View, targets: Sequence[int], leaf_of: Mapping[int, Expr], sizes: Mapping[Axis, int], limit: int
) -> Bodies:
    """Every body that computes the target classes and reads all that ``leaf_of`` requires, Pareto-best first.

    Args:
        view: the table, with the readable classes as terminals.
        targets: classes to compute, one per stored tensor.
        leaf_of: the leaf that reads each readable class.
        sizes: extents at which work is compared.
        limit: how many bodies to list at most before comparing them.
    """
    return _Search(view, tuple(targets), leaf_of, sizes, limit).run()


@dataclass(frozen=True, slots=True)
class _State:
    """A partial choice: one definition for some atoms, and the atoms that still need one."""

    flats: tuple[Flat, ...]
    chosen: Mapping[int, Definition]
    todo: tuple[int, ...]
    work: Work
    """Of the chosen definitions, by the axes of their classes: no completion does less."""


class _Search:
    """Bodies by depth-first search over an agenda of atoms, cheap definitions first.

    A partial choice whose work so far a body already found covers is given up: so would every completion of it be.
    """

    def __init__(
        self,
        view: View,
        targets: tuple[int, ...],
        leaf_of: Mapping[int, Expr],
        sizes: Mapping[Axis, int],
        limit: int,
    ) -> None:
        self.view = view
        self.targets = targets
        self.leaf_of = leaf_of
        self.sizes = sizes
        self.limit = limit
        self.found: dict[tuple[Expr, ...], Work] = {}
        self.covered = 0
        """Choices given up because a body that was found does no more."""
        self._costs: dict[tuple[int, Definition], Work] = {}

    def run(self) -> Bodies:
        listed = 0
        cut_off = False
        for step, state in enumerate(self._states()):
            if listed == self.limit or step > STEPS_PER_BODY * self.limit:
                cut_off = True
                break
            if not state.todo:
                listed += 1
                values = tuple(_expression(self.view, flat, state.chosen, self.leaf_of) for flat in state.flats)
                if values not in self.found:
                    self.found[values] = work(values, self.sizes)
        kept, dominated = _pareto(self.found, self.sizes)
        return Bodies(tuple(kept), dominated + self.covered, cut_off)

    def _states(self) -> Iterator[_State]:
        for flats in itertools.product(*(self.view.flats(t) for t in self.targets)):
            terminals = [a for flat in flats for a in flat if self.view.terminal(a)]
            agenda = tuple(dict.fromkeys(a for flat in flats for a in flat if not self.view.terminal(a)))
            stack = [_State(flats, {}, agenda, Work(self._names(terminals), {}, {}, 0, 0))]
            while stack:
                state = stack.pop()
                if self._given_up(state):
                    continue
                yield state
                if state.todo:
                    stack.extend(reversed(self._next(state)))

    def _next(self, state: _State) -> list[_State]:
        """The state with its most constrained atom defined in every way, cheapest first."""
        ways = [self._ways(atom, state.chosen) for atom in state.todo]
        position = min(range(len(ways)), key=lambda i: len(ways[i]))
        atom = state.todo[position]
        rest = state.todo[:position] + state.todo[position + 1 :]
        waiting = {*state.todo, *state.chosen}
        out: list[_State] = []
        for definition in ways[position]:
            needed = (a for a in definition.atoms if a not in waiting and not self.view.terminal(a))
            chosen = {**state.chosen, atom: definition}
            out.append(_State(state.flats, chosen, (*rest, *needed), _joined(state.work, self._cost(atom, definition))))
        out.sort(key=lambda s: (s.work.flops + s.work.pointwise, len(s.todo)))
        return out

    def _ways(self, atom: int, chosen: Mapping[int, Definition]) -> Sequence[Definition]:
        """The definitions of an atom that do not need the atom itself."""
        definitions = self.view.definitions(atom)
        return [d for d in definitions if not _reaches(d, atom, chosen)]

    def _given_up(self, state: _State) -> bool:
        so_far = state.work
        for done in self.found.values():
            if done.flops > so_far.flops or done.pointwise > so_far.pointwise or done.operators > so_far.operators:
                continue
            # What is not chosen yet may add dot products, which makes bodies incomparable.
            if done.uses_dots != so_far.uses_dots or (state.todo and not done.uses_dots and self._contracts):
                continue
            if done.within(so_far) and done.no_deeper(self._passes(state)):
                self.covered += 1
                return True
        return False

    @property
    def _contracts(self) -> bool:
        """Whether any sum of the table has two operands with axes of their own."""
        return self.view.readings.contracts

    def _passes(self, state: _State) -> Mapping[Axis, int]:
        """As in ``Work.passes``, of the definitions chosen so far."""
        done: dict[int, dict[Axis, int]] = {}
        deepest: dict[Axis, int] = {}
        stack = [a for flat in state.flats for a in flat]
        while stack:
            atom = stack[-1]
            definition = state.chosen.get(atom)
            missing = [] if definition is None else [a for a in definition.atoms if a not in done]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            below: dict[Axis, int] = {}
            if definition is not None and atom not in done:
                for operand in definition.atoms:
                    for axis, depth in done[operand].items():
                        below[axis] = max(below.get(axis, 0), depth)
                for axis in definition.axes:
                    below[axis] = below.get(axis, 0) + 1
                    deepest[axis] = max(deepest.get(axis, 0), below[axis])
                done[atom] = below
            done.setdefault(atom, below)
        return deepest

    def _cost(self, atom: int, definition: Definition) -> Work:
        """The work of one definition by itself."""
        key = (atom, definition)
        if key not in self._costs:
            self._costs[key] = self._priced(atom, definition)
        return self._costs[key]

    def _priced(self, atom: int, definition: Definition) -> Work:
        table = self.view.table
        names = self._names(a for a in definition.atoms if self.view.terminal(a))
        if definition.op in REDUCTIONS:
            axes = frozenset(definition.axes)
            free = [table.free(a) for a in definition.atoms]
            space = axes.union(*free)
            dot = definition.op is Op.SUM and len(widest_spans(free, axes)) == 2
            return Work(names, {("dot" if dot else "reduction", space): 1}, {}, 2 * elements(space, self.sizes), 0)
        if definition.op in FREE:
            return Work(names, {}, {}, 0, 0)
        space = table.free(atom)
        kind = "special" if definition.op in SPECIAL else "simple"
        return Work(names, {(kind, space): 1}, {}, 0, elements(space, self.sizes))

    def _names(self, classes: Iterable[int]) -> frozenset[str]:
        return frozenset(self.leaf_of[c].name for c in classes if c in self.leaf_of)


def _joined(a: Work, b: Work) -> Work:
    """The work of two sets of operators."""
    parts = dict(a.parts)
    for part, count in b.parts.items():
        parts[part] = parts.get(part, 0) + count
    return Work(a.reads | b.reads, parts, {}, a.flops + b.flops, a.pointwise + b.pointwise)


def _reaches(definition: Definition, atom: int, chosen: Mapping[int, Definition]) -> bool:
    """Whether computing ``atom`` this way would need ``atom`` itself."""
    seen: set[int] = set()
    stack = list(definition.atoms)
    while stack:
        needed = stack.pop()
        if needed == atom:
            return True
        if needed in chosen and needed not in seen:
            seen.add(needed)
            stack.extend(chosen[needed].atoms)
    return False


def _expression(view: View, target: Flat, chosen: Mapping[int, Definition], leaf_of: Mapping[int, Expr]) -> Expr:
    """The expression that computes a product of atoms, each by its chosen definition."""
    position = {cls: i for i, cls in enumerate(leaf_of)}
    built: dict[int, Expr] = {}

    def join(flat: Flat) -> Expr:
        # Loaded operands first, in the order of the program's inputs; then computed ones, then constants.
        def rank(cls: int) -> tuple[int, int]:
            return (0, position[cls]) if cls in position else (2, cls) if view.constant(cls) else (1, cls)

        return product(built[c] for c in sorted(flat, key=rank))

    stack = list(target)
    while stack:
        cls = stack[-1]
        if cls in built:
            stack.pop()
            continue
        if view.terminal(cls):
            built[cls] = leaf_of[cls] if cls in leaf_of else view.table.representative(cls)
            continue
        definition = chosen[cls]
        missing = [a for a in definition.atoms if a not in built]
        if missing:
            stack.extend(missing)
        else:
            built[cls] = _apply(definition, tuple(join(flat) for flat in definition.operands))
    return join(target)


def _apply(definition: Definition, operands: tuple[Expr, ...]) -> Expr:
    match definition.op:
        case Op.SUM:
            return sum_over(definition.axes, operands[0])
        case Op.MAX:
            return max_over(definition.axes, operands[0])
        case Op.MIN:
            return min_over(definition.axes, operands[0])
        case op:
            return make(op, operands, definition.attr)


def _pareto(found: Mapping[tuple[Expr, ...], Work], sizes: Mapping[Axis, int]) -> tuple[list[tuple[Expr, ...]], int]:
    """Bodies that no other one covers. Of equals the first stays: numerics, not time, tells those apart."""
    measured = list(found.items())
    kept: list[tuple[tuple[Expr, ...], Work]] = []
    for i, (values, cost) in enumerate(measured):
        covered = any(
            other.covers(cost) and (j < i or not cost.covers(other)) for j, (_, other) in enumerate(measured) if j != i
        )
        if not covered:
            kept.append((values, cost))
    kept.sort(key=lambda pair: (pair[1].flops, pair[1].pointwise, max(pair[1].passes.values(), default=0)))
    return [values for values, _ in kept], len(found) - len(kept)


def work(values: Iterable[Expr], sizes: Mapping[Axis, int]) -> Work:
    """The work of a kernel body at given extents."""
    roots = list(values)
    parts: Counter[Part] = Counter()
    flops = pointwise = 0
    for node in tops(roots):
        if node.op in REDUCTIONS:
            axes, operand = reduction(node)
            space = operand.free | frozenset(axes)
            parts["dot" if is_dot(node) else "reduction", space] += 1
            flops += 2 * elements(space, sizes)
        elif node.op not in FREE:
            parts["special" if node.op in SPECIAL else "simple", node.free] += 1
            pointwise += elements(node.free, sizes)
    reads = frozenset(x.name for x in leaves(roots))
    return Work(reads, parts, _depths(roots), flops, pointwise)


def is_dot(value: Expr) -> bool:
    """Whether a sum contracts two operands, each with an axis of its own: work for tensor cores."""
    if value.op is not Op.SUM:
        return False
    axes, operand = reduction(value)
    return len(widest_spans([f.free for f in factors(operand)], frozenset(axes))) == 2


def tops(roots: Sequence[Expr]) -> list[Expr]:
    """Every node below the roots, of a chain of like reductions only the outermost."""
    inner = {n.args[0] for n in walk(roots) if n.op in REDUCTIONS and n.args[0].op is n.op}
    return [n for n in walk(roots) if n not in inner]


def _depths(roots: list[Expr]) -> dict[Axis, int]:
    """Per axis the longest chain of reductions over it whose operand waits for the one before."""
    done: dict[Expr, dict[Axis, int]] = {}
    deepest: dict[Axis, int] = {}
    for node in walk(roots):
        below: dict[Axis, int] = {}
        for argument in node.args:
            for axis, depth in done[argument].items():
                below[axis] = max(below.get(axis, 0), depth)
        if node.op in REDUCTIONS:
            below[node.axis] = below.get(node.axis, 0) + 1
        done[node] = below
        for axis, depth in below.items():
            deepest[axis] = max(deepest.get(axis, 0), depth)
    return deepest


def elements(axes: Iterable[Axis], sizes: Mapping[Axis, int]) -> int:
    """Number of index tuples over some axes. Static extents need not be given."""
    count = 1
    for axis in axes:
        size = sizes.get(axis.base, axis.extent)
        assert isinstance(size, int), f"the extent of {axis} is not known"
        count *= size
    return count
