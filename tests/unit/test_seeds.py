"""Seeds: which transformations fire, that only what is proved is admitted, and what the generator gains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce

import pytest

from rewrites.audit import audit
from rewrites.language import collapse
from rewrites.normal_form import compare
from rewrites.saturate import LARGEST_SUM, saturate
from rewrites.seeding_terms import canonical, passes, term_of, terms_of
from rewrites.seeds import (
    ALLOWANCE,
    LARGEST_GROWTH,
    LARGEST_PRODUCT,
    LARGEST_TOTAL,
    TRANSFORMATIONS,
    SeedReport,
    Transformation,
    find_seeds,
)
from rewrites.table import Table
from sgraph.axis import Axis
from sgraph.bounds import is_dot
from sgraph.expr import (
    Expr,
    Op,
    add,
    const,
    exp,
    factors,
    leaf,
    leaves,
    mean_over,
    product,
    rebuild,
    reduction,
    rsqrt,
    sqrt,
    sum_over,
    walk,
)
from sgraph.generate import Search, SearchLimits, generate
from sgraph.plans import PlanLimits
from sgraph.program import Program
from tests.programs import H200, LARGE, SMALL, lora, sizes_of
from tests.programs_seeds import (
    FIRES_ON,
    WORKLOADS,
    Extents,
    layernorm_linear,
    ngpt_residual,
    qk_layernorm_attention,
    safe_softmax,
    variance,
)

K = Axis("k", 64)
X, Y = leaf("x", [Axis("m", 4), K]), leaf("y", [Axis("m", 4), K])
BY_NAME = {t.name: t for t in TRANSFORMATIONS}


def values(program: Program) -> list[Expr]:
    return [o.value for o in program.outputs]


def holds(value: Expr, wanted: Callable[[Expr], bool]) -> bool:
    return any(wanted(node) for node in walk([value]))


# -------------------------------------------------------------------------------------------- transformations


def named(parameter: object) -> str:
    """The same test name in every process: a function's own, not its address."""
    return str(getattr(parameter, "__name__", parameter))


@pytest.mark.parametrize(("name", "build"), [(n, b) for n, builders in FIRES_ON.items() for b in builders], ids=named)
def test_a_transformation_fires_on_unrelated_programs(name: str, build: Callable[[Extents], Program]) -> None:
    spec = values(build(LARGE))
    report = find_seeds(spec, [BY_NAME[name]])
    if BY_NAME[name].replaces:
        assert report.values[0] is not spec[0]
        assert passes(report.values[0]) < passes(spec[0])
        assert compare(spec[0], report.values[0]).equal
    else:
        assert report.seeds
        assert name in report.seeds[0].transformation
        assert all(compare(s.part, s.value).equal and compare(s.value, s.part).equal for s in report.seeds)


def test_every_transformation_has_three_programs_and_says_what_it_does() -> None:
    assert set(FIRES_ON) == {t.name for t in TRANSFORMATIONS}
    assert all(len(programs) >= 3 for programs in FIRES_ON.values())
    assert all("->" in t.before_after and t.reference for t in TRANSFORMATIONS)


def test_moments_need_one_pass_over_a_centred_value() -> None:
    (seed,) = find_seeds(values(variance(LARGE))).seeds
    assert (passes(seed.part), passes(seed.value)) == (2, 1)
    assert str(seed.part) == "sum[k]((x[m,k] - sum[k](x[m,k]) / |k|)^2)"
    assert str(seed.value) == "sum[k](x[m,k]^2) - sum[k](x[m,k])^2 / |k|"


def test_moments_stay_defined_where_the_variance_is() -> None:
    deviation = X - mean_over(K, X)
    for spec in (
        rsqrt(mean_over(K, deviation * deviation) + const("1/1000")),
        sqrt(sum_over(K, deviation * deviation)),
    ):
        (seed,) = find_seeds([spec]).seeds
        one_pass = rebuild(collapse(spec), {seed.part: seed.value})
        assert (passes(spec), passes(one_pass)) == (2, 1)
        assert compare(spec, one_pass).equal


def test_moments_of_a_sum_keep_it_together() -> None:
    both = X + Y
    deviation = both - mean_over(K, both)
    (seed,) = find_seeds([sum_over(K, deviation * deviation)]).seeds
    assert passes(seed.value) == 1
    assert len(terms_of(seed.value)) == 2


