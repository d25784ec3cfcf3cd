"""Conditions in the normal form: ``where`` inside and outside of everything, and masks that combine."""

from __future__ import annotations

import pytest

from rewrites.normal_form import NormalForm, compare
from sgraph.axis import Axis, Size
from sgraph.evaluate import numerically_equal
from sgraph.expr import (
    Expr,
    Op,
    call,
    const,
    equal,
    exp,
    index,
    leaf,
    less,
    less_equal,
    log,
    make,
    max_over,
    maximum,
    min_over,
    neg_inf,
    recip,
    sqrt,
    sum_over,
    where,
)

M, N, K = Axis("m", Size("M", 1, 64)), Axis("n", 64), Axis("k", 64)
S, X, Y, A = leaf("s", [M, N]), leaf("x", [M, N]), leaf("y", [M, N]), leaf("a", [M])
P, Q = leaf("p", [M, N]), leaf("q", [M, N])
V = leaf("v", [N, K])
CAUSAL, EVEN_ROW, LOW = less_equal(index(N), index(M)), less(A, const(0)), less(P, Q)
PAD, BIAS = leaf("pad", [N], finite=False), leaf("bias", [M, N], finite=False)
HIDDEN = neg_inf()


def softmax(s: Expr) -> Expr:
    return exp(s) * recip(sum_over(N, exp(s)))


def safe_softmax(s: Expr) -> Expr:
    weight = exp(s - max_over(N, s))
    return weight * recip(sum_over(N, weight))


def not_causal() -> Expr:
    return less(index(M), index(N))


