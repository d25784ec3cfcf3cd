"""What scaled dot-product attention means."""

from __future__ import annotations

from math import prod
from typing import Final

from prism.frontend.call import Call, meaning
from prism.frontend.combine import elementwise, fold, whole
from prism.frontend.conditions import causal
from prism.frontend.layout import repeated
from prism.frontend.products import matrix_product
from prism.frontend.reductions import softmax
from prism.frontend.values import Tensorial, Value, choose, holds, permuted
from sgraph.expr import Expr, Op, const, extent, leaves, less, maximum, mul, neg_inf, product, rsqrt, where

HIDDEN: Final = -(10**39)
"""Below every number that a mask in 16 or 32 bits can hold, but minus infinity."""


MOST_POSITIONS: Final = 2**24
"""Masks of more elements are not looked at."""


@meaning("scaled_dot_product_attention")
def _attention(call: Call) -> Tensorial:
    """``softmax(query @ key.T * scale + mask) @ value``; 0 for a query that every key is hidden from, as in torch."""
    if call.rational("dropout_p"):
        call.refuse("it draws random numbers if `dropout_p` is not 0")
    query, key, value = call.tensor("query"), call.tensor("key"), call.tensor("value")
    if call.flag("enable_gqa"):
        key, value = (_for_each_query_head(call, query, kv) for kv in (key, value))
    transposed = permuted(key, [*range(key.rank - 2), key.rank - 1, key.rank - 2])
    products, scale = matrix_product(call, query, transposed), _scale(call, query)
    scores = _masked(call, elementwise(call.axes, lambda s: mul(s, scale), products))
    result = matrix_product(call, softmax(call.axes, scores, (scores.rank - 1,)), value)
    seen = _seen(call)
    if seen is None:
        return result
    return elementwise(call.axes, lambda s, x: choose(s, x, const(0)), seen, result)


def _seen(call: Call) -> Tensorial | None:
    """Whether a query sees any key at all; None where it always does."""
    if not call.has("attn_mask") or call.flag("is_causal"):
        return None
    mask = whole(call.axes, call.stored("attn_mask"))
    last = mask.rank - 1
    if call.axes.settled and _sees_in_every_row(mask):
        return None
    if mask.boolean:
        seen = fold(call.axes, mask.numeric(), (last,), Op.SUM, keep=True)
        return elementwise(call.axes, lambda n: holds(less(const(0), n)), seen, boolean=True)
    if mask.expr.finite:
        return None
    # Minus infinity may be compared with nothing; of a number that no mask holds, the larger is compared.
    hidden = const(HIDDEN)
    largest = fold(call.axes, mask, (last,), Op.MAX, keep=True)
    return elementwise(call.axes, lambda m: holds(less(hidden, maximum(m, hidden))), largest, boolean=True)


def _sees_in_every_row(mask: Value) -> bool:
    """Whether a mask that is made of positions alone, of known extents, leaves a key to every query."""
    from sgraph.evaluate import evaluate

    extents = [a.extent for a in mask.axes if isinstance(a.extent, int)]
    if leaves([mask.expr]) or len(extents) < len(mask.axes) or prod(extents) > MOST_POSITIONS:
        return False
    rows = tuple(a for dim in mask.dims[:-1] for a in dim)
    values = evaluate(mask.expr, {}, {})
    places = tuple(i for i, a in enumerate(values.axes) if a not in rows)
    largest = values.data.max(axis=places) if places else values.data
    return bool((largest > (0 if mask.boolean else float("-inf"))).all())


def _scale(call: Call, query: Tensorial) -> Expr:
    if call.has("scale"):
        return call.number("scale")
    width = product(extent(a) for a in whole(call.axes, query).dims[-1])
    return const(1) if width is const(1) else rsqrt(width)


def _for_each_query_head(call: Call, query: Tensorial, tensor: Tensorial) -> Value:
    """Keys or values with each head repeated for the query heads of its group."""
    query, plain = whole(call.axes, query), whole(call.axes, tensor)
    heads, groups = query.shape[-3], plain.shape[-3].extent
    repeats = heads.over(groups) if groups is not None else None
    if repeats is None or not isinstance(repeats.extent, int):
        call.refuse(f"{heads} query heads are no multiple of {groups} key heads")
    return repeated(call, plain, plain.rank - 3, repeats.extent)


def _masked(call: Call, scores: Tensorial) -> Tensorial:
    """The scores plus the mask: a Boolean one keeps what is true, a causal one what is not right of the diagonal."""
    if call.flag("is_causal"):
        if call.has("attn_mask"):
            call.refuse("with both a mask and `is_causal` torch raises an error or not, by its back end")
        plain = whole(call.axes, scores)
        row, column = plain.dims[-2:]
        return Value(plain.dims, where(causal(row, column, 0), plain.expr, neg_inf()))
    if not call.has("attn_mask"):
        return scores
    mask = call.stored("attn_mask")
    if mask.boolean:
        return elementwise(call.axes, lambda m, s: choose(m, s, neg_inf()), mask, scores)
    return elementwise(call.axes, lambda s, m: s + m, scores, mask)
