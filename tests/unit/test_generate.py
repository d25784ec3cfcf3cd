"""The generator finds the known good programs by their structure, and accounts for what it leaves out."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.bounds import is_dot, launches, lower_bound, speed_of_light, work_bound
from sgraph.evaluate import evaluate_program, evaluate_sgraph
from sgraph.execute import execute
from sgraph.expr import Expr, Op, Read, call, const, exp, leaves, make, rebuild, recip, rename, sum_over, walk
from sgraph.generate import Family, Search, SearchLimits, generate
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.plans import PlanLimits
from sgraph.printer import python
from sgraph.program import DType, Output, Program, Tensor
from sgraph.reader import read
from sgraph.schedule import Accumulate, Loop
from tests.programs import (
    H200,
    LARGE,
    PROGRAMS,
    SMALL,
    add_rmsnorm,
    attention,
    gated_mlp,
    lora,
    program,
    rms,
    rmsnorm_linear,
    sizes_of,
    softmax,
    tensor,
)


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


HASHES = """
import hashlib
from rewrites.saturate import saturate
from sgraph.generate import SearchLimits, generate
from tests.programs import H200, LARGE, PROGRAMS, sizes_of
for name in ("rmsnorm_linear", "lora", "add_rmsnorm", "attention"):
    p = PROGRAMS[name](LARGE)
    found = generate(p, saturate([o.value for o in p.outputs]), H200, sizes_of(p), SearchLimits(families=50))
    print(hashlib.sha256("".join(str(f.graph) for f in found.families).encode()).hexdigest(), dict(found.dropped))
