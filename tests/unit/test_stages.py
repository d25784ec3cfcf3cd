"""Schedules derived from roles compute what their kernels say: executed tile by tile on ragged extents."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sgraph.evaluate import evaluate_program
from sgraph.execute import execute
from sgraph.expr import bound_axes
from sgraph.ir import Kernel, Role, Store
from sgraph.program import Program
from sgraph.schedule import Accumulate, Loop, Statement
from sgraph.stages import Unschedulable, derive
from tests.programs import PROGRAMS, SMALL


def kernel_of(program: Program) -> Kernel:
    return Kernel("k0", tuple(Store(o.tensor, o.value, o.value) for o in program.outputs))


def role_choices(kernel: Kernel) -> list[dict[str, Role]]:
    """Every assignment of roles that respects what a role means, useful or not."""
    stored = [frozenset(s.tensor.named_axes) for s in kernel.stores]
    reduced = set(bound_axes(s.value for s in kernel.stores))
    options: list[tuple[Role, ...]] = []
    for axis in kernel.axes:
        if axis not in reduced and all(axis in s for s in stored):
            options.append((Role.GRID, Role.LOOP, Role.WHOLE))
        elif any(axis in s for s in stored):
            options.append((Role.LOOP, Role.WHOLE))
        else:
            options.append((Role.LOOP, Role.WHOLE, Role.SPLIT))
    return [dict(zip(map(str, kernel.axes), c, strict=True)) for c in itertools.product(*options)]


def statements(body: tuple[Statement, ...]) -> list[Statement]:
    found: list[Statement] = []
    for statement in body:
        found.append(statement)
        if isinstance(statement, Loop):
            found.extend(statements(statement.body))
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_schedule_computes_the_program(name: str) -> None:
    program = PROGRAMS[name](SMALL)
    rng = np.random.default_rng(0)
    tensors = {t.name: rng.normal(size=tuple(SMALL[a.name] for a in t.named_axes)) for t in program.inputs}
    expected = evaluate_program(program, tensors)
    ran = 0
    for roles in role_choices(kernel_of(program)):
        if list(roles.values()).count(Role.SPLIT) > 1:
            continue
        bare = kernel_of(program)
        kernel = Kernel("k0", bare.stores, tuple((a, roles[str(a)]) for a in bare.axes))
        try:
            schedule = derive(kernel)
        except Unschedulable:
            continue
        got = execute(schedule, tensors, SMALL, dict.fromkeys(SMALL, 2), cells=2)
        for output in program.outputs:
            np.testing.assert_allclose(got[output.tensor.name], expected[output.tensor.name], rtol=1e-9, atol=1e-9)
        ran += 1
    assert ran >= 2


def test_softmax_over_a_loop_is_online() -> None:
    program = PROGRAMS["softmax"](SMALL)
    bare = kernel_of(program)
    schedule = derive(
        Kernel("k0", bare.stores, tuple((a, Role.LOOP if a.name == "k" else Role.GRID) for a in bare.axes))
    )
    loops = [s for s in schedule.phases[0].body if isinstance(s, Loop)]
    assert len(loops) == 2, "one pass for maximum and sum together, one for the result"
    first = [s for s in loops[0].body if isinstance(s, Accumulate)]
    assert len(first) == 1
    assert first[0].scale is not None


def test_a_split_axis_with_a_later_pass_is_refused() -> None:
    program = PROGRAMS["softmax"](SMALL)
    bare = kernel_of(program)
    roles = tuple((a, Role.SPLIT if a.name == "k" else Role.GRID) for a in bare.axes)
    with pytest.raises(Unschedulable, match="result varies over it"):
        derive(Kernel("k0", bare.stores, roles))


def test_what_does_not_vary_over_a_loop_is_outside_it() -> None:
    program = PROGRAMS["attention"](SMALL)
    bare = kernel_of(program)
    wanted = {"m": Role.GRID, "n": Role.GRID, "j": Role.LOOP, "d": Role.WHOLE}
    schedule = derive(Kernel("k0", bare.stores, tuple((a, wanted[a.name]) for a in bare.axes)))
    before = list(itertools.takewhile(lambda s: not isinstance(s, Loop), schedule.phases[0].body))
    assert "q[m,d]" in str(before)
    inside = statements(schedule.phases[0].body)
    assert sum(str(getattr(s, "value", "")) == "q[m,d]" for s in inside) == 1
