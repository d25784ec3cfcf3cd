"""Emitted kernels, run in the interpreter against torch in float64 on ragged and divisible sizes."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch

from autotune.interpreter import interpreted
from autotune.layout import layout_of
from autotune.lower import LoweringLimit, code_of, lower, with_header
from autotune.module import load_source
from autotune.offline import Meta, compile_launch
from autotune.parameters import KernelParameters, Parameters, default_parameters
from sgraph.axis import Axis, Size
from sgraph.expr import (
    Expr,
    Op,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    log,
    make,
    max_over,
    maximum,
    mean_over,
    minimum,
    neg_inf,
    recip,
    rsqrt,
    sqrt,
    sum_over,
    where,
)
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.program import DType, Output, Program, Tensor
from sgraph.stages import derive

GRID, LOOP, WHOLE, SPLIT = Role.GRID, Role.LOOP, Role.WHOLE, Role.SPLIT
BF16, FP32 = DType.BF16, DType.FP32
M, K, N, R = Axis("m", Size("M", 1, 64)), Axis("k", 4096), Axis("n", 4096), Axis("r", 16)
x, g, w, up = leaf("x", (M, K)), leaf("g", (K,)), leaf("W", (K, N)), leaf("U", (K, N))
RAGGED = {"m": 3, "k": 100, "n": 41, "r": 7}
EVEN = {"m": 16, "k": 64, "n": 32, "r": 16}

T = torch.Tensor
Reference = Callable[[T], Any] | Callable[[T, T], Any] | Callable[[T, T, T], Any] | Callable[[T, T, T, T], Any]


@dataclass(frozen=True)
class Case:
    """A family and what it should compute."""

    graph: SGraph
    reference: Reference
    shift: float = 0.0
    """Added to the first input."""

    def expected(self, inputs: Sequence[T]) -> Any:
        """The result in float64."""
        return cast(Callable[..., Any], self.reference)(*(i.double() for i in inputs))


def kernel(name: str, stores: Mapping[Tensor, Expr], roles: Mapping[Axis, Role]) -> Kernel:
    found = tuple(Store(tensor, value, value) for tensor, value in stores.items())
    return Kernel(name, found, tuple(sorted(roles.items())))


def family(inputs: Sequence[Expr], *kernels: Kernel, outputs: Sequence[str] = ("y",), dtype: DType = FP32) -> SGraph:
    """Kernels over inputs of one element type."""
    tensors = tuple(Tensor(i.name, i.axes, dtype, finite=i.finite) for i in inputs)
    stored = {s.tensor.name: s for k in kernels for s in k.stores}
    results = tuple(Output(stored[o].tensor, stored[o].value) for o in outputs)
    return SGraph(Program(kernels[-1].name, tensors, results), kernels)


def out(name: str, *axes: Axis) -> Tensor:
    return Tensor(name, axes, FP32)


def with_dtype(graph: SGraph, dtype: DType) -> SGraph:
    """The same family with every tensor of another element type."""

    def cast(tensor: Tensor) -> Tensor:
        return replace(tensor, dtype=dtype)

    kernels = tuple(
        replace(k, stores=tuple(replace(s, tensor=cast(s.tensor)) for s in k.stores)) for k in graph.kernels
    )
    program = replace(
        graph.program,
        inputs=tuple(map(cast, graph.program.inputs)),
        outputs=tuple(replace(o, tensor=cast(o.tensor)) for o in graph.program.outputs),
    )
    return SGraph(program, kernels)


def source(graph: SGraph) -> str:
    return lower(graph, [derive(k) for k in graph.kernels])


def small_config(graph: SGraph, sizes: Mapping[str, int], split: int = 3) -> dict[str, dict[str, int]]:
    """Default parameters with small tiles, so that loops and grids have several steps."""
    config = default_parameters(graph, sizes).to_config()
    for values, decided in zip(config.values(), graph.kernels, strict=True):
        for name in values:
            if name.startswith("tile_"):
                values[name] = min(values[name], 32)
        values["split"] = split if decided.with_role(SPLIT) else 1
    return config


def make_inputs(graph: SGraph, sizes: Mapping[str, int], seed: int = 0) -> list[T]:
    torch.manual_seed(seed)
    shapes = [[1 if a is None else sizes[a.name] for a in t.axes] for t in graph.program.inputs]
    dtypes = [getattr(torch, t.dtype.value) for t in graph.program.inputs]
    return [torch.randn(s).to(d) for s, d in zip(shapes, dtypes, strict=True)]


def launch(graph: SGraph, inputs: Sequence[T], config: Mapping[str, Mapping[str, int]]) -> Any:
    module = load_source(source(graph), graph.program.name)
    with interpreted():
        return module.launch(*inputs, config=config)


def error(results: Any, expected: Any) -> float:
    """Largest error of any output relative to its largest element; NaN counts as infinite."""
    worst = 0.0
    got = results if isinstance(results, tuple) else (results,)
    wanted = expected if isinstance(expected, tuple) else (expected,)
    for a, b in zip(got, wanted, strict=True):
        found = ((a.double() - b).abs().max() / b.abs().max()).item()
        worst = float("inf") if math.isnan(found) else max(worst, found)
    return worst


def check(case: Case, sizes: Mapping[str, int], tolerance: float, split: int = 3) -> None:
    inputs = make_inputs(case.graph, sizes)
    inputs[0] += case.shift
    results = launch(case.graph, inputs, small_config(case.graph, sizes, split))
    assert error(results, case.expected(inputs)) < tolerance


def rms(value: Expr, axis: Axis, epsilon: str = "1e-6") -> Expr:
    return rsqrt(mean_over(axis, value * value) + const(epsilon))


def ref_rms(a: T, gain: T) -> T:
    return a * torch.rsqrt((a * a).mean(-1, keepdim=True) + 1e-6) * gain


def linear(role: Role) -> Case:
    body = kernel("linear", {out("y", M, N): sum_over(K, x * w)}, {M: GRID, N: GRID, K: role})
    return Case(family([x, w], body), torch.matmul)


def rmsnorm_linear(role: Role) -> Case:
    value = sum_over(K, x * g * w) * rms(x, K)
    body = kernel("rmsnorm_linear", {out("y", M, N): value}, {M: GRID, N: GRID, K: role})
    return Case(family([x, g, w], body), lambda a, gain, weight: ref_rms(a, gain) @ weight)


def unfused() -> Case:
    """Normalise first, store, then multiply."""
    normed = out("h", M, K)
    first = kernel("normalise", {normed: x * rms(x, K) * g}, {M: GRID, K: WHOLE})
    second = kernel("project", {out("y", M, N): sum_over(K, normed.read() * w)}, {M: GRID, N: GRID, K: LOOP})
    return Case(family([x, g, w], first, second), lambda a, gain, weight: ref_rms(a, gain) @ weight)


def gated_mlp(role: Role) -> Case:
    value = call("silu", sum_over(K, x * w)) * sum_over(K, x * up)
    body = kernel("gated_mlp", {out("y", M, N): value}, {M: GRID, N: GRID, K: role})
    return Case(family([x, w, up], body), lambda a, gate, u: torch.nn.functional.silu(a @ gate) * (a @ u))


def softmax(role: Role, shift: float = -100.0) -> Case:
    value = exp(x) * recip(sum_over(K, exp(x)))
    body = kernel("softmax", {out("y", M, K): value}, {M: GRID, K: role})
    return Case(family([x], body), lambda a: torch.softmax(a, -1), shift)


def logsumexp() -> Case:
    body = kernel("logsumexp", {out("y", M): log(sum_over(K, exp(x)))}, {M: GRID, K: SPLIT})
    return Case(family([x], body), lambda a: torch.logsumexp(a, -1), -100.0)


def add_rmsnorm(role: Role) -> Case:
    residual = leaf("r", (M, K))
    h = x + residual
    stores = {out("h", M, K): h, out("y", M, K): h * rms(h, K) * g}
    graph = family([x, residual, g], kernel("add_rmsnorm", stores, {M: GRID, K: role}), outputs=("h", "y"))
    return Case(graph, lambda a, b, gain: (a + b, ref_rms(a + b, gain)))


def layernorm(role: Role) -> Case:
    centred = x - mean_over(K, x)
    body = kernel("layernorm", {out("y", M, K): centred * rms(centred, K, "1e-5") * g}, {M: GRID, K: role})
    return Case(family([x, g], body), lambda a, gain: torch.nn.functional.layer_norm(a, a.shape[-1:]) * gain, 50.0)


def lora(role: Role) -> Case:
    down, back = leaf("A", (K, R)), leaf("B", (R, N))
    value = sum_over(K, x * w) + const("1/4") * sum_over(R, sum_over(K, x * down) * back)
    body = kernel("lora", {out("y", M, N): value}, {M: GRID, N: GRID, K: LOOP, R: role})
    return Case(family([x, w, down, back], body), lambda a, weight, p, q: a @ weight + 0.25 * (a @ p) @ q)


B, H, G, D, E = Axis("b", 2), Axis("h", 2), Axis("g", 4), Axis("d", 32), Axis("e", 32)
L = Axis("l", Size("L", 1, 9000))
HEADS = {"b": 1, "h": 2, "g": 3, "d": 20, "e": 24, "l": 67}


def attention(role: Role) -> Case:
    """Grouped heads, one query token."""
    q, k, v = leaf("q", (B, H, G, D)), leaf("k", (B, L, H, D)), leaf("v", (B, L, H, E))
    weights = exp(sum_over(D, q * k) * const("1/5"))
    value = sum_over(L, weights * v) * recip(sum_over(L, weights))
    roles = {B: GRID, H: GRID, G: GRID, E: WHOLE, D: WHOLE, L: role}

    def reference(a: T, b: T, c: T) -> T:
        scores = torch.einsum("bhgd,blhd->bhgl", a, b) / 5
        return torch.einsum("bhgl,blhe->bhge", torch.softmax(scores, -1), c)

    return Case(family([q, k, v], kernel("attention", {out("y", B, H, G, E): value}, roles)), reference)


def causal(role: Role) -> Case:
    """A softmax whose first tiles are followed by fully masked ones."""
    inside = make(Op.LE, (index(K), index(M) + 2))
    scores = where(inside, x, neg_inf())
    value = exp(scores) * recip(sum_over(K, exp(scores)))

    def reference(a: T) -> T:
        allowed = torch.arange(a.shape[1])[None] <= torch.arange(a.shape[0])[:, None] + 2
        return torch.softmax(a.masked_fill(~allowed, float("-inf")), -1)

    return Case(family([x], kernel("causal", {out("y", M, K): value}, {M: GRID, K: role})), reference)


def masked() -> Case:
    """An additive mask that holds minus infinity."""
    mask = leaf("mask", (M, K), finite=False)
    value = exp(x + mask) * recip(sum_over(K, exp(x + mask)))
    body = kernel("masked", {out("y", M, K): value}, {M: GRID, K: LOOP})
    return Case(family([mask, x], body), lambda b, a: torch.softmax(a + b, -1))


def elementwise() -> Case:
    functions = ("gelu_tanh", "sigmoid", "tanh", "gelu", "relu", "softplus", "silu", "erf", "abs")
    value = x
    for name in functions:
        value = value + call(name, x * g)
    value = maximum(value, minimum(x, const(1))) * sqrt(call("abs", x)) - recip(const(2) + x * x)
    body = kernel("elementwise", {out("y", M, K): value}, {M: GRID, K: GRID})

    def reference(a: T, b: T) -> T:
        f = torch.nn.functional
        z = a * b
        total = a + f.gelu(z, approximate="tanh") + torch.sigmoid(z) + torch.tanh(z) + f.gelu(z) + f.relu(z)
        total = total + f.softplus(z) + f.silu(z) + torch.erf(z) + z.abs()
        return torch.maximum(total, a.clamp(max=1)) * a.abs().sqrt() - 1 / (2 + a * a)

    return Case(family([x, g], body), reference)


CASES = {
    **{f"linear_{r.value}": linear(r) for r in (LOOP, SPLIT, WHOLE)},
    **{f"rmsnorm_linear_{r.value}": rmsnorm_linear(r) for r in (LOOP, SPLIT)},
    "unfused": unfused(),
    **{f"gated_mlp_{r.value}": gated_mlp(r) for r in (LOOP, SPLIT)},
    **{f"softmax_{r.value}": softmax(r) for r in (LOOP, WHOLE)},
    "logsumexp": logsumexp(),
    **{f"add_rmsnorm_{r.value}": add_rmsnorm(r) for r in (LOOP, WHOLE)},
    **{f"layernorm_{r.value}": layernorm(r) for r in (LOOP, WHOLE)},
    **{f"lora_{r.value}": lora(r) for r in (WHOLE, LOOP)},
    **{f"causal_{r.value}": causal(r) for r in (LOOP, WHOLE)},
    "elementwise": elementwise(),
}


@pytest.mark.parametrize("name", CASES)
def test_exact_in_float32_on_ragged_sizes(name: str) -> None:
    check(CASES[name], RAGGED, 2e-6)


@pytest.mark.parametrize("name", ["rmsnorm_linear_split", "softmax_loop", "lora_whole", "layernorm_whole"])
def test_exact_in_float32_on_divisible_sizes(name: str) -> None:
    check(CASES[name], EVEN, 2e-6)


@pytest.mark.parametrize("name", ["rmsnorm_linear_loop", "rmsnorm_linear_split", "unfused", "gated_mlp_loop"])
def test_bfloat16_rounds_operands_only(name: str) -> None:
    case = CASES[name]
    check(Case(with_dtype(case.graph, BF16), case.reference), RAGGED, 8e-3)


def test_bfloat16_attention_and_softmax() -> None:
    check(Case(with_dtype(attention(LOOP).graph, BF16), attention(LOOP).reference), HEADS, 8e-3)
    check(Case(with_dtype(softmax(LOOP).graph, BF16), softmax(LOOP).reference), RAGGED, 8e-3)


@pytest.mark.parametrize("role", [LOOP, SPLIT])
def test_attention_with_grouped_heads(role: Role) -> None:
    case = attention(role)
    assert layout_of(case.graph.kernels[0]).scalar == {B, H}
    check(case, HEADS, 5e-6)


@pytest.mark.parametrize("case", [linear(SPLIT), logsumexp()], ids=["sum", "scaled"])
@pytest.mark.parametrize("split", [1, 8])
def test_split_with_one_cell_and_with_empty_cells(case: Case, split: int) -> None:
    check(case, RAGGED, 2e-6, split)  # 4 tiles of k: half of 8 cells get none


def test_online_softmax_survives_a_tile_that_is_all_minus_infinity() -> None:
    case = masked()
    inputs = make_inputs(case.graph, RAGGED)
    inputs[0][:] = 0.0
    inputs[0][:, :40] = float("-inf")  # the first tile of 32 and part of the second
    results = launch(case.graph, inputs, small_config(case.graph, RAGGED))
    assert error(results, case.expected(inputs)) < 2e-6


def test_large_exponents_do_not_overflow() -> None:
    check(softmax(LOOP, shift=3e4), RAGGED, 2e-2)  # float32 resolves 3e4 to 2e-3


def test_two_computed_operands_of_a_dot_take_the_type_they_were_loaded_with() -> None:
    """The text names no element type, so that the same one can be checked in float32."""
    keys = Axis("j", 64)
    other, gain, weight = leaf("b", (keys, K)), leaf("c", (keys, K)), leaf("p", (M, K))
    body = kernel(
        "scores", {out("y", M, keys): sum_over(K, x * weight * (other * gain))}, {M: GRID, keys: GRID, K: LOOP}
    )
    case = Case(family([x, weight, other, gain], body), lambda a, p, b, q: (a * p) @ (b * q).T)
    narrow = Case(with_dtype(case.graph, BF16), case.reference)
    functions = source(narrow.graph).split("@triton.jit")[1].split("def launch")[0]
    assert "bfloat16" not in functions and functions.count(".to(x_ptr.dtype.element_ty)") == 2
    check(narrow, {**RAGGED, "j": 20}, 1e-2)
    module = load_source(source(narrow.graph), "scores")
    module.DTYPES.update(dict.fromkeys(module.DTYPES, torch.float32))
    inputs = make_inputs(case.graph, {**RAGGED, "j": 20})
    with interpreted():
        assert error(module.launch(*inputs), case.expected(inputs)) < 2e-6


# --------------------------------------------------------------------------------------------------- layouts


def test_two_row_axes_hold_the_shorter_as_a_scalar() -> None:
    batch, seq = Axis("b", 4), Axis("s", 128)
    a = leaf("a", (batch, seq, K))
    roles = {batch: GRID, seq: GRID, N: GRID, K: LOOP}
    body = kernel("batched", {out("y", batch, seq, N): sum_over(K, a * w)}, roles)
    assert layout_of(body).scalar == {batch}
    check(Case(family([a, w], body), torch.matmul), {**RAGGED, "b": 2, "s": 20}, 2e-6)


def test_contraction_of_two_axes_steps_through_one() -> None:
    heads, width = Axis("h", 4), Axis("e", 64)
    a, b = leaf("a", (M, heads, width)), leaf("b", (heads, width, N))
    value = sum_over((heads, width), a * b)
    for roles in ({heads: LOOP, width: LOOP}, {heads: SPLIT, width: WHOLE}):
        body = kernel("heads", {out("y", M, N): value}, {M: GRID, N: GRID, **roles})
        assert layout_of(body).scalar == {heads}
        case = Case(family([a, b], body), lambda p, q: torch.einsum("mhe,hen->mn", p, q))
        check(case, {**RAGGED, "h": 3, "e": 24}, 2e-6)


def test_one_row_multiplies_and_reduces() -> None:
    row = leaf("x", (K,))
    body = kernel("gemv", {Tensor("y", (None, N), FP32): sum_over(K, row * w)}, {N: GRID, K: SPLIT})
    graph = family([row, w], body)
    tensors = (Tensor("x", (None, K), FP32), *graph.program.inputs[1:])
    graph = replace(graph, program=replace(graph.program, inputs=tensors))
    assert "tl.dot" not in source(graph)
    check(Case(graph, torch.matmul), RAGGED, 2e-6)


def test_rank_zero_results_and_sums_of_two_resident_axes() -> None:
    rows, columns = Axis("i", 8), Axis("j", 16)
    a = leaf("a", (rows, columns))
    total = sum_over((rows, columns), exp(a - const(1)) * (a - const(3)))
    for roles in ({rows: WHOLE, columns: WHOLE}, {rows: LOOP, columns: WHOLE}):
        body = kernel("total", {out("y"): total}, roles)
        case = Case(family([a], body), lambda p: (torch.exp(p - 1) * (p - 3)).sum())
        check(case, {"i": 5, "j": 11}, 2e-6)


def test_sum_of_a_value_that_does_not_vary_over_the_axis() -> None:
    value = sum_over(K, exp(max_over(N, leaf("b", (M, N)))) + x)
    body = kernel("constant", {out("y", M): value}, {M: GRID, K: LOOP, N: WHOLE})
    graph = family([x, leaf("b", (M, N))], body)
    check(Case(graph, lambda p, q: (torch.exp(q.amax(-1, keepdim=True)) + p).sum(-1)), RAGGED, 2e-6)


def test_one_tensor_read_under_two_copies_of_an_axis() -> None:
    row, other = Axis("i", 64), Axis("i", 64, copy=1)
    a, b = leaf("a", (row, K)), leaf("a", (other, K))
    body = kernel("gram", {Tensor("y", (row, other), FP32): sum_over(K, a * b)}, {row: GRID, other: GRID, K: LOOP})
    check(Case(family([a], body), lambda p: p @ p.T), {"i": 20, "k": 40}, 2e-6)


def test_extents_and_integer_tensors_in_conditions() -> None:
    length = leaf("length", (M,))
    value = sum_over(K, where(make(Op.LT, (index(K), length)), x, const(0))) * rsqrt(extent(K)) + index(M)
    body = kernel("lengths", {out("y", M): value}, {M: GRID, K: LOOP})
    graph = family([x, length], body)
    tensors = (graph.program.inputs[0], replace(graph.program.inputs[1], dtype=DType.INT64))
    graph = replace(graph, program=replace(graph.program, inputs=tensors))
    inputs = [make_inputs(graph, RAGGED)[0], torch.tensor([7, 0, 100])]
    steps = torch.arange(100)[None] < inputs[1][:, None]
    expected = (inputs[0].double() * steps).sum(-1) / 10 + torch.arange(3)
    assert error(launch(graph, inputs, small_config(graph, RAGGED)), expected) < 2e-6


def test_wide_tensors_use_64_bit_offsets() -> None:
    tall, batch = Axis("m", Size("M")), Axis("b", Size("B"))
    a = leaf("x", (batch, tall, K))
    body = kernel("wide", {out("y", batch, tall, N): sum_over(K, a * w)}, {batch: GRID, tall: GRID, N: GRID, K: LOOP})
    graph = family([a, w], body)
    text = source(graph)
    assert "wide_m = offs_m.to(tl.int64)" in text and "tl.cast(pid_b, tl.int64)" in text and "wide_n" in text
    assert "W_ptr + offs_k[:, None] * stride_W_k + offs_n[None, :]" in text
    check(Case(graph, torch.matmul), {**RAGGED, "b": 2}, 2e-6)


def test_strided_inputs() -> None:
    case = rmsnorm_linear(LOOP)
    a, gain, weight = make_inputs(case.graph, RAGGED)
    views = [a.T.contiguous().T, torch.stack([gain, gain], 1)[:, 1], torch.cat([weight, weight], 1)[:, 41:]]
    assert not any(v.is_contiguous() for v in views)
    results = launch(case.graph, views, small_config(case.graph, RAGGED))
    assert error(results, case.expected([a, gain, weight])) < 2e-6


# -------------------------------------------------------------------------------------------------- launcher


@pytest.fixture(scope="module")
def launcher() -> Callable[..., Any]:
    return load_source(source(rmsnorm_linear(LOOP).graph), "rmsnorm_linear").launch


def bad(**changes: object) -> list[Any]:
    """Inputs of rmsnorm_linear with one replaced."""
    tensors: dict[str, object] = {"x": torch.ones(3, 100), "g": torch.ones(100), "w": torch.ones(100, 41), **changes}
    return list(tensors.values())


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        (bad(x=[1.0]), TypeError, "x: expected a tensor, got list"),
        (bad(g=torch.ones(100, dtype=torch.float64)), TypeError, "g: expected torch.float32, got torch.float64"),
        (bad(w=torch.ones(99, 41)), ValueError, "W: axis k has extent 99, and 100 in an earlier input"),
        (bad(x=torch.ones(3, 100, 1)), ValueError, "x: expected 2 dimensions"),
        (bad(x=torch.ones(65, 100)), ValueError, "axis m: extent 65 is not a multiple of 1 from 1 to 64"),
        (bad(w=torch.ones(100, 0)), ValueError, "axis n: extent 0"),
        (bad(g=torch.ones(100, device="meta")), ValueError, "g: on meta, the first input is on cpu"),
    ],
)
def test_launcher_refuses(launcher: Callable[..., Any], inputs: list[Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        launcher(*inputs)


def test_launcher_refuses_strides_beyond_32_bits(launcher: Callable[..., Any]) -> None:
    a, gain = (t.to("meta") for t in bad()[:2])
    weight = torch.empty_strided((100, 41), (2**26, 1), device="meta")
    with pytest.raises(ValueError, match="W: spans 6643777577 elements, more than 32-bit offsets reach"):
        launcher(a, gain, weight)


def test_launcher_refuses_unknown_configuration(launcher: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"config: no such entry: kernel_1, kernel_0.tile_q"):
        launcher(*bad(), config={"kernel_1": {}, "kernel_0": {"tile_q": 16}})


def test_limits_name_what_is_missing() -> None:
    body = kernel("odd", {out("y", M): call("bessel", leaf("v", (M,)))}, {M: GRID})
    with pytest.raises(LoweringLimit, match="function bessel has no Triton form"):
        source(family([leaf("v", (M,))], body))
    i, j, z = Axis("i", 8), Axis("j", 8), Axis("z", 8)
    cube = kernel("cube", {out("y", i, j, z): leaf("c", (i, j, z)) + const(1)}, {i: WHOLE, j: WHOLE, z: WHOLE})
    with pytest.raises(LoweringLimit, match="3 resident axes: i, j, z"):
        source(family([leaf("c", (i, j, z))], cube))
    doubles = with_dtype(linear(LOOP).graph, DType.FP64)
    with pytest.raises(LoweringLimit, match="tensor x is float64"):
        source(doubles)


# ------------------------------------------------------------------------------------------------------ text


def test_text_is_deterministic_and_independent_of_parameters() -> None:
    graph = rmsnorm_linear(SPLIT).graph
    schedules = [derive(k) for k in graph.kernels]
    one = Parameters((KernelParameters((("k", 32), ("m", 16), ("n", 128)), split=2, warps=8, stages=4, group=8),))
    assert lower(graph, schedules, one) == lower(graph, schedules, one)
    cut = '"""Tiles by axis'
    assert lower(graph, schedules, one).split(cut)[1] == source(graph).split(cut)[1]
    config = load_source(lower(graph, schedules, one), "parameters").CONFIG
    assert config == {"kernel_0": {**one.to_config()["kernel_0"], "allow_tf32": 0}}


