"""Tables of small workloads: what is in them, what is not, and that every node is right."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import comb

import pytest

from rewrites.audit import audit
from rewrites.language import collapse
from rewrites.rules import RULES, AxisVariable, Rule, Variable, reduce_over, unary
from rewrites.saturate import Limits, saturate
from rewrites.table import Node, Table
from sgraph.axis import Axis, Size
from sgraph.expr import (
    Expr,
    Op,
    Read,
    Sign,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    lift,
    max_over,
    mean_over,
    mul,
    neg_inf,
    product,
    recip,
    rsqrt,
    sqrt,
    sum_over,
    where,
)

m, k, n, r = Axis("m", Size("M")), Axis("k", 4096), Axis("n", 6144), Axis("r", 16)
x, g, w = leaf("x", [m, k]), leaf("g", [k]), leaf("W", [k, n])
eps = const("1e-6")
mean_square = mean_over(k, x * x)
scale = rsqrt(mean_square + eps)
rmsnorm_linear = sum_over(k, x * scale * g * w)


@pytest.fixture(scope="module")
def rmsnorm() -> Table:
    return saturate([rmsnorm_linear])


@pytest.fixture(scope="module")
def safe_softmax() -> Table:
    shifted = x - max_over(k, x)
    return saturate([exp(shifted) * recip(sum_over(k, exp(shifted)))])


def present(table: Table, *values: Expr) -> list[bool]:
    return [table.lookup(v) is not None for v in values]


def test_rmsnorm_linear_holds_the_one_pass_form(rmsnorm: Table) -> None:
    dot = sum_over(k, x * g * w)
    assert not rmsnorm.truncated
    assert rmsnorm.roots == (0,)
    assert rmsnorm.lookup(rmsnorm_linear) == 0
    assert rmsnorm.lookup(dot * scale) == 0, "the scale is outside of the reduction"
    assert rmsnorm.lookup(sum_over(k, (w * g) * x) * scale) == 0, "whatever the order"
    wanted = (x * g, g * w, x * w, x * x, sum_over(k, x * x), mean_square, mean_square + eps)
    assert all(present(rmsnorm, *wanted, sqrt(mean_square + eps), scale, x * scale * g, dot))


def test_rmsnorm_linear_holds_no_junk(rmsnorm: Table) -> None:
    junk = (
        sum_over(k, x),
        sum_over(k, w),
        sum_over(k, x * w),
        sum_over(m, x),
        x + g,
        x * x * g,
        exp(x),
        scale * scale,
        sum_over(n, w),
        rsqrt(mean_square),
        leaf("y", [m, k]),
    )
    assert not any(present(rmsnorm, *junk))
    assert rmsnorm.e_nodes < 80


def test_gated_mlp() -> None:
    gate, up = leaf("Wg", [k, n]), leaf("Wu", [k, n])
    left, right = sum_over(k, x * gate), sum_over(k, x * up)
    table = saturate([call("silu", left) * right])
    assert table.lookup(right * call("silu", left)) == 0
    assert all(present(table, x * gate, x * up, left, right, call("silu", left)))
    assert not any(present(table, call("silu", right), call("silu", x * gate), gate * up, left * right, sum_over(k, x)))


def test_plain_matrix_product() -> None:
    table = saturate([sum_over(k, x * w)])
    assert (table.classes, table.e_nodes) == (4, 4)
    assert [table.nodes(c)[0].op for c in range(4)] == [Op.SUM, Op.MUL, Op.LEAF, Op.LEAF]


def test_softmax() -> None:
    table = saturate([exp(x) * recip(sum_over(k, exp(x)))])
    assert all(present(table, exp(x), sum_over(k, exp(x)), recip(sum_over(k, exp(x)))))
    assert not any(present(table, sum_over(k, x), exp(sum_over(k, x)), recip(exp(x))))


def test_safe_softmax_holds_the_unshifted_form(safe_softmax: Table) -> None:
    largest = max_over(k, x)
    weights = exp(x) * recip(exp(largest))
    assert all(present(safe_softmax, x - largest, exp(x), exp(largest), sum_over(k, exp(x))))
    assert safe_softmax.lookup(weights * recip(sum_over(k, weights))) == safe_softmax.roots[0]
    assert safe_softmax.lookup(weights * recip(sum_over(k, exp(x)) * recip(exp(largest)))) == safe_softmax.roots[0]
    # A part of the product; that it equals the whole needs cancellation, which is the normal form's business.
    assert safe_softmax.lookup(exp(x) * recip(sum_over(k, exp(x)))) not in (None, safe_softmax.roots[0])


def test_add_rmsnorm_has_two_roots() -> None:
    residual = leaf("r", [m, k])
    h = x + residual
    table = saturate([h, h * rsqrt(mean_over(k, h * h) + eps) * g])
    assert len(set(table.roots)) == 2
    assert table.lookup(residual + x) == table.roots[0]
    assert table.lookup(h * g * rsqrt(mean_over(k, h * h) + eps)) == table.roots[1]
    assert not any(present(table, x * g, x * residual, sum_over(k, h)))


def test_lora_with_and_without_the_merged_weight() -> None:
    a, b = leaf("A", [k, r]), leaf("B", [r, n])
    half = const("1/2")
    value = sum_over(k, x * w) + half * sum_over(r, sum_over(k, x * a) * b)
    merged = w + half * sum_over(r, a * b)
    plain, seeded = saturate([value]), saturate([value], seeds=[(value, sum_over(k, x * merged))])
    assert plain.lookup(sum_over(k, x * w) + half * sum_over(k, x * sum_over(r, a * b))) == 0
    assert all(present(plain, sum_over(k, x * w), sum_over(k, x * a), sum_over(r, a * b), a * b))
    assert plain.lookup(merged) is None
    assert seeded.lookup(value) == seeded.lookup(sum_over(k, merged * x)) == seeded.roots[0]
    assert seeded.lookup(merged) is not None


def test_copies_of_an_axis_are_told_apart() -> None:
    other = k.renamed(1)
    h, h1 = leaf("h", [m, k]), leaf("h", [m, other])
    table = saturate([sum_over(other, h * h1 * extent(other))])
    assert table.lookup(h * sum_over(other, h1) * extent(k)) == 0
    assert table.lookup(h1 * sum_over(k, h) * extent(k)) is None
    assert table.free(0) == {m, k}


def test_a_sum_over_an_axis_that_does_not_occur() -> None:
    table = saturate([sum_over(k, leaf("u", [m]) * leaf("v", [m]))])
    assert table.lookup(leaf("u", [m]) * (leaf("v", [m]) * extent(k))) == 0
    empty = Axis("e", Size("E", low=0))
    kept = saturate([sum_over(empty, leaf("u", [m]))])
    assert kept.lookup(extent(empty) * leaf("u", [m])) is None


def test_scalars_are_opaque_inside_and_whole_outside() -> None:
    s, t = leaf("s", []), leaf("t", [])
    coefficient = recip(extent(k)) * s * const(3)
    value = sum_over(k, x * coefficient * w) * t
    table = saturate([value])
    assert table.lookup(value) == 0
    assert table.lookup(sum_over(k, x * w) * (t * const(3)) * (s * recip(extent(k)))) == 0
    assert all(present(table, recip(extent(k)), extent(k), s, t, const(3), recip(extent(k))))
    ops = {node.op for c in range(table.classes) for node in table.nodes(c)}
    assert {Op.RECIP, Op.EXTENT, Op.CONST} <= ops
    bare = saturate([sum_over(k, x * w)])
    assert table.e_nodes <= 4 * bare.e_nodes + 8


def test_collapse_gathers_scalars_and_keeps_everything_else() -> None:
    s = leaf("s", [])
    assert collapse((x * g) * (w * leaf("v", [n]))) is (x * g) * (w * leaf("v", [n]))
    assert collapse(2 * x * s) is collapse(s * x * 2)
    assert collapse(sum_over(k, s * x)) is mul(s, sum_over(k, x))
    empty = Axis("e", Size("E", low=0))
    inside = sum_over(empty, s * leaf("z", [empty]))
    assert collapse(inside) is inside, "1/0 would become undefined over an empty axis"
    assert collapse(where_masked := where_mask()) is where_masked


def where_mask() -> Expr:
    from sgraph.expr import make

    return where(make(Op.LE, (index(k), index(n))), x, neg_inf())


def test_masks_keep_minus_infinity_apart() -> None:
    masked = where_mask()
    table = saturate([exp(masked) * w, exp(x + masked)])
    assert table.lookup(exp(masked) * exp(x)) == table.roots[1], "one of the two is finite"
    both = saturate([exp(masked + leaf("bias", [k], finite=False))])
    assert both.lookup(exp(masked) * exp(leaf("bias", [k], finite=False))) == both.roots[0]
    assert audit(table).passed
    assert audit(both).passed


def test_signs_and_free_axes_are_those_of_the_class(rmsnorm: Table) -> None:
    def sign(value: Expr) -> Sign:
        cls = rmsnorm.lookup(value)
        assert cls is not None
        return rmsnorm.sign(cls)

    assert sign(x) is Sign.ANY
    assert sign(x * x) is Sign.NONNEGATIVE
    assert sign(mean_square + eps) is Sign.POSITIVE
    assert sign(scale) is Sign.POSITIVE
    assert sign(extent(k)) is Sign.POSITIVE
    assert rmsnorm.free(0) == {m, n}
    assert [rmsnorm.free(c) for c in range(rmsnorm.classes)] == [
        rmsnorm.representative(c).free for c in range(rmsnorm.classes)
    ]


def test_representatives_are_in_their_own_class(rmsnorm: Table, safe_softmax: Table) -> None:
    for table in (rmsnorm, safe_softmax):
        for cls in range(table.classes):
            assert table.lookup(table.representative(cls)) == cls


def test_the_representative_is_the_smallest() -> None:
    u = leaf("u", [m])
    table = saturate([const(1) * (const(0) + recip(recip(exp(u))))])
    assert table.representative(0) is exp(u)


def test_a_table_pickles(rmsnorm: Table) -> None:
    again = pickle.loads(pickle.dumps(rmsnorm))
    assert again == rmsnorm
    assert again.lookup(rmsnorm_linear) == 0
    assert again.representative(0) is rmsnorm.representative(0)


def test_products_are_stored_once_per_unordered_pair(rmsnorm: Table) -> None:
    for cls in range(rmsnorm.classes):
        nodes = rmsnorm.nodes(cls)
        assert len(set(nodes)) == len(nodes)
        assert all(node.args == tuple(sorted(node.args)) for node in nodes if node.op is Op.MUL)


def test_lookup_of_a_constant_and_of_a_leaf_read_differently(rmsnorm: Table) -> None:
    assert rmsnorm.lookup(eps) is not None
    assert rmsnorm.lookup(lift(Fraction(1, 3))) is None
    assert rmsnorm.lookup(leaf("x", [m, k], finite=False)) is None


# --------------------------------------------------------------------------------------------------- audit


def test_every_node_agrees_with_its_class(rmsnorm: Table, safe_softmax: Table) -> None:
    for table in (rmsnorm, safe_softmax):
        report = audit(table, seed=1)
        assert report.passed
        assert report.checked == report.nodes == table.e_nodes


def test_large_tables_are_sampled(rmsnorm: Table) -> None:
    report = audit(rmsnorm, sample=10)
    assert (report.checked, report.nodes) == (10, rmsnorm.e_nodes)


a_, b_, k_ = Variable("a"), Variable("b"), AxisVariable("k")
UNSOUND = (
    Rule(
        "sum-of-product",
        reduce_over(Op.SUM, k_, a_ * b_),
        reduce_over(Op.SUM, k_, a_) * reduce_over(Op.SUM, k_, b_),
    ),
    Rule("factor-anything", reduce_over(Op.SUM, k_, a_ * b_), a_ * reduce_over(Op.SUM, k_, b_)),
    Rule("drop-root", unary(Op.SQRT, a_), a_),
)


def unchecked(rules: Sequence[Rule]) -> None:
    assert any(rule not in RULES for rule in rules)


@pytest.mark.parametrize("rule", UNSOUND, ids=lambda rule: rule.name)
def test_an_unsound_rule_is_caught_by_the_audit(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewrites.saturate._require_checked", unchecked)
    table = saturate([rmsnorm_linear], rules=[*RULES, rule], limits=Limits(e_nodes=3000))
    report = audit(table)
    assert not report.passed
    assert any(d.node is not None for d in report.disagreements)


def test_wrong_facts_are_caught_by_the_audit(rmsnorm: Table) -> None:
    cls = rmsnorm.lookup(x)
    assert cls is not None
    signs = tuple(Sign.POSITIVE if c == cls else s for c, s in enumerate(rmsnorm.all_signs))
    free = tuple(frozenset({m}) if c == cls else f for c, f in enumerate(rmsnorm.all_free))
    assert [d.what for d in audit(replace(rmsnorm, all_signs=signs)).disagreements] == ["is not > 0"]
    assert [d.what for d in audit(replace(rmsnorm, all_free=free)).disagreements] == ["depends on k"]


def test_a_wrong_node_is_caught_by_the_audit(rmsnorm: Table) -> None:
    read = Node(Op.LEAF, Read("g", (k,)), ())
    nodes = (*rmsnorm.all_nodes[:1], (*rmsnorm.all_nodes[1], read), *rmsnorm.all_nodes[2:])
    assert not audit(replace(rmsnorm, all_nodes=nodes)).passed


def test_a_product_of_many_factors_is_complete() -> None:
    factors = [leaf(f"t{i}", [m]) for i in range(6)]
    table = saturate([product(factors)])
    assert table.classes == 2**6 - 1, "one class per non-empty subset"
    combs = sum(size * comb(6, size) for size in range(3, 7)) + comb(6, 2) + 6
    assert table.e_nodes == combs, "each factor in front of the rest, and nothing else"
    left, right = factors[:3], factors[3:]
    assert table.lookup(product(left) * product(right)) == 0, "products are found in any association"


def test_a_sum_with_a_factor_left_inside_is_found_in_products() -> None:
    u, v, y = leaf("u", [m]), leaf("v", [m]), leaf("y", [m, n])
    value = y * sum_over(k, u * v * x * w)
    table = saturate([value])
    for inside, outside in ((u, v), (v, u)):
        assert table.lookup(y * outside * sum_over(k, inside * x * w)) == 0
        assert table.lookup(y * sum_over(k, inside * x * w)) == table.lookup(y * inside * sum_over(k, x * w))
    assert audit(table).passed
