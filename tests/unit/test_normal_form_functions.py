"""The lattice of max and min, and the relations between functions that the normal form knows."""

from __future__ import annotations

import pytest

from rewrites.normal_form import compare
from sgraph.axis import Axis, Size
from sgraph.evaluate import numerically_equal
from sgraph.expr import (
    Expr,
    call,
    const,
    exp,
    leaf,
    log,
    max_over,
    maximum,
    min_over,
    minimum,
    recip,
    rsqrt,
    sum_over,
)

K, M = Axis("k", 64), Axis("m", Size("M", 1, 64))
X, Y, Z = leaf("x", [M, K]), leaf("y", [M, K]), leaf("z", [M])
ONE = const(1)


def clamp(x: Expr, low: int, high: int) -> Expr:
    return minimum(maximum(x, const(low)), const(high))


LATTICE: dict[str, tuple[Expr, Expr]] = {
    "commutative": (maximum(X, Y), maximum(Y, X)),
    "associative": (maximum(X, maximum(Y, Z)), maximum(maximum(Y, X), Z)),
    "idempotent": (maximum(X, X), X),
    "min is -max(-)": (minimum(X, Y), -maximum(-X, -Y)),
    "absorption": (maximum(X, minimum(X, Y)), X),
    "absorption by min": (minimum(X, maximum(X, Y)), X),
    "distributivity": (maximum(X, minimum(Y, Z)), minimum(maximum(X, Y), maximum(X, Z))),
    "distributivity of min": (minimum(X, maximum(Y, Z)), maximum(minimum(X, Y), minimum(X, Z))),
    "sum of max and min": (maximum(X, Y) + minimum(X, Y), X + Y),
    "common addend": (maximum(X + Z, Y + Z), Z + maximum(X, Y)),
    "positive factor": (maximum(X * exp(Z), Y * exp(Z)), exp(Z) * maximum(X, Y)),
    "max over an axis": (max_over(K, maximum(X, Y)), maximum(max_over(K, X), max_over(K, Y))),
    "min over an axis": (min_over(K, minimum(X, Y)), minimum(min_over(K, X), min_over(K, Y))),
    "max over an axis of min": (max_over(K, minimum(X, Z)), minimum(max_over(K, X), Z)),
    "min over an axis of max": (min_over(K, maximum(X, Z)), maximum(min_over(K, X), Z)),
    "clamps": (clamp(X, -1, 1), maximum(minimum(X, const(1)), const(-1))),
    "magnitude": (call("abs", X), maximum(X, -X)),
    "both relus": (call("relu", X) - call("relu", -X), X),
    "relu and magnitude": (2 * call("relu", X), X + call("abs", X)),
}

FUNCTIONS: dict[str, tuple[Expr, Expr]] = {
    "Pythagoras": (call("sin", X) * call("sin", X) + call("cos", X) * call("cos", X), ONE),
    "odd and even": (call("sin", -X) * call("cos", -X), -call("sin", X) * call("cos", X)),
    "rotations keep lengths": (
        sum_over(
            K,
            (Y * call("cos", X) - Z * call("sin", X)) * (Y * call("cos", X) - Z * call("sin", X))
            + (Y * call("sin", X) + Z * call("cos", X)) * (Y * call("sin", X) + Z * call("cos", X)),
        ),
        sum_over(K, Y * Y + Z * Z),
    ),
    "sigmoid of -x": (call("sigmoid", -X), 1 - call("sigmoid", X)),
    "sigmoid": (call("sigmoid", X), recip(1 + exp(-X))),
    "tanh by sigmoid": (call("tanh", X), 2 * call("sigmoid", 2 * X) - 1),
    "tanh by exp": (call("tanh", X), (exp(X) - exp(-X)) * recip(exp(X) + exp(-X))),
    "silu of -x": (call("silu", X) - call("silu", -X), X),
    "softplus of -x": (call("softplus", X) - call("softplus", -X), X),
    "log sigmoid": (log(call("sigmoid", X)), -call("softplus", -X)),
    "inside a sum": (sum_over(K, call("tanh", X) * Y), 2 * sum_over(K, call("sigmoid", 2 * X) * Y) - sum_over(K, Y)),
    "gelu": (call("gelu", X), const("1/2") * X * (1 + call("erf", X * rsqrt(const(2))))),
    "log of a product": (
        log(exp(X) * sum_over(K, exp(Y)) * recip(const(4))),
        X + log(sum_over(K, exp(Y))) - 2 * log(const(2)),
    ),
}


@pytest.mark.parametrize("name", [*LATTICE, *FUNCTIONS])
def test_equal_both_ways(name: str) -> None:
    left, right = (LATTICE | FUNCTIONS)[name]
    assert numerically_equal(left, right) is None
    assert compare(left, right).equal, compare(left, right).reason
    assert compare(right, left).equal, compare(right, left).reason


WRONG: dict[str, tuple[Expr, Expr]] = {
    "max for min": (maximum(X, Y), minimum(X, Y)),
    "absorption of another": (maximum(X, minimum(Y, Z)), X),
    "distributivity over +": (maximum(X, Y + Z), maximum(X, Y) + maximum(X, Z)),
    "factor of unknown sign": (maximum(X * Z, Y * Z), Z * maximum(X, Y)),
    "negative factor": (maximum(-X, -Y), -maximum(X, Y)),
    "twice the largest": (maximum(X, Y) + maximum(X, Y), maximum(X, Y)),
    "max over an axis of a sum": (max_over(K, X + Y), max_over(K, X) + max_over(K, Y)),
    "max over an axis of min of two": (max_over(K, minimum(X, Y)), minimum(max_over(K, X), max_over(K, Y))),
    "another bound": (clamp(X, -1, 1), clamp(X, -1, 2)),
    "a bound lost": (clamp(X, -65504, 65504), maximum(X, const(-65504))),
    "a large bound moved": (clamp(X, -60000, 60000), clamp(X, -65504, 65504)),
    "relu for magnitude": (call("abs", X), call("relu", X)),
    "hyperbolic Pythagoras": (call("tanh", X) * call("tanh", X) + call("cos", X) * call("cos", X), ONE),
    "sigmoid of -x": (call("sigmoid", -X), -call("sigmoid", X)),
    "cosine as odd": (call("cos", -X), -call("cos", X)),
    "tanh without the 2": (call("tanh", X), 2 * call("sigmoid", X) - 1),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_ones_are_refused_with_numbers(name: str) -> None:
    left, right = WRONG[name]
    assert not compare(left, right).equal
    assert not compare(right, left).equal
    assert numerically_equal(left, right) is not None
