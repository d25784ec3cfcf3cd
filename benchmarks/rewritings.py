# pyright: reportUnknownLambdaType=false
"""The workloads as torch functions, each with rewritings that are equal to it over the real numbers.

Every row has at least three: what a person who writes the kernel by hand would do to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as fn
from torch import Tensor

Function = Callable[..., object]

EPS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Row:
    """One workload."""

    name: str
    """Its name in the table of workloads."""
    spec: Function
    """What is to be computed."""
    shapes: tuple[tuple[int, ...], ...]
    """Of the inputs."""
    right: tuple[Function, ...]
    """Rewritings that are equal to it."""
    masks: tuple[str, ...] = ()
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


def causal(q: Tensor, k: Tensor) -> Tensor:
    """Scores under a causal mask, heads first."""
    hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
    return (q @ k.transpose(-1, -2) * 128**-0.5).masked_fill(hidden, float("-inf"))


def causal_by_position(q: Tensor, k: Tensor) -> Tensor:
    """The same with the scale on the queries and the mask from positions."""
    seen = torch.arange(k.shape[-2])[None, :] <= torch.arange(q.shape[-2])[:, None]
    return torch.where(seen, (q * 128**-0.5) @ k.transpose(-1, -2), float("-inf"))


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


HIDDEN, WIDE, NARROW = 4096, 6144, 14336
QUERY, KEYS = (16, 8, 4, 128), (16, 4096, 8, 128)
PAPER_Q, PAPER_K = (2, 8, 1, 128), (2, 8, 1024, 128)
FULL = (1, 8, 2048, 128)

ROWS: Final = (
    Row(
        "rmsnorm_linear",
        lambda x, g, w: norm(x, g) @ w,
        ((16, HIDDEN), (HIDDEN,), (HIDDEN, WIDE)),
        (
            lambda x, g, w: (x @ (g[:, None] * w)) * rms(x),
            lambda x, g, w: ((x * g) @ w) * by_hand(x),
            lambda x, g, w: (x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()) @ (w * g[:, None]),
        ),
    ),
    Row(
        "gated_mlp",
        lambda x, g, u: fn.silu(x @ g) * (x @ u),
        ((16, HIDDEN), (HIDDEN, NARROW), (HIDDEN, NARROW)),
        (
            lambda x, g, u: (x @ u) * (x @ g) * torch.sigmoid(x @ g),
            lambda x, g, u: fn.silu((g.T @ x.T).T) * torch.einsum("mk,kn->mn", x, u),
            lambda x, g, u: (x @ g) * (x @ u) / (1 + (-(x @ g)).exp()),
        ),
    ),
    Row(
        "rmsnorm_gated_mlp",
        lambda x, s, g, u: fn.silu(norm(x, s) @ g) * (norm(x, s) @ u),
        ((16, HIDDEN), (HIDDEN,), (HIDDEN, NARROW), (HIDDEN, NARROW)),
        (
            lambda x, s, g, u: fn.silu((x @ (s[:, None] * g)) * rms(x)) * ((x @ (s[:, None] * u)) * rms(x)),
            lambda x, s, g, u: fn.silu(((x * s) @ g) * by_hand(x)) * by_hand(x) * ((x * s) @ u),
            lambda x, s, g, u: (norm(x, s) @ u) * (norm(x, s) @ g) * torch.sigmoid(rms(x) * ((x * s) @ g)),
        ),
    ),
    Row(
        "lora",
        lambda x, w, a, b: x @ w + 2 * (x @ a) @ b,
        ((16, HIDDEN), (HIDDEN, WIDE), (HIDDEN, 16), (16, WIDE)),
        (
            lambda x, w, a, b: x @ (w + 2 * a @ b),
            lambda x, w, a, b: x @ w + x @ (a @ (b * 2)),
            lambda x, w, a, b: torch.addmm(x @ w, x @ a, b, alpha=2),
        ),
    ),
    Row(
        "add_rmsnorm",
        add_rmsnorm,
        ((64, HIDDEN), (64, HIDDEN), (HIDDEN,)),
        (
            add_rmsnorm_by_products,
            lambda x, r, g: (r + x, (x + r) * rms(x + r) * g),
            lambda x, r, g: (x + r, g * (r + x) * by_hand(x + r)),
        ),
    ),
    Row("softmax", lambda s: s.softmax(-1), ((4096, 8192),), (shifted, by_logarithm, plain)),
    Row(
        "layernorm",
        layernorm,
        ((2048, HIDDEN), (HIDDEN,), (HIDDEN,)),
        (
            one_pass,
            two_pass,
            lambda x, g, b: (x - x.mean(-1, keepdim=True)) * g * torch.rsqrt(x.var(-1, False, keepdim=True) + EPS) + b,
        ),
    ),
    Row(
        "ngpt_residual",
        lambda h, x, a: unit(h + a * (unit(x) - h)),
        ((64, HIDDEN), (64, HIDDEN), (HIDDEN,)),
        (
            lambda h, x, a: unit_by_hand(h + a * (unit_by_hand(x) - h)),
            lambda h, x, a: unit_by_hand((1 - a) * h + a * unit(x)),
            lambda h, x, a: unit(torch.lerp(h, unit(x), a.expand_as(h))),
        ),
    ),
    Row(
        "gqa_decode",
        lambda q, k, v: values((scores(q, k) * 128**-0.5).softmax(-1), v),
        (QUERY, KEYS, KEYS),
        (
            lambda q, k, v: unnormalised(scores(q * 128**-0.5, k), v),
            lambda q, k, v: values(by_logarithm(scores(q, k) * 128**-0.5), v),
            lambda q, k, v: values(plain(scores(q, k * 128**-0.5)), v),
        ),
    ),
    Row(
        "qknorm_attention",
        lambda q, k, v, a, b: values((scores(norm(q, a), norm(k, b)) * 128**-0.5).softmax(-1), v),
        (QUERY, KEYS, KEYS, (128,), (128,)),
        (
            lambda q, k, v, a, b: unnormalised(scores(q * a * rms(q) * 128**-0.5, k * b * rms(k)), v),
            lambda q, k, v, a, b: unnormalised(
                scores(q * a * b, k) * rms(q) * rms(k)[..., 0].transpose(1, 2)[:, :, None] * 128**-0.5, v
            ),
            lambda q, k, v, a, b: values(by_logarithm(scores(norm(q, a * b), k * by_hand(k)) * 128**-0.5), v),
        ),
    ),
    Row(
        "masked_attention, causal",
        lambda q, k, v: causal(q, k).softmax(-1) @ v,
        (FULL, FULL, FULL),
        (
            lambda q, k, v: fn.scaled_dot_product_attention(q, k, v, is_causal=True),
            lambda q, k, v: heads(causal(q, k), v),
            lambda q, k, v: heads(causal_by_position(q, k), v),
        ),
    ),
    Row(
        "masked_attention, additive",
        lambda q, k, v, mask: (q @ k.transpose(-1, -2) * 128**-0.5 + mask).softmax(-1) @ v,
        (FULL, FULL, FULL, (2048, 2048)),
        (
            lambda q, k, v, mask: heads(q @ k.transpose(-1, -2) * 128**-0.5 + mask, v),
            lambda q, k, v, mask: heads((q * 128**-0.5) @ k.transpose(-1, -2) + mask, v),
            lambda q, k, v, mask: plain(mask + q @ (k * 128**-0.5).transpose(-1, -2)) @ v,
        ),
        ("mask",),
    ),
    Row(
        "entropy_chain",
        lambda x, g, b: entropy(layernorm(x, g, b)),
        ((128, HIDDEN), (HIDDEN,), (HIDDEN,)),
        (
            lambda x, g, b: entropy_fused(layernorm(x, g, b)),
            lambda x, g, b: entropy_fused(one_pass(x, g, b)),
            lambda x, g, b: -(two_pass(x, g, b).softmax(-1) * two_pass(x, g, b).log_softmax(-1)).sum(-1),
        ),
    ),
    Row(
        "elementwise_chain",
        lambda x, a, b, c, d, g: norm(elementwise(x, a, b, c, d), g),
        ((128, HIDDEN), *(((HIDDEN,),) * 5)),
        (
            lambda x, a, b, c, d, g: norm(elementwise_turned(x, a, b, c, d), g),
            lambda x, a, b, c, d, g: g * elementwise(x, a, b, c, d) * rms(elementwise_turned(x, a, b, c, d)),
            lambda x, a, b, c, d, g: elementwise(x, a, b, c, d) * by_hand(elementwise(x, a, b, c, d)) * g,
        ),
    ),
    Row(
        "softmax_chain",
        lambda x: fn.layer_norm(x.softmax(-1), (HIDDEN,), None, None, EPS).softmax(-1),
        ((128, HIDDEN),),
        (
            lambda x: shifted(fn.layer_norm(shifted(x), (HIDDEN,), None, None, EPS)),
            lambda x: by_logarithm(one_pass(plain(x), torch.ones(()), torch.zeros(()))),
            lambda x: shifted(two_pass(by_logarithm(x), torch.ones(()), torch.zeros(()))),
        ),
    ),
    Row(
        "paper: rms_norm",
        lambda x, w: fn.rms_norm(x, (HIDDEN,)) @ w,
        ((16, HIDDEN), (HIDDEN, HIDDEN)),
        (
            lambda x, w: (x @ w) * torch.rsqrt(x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps),
            lambda x, w: (x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()) @ w,
            lambda x, w: (x @ w) / ((x * x).sum(-1, keepdim=True) / HIDDEN + torch.finfo(x.dtype).eps).sqrt(),
        ),
    ),
    Row(
        "paper: rmsnorm_mlp",
        lambda x, a, b: x * rms(x) @ a @ b,
        ((8, 1024), (1024, 4096), (4096, 1024)),
        (
            lambda x, a, b: (x @ a @ b) * rms(x),
            lambda x, a, b: ((x @ a) * by_hand(x)) @ b,
            lambda x, a, b: (x @ (a @ b)) * rms(x),
        ),
    ),
    Row(
        "paper: swiglu",
        lambda x, g, u: fn.silu(x @ g) * (x @ u),
        ((8, 1024), (1024, 1024), (1024, 1024)),
        (
            lambda x, g, u: (x @ u) * (x @ g) * torch.sigmoid(x @ g),
            lambda x, g, u: (x @ g) * (x @ u) / (1 + (-(x @ g)).exp()),
            lambda x, g, u: fn.silu(torch.einsum("kn,mk->mn", g, x)) * (x @ u),
        ),
    ),
    Row(
        "paper: attention",
        lambda q, k, v: (q @ k.transpose(-1, -2)).softmax(-1) @ v,
        (PAPER_Q, PAPER_K, PAPER_K),
        (
            lambda q, k, v: heads(q @ k.transpose(-1, -2), v),
            lambda q, k, v: plain(torch.einsum("bhqd,bhld->bhql", q, k)) @ v,
            lambda q, k, v: fn.scaled_dot_product_attention(q, k, v, scale=1.0),
        ),
    ),
    Row(
        "paper: qk_norm_attention",
        lambda q, k, v: ((q * rms(q)) @ (k * rms(k)).transpose(-1, -2)).softmax(-1) @ v,
        (PAPER_Q, PAPER_K, PAPER_K),
        (
            lambda q, k, v: heads((q * rms(q)) @ (k * rms(k)).transpose(-1, -2), v),
            lambda q, k, v: heads(rms(q) * (q @ k.transpose(-1, -2)) * rms(k).transpose(-1, -2), v),
            lambda q, k, v: by_logarithm((q * by_hand(q)) @ (k * by_hand(k)).transpose(-1, -2)) @ v,
        ),
    ),
)
