"""What statements denote, and the lemma about scaled accumulations that the denotation rests on."""

from __future__ import annotations

import decimal
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import reduce

import pytest

from sgraph.axis import Axis, Size
from sgraph.expr import (
    Expr,
    Op,
    add,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    log,
    make,
    max_over,
    min_over,
    mul,
    product,
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
from verify.denote import NoDenotation, denote, position, split

M = Axis("m", Size("M"))
K = Axis("k", Size("K"))
J = Axis("j", 64)
X = leaf("x", [M, K])
TOTAL = sum_over(K, X)
PEAK = max_over(K, X)
Y = Tensor("y", (M,), DType.FP32)


def atoms(*axes: Axis) -> list[Axis]:
    return [a.atom(level) for a in axes for level in ("cell", "step", "lane")]


def tiles(name: str, *axes: Axis) -> Expr:
    return leaf(name, atoms(*axes))


def eq(a: Expr, b: Expr) -> Expr:
    return make(Op.EQ, (a, b))


def writes(body: Sequence[Statement]) -> list[Expr]:
    found = [w for s in body if isinstance(s, Loop) for w in writes(s.body)]
    return found + [s.value for s in body if isinstance(s, Write)]


def schedule(
    roles: dict[Axis, Role], *bodies: Sequence[Statement], tensor: Tensor = Y, cut: Axis | None = None
) -> Schedule:
    """A schedule of these phase bodies, launched over every grid axis."""
    value = next(v for b in bodies for v in writes(b))
    kernel = Kernel("k0", (Store(tensor, value, value),), tuple(sorted(roles.items())))
    grid = tuple(a for a, r in roles.items() if r is Role.GRID)
    names = ("main", "combine", "third")
    return Schedule(kernel, tuple(Phase(n, grid, cut, tuple(b)) for n, b in zip(names, bodies, strict=False)))


def denoted(roles: dict[Axis, Role], *bodies: Sequence[Statement], tensor: Tensor = Y, cut: Axis | None = None) -> Expr:
    (written,) = denote(schedule(roles, *bodies, tensor=tensor, cut=cut))
    return written.denoted


# ------------------------------------------------------------------------------------------- splitting


def test_every_axis_is_read_by_its_atoms() -> None:
    assert split(X) is tiles("x", M, K)
    assert split(leaf("x", [M, K.renamed(1)])).free == set(atoms(M, K.renamed(1)))
    assert split(leaf("x", [M], finite=False)).finite is False
    assert split(const("0.5")) is const("0.5")
    assert split(extent(K)) is extent(K)


def test_reductions_are_masked_where_they_reduce() -> None:
    inside = leaf("valid:k", atoms(K))
    assert split(TOTAL) is sum_over([K.atom("step"), K.atom("lane"), K.atom("cell")], mul(inside, tiles("x", M, K)))
    beyond = leaf("pad:k", atoms(K), finite=False)
    assert split(PEAK) is max_over([K.atom("step"), K.atom("lane"), K.atom("cell")], add(tiles("x", M, K), beyond))
    roof = leaf("roof:k", atoms(K), finite=False)
    assert roof in walk_all(split(min_over(K, X)))


def walk_all(value: Expr) -> list[Expr]:
    return [value, *(n for a in value.args for n in walk_all(a))]


def test_an_axis_bound_twice_is_summed_twice() -> None:
    # The outer sum repeats a finished one: extent(k) times, which no merging of the two may lose.
    twice = split(sum_over(K, TOTAL))
    bound = [n.axis for n in walk_all(twice) if n.op.value == "sum"]
    assert len(bound) == 6
    assert len({n for n in walk_all(twice) if n.op.value == "leaf" and n.name == "valid:k"}) == 1
    assert twice is not split(TOTAL)


def test_positions_are_those_of_the_complete_axis() -> None:
    diagonal = where(eq(index(M), index(J)), const(1), const(0))
    assert split(diagonal) is where(eq(position(M), position(J)), const(1), const(0))
    assert position(J).free == set(atoms(J))


# ------------------------------------------------------------------------------------------ statements

GRID_LOOP = {M: Role.GRID, K: Role.LOOP}
GRID_SPLIT = {M: Role.GRID, K: Role.SPLIT}
SUMMING = Loop(K, (TOTAL,), (Load(X), Accumulate((TOTAL,))))


def test_an_accumulator_has_met_every_step_when_its_loop_ends() -> None:
    assert denoted(GRID_LOOP, [SUMMING, Write(Y, TOTAL)]) is split(TOTAL)


def test_a_resident_axis_is_reduced_at_once() -> None:
    whole = {M: Role.GRID, K: Role.WHOLE}
    assert denoted(whole, [Load(X), Reduce(TOTAL), Write(Y, TOTAL)]) is split(TOTAL)
    for value in (PEAK, min_over(K, X)):
        assert denoted(whole, [Load(X), Reduce(value), Write(Y, value)]) is split(value)


def test_a_split_axis_meets_its_cells_in_the_merge() -> None:
    value = denoted(GRID_SPLIT, [SUMMING, WritePartial(TOTAL)], [Merge((TOTAL,)), Write(Y, TOTAL)], cut=K)
    assert value is split(TOTAL)


def test_pointwise_values_and_products_are_formed_from_available_ones() -> None:
    value = product([const(2), call("tanh", mul(X, X)), X])
    tensor = Tensor("y", (M, K), DType.FP32)
    roles = {M: Role.GRID, K: Role.GRID}
    body = [Load(X), Compute(call("tanh", mul(X, X))), Write(tensor, value)]
    assert denoted(roles, body, tensor=tensor) is split(value)


def test_conditions_are_values() -> None:
    same = eq(index(M), index(K))
    value = where(same, X, const(0))
    tensor = Tensor("y", (M, K), DType.FP32)
    body = [Loop(K, (), (Load(X), Compute(same), Compute(value), Write(tensor, value)))]
    assert denoted(GRID_LOOP, body, tensor=tensor) is split(value)


def test_an_inner_accumulator_belongs_to_one_step_of_the_outer_loop() -> None:
    z = leaf("z", [M, K, J])
    inner = sum_over(J, z)
    outer = sum_over(K, mul(inner, inner))
    body = [
        Loop(K, (outer,), (Loop(J, (inner,), (Load(z), Accumulate((inner,)))), Accumulate((outer,)))),
        Write(Y, outer),
    ]
    assert denoted({M: Role.GRID, K: Role.LOOP, J: Role.LOOP}, body) is split(outer)


def test_an_accumulator_over_two_axes_meets_the_steps_of_both() -> None:
    z = leaf("z", [M, K, J])
    both = sum_over([K, J], z)
    roles = {M: Role.GRID, K: Role.LOOP, J: Role.LOOP}
    body = [Loop(K, (both,), (Loop(J, (), (Load(z), Accumulate((both,)))),)), Write(Y, both)]
    assert denoted(roles, body) is split(both)
    part = {**roles, J: Role.WHOLE}
    assert denoted(part, [Loop(K, (both,), (Load(z), Accumulate((both,)))), Write(Y, both)]) is split(both)


SHIFTED = exp(add(X, mul(const(-1), PEAK)))
SCALED = sum_over(K, SHIFTED)
ONLINE = Loop(K, (PEAK, SCALED), (Load(X), Accumulate((SCALED,), PEAK)))


def test_a_scaled_sum_is_relative_to_the_maximum_of_all_it_summed() -> None:
    step = [K.atom("step"), K.atom("lane"), K.atom("cell")]
    shifted = exp(add(tiles("x", M, K), mul(const(-1), split(PEAK))))
    total = sum_over(step, mul(leaf("valid:k", atoms(K)), shifted))
    assert denoted(GRID_LOOP, [ONLINE, Write(Y, SCALED)]) is total
    assert total is split(SCALED)
    assert denoted(GRID_LOOP, [ONLINE, Write(Y, PEAK)]) is split(PEAK)
    partial = [ONLINE, WritePartial(PEAK), WritePartial(SCALED)]
    assert denoted(GRID_SPLIT, partial, [Merge((SCALED,), PEAK), Write(Y, SCALED)], cut=K) is total
    weighted = sum_over(K, product([leaf("v", [K]), SHIFTED, leaf("w", [K])]))
    body = (Load(X), Load(leaf("v", [K])), Load(leaf("w", [K])), Accumulate((SCALED, weighted), PEAK))
    loop = Loop(K, (PEAK, SCALED, weighted), body)
    assert denoted(GRID_LOOP, [loop, Write(Y, weighted)]) is split(weighted)


# -------------------------------------------------------------------------------------------- refusals

OTHER = leaf("x", [M, J])
TWO: list[Statement] = [ONLINE, WritePartial(PEAK), WritePartial(SCALED)]

REFUSALS: dict[str, tuple[dict[Axis, Role], list[list[Statement]], Axis | None, str]] = {
    "load outside its loop": (GRID_LOOP, [[Load(X), Write(Y, TOTAL)]], None, "stands outside the loop over k"),
    "load of no tensor": (GRID_LOOP, [[Load(TOTAL), Write(Y, TOTAL)]], None, "is no tensor"),
    "product computed": ({M: Role.GRID, K: Role.WHOLE}, [[Load(X), Compute(X * X), Write(Y, X)]], None, "pointwise"),
    "reduction computed": ({M: Role.GRID, K: Role.WHOLE}, [[Load(X), Compute(TOTAL), Write(Y, X)]], None, "pointwise"),
    "reduced at once over a loop": (
        GRID_LOOP,
        [[Loop(K, (), (Load(X), Reduce(TOTAL), Write(Y, TOTAL)))]],
        None,
        "holds one tile only",
    ),
    "no reduction accumulated": (GRID_LOOP, [[Loop(K, (X,), ()), Write(Y, X)]], None, "no reduction"),
    "loop over a grid axis": ({M: Role.GRID, K: Role.GRID}, [[SUMMING, Write(Y, TOTAL)]], None, "whose role is grid"),
    "loop in itself": (GRID_LOOP, [[Loop(K, (), (SUMMING,)), Write(Y, TOTAL)]], None, "inside a loop over k"),
    "started while running": (
        {**GRID_LOOP, J: Role.LOOP},
        [[Loop(K, (TOTAL,), (Loop(J, (TOTAL,), ()),)), Write(Y, TOTAL)]],
        None,
        "while it is being accumulated",
    ),
    "accumulated outside": (
        {**GRID_LOOP, J: Role.LOOP},
        [[Loop(J, (sum_over([J, K], X),), (Accumulate((sum_over([J, K], X),)),)), Write(Y, TOTAL)]],
        None,
        "outside the loop over k",
    ),
    "reset in every step": (
        {**GRID_LOOP, J: Role.LOOP},
        [
            [
                Loop(
                    K,
                    (),
                    (Load(X), Loop(J, (sum_over([J, K], X),), (Accumulate((sum_over([J, K], X),)),))),
                ),
                Write(Y, TOTAL),
            ]
        ],
        None,
        "holds the last step only",
    ),
    "partial of a single phase": (GRID_LOOP, [[SUMMING, WritePartial(TOTAL), Write(Y, TOTAL)]], None, "no main phase"),
    "merge in the main phase": (GRID_LOOP, [[Merge((TOTAL,)), Write(Y, TOTAL)]], None, "no combine phase"),
    "partial of what is no accumulator": (
        GRID_SPLIT,
        [[WritePartial(TOTAL)], [Merge((TOTAL,)), Write(Y, TOTAL)]],
        K,
        "no accumulator of it is finished",
    ),
    "partial written twice": (
        GRID_SPLIT,
        [[SUMMING, WritePartial(TOTAL), WritePartial(TOTAL)], [Merge((TOTAL,)), Write(Y, TOTAL)]],
        K,
        "written twice",
    ),
    "partial over another axis": (
        {**GRID_SPLIT, J: Role.LOOP},
        [
            [
                Loop(J, (sum_over(J, OTHER),), (Load(OTHER), Accumulate((sum_over(J, OTHER),)))),
                WritePartial(sum_over(J, OTHER)),
            ],
            [Write(Y, TOTAL)],
        ],
        K,
        "does not reduce the split axis k",
    ),
    "loop over the chunk in the combine phase": (
        GRID_SPLIT,
        [[], [SUMMING, Write(Y, TOTAL)]],
        K,
        "has no chunk of it",
    ),
    "scale not written": (GRID_SPLIT, [TWO[:1] + TWO[2:], [Merge((SCALED,), PEAK), Write(Y, SCALED)]], K, "no cell"),
    "scale is no maximum": (
        GRID_LOOP,
        [[Loop(K, (TOTAL, SCALED), (Load(X), Accumulate((SCALED,), TOTAL))), Write(Y, SCALED)]],
        None,
        "is a scale and no maximum",
    ),
    "scaled by another exponent": (
        GRID_LOOP,
        [
            [
                Loop(
                    K,
                    (max_over(K, X * X), SCALED),
                    (Load(X), Accumulate((SCALED,), max_over(K, X * X))),
                ),
                Write(Y, SCALED),
            ]
        ],
        None,
        "with one factor exp(e - ",
    ),
    "two shifted factors": (
        GRID_LOOP,
        [
            [
                Loop(
                    K,
                    (PEAK, sum_over(K, SHIFTED * SHIFTED)),
                    (Load(X), Accumulate((sum_over(K, SHIFTED * SHIFTED),), PEAK)),
                ),
                Write(Y, TOTAL),
            ]
        ],
        None,
        "with one factor exp(e - ",
    ),
    "started by different loops": (
        {**GRID_LOOP, J: Role.LOOP},
        [
            [
                Loop(J, (PEAK,), (Loop(K, (SCALED,), (Load(X), Accumulate((SCALED,), PEAK))),)),
                Write(Y, SCALED),
            ]
        ],
        None,
        "started by different loops",
    ),
    "value used after the loop that made it": (
        GRID_LOOP,
        [[Loop(K, (), (Load(X),)), Write(Y, X)]],
        None,
        "available",
    ),
    "accumulator used inside its loop": (
        GRID_LOOP,
        [[Loop(K, (TOTAL,), (Load(X), Accumulate((TOTAL,)), Compute(exp(TOTAL)))), Write(Y, TOTAL)]],
        None,
        "inside the loop that accumulates it",
    ),
    "started and not accumulated": (
        GRID_LOOP,
        [[Loop(K, (TOTAL,), (Load(X),)), Write(Y, TOTAL)]],
        None,
        "not accumulated in it",
    ),
    "never started": (
        GRID_LOOP,
        [[Loop(K, (), (Load(X), Accumulate((TOTAL,)))), Write(Y, TOTAL)]],
        None,
        "not set to its unit",
    ),
    "accumulated in a loop it does not reduce": (
        {**GRID_LOOP, J: Role.LOOP},
        [[Loop(J, (TOTAL,), (Loop(K, (), (Load(X), Accumulate((TOTAL,)))),)), Write(Y, TOTAL)]],
        None,
        "once per step of j",
    ),
    "accumulated twice": (
        GRID_LOOP,
        [[Loop(K, (TOTAL,), (Load(X), Accumulate((TOTAL,)), Accumulate((TOTAL,)))), Write(Y, TOTAL)]],
        None,
        "accumulated twice",
    ),
    "scaled over fewer axes": (
        {**GRID_LOOP, J: Role.LOOP},
        [
            [
                Loop(
                    K,
                    (PEAK, sum_over([J, K], SHIFTED)),
                    (Load(X), Loop(J, (), (Accumulate((sum_over([J, K], SHIFTED),), PEAK),))),
                ),
                Write(Y, TOTAL),
            ]
        ],
        None,
        "once per step of j",
    ),
    "scaled over fewer resident axes": (
        {M: Role.GRID, K: Role.LOOP, J: Role.WHOLE},
        [
            [
                Loop(
                    K,
                    (PEAK, sum_over([J, K], SHIFTED)),
                    (Load(X), Accumulate((sum_over([J, K], SHIFTED),), PEAK)),
                ),
                Write(Y, TOTAL),
            ]
        ],
        None,
        "with one factor exp(e - ",
    ),
    "one axis reduced twice": (
        {M: Role.GRID, K: Role.WHOLE},
        [[Load(X), Reduce(sum_over([K, K], X)), Write(Y, sum_over([K, K], X))]],
        None,
        "reduces one axis twice",
    ),
    "partial written in every step": (
        {**GRID_SPLIT, J: Role.LOOP},
        [[SUMMING, Loop(J, (), (WritePartial(TOTAL),))], [Merge((TOTAL,)), Write(Y, TOTAL)]],
        K,
        "written again in every step of j",
    ),
    "merged with another scale": (
        GRID_SPLIT,
        [TWO, [Merge((PEAK,)), Merge((SCALED,)), Write(Y, SCALED)]],
        K,
        "another scale",
    ),
    "merged outside the loop it varies over": (
        {M: Role.LOOP, K: Role.SPLIT},
        [[Loop(M, (), (SUMMING, WritePartial(TOTAL)))], [Merge((TOTAL,)), Write(Y, TOTAL)]],
        K,
        "the merge of sum[k](x[m,k]) varies over m and stands outside the loop over m",
    ),
    "written in every step": (
        GRID_LOOP,
        [[SUMMING, Loop(K, (), (Write(Y, TOTAL),))]],
        None,
        "written again in every step of k",
    ),
    "written outside the loop over its axis": (
        {M: Role.LOOP},
        [[Write(Y, const(1))]],
        None,
        "stands outside the loop over m",
    ),
    "written twice": (
        {M: Role.GRID, K: Role.WHOLE},
        [[Load(X), Reduce(TOTAL), Write(Y, TOTAL), Write(Y, TOTAL)]],
        None,
        "written twice",
    ),
    "written by every cell of a grid axis": (
        {M: Role.GRID, K: Role.WHOLE, J: Role.GRID},
        [[Load(X), Reduce(TOTAL), Write(Y, TOTAL)]],
        None,
        "every cell of j",
    ),
    "written by every cell of the split axis": (
        {M: Role.GRID, K: Role.SPLIT},
        [[Write(Y, const(1))], []],
        K,
        "every cell of k",
    ),
    "split axis with another role": (GRID_LOOP, [[], [Write(Y, const(1))]], K, "is split but its role is not"),
    "another tensor": (
        {M: Role.GRID, K: Role.WHOLE},
        [[Load(X), Reduce(TOTAL), Write(Tensor("z", (M,), DType.FP32), TOTAL), Write(Y, TOTAL)]],
        None,
        "no tensor of this kernel",
    ),
    "value with other axes": ({M: Role.GRID, K: Role.WHOLE}, [[Load(X), Write(Y, X)]], None, "differs between"),
    "three phases": (GRID_SPLIT, [[], [], [Write(Y, TOTAL)]], K, "one phase, or a main and a combine"),
    "axis without a role": ({M: Role.GRID}, [[Write(Y, TOTAL)]], None, "has no role"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_statements_without_a_meaning_are_refused(name: str) -> None:
    roles, bodies, cut, words = REFUSALS[name]
    with pytest.raises(NoDenotation) as refusal:
        denote(schedule(roles, *bodies, cut=cut))
    assert words in str(refusal.value)


def test_phases_over_different_axes_and_results_never_written_are_refused() -> None:
    right = schedule(GRID_SPLIT, [SUMMING, WritePartial(TOTAL)], [Merge((TOTAL,)), Write(Y, TOTAL)], cut=K)
    main, combine = right.phases
    with pytest.raises(NoDenotation, match="over one split axis"):
        denote(replace(right, phases=(main, replace(combine, split=J))))
    with pytest.raises(NoDenotation, match="y is never written"):
        denote(replace(right, phases=(main, replace(combine, body=()))))


def test_programs_that_do_not_cover_a_grid_axis_are_refused() -> None:
    body = (Load(X), Reduce(TOTAL), Write(Y, TOTAL))
    right = schedule({M: Role.GRID, K: Role.WHOLE}, body)
    no_rows = Schedule(right.kernel, (Phase("main", (), None, body),))
    with pytest.raises(NoDenotation, match="has no programs for"):
        denote(no_rows)
    twice = Schedule(right.kernel, (Phase("main", (M, M), None, body),))
    with pytest.raises(NoDenotation, match="not distinct grid axes"):
        denote(twice)
    resident = Schedule(right.kernel, (Phase("main", (M, K), None, body),))
    with pytest.raises(NoDenotation, match="not distinct grid axes"):
        denote(resident)


# --------------------------------------------------------------------------- the lemma, at 50 digits

State = tuple[Decimal, Decimal]
"""Maximum, and sum relative to it."""
ZERO, HIDDEN = Decimal(0), Decimal("-Infinity")
UNIT: State = (HIDDEN, ZERO)


def shift(value: Decimal, old: Decimal, new: Decimal) -> Decimal:
    """``value * exp(old - new)``, with the guard for a state that has seen nothing finite."""
    return ZERO if old == HIDDEN else value * (old - new).exp()


def tile(pairs: Sequence[tuple[Decimal, Decimal]]) -> State:
    """One tile: exponents and factors to their maximum and the sum relative to it."""
    peak = max((e for e, _ in pairs), default=HIDDEN)
    return peak, sum((shift(r, e, peak) for e, r in pairs), ZERO)


def merge(a: State, b: State) -> State:
    """The step of an accumulation and the merge of two cells: both rescale to the larger maximum."""
    peak = max(a[0], b[0])
    return peak, shift(a[1], a[0], peak) + shift(b[1], b[0], peak)


def near(a: Decimal, b: Decimal, size: Decimal) -> bool:
    return abs(a - b) <= Decimal("1e-40") * size


def close(a: State, b: State) -> bool:
    return a[0] == b[0] and near(a[1], b[1], 1 + abs(a[1]))


def draw(random_: random.Random, most: int) -> list[tuple[Decimal, Decimal]]:
    """Exponents far apart, some minus infinity, with factors of both signs; sometimes none or all masked."""
    style = random_.choice(("mixed", "mixed", "mixed", "empty", "masked"))
    count = 0 if style == "empty" else random_.randint(1, most)
    masked = 1.0 if style == "masked" else 0.25
    return [
        (
            HIDDEN if random_.random() < masked else Decimal(random_.uniform(-300, 300)),
            Decimal(random_.uniform(-2, 2)),
        )
        for _ in range(count)
    ]


def with_digits(test: Callable[[random.Random], None]) -> None:
    random_ = random.Random(20)
    with decimal.localcontext() as context:
        context.prec = 50
        for _ in range(200):
            test(random_)


def test_merging_scaled_sums_is_a_commutative_monoid() -> None:
    def laws(random_: random.Random) -> None:
        a, b, c = (tile(draw(random_, 5)) for _ in range(3))
        assert close(merge(merge(a, b), c), merge(a, merge(b, c)))
        assert close(merge(a, b), merge(b, a))
        assert merge(a, UNIT) == a == merge(UNIT, a)
        assert tile([]) == UNIT

    with_digits(laws)


def test_accumulating_and_merging_is_the_sum_relative_to_the_maximum_of_all() -> None:
    def homomorphism(random_: random.Random) -> None:
        cells = [[draw(random_, 4) for _ in range(random_.randint(0, 4))] for _ in range(random_.randint(1, 4))]
        everything = [pair for cell in cells for step in cell for pair in step]
        merged = reduce(merge, (reduce(merge, map(tile, cell), UNIT) for cell in cells), UNIT)
        assert close(merged, tile(everything))
        # And the plain sum of exponentials is what the pair stands for.
        plain = sum((shift(r, e, ZERO) for e, r in everything), ZERO)
        size = sum((shift(abs(r), e, ZERO) for e, r in everything), ZERO)
        assert near(shift(merged[1], merged[0], ZERO), plain, size)

    with_digits(homomorphism)


def test_the_lemma_fails_without_rescaling() -> None:
    def broken(a: State, b: State) -> State:
        return max(a[0], b[0]), a[1] + b[1]

    random_ = random.Random(3)
    pairs = [draw(random_, 4) for _ in range(50)]
    assert not close(reduce(broken, map(tile, pairs), UNIT), tile([p for t in pairs for p in t]))


def test_log_and_quotients_of_scaled_values_have_one_denotation() -> None:
    # The denotation of a quotient of two sums relative to one maximum has no trace of cells or steps left.
    value = add(PEAK, log(SCALED))
    body = [ONLINE, Compute(log(SCALED)), Compute(value), Write(Y, value)]
    assert {a.level for a in denoted(GRID_LOOP, body).free} == {"cell", "step", "lane"}
    assert {a.name for a in denoted(GRID_LOOP, body).free} == {"m"}
    quotient = mul(SCALED, recip(SCALED))
    body = [ONLINE, Compute(recip(SCALED)), Write(Y, quotient)]
    assert {a.name for a in denoted(GRID_LOOP, body).free} == {"m"}