EQUAL: dict[str, tuple[Expr, Expr]] = {
    "function": (exp(where(LOW, X, Y)), where(LOW, exp(X), exp(Y))),
    "unknown function": (call("sin", where(LOW, X, Y)), where(LOW, call("sin", X), call("sin", Y))),
    "reciprocal": (recip(where(LOW, X, Y)), where(LOW, recip(X), recip(Y))),
    "root": (sqrt(where(LOW, X, Y)), where(LOW, sqrt(X), sqrt(Y))),
    "logarithm": (log(where(LOW, X, Y)), where(LOW, log(X), log(Y))),
    "maximum": (maximum(where(LOW, X, Y), S), where(LOW, maximum(X, S), maximum(Y, S))),
    "sum": (where(LOW, X, Y) + S, where(LOW, X + S, Y + S)),
    "product": (where(LOW, X, Y) * where(LOW, Y, X), X * Y),
    "same twice": (where(LOW, where(LOW, X, S), Y), where(LOW, X, Y)),
    "same in the other branch": (where(LOW, X, where(LOW, S, Y)), where(LOW, X, Y)),
    "complement": (where(less_equal(Q, P), Y, X), where(LOW, X, Y)),
    "complements add up": (where(LOW, X, const(0)) + where(less_equal(Q, P), X, const(0)), X),
    "complement of integers": (where(less_equal(index(M) + 1, index(N)), Y, X), where(CAUSAL, X, Y)),
    "integers between": (where(less(index(N), index(M) + 1), X, Y), where(CAUSAL, X, Y)),
    "multiple of integers": (where(less_equal(2 * index(N), 2 * index(M) + 1), X, Y), where(CAUSAL, X, Y)),
    "order": (where(LOW, where(CAUSAL, X, Y), Y), where(CAUSAL, where(LOW, X, Y), Y)),
    "both branches alike": (where(LOW, X, X), X),
    "in a sum": (
        sum_over(N, where(CAUSAL, X, Y)),
        sum_over(N, where(CAUSAL, X, const(0))) + sum_over(N, Y) - sum_over(N, where(CAUSAL, Y, const(0))),
    ),
    "out of a sum": (sum_over(N, where(EVEN_ROW, X, Y)), where(EVEN_ROW, sum_over(N, X), sum_over(N, Y))),
    "out of a maximum": (max_over(N, where(EVEN_ROW, X, Y)), where(EVEN_ROW, max_over(N, X), max_over(N, Y))),
    "out of a minimum": (min_over(N, where(EVEN_ROW, X, Y)), where(EVEN_ROW, min_over(N, X), min_over(N, Y))),
    "a condition on a choice": (
        where(less(where(EVEN_ROW, X, Y), S), S, A),
        where(EVEN_ROW, where(less(X, S), S, A), where(less(Y, S), S, A)),
    ),
    "relu": (where(less(const(0), X), X, const(0)), call("relu", X)),
    "magnitude": (where(less(X, const(0)), -X, X), call("abs", X)),
    "larger": (where(less(X, Y), Y, X), maximum(X, Y)),
    "not taken": (where(LOW, X, const(0) * recip(Y - Y)), where(LOW, X, S * recip(X - X))),
    # masks
    "exponential of a mask": (exp(where(CAUSAL, S, HIDDEN)), where(CAUSAL, exp(S), const(0))),
    "additive mask": (where(CAUSAL, S, HIDDEN), S + where(CAUSAL, const(0), HIDDEN)),
    "two masks in any order": (
        where(CAUSAL, where(LOW, S, HIDDEN), HIDDEN),
        where(LOW, where(CAUSAL, S, HIDDEN), HIDDEN),
    ),
    "two masks added": (
        where(CAUSAL, where(LOW, S, HIDDEN), HIDDEN),
        S + where(LOW, const(0), HIDDEN) + where(CAUSAL, const(0), HIDDEN),
    ),
    "a mask twice": (where(CAUSAL, where(CAUSAL, S, HIDDEN), HIDDEN), where(CAUSAL, S, HIDDEN)),
    "-inf absorbs": (S + HIDDEN + HIDDEN, HIDDEN),
    "causal softmax": (softmax(where(CAUSAL, S, HIDDEN)), safe_softmax(where(CAUSAL, S, HIDDEN))),
    "causal softmax, hidden first": (
        softmax(where(CAUSAL, S, HIDDEN)),
        safe_softmax(where(not_causal(), HIDDEN, S)),
    ),
    "shifted under the mask": (max_over(N, where(CAUSAL, S + A, HIDDEN)), A + max_over(N, where(CAUSAL, S, HIDDEN))),
    "scaled under the mask": (
        max_over(N, where(CAUSAL, const(2) * S, HIDDEN)),
        max_over(N, where(CAUSAL, S + S, HIDDEN)),
    ),
    "causal and padding": (
        sum_over(N, softmax(where(CAUSAL, S, HIDDEN) + PAD) * V),
        sum_over(N, safe_softmax(where(CAUSAL, S + PAD, HIDDEN)) * V),
    ),
    "multiplicative mask": (
        softmax(where(CAUSAL, S, HIDDEN) + PAD),
        where(CAUSAL, exp(S + PAD), const(0)) * recip(sum_over(N, where(CAUSAL, exp(S + PAD), const(0)))),
    ),
    "two additive masks": (softmax(S + PAD + BIAS), safe_softmax(BIAS + (S + PAD))),
    "masks once and split": (exp(S + PAD + BIAS), exp(PAD) * exp(S) * exp(BIAS)),
}


@pytest.mark.parametrize("name", list(EQUAL))
def test_equal(name: str) -> None:
    left, right = EQUAL[name]
    assert numerically_equal(left, right) is None
    found = compare(left, right)
    assert found.equal, found.reason