def test_the_norm_of_an_interpolation_is_interpolation_then_moments() -> None:
    report = find_seeds(values(ngpt_residual(LARGE)))
    one_pass = next(s for s in report.seeds if s.transformation == "interpolation + one-pass-moments")
    assert (passes(one_pass.part), passes(one_pass.value)) == (2, 1)
    squares = [n for n in walk([one_pass.value]) if n.op is Op.SUM]
    assert {frozenset(x.name for x in leaves([s])) for s in squares} == {
        frozenset("x"),
        frozenset("ah"),
        frozenset("ahx"),
        frozenset("ax"),
    }


def test_an_interpolation_goes_both_ways_and_not_back() -> None:
    h, n, a = X, Y, leaf("a", [K])
    one, other = h + a * (n - h), (1 - a) * h + a * n
    for before, after in ((one, other), (other, one)):
        report = find_seeds([before], [BY_NAME["interpolation"]])
        assert canonical(after) in {canonical(s.value) for s in report.seeds}
        assert canonical(before) not in {canonical(s.value) for s in report.seeds}


def test_the_mean_folds_into_the_weights_too() -> None:
    report = find_seeds(values(layernorm_linear(LARGE)))
    centred_columns = "folded-mean + folded-mean + merged-weights"
    (seed,) = [s for s in report.seeds if s.transformation == centred_columns]
    assert "x[m,k] * (g[k] * W[k,n] - sum[k](g[k] * W[k,n]) / |k|)" in str(seed.value)


def test_seeds_of_different_parts_combine_in_the_table() -> None:
    (spec,) = values(qk_layernorm_attention(LARGE))
    report = find_seeds([spec], [BY_NAME["one-pass-moments"]])
    queries, keys, _ = report.pairs
    table = saturate(report.values, seeds=report.pairs)
    for chosen in ([], [queries], [keys], [queries, keys]):
        assert table.lookup(rebuild(collapse(spec), dict(chosen))) == table.roots[0]


def test_a_composition_is_a_seed_of_the_part_before_any_transformation() -> None:
    (spec,) = values(ngpt_residual(LARGE))
    parts = set(walk([collapse(spec)]))
    report = find_seeds([spec])
    assert {s.transformation for s in report.seeds} >= {"interpolation", "interpolation + one-pass-moments"}
    assert all(s.part in parts for s in report.seeds)
    for seed in report.seeds:
        assert compare(spec, rebuild(collapse(spec), {seed.part: seed.value})).equal


# -------------------------------------------------------------------------------------------------- admission


def _without_extent(node: Expr) -> Iterable[Expr]:
    """The usual slip: ``sum(k, (x - mean)^2) -> sum(k, x^2) - sum(k, x)^2``."""
    if node.op is Op.SUM:
        axes, operand = reduction(node)
        for factor in dict.fromkeys(factors(operand)):
            if factor.op is Op.ADD:
                x = factor.args[0]
                yield sum_over(axes, x * x) - sum_over(axes, x) * sum_over(axes, x)


def _defined_less_often(node: Expr) -> Iterable[Expr]:
    """Equal where it is defined, but undefined where ``x`` is negative."""
    if node.op is Op.LEAF:
        yield sqrt(node) * sqrt(node)


def test_an_unsound_transformation_is_refused_and_counted() -> None:
    wrong = Transformation("no-extent", "sum(k, (x-mean)^2) -> sum(k, x^2) - sum(k, x)^2", _without_extent)
    for build in (variance, layernorm_linear):
        report = find_seeds(values(build(LARGE)), [wrong])
        assert report.seeds == ()
        assert report.refused["no-extent"]["not equal"] >= 1


def test_a_form_that_is_defined_less_often_is_refused() -> None:
    partial = Transformation("partial", "x -> sqrt(x)^2", _defined_less_often)
    report = find_seeds([X + Y], [partial])
    assert report.seeds == ()
    assert report.refused == {"partial": {"not equal": 2}}
    assert find_seeds([exp(sqrt(X))], [partial]).seeds == (), "what else the value needs is not looked at"


