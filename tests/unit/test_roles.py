"""Roles: what is listed, what is the same as something listed, and what a limit leaves out."""

from __future__ import annotations

import pytest

from sgraph import roles
from sgraph.axis import Axis, Size
from sgraph.expr import Expr, call, exp, recip, sum_over
from sgraph.ir import Kernel, Role, Store
from sgraph.roles import assignments
from tests.programs import tensor

m, k, n, h, e = Axis("m", 16), Axis("k", 64), Axis("n", 32), Axis("h", 8), Axis("e", 4)
GRID, LOOP, WHOLE, SPLIT = Role.GRID, Role.LOOP, Role.WHOLE, Role.SPLIT


def kernel(*values: Expr) -> Kernel:
    return Kernel("k0", tuple(Store(tensor(f"out{i}", *sorted(v.free)), v, v) for i, v in enumerate(values)))


def listed(*values: Expr) -> list[dict[str, Role]]:
    return [{str(a): r for a, r in mapped.kernel.roles} for mapped in assignments(kernel(*values))[0]]


def test_a_matmul_loops_over_its_contraction_or_splits_it() -> None:
    value = sum_over(k, tensor("x", m, k).read() * tensor("w", k, n).read())
    assert listed(value) == [{"k": LOOP, "m": GRID, "n": GRID}, {"k": SPLIT, "m": GRID, "n": GRID}]


def test_holding_an_axis_is_listed_where_it_saves_a_second_pass() -> None:
    x = tensor("x", m, k).read()
    assert listed(exp(x) * recip(sum_over(k, exp(x)))) == [{"k": LOOP, "m": GRID}, {"k": WHOLE, "m": GRID}]


def test_a_sum_over_three_axes_holds_one_where_three_loops_would_nest_too_deep() -> None:
    x, w = tensor("x", m, h, e, k).read(), tensor("w", h, e, k, n).read()
    found, dropped = assignments(kernel(sum_over((h, e, k), x * w)))
    choices = [dict(mapped.kernel.roles) for mapped in found]
    assert choices
    assert all([c[a] for a in (h, e, k)].count(WHOLE) == 1 for c in choices)
    assert dropped["limit: loops nested more than 2 deep"] > 0
    assert dropped["limit: more than one split axis"] > 0


def test_an_axis_too_long_to_be_held_is_counted() -> None:
    long = Axis("k", Size("K", 1, 1_000_000))
    x = tensor("x", m, long).read()
    found, dropped = assignments(kernel(exp(x) * recip(sum_over(long, exp(x)))))
    assert [dict(mapped.kernel.roles)[long] for mapped in found] == [LOOP]
    assert dropped["limit: axis too long to be held"] == 1


def test_a_limit_on_assignments_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "MAX_ASSIGNMENTS", 2)
    value = sum_over((h, k), tensor("x", m, h, k).read())
    _, dropped = assignments(kernel(value))
    assert dropped["limit: role assignments"] == 3 * 3 - 2


def test_a_number_has_no_axes_and_one_assignment() -> None:
    (only,) = assignments(kernel(sum_over(k, tensor("x", k).read()) * 0 + tensor("y").read()))[0][:1]
    assert all(a == k for a, _ in only.kernel.roles)
    found, dropped = assignments(kernel(call("silu", tensor("y").read())))
    assert [mapped.kernel.roles for mapped in found] == [()]
    assert not dropped


def test_an_axis_that_no_operand_has_is_summed_at_once() -> None:
    found, _ = assignments(kernel(sum_over((n, k), tensor("x", m, k).read())))
    assert found
    assert all(dict(mapped.kernel.roles)[n] is WHOLE for mapped in found if n in dict(mapped.kernel.roles))
