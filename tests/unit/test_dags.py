"""Kernel bodies: how work is compared, and what the search for bodies lists and leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.dags import Bodies, Work, bodies, elements, tops, work
from sgraph.expr import Expr, Op, call, const, exp, leaves, recip, sum_over
from sgraph.view import View
from tests.programs import tensor

m, k, n = Axis("m", 16), Axis("k", 64), Axis("n", 32)
SIZES: Mapping[Axis, int] = {m: 16, k: 64, n: 32}
x, w, v = tensor("x", m, k).read(), tensor("w", k, n).read(), tensor("v", m).read()


def of(value: Expr) -> Work:
    return work([value], SIZES)


def listed(value: Expr, limit: int = 1000) -> tuple[Bodies, View]:
    table = saturate([value])
    inputs = {table.lookup(leaf): leaf for leaf in leaves([value])}
    leaf_of = {cls: leaf for cls, leaf in inputs.items() if cls is not None}
    view = View(table, frozenset(leaf_of))
    return bodies(view, table.roots, leaf_of, SIZES, limit), view


def test_a_chain_of_sums_counts_once() -> None:
    value = sum_over((m, k), x)
    assert of(value).flops == 2 * 16 * 64
    assert [node.op for node in tops([value])] == [Op.LEAF, Op.SUM]


def test_less_of_the_same_work_covers() -> None:
    once, twice = sum_over(k, x * w), sum_over(k, x * w) * sum_over(k, x)
    assert of(once).covers(of(twice))
    assert not of(twice).covers(of(once))


def test_work_on_a_smaller_index_space_covers_the_same_work_on_a_larger_one() -> None:
    small, large = call("silu", v) * x, call("silu", x * v)
    assert of(small).covers(of(large))
    assert not of(large).covers(of(small))


def test_fewer_elements_do_not_outweigh_another_index_space() -> None:
    """Two operators on rows may be repeated by every column's program: totals do not tell."""
    rows, columns = tensor("a", m).read(), tensor("b", n).read()
    two_on_rows = exp(call("silu", rows)) + columns
    one_on_columns = rows + exp(columns)
    assert of(two_on_rows).pointwise <= of(one_on_columns).pointwise
    assert not of(two_on_rows).covers(of(one_on_columns))
    assert not of(one_on_columns).covers(of(two_on_rows))


def test_a_second_pass_over_one_axis_is_not_paid_for_by_passes_over_another() -> None:
    y = tensor("y", k, n).read()
    over_k = sum_over(k, x * sum_over(k, x))
    over_n = sum_over(k, y * sum_over(n, y) * x)
    assert not of(over_k).covers(of(over_n))


def test_a_longer_chain_of_passes_is_not_covered_by_equal_operators() -> None:
    """Σ(x·Σx) over k waits for itself; two sums side by side do not."""
    waiting, beside = sum_over(k, x * sum_over(k, x)), sum_over(k, x * v) * sum_over(k, x)
    assert of(waiting).parts == of(beside).parts
    assert of(beside).passes == {k: 1}
    assert of(waiting).passes == {k: 2}
    assert not replace(of(waiting), reads=of(beside).reads).covers(of(beside))
    assert replace(of(beside), reads=of(waiting).reads).covers(of(waiting))


def test_work_with_and_without_dot_products_is_not_compared() -> None:
    dot, plain = sum_over(k, x * w), sum_over(k, exp(w + x))
    assert not of(dot).covers(of(plain))


def test_a_factor_outside_a_sum_is_the_only_body_listed() -> None:
    found, view = listed(sum_over(k, x * v * w))
    assert [values[0] for values in found.values] == [v * sum_over(k, x * w)]
    assert not found.cut_off
    assert not view.dropped


def test_a_contraction_of_three_operands_that_has_no_other_form_is_still_computed() -> None:
    a, b, c = (tensor(name, k, axis).read() for name, axis in zip("abc", (m, n, Axis("p", 8)), strict=True))
    found, view = listed(call("silu", sum_over(k, a * b * c)))
    assert found.values
    assert not view.dropped


def test_a_sum_over_an_axis_that_no_operand_has_is_a_product_with_its_extent() -> None:
    found, _ = listed(sum_over((n, k), x))
    assert found.values
    assert all(not any(node.op is Op.SUM and node.axis == n for node in tops(values)) for values in found.values)


def test_a_long_product_is_read_without_recursion() -> None:
    class Chain:
        """A table of one long left-leaning product: class i is class i+1 times the leaf."""

        roots = (0,)
        length = 1500

        def nodes(self, cls: int) -> list[_Node]:
            return [_Node((cls + 1, self.length + 1))] if cls < self.length else []

        def free(self, cls: int) -> frozenset[Axis]:
            return frozenset({m})

        def representative(self, cls: int) -> Expr:
            return v

        def lookup(self, value: Expr) -> int | None:
            return None

    chain = Chain()
    (flat,) = View(chain, frozenset({chain.length, chain.length + 1})).flats(0)
    assert len(flat) == chain.length + 1


class _Node:
    op = Op.MUL
    attr = None

    def __init__(self, args: tuple[int, ...]) -> None:
        self.args = args


def test_a_search_that_reaches_its_limit_says_so() -> None:
    value = call("silu", sum_over(k, x * w * recip(v + const(1)))) * sum_over(k, x * v)
    assert not listed(value)[0].cut_off
    assert listed(value, limit=1)[0].cut_off or len(listed(value)[0].values) == 1


@pytest.mark.parametrize(("axes", "count"), [((), 1), ((m, k), 1024), ((Axis("z", 3),), 3)])
def test_elements_of_an_index_space(axes: tuple[Axis, ...], count: int) -> None:
    assert elements(axes, SIZES) == count