def test_a_form_that_is_defined_more_often_is_refused_beside_the_value() -> None:
    def total(node: Expr) -> Iterable[Expr]:
        if node.op is Op.MUL and node.args[0].op is Op.SQRT:
            yield node.args[0].args[0]

    spec = sqrt(X) * sqrt(X)
    assert compare(spec, X).equal
    report = find_seeds([spec], [Transformation("total", "sqrt(x)^2 -> x", total)])
    assert report.seeds == ()
    assert report.refused == {"total": {"defined where the part is not": 1}}


def test_a_wrong_form_spoils_nothing_but_itself() -> None:
    wrong = Transformation("no-extent", "wrong", _without_extent)
    spec = values(layernorm_linear(LARGE))
    with_it, without = find_seeds(spec, [wrong, *TRANSFORMATIONS]), find_seeds(spec)
    assert [s.value for s in with_it.seeds] == [s.value for s in without.seeds]


def test_a_form_that_grows_too_much_is_refused() -> None:
    def wide(node: Expr) -> Iterable[Expr]:
        if node.op is Op.EXP:
            yield product([node, *(exp(leaf(f"p{i}", [K])) for i in range(LARGEST_PRODUCT))])

    def many_terms(node: Expr) -> Iterable[Expr]:
        if node.op is Op.EXP:
            yield reduce(add, [leaf(f"p{i}", [K]) for i in range(LARGEST_SUM + 1)])

    def long(node: Expr) -> Iterable[Expr]:
        if node.op is Op.EXP:
            for _ in range(LARGEST_GROWTH * 3 + ALLOWANCE):
                node = exp(node)
            yield node

    for apply in (wide, many_terms, long):
        report = find_seeds([sum_over(K, exp(X))], [Transformation("grow", "a -> much", apply)])
        assert report.seeds == ()
        assert report.refused["grow"] == {"too large": 1}


def test_what_saturation_finds_by_itself_is_no_seed() -> None:
    def reordered(node: Expr) -> Iterable[Expr]:
        if node.op is Op.SUM:
            yield sum_over(K, Y * X * exp(X + Y))

    spec = sum_over(K, exp(X) * X * Y * exp(Y))
    assert compare(spec, next(iter(reordered(spec)))).equal
    assert find_seeds([spec], [Transformation("reordered", "a*b -> b*a", reordered)]).seeds == ()


def test_limits() -> None:
    spec = values(layernorm_linear(LARGE))
    few = find_seeds(spec, limit=2)
    assert (len(few.seeds), few.stopped) == (2, "2 seeds")
    assert few.seeds == find_seeds(spec).seeds[:2]
    late = find_seeds(spec, seconds=0.0)
    assert (late.seeds, late.stopped) == ((), "time")
    assert late.values == tuple(spec)
    assert find_seeds(spec).stopped == ""


def test_large_programs_get_fewer_seeds() -> None:
    few = values(layernorm_linear(LARGE))
    assert find_seeds(few).stopped == ""
    rows = [Axis(f"m{i}", 8) for i in range(100)]
    norms = [leaf(f"x{i}", [row, K]) - mean_over(K, leaf(f"x{i}", [row, K])) for i, row in enumerate(rows)]
    many = find_seeds([sum_over(K, n * n) for n in norms], limit=100, seconds=60.0)
    assert many.stopped == f"{LARGEST_TOTAL} nodes in seeds"


def test_values_that_share_a_part_share_its_seeds() -> None:
    (plain,) = values(qk_layernorm_attention(LARGE))
    several = [plain * leaf(f"s{i}", [Axis("m", 16)]) for i in range(4)]
    assert find_seeds(several).pairs == find_seeds([plain]).pairs


def test_several_values_and_the_same_order_every_time() -> None:
    spec = [*values(variance(LARGE)), *values(ngpt_residual(LARGE))]
    first, second = find_seeds(spec), find_seeds(spec)
    assert first.seeds == second.seeds
    below = [set(walk([collapse(value)])) for value in spec]
    assert all(any(s.part in parts for s in first.seeds) for parts in below)


def test_two_values_never_become_one() -> None:
    (safe,) = values(safe_softmax(LARGE))
    (plain,) = find_seeds([safe]).values
    assert plain is not safe
    assert find_seeds([safe, plain]).values == (safe, plain)


