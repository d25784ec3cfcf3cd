"""Programs whose best forms need cancellation or distributivity, and unrelated ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sgraph.axis import Axis
from sgraph.expr import Expr, call, const, exp, log, max_over, mean_over, recip, rsqrt, sqrt, sum_over
from sgraph.program import Program
from tests.programs import EPS, lora, program, rms, tensor

Extents = Mapping[str, int]


def _axes(extents: Extents, *names: str) -> list[Axis]:
    return [Axis(n, extents[n]) for n in names]


def centred(value: Expr, axis: Axis) -> Expr:
    return value - mean_over(axis, value)


def layernorm(value: Expr, axis: Axis) -> Expr:
    deviation = centred(value, axis)
    return deviation * rsqrt(mean_over(axis, deviation * deviation) + EPS)


def unit(value: Expr, axis: Axis) -> Expr:
    return value * rsqrt(sum_over(axis, value * value) + EPS)


def layernorm_linear(extents: Extents) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, g, b, w = tensor("x", m, k), tensor("g", k), tensor("b", k), tensor("W", k, n)
    value = (layernorm(x.read(), k) * g.read() + b.read()) * w.read()
    return program("layernorm_linear", (x, g, b, w), (tensor("out", m, n), sum_over(k, value)))


def variance(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x = tensor("x", m, k)
    deviation = centred(x.read(), k)
    return program("variance", (x,), (tensor("out", m), mean_over(k, deviation * deviation)))


def correlation(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x, y = tensor("x", m, k), tensor("y", m, k)
    a, b = centred(x.read(), k), centred(y.read(), k)
    spread = sqrt(sum_over(k, a * a) + EPS) * sqrt(sum_over(k, b * b) + EPS)
    return program("correlation", (x, y), (tensor("out", m), sum_over(k, a * b) * recip(spread)))


def weighted_variance(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x, w = tensor("x", m, k), tensor("w", m, k)
    mass = recip(sum_over(k, exp(w.read())))
    deviation = x.read() - sum_over(k, exp(w.read()) * x.read()) * mass
    value = sum_over(k, exp(w.read()) * deviation * deviation) * mass
    return program("weighted_variance", (x, w), (tensor("out", m), value))


def ngpt_residual(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    h, x, a = tensor("h", m, k), tensor("x", m, k), tensor("a", k)
    moved = h.read() + a.read() * (unit(x.read(), k) - h.read())
    return program("ngpt_residual", (h, x, a), (tensor("out", m, k), unit(moved, k)))


def rmsnorm_gated_mlp(extents: Extents) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, g, gate, up = tensor("x", m, k), tensor("g", k), tensor("Wg", k, n), tensor("Wu", k, n)
    normed = x.read() * rms(x.read(), k) * g.read()
    value = call("silu", sum_over(k, normed * gate.read())) * sum_over(k, normed * up.read())
    return program("rmsnorm_gated_mlp", (x, g, gate, up), (tensor("out", m, n), value))


def zero_point_linear(extents: Extents) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, z, s, w = tensor("x", m, k), tensor("z", m), tensor("s", m), tensor("W", k, n)
    value = sum_over(k, (x.read() - z.read()) * s.read() * w.read())
    return program("zero_point_linear", (x, z, s, w), (tensor("out", m, n), value))


def centred_values(extents: Extents) -> Program:
    """Attention weights on values that are centred over the channels."""
    m, j, n = _axes(extents, "m", "j", "n")
    s, v = tensor("s", m, j), tensor("v", j, n)
    shift = tensor("c", n)
    weight = exp(s.read())
    value = sum_over(j, weight * (v.read() - shift.read())) * recip(sum_over(j, weight))
    return program("centred_values", (s, v, shift), (tensor("out", m, n), value))


def merged_lora(extents: Extents) -> Program:
    m, k, n, r = _axes(extents, "m", "k", "n", "r")
    x, w, a, b = tensor("x", m, k), tensor("W", k, n), tensor("A", k, r), tensor("B", r, n)
    merged = w.read() + const(2) * sum_over(r, a.read() * b.read())
    return program("merged_lora", (x, w, a, b), (tensor("out", m, n), sum_over(k, x.read() * merged)))


def two_heads(extents: Extents) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, w, v, s = tensor("x", m, k), tensor("W", k, n), tensor("V", k, n), tensor("s", n)
    value = sum_over(k, x.read() * w.read()) - s.read() * sum_over(k, v.read() * x.read())
    return program("two_heads", (x, w, v, s), (tensor("out", m, n), value))


def differential_values(extents: Extents) -> Program:
    """One set of attention weights on two value tensors."""
    m, j, n = _axes(extents, "m", "j", "n")
    s, v, u = tensor("s", m, j), tensor("v", j, n), tensor("u", j, n)
    weight = exp(s.read())
    value = sum_over(j, weight * v.read()) + sum_over(j, u.read() * weight)
    return program("differential_values", (s, v, u), (tensor("out", m, n), value))


def gru_update(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    h, n, z = tensor("h", m, k), tensor("n", m, k), tensor("z", m, k)
    gate = call("sigmoid", z.read())
    value = (1 - gate) * call("tanh", n.read()) + gate * h.read()
    return program("gru_update", (h, n, z), (tensor("out", m, k), value))


def moving_average(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    old, new, beta = tensor("old", m, k), tensor("new", m, k), tensor("beta", k)
    value = beta.read() * old.read() + (1 - beta.read()) * new.read() * new.read()
    return program("moving_average", (old, new, beta), (tensor("out", m, k), value))


def two_gates(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x, a, b = tensor("x", m, k), tensor("a", k), tensor("b", k)
    value = x.read() * call("sigmoid", a.read()) + call("tanh", b.read()) * x.read()
    return program("two_gates", (x, a, b), (tensor("out", m, k), value))


def scaled_residual(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x, s, shift = tensor("x", m, k), tensor("s", k), tensor("shift", k)
    value = x.read() + x.read() * s.read() + shift.read()
    return program("scaled_residual", (x, s, shift), (tensor("out", m, k), value))


def two_quotients(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x, y = tensor("x", m, k), tensor("y", m, k)
    size = recip(sum_over(k, exp(y.read())))
    value = exp(x.read()) * size + call("relu", x.read()) * size
    return program("two_quotients", (x, y), (tensor("out", m, k), value))


def positional_linear(extents: Extents) -> Program:
    m, k, n = _axes(extents, "m", "k", "n")
    x, p, w = tensor("x", m, k), tensor("p", k), tensor("W", k, n)
    return program("positional_linear", (x, p, w), (tensor("out", m, n), sum_over(k, (x.read() + p.read()) * w.read())))


def relative_scores(extents: Extents) -> Program:
    """Scores with a learned bias on the queries, as in Transformer-XL."""
    m, j, d = _axes(extents, "m", "j", "d")
    q, u, k = tensor("q", m, d), tensor("u", d), tensor("k", j, d)
    return program("relative_scores", (q, u, k), (tensor("out", m, j), sum_over(d, (q.read() + u.read()) * k.read())))


def safe_softmax(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x = tensor("x", m, k)
    shifted = exp(x.read() - max_over(k, x.read()))
    return program("safe_softmax", (x,), (tensor("out", m, k), shifted * recip(sum_over(k, shifted))))


def safe_log_softmax(extents: Extents) -> Program:
    m, k = _axes(extents, "m", "k")
    x = tensor("x", m, k)
    shifted = x.read() - max_over(k, x.read())
    return program("safe_log_softmax", (x,), (tensor("out", m, k), shifted - log(sum_over(k, exp(shifted)))))


def safe_attention(extents: Extents) -> Program:
    m, j, d, n = _axes(extents, "m", "j", "d", "n")
    q, k, v = tensor("q", m, d), tensor("k", j, d), tensor("v", j, n)
    scores = sum_over(d, q.read() * k.read())
    weight = exp(const("1/8") * (scores - max_over(j, scores)))
    value = sum_over(j, weight * v.read()) * recip(sum_over(j, weight))
    return program("safe_attention", (q, k, v), (tensor("out", m, n), value))


def qk_layernorm_attention(extents: Extents) -> Program:
    m, j, d, n = _axes(extents, "m", "j", "d", "n")
    q, k, v = tensor("q", m, d), tensor("k", j, d), tensor("v", j, n)
    weight = exp(const("1/8") * sum_over(d, layernorm(q.read(), d) * layernorm(k.read(), d)))
    value = sum_over(j, weight * v.read()) * recip(sum_over(j, weight))
    return program("qk_layernorm_attention", (q, k, v), (tensor("out", m, n), value))


WORKLOADS: Mapping[str, Callable[[Extents], Program]] = {
    "layernorm_linear": layernorm_linear,
    "lora": lora,
    "ngpt_residual": ngpt_residual,
    "rmsnorm_gated_mlp": rmsnorm_gated_mlp,
}

FIRES_ON: Mapping[str, tuple[Callable[[Extents], Program], ...]] = {
    "folded-mean": (layernorm_linear, zero_point_linear, centred_values),
    "one-pass-moments": (variance, correlation, weighted_variance, qk_layernorm_attention),
    "merged-weights": (lora, two_heads, differential_values),
    "interpolation": (ngpt_residual, gru_update, moving_average),
    "unshifted-exponentials": (safe_softmax, safe_log_softmax, safe_attention),
    "collected-factors": (two_gates, scaled_residual, two_quotients),
    "one-level-expansion": (merged_lora, positional_linear, relative_scores),
}
"""For each transformation, programs that have nothing else in common."""
