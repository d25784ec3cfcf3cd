"""What norms of activations mean: root-mean-square, layer, group, instance and batch norm; unit vectors."""

from __future__ import annotations

from collections.abc import Sequence

from prism.frontend.call import Call, meaning
from prism.frontend.combine import elementwise, whole
from prism.frontend.products import product_sum
from prism.frontend.reductions import mean, squared, squares
from prism.frontend.trace import Product
from prism.frontend.values import Tensorial, Value
from sgraph.expr import Expr, maximum, mul, recip, rsqrt, sqrt


@meaning("rms_norm")
def _rms_norm(call: Call) -> Tensorial:
    value, dimensions = _normalised(call)
    return _affine(call, _scaled(call, value, dimensions))


@meaning("layer_norm")
def _layer_norm(call: Call) -> Tensorial:
    value, dimensions = _normalised(call)
    centre = mean(call.axes, value, dimensions, keep=True)
    deviation = elementwise(call.axes, lambda x, c: x - c, value, centre)
    return _affine(call, _scaled(call, deviation, dimensions))


def _normalised(call: Call) -> tuple[Tensorial, tuple[int, ...]]:
    """The operand of a norm and the trailing dimensions it normalises."""
    value = call.tensor("input")
    shape = call.node.arguments["normalized_shape"]
    assert isinstance(shape, tuple)
    return value, tuple(range(value.rank - len(shape), value.rank))


def _scaled(call: Call, value: Tensorial, dimensions: Sequence[int]) -> Tensorial:
    """The elements over the root of their mean square, which is kept from 0 by ``eps``."""
    eps = call.number("eps")
    square = mean(call.axes, squared(call.axes, value), dimensions, keep=True)
    scale = elementwise(call.axes, lambda e: rsqrt(e + eps), square)
    return elementwise(call.axes, mul, value, scale)


def _affine(call: Call, value: Tensorial) -> Tensorial:
    weight, bias = call.optional("weight"), call.optional("bias") if "bias" in call.node.arguments else None
    if weight is not None:
        value = elementwise(call.axes, mul, value, weight)
    if bias is not None:
        value = elementwise(call.axes, lambda x, b: x + b, value, bias)
    return value


@meaning("group_norm")
def _group_norm(call: Call) -> Tensorial:
    """Over the channels of a group and all further dimensions."""
    value = whole(call.axes, call.tensor("input"))
    groups, channels = call.node.arguments["num_groups"], value.shape[1]
    if not isinstance(groups, int) or channels.sizes:
        call.refuse("of a symbolic number of channels")
    shape = (value.shape[0], Product(groups), Product(channels.number // groups), *value.shape[2:])
    grouped = call.axes.regroup(value.axes, shape)
    if grouped is None:
        call.refuse("its groups are no split of the channels")
    normed = _standardised(call, Value(grouped, value.expr), range(2, len(shape)))
    back = call.axes.regroup(normed.axes, value.shape)
    assert back is not None
    return _affine_channels(call, Value(back, normed.expr))


@meaning("instance_norm")
def _instance_norm(call: Call) -> Tensorial:
    """Over all dimensions but batch and channel, with the statistics of the operand."""
    if not call.flag("use_input_stats"):
        call.refuse("with running statistics")
    value = whole(call.axes, call.tensor("input"))
    return _affine_channels(call, _standardised(call, value, range(2, value.rank)))


@meaning("batch_norm")
def _batch_norm(call: Call) -> Tensorial:
    """With the running statistics."""
    if call.flag("training"):
        call.refuse("in training mode it changes its statistics")
    value, eps = whole(call.axes, call.tensor("input")), call.number("eps")
    centre, spread = (_per_channel(call, name, value.rank) for name in ("running_mean", "running_var"))
    normed = elementwise(call.axes, lambda x, c, s: (x - c) * rsqrt(s + eps), value, centre, spread)
    return _affine_channels(call, whole(call.axes, normed))


def _standardised(call: Call, value: Value, dimensions: Sequence[int]) -> Value:
    centre = mean(call.axes, value, dimensions, keep=True)
    deviation = elementwise(call.axes, lambda x, c: x - c, value, centre)
    return whole(call.axes, _scaled(call, deviation, dimensions))


def _affine_channels(call: Call, value: Value) -> Tensorial:
    result: Tensorial = value
    if call.has("weight"):
        result = elementwise(call.axes, mul, result, _per_channel(call, "weight", value.rank))
    if call.has("bias"):
        result = elementwise(call.axes, lambda x, b: x + b, result, _per_channel(call, "bias", value.rank))
    return result


def _per_channel(call: Call, name: str, rank: int) -> Value:
    """A vector along dimension 1 of a tensor."""
    vector = whole(call.axes, call.tensor(name))
    return Value((*vector.dims, *((),) * (rank - 2)), vector.expr)


@meaning("cosine_similarity")
def _cosine_similarity(call: Call) -> Tensorial:
    """The product of two vectors over their lengths, each at least ``eps``."""
    a, b = call.tensor("x1"), call.tensor("x2")
    dimension, eps = call.place("dim", max(a.rank, b.rank)), call.number("eps")
    # Each as long as the other, for a length counts how often an element is repeated.
    alike = elementwise(call.axes, lambda x, _: x, a, b), elementwise(call.axes, lambda _, y: y, a, b)
    lengths = [squares(call.axes, v, (dimension,), keep=False) for v in alike]
    product = product_sum(call, a, b, dimension)

    def quotient(p: Expr, u: Expr, v: Expr) -> Expr:
        return p * recip(maximum(sqrt(u), eps)) * recip(maximum(sqrt(v), eps))

    return elementwise(call.axes, quotient, product, lengths[0], lengths[1])
