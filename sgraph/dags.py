"""Kernel bodies: every useful way to compute some classes in one kernel from what it may read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sgraph.axis import Axis
from sgraph.expr import REDUCTIONS, Expr, Op, leaves, make, max_over, min_over, product, reduction, sum_over, walk
from sgraph.view import Definition, Flat, View


@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel body costs, whatever its roles: compared part by part, never added up."""

    reads: frozenset[str]
    """Tensors it loads."""
    contractions: frozenset[frozenset[Axis]]
    """Index space of every reduction."""
    passes: int
    """Longest chain of reductions that wait for one another and share an axis."""
    flops: int
    """Multiply-adds of its reductions, counted twice."""
    pointwise: int
    """Elements computed by other operators."""

    def covers(self, other: Work) -> bool:
        """Whether this work is part by part no more than the other."""
        return (
            self.reads <= other.reads
            and self.contractions <= other.contractions
            and self.passes <= other.passes
            and self.flops <= other.flops
            and self.pointwise <= other.pointwise
        )


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
    listed = itertools.islice(_choices(view, targets), limit + 1)
    count = 0
    for count, (flats, chosen) in enumerate(listed, 1):
        if count > limit:
            break
        found[tuple(_expression(view, flat, chosen, leaf_of) for flat in flats)] = None
    kept, dominated = _pareto(list(found), sizes)
    return Bodies(tuple(kept), dominated, count > limit)


def _choices(view: View, targets: Sequence[int]) -> Iterator[tuple[tuple[Flat, ...], dict[int, Definition]]]:
    """One definition per needed atom, acyclic, by depth-first search over an agenda of atoms."""
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
    kept.sort(key=lambda pair: (pair[1].flops, pair[1].pointwise, pair[1].passes))
    return [values for values, _ in kept], len(found) - len(kept)


def work(values: Iterable[Expr], sizes: Mapping[Axis, int]) -> Work:
    """The work of a kernel body at given extents."""
    roots = list(values)
    contractions: set[frozenset[Axis]] = set()
    flops = pointwise = 0
    for node in _tops(roots):
        if node.op in REDUCTIONS:
            axes, operand = reduction(node)
            space = operand.free | frozenset(axes)
            contractions.add(space)
            flops += 2 * elements(space, sizes)
        elif node.op not in {Op.LEAF, Op.CONST, Op.EXTENT, Op.INDEX, Op.MUL, Op.NEG_INF}:
            pointwise += elements(node.free, sizes)
    reads = frozenset(x.name for x in leaves(roots))
    return Work(reads, frozenset(contractions), _depth(roots), flops, pointwise)


def _tops(roots: list[Expr]) -> list[Expr]:
    """Every node below the roots, of a chain of like reductions only the outermost."""
    inner = {n.args[0] for n in walk(roots) if n.op in REDUCTIONS and n.args[0].op is n.op}
    return [n for n in walk(roots) if n not in inner]


def _depth(roots: list[Expr]) -> int:
    """Longest chain of reductions over a shared axis whose operand waits for the one before."""
    done: dict[Expr, dict[Axis, int]] = {}
    deepest = 0
    for node in walk(roots):
        below: dict[Axis, int] = {}
        for argument in node.args:
            for axis, depth in done[argument].items():
                below[axis] = max(below.get(axis, 0), depth)
        if node.op in REDUCTIONS:
            below[node.axis] = below.get(node.axis, 0) + 1
        done[node] = below
        deepest = max(deepest, *below.values(), 0)
    return deepest


def elements(axes: Iterable[Axis], sizes: Mapping[Axis, int]) -> int:
    """Number of index tuples over some axes."""
    count = 1
    for axis in axes:
        count *= sizes[axis.base]
    return count
