"""The numpy evaluator: hand-computed values, numpy's own, and the language's partial semantics."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from sgraph.arithmetic import Array, precise
from sgraph.axis import Axis, Size
from sgraph.errors import InputError, UnsupportedOperator
from sgraph.evaluate import Values, evaluate, evaluate_program, evaluate_sgraph, numerically_equal, squeeze, unsqueeze
from sgraph.expr import (
    Expr,
    Op,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    log,
    make,
    max_over,
    maximum,
    mean_over,
    min_over,
    minimum,
    mul,
    neg_inf,
    rebuild,
    recip,
    rsqrt,
    sqrt,
    sum_over,
    where,
)
from sgraph.functions import FUNCTIONS
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import DType, Output, Program, Tensor
from tests.programs import EPS, PROGRAMS, SMALL, rmsnorm_linear

m, k, n = Axis("m", Size("M")), Axis("k", 3), Axis("n", 2)
x, y = leaf("x", (m, k)), leaf("y", (k,))
s = leaf("s", ())
mask = leaf("mask", (k,), finite=False)

TENSORS: dict[str, Array] = {
    "x": np.array([[1.0, 2.0, 4.0], [-1.0, 0.0, 3.0]]),
    "y": np.array([2.0, 0.0, -1.0]),
    "s": np.asarray(5.0),
    "W": np.array([[1.0, 0.0], [2.0, 1.0], [0.0, -1.0]]),
    "mask": np.array([0.0, -np.inf, 1.0]),
}
SIZES = {"m": 2}


def value(e: Expr, *axes: Axis) -> Array:
    return evaluate(e, TENSORS, SIZES).ordered(axes)


# ----------------------------------------------------------------------------------------- hand-computed


@pytest.mark.parametrize(
    ("e", "expected"),
    [
        (sum_over(k, y), 1.0),
        (max_over(k, y), 2.0),
        (min_over(k, y), -1.0),
        (mean_over(k, y * y), 5 / 3),
        (sum_over(k, s), 15.0),
        (extent(k), 3.0),
        (sum_over(k, index(k) * y), -2.0),
        (s - 2, 3.0),
        (2 - s, -3.0),
        (const(1) / (s + 3), 0.125),
        (rsqrt(s - 1), 0.5),
        (log(exp(s)), 5.0),
        (maximum(s, const(7)), 7.0),
        (minimum(s, const(7)), 5.0),
        (where(make(Op.LE, (s, const(5))), const(1), const(2)), 1.0),
        (where(make(Op.LT, (s, const(5))), const(1), const(2)), 2.0),
        (where(make(Op.EQ, (s, const(5))), const(1), const(2)), 1.0),
        (sum_over((m, k), x), 9.0),
        (sum_over(k, sum_over(k, y)), 3.0),
        (sum_over(k, y * sum_over(k, y)), 1.0),
    ],
    ids=str,
)
def test_values_by_hand(e: Expr, expected: float) -> None:
    assert value(e) == pytest.approx(expected, rel=1e-15)
    precisely = evaluate(e, TENSORS, SIZES, precise()).ordered(())
    assert float(precisely.item()) == pytest.approx(expected, rel=1e-15)


def test_axes_and_broadcasts() -> None:
    np.testing.assert_array_equal(value(x * y, m, k), [[2, 0, -4], [-2, 0, -3]])
    np.testing.assert_array_equal(value(x * y, k, m), [[2, -2], [0, 0], [-4, -3]])
    assert value(y, m, k).shape == (1, 3)


def test_one_tensor_under_two_copies_of_an_axis() -> None:
    other = k.renamed(1)
    outer = value(y * leaf("y", (other,)), k, other)
    np.testing.assert_array_equal(outer, np.outer(TENSORS["y"], TENSORS["y"]))


def test_matmul_softmax_and_norm_are_numpys() -> None:
    data, weight = TENSORS["x"], TENSORS["W"]
    np.testing.assert_allclose(value(sum_over(k, x * leaf("W", (k, n))), m, n), data @ weight)
    soft = np.exp(data) / np.exp(data).sum(1, keepdims=True)
    np.testing.assert_allclose(value(exp(x) / sum_over(k, exp(x)), m, k), soft)
    centred = x - mean_over(k, x)
    norm = centred * rsqrt(mean_over(k, centred * centred) + EPS)
    shifted = data - data.mean(1, keepdims=True)
    np.testing.assert_allclose(value(norm, m, k), shifted / np.sqrt((shifted**2).mean(1, keepdims=True) + 1e-6))


def test_contractions_equal_their_products_formed() -> None:
    w = leaf("W", (k, n))
    contracted = sum_over((k, n), x * w * s)
    formed = sum_over((k, n), mul(x * w, s) + const(0))
    np.testing.assert_allclose(value(contracted, m), value(formed, m))


def test_shared_products_do_not_explode() -> None:
    e = y
    for _ in range(60):
        e = e * e
    np.testing.assert_array_equal(value(sum_over(k, e)), np.inf)


# ------------------------------------------------------------------------------------- partial semantics


@pytest.mark.parametrize(
    "e",
    [
        recip(s - 5),
        sqrt(-s),
        log(s - 5),
        log(-s),
        neg_inf() * s,
        neg_inf() * const(0),
        recip(neg_inf()),
        sqrt(neg_inf()),
        log(neg_inf()),
        minimum(neg_inf(), s),
        call("sigmoid", neg_inf()),
        where(make(Op.LT, (neg_inf(), s)), s, s),
        where(make(Op.LT, (recip(s - 5), s)), s, s),
        sum_over(k, neg_inf()),
        sum_over(k, mask),
        min_over(k, mask),
        maximum(recip(s - 5), s),
        const(0) * recip(s - 5),
    ],
    ids=str,
)
def test_undefined_values_are_nan(e: Expr) -> None:
    assert np.isnan(value(e))
    assert math.isnan(float(evaluate(e, TENSORS, SIZES, precise()).ordered(()).item()))


@pytest.mark.parametrize(
    ("e", "expected"),
    [
        (exp(neg_inf()), 0.0),
        (neg_inf() + s, -np.inf),
        (neg_inf() + neg_inf(), -np.inf),
        (maximum(neg_inf(), s), 5.0),
        (max_over(k, neg_inf()), -np.inf),
        (max_over(k, mask), 1.0),
        (sum_over(k, exp(mask)), 1 + math.e),
        (sum_over(k, exp(mask) * y), 2 - math.e),
        (where(make(Op.LT, (s, const(0))), recip(s - 5), s), 5.0),
        (where(make(Op.LT, (const(0), s)), s, log(-s)), 5.0),
    ],
    ids=str,
)
def test_minus_infinity_and_laziness(e: Expr, expected: float) -> None:
    assert value(e) == pytest.approx(expected, rel=1e-15)
    assert float(evaluate(e, TENSORS, SIZES, precise()).ordered(()).item()) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("reduce", "expected"), [(sum_over, 0.0), (max_over, -np.inf), (min_over, np.nan)], ids=["sum", "max", "min"]
)
def test_empty_reductions(reduce: object, expected: float) -> None:
    assert callable(reduce)
    e = reduce(k, x)
    assert isinstance(e, Expr)
    tensors = {"x": np.zeros((2, 0))}
    np.testing.assert_array_equal(evaluate(e, tensors, {"m": 2, "k": 0}).data, [expected] * 2)
    slow = evaluate(e, tensors, {"m": 2, "k": 0}, precise())
    np.testing.assert_array_equal(slow.data.astype(float), [expected] * 2)


def test_a_fully_masked_softmax_row_is_undefined() -> None:
    weights = exp(mask) / sum_over(k, exp(mask))
    hidden = {"mask": np.full(3, -np.inf)}
    assert np.isnan(evaluate(weights, hidden, {}).data).all()


def test_nothing_warns(recwarn: pytest.WarningsRecorder) -> None:
    value(recip(y) + log(y) + sqrt(y), k)
    assert not recwarn.list


# --------------------------------------------------------------------------------------------- functions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_agree_with_fifty_digits(name: str) -> None:
    grid = np.array([-30.0, -8.0, -1.5, -1e-8, 0.0, 1e-8, 0.7, 2.0, 25.0])
    axis = Axis("i", len(grid))
    e = call(name, leaf("g", (axis,)))
    fast = evaluate(e, {"g": grid}, {}).data
    slow = evaluate(e, {"g": grid}, {}, precise()).data.astype(float)
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("sigmoid", 0.0, 0.5),
        ("silu", 1.0, 1 / (1 + math.exp(-1))),
        ("tanh", 0.5, math.tanh(0.5)),
        ("erf", 0.5, math.erf(0.5)),
        ("gelu", 1.0, 0.8413447460685429),
        ("gelu_tanh", 1.0, 0.8411919906082768),
        ("relu", -2.0, 0.0),
        ("softplus", 0.0, math.log(2)),
        ("abs", -2.0, 2.0),
        ("sin", 1.0, math.sin(1)),
        ("cos", 1.0, math.cos(1)),
    ],
)
def test_functions_by_hand(name: str, at: float, expected: float) -> None:
    assert evaluate(call(name, s), {"s": np.asarray(at)}, {}).data == pytest.approx(expected, rel=1e-12)


def test_saturated_functions_do_not_overflow() -> None:
    for name in ("sigmoid", "silu", "softplus", "gelu", "gelu_tanh", "tanh"):
        for at in (-1e4, 1e4):
            assert np.isfinite(evaluate(call(name, s), {"s": np.asarray(at)}, {}).data)


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"mystery.*\n.*use one of sigmoid"):
        value(call("mystery", s))


# ---------------------------------------------------------------------------------------- what is refused


def test_missing_and_misshapen_inputs() -> None:
    with pytest.raises(InputError, match="tensor z is missing"):
        value(leaf("z", (k,)))
    with pytest.raises(InputError, match=r"tensor y has shape \(3,\), its axes have \(2,\)"):
        value(leaf("y", (n,)))
    with pytest.raises(InputError, match="axis m has no size"):
        evaluate(x, TENSORS, {})


# --------------------------------------------------------------------------------- programs and sGraphs


def test_dimensions_of_extent_one_come_and_go() -> None:
    a = Tensor("a", (m, None, k), DType.FP32)
    out = Tensor("out", (None, k, m), DType.FP32)
    program = Program("double", (a,), (Output(out, a.read() + a.read()),))
    data = np.arange(6.0).reshape(2, 1, 3)
    np.testing.assert_array_equal(
        evaluate_program(program, {"a": data})["out"], 2 * data.reshape(1, 2, 3).swapaxes(1, 2)
    )
    assert squeeze(a, data).shape == (2, 3)
    assert unsqueeze(a, squeeze(a, data)).shape == (2, 1, 3)
    with pytest.raises(InputError, match=r"shape \(2, 2, 3\)"):
        squeeze(a, np.zeros((2, 2, 3)))


def test_an_output_may_be_constant_along_an_axis() -> None:
    out = Tensor("out", (m, k), DType.FP32)
    program = Program("row", (Tensor("x", (m, k), DType.FP32),), (Output(out, sum_over(k, x)),))
    result = evaluate_program(program, {"x": TENSORS["x"]})["out"]
    np.testing.assert_array_equal(result, [[7, 7, 7], [2, 2, 2]])
    result[0, 0] = 0


def test_sizes_must_agree_across_inputs() -> None:
    program = rmsnorm_linear(SMALL)
    shapes = {"x": (3, 5), "g": (4,), "W": (5, 4)}
    with pytest.raises(InputError, match="axis k is 4 in g and 5 in x"):
        evaluate_program(program, {name: np.zeros(shape) for name, shape in shapes.items()})


def test_a_static_program_can_be_evaluated_small() -> None:
    program = rmsnorm_linear({"m": 16, "k": 4096, "n": 6144})
    random = np.random.default_rng(0)
    data, gain, weight = random.standard_normal((2, 5)), random.standard_normal(5), random.standard_normal((5, 3))
    normed = data / np.sqrt((data**2).mean(1, keepdims=True) + 1e-6) * gain
    result = evaluate_program(program, {"x": data, "g": gain, "W": weight})
    np.testing.assert_allclose(result["out"], normed @ weight)


def test_an_sgraph_is_run_kernel_by_kernel() -> None:
    program = rmsnorm_linear(SMALL)
    rows, inner, _ = (Axis(a, SMALL[a]) for a in ("m", "k", "n"))
    a, gain, weight = (t.read() for t in program.inputs)
    normed = a * rsqrt(mean_over(inner, a * a) + EPS) * gain
    h = Tensor("h", (rows, None, inner), DType.BF16)
    out = program.outputs[0]
    kernels = (
        Kernel("norm", (Store(h, normed, normed),)),
        Kernel("linear", (Store(out.tensor, sum_over(inner, h.read() * weight), out.value),)),
    )
    random = np.random.default_rng(1)
    tensors = {t.name: random.standard_normal([SMALL[x.name] for x in t.named_axes]) for t in program.inputs}
    expected = evaluate_program(program, tensors)["out"]
    np.testing.assert_allclose(evaluate_sgraph(SGraph(program, kernels), tensors)["out"], expected)
    with pytest.raises(InputError, match="no kernel stores out"):
        evaluate_sgraph(SGraph(program, kernels[:1]), tensors)


def test_claims_are_not_believed() -> None:
    out = Tensor("out", (m, k), DType.FP32)
    a = Tensor("x", (m, k), DType.FP32)
    program = Program("same", (a,), (Output(out, x),))
    lying = SGraph(program, (Kernel("wrong", (Store(out, x + x, x),)),))
    np.testing.assert_array_equal(evaluate_sgraph(lying, {"x": TENSORS["x"]})["out"], 2 * TENSORS["x"])


# ---------------------------------------------------------------------------------------- counterexamples


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_difference_where_there_is_none(name: str) -> None:
    e = PROGRAMS[name](SMALL).outputs[-1].value
    assert numerically_equal(e, e * const(2) * const("1/2")) is None


def test_cancellation_is_no_difference() -> None:
    mean = mean_over(k, x)
    one_pass = mean_over(k, x * x) - mean * mean
    two_pass = mean_over(k, (x - mean) * (x - mean))
    assert numerically_equal(sqrt(two_pass), sqrt(one_pass)) is None
    assert numerically_equal(sqrt(one_pass), sqrt(two_pass)) is None


def test_what_rounding_makes_different_is_no_difference() -> None:
    huge = const(2**60)
    assert not np.array_equal(value(s + const("1/3") + huge - huge), value(s + const("1/3")))
    assert numerically_equal(s + huge - huge, s) is None
    a, b = leaf("a", ()), leaf("b", ())
    zero = (a + b) * (a + b) - a * a - const(2) * a * b - b * b
    assert numerically_equal(const(0), zero) is None
    assert numerically_equal(const(0) * a, sqrt(zero)) is None
    assert numerically_equal(const(1), exp(zero * const(10**20))) is None


def test_what_overflows_is_no_difference() -> None:
    total = sum_over(k, exp(const(500) * x))
    assert numerically_equal(recip(total), recip(sum_over(k, exp(const(400) * x) * exp(const(100) * x)))) is None
    tower = exp(exp(exp(exp(exp(s * s + 5)))))
    assert numerically_equal(tower, tower + 1) is None


def test_a_dropped_eps_is_found() -> None:
    e = rmsnorm_linear(SMALL).outputs[0].value
    assert numerically_equal(e, rebuild(e, {EPS: const(0)})) is not None


def test_a_witness_can_be_checked_by_hand() -> None:
    left, right = sum_over(k, x), max_over(k, x)
    witness = numerically_equal(left, right)
    assert witness is not None
    names: dict[str, object] = {}
    exec(str(witness), names)
    tensors, sizes = names["tensors"], names["sizes"]
    assert isinstance(tensors, dict) and isinstance(sizes, dict)
    place = (witness.index["m"],)
    assert evaluate(left, tensors, sizes).data[place] == pytest.approx(witness.left)
    assert evaluate(right, tensors, sizes).data[place] == pytest.approx(witness.right)
    assert witness.left != pytest.approx(witness.right)


def test_equal_means_defined_wherever_the_left_side_is() -> None:
    fraction = x * y * recip(y)
    witness = numerically_equal(x + y - y, fraction + const(0) * y)
    assert witness is not None and math.isnan(witness.right)
    assert numerically_equal(fraction, x + y - y) is None


def test_minus_infinity_is_drawn_where_it_is_declared() -> None:
    plain = leaf("a", (k,))
    assert numerically_equal(sum_over(k, exp(mask) * recip(exp(mask))), extent(k)) is None
    assert numerically_equal(extent(k), sum_over(k, exp(mask) * recip(exp(mask)))) is not None
    assert numerically_equal(extent(k), sum_over(k, exp(plain) * recip(exp(plain)))) is None


def test_sizes_respect_what_is_declared() -> None:
    even = Axis("v", Size("V", 2, 8, 2))
    odd_tail = where(make(Op.EQ, (extent(even), const(1))), const(1), const(0))
    assert numerically_equal(const(0), odd_tail) is None
    static = where(make(Op.EQ, (extent(n), const(2))), const(1), const(0))
    assert numerically_equal(const(1), static) is None


def test_differences_are_the_same_every_time() -> None:
    first, again = (numerically_equal(sum_over(k, x), max_over(k, x), seed=4) for _ in range(2))
    assert str(first) == str(again)
    assert str(first) != str(numerically_equal(sum_over(k, x), max_over(k, x), seed=5))


def test_constants_are_rounded_once() -> None:
    assert evaluate(const(Fraction(1, 3)), {}, {}).data == 1 / 3
    assert isinstance(evaluate(const(1), {}, {}), Values)
