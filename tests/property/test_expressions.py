"""Random expressions, programs and sGraphs: printing and reading back, and values that must not change."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgraph.arithmetic import Array, Indecisive, precise
from sgraph.axis import Axis, Size, ordered
from sgraph.evaluate import Values, evaluate, numerically_equal
from sgraph.expr import (
    CONDITIONS,
    Expr,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    leaves,
    log,
    make,
    max_over,
    maximum,
    min_over,
    minimum,
    neg_inf,
    recip,
    rename,
    rsqrt,
    sqrt,
    sum_over,
    where,
)
from sgraph.functions import FUNCTIONS
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.printer import python, text
from sgraph.program import DType, Output, Program, Tensor
from sgraph.reader import read
from sgraph.scaled import stabilise

seeded = settings(max_examples=120, derandomize=True, deadline=None)

AXES = (
    Axis("m", Size("M", 0, 64)),
    Axis("k", 3),
    Axis("k", 3, copy=1),
    Axis("n", Size("N", 16, 4096, 16)),
    Axis("exp", 2),
)
SIZES = {"M": 2, "m": 2, "k": 3, "n": 2, "exp": 2}
LEAVES = (
    leaf("x", (AXES[0], AXES[1])),
    leaf("x", (AXES[0], AXES[2])),
    leaf("W", (AXES[1], AXES[3])),
    leaf("mask", (AXES[1],), finite=False),
    leaf("sum", (AXES[4],)),
    leaf("s", ()),
)


def square(e: Expr) -> Expr:
    return e * e


UNARY = (recip, sqrt, exp, log, rsqrt, square, operator.neg)
BINARY = (operator.add, operator.sub, operator.mul, operator.truediv, maximum, minimum)
REDUCE = (sum_over, max_over, min_over)
CONSTANTS = st.fractions(min_value=-9, max_value=9, max_denominator=9).map(const)
AXIS = st.sampled_from(AXES)
SOURCES = (*LEAVES, extent(AXES[0]), extent(AXES[3]), index(AXES[1]))


@st.composite
def expressions(draw: st.DrawFn, *, sources: tuple[Expr, ...] = SOURCES, steps: int = 12) -> Expr:
    """A graph that grows by operators on what is there already, so that nodes are shared."""
    pool = [draw(st.sampled_from(sources)), draw(CONSTANTS)]

    def some() -> Expr:
        return draw(st.sampled_from(pool[-4:]))

    for _ in range(draw(st.integers(1, steps))):
        kind = draw(st.sampled_from(("source", "unary", "binary", "binary", "call", "reduce", "where")))
        match kind:
            case "source":
                pool.append(draw(st.one_of(st.sampled_from(sources), CONSTANTS)))
            case "unary":
                pool.append(draw(st.sampled_from(UNARY))(some()))
            case "binary":
                pool.append(draw(st.sampled_from(BINARY))(some(), some()))
            case "call":
                pool.append(call(draw(st.sampled_from(sorted(FUNCTIONS))), some()))
            case "reduce":
                pool.append(draw(st.sampled_from(REDUCE))(draw(AXIS), some()))
            case _:
                condition = make(draw(st.sampled_from(sorted(CONDITIONS))), (some(), some()))
                pool.append(where(condition, some(), draw(st.sampled_from((neg_inf(), some())))))
    return pool[-1]


def drawn_tensors(seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    found = {e.name: random.standard_normal([SIZES[a.name] for a in e.axes]) for e in LEAVES}
    found["mask"] = np.where(random.random(3) < 0.3, -np.inf, found["mask"])
    return found


# ------------------------------------------------------------------------------------------- round trips


@seeded
@given(expressions())
def test_expressions_are_rebuilt(e: Expr) -> None:
    source = python(e)
    assert read(source) is e
    assert python(e) == source
    names: dict[str, object] = {}
    exec(source, names)
    assert names["result"] is e


def tensors(name: str, axes: frozenset[Axis]) -> st.SearchStrategy[Tensor]:
    """Tensors over some axes, in any order, with dimensions of extent 1 in between."""
    dims = st.permutations(ordered(axes)).flatmap(
        lambda listed: st.lists(st.none(), max_size=2).map(lambda units: (*listed, *units))
    )
    flags = st.booleans()
    return st.builds(Tensor, st.just(name), dims.map(tuple), st.sampled_from(list(DType)), constant=flags, finite=flags)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    outputs: list[Output] = []
    for i in range(draw(st.integers(1, 2))):
        value = draw(expressions(steps=6))
        outputs.append(Output(draw(tensors(f"out{i}", value.free)), value))
    used = {e.name: e for e in leaves(o.value for o in outputs)}
    inputs = tuple(draw(tensors(name, frozenset(e.axes))) for name, e in used.items())
    words = st.text(max_size=12)
    return Program(draw(words), inputs, tuple(outputs), draw(words), tuple(draw(st.lists(words, max_size=2))))


@st.composite
def sgraphs(draw: st.DrawFn) -> SGraph:
    program = draw(programs())
    kernels: list[Kernel] = []
    for i, output in enumerate(program.outputs):
        bare = Kernel(f"kernel{i}", (Store(output.tensor, draw(expressions(steps=4)), output.value),))
        roles = tuple((a, draw(st.sampled_from(list(Role)))) for a in bare.axes) if draw(st.booleans()) else ()
        kernels.append(Kernel(bare.name, bare.stores, roles))
    return SGraph(program, tuple(kernels))


@seeded
@given(programs())
def test_programs_are_rebuilt(program: Program) -> None:
    assert read(python(program)) == program
    assert str(program).startswith("program ")


@seeded
@given(sgraphs())
def test_sgraphs_are_rebuilt(graph: SGraph) -> None:
    again = read(python(graph))
    assert again == graph and str(again) == str(graph)


# -------------------------------------------------------------------------------------------------- text

SCALARS = tuple(leaf(name, ()) for name in "abc")


def on_floats(name: str) -> Callable[[float], float]:
    return lambda value: float(FUNCTIONS[name].numpy(np.asarray(value)))


def choose(condition: bool, then: float, otherwise: float) -> float:
    return then if condition else otherwise


def inverse_root(value: float) -> float:
    return 1 / math.sqrt(value)


ORDINARY: dict[str, object] = {
    **{name: on_floats(name) for name in FUNCTIONS},
    **{name: getattr(math, name) for name in ("sqrt", "exp", "log", "inf")},
    "max": max,
    "min": min,
    "rsqrt": inverse_root,
    "where": choose,
}
"""What the names in a scalar text mean to anyone."""


@seeded
@given(expressions(sources=SCALARS, steps=10))
def test_text_means_what_it_says(e: Expr) -> None:
    """Read as ordinary arithmetic, the text of a scalar expression has the value of the expression."""
    shown = text(e)
    if "let " in shown or "[" in shown:  # reductions and named subterms are no ordinary arithmetic
        return
    numbers = {"a": 0.75, "b": -1.25, "c": 2.0}
    expected = evaluate(e, {name: np.asarray(v) for name, v in numbers.items()}, {}).data
    try:
        found = eval(re.sub(r"\^", "**", shown), {**ORDINARY, **numbers})
    except (ArithmeticError, ValueError):
        return
    if np.isfinite(expected) and abs(expected) < 1e100:
        assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


# ------------------------------------------------------------------------------------------------ values


def assert_same(a: Values, b: Values, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(a.data, b.ordered(a.axes), rtol=rtol, atol=1e-12)


@seeded
@given(expressions(), st.integers(0, 99))
def test_renaming_an_axis_renames_the_dimension(e: Expr, seed: int) -> None:
    axes = {AXES[1]: AXES[2], AXES[2]: AXES[1]}
    given_tensors = drawn_tensors(seed)
    before, after = evaluate(e, given_tensors, SIZES), evaluate(rename(e, axes), given_tensors, SIZES)
    assert rename(rename(e, axes), axes).free == e.free
    renamed = Values(tuple(axes.get(a, a) for a in before.axes), before.data)
    assert_same(renamed, after, rtol=1e-6)


@seeded
@given(expressions(steps=6), st.integers(0, 99))
def test_double_precision_agrees_with_fifty_digits(e: Expr, seed: int) -> None:
    given_tensors = drawn_tensors(seed)
    try:
        exact = evaluate(e, given_tensors, SIZES, precise())
    except (Indecisive, OverflowError):
        return
    fast, slow = evaluate(e, given_tensors, SIZES), exact.ordered(exact.axes).astype(float)
    comparable = np.abs(slow) < 1e6
    np.testing.assert_allclose(fast.ordered(exact.axes)[comparable], slow[comparable], rtol=1e-4, atol=1e-4)
    assert np.isnan(fast.data[np.isnan(slow)]).all()


@seeded
@given(expressions(sources=LEAVES[:3], steps=7))
def test_stabilised_expressions_are_equal(e: Expr) -> None:
    assert numerically_equal(e, stabilise(e), trials=4) is None
