"""The two cheap looks at an equation: order, and parts that both sides have."""

from __future__ import annotations

import pytest

from sgraph.axis import Axis, Size
from sgraph.expr import (
    Expr,
    Op,
    const,
    exp,
    extent,
    index,
    leaf,
    less,
    make,
    maximum,
    mean_over,
    recip,
    rsqrt,
    sum_over,
    where,
)
from verify.arranged import arranged, without_shared_parts
from verify.equivalence import prove_equal
from verify.verdict import Status

M, K, N = Axis("m", 16), Axis("k", 32), Axis("n", 8)
X, Y, G = leaf("x", (M, K)), leaf("y", (M, K)), leaf("g", (K,))


def normed(value: Expr) -> Expr:
    return value * rsqrt(mean_over(K, value * value) + const("1/1000000"))


def test_order_does_not_matter() -> None:
    assert arranged(X * (G * Y) + (G + X)) is arranged(X + (Y * X * G + G))
    assert arranged(maximum(X, maximum(Y, G))) is arranged(maximum(maximum(G, X), Y))
    assert arranged(sum_over(K, X * Y)) is arranged(sum_over(K, Y * X))


def test_what_is_different_stays_so() -> None:
    assert arranged(X * X * Y) is not arranged(X * Y * Y)
    assert arranged(X + Y * G) is not arranged(X * G + Y)
    assert arranged(maximum(X, Y)) is not arranged(X + Y)
    assert arranged(where(less(X, Y), X, Y)) is not arranged(where(less(Y, X), X, Y))


def test_a_part_that_both_have_becomes_a_leaf() -> None:
    deep = normed(normed(X) + Y)
    smaller = without_shared_parts(deep * (G + Y), deep * G + Y * deep)
    assert smaller is not None
    left, right = smaller
    assert left.free == deep.free | (G + Y).free
    assert prove_equal(left, right).status is Status.PROVED


def test_nothing_is_named_that_may_not_be_evaluated() -> None:
    part = sum_over(K, X)
    inside = less(index(M), const(3))
    left, right = where(inside, recip(part), const(0)), where(inside, recip(part) + part - part, const(0))
    assert without_shared_parts(left, right) is None
    assert without_shared_parts(left * G, G * left + Y - Y) is not None, "here the choice as a whole always counts"
    open_axis = Axis("o", Size("O", 0, 8))
    z = leaf("z", (open_axis,))
    total = sum_over(open_axis, z)
    assert without_shared_parts(recip(total) * X, X * recip(total) + X - X) is None


@pytest.mark.parametrize("levels", [4, 8, 12])
def test_one_norm_after_another(levels: int) -> None:
    def chain(turned: bool) -> Expr:
        value = X
        for i in range(levels):
            gain = leaf(f"g{i}", (K,))
            value = X + gain * normed(value) if turned else normed(value) * gain + X
        return value

    verdict = prove_equal(chain(False), chain(True))
    assert verdict.status is Status.PROVED
    assert verdict.seconds < 1.0


def test_the_last_level_may_be_written_otherwise() -> None:
    value = X
    for i in range(6):
        value = normed(value) * leaf(f"g{i}", (K,)) + X
    weights = leaf("w", (K, N))
    scale = rsqrt(mean_over(K, value * value) + const("1/1000000"))
    before = sum_over(K, value * scale * weights)
    after = sum_over(K, weights * value) * scale
    assert prove_equal(before, after).status is Status.PROVED
    wrong = sum_over(K, weights * value) * scale * scale
    assert prove_equal(before, wrong).status is not Status.PROVED


def test_exponentials_of_masked_values_stay_right() -> None:
    masked = where(less(index(K), extent(K)), X, make(Op.NEG_INF))
    assert prove_equal(exp(masked) * G, G * exp(masked)).status is Status.PROVED