def test_terms() -> None:
    assert term_of(X * (Y / X)).expression is Y
    assert [str(t.expression) for t in terms_of(X - 2 * (Y - 1))] == ["x[m,k]", "-2 * y[m,k]", "2"]
    assert canonical(sum_over(K, 2 * X * leaf("s", []))) is canonical(leaf("s", []) * sum_over(K, X) * 2)
    assert canonical(exp(X - Y)) is canonical(exp(X) / exp(Y))


# -------------------------------------------------------------------------------------------------- saturation


def table_of(program: Program) -> Table:
    report = find_seeds(values(program))
    return saturate(report.values, seeds=report.pairs)


@pytest.mark.parametrize("name", WORKLOADS)
def test_tables_stay_small(name: str) -> None:
    program = WORKLOADS[name](LARGE)
    table_of(program)  # starts the engine
    table = min((table_of(program) for _ in range(2)), key=lambda t: t.seconds)
    assert not table.truncated
    assert table.e_nodes < 15_000
    assert table.seconds < 1.0


def test_a_whole_attention_block_saturates() -> None:
    from benchmarks.saturation import captured_block

    spec = values(captured_block())
    report = find_seeds(spec)
    table = saturate(report.values, report.pairs)
    assert not table.truncated
    assert table.e_nodes < 50_000
    assert table.lookup(spec[0]) == table.roots[0]
    assert audit(table, sample=200).passed


@pytest.mark.parametrize("name", [*WORKLOADS, "safe_softmax"])
def test_seeded_tables_agree_with_random_tensors(name: str) -> None:
    program = {**WORKLOADS, "safe_softmax": safe_softmax}[name](SMALL)
    found = audit(table_of(program))
    assert found.checked
    assert found.passed, found.disagreements[:3]


def test_a_softmax_written_with_its_maximum_saturates_without() -> None:
    table = table_of(safe_softmax(LARGE))
    assert not table.truncated
    assert table.lookup(values(safe_softmax(LARGE))[0]) is None


# --------------------------------------------------------------------------------------------------- generator


def search(program: Program, *, seeded: bool) -> Search:
    report = find_seeds(values(program)) if seeded else SeedReport(tuple(values(program)), (), {}, 0.0)
    table = saturate(report.values, seeds=report.pairs)
    return generate(program, table, H200, sizes_of(program), SearchLimits(PlanLimits(stored=0)))


def gained(program: Program, wanted: Callable[[Expr], bool]) -> bool:
    """Whether some one-kernel family computes what is wanted, with seeds and only with seeds."""

    def found(seeded: bool) -> bool:
        families = search(program, seeded=seeded).families
        assert families
        return any(wanted(s.value) for f in families for k in f.graph.kernels for s in k.stores)

    return found(True) and not found(False)


def test_lora_with_merged_weights_is_found() -> None:
    def merged(node: Expr) -> bool:
        """``sum(k, x * (W + ...))``."""
        if node.op is not Op.SUM:
            return False
        operands = factors(reduction(node)[1])
        weights = [f for f in operands if f.op is Op.ADD]
        return any({x.name for x in leaves([w])} == {"W", "A", "B"} for w in weights)

    assert gained(lora(LARGE), lambda v: holds(v, merged))


def test_layernorm_linear_with_the_mean_folded_out_is_found() -> None:
    def folded(value: Expr) -> bool:
        operands = {frozenset(x.name for x in leaves([n])) for n in walk([value]) if is_dot(n)}
        return frozenset({"x", "g", "W"}) in operands and not holds(
            value, lambda n: is_dot(n) and holds(n, lambda inner: inner.op is Op.ADD)
        )

    assert gained(layernorm_linear(LARGE), folded)
    assert gained(layernorm_linear(LARGE), lambda v: folded(v) and passes(v) == 1)


@pytest.mark.parametrize("build", [variance, ngpt_residual])
def test_one_pass_over_the_row_is_found(build: Callable[[Extents], Program]) -> None:
    assert gained(build(LARGE), lambda v: passes(v) == 1)


def test_a_softmax_written_with_its_maximum_is_found_in_one_pass() -> None:
    assert gained(safe_softmax(LARGE), lambda v: passes(v) == 1 and not holds(v, lambda n: n.op is Op.MAX))
