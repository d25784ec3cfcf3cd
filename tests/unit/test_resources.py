"""Parameters and resource formulas against figures measured with the compiler."""

from __future__ import annotations

import json

import pytest

from autotune.layout import layout_of
from autotune.parameters import KernelParameters, Parameters, candidates, default_parameters, padded
from autotune.resources import registers_per_thread, shared_memory_bytes, violated
from autotune.targets import TARGETS
from sgraph.axis import Axis, Size
from sgraph.expr import Expr, call, exp, leaf, mean_over, recip, rsqrt, sum_over
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.program import DType, Output, Program, Tensor
from sgraph.stages import derive

GRID, LOOP, WHOLE, SPLIT = Role.GRID, Role.LOOP, Role.WHOLE, Role.SPLIT
M, K, N = Axis("m", Size("M", 1, 4096)), Axis("k", 4096), Axis("n", 4096)
x, g, w, up = leaf("x", (M, K)), leaf("g", (K,)), leaf("W", (K, N)), leaf("U", (K, N))
SIZES = {"m": 2048, "k": 4096, "n": 4096}
H200 = TARGETS["h200"]


def family(value: Expr, axes: tuple[Axis, ...], roles: dict[Axis, Role], *inputs: Expr) -> SGraph:
    result = Tensor("y", axes, DType.BF16)
    kernel = Kernel("kernel", (Store(result, value, value),), tuple(sorted(roles.items())))
    read = tuple(Tensor(i.name, i.axes, DType.BF16) for i in inputs)
    return SGraph(Program("program", read, (Output(result, value),)), (kernel,))


def rmsnorm_linear(role: Role) -> SGraph:
    value = sum_over(K, x * g * w) * rsqrt(mean_over(K, x * x))
    return family(value, (M, N), {M: GRID, N: GRID, K: role}, x, g, w)


GATED = family(call("silu", sum_over(K, x * w)) * sum_over(K, x * up), (M, N), {M: GRID, N: GRID, K: LOOP}, x, w, up)
SOFTMAX = family(exp(x) * recip(sum_over(K, exp(x))), (M, K), {M: GRID, K: WHOLE}, x)


def tiles(m: int, n: int, k: int, *, warps: int = 4, stages: int = 3, split: int = 1) -> KernelParameters:
    return KernelParameters((("k", k), ("m", m), ("n", n)), split, warps, stages)


def shared(graph: SGraph, parameters: KernelParameters) -> int:
    return shared_memory_bytes(graph, derive(graph.kernels[0]), parameters, SIZES, H200)


def verdict(graph: SGraph, parameters: KernelParameters) -> str | None:
    return violated(graph, derive(graph.kernels[0]), parameters, SIZES, H200)


def test_shared_memory_of_a_pipelined_loop_is_what_the_compiler_takes() -> None:
    # Measured for sm_90: 31104 bytes at 16x64x64 with 4 stages; 147456 for the gated MLP at 128x128x64, 8 warps.
    assert shared(rmsnorm_linear(LOOP), tiles(16, 64, 64, stages=4)) == 3 * (16 * 64 + 64 * 64 + 64) * 2 == 31104
    assert shared(GATED, tiles(128, 128, 64, warps=8)) == 3 * (128 + 128 + 128) * 64 * 2 == 147456
    # Fewer rows than the wide instruction needs, or older devices: one buffer less.
    assert shared(GATED, tiles(16, 64, 64)) == 2 * (16 + 64 + 64) * 64 * 2


def test_shared_memory_counts_resident_operands_and_no_resident_rows() -> None:
    resident = family(sum_over(K, x * w), (M, N), {M: GRID, N: GRID, K: WHOLE}, x, w)
    parameters = KernelParameters((("m", 16), ("n", 64)))
    assert shared(resident, parameters) == (16 + 64) * 4096 * 2  # 655360 bytes: what the compiler asks for
    assert verdict(resident, parameters) == "shared memory 640 KiB > 227 KiB"
    assert shared(SOFTMAX, KernelParameters((("m", 1),))) == 0


