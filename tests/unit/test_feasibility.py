"""What fits a target: the smallest-tile test never refuses a kernel that some tiles would fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgraph.axis import Axis, Size
from sgraph.expr import Expr, exp, sum_over
from sgraph.feasibility import smallest_tiles, violated
from sgraph.ir import Kernel, Role, Store
from sgraph.roles import assignments
from sgraph.schedule import Schedule
from sgraph.stages import derive
from tests.programs import H200, tensor

b, h, g, m, k, n, j, d = (Axis(x, 64) for x in "bhgmknjd")


def decided(value: Expr, roles: dict[Axis, Role]) -> Schedule:
    store = Store(tensor("out", *sorted(value.free)), value, value)
    return derive(Kernel("k0", (store,), tuple(sorted(roles.items(), key=lambda r: r[0].key))))


def test_batch_axes_of_dot_products_do_not_make_a_kernel_infeasible() -> None:
    q, key, value = tensor("q", b, h, g, m, d), tensor("k", b, h, j, d), tensor("v", b, h, j, n)
    weight = exp(sum_over(d, q.read() * key.read()))
    store = Store(tensor("out", b, h, g, m, n), sum_over(j, weight * value.read()), weight)
    found, _ = assignments(Kernel("k0", (store,)))
    assert found
    assert [violated(mapped.schedule, H200) for mapped in found] == [None] * len(found)


def test_a_held_tile_that_exceeds_registers_and_shared_memory_is_refused_with_both_figures() -> None:
    wide, rows = Axis("k", 65_536), Axis("m", 65_536)
    x = tensor("x", rows, wide)
    whole = {rows: Role.WHOLE, wide: Role.WHOLE}
    value = exp(x.read())
    reason = violated(decided(sum_over((rows, wide), value), whole), H200)
    assert reason is not None
    assert reason.startswith("on-chip memory: 17179869184 B live")
    assert f"{4 * 65536 + H200.shared_memory_bytes} B" in reason


def test_a_row_that_fits_only_with_shared_memory_is_kept_and_a_smaller_device_refuses_it() -> None:
    long = Axis("k", 65_536)
    value = sum_over(long, exp(tensor("x", m, long).read()))
    schedule = decided(value, {m: Role.GRID, long: Role.WHOLE})
    assert violated(schedule, H200) is None
    double = Axis("k", 131_072)
    twice = sum_over(double, exp(tensor("x", m, double).read()))
    assert violated(decided(twice, {m: Role.GRID, double: Role.WHOLE}), replace(H200, kind="cpu")) is not None


@pytest.mark.parametrize(("extent", "tile"), [(1, 1), (5, 8), (64, 64), (0, 1), (Size("K", 1, 100), 128)])
def test_a_held_axis_is_padded_to_a_power_of_two(extent: int | Size, tile: int) -> None:
    axis = Axis("k", extent)
    value = sum_over(axis, tensor("x", axis).read())
    kernel = Kernel("k0", (Store(tensor("out"), value, value),), ((axis, Role.WHOLE),))
    assert smallest_tiles(kernel) == {axis: tile}
