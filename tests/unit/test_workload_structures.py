"""Per workload the programs that are expected to be found, named by their structure: enumerated and proved.

The plans are those of effort default; every role assignment of them is listed, the slow ones too.

Nothing here looks at text or at names that the generator makes up: a family is recognised by its kernels, by what
their loops accumulate and by what is left to their epilogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from autotune.targets import find_target
from benchmarks.workloads import WORKLOADS
from prism.effort import effort
from prism.frontend import capture
from prism.pipeline import concrete_sizes
from rewrites.saturate import saturate
from rewrites.seeds import find_seeds
from sgraph.bounds import is_dot, launches
from sgraph.expr import Expr, Op, factors, leaves, reduction, walk
from sgraph.generate import Family, Search, generate
from sgraph.ir import Kernel, Role
from sgraph.schedule import Accumulate, Loop, Merge, Phase, Statement
from verify.equivalence import prove
from verify.verdict import Status

SLOW = {"qknorm_attention", "paper_qk_norm_attention", "entropy_chain", "softmax_chain", "paper_rmsnorm_mlp"}
"""Workloads of which a search takes a second or more."""


def each(*names: str) -> list[ParameterSet]:
    """Workloads as parameters, the slow ones marked."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [], id=name) for name in names]


@cache
def searched(name: str, point: int = 0, *constant: str) -> Search:
    """A workload's search at effort default, no family deferred."""
    workload = WORKLOADS[name]
    inputs = workload.inputs(workload.points[point], device="meta")
    return search_of(workload.function, inputs, constant)


def search_of(function: Callable[..., object], inputs: Sequence[Tensor], constant: Sequence[str] = ()) -> Search:
    spent = effort("default")
    captured = capture(function, tuple(inputs), constant=frozenset(constant))
    seeds = find_seeds([o.value for o in captured.outputs], limit=spent.seeds)
    table = saturate(seeds.values, seeds.pairs)
    limits = replace(spent.limits, families=4000, per_plan=400)
    return generate(captured, table, find_target("h200"), concrete_sizes(captured, inputs), limits)


def meta(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.empty(s, dtype=torch.bfloat16, device="meta") for s in shapes)


def found(listed: Search, wanted: Callable[[Family], bool]) -> Family:
    """The first such family; it is proved."""
    for family in listed.families:
        if wanted(family):
            verdict = prove(family.graph, family.schedules)
            assert verdict.status is Status.PROVED, verdict
            return family
    pytest.fail(f"no such family among {len(listed.families)}: {dict(listed.dropped)}")


# --------------------------------------------------------------------------------------------- structure


def statements(body: Sequence[Statement]) -> Iterator[Statement]:
    for statement in body:
        yield statement
        if isinstance(statement, Loop):
            yield from statements(statement.body)


def loops(phase: Phase, axis: str) -> list[Loop]:
    """The loops over an axis: one per pass."""
    return [s for s in statements(phase.body) if isinstance(s, Loop) and s.axis.name == axis]


def accumulated(loop: Loop) -> list[Expr]:
    """What one loop accumulates itself."""
    return [v for s in loop.body if isinstance(s, Accumulate) for v in s.state]


def online(loop: Loop) -> list[Accumulate]:
    """Accumulations relative to a running maximum."""
    return [s for s in loop.body if isinstance(s, Accumulate) and s.scale is not None]


def inside(values: Sequence[Expr], *operators: Op) -> bool:
    """Whether an operator is below one of the values."""
    return any(node.op in operators for node in walk(values))


def names(values: Sequence[Expr]) -> set[str]:
    return {x.name for x in leaves(values)}


def axis_of(kernel: Kernel, tensor_names: Sequence[str]) -> str:
    """The only axis that all these tensors have: what a contraction of them runs over."""
    read = [x for x in leaves(s.value for s in kernel.stores) if x.name in tensor_names]
    shared = frozenset.intersection(*(x.free for x in read))
    (axis,) = shared
    return axis.name


def role(kernel: Kernel, axis: str) -> Role:
    return {a.name: r for a, r in kernel.roles}[axis]


def kernels(family: Family) -> list[Kernel]:
    """The kernels that run at every call."""
    return [k for k in family.graph.kernels if not k.fold]


def single(family: Family) -> bool:
    return len(family.graph.kernels) == 1


def main_phase(family: Family, kernel: int = 0) -> Phase:
    return family.schedules[kernel].phases[0]


def dots(values: Sequence[Expr]) -> list[Expr]:
    return [v for v in values if is_dot(v)]


def squares(value: Expr) -> bool:
    """A sum of squares of one tensor."""
    if value.op is not Op.SUM:
        return False
    of = factors(reduction(value)[1])
    return len(of) == 2 and of[0] is of[1]


# ------------------------------------------------------------------------------------------- projections


