"""Small twins: ragged, affordable, and only at extents where the function still is its program."""

from __future__ import annotations

import math

import torch

from autotune.twin import MOST_STEPS, TILE, sizes_to_keep, small_config, small_sizes
from prism.frontend import capture
from sgraph.axis import Axis, Size
from sgraph.expr import leaf, sum_over
from tests.unit.test_lower import GRID, LOOP, family, kernel, out, rmsnorm_linear
from verify.resizing import computes

T = torch.Tensor


def scaled(x: T) -> T:
    return torch.softmax(x * x.shape[-1] ** -0.5, -1)


def test_every_axis_is_ragged_and_none_stands_in_for_another() -> None:
    graph = rmsnorm_linear(LOOP).graph
    sizes = small_sizes({a: 4096 if isinstance(a.extent, int) else 16 for a in graph.program.axes}, graph)
    assert len(set(sizes.values())) == len(sizes)
    assert all(n > TILE and n % TILE for n in sizes.values())


def test_axes_held_as_one_index_are_short() -> None:
    m, h, k, n = Axis("m", 64), Axis("h", 32), Axis("k", 128), Axis("n", 256)
    x, w = leaf("x", (h, m, k)), leaf("w", (h, k, n))
    product = kernel("y", {out("y", h, m, n): sum_over(k, x * w)}, {h: GRID, m: GRID, n: GRID, k: LOOP})
    sizes = small_sizes({m: 64, h: 32, k: 128, n: 256}, family([x, w], product))
    assert sizes["h"] in {2, 3}
    assert min(sizes["m"], sizes["k"], sizes["n"]) > TILE


def test_a_run_is_affordable() -> None:
    b, h, n, d = Axis("b", Size("B", 1, 64)), Axis("h", 32), Axis("l", Size("L", 1, 8192)), Axis("d", 128)
    q, keys = leaf("q", (b, h, d)), leaf("keys", (b, h, n, d))
    scores = kernel("y", {out("y", b, h, n): sum_over(d, q * keys)}, {b: GRID, h: GRID, n: GRID, d: LOOP})
    graph = family([q, keys], scores)
    real = {b: 64, h: 32, n: 8192, d: 128}
    sizes = small_sizes(real, graph)
    assert small_sizes(real)["h"] > 3, "many steps without knowing the family"
    config = small_config(graph, sizes)["kernel_0"]
    assert math.prod(-(-sizes[n] // config[f"tile_{n}"]) for n in sizes) <= MOST_STEPS


def test_extents_keep_what_is_declared() -> None:
    a, b, c = Axis("a", Size("A", 8, 64, 8)), Axis("b", Size("A", 8, 64, 8)), Axis("c", 5)
    sizes = small_sizes({a: 64, b: 64, c: 5})
    assert sizes["a"] == sizes["b"], "one symbol"
    assert sizes["a"] % 8 == 0
    assert sizes["c"] == 5, "no longer than it is"


def test_a_function_that_depends_on_an_extent_is_noticed() -> None:
    program = capture(scaled, [torch.empty(4, 128)])
    rows, columns = (a for a in program.inputs[0].axes if a is not None)
    assert computes(program, scaled)
    assert computes(program, scaled, {rows.name: 3, columns.name: 128})
    assert not computes(program, scaled, {rows.name: 3, columns.name: 18})


def test_kept_axes_begin_with_none_and_end_with_all() -> None:
    m, k, n = Axis("m", Size("M", 1, 64)), Axis("k", 64), Axis("n", 128)
    found = list(sizes_to_keep({m: 8, k: 64, n: 128}))
    assert found == [(), (k,), (n,), (k, n)]
    assert small_sizes({m: 8, k: 64, n: 128}, kept=(k,))["k"] == 64
