"""What fits a target: the smallest-tile test never refuses a kernel that some tiles would fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from sgraph.axis import Axis, Size
from sgraph.expr import Expr, exp, sum_over
from sgraph.feasibility import on_chip_bytes, smallest_tiles, violated
from sgraph.infeasible import unsatisfiable_core
from sgraph.ir import Kernel, Role, Store
from sgraph.roles import assignments
from sgraph.schedule import Schedule
from sgraph.stages import Unschedulable, derive
from tests.programs import H200, LARGE, PROGRAMS, tensor

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


# ----------------------------------------------------------------------------------- unsatisfiable cores


def test_the_core_names_the_held_axes_and_the_memory_they_exceed() -> None:
    wide, rows, other = Axis("k", 65_536), Axis("m", 65_536), Axis("r", 4)
    value = exp(tensor("x", rows, wide, other).read())
    roles = {rows: Role.WHOLE, wide: Role.WHOLE, other: Role.WHOLE}
    core = unsatisfiable_core(decided(sum_over((rows, wide, other), value), roles), H200)
    assert core is not None
    words = "\n".join(map(str, core))
    assert "tile: k is held, 65536" in words
    assert "tile: m is held, 65536" in words
    assert f"at most {on_chip_bytes(H200)} B" in words
    assert sum(r.subject == "on-chip memory" for r in core) == 1, "one violated constraint is enough"


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_solver_and_the_arithmetic_agree(name: str, kind: str) -> None:
    """At extents where what a program may hold is about what it has."""
    target = replace(H200, kind=kind)
    verdicts: set[bool] = set()
    for wide in (16_384, 65_536):
        p = PROGRAMS[name]({**LARGE, "k": wide, "j": wide, "d": wide})
        for schedule in held_or_looped(Kernel("k0", tuple(Store(o.tensor, o.value, o.value) for o in p.outputs))):
            core = unsatisfiable_core(schedule, target)
            assert (core is None) == (violated(schedule, target) is None), str(schedule.kernel)
            verdicts.add(core is None)
    assert verdicts == {True, False}, "both answers are compared"


def held_or_looped(kernel: Kernel) -> Iterator[Schedule]:
    """Every schedule in which each axis is held, or tiled over the grid or in a loop: sensible or not."""
    free = {a for s in kernel.stores for a in s.tensor.named_axes}
    for choice in itertools.product((False, True), repeat=len(kernel.axes)):
        tiled = {a: Role.GRID if a in free else Role.LOOP for a in kernel.axes}
        roles = tuple((a, Role.WHOLE if held else tiled[a]) for a, held in zip(kernel.axes, choice, strict=True))
        with suppress(Unschedulable):
            yield derive(replace(kernel, roles=roles))


def test_an_axis_may_be_called_like_anything_in_the_solver() -> None:
    for name in ("requirement:0", "tile", "and", "r", "true"):
        axis = Axis(name, 1 << 20)
        schedule = decided(sum_over(axis, exp(tensor("x", m, axis).read())), {m: Role.GRID, axis: Role.WHOLE})
        core = unsatisfiable_core(schedule, H200)
        assert core is not None
        assert any(f"{name} is held" in str(r) for r in core)
        looped = decided(sum_over(axis, exp(tensor("x", m, axis).read())), {m: Role.GRID, axis: Role.LOOP})
        assert unsatisfiable_core(looped, H200) is None