def fused_norm(family: Family, kernel: int, x: str, weights: set[str]) -> bool:
    """One pass over the contracted axis that accumulates Σx² and the products; the scale is in the epilogue."""
    chosen = family.graph.kernels[kernel]
    if not {x, *weights} <= set(chosen.reads):
        return False
    axis = axis_of(chosen, (x, *weights))
    passes = loops(main_phase(family, kernel), axis)
    if len(passes) != 1:
        return False
    sums = accumulated(passes[0])
    products = dots(sums)
    return (
        {w for v in products for w in names([v]) & weights} == weights
        and len(products) == len(weights)
        and any(squares(v) for v in sums)
        and not inside(products, Op.SQRT, Op.RECIP)
    )


@pytest.mark.parametrize(("name", "weight"), [("rmsnorm_linear", "w"), ("paper_rms_norm", "w")])
@pytest.mark.parametrize("split", [False, True])
def test_the_norm_is_folded_through_the_projection(name: str, weight: str, split: bool) -> None:
    family = found(searched(name, 1), lambda f: single(f) and fused_norm(f, 0, "x", {weight}) and splits(f) == split)
    assert launches(family.graph) == 1 + split
    if split:
        combine = family.schedules[0].phases[1]
        assert len([v for s in combine.body if isinstance(s, Merge) for v in s.values]) == 2


def splits(family: Family) -> bool:
    return any(k.with_role(Role.SPLIT) for k in family.graph.kernels)


@pytest.mark.parametrize("name", ["gated_mlp", "gated_mlp_gelu", "paper_swiglu"])
def test_both_projections_are_one_loop(name: str) -> None:
    def both(family: Family) -> bool:
        if not single(family):
            return False
        passes = loops(main_phase(family), axis_of(family.graph.kernels[0], ("x", "gate", "up")))
        return len(passes) == 1 and [names([v]) for v in accumulated(passes[0])] == [{"x", "gate"}, {"x", "up"}]

    found(searched(name), both)


@pytest.mark.parametrize("name", each("rmsnorm_gated_mlp", "paper_rmsnorm_mlp"))
def test_the_norm_is_folded_through_both_projections(name: str) -> None:
    found(searched(name, 1), lambda f: single(f) and fused_norm(f, 0, "x", {"gate", "up"}))


def test_the_down_projection_is_a_second_kernel() -> None:
    def two(family: Family) -> bool:
        if len(family.graph.kernels) != 2 or not fused_norm(family, 0, "x", {"gate", "up"}):
            return False
        (stored,) = family.graph.intermediates
        return set(family.graph.kernels[1].reads) == {stored.name, "down"}

    found(searched("rmsnorm_mlp"), two)


def test_a_gain_is_folded_into_a_constant_weight() -> None:
    def folded(family: Family) -> bool:
        if len(family.graph.folded) != 1 or len(kernels(family)) != 1:
            return False
        (stored,) = family.graph.folded
        return fused_norm(family, 1, "x", {stored.name}) and set(family.graph.kernels[0].reads) == {"g", "w"}

    family = found(searched("rmsnorm_linear", 1, "g", "w"), folded)
    assert launches(family.graph) == 1 + splits(family)
    assert not any(f.graph.folded for f in searched("rmsnorm_linear", 1).families), "nothing was declared constant"


def test_low_rank_update_in_the_loop_of_the_projection() -> None:
    def one_loop(family: Family) -> bool:
        if not single(family):
            return False
        passes = loops(main_phase(family), axis_of(family.graph.kernels[0], ("x", "w", "a")))
        return len(passes) == 1 and [names([v]) for v in dots(accumulated(passes[0]))] in (
            [{"x", "w"}, {"x", "a"}],
            [{"x", "a"}, {"x", "w"}],
        )

    found(searched("lora", 1), one_loop)


def test_low_rank_product_before_the_projection() -> None:
    def before(family: Family) -> bool:
        return any({"a", "b"} >= set(k.reads) and dots([s.value for s in k.stores]) for k in family.graph.kernels)

    found(searched("lora", 3), before)


def test_low_rank_update_is_merged_into_a_constant_weight() -> None:
    def merged(family: Family) -> bool:
        if len(kernels(family)) != 1:
            return False
        (kernel,) = kernels(family)
        stored = {t.name for t in family.graph.folded}
        return len(stored) == 1 and set(kernel.reads) == {"x", *stored} and len(dots([kernel.stores[0].value])) == 1

    family = found(searched("lora", 2, "w", "a", "b"), merged)
    fold = next(k for k in family.graph.kernels if k.fold)
    assert set(fold.reads) == {"w", "a", "b"}
    assert launches(family.graph) == 1 + splits(family)


# ------------------------------------------------------------------------------------------------- norms


def test_two_outputs_are_one_kernel() -> None:
    found(searched("add_rmsnorm"), lambda f: single(f) and len(f.graph.kernels[0].stores) == 2)