WRONG: dict[str, tuple[Expr, Expr]] = {
    "branches exchanged": (where(LOW, X, Y), where(LOW, Y, X)),
    "strict for weak": (where(CAUSAL, X, Y), where(less(index(N), index(M)), X, Y)),
    "complement that forgets equality": (where(LOW, X, Y), where(less(Q, P), Y, X)),
    "integers for reals": (where(less(X, Y), S, A), where(less_equal(X + 1, Y), S, A)),
    "conditions joined": (where(LOW, where(CAUSAL, X, Y), Y), where(LOW, X, Y)),
    "equality for order": (where(equal(index(M), index(N)), X, Y), where(CAUSAL, X, Y)),
    "sum of complements twice": (where(LOW, X, const(0)) + where(less_equal(P, Q), X, const(0)), X),
    "out of a sum although it varies": (
        sum_over(N, where(CAUSAL, X, Y)),
        where(make(Op.LE, (A, const(0))), sum_over(N, X), sum_over(N, Y)),
    ),
    "mask on the exponential for one on the sum": (
        exp(where(CAUSAL, S, HIDDEN)) * recip(sum_over(N, exp(S))),
        softmax(where(CAUSAL, S, HIDDEN)),
    ),
    "one of two masks dropped": (softmax(where(CAUSAL, S, HIDDEN) + PAD), softmax(where(CAUSAL, S, HIDDEN))),
    "the other dropped": (softmax(where(CAUSAL, S, HIDDEN) + PAD), softmax(S + PAD)),
    "zero instead of -inf": (softmax(where(CAUSAL, S, HIDDEN)), softmax(where(CAUSAL, S, const(0)))),
    "shifted beside the mask": (
        max_over(N, where(CAUSAL, S + A, const(0))),
        A + max_over(N, where(CAUSAL, S, const(0))),
    ),
    "relu with another slope": (where(less(const(0), X), X, const(0)), where(less(const(0), X), X, -X)),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_ones_are_refused_with_numbers(name: str) -> None:
    left, right = WRONG[name]
    assert not compare(left, right).equal
    assert numerically_equal(left, right) is not None


def test_a_branch_is_defined_where_it_is_taken() -> None:
    guarded = where(less(const(0), X), log(X), const(0))
    assert not compare(guarded, log(X) * where(less(const(0), X), const(1), const(0))).equal
    assert compare(where(LOW, recip(X), Y), recip(where(LOW, X, recip(Y)))).decided
    assert not compare(where(LOW, recip(X), Y), recip(where(LOW, X, recip(Y)))).equal, "Y may be 0 where LOW fails"
    assert not compare(where(LOW, S, Y), where(LOW, S, Y * X * recip(X))).equal
    assert compare(where(LOW, S, Y * recip(X)), where(LOW, S, Y * X * recip(X) * recip(X))).equal


def test_a_cancelled_denominator_of_one_branch_does_not_speak_for_the_other() -> None:
    # Where neither condition holds the denominator is 0 identically, and is not taken.
    first, second = less(A, const(0)), less(const(1), A)
    below = where(first, X, const(0)) + where(second, Y, const(0))
    part = where(first, X * recip(below), const(0)) + where(second, Y * recip(below), const(0))
    neither = where(first, const(0), where(second, const(0), S))
    for spec in (const(1), part):
        assert not compare(where(LOW, spec, A + neither), where(LOW, part, A)).equal


def test_two_additive_masks_may_both_hide() -> None:
    assert compare(exp(PAD) * exp(BIAS), exp(PAD + BIAS)).equal
    assert not compare(exp(PAD + PAD), exp(2 * PAD)).equal, "2 * -inf is undefined"
    assert compare(exp(2 * PAD), exp(PAD + PAD)).equal
    assert not compare(S + PAD, S + PAD + BIAS - BIAS).equal
    assert not compare(const(0) * S, sum_over(N, PAD) * 0).equal, "a sum takes no -inf"


def test_what_holds_anyway_says_nothing_of_a_condition() -> None:
    spec = where(LOW, sqrt(const(0)) + X, Y * recip(S))
    assert not compare(spec, where(LOW, X * S * recip(S), Y * recip(S))).equal
    never = where(LOW, X * recip(const(0)), Y * recip(S))
    assert compare(never, where(LOW, 0 * recip(S), Y * recip(S))).equal, "defined only where LOW fails"


def test_many_conditions_are_given_up() -> None:
    e = X
    for i in range(8):
        e = where(less(leaf(f"c{i}", []), const(0)), e, leaf(f"x{i}", [M]))
    found = compare(exp(e), exp(e + A) * exp(-A))
    assert not found.equal
    assert "conditions" in found.reason
    form = NormalForm()
    assert form.of(e) == form.of(e + A - A), "sums and products need no cases"
