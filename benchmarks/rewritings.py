# pyright: reportUnknownLambdaType=false
"""Rewritings of the workloads that are equal to them over the real numbers.

Every workload has at least three: what a person who writes the kernel by hand would do to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as fn
from torch import Tensor

Function = Callable[..., object]

EPS: Final = 1e-6
MASKS: Final[Mapping[str, tuple[str, ...]]] = {"masked_attention": ("mask",)}
"""Inputs that may hold minus infinity."""


def rms(x: Tensor) -> Tensor:
    """The factor by which RMSNorm scales a row."""
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


def norm(x: Tensor, g: Tensor) -> Tensor:
    """RMSNorm with gain."""
    return fn.rms_norm(x, x.shape[-1:], g, EPS)


def by_hand(x: Tensor) -> Tensor:
    """The same factor from a sum of squares."""
    return (x.shape[-1] / ((x * x).sum(-1, keepdim=True) + x.shape[-1] * EPS)).sqrt()


def layernorm(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """LayerNorm with gain and bias."""
    return fn.layer_norm(x, x.shape[-1:], g, b, EPS)


def one_pass(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """LayerNorm from the first two moments."""
    mean = x.mean(-1, keepdim=True)
    return (x - mean) * torch.rsqrt((x * x).mean(-1, keepdim=True) - mean * mean + EPS) * g + b


def two_pass(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """LayerNorm from the centred values."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    return b + g * centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()


def shifted(s: Tensor) -> Tensor:
    """Softmax with the maximum subtracted."""
    weight = (s - s.amax(-1, keepdim=True)).exp()
    return weight / weight.sum(-1, keepdim=True)


def by_logarithm(s: Tensor) -> Tensor:
    """Softmax with the logarithm of its sum subtracted."""
    return (s - s.logsumexp(-1, keepdim=True)).exp()


def plain(s: Tensor) -> Tensor:
    """Softmax without protection against overflow."""
    return s.exp() / s.exp().sum(-1, keepdim=True)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """One query per head against all keys, heads in groups: ``[B,H,G,D]`` and ``[B,L,H,D]``."""
    return torch.einsum("bhgd,blhd->bhgl", q, k)


def values(p: Tensor, v: Tensor) -> Tensor:
    """Values weighted by ``p``."""
    return torch.einsum("bhgl,blhd->bhgd", p, v)


def unnormalised(s: Tensor, v: Tensor) -> Tensor:
    """Attention with the division behind the second product."""
    weight = (s - s.amax(-1, keepdim=True)).exp()
    return values(weight, v) / weight.sum(-1, keepdim=True)


def heads(s: Tensor, v: Tensor) -> Tensor:
    """The same for ``[B,H,S,L]`` and ``[B,H,L,D]``."""
    weight = (s - s.amax(-1, keepdim=True)).exp()
    return (weight @ v) / weight.sum(-1, keepdim=True)


def prefill_scores(q: Tensor, k: Tensor) -> Tensor:
    """All queries against all keys, heads in groups: ``[B,S,H,G,D]`` and ``[B,S,H,D]``."""
    return torch.einsum("bihgd,bjhd->bhgij", q, k)


def prefill_values(p: Tensor, v: Tensor) -> Tensor:
    """Values weighted by ``p``."""
    return torch.einsum("bhgij,bjhd->bihgd", p, v)


def prefill(s: Tensor, v: Tensor) -> Tensor:
    """Attention over several queries with the division behind the second product."""
    weight = (s - s.amax(-1, keepdim=True)).exp()
    return torch.einsum("bhgij,bjhd->bihgd", weight, v) / weight.sum(-1).permute(0, 3, 1, 2)[..., None]


def masked_by_position(s: Tensor) -> Tensor:
    """The causal mask from positions."""
    return torch.where(seen(s), s, float("-inf"))


def masked_by_adding(s: Tensor) -> Tensor:
    """The causal mask as an addend."""
    return s + torch.zeros(s.shape[-2:]).masked_fill(~seen(s), float("-inf"))


def masked_by_multiplying(s: Tensor) -> Tensor:
    """A causal softmax by a mask on the exponentials."""
    weight = torch.where(seen(s), s.exp(), 0.0)
    return weight / weight.sum(-1, keepdim=True)


def seen(s: Tensor) -> Tensor:
    """What a query sees."""
    return torch.arange(s.shape[-1])[None, :] <= torch.arange(s.shape[-2])[:, None]


def unit(x: Tensor) -> Tensor:
    """A row of length 1."""
    return x / x.norm(dim=-1, keepdim=True)


def unit_by_hand(x: Tensor) -> Tensor:
    """The same with a reciprocal root."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True))


def add_rmsnorm(x: Tensor, r: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """A residual and the norm behind it, both returned."""
    h = x + r
    return h, norm(h, g)


def add_rmsnorm_by_products(x: Tensor, r: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of squares multiplied out."""
    squares = (x * x).mean(-1, keepdim=True) + 2 * (x * r).mean(-1, keepdim=True) + (r * r).mean(-1, keepdim=True)
    return r + x, (x * g + r * g) * torch.rsqrt(squares + EPS)