def one_read(family: Family, axis_count: int = 1) -> bool:
    """One kernel that holds its row: nothing is read twice."""
    if not single(family):
        return False
    kernel = family.graph.kernels[0]
    return len(kernel.with_role(Role.WHOLE)) == axis_count and not kernel.with_role(Role.LOOP)


@pytest.mark.parametrize(
    "name",
    each("add_rmsnorm", "softmax", "layernorm", "ngpt_residual", "entropy_chain", "elementwise_chain", "softmax_chain"),
)
def test_a_row_is_read_once(name: str) -> None:
    found(searched(name), one_read)


def test_softmax_online() -> None:
    def two_passes(family: Family) -> bool:
        passes = [s for s in main_phase(family).body if isinstance(s, Loop)]
        return single(family) and len(passes) == 2 and len(online(passes[0])) == 1

    found(searched("softmax", 1), two_passes)


def test_layernorm_moments_in_one_pass() -> None:
    def moments(family: Family) -> bool:
        passes = [s for s in main_phase(family).body if isinstance(s, Loop)]
        return single(family) and len(passes) == 2 and len(accumulated(passes[0])) == 2

    found(searched("layernorm"), moments)


def test_ngpt_by_one_pass_moments() -> None:
    def moments(family: Family) -> bool:
        passes = [s for s in main_phase(family).body if isinstance(s, Loop)]
        return single(family) and len(passes) == 2 and len(accumulated(passes[0])) >= 3

    found(searched("ngpt_residual"), moments)


def layernorm_linear(x: Tensor, g: Tensor, b: Tensor, w: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), g, b, 1e-6) @ w


def test_the_mean_is_folded_out_of_a_projection() -> None:
    """One product of x itself; what depends on the mean is a correction in the epilogue."""

    def folded(family: Family) -> bool:
        for i, kernel in enumerate(family.graph.kernels):
            if not {"x", "w"} <= set(kernel.reads):
                continue
            products = [
                v for loop in main_phase(family, i).body if isinstance(loop, Loop) for v in dots(accumulated(loop))
            ]
            return len(products) == 1 and not inside([*factors(reduction(products[0])[1])], Op.SUM, Op.ADD)
        return False

    found(search_of(layernorm_linear, meta((16, 4096), (4096,), (4096,), (4096, 6144))), folded)


# --------------------------------------------------------------------------------------------- attention


def online_attention(family: Family, *, split: bool = False) -> bool:
    """One kernel: one pass over the keys, numerator and denominator relative to one running maximum."""
    if not single(family) or splits(family) != split:
        return False
    axes = {a.name for x in leaves(s.value for s in family.graph.kernels[0].stores) if x.name == "v" for a in x.free}
    for axis in axes - {a.name for s in family.graph.kernels[0].stores for a in s.tensor.named_axes}:
        passes = loops(main_phase(family), axis)
        if len(passes) == 1 and len(online(passes[0])) == 1:
            return len(online(passes[0])[0].values) == 2
    return False


ATTENTION = (
    "gqa_decode",
    "gqa_decode_16_2",
    "qknorm_attention",
    "causal_attention",
    "masked_attention",
    "paper_attention",
    "paper_qk_norm_attention",
)


@pytest.mark.parametrize("name", each(*ATTENTION))
@pytest.mark.parametrize("split", [False, True])
def test_attention_is_online(name: str, split: bool) -> None:
    family = found(searched(name), lambda f: online_attention(f, split=split))
    if split:
        merges = [s for s in family.schedules[0].phases[1].body if isinstance(s, Merge)]
        assert any(m.scale is not None and len(m.values) == 2 for m in merges)


@pytest.mark.parametrize("name", each("qknorm_attention", "paper_qk_norm_attention"))
def test_norms_of_queries_and_keys_move_behind_their_product(name: str) -> None:
    def behind(family: Family) -> bool:
        values = [s.value for s in family.graph.kernels[0].stores]
        products = [factors(reduction(n)[1]) for n in walk(values) if n.op is Op.SUM]
        gains = {"q", "k", "q_gain", "k_gain"}
        plain = any({"q", "k"} <= {f.name for f in p if f.op is Op.LEAF} and names(p) <= gains for p in products)
        return online_attention(family) and plain

    found(searched(name), behind)


def test_rotated_scores_are_one_kernel() -> None:
    found(searched("rope_scores"), single)


def test_every_workload_has_an_expected_structure() -> None:
    """The table grew: say here what is expected of the new row."""
    covered = {
        *("rmsnorm_linear", "paper_rms_norm", "gated_mlp", "gated_mlp_gelu", "paper_swiglu", "rmsnorm_gated_mlp"),
        *("paper_rmsnorm_mlp", "rmsnorm_mlp", "lora", "add_rmsnorm", "softmax", "layernorm", "ngpt_residual"),
        *("entropy_chain", "elementwise_chain", "softmax_chain", "rope_scores"),
        *ATTENTION,
    }
    assert covered >= set(WORKLOADS)
