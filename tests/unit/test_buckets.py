"""Buckets of symbolic extents: which there are, which one a call takes, and what each is tuned to."""

from __future__ import annotations

from dataclasses import replace

import torch

from autotune.buckets import Buckets, bucket_sizes, extents, modelled_buckets
from autotune.parameters import default_parameters
from autotune.targets import find_target
from sgraph.axis import Axis, Size
from sgraph.expr import sum_over
from sgraph.generate import Family
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.program import Program
from sgraph.stages import derive
from tests.programs import program, tensor

M, K, N = Axis("m", Size("M", 1, 4096)), Axis("k", 1024), Axis("n", 512)
ROLES = {"m": Role.GRID, "n": Role.GRID, "k": Role.LOOP}


def linear() -> Program:
    x, w = tensor("x", M, K), tensor("w", K, N)
    return program("linear", (x, w), (tensor("out", M, N), sum_over(K, x.read() * w.read())))


def family(p: Program) -> Family:
    kernel = Kernel(
        "k0", tuple(Store(o.tensor, o.value, o.value) for o in p.outputs), tuple((a, ROLES[a.name]) for a in p.axes)
    )
    return Family(SGraph(p, (kernel,)), (derive(kernel),), 1e-6, 1e-6)


def test_a_call_takes_the_nearest_bucket() -> None:
    p = linear()
    base = default_parameters(family(p).graph, {"m": 16, "k": 1024, "n": 512})
    wide = replace(base, kernels=(replace(base.kernels[0], warps=8),))
    buckets = Buckets(p, (((("m", 1),), base), ((("m", 2048),), wide)))
    seen: list[int] = []

    def launch(x: torch.Tensor, w: torch.Tensor, *, config: dict[str, dict[str, int]]) -> None:
        seen.append(config["kernel_0"]["warps"])

    call = buckets.wrap(launch)
    for m in (1, 3, 40, 50, 4096):
        x, w = torch.empty(m, 1024, device="meta"), torch.empty(1024, 512, device="meta")
        assert extents(p, (x, w)) == {"m": m}
        call(x, w)
    assert seen == [4, 4, 4, 8, 8]


def test_buckets_step_through_the_range_from_the_example() -> None:
    p = linear()
    sizes = bucket_sizes(p, {M: 16, K: 1024, N: 512})
    assert [s[M] for s in sizes] == [16, 8, 1, 64, 512, 4096]
    assert all(s[K] == 1024 for s in sizes)
    fixed = program("fixed", (tensor("x", K),), (tensor("out", K), tensor("x", K).read()))
    assert bucket_sizes(fixed, {K: 1024}) == []


def test_divisors_are_kept() -> None:
    axis = Axis("m", Size("M", 16, 200, 16))
    p = program("scale", (tensor("x", axis),), (tensor("out", axis), tensor("x", axis).read()))
    assert all(s[axis] % 16 == 0 for s in bucket_sizes(p, {axis: 32}))


def test_every_bucket_is_tuned_for_its_extents() -> None:
    p = linear()
    made = family(p)
    example = default_parameters(made.graph, {"m": 16, "k": 1024, "n": 512})
    buckets = modelled_buckets(made, find_target("h200"), p, example, {M: 16, K: 1024, N: 512}, 40, 0)
    assert buckets is not None
    chosen = {dict(b)["m"]: q for b, q in buckets.entries}
    assert chosen[16] == example
    assert dict(chosen[4096].kernels[0].tiles)["m"] > dict(chosen[1].kernels[0].tiles)["m"]