def test_text_in_another_process_is_the_same() -> None:
    code = "from tests.unit.test_lower import CASES, source; print(source(CASES['lora_whole'].graph), end='')"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert other.stdout == source(CASES["lora_whole"].graph)


def test_header_cannot_break_out_of_the_docstring() -> None:
    graph = linear(LOOP).graph
    text = lower(graph, [derive(k) for k in graph.kernels], header={"Checked": 'C:\\new """ import os'})
    module = load_source(text, "header")
    assert "Checked: C:\\new ''' import os" in (module.__doc__ or "")


def test_a_header_added_later_changes_no_code() -> None:
    graph = rmsnorm_linear(SPLIT).graph
    schedules = [derive(k) for k in graph.kernels]
    header = {"exact evaluation": "agreed in 6 evaluations", "target": "h200 " * 40 + '"""'}
    plain = lower(graph, schedules)
    told = with_header(plain, header)
    assert told == lower(graph, schedules, header=header)
    assert told != plain and code_of(told) == code_of(plain)
    assert with_header(plain, {}) == plain
    found = load_source(told, "told").__doc__ or ""
    assert "\n\nexact evaluation: agreed in 6 evaluations\n\ntarget: h200" in found
    assert max(map(len, found.splitlines())) <= 112
    with pytest.raises(ValueError, match="begins with its docstring"):
        code_of("import torch\n")


