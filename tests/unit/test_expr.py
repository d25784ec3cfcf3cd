"""Axes, expressions, programs and scaled values: the facts that everything else is derived from."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from sgraph.axis import Axis, Size, divides, largest, ordered
from sgraph.evaluate import evaluate, numerically_equal
from sgraph.expr import (
    Expr,
    Op,
    Sign,
    add,
    bound_axes,
    call,
    const,
    exp,
    extent,
    factors,
    index,
    leaf,
    leaves,
    log,
    make,
    max_over,
    maximum,
    mean_over,
    minimum,
    mul,
    neg_inf,
    recip,
    reduction,
    rename,
    sqrt,
    sum_over,
    walk,
    where,
)
from sgraph.program import DType, Output, Program, Tensor
from sgraph.scaled import online_scale, stabilise

m, k, n = Axis("m", Size("M", 1, 64)), Axis("k", 8), Axis("n", 4)
x, w, g = leaf("x", (m, k)), leaf("W", (k, n)), leaf("g", (k,))
maybe_empty = Axis("e", Size("E", 0, 8))


# ------------------------------------------------------------------------------------------------- axes


def test_extents() -> None:
    size = Size("kv", 16, 64, 16)
    assert divides(8, size) and not divides(32, size)
    assert divides(4, 4096) and not divides(3, 4096)
    assert largest(size) == 64 and largest(7) == 7


def test_axis_copies_and_atoms() -> None:
    copy = k.renamed(1)
    assert copy != k and copy.base == k and copy.atom("cell").base == k
    assert str(copy) == "k#1" and str(copy.atom("step")) == "k#1.step"
    assert ordered({n, copy, k, m}) == (k, copy, m, n)


# ------------------------------------------------------------------------------------------ expressions


def test_equal_expressions_are_one_object() -> None:
    again = sum_over(Axis("k", 8), leaf("x", (m, k)) * leaf("W", (k, n)))
    assert again is sum_over(k, x * w)
    assert x + g is not g + x


def test_free_axes_are_the_shape() -> None:
    assert sum_over(k, x * w).free == {m, n}
    assert extent(k).free == frozenset()
    assert index(k).free == {k}
    assert sum_over((k, n), x * w).free == {m}


def test_extent_belongs_to_the_complete_axis() -> None:
    assert extent(k.renamed(2)) is extent(k)


def test_operators_are_definitions() -> None:
    assert x - g is add(x, mul(const(-1), g))
    assert x - 3 is add(x, const(-3))
    assert x / g is mul(x, recip(g))
    assert -const(2) is const(-2)
    assert 1 - x is add(const(1), mul(const(-1), x))
    assert const("0.5") is const("1/2")


def test_conditions_stand_only_in_where() -> None:
    with pytest.raises(AssertionError):
        where(x, g, g)


def test_a_leaf_reads_each_axis_once() -> None:
    with pytest.raises(AssertionError, match="repeats an axis"):
        leaf("x", (k, k))


def test_factors_and_reduction_see_through_nesting() -> None:
    assert factors((x * g) * (w * x)) == (x, g, w, x)
    assert reduction(sum_over((m, k), x)) == ((m, k), x)
    assert reduction(sum_over(m, max_over(k, x))) == ((m,), max_over(k, x))


def test_walk_visits_operands_first_and_once() -> None:
    shared = exp(x)
    nodes = list(walk([shared * shared, shared + g]))
    assert len(nodes) == len(set(nodes)) == 5
    assert all(nodes.index(a) < nodes.index(node) for node in nodes for a in node.args)


def test_walk_does_not_recurse() -> None:
    deep = x
    for _ in range(5_000):
        deep = exp(deep)
    assert sum(1 for _ in walk([deep])) == 5_001


def test_leaves_and_bound_axes() -> None:
    value = sum_over(k, x * w) + sum_over(n, w) * max_over(k, x)
    assert [e.name for e in leaves([value])] == ["x", "W"]
    assert bound_axes([value]) == (k, n)


@pytest.mark.parametrize(
    ("value", "sign"),
    [
        (x, Sign.ANY),
        (const(3), Sign.POSITIVE),
        (const(0), Sign.NONNEGATIVE),
        (const(-1), Sign.ANY),
        (x * x, Sign.NONNEGATIVE),
        (x * g, Sign.ANY),
        (exp(x), Sign.POSITIVE),
        (exp(neg_inf()), Sign.NONNEGATIVE),
        (exp(leaf("mask", (k,), finite=False)), Sign.NONNEGATIVE),
        (exp(x) + x * x, Sign.POSITIVE),
        (recip(sqrt(x * x + const("1/1000000"))), Sign.POSITIVE),
        (recip(x), Sign.ANY),
        (recip(x * x), Sign.POSITIVE),
        (sqrt(x), Sign.NONNEGATIVE),
        (sum_over(k, exp(x)), Sign.POSITIVE),
        (sum_over(maybe_empty, exp(leaf("y", (maybe_empty,)))), Sign.NONNEGATIVE),
        (max_over(maybe_empty, exp(leaf("y", (maybe_empty,)))), Sign.ANY),
        (maximum(x, exp(x)), Sign.POSITIVE),
        (minimum(exp(x), x * x), Sign.NONNEGATIVE),
        (call("sigmoid", x), Sign.POSITIVE),
        (call("relu", x), Sign.NONNEGATIVE),
        (call("tanh", x), Sign.ANY),
        (where(make(Op.LT, (x, g)), const(1), x * x), Sign.NONNEGATIVE),
        (extent(k), Sign.POSITIVE),
        (extent(maybe_empty), Sign.NONNEGATIVE),
        (index(k), Sign.NONNEGATIVE),
    ],
    ids=str,
)
def test_sign_facts(value: Expr, sign: Sign) -> None:
    assert value.sign is sign


@pytest.mark.parametrize(
    ("value", "finite"),
    [
        (x, True),
        (neg_inf(), False),
        (leaf("mask", (k,), finite=False), False),
        (exp(neg_inf()), True),
        (maximum(x, neg_inf()), True),
        (where(make(Op.LE, (x, g)), x, neg_inf()), False),
        (max_over(k, x), True),
        (max_over(maybe_empty, leaf("y", (maybe_empty,))), False),
    ],
    ids=str,
)
def test_finite_facts(value: Expr, finite: bool) -> None:
    assert value.finite is finite


def test_pickle_restores_the_same_object() -> None:
    value = sum_over(k, x * w) * recip(mean_over(k, x * x))
    assert pickle.loads(pickle.dumps(value)) is value


def test_digests_are_the_same_in_every_process() -> None:
    value = sum_over(k, x * w * const("1/3")) + call("silu", g)
    program = (
        "from sgraph.axis import Axis, Size\n"
        "from sgraph.expr import *\n"
        "m, k, n = Axis('m', Size('M', 1, 64)), Axis('k', 8), Axis('n', 4)\n"
        "value = sum_over(k, leaf('x', (m, k)) * leaf('W', (k, n)) * const('1/3')) + call('silu', leaf('g', (k,)))\n"
        "import sys; sys.stdout.write(value.digest.hex())\n"
    )
    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout == value.digest.hex()


def test_digests_tell_expressions_apart() -> None:
    different = [x, g, x + g, g + x, x * g, sum_over(k, x), max_over(k, x), leaf("x", (m, k), finite=False), const(1)]
    assert len({e.digest for e in different}) == len(different)


# --------------------------------------------------------------------------------------------- renaming


def test_renaming_leaves_bound_axes_alone() -> None:
    value = sum_over(k, x)
    assert rename(value, {k: n}) is value
    assert rename(value, {m: n}) is sum_over(k, leaf("x", (n, k)))


def test_renaming_moves_a_bound_axis_out_of_the_way() -> None:
    j = Axis("j", 8)
    value = sum_over(k, leaf("a", (j, k)))
    moved = rename(value, {j: k})
    assert moved.free == {k}
    assert moved is sum_over(k.renamed(1), leaf("a", (k, k.renamed(1))))


def test_renaming_swaps_axes_at_once() -> None:
    a, b = k, k.renamed(1)
    scores = leaf("q", (a,)) * leaf("p", (b,)) - index(a)
    assert rename(scores, {a: b, b: a}) is leaf("q", (b,)) * leaf("p", (a,)) - index(b)


def test_renaming_keeps_values() -> None:
    j = Axis("j", 3)
    i = Axis("k", 3)
    value = sum_over(i, leaf("a", (j, i)) * leaf("b", (i,)))
    tensors = {"a": np.arange(9.0).reshape(3, 3), "b": np.array([1.0, -2.0, 5.0])}
    moved = rename(value, {j: i})
    np.testing.assert_array_equal(evaluate(moved, tensors, {}).data, evaluate(value, tensors, {}).data)


# --------------------------------------------------------------------------------------------- programs


def test_program_lists_every_axis_and_tensor() -> None:
    inputs = (Tensor("x", (m, None, k), DType.BF16), Tensor("W", (k, n), DType.BF16, constant=True))
    out = Tensor("out", (m, n), DType.FP32)
    program = Program("linear", inputs, (Output(out, sum_over(k, inputs[0].read() * inputs[1].read())),))
    assert program.axes == (k, m, n)
    assert program.tensor("out") is out
    assert inputs[0].named_axes == (m, k)
    assert inputs[0].largest_bytes() == 64 * 8 * 2
    with pytest.raises(KeyError):
        program.tensor("missing")


def test_element_types() -> None:
    assert [d.short for d in DType] == ["bf16", "fp16", "fp32", "fp64", "i32", "i64", "bool"]
    assert DType.BF16.bytes == 2


# ---------------------------------------------------------------------------------------- scaled values


def softmax(value: Expr, axis: Axis) -> Expr:
    return exp(value) * recip(sum_over(axis, exp(value)))


SCORES = const("1/8") * sum_over(k, leaf("q", (m, k)) * leaf("p", (n, k)))
SCALED = [
    softmax(x, k),
    sum_over(n, exp(SCORES) * leaf("v", (n,))) * recip(sum_over(n, exp(SCORES))),
    log(sum_over(k, exp(x))),
    log(sum_over(k, exp(x))) - sum_over(k, softmax(x, k) * x),
    softmax(softmax(x, k) * g, k),
    sum_over(k, exp(x - g) * exp(g)) * recip(sum_over(k, exp(x) * exp(x))),
]


@pytest.mark.parametrize("value", SCALED, ids=str)
def test_stabilised_values_are_equal(value: Expr) -> None:
    assert stabilise(value) is not value
    assert numerically_equal(value, stabilise(value)) is None


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("value", SCALED[:5], ids=str)
def test_stabilised_values_do_not_overflow(value: Expr, offset: float) -> None:
    random = np.random.default_rng(3)
    sizes = {"m": 2, "k": 4, "n": 3}
    shapes = {"x": (2, 4), "q": (2, 4), "p": (3, 4), "v": (3,), "g": (4,)}
    tensors = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    tensors["x"] += offset
    tensors["q"] *= offset
    assert not np.isfinite(evaluate(value, tensors, sizes).data).all()
    assert np.isfinite(evaluate(stabilise(value), tensors, sizes).data).all()


def test_values_without_exponentials_stay_as_they_are() -> None:
    value = sum_over(k, x * w)
    assert stabilise(value) is value


def test_online_scale_is_the_maximum_of_a_scaled_sum() -> None:
    total = stabilise(log(sum_over(k, exp(x))))
    sums = [e for e in walk([total]) if e.op is Op.SUM]
    assert [online_scale(e) for e in sums] == [max_over(k, x)]
    assert online_scale(sum_over(k, x)) is None
    assert online_scale(sum_over(k, exp(x - max_over(m, x)))) is None
