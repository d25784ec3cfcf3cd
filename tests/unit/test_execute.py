"""Schedules run tile by tile: what is right agrees with the evaluator, and what is unavailable is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from sgraph.arithmetic import Array
from sgraph.axis import Axis
from sgraph.errors import InputError
from sgraph.evaluate import evaluate
from sgraph.execute import execute
from sgraph.expr import (
    Expr,
    Op,
    add,
    const,
    exp,
    extent,
    index,
    leaf,
    make,
    max_over,
    mul,
    neg_inf,
    recip,
    sum_over,
    where,
)
from sgraph.ir import Kernel, Role, Store
from sgraph.program import DType, Tensor
from sgraph.schedule import (
    Accumulate,
    Compute,
    Load,
    Loop,
    Merge,
    Phase,
    Reduce,
    Schedule,
    Statement,
    Write,
    WritePartial,
)
from sgraph.stages import derive
from tests.programs import PROGRAMS, SMALL

m, k, n = Axis("m", 7), Axis("k", 10), Axis("n", 5)
x, w, g = leaf("x", (m, k)), leaf("W", (k, n)), leaf("g", (k,))
TILES = {"m": 3, "k": 4, "n": 2}
SIZES: Mapping[str, int] = {}
OUT = Tensor("out", (m, n), DType.FP32)
ROWS = Tensor("out", (m,), DType.FP32)
SAME = Tensor("out", (m, k), DType.FP32)


def tensors(seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    shapes = {"x": (7, 10), "W": (10, 5), "g": (10,)}
    return {name: random.standard_normal(shape) for name, shape in shapes.items()}


def schedule(tensor: Tensor, value: Expr, roles: Mapping[Axis, Role], *phases: Phase) -> Schedule:
    kernel = Kernel("kernel", (Store(tensor, value, value),), tuple(sorted(roles.items(), key=lambda r: r[0].key)))
    return Schedule(kernel, phases)


def agrees(s: Schedule, data: Mapping[str, Array] | None = None, **options: int) -> None:
    given = tensors() if data is None else data
    store = s.kernel.stores[0]
    axes = store.tensor.named_axes
    expected = evaluate(store.claim, given, SIZES).ordered(axes)
    got = execute(s, given, SIZES, TILES, **options)["out"]
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=1e-12)


# ------------------------------------------------------------------------------------------------ matmul

DOT = sum_over(k, x * w)
DOT_ROLES = {m: Role.GRID, n: Role.GRID, k: Role.LOOP}
LOADS = (Load(x), Load(w))


def matmul(*body: Statement) -> Schedule:
    return schedule(OUT, DOT, DOT_ROLES, Phase("main", (m, n), None, body))


STEP = (*LOADS, Accumulate((DOT,)))
MATMUL = matmul(Loop(k, (DOT,), STEP), Write(OUT, DOT))


def test_matmul_over_ragged_tiles() -> None:
    agrees(MATMUL)
    for tile in (1, 2, 5, 100):
        got = execute(MATMUL, tensors(), SIZES, {"m": tile, "k": tile, "n": tile})["out"]
        np.testing.assert_allclose(got, tensors()["x"] @ tensors()["W"])


def test_static_extents_may_be_run_small() -> None:
    given = {"x": np.ones((2, 3)), "W": np.ones((3, 4))}
    got = execute(MATMUL, given, {"m": 2, "k": 3, "n": 4}, TILES)
    np.testing.assert_array_equal(got["out"], np.full((2, 4), 3.0))


def test_an_empty_reduction_is_zero() -> None:
    given = {"x": np.ones((2, 0)), "W": np.ones((0, 4))}
    np.testing.assert_array_equal(execute(MATMUL, given, {"m": 2, "k": 0, "n": 4}, TILES)["out"], np.zeros((2, 4)))


def test_resident_axes_are_reduced_at_once() -> None:
    roles = {m: Role.GRID, n: Role.GRID, k: Role.WHOLE}
    agrees(schedule(OUT, DOT, roles, Phase("main", (m, n), None, (*LOADS, Reduce(DOT), Write(OUT, DOT)))))


def test_positions_extents_and_masks() -> None:
    past = where(make(Op.LT, (index(k), extent(k) * const("1/2"))), x, neg_inf())
    value = max_over(k, past)
    roles = {m: Role.GRID, k: Role.LOOP}
    condition, _, _ = past.args
    step = (Load(x), Compute(condition), Compute(past), Accumulate((value,)))
    agrees(schedule(ROWS, value, roles, Phase("main", (m,), None, (Loop(k, (value,), step), Write(ROWS, value)))))


BROKEN: dict[str, tuple[Schedule, str]] = {
    "operand not loaded": (
        matmul(Loop(k, (DOT,), (Load(x), Accumulate((DOT,)))), Write(OUT, DOT)),
        r"W\[k,n\] is not available",
    ),
    "tile used after its loop": (
        matmul(Loop(k, (DOT,), STEP), Compute(exp(x)), Write(OUT, DOT)),
        r"x\[m,k\] is not available",
    ),
    "tile loaded outside its loop": (
        matmul(Load(x), Loop(k, (DOT,), (Load(w), Accumulate((DOT,)))), Write(OUT, DOT)),
        "axis k is not entered",
    ),
    "accumulator used while it runs": (
        matmul(Loop(k, (DOT,), (*STEP, Compute(exp(DOT)))), Write(OUT, DOT)),
        r"sum\[k\]\(x\[m,k\] \* W\[k,n\]\) is not available",
    ),
    "accumulator never started": (
        matmul(Loop(k, (), STEP), Write(OUT, DOT)),
        "accumulates outside the loop",
    ),
    "looped axis reduced as if resident": (
        matmul(Loop(k, (DOT,), (*LOADS, Reduce(DOT))), Write(OUT, DOT)),
        "reduces what is not resident",
    ),
    "loop inside itself": (
        matmul(Loop(k, (DOT,), (Loop(k, (), STEP),)), Write(OUT, DOT)),
        "looped over inside itself",
    ),
    "loop over a grid axis": (
        matmul(Loop(m, (), (Loop(k, (DOT,), STEP), Write(OUT, DOT)))),
        "axis m is looped over inside itself",
    ),
    "nothing written": (matmul(Loop(k, (DOT,), STEP)), "elements of out are not written exactly once"),
    "written twice": (
        matmul(Loop(k, (DOT,), STEP), Write(OUT, DOT), Write(OUT, DOT)),
        "elements of out are not written exactly once",
    ),
    "grid forgets an axis": (
        schedule(OUT, DOT, DOT_ROLES, Phase("main", (m,), None, (Loop(k, (DOT,), STEP), Write(OUT, DOT)))),
        "grid of main",
    ),
    "product as a statement": (
        matmul(Loop(k, (DOT,), (*LOADS, Compute(x * w), Accumulate((DOT,)))), Write(OUT, DOT)),
        "is no computation",
    ),
    "other tensor written": (
        matmul(Loop(k, (DOT,), STEP), Write(replace(OUT, name="other"), DOT)),
        "other is not a tensor that the kernel stores",
    ),
    "partial without a split": (
        matmul(Loop(k, (DOT,), STEP), WritePartial(DOT)),
        "stored as partial where no axis is split",
    ),
    "merge without a split": (matmul(Merge((DOT,)), Write(OUT, DOT)), "merged outside a combine phase"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_schedules_are_refused(broken: Schedule, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        execute(broken, tensors(), SIZES, TILES)


def test_a_value_of_an_earlier_iteration_is_not_seen() -> None:
    total = sum_over(k, x)
    roles = {m: Role.LOOP, k: Role.WHOLE}
    body = (Loop(m, (), (Load(x), Reduce(total))), Loop(m, (), (Write(ROWS, total),)))
    with pytest.raises(AssertionError, match=r"sum\[k\]\(x\[m,k\]\) is not available"):
        execute(schedule(ROWS, total, roles, Phase("main", (), None, body)), tensors(), SIZES, TILES)


def test_adding_a_replicated_operand_in_every_step_shows() -> None:
    total = sum_over(k, x)
    roles = {m: Role.GRID, k: Role.WHOLE, n: Role.LOOP}
    start = Loop(n, (total,), (Load(x), Accumulate((total,))))
    wrong = schedule(ROWS, total, roles, Phase("main", (m,), None, (start, Write(ROWS, total))))
    got = execute(wrong, tensors(), SIZES, TILES)["out"]
    np.testing.assert_allclose(got, 3 * tensors()["x"].sum(1))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InputError, match="tensor W is missing"):
        execute(MATMUL, {"x": np.ones((7, 10))}, SIZES, TILES)
    with pytest.raises(InputError, match="its axes have"):
        execute(MATMUL, {"x": np.ones((7, 9)), "W": np.ones((10, 5))}, SIZES, TILES)
    with pytest.raises(AssertionError, match="axis k has no tile size"):
        execute(MATMUL, tensors(), SIZES, {"m": 3, "n": 2})


# ----------------------------------------------------------------------------------------------- softmax

PEAK = max_over(k, x)
SHIFTED = add(x, mul(const(-1), PEAK))
WEIGHT = exp(SHIFTED)
TOTAL = sum_over(k, WEIGHT)
SOFTMAX = WEIGHT * recip(TOTAL)
ONLINE = Loop(k, (PEAK, TOTAL), (Load(x), Accumulate((TOTAL,), PEAK)))
SECOND = Loop(k, (), (Load(x), Compute(SHIFTED), Compute(WEIGHT), Write(SAME, SOFTMAX)))


def softmax(*body: Statement) -> Schedule:
    return schedule(SAME, SOFTMAX, {m: Role.GRID, k: Role.LOOP}, Phase("main", (m,), None, body))


TWO_PASS = softmax(ONLINE, Compute(recip(TOTAL)), SECOND)


def test_online_softmax_in_two_passes() -> None:
    agrees(TWO_PASS)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_online_softmax_does_not_overflow(offset: float) -> None:
    given = tensors()
    given["x"] = offset * given["x"]
    got = execute(TWO_PASS, given, SIZES, TILES)["out"]
    np.testing.assert_allclose(got.sum(1), np.ones(7))
    assert np.isfinite(got).all()


@pytest.mark.parametrize("hidden", [range(4), range(4, 8), range(8, 10), range(9)], ids=str)
def test_masked_tiles_do_not_disturb_a_running_maximum(hidden: range) -> None:
    given = tensors()
    given["x"][:, list(hidden)] = -np.inf
    expected = np.exp(given["x"]) / np.exp(given["x"]).sum(1, keepdims=True)
    np.testing.assert_allclose(execute(TWO_PASS, given, SIZES, TILES)["out"], expected, rtol=1e-12)


def test_a_fully_masked_row_accumulates_zero() -> None:
    given = tensors()
    given["x"][2] = -np.inf
    roles = {m: Role.GRID, k: Role.LOOP}
    body = (ONLINE, Write(ROWS, TOTAL))
    got = execute(schedule(ROWS, TOTAL, roles, Phase("main", (m,), None, body)), given, SIZES, TILES)["out"]
    assert got[2] == 0
    seen = np.delete(given["x"], 2, axis=0)
    expected = np.exp(seen - seen.max(1, keepdims=True)).sum(1)
    np.testing.assert_allclose(np.delete(got, 2), expected)


def test_the_second_pass_must_compute_again() -> None:
    broken = softmax(ONLINE, Compute(recip(TOTAL)), Loop(k, (), (Load(x), Write(SAME, SOFTMAX))))
    with pytest.raises(AssertionError, match=r"exp\(x\[m,k\] - max\[k\]\(x\[m,k\]\)\) is not available"):
        execute(broken, tensors(), SIZES, TILES)


def test_a_scale_belongs_to_its_sum() -> None:
    plain = sum_over(k, x)
    body = (Loop(k, (PEAK, plain), (Load(x), Accumulate((plain,), PEAK))), Write(ROWS, plain))
    with pytest.raises(AssertionError, match="has no scale"):
        execute(
            schedule(ROWS, plain, {m: Role.GRID, k: Role.LOOP}, Phase("main", (m,), None, body)),
            tensors(),
            SIZES,
            TILES,
        )


# ------------------------------------------------------------------------------------------------- split

SPLIT_ROLES = {m: Role.GRID, n: Role.GRID, k: Role.SPLIT}


def split_matmul(main: tuple[Statement, ...], combine: tuple[Statement, ...]) -> Schedule:
    return schedule(OUT, DOT, SPLIT_ROLES, Phase("main", (m, n), k, main), Phase("combine", (m, n), k, combine))


SPLIT_MAIN = (Loop(k, (DOT,), STEP), WritePartial(DOT))
SPLIT = split_matmul(SPLIT_MAIN, (Merge((DOT,)), Write(OUT, DOT)))


@pytest.mark.parametrize("cells", [1, 2, 3, 5])
def test_split_matmul(cells: int) -> None:
    agrees(SPLIT, cells=cells)


NUMERATOR = sum_over(k, WEIGHT * g)
RATIO = NUMERATOR * recip(TOTAL)
SPLIT_SOFTMAX = schedule(
    ROWS,
    RATIO,
    {m: Role.GRID, k: Role.SPLIT},
    Phase(
        "main",
        (m,),
        k,
        (
            Loop(k, (PEAK, NUMERATOR, TOTAL), (Load(x), Load(g), Accumulate((NUMERATOR, TOTAL), PEAK))),
            WritePartial(PEAK),
            WritePartial(NUMERATOR),
            WritePartial(TOTAL),
        ),
    ),
    Phase("combine", (m,), k, (Merge((NUMERATOR, TOTAL), PEAK), Compute(recip(TOTAL)), Write(ROWS, RATIO))),
)


@pytest.mark.parametrize("cells", [1, 2, 3, 5])
def test_split_softmax_with_empty_and_masked_cells(cells: int) -> None:
    given = tensors()
    agrees(SPLIT_SOFTMAX, given, cells=cells)
    given["x"][:, 4:] = -np.inf
    weights = np.exp(given["x"])
    expected = weights @ given["g"] / weights.sum(1)
    np.testing.assert_allclose(execute(SPLIT_SOFTMAX, given, SIZES, TILES, cells)["out"], expected, rtol=1e-12)


def test_partials_that_a_grid_axis_repeats_may_be_stored_again() -> None:
    total = sum_over(k, g)
    roles = {m: Role.GRID, k: Role.SPLIT}
    main = Phase("main", (m,), k, (Loop(k, (total,), (Load(g), Accumulate((total,)))), WritePartial(total)))
    agrees(schedule(ROWS, total, roles, main, Phase("combine", (m,), k, (Merge((total,)), Write(ROWS, total)))))


BROKEN_SPLITS: dict[str, tuple[Schedule, str]] = {
    "missing combine": (split_matmul(SPLIT_MAIN, (Write(OUT, DOT),)), "is not available"),
    "missing partial": (
        split_matmul(SPLIT_MAIN[:1], (Merge((DOT,)), Write(OUT, DOT))),
        "no cell has stored a partial",
    ),
    "every cell writes": (
        split_matmul((*SPLIT_MAIN, Write(OUT, DOT)), ()),
        "not written exactly once",
    ),
    "loop in the combine": (
        split_matmul(SPLIT_MAIN, (Loop(k, (DOT,), STEP), Write(OUT, DOT))),
        "axis k is split, but no cell of it is here",
    ),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_SPLITS.values(), ids=BROKEN_SPLITS)
def test_broken_splits_are_refused(broken: Schedule, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        execute(broken, tensors(), SIZES, TILES)


# ------------------------------------------------------------------------------------------------- nested


def test_an_accumulator_may_be_local_to_an_outer_iteration() -> None:
    value = sum_over(n, exp(DOT))
    roles = {m: Role.GRID, n: Role.LOOP, k: Role.LOOP}
    inner = (Loop(k, (DOT,), STEP), Compute(exp(DOT)), Accumulate((value,)))
    agrees(schedule(ROWS, value, roles, Phase("main", (m,), None, (Loop(n, (value,), inner), Write(ROWS, value)))))


def test_one_accumulator_may_run_over_nested_loops() -> None:
    value = sum_over((n, k), x * w)
    roles = {m: Role.GRID, n: Role.LOOP, k: Role.LOOP}
    inner = Loop(k, (), (Load(x), Load(w), Accumulate((value,))))
    agrees(schedule(ROWS, value, roles, Phase("main", (m,), None, (Loop(n, (value,), (inner,)), Write(ROWS, value)))))


@pytest.mark.parametrize("name", PROGRAMS)
def test_derived_schedules_agree_with_the_evaluator(name: str) -> None:
    program = PROGRAMS[name](SMALL)
    random = np.random.default_rng(5)
    given = {t.name: random.standard_normal([SMALL[a.name] for a in t.named_axes]) for t in program.inputs}
    stores = tuple(Store(o.tensor, o.value, o.value) for o in program.outputs)
    bare = Kernel(name, stores)
    for reduced in (Role.LOOP, Role.WHOLE):
        roles = tuple((a, Role.GRID if a.name == "m" else reduced) for a in bare.axes)
        got = execute(derive(replace(bare, roles=roles)), given, SIZES, dict.fromkeys(SMALL, 2))
        for output in program.outputs:
            expected = evaluate(output.value, given, SIZES).ordered(output.tensor.named_axes)
            np.testing.assert_allclose(got[output.tensor.name], expected, rtol=1e-9, atol=1e-12)
