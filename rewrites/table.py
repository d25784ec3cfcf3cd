"""The exported rewrite table: classes of equal values, as an AND-OR graph of plain data.

A class holds every way known to compute one value; a node is one way, an operator over operand classes. The
generator lists its choices from here. What the table does not hold is not thereby unequal.

Class numbers are dense, start at the roots and are the same in every process. Products and sums are stored
once per unordered pair of operands: multiplication and addition commute. A product of many factors is held as combs,
each factor times the rest, not in every association. Bound axes are not renamed, so
``lookup`` finds an expression only under the axis copies that the saturated values use.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sgraph.axis import Axis
from sgraph.expr import Attr, Expr, Op, Sign, make, walk

COMMUTATIVE = frozenset({Op.ADD, Op.MUL})
LARGEST_LOOKUP: Final = 64
"""Factors that a class is taken apart into when an expression is looked up."""


@dataclass(frozen=True, slots=True)
class Node:
    """One way to compute a class."""

    op: Op
    """Operator."""
    attr: Attr
    """As in ``Expr.attr``."""
    args: tuple[int, ...]
    """Operand classes."""


def node(op: Op, attr: Attr, args: Iterable[int]) -> Node:
    """The node as it is stored: operands of commutative operators in order, extents of the complete axis."""
    operands = tuple(args)
    if op in COMMUTATIVE:
        operands = tuple(sorted(operands))
    if op is Op.EXTENT:
        assert isinstance(attr, Axis)
        attr = attr.base
    return Node(op, attr, operands)


@dataclass(frozen=True)
class Table:
    """Classes of equal values. Build it with ``rewrites.saturate.saturate``."""

    roots: tuple[int, ...]
    """The class of each saturated value, in order."""
    all_nodes: tuple[tuple[Node, ...], ...]
    """The nodes of each class."""
    all_free: tuple[frozenset[Axis], ...]
    """The free axes of each class."""
    all_signs: tuple[Sign, ...]
    """The sign fact of each class."""
    truncated: bool = False
    """Whether a limit was hit, so that some equal forms are missing."""
    seconds: float = 0.0
    """Wall time from the call to the engine's rows, of which the table is then made."""
    steps: int = 0
    """Rewriting rounds of the engine."""
    _index: dict[Node, int] = field(init=False, repr=False, compare=False)
    _best: tuple[Node, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[Node, int] = {}
        for cls, nodes in enumerate(self.all_nodes):
            for entry in nodes:
                index.setdefault(entry, cls)
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_best", _smallest(self.all_nodes))

    def __reduce__(self) -> tuple[object, ...]:
        return (
            Table,
            (self.roots, self.all_nodes, self.all_free, self.all_signs, self.truncated, self.seconds, self.steps),
        )

    @property
    def e_nodes(self) -> int:
        """How many nodes there are in all classes."""
        return sum(len(nodes) for nodes in self.all_nodes)

    @property
    def classes(self) -> int:
        """How many classes there are; they are numbered from 0."""
        return len(self.all_nodes)

    def nodes(self, cls: int, /) -> tuple[Node, ...]:
        """Every known way to compute a class."""
        return self.all_nodes[cls]

    def free(self, cls: int, /) -> frozenset[Axis]:
        """The axes that the class's value depends on: the intersection over its nodes."""
        return self.all_free[cls]

    def sign(self, cls: int, /) -> Sign:
        """The strongest sign fact over the class's nodes."""
        return self.all_signs[cls]

    def smallest(self, cls: int, /) -> Node:
        """The node that begins the class's smallest expression."""
        return self._best[cls]

    def representative(self, cls: int, /) -> Expr:
        """The smallest expression of the class; among equals the one listed first."""
        built: dict[int, Expr] = {}
        stack = [cls]
        while stack:
            current = stack[-1]
            entry = self._best[current]
            missing = [a for a in entry.args if a not in built]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            built[current] = make(entry.op, tuple(built[a] for a in entry.args), entry.attr)
        return built[cls]

    def lookup(self, value: Expr, /) -> int | None:
        """The class of an expression, None if the table does not hold it."""
        from rewrites.language import collapse, scalars

        collapsed = collapse(value)
        whole = scalars([collapsed])
        found: dict[Expr, int] = {}
        factors: dict[Expr, tuple[int, ...]] = {}
        for part in walk([collapsed]):
            if part.op is Op.MUL and part not in whole:
                if all(a in factors for a in part.args):
                    factors[part] = tuple(f for a in part.args for f in factors[a])
                    cls = self._product(part, factors[part], found)
                else:
                    cls = None
            elif all(a in found for a in part.args):
                cls = self._index.get(node(part.op, part.attr, (found[a] for a in part.args)))
            else:
                cls = None
            if cls is not None:
                found[part] = cls
                factors.setdefault(part, (cls,))
        return found.get(collapsed)

    def _product(self, part: Expr, factors: Sequence[int], found: Mapping[Expr, int]) -> int | None:
        """The class of a product: as it is written, as one factor after the other times the rest, or with the factors
        themselves taken apart, since a sum with a factor left inside need not be listed in every product.
        """
        if all(a in found for a in part.args):
            cls = self._index.get(node(Op.MUL, None, (found[a] for a in part.args)))
            if cls is not None:
                return cls
        cls = self._folded(factors)
        return cls if cls is not None else self._folded([c for f in factors for c in self._apart(f)])

    def _folded(self, factors: Sequence[int]) -> int | None:
        """The class of a product of classes, each in turn times those after it."""
        *others, cls = factors
        for factor in reversed(others):
            product = self._index.get(node(Op.MUL, None, (factor, cls)))
            if product is None:
                return None
            cls = product
        return cls

    def _apart(self, cls: int) -> Sequence[int]:
        """The factors of a class by its first products; the class itself if there is no end to them."""
        out: list[int] = []
        stack = [cls]
        while stack:
            current = stack.pop()
            products = (n for n in self.all_nodes[current] if n.op is Op.MUL and current not in n.args)
            entry = next(products, None)
            if entry is None:
                out.append(current)
            elif len(out) + len(stack) > LARGEST_LOOKUP:
                return (cls,)
            else:
                stack.extend(entry.args)
        return out


def _smallest(all_nodes: Sequence[Sequence[Node]]) -> tuple[Node, ...]:
    """For each class the node of its smallest expression, counted as a tree (Knuth's generalised Dijkstra)."""
    users: dict[int, list[tuple[int, int]]] = {}
    waiting: dict[tuple[int, int], int] = {}
    queue: list[tuple[int, int, int]] = []
    for cls, nodes in enumerate(all_nodes):
        for position, entry in enumerate(nodes):
            operands = set(entry.args)
            waiting[cls, position] = len(operands)
            for operand in operands:
                users.setdefault(operand, []).append((cls, position))
            if not operands:
                heapq.heappush(queue, (1, cls, position))
    size: dict[int, int] = {}
    best: dict[int, Node] = {}
    while queue:
        cost, cls, position = heapq.heappop(queue)
        if cls in best:
            continue
        size[cls], best[cls] = cost, all_nodes[cls][position]
        for user, place in users.get(cls, ()):
            waiting[user, place] -= 1
            if not waiting[user, place] and user not in best:
                total = 1 + sum(size[a] for a in all_nodes[user][place].args)
                heapq.heappush(queue, (total, user, place))
    assert len(best) == len(all_nodes), "a class without a well-founded expression"
    return tuple(best[cls] for cls in range(len(all_nodes)))
