"""What scaled dot-product attention means."""

from __future__ import annotations

from prism.frontend.axes import Value, elementwise
from prism.frontend.call import Call, meaning
from prism.frontend.products import matrix_product
from prism.frontend.reductions import softmax
from sgraph.expr import const, extent, mul, rsqrt


@meaning("scaled_dot_product_attention")
def _attention(call: Call) -> Value:
    """``softmax(query @ key.T * scale) @ value``, with as many heads on both sides and no mask."""
    for name in ("attn_mask", "dropout_p", "is_causal", "enable_gqa"):
        if call.node.arguments.get(name):
            call.refuse(f"`{name}` is not understood")
    query, key = call.tensor("query"), call.tensor("key")
    if call.has("scale"):
        scale = call.number("scale")
    else:
        width = query.dims[-1]
        scale = const(1) if width is None else rsqrt(extent(width))
    transposed = Value((*key.dims[:-2], key.dims[-1], key.dims[-2]), key.expr)
    scores = elementwise(call.axes, lambda s: mul(s, scale), matrix_product(call, query, transposed))
    weights = softmax(call.axes, scores, (len(scores.dims) - 1,))
    return matrix_product(call, weights, call.tensor("value"))
