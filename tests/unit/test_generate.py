"""The generator finds the known good programs by their structure, and accounts for what it leaves out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rewrites.saturate import saturate
from sgraph.bounds import is_dot, launches, lower_bound
from sgraph.expr import Op, leaves, walk
from sgraph.generate import Family, Search, SearchLimits, generate
from sgraph.ir import Kernel, Role
from sgraph.plans import PlanLimits
from sgraph.program import Program
from sgraph.schedule import Accumulate, Loop
from tests.programs import H200, LARGE, PROGRAMS, add_rmsnorm, gated_mlp, rmsnorm_linear, sizes_of, softmax


def search(program: Program, limits: SearchLimits | None = None) -> Search:
    table = saturate([o.value for o in program.outputs])
    return generate(program, table, H200, sizes_of(program), limits or SearchLimits())


def roles(kernel: Kernel) -> dict[str, Role]:
    return {str(axis): role for axis, role in kernel.roles}


def find(found: Search, wanted: Callable[[Family], bool]) -> Family:
    for family in found.families:
        if wanted(family):
            return family
    pytest.fail("no such family")


def one_kernel(family: Family) -> bool:
    return len(family.graph.kernels) == 1


def accumulations(family: Family) -> list[Accumulate]:
    """Accumulations inside the loops of the family's first phase."""
    body = family.schedules[0].phases[0].body
    return [s for loop in body if isinstance(loop, Loop) for s in loop.body if isinstance(s, Accumulate)]


@pytest.fixture(scope="module")
def rmsnorm_families() -> Search:
    return search(rmsnorm_linear(LARGE))


def test_rmsnorm_linear_fused_in_one_pass_with_the_scale_in_the_epilogue(rmsnorm_families: Search) -> None:
    family = find(rmsnorm_families, lambda f: one_kernel(f) and roles(f.graph.kernels[0])["k"] is Role.LOOP)
    loops = [s for s in family.schedules[0].phases[0].body if isinstance(s, Loop)]
    assert len(loops) == 1, "one pass over k"
    sums = [v for a in accumulations(family) for v in a.values]
    dots = [v for v in sums if is_dot(v)]
    assert len(sums) == 2
    assert len(dots) == 1
    assert not any(n.op is Op.SQRT for n in walk(dots)), "the scale is not inside the dot"


def test_rmsnorm_linear_split_over_k_has_a_combine_phase(rmsnorm_families: Search) -> None:
    family = find(rmsnorm_families, lambda f: one_kernel(f) and roles(f.graph.kernels[0])["k"] is Role.SPLIT)
    assert [p.name for p in family.schedules[0].phases] == ["main", "combine"]
    assert launches(family.graph) == 2


def test_rmsnorm_linear_unfused_normalises_first(rmsnorm_families: Search) -> None:
    def normalises_first(family: Family) -> bool:
        if len(family.graph.kernels) != 2:
            return False
        first, second = family.graph.kernels
        stored = first.stores[0].tensor
        return {"x"} <= set(first.reads) and set(second.reads) >= {stored.name, "W"} and len(stored.axes) == 2

    find(rmsnorm_families, normalises_first)


def test_fused_families_come_first(rmsnorm_families: Search) -> None:
    assert one_kernel(rmsnorm_families.families[0])


def test_gated_mlp_computes_both_projections_in_one_loop() -> None:
    found = search(gated_mlp(LARGE))
    family = find(found, lambda f: one_kernel(f) and roles(f.graph.kernels[0])["k"] is Role.LOOP)
    dots = [v for a in accumulations(family) for v in a.values if is_dot(v)]
    assert {x.name for v in dots for x in leaves([v])} == {"x", "Wg", "Wu"}
    assert len(dots) == 2
    find(found, lambda f: len(f.graph.kernels) == 3)


def test_softmax_in_one_read_and_online() -> None:
    found = search(softmax(LARGE))
    find(found, lambda f: roles(f.graph.kernels[0])["k"] is Role.WHOLE)
    family = find(found, lambda f: roles(f.graph.kernels[0])["k"] is Role.LOOP)
    assert [a.scale is not None for a in accumulations(family)] == [True]
    assert found.dropped["limit: scaled value stored between kernels"] > 0


def test_two_outputs_share_a_kernel_or_not() -> None:
    found = search(add_rmsnorm(LARGE))
    find(found, lambda f: one_kernel(f) and len(f.graph.kernels[0].stores) == 2)

    def reads_stored_sum(family: Family) -> bool:
        return len(family.graph.kernels) == 2 and "h" in family.graph.kernels[1].reads

    find(found, reads_stored_sum)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_family_is_listed_twice_and_each_reads_what_is_stored_before(name: str) -> None:
    found = search(PROGRAMS[name](LARGE))
    assert found.families
    assert len({f.graph for f in found.families}) == len(found.families)
    for family in found.families:
        graph = family.graph
        available = {t.name for t in graph.program.inputs}
        for kernel in graph.kernels:
            assert set(kernel.reads) <= available
            available |= {s.tensor.name for s in kernel.stores}
        assert {o.tensor.name for o in graph.program.outputs} <= available
        assert graph.decided
        assert family.estimate_s >= family.bound_s == lower_bound(graph, H200, sizes_of(graph.program))


def test_two_runs_give_the_same_families_in_the_same_order() -> None:
    first, second = search(rmsnorm_linear(LARGE)), search(rmsnorm_linear(LARGE))
    assert [f.graph for f in first.families] == [f.graph for f in second.families]


def test_limits_are_counted() -> None:
    limits = SearchLimits(PlanLimits(stored=1, cut_sets=2), families=3)
    found = search(rmsnorm_linear(LARGE), limits)
    assert len(found.families) == 3
    assert found.dropped["limit: sets of stored tensors"] > 0
    assert found.dropped["limit: families"] > 0


def test_attention_is_found_online_and_split_over_keys() -> None:
    found = search(PROGRAMS["attention"]({**LARGE, "n": 128, "j": 8192}))
    online = find(
        found,
        lambda f: (
            one_kernel(f)
            and roles(f.graph.kernels[0]) == {"d": Role.WHOLE, "j": Role.LOOP, "m": Role.GRID, "n": Role.GRID}
        ),
    )
    assert [len(a.values) for a in accumulations(online)] == [2]
    find(found, lambda f: one_kernel(f) and roles(f.graph.kernels[0])["j"] is Role.SPLIT)
