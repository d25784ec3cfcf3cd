"""What reductions mean, and the norms and softmaxes made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from prism.frontend.axes import Axes
from prism.frontend.call import Call, Results, meaning
from prism.frontend.combine import count, elementwise, fewest, fold
from prism.frontend.values import Tensorial
from sgraph.errors import UnsupportedProgram
from sgraph.expr import Op, const, exp, log, maximum, minimum, recip, sqrt
from sgraph.expr import call as named

Reduction = Callable[[Axes, Tensorial, Sequence[int], bool], Tensorial]
"""A reduction of some dimensions, which are kept with extent 1 or dropped."""


def summed(axes: Axes, value: Tensorial, dimensions: Sequence[int], keep: bool) -> Tensorial:
    """The sum over some dimensions."""
    return fold(axes, value, dimensions, Op.SUM, keep=keep)


def mean(axes: Axes, value: Tensorial, dimensions: Sequence[int], keep: bool) -> Tensorial:
    """The mean over some dimensions."""
    number = count(value, dimensions)
    result = summed(axes, value, dimensions, keep)
    return result if number is const(1) else elementwise(axes, lambda e: e * recip(number), result)


def squared(axes: Axes, value: Tensorial) -> Tensorial:
    """The square of each element."""
    return elementwise(axes, lambda e: e * e, value)


def squares(axes: Axes, value: Tensorial, dimensions: Sequence[int], keep: bool) -> Tensorial:
    """The sum of the squares."""
    return summed(axes, squared(axes, value), dimensions, keep)


def exponentials(axes: Axes, value: Tensorial, dimensions: Sequence[int], keep: bool) -> Tensorial:
    """The sum of the exponentials."""
    return summed(axes, elementwise(axes, exp, value), dimensions, keep)


def _reduced(call: Call, reduction: Reduction) -> Tensorial:
    value = call.tensor("self")
    return reduction(call.axes, value, call.dimensions("dim", value.rank), call.flag("keepdim"))


def _extreme(op: Op) -> Reduction:
    return lambda axes, value, dimensions, keep: fold(axes, value, dimensions, op, keep=keep)


@meaning("sum")
def _sum(call: Call) -> Tensorial:
    return _reduced(call, summed)


@meaning("mean")
def _mean(call: Call) -> Tensorial:
    return _reduced(call, mean)


@meaning("amax")
def _amax(call: Call) -> Tensorial:
    return _reduced(call, _extreme(Op.MAX))


@meaning("amin")
def _amin(call: Call) -> Tensorial:
    return _reduced(call, _extreme(Op.MIN))


@meaning("max", "min")
def _max_or_min(call: Call) -> Tensorial | Results:
    is_max = call.node.operator.startswith("aten.max")
    if call.has("other"):
        return elementwise(call.axes, maximum if is_max else minimum, call.tensor("self"), call.tensor("other"))
    values = _reduced(call, _extreme(Op.MAX if is_max else Op.MIN))
    return (values, None) if call.has("dim") else values


@meaning("logsumexp")
def _logsumexp(call: Call) -> Tensorial:
    return elementwise(call.axes, log, _reduced(call, exponentials))


def _of_absolutes(reduction: Reduction) -> Reduction:
    def reduced(axes: Axes, value: Tensorial, dimensions: Sequence[int], keep: bool) -> Tensorial:
        return reduction(axes, elementwise(axes, lambda e: named("abs", e), value), dimensions, keep)

    return reduced


@meaning("aminmax")
def _aminmax(call: Call) -> Results:
    return (_reduced(call, _extreme(Op.MIN)), _reduced(call, _extreme(Op.MAX)))


@meaning("linalg_vector_norm", "linalg_norm", "norm")
def _norm(call: Call) -> Tensorial:
    name = "ord" if "ord" in call.node.arguments else "p"
    dimensions = call.dimensions("dim", call.tensor("self").rank)
    if call.node.operator.startswith("aten.linalg_norm") and call.has(name) and len(dimensions) > 1:
        call.refuse("with an order and two dimensions it is the norm of a matrix")
    order = call.node.arguments[name]
    if order in (math.inf, -math.inf):
        return _reduced(call, _of_absolutes(_extreme(Op.MAX if order == math.inf else Op.MIN)))
    if not call.has(name) or call.rational(name) == 2:
        return elementwise(call.axes, sqrt, _reduced(call, squares))
    if call.rational(name) == 1:
        return _reduced(call, _of_absolutes(summed))
    return call.refuse(f"the norm of order {call.node.arguments[name]} is not understood, only 1, 2 and infinity")


# ------------------------------------------------------------------------------------ variance and layer norm


@meaning("var", "std", "var_mean", "std_mean")
def _variance(call: Call) -> Tensorial | Results:
    """Of the squared deviations from the mean, with the correction (1 unless said otherwise)."""
    correction = _correction(call)
    root = call.node.operator.startswith("aten.std")

    def spread(axes: Axes, value: Tensorial, dimensions: Sequence[int], keep: bool) -> Tensorial:
        _check_count(call, value, dimensions, correction)
        deviation = elementwise(axes, lambda x, c: x - c, value, mean(axes, value, dimensions, keep=True))
        number = count(value, dimensions)
        scale = recip(number - const(correction)) if correction else recip(number)
        total = squares(axes, deviation, dimensions, keep)
        return elementwise(axes, lambda e: sqrt(e * scale) if root else e * scale, total)

    result = _reduced(call, spread)
    return (result, _reduced(call, mean)) if "_mean" in call.node.operator else result


def _correction(call: Call) -> Fraction:
    if "correction" in call.node.arguments:
        return call.rational("correction") if call.has("correction") else Fraction(1)
    return Fraction(1 if call.flag("unbiased") else 0)


def _check_count(call: Call, value: Tensorial, dimensions: Sequence[int], correction: Fraction) -> None:
    smallest = fewest(value, dimensions)
    if smallest <= correction:
        raise UnsupportedProgram(
            f"{call.node.operator} divides by {smallest} - {correction} elements",
            where=call.node.line,
            do="use correction=0, or reduce more elements",
        )


# -------------------------------------------------------------------------------------------------- softmax


@meaning("softmax", "_softmax")
def _softmax(call: Call) -> Tensorial:
    value = call.tensor("self")
    return softmax(call.axes, value, call.dimensions("dim", value.rank))


def softmax(axes: Axes, value: Tensorial, dimensions: Sequence[int]) -> Tensorial:
    """``exp(x) / sum(exp(x))``. Subtracting the maximum is a representation of this value, added by lowering."""
    total = exponentials(axes, value, dimensions, keep=True)
    return elementwise(axes, lambda x, t: exp(x) * recip(t), value, total)


@meaning("log_softmax", "_log_softmax")
def _log_softmax(call: Call) -> Tensorial:
    value = call.tensor("self")
    total = exponentials(call.axes, value, call.dimensions("dim", value.rank), keep=True)
    return elementwise(call.axes, lambda x, t: x - log(t), value, total)
