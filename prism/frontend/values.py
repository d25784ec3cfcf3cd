"""Tensors while they are captured: an element over named axes, or parts joined along one dimension.

A Boolean tensor is a tree of conditions, ``where(c, tree, tree)`` over the constants 1 and 0, so that it is its own
number, and ``and``, ``or``, ``not`` and ``torch.where`` all come down to nested ``where``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prism.frontend.axes import Dim, distinct, flat, size_of
from prism.frontend.trace import Product
from sgraph.expr import Expr, Op, const, make, rename, where

TRUE = const(1)
FALSE = const(0)


@dataclass(frozen=True, slots=True)
class Value:
    """One axis or several per dimension, none where the extent is 1, and an element."""

    dims: tuple[Dim, ...]
    """Axes of each dimension, no axis twice."""
    expr: Expr
    """The element at these axes."""
    boolean: bool = False
    """Whether ``expr`` is a tree of conditions."""

    @property
    def axes(self) -> Dim:
        """The axes of all dimensions in a row."""
        return flat(self.dims)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.dims)

    @property
    def shape(self) -> tuple[Product, ...]:
        """The size of each dimension."""
        return tuple(map(size_of, self.dims))

    def numeric(self) -> Value:
        """The same with true as 1 and false as 0."""
        return Value(self.dims, self.expr)


@dataclass(frozen=True, slots=True)
class Joined:
    """Tensors that ``cat`` or ``stack`` has joined along a dimension.

    The language has no sub-ranges of axes, so this is no element over axes. It may be summed over the joined
    dimension, combined with tensors in the same parts, and taken apart again.
    """

    dimension: int
    """The dimension along which they are joined."""
    parts: tuple[Value, ...]
    """In order; they differ only in the size of that dimension."""

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return self.parts[0].rank

    @property
    def boolean(self) -> bool:
        """Whether the parts are trees of conditions."""
        return self.parts[0].boolean

    @property
    def lengths(self) -> tuple[Product, ...]:
        """The size of each part along the joined dimension."""
        return tuple(part.shape[self.dimension] for part in self.parts)

    @property
    def length(self) -> Product | None:
        """The size of the joined dimension; None where it is no product, such as ``L + 1``."""
        return None if any(n.sizes for n in self.lengths) else Product(sum(n.number for n in self.lengths))

    def numeric(self) -> Joined:
        """The same with true as 1 and false as 0."""
        return Joined(self.dimension, tuple(part.numeric() for part in self.parts))


Tensorial = Value | Joined
"""What an operator takes and gives."""


def scalar(expr: Expr) -> Value:
    """A number."""
    return Value((), expr)


def permuted(value: Tensorial, order: Sequence[int]) -> Tensorial:
    """The dimensions in another order."""
    if isinstance(value, Value):
        return Value(tuple(value.dims[i] for i in order), value.expr, value.boolean)
    parts = tuple(Value(tuple(part.dims[i] for i in order), part.expr, part.boolean) for part in value.parts)
    return Joined(order.index(value.dimension), parts)


def canonical(value: Value) -> Value:
    """The same tensor with the copies of each axis numbered in the order of its dimensions."""
    chosen = distinct(value.axes, ())
    renaming = dict(zip(value.axes, chosen, strict=True))
    dims = tuple(tuple(renaming[a] for a in dim) for dim in value.dims)
    return Value(dims, rename(value.expr, renaming), value.boolean)


# ------------------------------------------------------------------------------------------ Boolean tensors


def holds(condition: Expr) -> Expr:
    """The tree of a single condition."""
    return where(condition, TRUE, FALSE)


def choose(tree: Expr, then: Expr, otherwise: Expr) -> Expr:
    """``then`` where a Boolean element is true, else ``otherwise``."""
    done: dict[Expr, Expr] = {TRUE: then, FALSE: otherwise}
    stack = [tree]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        assert node.op is Op.WHERE, f"{node} is no tree of conditions"
        condition, *branches = node.args
        missing = [b for b in branches if b not in done]
        if missing:
            stack.extend(missing)
        else:
            done[stack.pop()] = make(Op.WHERE, (condition, *(done[b] for b in branches)))
    return done[tree]


def negation(tree: Expr) -> Expr:
    """Whether a Boolean element is false."""
    return choose(tree, FALSE, TRUE)


def conjunction(a: Expr, b: Expr) -> Expr:
    """Whether both are true."""
    return choose(a, b, FALSE)


def disjunction(a: Expr, b: Expr) -> Expr:
    """Whether one is true."""
    return choose(a, TRUE, b)
