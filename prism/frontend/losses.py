"""What losses mean: element by element, then reduced to their mean or sum."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from prism.frontend.call import Call, meaning
from prism.frontend.combine import elementwise, fold, position, whole
from prism.frontend.reductions import exponentials, mean, summed
from prism.frontend.values import Tensorial, Value
from sgraph.expr import Expr, Op, const, equal, exp, less, log, maximum, mul, negate, recip, where
from sgraph.expr import call as named

NONE, MEAN, SUM = 0, 1, 2
"""How torch numbers its reductions."""


def _reduced(call: Call, losses: Tensorial) -> Tensorial:
    everything = range(losses.rank)
    match call.node.arguments["reduction"]:
        case 0:
            return losses
        case 1:
            return mean(call.axes, losses, everything, keep=False)
        case _:
            return summed(call.axes, losses, everything, keep=False)


def _pairwise(call: Call, loss: Callable[[Expr, Expr], Expr]) -> Tensorial:
    return _reduced(call, elementwise(call.axes, loss, call.tensor("self"), call.tensor("target")))


@meaning("mse_loss")
def _mse(call: Call) -> Tensorial:
    return _pairwise(call, lambda x, t: (x - t) * (x - t))


@meaning("l1_loss")
def _l1(call: Call) -> Tensorial:
    return _pairwise(call, lambda x, t: named("abs", x - t))


@meaning("smooth_l1_loss")
def _smooth_l1(call: Call) -> Tensorial:
    beta = call.rational("beta")
    if not beta:
        return _pairwise(call, lambda x, t: named("abs", x - t))

    def loss(x: Expr, t: Expr) -> Expr:
        distance = named("abs", x - t)
        near = (x - t) * (x - t) * const(Fraction(1, 2) / beta)
        return where(less(distance, const(beta)), near, distance - const(beta / 2))

    return _pairwise(call, loss)


@meaning("huber_loss")
def _huber(call: Call) -> Tensorial:
    delta = call.rational("delta")

    def loss(x: Expr, t: Expr) -> Expr:
        distance = named("abs", x - t)
        near = (x - t) * (x - t) * const(Fraction(1, 2))
        return where(less(const(delta), distance), const(delta) * (distance - const(delta / 2)), near)

    return _pairwise(call, loss)


@meaning("kl_div")
def _kl(call: Call) -> Tensorial:
    """``target * (log(target) - input)``; 0 where the target is 0."""
    if call.flag("log_target"):
        return _pairwise(call, lambda x, t: exp(t) * (t - x))
    return _pairwise(call, lambda x, t: where(equal(t, const(0)), const(0), t * log(t)) - t * x)


@meaning("binary_cross_entropy_with_logits")
def _binary(call: Call) -> Tensorial:
    """``softplus(x) - t * x``, written so that no exponential overflows."""
    if call.has("pos_weight"):
        call.refuse("with weights of the positive class")

    def loss(x: Expr, t: Expr) -> Expr:
        return maximum(x, const(0)) - x * t + named("softplus", negate(named("abs", x)))

    losses = elementwise(call.axes, loss, call.tensor("self"), call.tensor("target"))
    weight = call.optional("weight")
    return _reduced(call, losses if weight is None else elementwise(call.axes, mul, losses, weight))


@meaning("cross_entropy_loss")
def _cross_entropy(call: Call) -> Tensorial:
    """Of logits ``[N, C]`` or ``[C]``, and classes or probabilities."""
    if call.has("weight"):
        call.refuse("with weights of classes")
    logits, target = whole(call.axes, call.tensor("self")), whole(call.axes, call.tensor("target"))
    if logits.rank > 2:
        call.refuse("of more than two dimensions; move the classes to the last one and merge the others")
    smoothing = call.rational("label_smoothing")
    classes = logits.rank - 1
    total = elementwise(call.axes, log, exponentials(call.axes, logits, (classes,), keep=True))
    scores = elementwise(call.axes, lambda x, t: x - t, logits, total)
    count = logits.shape[classes]
    if count.sizes:
        call.refuse("of a symbolic number of classes")
    if target.rank == logits.rank:
        smooth = const(smoothing / count.number)

        def weighted(s: Expr, t: Expr) -> Expr:
            return negate(s * (t * const(1 - smoothing) + smooth if smoothing else t))

        losses = summed(call.axes, elementwise(call.axes, weighted, scores, target), (classes,), keep=False)
        if call.node.arguments["reduction"] != MEAN or losses.rank:
            return _reduced(call, losses)
        return losses
    return _of_classes(call, whole(call.axes, scores), target, smoothing, count.number)


def _of_classes(call: Call, scores: Value, target: Value, smoothing: Fraction, count: int) -> Tensorial:
    """The negated score of each row's class, without the rows whose class is ``ignore_index``."""
    classes = scores.rank - 1
    beside = Value((*target.dims, ()), target.expr)
    number = Value((scores.dims[classes],), position(scores.dims[classes]))
    picked = elementwise(call.axes, lambda s, t, c: where(equal(c, t), s, const(0)), scores, beside, number)
    chosen = summed(call.axes, picked, (classes,), keep=False)
    if smoothing:
        every = summed(call.axes, scores, (classes,), keep=False)
        chosen = elementwise(
            call.axes, lambda c, e: c * const(1 - smoothing) + e * const(smoothing / count), chosen, every
        )
    ignored = call.number("ignore_index")
    losses = elementwise(call.axes, lambda c, t: where(equal(t, ignored), const(0), negate(c)), chosen, target)
    if call.node.arguments["reduction"] != MEAN:
        return _reduced(call, losses)
    counted = elementwise(call.axes, lambda t: where(equal(t, ignored), const(0), const(1)), target)
    everything = range(target.rank)
    over, below = (fold(call.axes, v, everything, Op.SUM, keep=False) for v in (losses, counted))
    return elementwise(call.axes, lambda a, b: a * recip(b), over, below)
