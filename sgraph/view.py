"""The table through n-ary glasses: products as multisets, chains of sums as one sum over an axis set.

The association of products and the order of sums are lowering, not search. Reading them flat brings hundreds
of thousands of binary choices down to a handful.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import networkx as nx

from sgraph.axis import Axis, ordered
from sgraph.expr import REDUCTIONS, Attr, Op, const, leaves
from sgraph.table import Table

MAX_FLATS: Final = 1000
"""Forms of one product that are listed. A limit, not a proof: what it cuts is counted."""

Contraction = Literal["plain", "factor inside", "outer product"]
"""Whether a sum is worth listing: as it is; not, since a factor belongs outside; not, as a limit."""

Flat = tuple[int, ...]
"""A product as a sorted multiset of atoms (classes with a definition that is no product)."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One way to compute an atom."""

    op: Op
    """Neither leaf nor product."""
    attr: Attr
    """As in ``Expr.attr``; None for reductions."""
    axes: tuple[Axis, ...]
    """The reduced axes, all of a chain; empty for other operators."""
    operands: tuple[Flat, ...]
    """Each operand as a product of atoms."""
    atoms: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """Every atom it needs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", tuple(dict.fromkeys(itertools.chain.from_iterable(self.operands))))


class Readings:
    """What reading one table has found so far: shared by the views of it, whatever each of them may read.

    How a class can be computed depends on those readable classes alone that lie below it, so that a finding made
    for one set of stored tensors serves every other set that agrees there.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.dropped: Counter[str] = Counter()
        """Definitions set aside, by reason: each once, however many views meet it."""
        self.flats: dict[tuple[int, int], tuple[Flat, ...]] = {}
        self.definitions: dict[tuple[int, int], tuple[Definition, ...]] = {}
        self._constant: dict[int, bool] = {}
        self._below = _below(table)
        self._contracts: bool | None = None

    @property
    def contracts(self) -> bool:
        """Whether any sum of the table may have two or more operands with axes of their own."""
        if self._contracts is None:
            view = View(self.table, frozenset(), self)
            sums = [n for cls in self._below for n in self.table.nodes(cls) if n.op is Op.SUM]
            # Sums merge: any of them may come to bind the axes of all.
            axes = frozenset(n.attr for n in sums if isinstance(n.attr, Axis))
            flats = (flat for n in sums for flat in view.flats(n.args[0]))
            self._contracts = any(len(widest_spans(map(self.table.free, flat), axes)) > 1 for flat in flats)
        return self._contracts

    def below(self, cls: int) -> int:
        """The class and all that some computation of it can go through, as a set of bits."""
        return self._below.get(cls, 1 << cls)

    def constant(self, cls: int) -> bool:
        """Whether a class is a known number or extent."""
        if cls not in self._constant:
            self._constant[cls] = not self.table.free(cls) and not leaves([self.table.representative(cls)])
        return self._constant[cls]


def widest_spans(free: Iterable[frozenset[Axis]], axes: frozenset[Axis]) -> list[frozenset[Axis]]:
    """The axis sets of those factors of a sum over ``axes`` that no other factor's axes include, each once.

    Two of them make a contraction of two operands: work for tensor cores.
    """
    spans = list(dict.fromkeys(f for f in free if f & axes))
    return [f for f in spans if not any(f < g for g in spans)]


