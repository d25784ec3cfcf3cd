"""Programs that several tests use, written as equations (capture has its own tests)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sgraph.axis import Axis
from sgraph.expr import Expr, call, const, exp, mean_over, recip, rsqrt, sum_over
from sgraph.program import DType, Output, Program, Tensor
from sgraph.target import Target

EPS = const("1/1000000")

H200 = Target(
    name="h200",
    kind="cuda",
    architecture=90,
    processors=132,
    shared_memory_bytes=227 << 10,
    shared_memory_per_processor_bytes=228 << 10,
    registers=65536,
    l2_bytes=60_000_000,
    dram_bytes_per_s=4.8e12,
    l2_bytes_per_s=5.6e12,
    dot_flops_per_s={DType.BF16: 989e12, DType.FP16: 989e12},
    pointwise_flops_per_s=67e12,
    launch_s=2e-6,
    memory_latency_s=0.7e-6,
)


def tensor(name: str, *axes: Axis | None, dtype: DType = DType.BF16) -> Tensor:
    return Tensor(name, axes, dtype)


def program(name: str, inputs: tuple[Tensor, ...], *outputs: tuple[Tensor, Expr]) -> Program:
    return Program(name, inputs, tuple(Output(t, v) for t, v in outputs))


def _axes(extents: Mapping[str, int], *names: str) -> list[Axis]:
    return [Axis(n, extents[n]) for n in names]


def linear(extents: Mapping[str, int]) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, w = tensor("x", m, k), tensor("W", k, n)
    return program("linear", (x, w), (tensor("out", m, n), sum_over(k, x.read() * w.read())))


def rms(value: Expr, axis: Axis) -> Expr:
    return rsqrt(mean_over(axis, value * value) + EPS)


def rmsnorm_linear(extents: Mapping[str, int]) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, g, w = tensor("x", m, k), tensor("g", k), tensor("W", k, n)
    normed = x.read() * rms(x.read(), k) * g.read()
    return program("rmsnorm_linear", (x, g, w), (tensor("out", m, n), sum_over(k, normed * w.read())))


def gated_mlp(extents: Mapping[str, int]) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, gate, up = tensor("x", m, k), tensor("Wg", k, n), tensor("Wu", k, n)
    value = call("silu", sum_over(k, x.read() * gate.read())) * sum_over(k, x.read() * up.read())
    return program("gated_mlp", (x, gate, up), (tensor("out", m, n), value))


def softmax(extents: Mapping[str, int]) -> Program:
    m, k = _axes(extents, "m", "k")
    x = tensor("x", m, k)
    value = exp(x.read()) * recip(sum_over(k, exp(x.read())))
    return program("softmax", (x,), (tensor("out", m, k), value))


def add_rmsnorm(extents: Mapping[str, int]) -> Program:
    m, k = _axes(extents, "m", "k")
    x, r, g = tensor("x", m, k), tensor("r", m, k), tensor("g", k)
    h = x.read() + r.read()
    y = h * rms(h, k) * g.read()
    return program("add_rmsnorm", (x, r, g), (tensor("h", m, k), h), (tensor("y", m, k), y))


def lora(extents: Mapping[str, int]) -> Program:
    m, k, n, r = _axes(extents, "m", "k", "n", "r")
    x, w, a, b = tensor("x", m, k), tensor("W", k, n), tensor("A", k, r), tensor("B", r, n)
    low = sum_over(r, sum_over(k, x.read() * a.read()) * b.read())
    value = sum_over(k, x.read() * w.read()) + const(2) * low
    return program("lora", (x, w, a, b), (tensor("out", m, n), value))


def attention(extents: Mapping[str, int]) -> Program:
    m, j, d, n = _axes(extents, "m", "j", "d", "n")
    q, k, v = tensor("q", m, d), tensor("k", j, d), tensor("v", j, n)
    weight = exp(const("1/8") * sum_over(d, q.read() * k.read()))
    value = sum_over(j, weight * v.read()) * recip(sum_over(j, weight))
    return program("attention", (q, k, v), (tensor("out", m, n), value))


PROGRAMS: Mapping[str, Callable[[Mapping[str, int]], Program]] = {
    "linear": linear,
    "rmsnorm_linear": rmsnorm_linear,
    "gated_mlp": gated_mlp,
    "softmax": softmax,
    "add_rmsnorm": add_rmsnorm,
    "lora": lora,
    "attention": attention,
}

LARGE = {"m": 16, "k": 4096, "n": 6144, "r": 16, "j": 8192, "d": 128}
SMALL = {"m": 3, "k": 5, "n": 4, "r": 2, "j": 7, "d": 3}


def sizes_of(p: Program) -> dict[Axis, int]:
    """The static extents of a program."""
    found: dict[Axis, int] = {}
    for axis in p.axes:
        assert isinstance(axis.extent, int)
        found[axis] = axis.extent
    return found
