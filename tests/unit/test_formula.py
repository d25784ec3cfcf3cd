"""The lower bound as a formula equals the numeric one, at any sizes, and grows with what small tiles repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.bounds import lower_bound
from sgraph.formula import lower_bound_formula
from sgraph.generate import Family, SearchLimits, generate
from sgraph.ir import Role
from sgraph.plans import PlanLimits
from sgraph.program import Program
from tests.programs import H200, LARGE, PROGRAMS, sizes_of


def families(p: Program) -> tuple[Family, ...]:
    table = saturate([o.value for o in p.outputs])
    return generate(p, table, H200, sizes_of(p), SearchLimits(PlanLimits(stored=1), families=40)).families


def grown(sizes: Mapping[Axis, int], by: int) -> dict[Axis, int]:
    return {axis: size * by for axis, size in sizes.items()}


@pytest.mark.parametrize("by", [1, 7, 100])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_formula_is_the_bound(name: str, by: int) -> None:
    p = PROGRAMS[name](LARGE)
    sizes = grown(sizes_of(p), by)
    for family in families(p)[:: 1 if by == 1 else 5]:
        formula = lower_bound_formula(family.graph)
        assert formula.at(H200, sizes) == pytest.approx(lower_bound(family.graph, H200, sizes), rel=1e-9)


def test_a_fold_is_read_and_not_computed() -> None:
    p = PROGRAMS["rmsnorm_linear"](LARGE)
    p = dataclasses.replace(p, inputs=tuple(dataclasses.replace(t, constant=t.name != "x") for t in p.inputs))
    (family, *_) = [f for f in families(p) if f.graph.folded]
    expected = lower_bound(family.graph, H200, sizes_of(p))
    assert lower_bound_formula(family.graph).at(H200, sizes_of(p)) == pytest.approx(expected, rel=1e-9)


def test_small_tiles_repeat_what_does_not_vary_over_the_grid() -> None:
    p = PROGRAMS["rmsnorm_linear"]({**LARGE, "m": 2048})
    sizes = sizes_of(p)
    family = next(f for f in families(p) if len(f.graph.kernels) == 1)
    formula = lower_bound_formula(family.graph)
    rates = dict.fromkeys(H200.dot_flops_per_s, 1e15)
    slow = dataclasses.replace(H200, pointwise_flops_per_s=1e9, dot_flops_per_s=rates)
    tiles = dict.fromkeys(family.graph.kernels[0].with_role(Role.GRID), 16)
    # The sum of squares is repeated for every tile of n.
    assert formula.at(slow, sizes, tiles) > 100 * formula.at(slow, sizes)
    assert formula.at(slow, sizes, {a: sizes[a] for a in tiles}) == formula.at(slow, sizes)


def test_every_symbol_has_a_meaning() -> None:
    for family in families(PROGRAMS["attention"](LARGE))[:4]:
        formula = lower_bound_formula(family.graph)
        assert {s.name for s in formula.expression.free_symbols} <= set(formula.meanings)