def test_registers_grow_with_accumulators_and_shrink_with_warps() -> None:
    graph = rmsnorm_linear(LOOP)
    schedule = derive(graph.kernels[0])

    def registers(parameters: KernelParameters) -> int:
        return registers_per_thread(graph, schedule, parameters, SIZES, H200)

    assert registers(tiles(16, 64, 64)) < registers(tiles(64, 128, 64)) < registers(tiles(128, 256, 64))
    assert registers(tiles(128, 256, 64, warps=16)) < registers(tiles(128, 256, 64, warps=8))
    # The accumulator alone is 128 x 256 / 128 = 256 registers of a thread.
    assert registers(tiles(128, 256, 64)) > 32 + 256


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (tiles(16, 64, 64), None),
        (tiles(128, 128, 64, warps=8), None),
        (tiles(256, 256, 64, warps=4), "registers: estimate"),
        (tiles(16, 256, 256, stages=3), "shared memory 273 KiB > 227 KiB"),
        (tiles(16, 48, 64), "tile 48 of axis n is not a power of two"),
        (tiles(8, 64, 64), "tile 8 of axis m < 16: it takes part in a dot product"),
        (tiles(16, 64, 64, warps=6), "warps 6: not a power of two up to 32"),
        (tiles(16, 64, 64, warps=64), "warps 64: not a power of two up to 32"),
        (tiles(16, 64, 64, stages=0), "stages 0, group 1: both must be at least 1"),
        (tiles(16, 64, 64, split=2), "split 2: not from 1 to 1"),
        (KernelParameters((("m", 16), ("n", 64))), "axis k has no tile"),
    ],
)
def test_violated_names_the_constraint(parameters: KernelParameters, message: str | None) -> None:
    found = verdict(rmsnorm_linear(LOOP), parameters)
    if message is None:
        assert found is None
    else:
        assert found is not None and found.startswith(message)


def test_violated_at_tiles_beyond_what_triton_holds() -> None:
    assert verdict(SOFTMAX, KernelParameters((("m", 512),))) == "tile of 2097152 elements > 1048576"
    assert violated(SOFTMAX, derive(SOFTMAX.kernels[0]), KernelParameters((("m", 512),)), SIZES, TARGETS["cpu"]) is None


def test_configuration_round_trip() -> None:
    parameters = Parameters((tiles(16, 64, 32, split=4), KernelParameters((("h#1", 8),), warps=2, group=8)))
    config = json.loads(json.dumps(parameters.to_config()))
    assert Parameters.from_config(config) == parameters
    assert config["kernel_1"] == {"tile_h#1": 8, "split": 1, "warps": 2, "stages": 3, "group": 8}


@pytest.mark.parametrize("graph", [rmsnorm_linear(LOOP), rmsnorm_linear(SPLIT), GATED, SOFTMAX])
@pytest.mark.parametrize("rows", [1, 16, 2048])
def test_defaults_fit_and_lie_in_the_space(graph: SGraph, rows: int) -> None:
    sizes = {**SIZES, "m": rows}
    kernel = graph.kernels[0]
    (chosen,) = default_parameters(graph, sizes).kernels
    assert violated(graph, derive(kernel), chosen, sizes, H200) is None
    space = candidates(kernel, sizes, H200)
    assert {k: v for k, v in chosen.to_config().items() if v not in space[k]} in ({}, {"stages": 3})
    assert (chosen.split > 1) == (bool(kernel.with_role(SPLIT)) and rows < 2048)


def test_candidates_are_powers_of_two_within_reach() -> None:
    sizes = {**SIZES, "m": 3, "n": 100}
    kernel = rmsnorm_linear(SPLIT).kernels[0]
    space = candidates(kernel, sizes, H200)
    assert space["tile_m"] == (16,) and space["tile_n"] == (16, 32, 64, 128)
    assert space["split"] == (1, 2, 4, 8, 16, 32, 64) and space["group"] == (1, 4, 8)
    assert all(n & (n - 1) == 0 for name in space if name != "stages" for n in space[name])
    assert candidates(SOFTMAX.kernels[0], sizes, H200)["stages"] == (1,)


def test_axes_that_both_operands_of_a_dot_share_are_scalars() -> None:
    b, d, s = Axis("b", 8), Axis("d", 64), Axis("s", 512)
    value = sum_over(d, leaf("q", (b, M, d)) * leaf("k", (b, s, d)))
    graph = family(value, (b, M, s), {b: GRID, M: GRID, s: GRID, d: WHOLE}, leaf("q", (b, M, d)), leaf("k", (b, s, d)))
    layout = layout_of(graph.kernels[0])
    assert layout.scalar == {b} and [a.name for a in layout.order] == ["m", "d", "s"]
    sizes = {"b": 8, "m": 64, "s": 512, "d": 64}
    (chosen,) = default_parameters(graph, sizes).kernels
    assert chosen.tiles == (("b", 1), ("m", 64), ("s", 64))
    wrong = KernelParameters((("b", 2), ("m", 64), ("s", 64)))
    found = violated(graph, derive(graph.kernels[0]), wrong, sizes, H200)
    assert found == "tile 2 of axis b != 1: it is held as one index"


def test_padded_is_the_next_power_of_two() -> None:
    assert [padded(n) for n in (0, 1, 2, 3, 64, 65)] == [1, 1, 2, 4, 64, 128]
