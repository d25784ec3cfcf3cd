"""Two cheap looks at an equation, taken beside the normal form: order, and parts that both sides have.

Sums and products are commutative and associative, minus infinity and definedness included, so two expressions that
differ in nothing but the order of terms and factors are the same one once these are sorted. And what both sides compute
alike can be given a name: an equation that holds for every value of a part holds for the part. Programs with one norm
after another need that, because their normal forms grow with every level.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Final

from rewrites.emptiness import possibly_empty
from sgraph.axis import ordered
from sgraph.expr import REDUCTIONS, Expr, Op, chain, leaf, make, rebuild, walk

SORTED: Final = frozenset({Op.ADD, Op.MUL, Op.MAX2, Op.MIN2})
"""Operators of two operands that are commutative and associative."""
PART: Final = "part:"
"""Prefix of the names that shared parts get; no tensor is called so."""


def arranged(e: Expr) -> Expr:
    """``e`` with the operands of every chain of one commutative operator sorted by their contents."""
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        if node.op in SORTED:
            operands = sorted((done[o] for o in chain(node, node.op)), key=lambda o: o.digest)
            done[node] = reduce(lambda a, b, op=node.op: make(op, (a, b)), operands)
        elif node.args:
            done[node] = make(node.op, tuple(done[a] for a in node.args), node.attr)
        else:
            done[node] = node
    return done[e]


def without_shared_parts(left: Expr, right: Expr) -> tuple[Expr, Expr] | None:
    """Both sides with the largest parts that they share, reductions included, as leaves of their own.

    If the result holds, so does the equation: wherever the left side is defined so are its parts, and the right side is
    equal whatever their values are. That needs every part to count, so there is no answer (None) where a part may not
    be evaluated, under a condition or a reduction over no index, nor where nothing of size is shared.
    """
    left, right = arranged(left), arranged(right)
    if left is right or possibly_empty(left, right):
        return None
    common = set(walk([left])) & set(walk([right]))
    reducing = _reducing([left])
    parts: dict[Expr, Expr] = {}
    stack, seen = [left], set[Expr]()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in common and node in reducing:
            parts[node] = leaf(f"{PART}{len(parts)}", ordered(node.free), finite=node.finite)
        elif node.op is Op.WHERE:
            return None
        else:
            stack.extend(node.args)
    return (rebuild(left, parts), rebuild(right, parts)) if parts else None


def _reducing(roots: Iterable[Expr]) -> set[Expr]:
    """The nodes below ``roots`` that contain a reduction."""
    found: set[Expr] = set()
    for node in walk(roots):
        if node.op in REDUCTIONS or any(a in found for a in node.args):
            found.add(node)
    return found
