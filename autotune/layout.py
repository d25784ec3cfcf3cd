"""Which axes of a kernel are tile dimensions, in which order, and which sums are dot products.

A value in a kernel is a tile of rank at most two (three inside a product that is reduced at once). Axes beyond
that are *scalar*: their tile is one index, held as a number, and takes no dimension. Both choices follow from
the kernel alone, so that one text serves every parameter assignment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from typing import Final

import networkx as nx

from sgraph.axis import Axis, largest, ordered
from sgraph.errors import LoweringLimit
from sgraph.expr import REDUCTIONS, Expr, Op, factors, reduction
from sgraph.ir import Kernel, Role
from sgraph.scaled import stabilise
from sgraph.stages import atoms_of

MIN_DOT: Final = 16
"""Smallest tile of each axis of a dot product."""
MAX_RANK: Final = 2
"""Most dimensions of a tile that is kept."""
MAX_PRODUCT_RANK: Final = 3
"""Most dimensions of a product that is reduced as soon as it is formed."""


@dataclass(frozen=True, slots=True)
class Contraction:
    """A sum that is a dot product of ``[rows, inner]`` and ``[inner, columns]`` tiles."""

    left: tuple[Expr, ...]
    """Factors of the left operand."""
    right: tuple[Expr, ...]
    """Factors of the right operand."""
    shared: tuple[Expr, ...]
    """Factors that fit both operands and are not placed yet."""
    rows: Axis
    """The free axis of the left operand."""
    inner: Axis
    """The summed axis."""
    columns: Axis
    """The free axis of the right operand."""

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """Rows, inner, columns."""
        return (self.rows, self.inner, self.columns)


@dataclass(frozen=True, slots=True)
class Layout:
    """Tile dimensions of one kernel."""

    order: tuple[Axis, ...]
    """Every axis that is a tile dimension, in the order in which tiles hold them."""
    scalar: frozenset[Axis]
    """Axes whose tile is one index."""
    contractions: Mapping[Expr, Contraction]
    """The sums that are dot products."""

    def dims(self, axes: Iterable[Axis]) -> tuple[Axis, ...]:
        """The tile dimensions among some axes, in tile order."""
        found = frozenset(axes)
        return tuple(a for a in self.order if a in found)

    @property
    def dot_axes(self) -> frozenset[Axis]:
        """Axes that take part in a dot product: their tiles are at least ``MIN_DOT``."""
        return frozenset(a for c in self.contractions.values() for a in c.axes)


@lru_cache(maxsize=256)
def layout_of(kernel: Kernel) -> Layout:
    """The tile dimensions of a kernel whose roles are decided.

    Raises:
        LoweringLimit: some value would need a tile of more dimensions than are supported.
    """
    atoms = tuple(kernel_atoms(kernel))
    role = kernel.role
    fixed = frozenset(a for a in kernel.axes if role[a] is Role.WHOLE)
    scalar: set[Axis] = set()
    for value in atoms:
        if value.op is Op.SUM:
            scalar |= _indexed_by_dot(value, fixed)
    kept = frozenset(a for v in atoms if (c := _contraction(v, scalar)) for a in c.axes)
    for value in atoms:
        scalar |= _indexed_by_rank(value, kernel, fixed, kept, frozenset(scalar))
    dots = {v: c for v in atoms if (c := _contraction(v, scalar))}
    order = _tile_order(kernel, [a for a in kernel.axes if a not in scalar], dots.values())
    place = {a: i for i, a in enumerate(order)}
    return Layout(order, frozenset(scalar), {v: _oriented(c, place) for v, c in dots.items()})


def kernel_atoms(kernel: Kernel) -> Iterator[Expr]:
    """Every value, no product, that a kernel's statements name; operands first, in a fixed order."""
    done: set[Expr] = set()
    values = [stabilise(s.value) for s in kernel.stores]
    stack = [(f, False) for v in reversed(values) for f in reversed(factors(v))]
    while stack:
        value, expanded = stack.pop()
        if value in done:
            continue
        if expanded:
            done.add(value)
            yield value
        else:
            stack.append((value, True))
            stack.extend((a, False) for a in reversed(atoms_of(value)))


def _groups(value: Expr) -> tuple[frozenset[Axis], frozenset[Axis]] | None:
    """The axes of the two operands of a sum of products, if two factors span all others."""
    if value.op is not Op.SUM:
        return None
    spans = [f.free for f in factors(reduction(value)[1])]
    widest = list(dict.fromkeys(s for s in spans if not any(s < t for t in spans)))
    return (widest[0], widest[1]) if len(widest) == 2 else None


