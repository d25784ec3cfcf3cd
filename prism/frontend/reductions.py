"""What reductions mean, and the norms and softmaxes made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from prism.frontend.axes import Axes, Value, elementwise
from prism.frontend.call import Call, Results, meaning
from sgraph.axis import Axis, Size
from sgraph.errors import UnsupportedProgram
from sgraph.expr import (
    Expr,
    const,
    exp,
    extent,
    log,
    max_over,
    maximum,
    min_over,
    minimum,
    mul,
    product,
    recip,
    rsqrt,
    sqrt,
    sum_over,
)

Reduction = Callable[[tuple[Axis, ...], Expr], Expr]


def reduce(value: Value, dimensions: Sequence[int], reduction: Reduction, *, keep: bool) -> Value:
    """A reduction over some dimensions; those without an axis have one index and change nothing."""
    axes = tuple(a for i in sorted(set(dimensions)) if value.dims and (a := value.dims[i]) is not None)
    kept = tuple(None if i in dimensions else a for i, a in enumerate(value.dims) if keep or i not in dimensions)
    return Value(kept, reduction(axes, value.expr))


def count(axes: Sequence[Axis]) -> Expr:
    """How many elements a reduction over ``axes`` takes together."""
    return product(extent(a) for a in axes)


def mean(axes: tuple[Axis, ...], e: Expr) -> Expr:
    """The mean over several axes."""
    return sum_over(axes, e) * recip(count(axes)) if axes else e


def _reduced(call: Call, reduction: Reduction) -> Value:
    value = call.tensor("self")
    dimensions = call.dimensions("dim", len(value.dims))
    return reduce(value, dimensions, reduction, keep=call.flag("keepdim"))


@meaning("sum")
def _sum(call: Call) -> Value:
    return _reduced(call, sum_over)


@meaning("mean")
def _mean(call: Call) -> Value:
    return _reduced(call, mean)


@meaning("amax")
def _amax(call: Call) -> Value:
    return _reduced(call, max_over)


@meaning("amin")
def _amin(call: Call) -> Value:
    return _reduced(call, min_over)


@meaning("max", "min")
def _max_or_min(call: Call) -> Value | Results:
    is_max = call.node.operator.startswith("aten.max")
    if call.has("other"):
        return elementwise(call.axes, maximum if is_max else minimum, call.tensor("self"), call.tensor("other"))
    values = _reduced(call, max_over if is_max else min_over)
    return (values, None) if call.has("dim") else values


@meaning("logsumexp")
def _logsumexp(call: Call) -> Value:
    return _reduced(call, lambda axes, e: log(sum_over(axes, exp(e))))


@meaning("linalg_vector_norm", "linalg_norm", "norm")
def _norm(call: Call) -> Value:
    name = "ord" if "ord" in call.node.arguments else "p"
    dimensions = call.dimensions("dim", len(call.tensor("self").dims))
    if call.node.operator.startswith("aten.linalg_norm") and call.has(name) and len(dimensions) > 1:
        call.refuse("with an order and two dimensions it is the norm of a matrix")
    if not call.has(name) or call.rational(name) == 2:
        return _reduced(call, lambda axes, e: sqrt(sum_over(axes, e * e)))
    return call.refuse(f"the norm of order {call.node.arguments[name]} is not understood, only order 2")


# ------------------------------------------------------------------------------------ variance and layer norm


@meaning("var", "std", "var_mean", "std_mean")
def _variance(call: Call) -> Value | Results:
    """Of the squared deviations from the mean, with the correction (1 unless said otherwise)."""
    correction = _correction(call)
    root = call.node.operator.startswith("aten.std")

    def spread(axes: tuple[Axis, ...], e: Expr) -> Expr:
        _check_count(call, axes, correction)
        deviation = e - mean(axes, e)
        scale = recip(count(axes) - const(correction)) if correction else recip(count(axes))
        variance = sum_over(axes, deviation * deviation) * scale
        return sqrt(variance) if root else variance

    result = _reduced(call, spread)
    return (result, _reduced(call, mean)) if "_mean" in call.node.operator else result


def _correction(call: Call) -> Fraction:
    if "correction" in call.node.arguments:
        return call.rational("correction") if call.has("correction") else Fraction(1)
    return Fraction(1 if call.flag("unbiased") else 0)


def _check_count(call: Call, axes: Sequence[Axis], correction: Fraction) -> None:
    smallest = 1
    for axis in axes:
        smallest *= axis.extent.low if isinstance(axis.extent, Size) else axis.extent
    if smallest <= correction:
        raise UnsupportedProgram(
            f"{call.node.operator} divides by {smallest} - {correction} elements",
            where=call.node.line,
            do="use correction=0, or reduce more elements",
        )


@meaning("rms_norm")
def _rms_norm(call: Call) -> Value:
    if not call.has("eps"):
        call.refuse("without eps its value depends on torch's version and the element type; write eps")
    value, dimensions = _normalised(call)
    eps = call.number("eps")
    scale = reduce(value, dimensions, lambda axes, e: rsqrt(mean(axes, e * e) + eps), keep=True)
    return _affine(call, elementwise(call.axes, mul, value, scale))


@meaning("layer_norm")
def _layer_norm(call: Call) -> Value:
    value, dimensions = _normalised(call)
    eps = call.number("eps")
    centre = reduce(value, dimensions, mean, keep=True)
    deviation = elementwise(call.axes, lambda x, c: x - c, value, centre)
    scale = reduce(deviation, dimensions, lambda axes, e: rsqrt(mean(axes, e * e) + eps), keep=True)
    return _affine(call, elementwise(call.axes, mul, deviation, scale))


def _normalised(call: Call) -> tuple[Value, tuple[int, ...]]:
    """The operand of a norm and the trailing dimensions it normalises."""
    value = call.tensor("input")
    shape = call.node.arguments["normalized_shape"]
    assert isinstance(shape, tuple)
    rank = len(value.dims)
    return value, tuple(range(rank - len(shape), rank))


def _affine(call: Call, value: Value) -> Value:
    weight, bias = call.optional("weight"), call.optional("bias") if "bias" in call.node.arguments else None
    if weight is not None:
        value = elementwise(call.axes, mul, value, weight)
    if bias is not None:
        value = elementwise(call.axes, lambda x, b: x + b, value, bias)
    return value


# -------------------------------------------------------------------------------------------------- softmax


@meaning("softmax", "_softmax")
def _softmax(call: Call) -> Value:
    return softmax(call.axes, call.tensor("self"), call.dimensions("dim", len(call.tensor("self").dims)))


def softmax(axes: Axes, value: Value, dimensions: Sequence[int]) -> Value:
    """``exp(x) / sum(exp(x))``. Subtracting the maximum is a representation of this value, added by lowering."""
    total = reduce(value, dimensions, lambda over, e: recip(sum_over(over, exp(e))), keep=True)
    return elementwise(axes, lambda x, t: exp(x) * t, value, total)


@meaning("log_softmax", "_log_softmax")
def _log_softmax(call: Call) -> Value:
    value = call.tensor("self")
    dimensions = call.dimensions("dim", len(value.dims))
    total = reduce(value, dimensions, lambda over, e: log(sum_over(over, exp(e))), keep=True)
    return elementwise(call.axes, lambda x, t: x - t, value, total)
