"""Kernel bodies: every useful way to compute some classes in one kernel from what it may read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from sgraph.view import Definition, Flat, View

Part = tuple[str, frozenset[Axis]]
"""One operator of a body: its kind (``dot``, ``reduction``, ``special``, ``simple``) and its index space."""

STEPS_PER_BODY: Final = 20
"""Steps of the search for bodies per body of its limit: what ends a search that finds too few."""

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

    def covers(self, other: Work) -> bool:
        """Whether this work is part by part no more than the other, at any extents and under any roles."""
        return (
            self.reads <= other.reads
            and self.flops <= other.flops
            and self.pointwise <= other.pointwise
            and all(depth <= other.passes.get(axis, 0) for axis, depth in self.passes.items())
            and self._uses_dots() == other._uses_dots()
            and _injects(self.parts, other.parts)
        )

    def _uses_dots(self) -> bool:
        """Bodies with and without dot products are tiled differently and not comparable."""
        return any(kind == "dot" for kind, _ in self.parts)


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
    found: dict[tuple[Expr, ...], None] = {}
    listed = 0
    for step, choice in enumerate(_choices(view, targets)):
        if listed == limit or step > STEPS_PER_BODY * limit:
            return _best(found, sizes, cut_off=True)
        if choice is not None:
            listed += 1
            flats, chosen = choice
            found[tuple(_expression(view, flat, chosen, leaf_of) for flat in flats)] = None
    return _best(found, sizes, cut_off=False)


def _best(found: Iterable[tuple[Expr, ...]], sizes: Mapping[Axis, int], *, cut_off: bool) -> Bodies:
    kept, dominated = _pareto(list(found), sizes)
    return Bodies(tuple(kept), dominated, cut_off)


def _choices(view: View, targets: Sequence[int]) -> Iterator[tuple[tuple[Flat, ...], dict[int, Definition]] | None]:
    """One definition per needed atom, acyclic, by depth-first search over an agenda of atoms; None per other step."""
    for flats in itertools.product(*(view.flats(t) for t in targets)):
        agenda = tuple(dict.fromkeys(a for flat in flats for a in flat if not view.terminal(a)))
        stack: list[tuple[dict[int, Definition], tuple[int, ...]]] = [({}, agenda)]
        while stack:
            chosen, todo = stack.pop()
            todo = tuple(a for a in todo if a not in chosen)
            if not todo:
                yield flats, chosen
                continue
            atom, rest = todo[0], todo[1:]
            for definition in reversed(view.definitions(atom)):
                if not _reaches(definition, atom, chosen):
                    needed = tuple(a for a in definition.atoms if not view.terminal(a) and a not in chosen)
                    stack.append(({**chosen, atom: definition}, (*rest, *needed)))
            yield None


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


def _pareto(found: list[tuple[Expr, ...]], sizes: Mapping[Axis, int]) -> tuple[list[tuple[Expr, ...]], int]:
    """Bodies that no other one covers. Of equals the first stays: numerics, not time, tells those apart."""
    measured = [(values, work(values, sizes)) for values in found]
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
        elif node.op not in {Op.LEAF, Op.CONST, Op.EXTENT, Op.INDEX, Op.MUL, Op.NEG_INF}:
            parts["special" if node.op in SPECIAL else "simple", node.free] += 1
            pointwise += elements(node.free, sizes)
    reads = frozenset(x.name for x in leaves(roots))
    return Work(reads, parts, _depths(roots), flops, pointwise)


def is_dot(value: Expr) -> bool:
    """Whether a sum contracts two operands, each with an axis of its own: work for tensor cores."""
    if value.op is not Op.SUM:
        return False
    axes, operand = reduction(value)
    spans = [f.free for f in factors(operand) if f.free & frozenset(axes)]
    widest = {s for s in spans if not any(s < t for t in spans)}
    return len(widest) == 2


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