"""


def test_every_process_lists_the_same_families_in_the_same_order() -> None:
    """Sets of strings are iterated in another order in every process, unless something else decides."""

    def listed(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", HASHES], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    first = listed("1")
    assert len(first.splitlines()) == 4
    assert listed("2") == first


def test_limits_are_counted() -> None:
    limits = SearchLimits(PlanLimits(stored=1, cut_sets=2), families=3)
    found = search(rmsnorm_linear(LARGE), limits)
    assert len(found.families) == 3
    assert found.dropped["deferred: sets of stored tensors beyond the effort"] > 0
    assert found.dropped["deferred: families beyond the effort"] > 0


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


def test_attention_can_store_its_scores_and_not_its_unnormalised_weights() -> None:
    found = search(attention({**LARGE, "n": 128, "m": 64}))
    family = find(found, lambda f: len(f.graph.kernels) == 2)
    assert [str(a) for a in family.graph.kernels[0].stores[0].tensor.axes] == ["m", "j"]
    assert not any(n.op is Op.EXP for n in walk(s.value for s in family.graph.kernels[0].stores))


# ------------------------------------------------------------------------------------- unusual programs

m, k, n = Axis("m", 6), Axis("k", 5), Axis("n", 4)
x, y, w = tensor("x", m, k, dtype=DType.FP32), tensor("y", m, k, dtype=DType.FP32), tensor("W", k, n, dtype=DType.FP32)
ROW = tensor("row", m, dtype=DType.FP32)


def agrees(p: Program, extents: Mapping[str, int] | None = None) -> Search:
    """The best families, as equations and as schedules with tiles of 2, compute the program."""
    found = search(p, SearchLimits(families=60))
    assert found.families, found.dropped
    sizes = {a.name: a.extent for a in p.axes if isinstance(a.extent, int)} | dict(extents or {})
    random = np.random.default_rng(0)
    data = {t.name: random.uniform(0.2, 1.0, tuple(sizes[a.name] for a in t.named_axes)) for t in p.inputs}
    expected = evaluate_program(p, data)
    for family in found.families:
        memory = dict(data)
        for schedule in family.schedules:
            memory |= execute(schedule, memory, sizes, dict.fromkeys(sizes, 2))
        got = evaluate_sgraph(family.graph, data)
        for name, wanted in expected.items():
            np.testing.assert_allclose(memory[name], wanted, rtol=1e-9)
            np.testing.assert_allclose(got[name], wanted, rtol=1e-9)
    return found


UNUSUAL: Mapping[str, Program] = {
    "a number": program("p", (x,), (tensor("out"), sum_over((m, k), x.read()))),
    "one axis": program("p", (ROW,), (tensor("out", m), exp(ROW.read()) * recip(sum_over(m, exp(ROW.read()))))),
    "a constant": program("p", (x,), (tensor("out"), const(3)), (tensor("twice", m, k), x.read() * 2)),
    "an input": program("p", (x,), (tensor("out", m, k), x.read()), (tensor("s", m), sum_over(k, x.read()))),
    "equal outputs": program(
        "p",
        (x, y),
        (tensor("s", m), sum_over(k, x.read() * y.read())),
        (tensor("t", m), sum_over(k, x.read() * y.read())),
        (tensor("u", m, k), x.read() * sum_over(k, x.read() * y.read())),
    ),
    "an unused input": program("p", (x, y), (tensor("out", m), sum_over(k, x.read()))),
    "a sum over an axis that nothing has": program("p", (x,), (tensor("out", m), sum_over((k, n), x.read()))),
    "three summed axes": program(
        "p",
        (tensor("q", m, k, n, Axis("h", 3)), tensor("r", k, n, Axis("h", 3))),
        (
            tensor("out", m),
            sum_over(
                (k, n, Axis("h", 3)),
                tensor("q", m, k, n, Axis("h", 3)).read() * tensor("r", k, n, Axis("h", 3)).read(),
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_programs_are_computed(name: str) -> None:
    agrees(UNUSUAL[name])


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("name", ["softmax", "rmsnorm_linear", "lora"])
def test_axes_of_extent_zero_and_one_are_searched(name: str, size: int) -> None:
    for axis in "mkn":
        assert search(PROGRAMS[name]({**SMALL, axis: size}), SearchLimits(PlanLimits(stored=1))).families


def test_equal_outputs_are_read_from_the_one_that_was_written() -> None:
    for family in search(UNUSUAL["equal outputs"]).families:
        written: set[str] = {"x", "y"}
        for kernel in family.graph.kernels:
            assert set(kernel.reads) <= written
            written |= {s.tensor.name for s in kernel.stores}


@pytest.mark.parametrize(
    "limits",
    [
        SearchLimits(families=5),
        SearchLimits(plan_count=3),
        SearchLimits(per_plan=1),
        SearchLimits(PlanLimits(cut_sets=2)),
        SearchLimits(PlanLimits(per_cut_set=1)),
    ],
    ids=["families", "plans", "per plan", "sets", "per set"],
)
@pytest.mark.parametrize("name", ["rmsnorm_linear", "lora"])
def test_no_family_that_was_deferred_has_a_bound_below_the_one_that_is_told(name: str, limits: SearchLimits) -> None:
    every, few = search(PROGRAMS[name](LARGE)), search(PROGRAMS[name](LARGE), limits)
    assert every.next_bound_s is None
    listed = {f.graph for f in few.families}
    left = [f.bound_s for f in every.families if f.graph not in listed]
    if left:
        assert few.next_bound_s is not None
        assert few.next_bound_s <= min(left) * (1 + 1e-9)
    assert bool(left) <= any(reason.startswith("deferred") for reason in few.dropped)


def test_declaring_constants_never_costs_time() -> None:
    for name, weights in (("rmsnorm_linear", ("g", "W")), ("lora", ("W", "A", "B")), ("attention", ("k", "v"))):
        p = PROGRAMS[name](LARGE)
        assert search(declared_constant(p, *weights)).families[0].estimate_s <= search(p).families[0].estimate_s


def test_a_stored_tensor_is_read_under_two_sets_of_axes() -> None:
    other = m.renamed(1)
    normed = x.read() * rms(x.read(), k)
    p = program("gram", (x,), (tensor("out", m, other), call("silu", sum_over(k, normed * rename(normed, {m: other})))))
    found = agrees(p)
    family = find(found, lambda f: len(f.graph.kernels) == 2 and "x" not in f.graph.kernels[1].reads)
    (stored,) = family.graph.intermediates
    assert len({leaf.axes for leaf in leaves(s.value for s in family.graph.kernels[1].stores)}) == 2
    assert {leaf.name for leaf in leaves(s.value for s in family.graph.kernels[1].stores)} == {stored.name}


def test_an_intermediate_never_takes_the_name_of_a_tensor_of_the_program() -> None:
    names = [f"t{i}" for i in range(40)]
    inputs = [tensor(name, m, k, dtype=DType.FP32) for name in names]
    value = sum_over(k, inputs[0].read() * rms(inputs[1].read(), k))
    found = agrees(program("p", tuple(inputs), (tensor("out", m), call("silu", value))))
    stored = {t.name for f in found.families for t in f.graph.intermediates}
    assert stored
    assert stored.isdisjoint(names)


def test_intermediates_are_never_narrower_than_float64_inputs() -> None:
    p = PROGRAMS["rmsnorm_linear"](LARGE)
    wide = tuple(dataclasses.replace(t, dtype=DType.FP64) for t in p.inputs)
    found = search(dataclasses.replace(p, inputs=wide))
    assert {t.dtype for f in found.families for t in f.graph.intermediates} == {DType.FP64}


def test_many_outputs_are_grouped_within_a_limit_that_is_counted() -> None:
    outputs = tuple((tensor(f"out{i}", m), sum_over(k, call(f, x.read()))) for i, f in enumerate(["silu", "tanh"] * 4))
    found = search(program("p", (x,), *outputs), SearchLimits(PlanLimits(stored=0, groupings=5), families=20))
    assert {len(f.graph.kernels) for f in found.families} >= {1}
    assert found.dropped["limit: groupings of outputs"] == 4140 - 5


# ------------------------------------------------------------------------------------------------- folds


def declared_constant(p: Program, *names: str) -> Program:
    inputs = (dataclasses.replace(t, constant=t.name in names) for t in p.inputs)
    return dataclasses.replace(p, inputs=tuple(inputs))


@pytest.mark.parametrize(("name", "weights"), [("rmsnorm_linear", ("g", "W")), ("lora", ("A", "B"))])
def test_folds_read_constants_alone_cost_nothing_and_compute_the_program(name: str, weights: tuple[str, ...]) -> None:
    small = dataclasses.replace(PROGRAMS[name](SMALL))
    folded = [f for f in agrees(declared_constant(small, *weights)).families if f.graph.folded]
    assert folded
    for family in folded:
        constant = set(weights)
        for kernel in family.graph.kernels:
            if kernel.fold:
                assert set(kernel.reads) <= constant
                constant |= {s.tensor.name for s in kernel.stores}
        called = [k for k in family.graph.kernels if not k.fold]
        assert launches(family.graph) == sum(2 if k.with_role(Role.SPLIT) else 1 for k in called)
        assert any(set(k.reads) & constant - set(weights) for k in called), "what is folded is read"
        assert python_round_trip(family.graph) == family.graph


def python_round_trip(graph: SGraph) -> object:
    return read(python(graph))


def test_a_folded_gain_beats_multiplying_at_every_call_and_a_fold_is_read_in_full() -> None:
    p = declared_constant(rmsnorm_linear(LARGE), "g", "W")
    found = search(p)
    family = find(found, lambda f: bool(f.graph.folded) and launches(f.graph) == 1)
    read_bytes = sum(t.largest_bytes() for t in (*p.inputs[:1], *family.graph.folded, p.outputs[0].tensor))
    assert work_bound(family.graph, H200, sizes_of(p)) == pytest.approx(read_bytes / H200.dram_bytes_per_s)
    assert not any(f.graph.folded for f in search(rmsnorm_linear(LARGE)).families), "nothing is declared constant"


# ------------------------------------------------------------------------------------------------ bounds


def two_kernels(reads_again: Tensor, stored: Tensor) -> SGraph:
    out = tensor("out", *reads_again.named_axes)
    value = reads_again.read()
    p = program("p", (reads_again,), (out, value))
    first = Kernel("k0", (Store(stored, value, value),))
    return SGraph(p, (first, Kernel("k1", (Store(out, value + stored.read(), value),))))


@pytest.mark.parametrize(("rows", "kept"), [(1 << 10, True), (1 << 15, False)])
def test_a_second_read_may_find_as_much_as_the_cache_holds(rows: int, kept: bool) -> None:
    axes = (Axis("m", rows), Axis("k", 4096))
    given, stored = tensor("x", *axes), tensor("t", *axes)
    graph = two_kernels(given, stored)
    size = given.largest_bytes()
    beyond = 0 if kept else size - H200.l2_bytes
    assert kept == (size <= H200.l2_bytes)
    # Read x, store t, read x and t again, write out.
    bytes_moved = (size + beyond) + (2 * beyond + size)
    assert work_bound(graph, H200, {}) == pytest.approx(bytes_moved / H200.dram_bytes_per_s)


def test_an_output_that_is_read_again_is_charged_once() -> None:
    axes = (Axis("m", 1024), Axis("k", 4096))
    given, first = tensor("x", *axes), tensor("h", *axes)
    out = tensor("out", *axes)
    p = program("p", (given,), (first, given.read()), (out, given.read()))
    kernels = (
        Kernel("k0", (Store(first, given.read(), given.read()),)),
        Kernel("k1", (Store(out, first.read(), given.read()),)),
    )
    assert work_bound(SGraph(p, kernels), H200, {}) == pytest.approx(3 * given.largest_bytes() / H200.dram_bytes_per_s)


def test_a_chain_of_sums_and_cancelled_exponentials_are_not_counted_twice() -> None:
    big = tensor("x", Axis("m", 1 << 12), Axis("k", 1 << 12), Axis("n", 1 << 4), dtype=DType.BOOL)
    slow = dataclasses.replace(H200, pointwise_flops_per_s=1e9)
    value = sum_over(big.named_axes, big.read())
    p = program("p", (big,), (tensor("out"), value))
    graph = SGraph(p, (Kernel("k0", (Store(p.outputs[0].tensor, value, value),)),))
    assert work_bound(graph, slow, {}) == pytest.approx((1 << 28) / 1e9)


def test_fp32_dots_are_bounded_by_the_rate_of_tf32() -> None:
    wide = Axis("m", 8192), Axis("k", 8192), Axis("n", 8192)
    a, b = tensor("a", wide[0], wide[1], dtype=DType.FP32), tensor("b", wide[1], wide[2], dtype=DType.FP32)
    value = sum_over(wide[1], a.read() * b.read())
    p = program("p", (a, b), (tensor("out", wide[0], wide[2]), value))
    graph = SGraph(p, (Kernel("k0", (Store(p.outputs[0].tensor, value, value),)),))
    assert work_bound(graph, H200, {}) == pytest.approx(2 * 8192**3 / (989e12 / 2))


def test_an_input_that_is_never_read_is_not_compulsory() -> None:
    p = UNUSUAL["an unused input"]
    family = search(p).families[0]
    alone = Program(p.name, p.inputs[:1], p.outputs)
    assert speed_of_light(family.graph, H200, sizes_of(p)) == pytest.approx(
        speed_of_light(SGraph(alone, family.graph.kernels), H200, sizes_of(alone))
    )


# ------------------------------------------------------------------------------------------------- order


def test_a_limit_on_families_keeps_the_best() -> None:
    every, few = search(lora(LARGE)), search(lora(LARGE), SearchLimits(families=10))
    assert [f.estimate_s for f in few.families] == [f.estimate_s for f in every.families[:10]]
    assert few.dropped["deferred: families beyond the effort"] > 0
    assert few.dropped["deferred: plans that no listed family need fear"] > 0
    assert few.next_bound_s is not None
    listed = {f.graph for f in few.families}
    assert all(f.bound_s >= few.next_bound_s for f in every.families if f.graph not in listed)
    assert every.next_bound_s is None


def test_estimates_never_decrease_down_the_list() -> None:
    found = search(lora(LARGE))
    assert all(a.estimate_s <= b.estimate_s for a, b in itertools.pairwise(found.families))


# ------------------------------------------------------------------------------------------ metamorphic


def shapes(found: Search) -> list[str]:
    """The families without names: kernels as roles, dimensions stored and numbers of sums."""

    def shape(kernel: Kernel) -> tuple[object, ...]:
        values = [s.value for s in kernel.stores]
        kinds = sorted(node.op.value for node in walk(values) if node.op is not Op.MUL)
        sums = sorted(len(node.free) for node in walk(values) if node.op is Op.SUM)
        counts = sorted(r.value for _, r in kernel.roles)
        return kinds, sums, counts, sorted(len(s.tensor.axes) for s in kernel.stores), len(kernel.reads)

    return sorted(str(sorted(map(str, map(shape, f.graph.kernels)))) for f in found.families)


def renamed(p: Program, names: Mapping[str, str], tensors: Mapping[str, str], extents: Mapping[str, int]) -> Program:
    """The program with axes and tensors under other names and extents."""

    def axis(a: Axis) -> Axis:
        return Axis(names.get(a.name, a.name), extents.get(a.name, a.extent), a.copy)

    def moved(t: Tensor) -> Tensor:
        return dataclasses.replace(t, name=tensors.get(t.name, t.name), axes=tuple(a and axis(a) for a in t.axes))

    def value(e: Expr) -> Expr:
        done: dict[Expr, Expr] = {}
        for node in walk([e]):
            attr = node.attr
            if isinstance(attr, Read):
                attr = Read(tensors.get(attr.tensor, attr.tensor), tuple(map(axis, attr.axes)), attr.finite)
            elif isinstance(attr, Axis):
                attr = axis(attr)
            done[node] = make(node.op, tuple(done[a] for a in node.args), attr)
        return done[e]

    outputs = tuple(Output(moved(o.tensor), value(o.value)) for o in p.outputs)
    return Program(p.name, tuple(map(moved, p.inputs)), outputs)


def mirrored(e: Expr) -> Expr:
    """The expression with the operands of every sum and product exchanged."""
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        args = tuple(done[a] for a in node.args)
        done[node] = make(node.op, args[::-1] if node.op in {Op.ADD, Op.MUL} else args, node.attr)
    return done[e]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_families_under_other_names_orders_and_extents(name: str) -> None:
    p = PROGRAMS[name](LARGE)
    plain = search(p)
    expected = shapes(plain)
    names = {"m": "z", "k": "b", "n": "a", "j": "q0", "d": "c"}
    other = search(renamed(p, names, {"x": "zz", "W": "a_1", "g": "t3"}, {}))
    assert shapes(other) == expected
    assert other.dropped == plain.dropped
    assert shapes(search(renamed(p, {}, {}, {"m": 17, "k": 4104}))) == expected
    swapped = tuple(Output(o.tensor, mirrored(o.value)) for o in p.outputs)
    assert shapes(search(dataclasses.replace(p, outputs=swapped))) == expected
    turned = tuple(dataclasses.replace(t, axes=t.axes[::-1]) for t in p.inputs)
    read = {t.read(): u.read() for t, u in zip(p.inputs, turned, strict=True)}
    outputs = tuple(Output(o.tensor, rebuild(o.value, read)) for o in p.outputs)
    assert shapes(search(dataclasses.replace(p, inputs=turned, outputs=outputs))) == expected
    unused = (*p.inputs, tensor("unused", Axis("u", 8)))
    assert shapes(search(dataclasses.replace(p, inputs=unused))) == expected