def test_source_imports_torch_and_triton_only() -> None:
    imports = [line for line in source(unfused().graph).splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import torch", "import triton", "import triton.language as tl"]


def test_masks_cost_nothing_where_sizes_divide() -> None:
    """The same text, compiled for sizes that divide, has no predicated load: they are all asynchronous copies."""
    graph = with_dtype(linear(LOOP).graph, BF16)
    module = load_source(source(graph), "linear")
    config = {"kernel_0": {"tile_m": 16, "tile_n": 64, "tile_k": 64}}
    even, ragged = (
        compile_launch(module, 90, [Meta((16, k), "bfloat16"), Meta((k, n), "bfloat16")], config)[0]
        for k, n in ((512, 512), (500, 501))
    )
    assert even.async_copies > ragged.async_copies and even.registers <= ragged.registers


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("name", sorted({*CASES} - {"linear_whole"}))
def test_compiles_for(name: str, architecture: int) -> None:
    graph = with_dtype(CASES[name].graph, BF16)
    sizes = {"m": 16, "k": 1024, "n": 1000, "r": 16}
    module = load_source(source(graph), name)
    shapes = [Meta(tuple(sizes[a.name] for a in t.named_axes), t.dtype.value) for t in graph.program.inputs]
    found = compile_launch(module, architecture, shapes, default_parameters(graph, sizes).to_config())
    assert len(found) == sum(2 if k.with_role(SPLIT) else 1 for k in graph.kernels)
    assert not any(f.spills for f in found)
