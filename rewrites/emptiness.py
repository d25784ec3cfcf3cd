"""Axes that may be empty: two expressions are compared once for each way in which they may be.

Over an empty axis a sum is 0 and its operand need not be defined, so ``sum(k, x / sum(k, x))`` is 1 only if there
is an index. The algebra takes every axis to have one; the other case is an expression without the axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from sgraph.axis import Axis, Size
from sgraph.expr import REDUCTIONS, Attr, Expr, Op, Read, const, make, neg_inf, recip, walk


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which axes may be empty."""

    left: Expr
    """The left side in this case."""
    right: Expr
    """The right side in this case."""
    empty: tuple[str, ...]
    """Names of the axes that are empty in it."""


def cases(left: Expr, right: Expr) -> Iterator[Case]:
    """Every case in which there is something to compare: an axis of the result itself is never empty."""
    axes = possibly_empty(left, right)
    outer = {a.name for a in left.free | right.free}
    for choice in product((False, True), repeat=len(axes)):
        empty = frozenset(a.name for a, chosen in zip(axes, choice, strict=True) if chosen)
        if not empty & outer:
            yield Case(_in_case(left, empty), _in_case(right, empty), tuple(sorted(empty)))


def possibly_empty(left: Expr, right: Expr) -> tuple[Axis, ...]:
    """The complete axes that are not known to have an index, in canonical order."""
    return tuple(sorted({a.base for a in _axes(left, right) if _may_be_empty(a)}))


def splits_possibly_empty(left: Expr, right: Expr) -> bool:
    """Whether an axis that may be empty occurs by atoms of its tile split."""
    return any(a.level and _may_be_empty(a) for a in _axes(left, right))


def _axes(left: Expr, right: Expr) -> set[Axis]:
    return {a for node in walk([left, right]) for a in _axes_of(node.attr)}


def _axes_of(attr: Attr) -> tuple[Axis, ...]:
    match attr:
        case Axis():
            return (attr,)
        case Read():
            return attr.axes
        case _:
            return ()


def _may_be_empty(axis: Axis) -> bool:
    return (axis.extent if isinstance(axis.extent, int) else axis.extent.low) < 1


def _in_case(e: Expr, empty: frozenset[str]) -> Expr:
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        axis = node.attr if isinstance(node.attr, Axis) else None
        if axis is not None and axis.name in empty and (node.op in REDUCTIONS or node.op is Op.EXTENT):
            done[node] = _over_nothing(node.op)
        else:
            done[node] = make(node.op, tuple(done[a] for a in node.args), _inhabited_attr(node.attr))
    return done[e]


def _over_nothing(op: Op) -> Expr:
    match op:
        case Op.MAX:
            return neg_inf()
        case Op.MIN:
            return recip(const(0))  # has no value
        case _:
            return const(0)


def _inhabited_attr(attr: Attr) -> Attr:
    match attr:
        case Axis():
            return _inhabited(attr)
        case Read(axes=axes) if any(map(_may_be_empty, axes)):
            return replace(attr, axes=tuple(map(_inhabited, axes)))
        case _:
            return attr


def _inhabited(axis: Axis) -> Axis:
    if not _may_be_empty(axis):
        return axis
    if isinstance(axis.extent, Size):
        return replace(axis, extent=replace(axis.extent, low=1, high=max(1, axis.extent.high)))
    return replace(axis, extent=1)
