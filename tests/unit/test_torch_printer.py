"""Printed torch programs against float64 references: types, ragged sizes, unit dimensions, extreme values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from torch.nn import functional

from autotune.torch_printer import load_torch, print_torch
from sgraph.axis import Axis, Size
from sgraph.errors import CompilationFailed, UnsupportedOperator, UnsupportedProgram
from sgraph.expr import (
    Expr,
    Op,
    call,
    const,
    exp,
    extent,
    index,
    log,
    make,
    max_over,
    maximum,
    mean_over,
    neg_inf,
    recip,
    rename,
    rsqrt,
    sqrt,
    sum_over,
    where,
)
from sgraph.functions import FUNCTIONS
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import DType, Output, Program, Tensor
from tests.programs import EPS, PROGRAMS, SMALL, program, rms, tensor

T = torch.Tensor
Reference = (
    Callable[[T], object] | Callable[[T, T], object] | Callable[[T, T, T], object] | Callable[[T, T, T, T], object]
)
Pointwise = Callable[[T], T]

BOUND = {DType.FP64: 1e-13, DType.FP32: 2e-6, DType.BF16: 2.5e-2, DType.FP16: 3e-3}


def le(a: Expr, b: Expr) -> Expr:
    return make(Op.LE, (a, b))


def whole(p: Program) -> SGraph:
    """The program as one kernel, as it is written."""
    return SGraph(p, (Kernel("whole", tuple(Store(o.tensor, o.value, o.value) for o in p.outputs)),))


def one(p: Program, value: Expr) -> SGraph:
    """The program as one kernel that computes another form of its only output."""
    (output,) = p.outputs
    return SGraph(p, (Kernel("fused", (Store(output.tensor, value, output.value),)),))


def sample(p: Program, sizes: dict[str, int] | None = None, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors: list[torch.Tensor] = []
    for t in p.inputs:
        shape = [1 if a is None else a.extent if isinstance(a.extent, int) else (sizes or {})[a.name] for a in t.axes]
        tensors.append(torch.randn(shape, generator=generator, dtype=torch.float64).to(getattr(torch, t.dtype.value)))
    return tensors


def outputs(result: object) -> Sequence[torch.Tensor]:
    return (result,) if isinstance(result, torch.Tensor) else cast("tuple[torch.Tensor, ...]", result)


def agree(graph: SGraph, inputs: Sequence[torch.Tensor], reference: Reference, bound: float | None = None) -> str:
    """Check shapes, types and values of the printed program; returns its text."""
    source = print_torch(graph)
    assert source == print_torch(graph)
    assert all(len(line) <= 110 for line in source.splitlines())
    got = outputs(load_torch(source)(*inputs))
    want = outputs(cast("Callable[..., object]", reference)(*(t.double() for t in inputs)))
    assert len(got) == len(want) == len(graph.program.outputs)
    for mine, true, output in zip(got, want, graph.program.outputs, strict=True):
        assert mine.shape == true.shape
        assert mine.dtype is getattr(torch, output.tensor.dtype.value)
        assert torch.isfinite(mine).all()
        limit = bound if bound is not None else BOUND[output.tensor.dtype]
        assert (mine.double() - true).abs().max() <= limit * max(true.abs().max().item(), 1e-30)
    return source


def retyped(p: Program, dtype: DType) -> Program:
    """The same program with all tensors of another type."""

    def typed(t: Tensor) -> Tensor:
        return Tensor(t.name, t.axes, dtype, t.constant, t.finite)

    return Program(
        p.name, tuple(map(typed, p.inputs)), tuple(Output(typed(o.tensor), o.value) for o in p.outputs), p.source
    )


def _rmsnorm(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * g


def _add_rmsnorm(x: torch.Tensor, r: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x + r, _rmsnorm(x + r, g)


REFERENCES: dict[str, Reference] = {
    "linear": lambda x, w: x @ w,
    "rmsnorm_linear": lambda x, g, w: _rmsnorm(x, g) @ w,
    "gated_mlp": lambda x, gate, up: functional.silu(x @ gate) * (x @ up),
    "softmax": lambda x: torch.softmax(x, -1),
    "add_rmsnorm": _add_rmsnorm,
    "lora": lambda x, w, a, b: x @ w + 2 * ((x @ a) @ b),
    "attention": lambda q, k, v: torch.softmax(q @ k.T / 8, -1) @ v,
}


@pytest.mark.parametrize("dtype", list(BOUND))
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_programs_as_written(name: str, dtype: DType) -> None:
    for extents in (
        SMALL,
        {"m": 1, "k": 1, "n": 1, "r": 1, "j": 1, "d": 1},
        {"m": 7, "k": 131, "n": 33, "r": 5, "j": 65, "d": 9},
    ):
        p = retyped(PROGRAMS[name](extents), dtype)
        agree(whole(p), sample(p), REFERENCES[name])


def _norm_linear(m: Axis | None, dtype: DType = DType.FP32) -> Program:
    k, n = Axis("k", 96), Axis("n", 40)
    x, g, w = tensor("x", m, k, dtype=dtype), tensor("g", k, dtype=dtype), tensor("W", k, n, dtype=dtype)
    value = sum_over(k, x.read() * rms(x.read(), k) * g.read() * w.read())
    return program("rmsnorm_linear", (x, g, w), (tensor("out", m, n, dtype=dtype), value))


def _fused(p: Program) -> SGraph:
    x, g, w = (t.read() for t in p.inputs)
    (k,) = p.inputs[1].named_axes
    return one(p, sum_over(k, x * g * w) * rms(x, k))


def _unfused(p: Program) -> SGraph:
    x, g, w = (t.read() for t in p.inputs)
    (k,) = p.inputs[1].named_axes
    h = Tensor("h", p.inputs[0].axes, p.inputs[0].dtype)
    normed = x * rms(x, k) * g
    (output,) = p.outputs
    return SGraph(
        p,
        (
            Kernel("norm", (Store(h, normed, normed),)),
            Kernel("linear", (Store(output.tensor, sum_over(k, h.read() * w), output.value),)),
        ),
    )


@pytest.mark.parametrize("dtype", [DType.FP32, DType.BF16])
@pytest.mark.parametrize("form", [_fused, _unfused])
@pytest.mark.parametrize("m", [Axis("m", 3), None, Axis("m", Size("M", 1, 64))])
def test_forms_of_rmsnorm_linear(form: Callable[[Program], SGraph], m: Axis | None, dtype: DType) -> None:
    p = _norm_linear(m, dtype)
    graph = form(p)
    for rows in (1, 5) if m is not None and not isinstance(m.extent, int) else (3,):
        agree(graph, sample(p, {"m": rows}), REFERENCES["rmsnorm_linear"])


def test_fused_text_multiplies_by_the_norm_after_the_product() -> None:
    source = print_torch(_fused(_norm_linear(Axis("m", 3), DType.BF16)))
    assert "dot_k = (x_float32 * g.float()).to(torch.bfloat16) @ W  # [m, n]" in source
    assert "out = (dot_k.float() * torch.rsqrt(sum_k / 96 + 1e-06)).to(torch.bfloat16)  # [m, n]" in source
    assert "# fused: x[m, k], g[k], W[k, n] -> out[m, n] as bfloat16" in source


def test_two_kernels_are_two_blocks() -> None:
    source = print_torch(_unfused(_norm_linear(Axis("m", 3))))
    assert "    # norm: x[m, k], g[k] -> h[m, k] as float32\n" in source
    assert "    # linear: h[m, k], W[k, n] -> out[m, n] as float32\n    out = h @ W  # [m, n]\n" in source


def test_intermediate_types_are_kept() -> None:
    p = _norm_linear(Axis("m", 3), DType.BF16)
    x, g, w = (t.read() for t in p.inputs)
    m, k = p.inputs[0].named_axes
    r = Tensor("r", (m,), DType.FP32)
    (output,) = p.outputs
    statistic = Kernel("statistic", (Store(r, rms(x, k), rms(x, k)),))
    apply = Kernel("apply", (Store(output.tensor, sum_over(k, x * g * w) * r.read(), output.value),))
    source = agree(SGraph(p, (statistic, apply)), sample(p), REFERENCES["rmsnorm_linear"])
    assert "-> r[m] as float32" in source
    # A float32 statistic beside bfloat16 data does not make the product a float32 one.
    assert ".to(torch.bfloat16) @ W" in source


@pytest.mark.parametrize("dtype", [DType.FP32, DType.BF16])
def test_one_row_uses_a_product_even_in_bfloat16(dtype: DType) -> None:
    assert "@ W" in print_torch(_fused(_norm_linear(None, dtype)))


def test_a_statistic_that_the_program_does_not_contain_is_summed_in_float32() -> None:
    m, k, n = Axis("m", 4), Axis("k", 512), Axis("n", 6)
    x, g, w = tensor("x", m, k), tensor("g", k), tensor("W", k, n)
    spec = sum_over(k, (x.read() - mean_over(k, x.read())) * g.read() * w.read())
    p = program("centred_linear", (x, g, w), (tensor("out", m, n), spec))
    statistic = Tensor("s", (n,), DType.FP32)
    folded = sum_over(k, g.read() * w.read())
    value = sum_over(k, x.read() * g.read() * w.read()) - mean_over(k, x.read()) * statistic.read()
    graph = SGraph(
        p,
        (
            Kernel("fold", (Store(statistic, folded, folded),)),
            Kernel("main", (Store(p.outputs[0].tensor, value, spec),)),
        ),
    )
    inputs = sample(p)
    source = agree(graph, inputs, lambda x, g, w: ((x - x.mean(-1, keepdim=True)) * g) @ w)
    fold = source.split("# fold:")[1].split("# main:")[0]
    assert "@" not in fold and ".sum(" in fold


def test_extreme_logits_do_not_overflow() -> None:
    for name in ("softmax", "attention"):
        p = retyped(PROGRAMS[name]({"m": 3, "k": 8, "n": 4, "j": 5, "d": 2, "r": 1}), DType.FP32)
        inputs = [t * 1e4 for t in sample(p)]
        agree(whole(p), inputs, REFERENCES[name], bound=1e-5)


def test_logsumexp_of_extreme_values() -> None:
    m, k = Axis("m", 3), Axis("k", 5)
    x = tensor("x", m, k, dtype=DType.FP32)
    p = program("lse", (x,), (tensor("out", m, dtype=DType.FP32), log(sum_over(k, exp(x.read())))))
    agree(whole(p), [t * 1e4 for t in sample(p)], lambda x: torch.logsumexp(x, -1))


def test_symbolic_sizes_are_read_from_the_inputs() -> None:
    m, k = Axis("m", Size("M")), Axis("k", Size("K"))
    x = tensor("x", m, k, dtype=DType.FP32)
    p = program("mean", (x,), (tensor("out", m, dtype=DType.FP32), mean_over(k, x.read()) * sqrt(extent(m))))
    source = print_torch(whole(p))
    assert "x.shape[0]" in source and "x.shape[1]" in source
    for sizes in ({"m": 3, "k": 5}, {"m": 1, "k": 17}):
        agree(whole(p), sample(p, sizes), lambda x: x.mean(-1) * x.shape[0] ** 0.5)


def test_a_sum_over_an_axis_that_does_not_occur_counts_it() -> None:
    m, k = Axis("m", 3), Axis("k", Size("K"))
    x, y = tensor("x", m, dtype=DType.FP32), tensor("y", m, k, dtype=DType.FP32)
    value = sum_over(k, x.read()) + sum_over(k, const(2)) + max_over(k, y.read())
    p = program("count", (x, y), (tensor("out", m, dtype=DType.FP32), value))
    agree(whole(p), sample(p, {"k": 7}), lambda x, y: 7 * x + 14 + y.amax(-1))


def test_unit_dimensions_and_permuted_outputs() -> None:
    b, m, k = Axis("b", 2), Axis("m", 3), Axis("k", 5)
    x, g = tensor("x", None, b, m, k, None, dtype=DType.FP32), tensor("g", k, None, m, dtype=DType.FP32)
    out = tensor("out", k, None, b, m, None, dtype=DType.FP32)
    p = program("permute", (x, g), (out, x.read() * g.read() + sum_over(k, x.read())))

    def reference(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        inner, gain = x[0, ..., 0], g[:, 0].T
        return (inner * gain + inner.sum(-1, keepdim=True)).permute(2, 0, 1)[:, None, :, :, None]

    source = agree(whole(p), sample(p), reference)
    assert "contiguous()" in source


def test_outputs_of_fewer_axes_are_expanded() -> None:
    m, k = Axis("m", 3), Axis("k", Size("K"))
    x = tensor("x", m, k, dtype=DType.FP32)
    outs = (tensor("a", m, k, dtype=DType.FP32), tensor("b", k, m, dtype=DType.FP32))
    p = program("fill", (x,), (outs[0], sum_over(k, x.read())), (outs[1], const("3/2")))

    def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sum(-1, keepdim=True).expand(x.shape), torch.full_like(x.T, 1.5)

    agree(whole(p), sample(p, {"k": 4}), reference)


@pytest.mark.parametrize("dtype", [DType.FP32, DType.BF16])
def test_grouped_query_attention(dtype: DType) -> None:
    b, g, r, j, d = Axis("b", 2), Axis("g", 3), Axis("r", 4), Axis("j", 17), Axis("d", 8)
    q, k, v = (
        tensor("q", b, g, r, d, dtype=dtype),
        tensor("k", b, j, g, d, dtype=dtype),
        tensor("v", b, j, g, d, dtype=dtype),
    )
    weight = exp(sum_over(d, q.read() * k.read()) * recip(sqrt(extent(d))))
    value = sum_over(j, weight * v.read()) * recip(sum_over(j, weight))
    p = program("gqa", (q, k, v), (tensor("out", b, g, r, d, dtype=dtype), value))

    def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.einsum("bgrd,bjgd->bgrj", q, k) / 8**0.5
        return torch.einsum("bgrj,bjgd->bgrd", torch.softmax(scores, -1), v)

    source = agree(whole(p), sample(p), reference)
    assert source.count("@") + source.count("einsum") == 2


@pytest.mark.parametrize("dtype", [DType.FP32, DType.BF16])
def test_one_query_per_head_is_a_product_of_a_vector(dtype: DType) -> None:
    b, h, j, d = Axis("b", 2), Axis("h", 3), Axis("j", 17), Axis("d", 8)
    q, k, v = (
        tensor("q", b, h, d, dtype=dtype),
        tensor("k", b, j, h, d, dtype=dtype),
        tensor("v", b, j, h, d, dtype=dtype),
    )
    weight = exp(sum_over(d, q.read() * k.read()))
    value = sum_over(j, weight * v.read()) * recip(sum_over(j, weight))
    p = program("decode", (q, k, v), (tensor("out", b, h, d, dtype=dtype), value))

    def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(torch.einsum("bhd,bjhd->bhj", q, k), -1)
        return torch.einsum("bhj,bjhd->bhd", weights, v)

    source = agree(whole(p), sample(p), reference, 4e-2 if dtype is DType.BF16 else None)
    assert source.count("@") == 2


def test_contractions_over_several_axes_and_several_operands() -> None:
    m, h, d, n, r = Axis("m", 4), Axis("h", 3), Axis("d", 5), Axis("n", 6), Axis("r", 2)
    o, w, u = (
        tensor("o", m, h, d, dtype=DType.FP32),
        tensor("w", h, d, r, dtype=DType.FP32),
        tensor("u", r, n, dtype=DType.FP32),
    )
    value = sum_over((h, d, r), o.read() * w.read() * u.read())
    p = program("chain", (o, w, u), (tensor("out", m, n, dtype=DType.FP32), value))
    source = agree(whole(p), sample(p), lambda o, w, u: torch.einsum("mhd,hdr,rn->mn", o, w, u))
    # The small product [m, r] is formed before anything of size n.
    assert source.index("einsum") < source.index("@ u")


def test_copies_of_an_axis_share_the_torch_code() -> None:
    i, d = Axis("i", 4), Axis("d", 3)
    j = i.renamed(1)
    h = tensor("h", i, d, dtype=DType.FP32)
    here = h.read()
    there = rename(here, {i: j})
    out = Tensor("out", (i,), DType.FP32)
    value = sum_over(j, exp(sum_over(d, here * there)) * recip(sum_over(j, exp(sum_over(d, here * there)))) * index(j))
    p = program("self", (h,), (out, value))
    source = agree(whole(p), sample(p), lambda h: torch.softmax(h @ h.T, -1) @ torch.arange(4.0, dtype=torch.float64))
    assert source.count("torch.exp(") == 1


def test_masks_positions_and_constants() -> None:
    m, k = Axis("m", 4), Axis("k", 6)
    x = tensor("x", m, k, dtype=DType.FP32)
    masked = where(le(index(k), index(m) + const(1)), x.read(), neg_inf())
    value = exp(masked) * recip(sum_over(k, exp(masked)))
    other = maximum(x.read(), const("-1/4")) + where(le(index(k), const(2)), const("1/10"), const(3))
    p = program(
        "masked", (x,), (tensor("out", m, k, dtype=DType.FP32), value), (tensor("other", m, k, dtype=DType.FP32), other)
    )

    def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        allowed = torch.arange(6)[None] <= torch.arange(4)[:, None] + 1
        shift = torch.where(torch.arange(6) <= 2, 0.1, 3.0).double()
        return torch.softmax(x.masked_fill(~allowed, float("-inf")), -1), x.clamp(min=-0.25) + shift

    agree(whole(p), sample(p), reference)


def _shifted(function: Pointwise) -> Pointwise:
    return lambda v: function(v - 1 / 3)


def test_pointwise_functions() -> None:
    m = Axis("m", 50)
    x = tensor("x", m, dtype=DType.FP64)
    functions: dict[str, Pointwise] = {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda v: functional.gelu(v, approximate="tanh"),
        "softplus": functional.softplus,
    }
    functions |= {name: getattr(torch, name) for name in ("sigmoid", "tanh", "erf", "relu", "abs", "sin", "cos")}
    assert set(functions) == set(FUNCTIONS)
    for name, reference in functions.items():
        p = program("pointwise", (x,), (tensor("out", m, dtype=DType.FP64), call(name, x.read() - const("1/3"))))
        agree(whole(p), sample(p), _shifted(reference))


def test_operators_keep_their_grouping() -> None:
    m = Axis("m", 50)
    x, y = tensor("x", m, dtype=DType.FP64), tensor("y", m, dtype=DType.FP64)
    a, b = x.read(), y.read()
    values = (a - (b - a), a * recip(b * recip(a)), -(a - b) * a, (a + b) * recip(const(3) * a), a - (b + const(-2)))
    outs = tuple((tensor(f"out{i}", m, dtype=DType.FP64), value) for i, value in enumerate(values))
    p = program("grouping", (x, y), *outs)
    agree(
        whole(p),
        sample(p),
        lambda x, y: (x - (y - x), x / (y / x), -(x - y) * x, (x + y) / (3 * x), x - (y - 2)),
        bound=1e-12,
    )


def test_the_largest_tensor_decides_the_type_of_a_product() -> None:
    m, k, n = Axis("m", 3), Axis("k", 64), Axis("n", 4)
    x, g, w = tensor("x", m, k), tensor("g", k, dtype=DType.FP32), tensor("W", k, n)
    p = program("gain", (x, g, w), (tensor("out", m, n), sum_over(k, x.read() * g.read() * w.read())))
    source = agree(whole(p), sample(p), lambda x, g, w: (x * g) @ w)
    assert ".to(torch.bfloat16) @ W" in source
    wide = program(
        "wide", (retyped(p, DType.FP32).inputs[0], w), (tensor("out", m, n), sum_over(k, x.read() * w.read()))
    )
    assert "x @ W.float()" in agree(whole(wide), sample(wide), lambda x, w: x @ w)


def test_long_expressions_are_cut_into_lines() -> None:
    m, k = Axis("m", 3), Axis("k", 8)
    inputs = (tensor("x", m, k, dtype=DType.FP32), *(tensor(f"vector_{i}", k, dtype=DType.FP32) for i in range(4)))
    x, *vectors = (t.read() for t in inputs)
    value = x
    for step, vector in enumerate(vectors):
        value = call("gelu_tanh", value * vector + const(step)) * call(
            "sigmoid", value * recip(vector * vector + const(1))
        )
    p = program(
        "chain", inputs, (tensor("out", m, k, dtype=DType.FP32), value * rsqrt(mean_over(k, value * value) + EPS))
    )

    def reference(x: torch.Tensor, *vectors: torch.Tensor) -> torch.Tensor:
        for step, vector in enumerate(vectors):
            x = functional.gelu(x * vector + step, approximate="tanh") * torch.sigmoid(x / (vector * vector + 1))
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    agree(whole(p), sample(p), reference, bound=1e-5)


def test_names_do_not_collide() -> None:
    m, k, n = Axis("m", 3), Axis("k", 8), Axis("n", 2)
    x, w = tensor("dot_k", m, k, dtype=DType.FP32), tensor("sum_k", k, n, dtype=DType.FP32)
    value = call("tanh", sum_over(k, x.read() * w.read())) + sum_over(k, x.read())
    p = program("names", (x, w), (tensor("run_", m, n, dtype=DType.FP32), value))
    agree(whole(p), sample(p), lambda x, w: torch.tanh(x @ w) + x.sum(-1, keepdim=True))


def test_float16_products_cannot_overflow_before_normalisation() -> None:
    p = _norm_linear(Axis("m", 3), DType.FP16)
    inputs = sample(p)
    inputs[0] = inputs[0] * 5000
    agree(_fused(p), inputs, REFERENCES["rmsnorm_linear"])


def test_source_is_formatted() -> None:
    ruff = shutil.which("ruff", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if ruff is None:
        pytest.skip("ruff is not installed")
    for name in PROGRAMS:
        source = print_torch(whole(PROGRAMS[name](SMALL)))
        done = subprocess.run(
            [ruff, "format", "--isolated", "--line-length=110", "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == source


def test_errors() -> None:
    m = Axis("m", 3)
    x = tensor("x", m)
    with pytest.raises(UnsupportedOperator, match="besselj"):
        print_torch(whole(program("f", (x,), (tensor("out", m), call("besselj", x.read())))))
    hidden = Axis("q", Size("Q"))
    with pytest.raises(UnsupportedProgram, match="size Q"):
        print_torch(whole(program("f", (x,), (tensor("out", m), sum_over(hidden, x.read())))))
    with pytest.raises(CompilationFailed, match="not Python"):
        load_torch("def run(:")
    with pytest.raises(CompilationFailed, match="no function"):
        load_torch("x = 1")


def test_loading_twice_gives_two_functions() -> None:
    source = print_torch(whole(PROGRAMS["linear"](SMALL)))
    a, b = load_torch(source), load_torch(source)
    assert a is not b
    assert getattr(a, "__code__", 0) is not getattr(b, "__code__", 1)