def _indexed_by_dot(value: Expr, fixed: frozenset[Axis]) -> set[Axis]:
    """Axes to hold as scalars so that a sum becomes a dot product; none if it cannot be one."""
    groups = _groups(value)
    if groups is None:
        return set()
    summed = frozenset(reduction(value)[0])
    batch = (groups[0] & groups[1]) - summed
    scalar = set(batch)
    for side in (groups[0] - groups[1], groups[1] - groups[0], summed):
        scalar |= side - {_kept(side, fixed)} if side else set()
    one_sided = summed - (groups[0] & groups[1])
    return set() if scalar & fixed or one_sided else scalar


def _kept(side: frozenset[Axis], fixed: frozenset[Axis]) -> Axis:
    """The axis of one side of a dot that stays a tile dimension: resident, else longest, else last by name."""
    return max(reversed(ordered(side)), key=lambda a: (a in fixed, largest(a.extent)))


def _contraction(value: Expr, scalar: Iterable[Axis]) -> Contraction | None:
    """A sum as a dot product, given the scalar axes."""
    groups = _groups(value)
    if groups is None:
        return None
    index = frozenset(scalar)
    axes, operand = reduction(value)
    inner = frozenset(axes) - index
    left, right = groups[0] - index, groups[1] - index
    rows, columns = left - right, right - left
    if not (len(inner) == len(rows) == len(columns) == 1) or left & right != inner:
        return None
    first: list[Expr] = []
    second: list[Expr] = []
    undecided: list[Expr] = []
    for factor in factors(operand):
        dims = factor.free - index
        side = first if dims & rows else second if dims & columns else undecided
        side.append(factor)
    return Contraction(tuple(first), tuple(second), tuple(undecided), *rows, *inner, *columns)


def _indexed_by_rank(
    value: Expr, kernel: Kernel, fixed: frozenset[Axis], kept: frozenset[Axis], scalar: frozenset[Axis]
) -> set[Axis]:
    """Further axes to hold as scalars so that a value and its operand fit the supported ranks."""
    more: set[Axis] = set()
    is_reduction = value.op in REDUCTIONS
    operand = reduction(value)[1] if is_reduction and _contraction(value, scalar) is None else None
    for free, most in ((value.free, MAX_RANK), (operand.free if operand else frozenset[Axis](), MAX_PRODUCT_RANK)):
        dims = [a for a in ordered(free) if a not in scalar and a not in more]
        while len(dims) > most:
            able = [a for a in dims if a not in fixed]
            if not able:
                raise LoweringLimit(
                    f"a value of kernel {kernel.name} has {len(dims)} resident axes: {', '.join(map(str, dims))}",
                    do="give one of them the role loop",
                )
            least = min(able, key=lambda a: (a in kept, largest(a.extent)))
            more.add(least)
            dims.remove(least)
    return more


def _tile_order(kernel: Kernel, axes: list[Axis], dots: Iterable[Contraction]) -> tuple[Axis, ...]:
    """One order for all tiles: that of the first stored tensor, with summed axes between rows and columns."""
    graph: nx.DiGraph[Axis] = nx.DiGraph()
    graph.add_nodes_from(axes)
    stored = [a for a in kernel.stores[0].tensor.named_axes if a in axes]
    graph.add_edges_from(itertools.pairwise(stored))
    for dot in dots:
        rows, inner, columns = dot.axes
        if nx.has_path(graph, columns, rows):
            rows, columns = columns, rows
        for before, after in ((rows, inner), (inner, columns)):
            if not nx.has_path(graph, after, before):
                graph.add_edge(before, after)
    return tuple(nx.lexicographical_topological_sort(graph, key=attrgetter("key")))


def _oriented(dot: Contraction, place: Mapping[Axis, int]) -> Contraction:
    """The same dot with the operand first whose free axis comes first in tile order, and all factors placed.

    A factor that fits both operands joins one that is computed anyway, else the first, which holds the rows.
    """
    left, right, rows, columns = dot.left, dot.right, dot.rows, dot.columns
    if place[rows] > place[columns]:
        left, right, rows, columns = right, left, columns, rows
    if len(right) > 1 and len(left) == 1:
        right += dot.shared
    else:
        left += dot.shared
    return replace(dot, left=left, right=right, shared=(), rows=rows, columns=columns)
