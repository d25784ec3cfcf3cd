"""Scaled values: exponentials carried as mantissa and exponent, so that no family overflows.

The algebra never sees a maximum: softmax is ``exp(x) / sum(exp(x))``. Before a kernel is staged or printed,
what grows like ``exp`` is rewritten to mantissa x exp(scale), with a maximum as the scale of a sum:
``sum(S, a * exp(e))`` becomes ``exp(M) * sum(S, a * exp(e - M))`` with ``M = max(S, e)``. Quotients of two such
values cancel their scales, and what remains to be materialised is an exponential of something that is at most 0,
or one that the program itself materialises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

from sgraph.axis import Axis
from sgraph.expr import (
    Expr,
    Op,
    add,
    const,
    exp,
    factors,
    log,
    make,
    max_over,
    mul,
    product,
    recip,
    reduction,
    sum_over,
    walk,
)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """``mantissa * exp(sum of coefficient * term)``."""

    mantissa: Expr
    scale: tuple[tuple[Expr, Fraction], ...] = ()

    def materialise(self) -> Expr:
        if not self.scale:
            return self.mantissa
        exponential = exp(_weighted_sum(self.scale))
        return exponential if self.mantissa is const(1) else mul(self.mantissa, exponential)


def stabilise(value: Expr) -> Expr:
    """An equal expression in which every sum of exponentials is relative to its maximum."""
    if not any(node.op is Op.EXP for node in walk([value])):
        return value
    return _represent(value).materialise()


def carries_scale(value: Expr) -> bool:
    """Whether materialising a value would multiply an exponential into it that may overflow.

    Such a value must not be stored between kernels as one plain tensor.
    """
    return any(node.op is Op.EXP for node in walk([value])) and bool(_represent(value).scale)


def _represent(value: Expr) -> _Scaled:
    done: dict[Expr, _Scaled] = {}
    for node in walk([value]):
        done[node] = _scaled(node, done)
    return done[value]


def _scaled(node: Expr, done: Mapping[Expr, _Scaled]) -> _Scaled:
    match node.op:
        case Op.EXP:
            return _Scaled(const(1), _terms(done[node.args[0]].materialise()))
        case Op.MUL:
            left, right = done[node.args[0]], done[node.args[1]]
            return _Scaled(_times(left.mantissa, right.mantissa), _merge(left.scale, right.scale))
        case Op.RECIP:
            inner = done[node.args[0]]
            mantissa = inner.mantissa if inner.mantissa is const(1) else recip(inner.mantissa)
            return _Scaled(mantissa, tuple((t, -c) for t, c in inner.scale))
        case Op.LOG if done[node.args[0]].scale:
            inner = done[node.args[0]]
            scale = _weighted_sum(inner.scale)
            return _Scaled(scale if inner.mantissa is const(1) else add(scale, log(inner.mantissa)))
        case Op.SUM:
            axes, operand = reduction(node)
            return _scaled_sum(axes, done[operand])
        case _:
            return _Scaled(make(node.op, tuple(done[a].materialise() for a in node.args), node.attr))


def _scaled_sum(axes: tuple[Axis, ...], operand: _Scaled) -> _Scaled:
    bound = set(axes)
    operand = _without_masks(operand, bound)
    inside = tuple((t, c) for t, c in operand.scale if t.free & bound)
    outside = tuple((t, c) for t, c in operand.scale if not t.free & bound)
    if not inside:
        return _Scaled(sum_over(axes, operand.mantissa), outside)
    exponent = _weighted_sum(inside)
    peak = max_over(axes, exponent)
    shifted = exp(add(exponent, mul(const(-1), peak)))
    summed = sum_over(axes, _times(operand.mantissa, shifted))
    return _Scaled(summed, _merge(outside, ((peak, Fraction(1)),)))


def _without_masks(value: _Scaled, bound: set[Axis]) -> _Scaled:
    """The value with masks that do not vary over the bound axes as factors: a sum that is masked has no maximum."""
    mantissa = value.mantissa
    scale: tuple[tuple[Expr, Fraction], ...] = ()
    for term, weight in value.scale:
        if term.op is Op.WHERE and weight > 0 and term.free & bound and not term.args[0].free & bound:
            condition, then, otherwise = term.args
            masked = [b.op is Op.NEG_INF for b in (then, otherwise)]
            if any(masked):
                ones = (const(0 if m else 1) for m in masked)
                mantissa = _times(mantissa, make(Op.WHERE, (condition, *ones)))
                kept = otherwise if masked[0] else then
                scale = _merge(scale, tuple((t, c * weight) for t, c in _terms(kept)))
                continue
        scale = _merge(scale, ((term, weight),))
    return _Scaled(mantissa, scale)


def online_scale(value: Expr) -> Expr | None:
    """The maximum that a sum can be accumulated relative to in the same pass, if it is a scaled one.

    It is ``M`` where the sum is over axes ``S`` and has a factor ``exp(e - M)`` with ``M = max(S, e)``.
    """
    if value.op is not Op.SUM:
        return None
    axes, operand = reduction(value)
    for factor in factors(operand):
        if factor.op is not Op.EXP or factor.args[0].op is not Op.ADD:
            continue
        exponent, shift = factor.args[0].args
        if shift.op is Op.MUL and shift.args[0] is const(-1) and shift.args[1].op is Op.MAX:
            over, of = reduction(shift.args[1])
            if set(over) == set(axes) and of is exponent:
                return shift.args[1]
    return None


def _times(a: Expr, b: Expr) -> Expr:
    if a is const(1):
        return b
    return a if b is const(1) else product((*factors(a), *factors(b)))


def _terms(e: Expr) -> tuple[tuple[Expr, Fraction], ...]:
    """An exponent as a sum of terms with coefficients."""
    out: tuple[tuple[Expr, Fraction], ...] = ()
    stack = [(e, Fraction(1))]
    while stack:
        node, weight = stack.pop()
        if node.op is Op.ADD:
            stack.extend((a, weight) for a in reversed(node.args))
            continue
        chain = factors(node)
        for factor in chain:
            if factor.op is Op.CONST:
                weight *= factor.value
        rest = product(f for f in chain if f.op is not Op.CONST)
        out = _merge(out, ((rest, weight),))
    return out


def _merge(
    a: tuple[tuple[Expr, Fraction], ...], b: tuple[tuple[Expr, Fraction], ...]
) -> tuple[tuple[Expr, Fraction], ...]:
    total = dict(a)
    for term, weight in b:
        total[term] = total.get(term, Fraction(0)) + weight
    return tuple((t, w) for t, w in total.items() if w)


def _weighted_sum(terms: tuple[tuple[Expr, Fraction], ...]) -> Expr:
    """The exponent as an expression, positive terms first, so that a shift reads ``e + (-1) * M``."""
    first, *rest = sorted(terms, key=lambda t: t[1] < 0)
    out = _weighted(*first)
    for term in rest:
        out = add(out, _weighted(*term))
    return out


def _weighted(term: Expr, weight: Fraction) -> Expr:
    """A multiple of a term. Minus infinity is no factor: it stays what it is, or is added to itself."""
    if weight == 1:
        return term
    if term.finite or weight < 0:
        return mul(const(weight), term)
    if term.op is Op.NEG_INF:
        return term
    if term.op is Op.WHERE:
        condition, *branches = term.args
        return make(Op.WHERE, (condition, *(_weighted(b, weight) for b in branches)))
    return reduce(add, [term] * weight.numerator) if weight.denominator == 1 else mul(const(weight), term)