def entropy(z: Tensor) -> Tensor:
    """The entropy of a softmax."""
    return z.logsumexp(-1) - (z.softmax(-1) * z).sum(-1)


def entropy_fused(z: Tensor) -> Tensor:
    """The same in one pass over exponentials."""
    weight = (z - z.amax(-1, keepdim=True)).exp()
    return weight.sum(-1).log() + z.amax(-1) - (weight * z).sum(-1) / weight.sum(-1)


def elementwise(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The chain in front of the norm."""
    return fn.gelu(x * a + b, approximate="tanh") * torch.sigmoid(x * c) + torch.tanh(x + d)


def elementwise_turned(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The same in another order."""
    return torch.tanh(d + x) + torch.sigmoid(c * x) * fn.gelu(torch.addcmul(b, a, x), approximate="tanh")


def norm_only(x: Tensor) -> Tensor:
    """The factor of RMSNorm without eps."""
    return torch.rsqrt(x.square().mean(-1, keepdim=True))


def norm_only_by_hand(x: Tensor) -> Tensor:
    """The same from a sum of squares."""
    return (x.shape[-1] / (x * x).sum(-1, keepdim=True)).sqrt()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotary embedding half by half, joined last."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    parts = (low * cos[..., :half] - high * sin[..., :half], high * cos[..., half:] + low * sin[..., half:])
    return torch.cat(parts, -1)


def rope_by_halves(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The products of the halves added."""
    turned_q, turned_k = rotated(q, cos[-1], sin[-1]), rotated(k, cos[:, None], sin[:, None])
    half = q.shape[-1] // 2
    low = scores(turned_q[..., :half], turned_k[..., :half])
    return low + scores(turned_q[..., half:], turned_k[..., half:])


DECODE: Final = (
    lambda q, k, v: unnormalised(scores(q * 128**-0.5, k), v),
    lambda q, k, v: values(by_logarithm(scores(q, k) * 128**-0.5), v),
    lambda q, k, v: values(plain(scores(q, k * 128**-0.5)), v),
)

RIGHT: Final[Mapping[str, tuple[Function, ...]]] = {
    "rmsnorm_linear": (
        lambda x, g, w: (x @ (g[:, None] * w)) * rms(x),
        lambda x, g, w: ((x * g) @ w) * by_hand(x),
        lambda x, g, w: (x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()) @ (w * g[:, None]),
    ),
    "gated_mlp": (
        lambda x, g, u: (x @ u) * (x @ g) * torch.sigmoid(x @ g),
        lambda x, g, u: fn.silu((g.T @ x.T).T) * torch.einsum("mk,kn->mn", x, u),
        lambda x, g, u: (x @ g) * (x @ u) / (1 + (-(x @ g)).exp()),
    ),
    "gated_mlp_gelu": (
        lambda x, g, u: (x @ u) * fn.gelu(x @ g, approximate="tanh"),
        lambda x, g, u: fn.gelu((g.T @ x.T).T, approximate="tanh") * torch.einsum("mk,kn->mn", x, u),
        lambda x, g, u: fn.gelu(torch.einsum("kn,mk->mn", g, x), approximate="tanh") * (u.T @ x.T).T,
    ),
    "rmsnorm_gated_mlp": (
        lambda x, s, g, u: fn.silu((x @ (s[:, None] * g)) * rms(x)) * ((x @ (s[:, None] * u)) * rms(x)),
        lambda x, s, g, u: fn.silu(((x * s) @ g) * by_hand(x)) * by_hand(x) * ((x * s) @ u),
        lambda x, s, g, u: (norm(x, s) @ u) * (norm(x, s) @ g) * torch.sigmoid(rms(x) * ((x * s) @ g)),
    ),
    "rmsnorm_mlp": (
        lambda x, s, g, u, d: ((fn.silu((x * s @ g) * rms(x)) * (x * s @ u)) @ d) * rms(x),
        lambda x, s, g, u, d: (fn.silu(norm(x, s) @ g) * ((x @ (s[:, None] * u)) * by_hand(x))) @ d,
        lambda x, s, g, u, d: ((norm(x, s) @ g) * (norm(x, s) @ u) / (1 + (-(norm(x, s) @ g)).exp())) @ d,
    ),
    "lora": (
        lambda x, w, a, b: x @ (w + 2 * a @ b),
        lambda x, w, a, b: x @ w + x @ (a @ (b * 2)),
        lambda x, w, a, b: torch.addmm(x @ w, x @ a, b, alpha=2),
    ),
    "add_rmsnorm": (
        add_rmsnorm_by_products,
        lambda x, r, g: (r + x, (x + r) * rms(x + r) * g),
        lambda x, r, g: (x + r, g * (r + x) * by_hand(x + r)),
    ),
    "softmax": (shifted, by_logarithm, plain),
    "layernorm": (
        one_pass,
        two_pass,
        lambda x, g, b: (x - x.mean(-1, keepdim=True)) * g * torch.rsqrt(x.var(-1, False, keepdim=True) + EPS) + b,
    ),
    "ngpt_residual": (
        lambda h, x, a: unit_by_hand(h + a * (unit_by_hand(x) - h)),
        lambda h, x, a: unit_by_hand((1 - a) * h + a * unit(x)),
        lambda h, x, a: unit(torch.lerp(h, unit(x), a.expand_as(h))),
    ),
    "gqa_decode": DECODE,
    "gqa_decode_16_2": DECODE,
    "qknorm_attention": (
        lambda q, k, v, a, b: unnormalised(scores(q * a * rms(q) * 128**-0.5, k * b * rms(k)), v),
        lambda q, k, v, a, b: unnormalised(
            scores(q * a * b, k) * rms(q) * rms(k)[..., 0].transpose(1, 2)[:, :, None] * 128**-0.5, v
        ),
        lambda q, k, v, a, b: values(by_logarithm(scores(norm(q, a * b), k * by_hand(k)) * 128**-0.5), v),
    ),
    "causal_attention": (
        lambda q, k, v: prefill(masked_by_position(prefill_scores(q * 128**-0.5, k)), v),
        lambda q, k, v: prefill(masked_by_adding(prefill_scores(q, k) * 128**-0.5), v),
        lambda q, k, v: prefill_values(masked_by_multiplying(prefill_scores(q, k * 128**-0.5)), v),
    ),
    "masked_attention": (
        lambda q, k, v, mask: prefill(prefill_scores(q, k) * 128**-0.5 + mask, v),
        lambda q, k, v, mask: prefill(mask + prefill_scores(q * 128**-0.5, k), v),
        lambda q, k, v, mask: prefill_values(plain(mask + prefill_scores(q, k * 128**-0.5)), v),
    ),
    "entropy_chain": (
        lambda x, g, b: entropy_fused(layernorm(x, g, b)),
        lambda x, g, b: entropy_fused(one_pass(x, g, b)),
        lambda x, g, b: -(two_pass(x, g, b).softmax(-1) * two_pass(x, g, b).log_softmax(-1)).sum(-1),
    ),
    "elementwise_chain": (
        lambda x, a, b, c, d, g: norm(elementwise_turned(x, a, b, c, d), g),
        lambda x, a, b, c, d, g: g * elementwise(x, a, b, c, d) * rms(elementwise_turned(x, a, b, c, d)),
        lambda x, a, b, c, d, g: elementwise(x, a, b, c, d) * by_hand(elementwise(x, a, b, c, d)) * g,
    ),
    "softmax_chain": (
        lambda x: shifted(fn.layer_norm(shifted(x), (x.shape[-1],), None, None, EPS)),
        lambda x: by_logarithm(one_pass(plain(x), torch.ones(()), torch.zeros(()))),
        lambda x: shifted(two_pass(by_logarithm(x), torch.ones(()), torch.zeros(()))),
    ),
    "rope_scores": (
        lambda q, k, c, s: scores(rotated(q, c[-1], s[-1]), rotated(k, c[:, None], s[:, None])),
        lambda q, k, c, s: torch.einsum(
            "blhd,bhgd->bhgl", rotated(k, c[:, None], s[:, None]), rotated(q, c[-1], s[-1])
        ),
        rope_by_halves,
    ),
    "paper_rms_norm": (
        lambda x, w: (x @ w) * norm_only(x),
        lambda x, w: (x / x.square().mean(-1, keepdim=True).sqrt()) @ w,
        lambda x, w: (x @ w) * norm_only_by_hand(x),
    ),
    "paper_rmsnorm_mlp": (
        lambda x, a, b: (x @ a) * (x @ b) * norm_only(x).square(),
        lambda x, a, b: (x @ a) * (x @ b) / x.square().mean(-1, keepdim=True),
        lambda x, a, b: ((x * norm_only_by_hand(x)) @ b) * (x @ a) * norm_only(x),
    ),
    "paper_swiglu": (
        lambda x, g, u: (x @ u) * (x @ g) * torch.sigmoid(x @ g),
        lambda x, g, u: (x @ g) * (x @ u) / (1 + (-(x @ g)).exp()),
        lambda x, g, u: fn.silu(torch.einsum("kn,mk->mn", g, x)) * (x @ u),
    ),
    "paper_attention": (
        lambda q, k, v: heads(q @ k.transpose(-1, -2), v),
        lambda q, k, v: plain(torch.einsum("bhqd,bhld->bhql", q, k)) @ v,
        lambda q, k, v: fn.scaled_dot_product_attention(q, k, v, scale=1.0),
    ),
    "paper_qk_norm_attention": (
        lambda q, k, v: heads((q * norm_only(q)) @ (k * norm_only(k)).transpose(-1, -2), v),
        lambda q, k, v: heads(norm_only(q) * (q @ k.transpose(-1, -2)) * norm_only(k).transpose(-1, -2), v),
        lambda q, k, v: by_logarithm((q * norm_only_by_hand(q)) @ (k * norm_only_by_hand(k)).transpose(-1, -2)) @ v,
    ),
}
"""By the name of the workload."""