def _below(table: Table) -> dict[int, int]:
    """For every class that a root can go through, the classes below it as bits."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    stack = list(table.roots)
    while stack:
        cls = stack.pop()
        if cls in graph and graph.nodes[cls]:
            continue
        graph.add_node(cls, seen=True)
        needed = dict.fromkeys(a for node in table.nodes(cls) for a in node.args)
        graph.add_edges_from((cls, a) for a in needed)
        stack.extend(needed)
    found: dict[int, int] = {}
    # Tarjan's algorithm yields components operands first; the classes of one component reach one another.
    for component in nx.strongly_connected_components(graph):
        bits = 0
        for cls in component:
            bits |= 1 << cls
            for a in graph.successors(cls):
                bits |= 0 if a in component else found[a]
        found.update(dict.fromkeys(component, bits))
    return found


class View:
    """Definitions of classes, given the set of classes that can be read from memory."""

    def __init__(self, table: Table, readable: frozenset[int], readings: Readings | None = None) -> None:
        self.table = table
        self.readable = readable
        """Classes that are never computed here: inputs and stored tensors."""
        self.readings = readings or Readings(table)
        """Shared with other views of the table."""
        self._bits = sum(1 << cls for cls in readable)

    @property
    def dropped(self) -> Counter[str]:
        """Definitions set aside by this view and those it shares its readings with, by reason."""
        return self.readings.dropped

    def _key(self, cls: int) -> tuple[int, int]:
        """What the ways to compute a class depend on."""
        return cls, self._bits & self.readings.below(cls)

    def constant(self, cls: int) -> bool:
        """Whether a class is a known number or extent: nothing is loaded for it."""
        return self.readings.constant(cls)

    def terminal(self, cls: int) -> bool:
        """Whether a class needs no definition."""
        return cls in self.readable or self.constant(cls)

    def flats(self, cls: int) -> tuple[Flat, ...]:
        """Every way to read a class as a product of atoms, down to readable classes."""
        if self.terminal(cls):
            return ((cls,),)
        key = self._key(cls)
        if key not in self.readings.flats:
            self._flatten(cls)
        return self.readings.flats[key]

    def _flatten(self, root: int) -> None:
        """Read the products below a class, factors first. A product that contains its own class adds nothing."""
        done: dict[int, tuple[Flat, ...]] = {}
        entered: set[int] = set()
        cyclic = False
        stack = [(root, False)]
        while stack:
            cls, expanded = stack.pop()
            if expanded:
                done[cls] = self._products(cls, done)
            elif cls in entered:
                cyclic = cyclic or cls not in done
            elif not self.terminal(cls) and self._key(cls) not in self.readings.flats:
                entered.add(cls)
                stack.append((cls, True))
                stack.extend((a, False) for n in self.table.nodes(cls) if n.op is Op.MUL for a in n.args if a != cls)
        # Inside a cycle only the class that was asked for is complete: the others lack what goes through it.
        complete = {root: done[root]} if cyclic else done
        self.readings.flats.update({self._key(cls): flats for cls, flats in complete.items()})

    def _products(self, cls: int, done: Mapping[int, tuple[Flat, ...]]) -> tuple[Flat, ...]:
        found: dict[Flat, None] = {}
        for node in self.table.nodes(cls):
            if node.op is not Op.MUL:
                found[(cls,)] = None
            elif cls not in node.args:
                for a, b in itertools.product(*(self._factors(f, done) for f in node.args)):
                    found[tuple(sorted((*a, *b)))] = None
                    if len(found) > MAX_FLATS:
                        self.dropped["limit: forms of one product"] += 1
                        return tuple(sorted(f for f in found if f))
        return tuple(sorted(f for f in found if f))

    def _factors(self, cls: int, done: Mapping[int, tuple[Flat, ...]]) -> tuple[Flat, ...]:
        """The flats of a factor; the number 1 contributes none."""
        if self.terminal(cls):
            return ((),) if self.constant(cls) and self.table.representative(cls) is const(1) else ((cls,),)
        known = self.readings.flats.get(self._key(cls))
        return done.get(cls, ()) if known is None else known

    def definitions(self, cls: int) -> tuple[Definition, ...]:
        """Every definition of an atom that is no product, reductions merged over axis sets."""
        key = self._key(cls)
        if key not in self.readings.definitions:
            found: dict[Definition, None] = {}
            for definition in itertools.chain(self._reductions(cls), self._pointwise(cls)):
                found[definition] = None
            self.readings.definitions[key] = tuple(sorted(found, key=_definition_key))
        return self.readings.definitions[key]

    def _pointwise(self, cls: int) -> Iterable[Definition]:
        for node in self.table.nodes(cls):
            if node.op is Op.MUL or node.op in REDUCTIONS or cls in node.args:
                continue
            for operands in itertools.product(*(self.flats(a) for a in node.args)):
                if not any(cls in flat for flat in operands):
                    yield Definition(node.op, node.attr, (), operands)

    def _reductions(self, cls: int) -> Iterable[Definition]:
        found: dict[Contraction, dict[Definition, None]] = {"plain": {}, "factor inside": {}, "outer product": {}}
        for op in (Op.SUM, Op.MAX, Op.MIN):
            for axes, operand in self._chains(op, cls):
                kind = self._contraction(axes, operand) if op is Op.SUM else "plain"
                found[kind][Definition(op, None, ordered(axes), (operand,))] = None
        if found["plain"] or any(n.op not in REDUCTIONS for n in self.table.nodes(cls)):
            if found["outer product"]:
                self.dropped["limit: contraction of more than two operands"] += len(found["outer product"])
            return found["plain"]
        # A table that stopped early may lack the better form: then the others are all there is.
        return found["outer product"] or found["factor inside"]

    def _chains(self, op: Op, root: int) -> Iterable[tuple[frozenset[Axis], Flat]]:
        """Reductions of like kind merged: a bare inner one is absorbed unless it can be read."""
        start: tuple[int, frozenset[Axis]] = (root, frozenset())
        seen = {start}
        stack = [start]
        while stack:
            cls, above = stack.pop()
            for node in self.table.nodes(cls):
                if node.op is not op or not isinstance(node.attr, Axis) or node.attr in above:
                    continue
                axes = above | {node.attr}
                for flat in self.flats(node.args[0]):
                    if root in flat or cls in flat:
                        continue
                    inner = (flat[0], axes)
                    merges = self._merges(op, flat, axes)
                    if merges and inner not in seen:
                        seen.add(inner)
                        stack.append(inner)
                    if not merges or any(n.op is not op and n.op is not Op.MUL for n in self.table.nodes(flat[0])):
                        yield axes, flat

    def _merges(self, op: Op, flat: Flat, axes: frozenset[Axis]) -> bool:
        """Whether an operand is itself a reduction of this kind, over axes that are not bound yet."""
        if len(flat) != 1 or self.terminal(flat[0]):
            return False
        inner = [n for n in self.table.nodes(flat[0]) if n.op is op]
        return bool(inner) and not any(n.attr in axes for n in inner)

    def _contraction(self, axes: frozenset[Axis], operand: Flat) -> Contraction:
        """Whether a sum is a plain reduction or one binary contraction with nothing to factor out.

        A factor that touches no summed axis belongs outside, and so does the extent of an axis that no factor
        has. With two groups of factors, each spanned by one
        factor, a summed axis that only one group has would be reduced first. A factor that no group spans
        would be an outer-product operand: a limit, not a proof.
        """
        free = [self.table.free(a) for a in operand]
        if any(not f & axes for f in free) or not axes <= frozenset[Axis]().union(*free):
            return "factor inside"
        groups = widest_spans(free, axes)
        if len(groups) == 1:
            return "plain"
        if len(groups) > 2:
            return "outer product"
        return "plain" if all(a in groups[0] and a in groups[1] for a in axes) else "factor inside"


def _definition_key(definition: Definition) -> tuple[object, ...]:
    axes = tuple(a.key for a in definition.axes)
    return (definition.op.value, str(definition.attr), axes, definition.operands)
