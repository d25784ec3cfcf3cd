"""The table through n-ary glasses: products as multisets, chains of sums as one sum over an axis set.

The association of products and the order of sums are lowering, not search. Reading them flat brings hundreds
of thousands of binary choices down to a handful.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from sgraph.axis import Axis, ordered
from sgraph.expr import REDUCTIONS, Attr, Op, const, leaves
from sgraph.table import Table

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

    @property
    def atoms(self) -> tuple[int, ...]:
        """Every atom it needs."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(self.operands)))


class View:
    """Definitions of classes, given the set of classes that can be read from memory."""

    def __init__(self, table: Table, readable: frozenset[int]) -> None:
        self.table = table
        self.readable = readable
        """Classes that are never computed here: inputs and stored tensors."""
        self._flats: dict[int, tuple[Flat, ...]] = {}
        self._definitions: dict[int, tuple[Definition, ...]] = {}
        self._constant: dict[int, bool] = {}

    def constant(self, cls: int) -> bool:
        """Whether a class is a known number or extent: nothing is loaded for it."""
        if cls not in self._constant:
            self._constant[cls] = not self.table.free(cls) and not leaves([self.table.representative(cls)])
        return self._constant[cls]

    def terminal(self, cls: int) -> bool:
        """Whether a class needs no definition."""
        return cls in self.readable or self.constant(cls)

    def flats(self, cls: int) -> tuple[Flat, ...]:
        """Every way to read a class as a product of atoms, down to readable classes."""
        if self.terminal(cls):
            return ((cls,),)
        if cls not in self._flats:
            self._flats[cls] = ()  # a product that contains its own class adds nothing
            found: dict[Flat, None] = {}
            for node in self.table.nodes(cls):
                if node.op is not Op.MUL:
                    found[(cls,)] = None
                elif cls not in node.args:
                    left, right = node.args
                    for a, b in itertools.product(self._factors(left), self._factors(right)):
                        found[tuple(sorted((*a, *b)))] = None
            self._flats[cls] = tuple(sorted(f for f in found if f))
        return self._flats[cls]

    def _factors(self, cls: int) -> tuple[Flat, ...]:
        """The flats of a factor; the number 1 contributes none."""
        if self.constant(cls) and self.table.representative(cls) is const(1):
            return ((),)
        return self.flats(cls)

    def definitions(self, cls: int) -> tuple[Definition, ...]:
        """Every definition of an atom that is no product, reductions merged over axis sets."""
        if cls not in self._definitions:
            found: dict[Definition, None] = {}
            for definition in itertools.chain(self._reductions(cls), self._pointwise(cls)):
                found[definition] = None
            self._definitions[cls] = tuple(sorted(found, key=_definition_key))
        return self._definitions[cls]

    def _pointwise(self, cls: int) -> Iterable[Definition]:
        for node in self.table.nodes(cls):
            if node.op is Op.MUL or node.op in REDUCTIONS or cls in node.args:
                continue
            for operands in itertools.product(*(self.flats(a) for a in node.args)):
                if not any(cls in flat for flat in operands):
                    yield Definition(node.op, node.attr, (), operands)

    def _reductions(self, cls: int) -> Iterable[Definition]:
        for op in (Op.SUM, Op.MAX, Op.MIN):
            for axes, operand in self._chains(op, cls, frozenset()):
                if op is not Op.SUM or self._one_contraction(axes, operand):
                    yield Definition(op, None, ordered(axes), (operand,))

    def _chains(self, op: Op, cls: int, above: frozenset[int]) -> Iterable[tuple[frozenset[Axis], Flat]]:
        """Reductions of like kind merged: a bare inner one is absorbed unless it can be read."""
        for node in self.table.nodes(cls):
            if node.op is not op or not isinstance(node.attr, Axis):
                continue
            inner = node.args[0]
            for flat in self.flats(inner):
                if cls in flat:
                    continue
                if len(flat) == 1 and flat[0] not in above and not self.terminal(flat[0]):
                    for axes, operand in self._chains(op, flat[0], above | {cls}):
                        yield axes | {node.attr}, operand
                    if not any(n.op is not op and n.op is not Op.MUL for n in self.table.nodes(flat[0])):
                        continue
                yield frozenset({node.attr}), flat

    def _one_contraction(self, axes: frozenset[Axis], operand: Flat) -> bool:
        """Whether a sum is a plain reduction or one binary contraction with nothing to factor out.

        A factor that touches no summed axis belongs outside. With two groups of factors, each spanned by one
        factor, a summed axis that only one group has would be reduced first. (A factor that no group spans
        would be an outer-product operand: a limit, not a proof.)
        """
        free = [self.table.free(a) for a in operand]
        if any(not f & axes for f in free):
            return False
        widest = [f for f in free if not any(f < g for g in free)]
        groups = list(dict.fromkeys(widest))
        if len(groups) == 1:
            return True
        return len(groups) == 2 and all(a in groups[0] and a in groups[1] for a in axes)


def _definition_key(definition: Definition) -> tuple[object, ...]:
    axes = tuple(a.key for a in definition.axes)
    return (definition.op.value, str(definition.attr), axes, definition.operands)
