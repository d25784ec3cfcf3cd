"""Axes of few indices of which a program takes single ones: written out, index by index.

The two of a pair in an interleaved rotary embedding are read one by one in one place and together in another. Written
out, both places read the same views, so that whatever equals the other is seen to.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final

from prism.frontend.axes import Axes
from prism.frontend.combine import FOLDS, at_index
from prism.frontend.values import Value
from sgraph.axis import Axis, ordered
from sgraph.expr import REDUCTIONS, Expr, const, equal, index, leaves, make, walk, where

MOST_INDICES: Final = 4
"""Longer axes are not written out."""


def in_units(axes: Axes, values: Sequence[Value | None]) -> list[Value | None]:
    """The values without a read along a short axis of which a single index is read elsewhere."""
    out = list(values)
    while True:
        exprs = [v.expr for v in out if v is not None]
        read = {a.base for x in leaves(exprs) for a in x.axes}
        short = [
            a for a in ordered(read & axes.sources.fixed) if isinstance(a.extent, int) and a.extent <= MOST_INDICES
        ]
        if not short:
            return out
        out = [None if v is None else Value(v.dims, _written_out(axes, v.expr, short[0]), v.boolean) for v in out]


def _written_out(axes: Axes, e: Expr, axis: Axis) -> Expr:
    assert isinstance(axis.extent, int)
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        operands = tuple(done[a] for a in node.args)
        if node.op in REDUCTIONS and node.axis.base == axis:
            _, combine = FOLDS[node.op]
            done[node] = reduce(combine, (at_index(axes, operands[0], node.axis, i) for i in range(axis.extent)))
        else:
            done[node] = make(node.op, operands, node.attr) if operands else node
    result = done[e]
    for free in ordered({a for a in result.free if a.base == axis}):
        if not any(free in x.axes for x in leaves([result])):
            continue
        *firsts, last = (at_index(axes, result, free, i) for i in range(axis.extent))
        for number, element in reversed(list(enumerate(firsts))):
            last = where(equal(index(free), const(number)), element, last)
        result = last
    return result
