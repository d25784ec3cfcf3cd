"""Ordinary subgraphs as people write them: what capture, proof and the printed torch form are tried on.

``test_coverage_subgraphs`` captures each, compares it with torch, proves it against its other writing (or against
itself as printed) and holds the printed form to the numerical contract; ``docs/coverage.md`` lists what came of it.
"""

# ruff: noqa: PLW0108 (a line shows how the operator is called)
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.coverage_operators import Function

INF: Final = float("inf")
EPS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Subgraph:
    """One subgraph."""

    group: str
    """What it belongs to."""
    function: Function
    """As a person writes it."""
    shapes: str
    """Of its inputs, drawn from a normal distribution: ``3x5 5``."""
    other: Function | None = None
    """Another writing of the same; None where the printed form is the other one."""
    refused: str = ""
    """Part of the message, where it cannot be captured."""


# --------------------------------------------------------------------------------------------------- norms


def rms(x: Tensor, g: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * g


def rms_by_division(x: Tensor, g: Tensor) -> Tensor:
    return g * x / torch.sqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + EPS)


def rms_linear(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    return rms(x, g) @ w


def rms_linear_folded(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    return (x @ (g[:, None] * w)) * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


def layer(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), g, b, EPS)


def layer_by_moments(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x * x).mean(-1, keepdim=True) - mean * mean
    return (x - mean) * torch.rsqrt(variance + EPS) * g + b


def layer_by_var(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + EPS) * g + b


def zero_centred_gain(x: Tensor, g: Tensor) -> Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],), eps=EPS).to(x.dtype) * (1.0 + g)


def add_norm(x: Tensor, r: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    h = x + r
    return h, rms(h, g)


def group_by_hand(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    groups = x.view(x.shape[0], 2, -1)
    mean = groups.mean(-1, keepdim=True)
    spread = (groups - mean).square().mean(-1, keepdim=True)
    return ((groups - mean) * torch.rsqrt(spread + 1e-5)).view_as(x) * g[:, None] + b[:, None]


def l2_rows(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + EPS)


def adaptive_norm(x: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """The norm of a diffusion transformer: scale and shift come from a condition."""
    scale, shift = F.linear(F.silu(c), w).chunk(2, -1)
    return F.layer_norm(x, (x.shape[-1],)) * (1 + scale[:, None]) + shift[:, None]


def head_norm(x: Tensor, g: Tensor) -> Tensor:
    heads = x.view(*x.shape[:-1], 2, -1)
    return (heads * torch.rsqrt(heads.square().mean(-1, keepdim=True) + EPS) * g).flatten(-2)


# ------------------------------------------------------------------------------------- activations and gates


def gelu_by_erf(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.erf(x / 2**0.5))


def gelu_by_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh((2.0 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def gated(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate) * (x @ up)) @ down


def gated_by_one_weight(x: Tensor, w: Tensor, down: Tensor) -> Tensor:
    gate, up = (x @ w).chunk(2, -1)
    return (F.silu(gate) * up) @ down


def gated_by_slices(x: Tensor, w: Tensor, down: Tensor) -> Tensor:
    half = w.shape[1] // 2
    return (F.silu(x @ w[:, :half]) * (x @ w[:, half:])) @ down


def geglu(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    value, gate = F.linear(x, w, b).chunk(2, dim=-1)
    return value * F.gelu(gate)


def squared_relu(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.relu(x @ up).square() @ down


def squeeze_and_excite(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    pooled = x.mean((2, 3))
    return x * torch.sigmoid(F.linear(F.relu(F.linear(pooled, w1)), w2))[:, :, None, None]


def highway(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    gate = torch.sigmoid(x @ v)
    return gate * torch.tanh(x @ w) + (1 - gate) * x


def gru_cell(x: Tensor, h: Tensor, w: Tensor, u: Tensor) -> Tensor:
    xr, xz, xn = F.linear(x, w).chunk(3, -1)
    hr, hz, hn = F.linear(h, u).chunk(3, -1)
    reset, update = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    return (1 - update) * torch.tanh(xn + reset * hn) + update * h


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (F.linear(x, w) + F.linear(h, u)).chunk(4, -1)
    cell = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


# ---------------------------------------------------------------------------------------------- attention


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v


def attention_by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhid,bhjd->bhij", q * q.shape[-1] ** -0.5, k)
    return torch.einsum("bhij,bhjd->bhid", F.softmax(scores, dim=-1), v)


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q[..., :, None, :] * k[..., None, :, :]).sum(-1) * q.shape[-1] ** -0.5
    weights = torch.exp(scores)
    return (weights @ v) / weights.sum(-1, keepdim=True)


def attention_by_bmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, n, d = q.shape
    flat = [t.reshape(b * h, -1, d) for t in (q, k, v)]
    scores = torch.baddbmm(torch.zeros(b * h, n, n, dtype=q.dtype), flat[0], flat[1].mT, alpha=d**-0.5)
    return torch.bmm(scores.softmax(-1), flat[2]).view(b, h, n, d)


def attention_safe(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.mT * q.shape[-1] ** -0.5
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True) @ v


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def causal_by_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    later = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(later, -INF)
    return scores.softmax(-1) @ v


def causal_by_places(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    places = torch.arange(q.shape[-2])
    scores = torch.where(places[:, None] >= places, q @ k.mT * q.shape[-1] ** -0.5, -INF)
    return scores.softmax(-1) @ v


def sliding(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    places = torch.arange(q.shape[-2])
    distance = places[:, None] - places
    scores = (q @ k.mT).masked_fill((distance < 0) | (distance >= 3), -INF)
    return torch.softmax(scores, -1) @ v


def alibi(q: Tensor, k: Tensor, v: Tensor, slope: Tensor) -> Tensor:
    places = torch.arange(q.shape[-2])
    bias = (places - places[:, None]).to(q.dtype) * slope[:, None, None]
    return torch.softmax(q @ k.mT + bias, -1) @ v


def soft_capped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = 30.0 * torch.tanh(q @ k.mT / 30.0)
    return torch.softmax(scores, -1) @ v


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def grouped_by_repeats(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1) @ v


def with_sink(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> Tensor:
    """A learned sink takes a share of every row's weight."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    with_one_more = torch.cat((scores, sink[:, None, None].expand(2, 2, 6, 1)), -1)
    return torch.softmax(with_one_more, -1)[..., :-1] @ v


def attention_block(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = ((x @ w).view(b, n, 2, 4).transpose(1, 2) for w in (wq, wk, wv))
    out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).reshape(b, n, 8) @ wo


def attention_block_by_einsum(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor) -> Tensor:
    heads = [torch.einsum("bnk,khd->bhnd", x, w.unflatten(1, (2, 4))) for w in (wq, wk, wv)]
    weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", heads[0], heads[1]) * 0.5, -1)
    return torch.einsum("bhij,bhjd,hdk->bik", weights, heads[2], wo.unflatten(0, (2, 4)))


def fused_projection(x: Tensor, w: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = (x @ w).view(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    return attention(q, k, v).transpose(1, 2).flatten(2)


def fused_projection_by_chunks(x: Tensor, w: Tensor) -> Tensor:
    q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (x @ w).chunk(3, -1))
    return attention_by_einsum(q, k, v).transpose(1, 2).flatten(2)


def multi_query(x: Tensor, w: Tensor) -> Tensor:
    """Heads of queries with one head of keys and values, from one projection in unequal parts."""
    q, k, v = (x @ w).split([8, 4, 4], -1)
    heads = q.unflatten(-1, (2, 4)).transpose(1, 2)
    return (torch.softmax(heads @ k[:, None].mT * 0.5, -1) @ v[:, None]).transpose(1, 2).flatten(2)


def multi_query_by_columns(x: Tensor, w: Tensor) -> Tensor:
    q, k, v = x @ w[:, :8], x @ w[:, 8:12], x @ w[:, 12:]
    scores = torch.einsum("bihd,bjd->bhij", q.unflatten(-1, (2, 4)), k) * 0.5
    return torch.einsum("bhij,bjd->bihd", torch.softmax(scores, -1), v).flatten(2)


def llama_attention(x: Tensor, g: Tensor, w: Tensor, cos: Tensor, sin: Tensor, wo: Tensor) -> Tensor:
    """Norm, one projection in unequal parts, rotary embedding, grouped heads, causal mask, residual."""
    b, n, _ = x.shape
    q, k, v = (rms(x, g) @ w).split([8, 4, 4], -1)
    q, k, v = (t.view(b, n, -1, 4).transpose(1, 2) for t in (q, k, v))
    q, k = rope(q, cos, sin), rope(k, cos, sin)
    out = causal(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
    return x + out.transpose(1, 2).flatten(2) @ wo


def llama_attention_in_one_operator(x: Tensor, g: Tensor, w: Tensor, cos: Tensor, sin: Tensor, wo: Tensor) -> Tensor:
    h = F.rms_norm(x, (x.shape[-1],), g, EPS)
    q, k, v = (t.unflatten(-1, (-1, 4)).transpose(1, 2) for t in (h @ w[:, :8], h @ w[:, 8:12], h @ w[:, 12:]))
    q, k = rope_by_slices(q, cos, sin), rope_by_slices(k, cos, sin)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return x + torch.einsum("bhid,hdk->bik", out, wo.view(2, 4, -1))


def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal, and keys beyond a length hidden; the first query sees nothing."""
    places = torch.arange(q.shape[-2])
    seen = (places[:, None] >= places) & (places > 0)
    return F.scaled_dot_product_attention(q, k, v, seen)


def cross_attention(x: Tensor, y: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
    return attention(x @ wq, y @ wk, y @ wv)


def cache_and_new(q: Tensor, cache: Tensor, k: Tensor, v_cache: Tensor, v: Tensor) -> Tensor:
    return attention(q, torch.cat((cache, k), 1), torch.cat((v_cache, v), 1))


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return (q @ (k.mT @ v)) / (q @ k.sum(-2, keepdim=True).mT)


def linear_attention_the_long_way(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
    return (weights @ v) / weights.sum(-1, keepdim=True)


# --------------------------------------------------------------------------------------- rotary embeddings


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def rope_by_slices(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    low, high = a * cos[..., :half] - b * sin[..., :half], b * cos[..., half:] + a * sin[..., half:]
    return torch.cat((low, high), -1)


def rope_by_view(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.view(*x.shape[:-1], 2, -1).unbind(-2)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -2).flatten(-2)


def rope_by_view_and_parts(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.split(x.shape[-1] // 2, -1)
    return torch.cat((cos * a - sin * b, sin * a + cos * b), -1)


def rope_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def rope_interleaved_whole(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), -1)
    return (pairs * cos[..., None] + turned * sin[..., None]).flatten(-2)


def rope_scores(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return rope(q, cos, sin) @ rope(k, cos, sin).mT


def rope_scores_by_products(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.einsum("nid,njd->nij", rope_by_slices(q, cos, sin), rope_by_slices(k, cos, sin))


def rope_attention(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return attention(rope(q, cos, sin), rope(k, cos, sin), v)


def partial_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half of each head turns, the other half stays."""
    turning, still = x.chunk(2, -1)
    return torch.cat((rope(turning, cos, sin), still), -1) * 2


# ---------------------------------------------------------------------------------- residuals and reductions


def residual_chain(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    h = x + torch.tanh(x @ w1)
    return h + torch.tanh(h @ w2)


def pre_norm_block(x: Tensor, g: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return x + gated(rms(x, g), gate, up, down)


def lora(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x @ w + 2.0 * (x @ a) @ b


def lora_merged(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x @ (w + 2.0 * a @ b)


def ngpt(h: Tensor, x: Tensor, a: Tensor) -> Tensor:
    return l2_rows(h + a * (l2_rows(x) - h))


def ngpt_by_lerp(h: Tensor, x: Tensor, a: Tensor) -> Tensor:
    return l2_rows(torch.lerp(h, l2_rows(x), a))


def low_rank_chain(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return x @ a @ b @ c


def other_association(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return x @ (a @ (b @ c))


def experts(x: Tensor, route: Tensor, w: Tensor) -> Tensor:
    """Every expert weighted by its share: a dense mixture."""
    shares = torch.softmax(x @ route, -1)
    return (shares[..., None] * torch.einsum("nk,ekm->nem", x, w)).sum(1)


def experts_by_einsum(x: Tensor, route: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("ne,nk,ekm->nm", torch.softmax(x @ route, -1), x, w)


def pooled(x: Tensor, keep: Tensor) -> Tensor:
    weights = torch.sigmoid(keep)[..., None]
    return (x * weights).sum(1) / weights.sum(1)


def distances(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] - y[None]).square().sum(-1)


def distances_by_products(x: Tensor, y: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True) - 2 * x @ y.T + y.square().sum(-1)


def kernel_regression(x: Tensor, centres: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(-0.5 * distances(x, centres), -1) @ values


def entropy(x: Tensor) -> Tensor:
    p = torch.softmax(x, -1)
    return torch.logsumexp(x, -1) - (p * x).sum(-1)


def entropy_by_log(x: Tensor) -> Tensor:
    return -(torch.softmax(x, -1) * torch.log_softmax(x, -1)).sum(-1)


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + EPS)


def covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (x.shape[0] - 1)


def max_pool_tokens(x: Tensor) -> Tensor:
    return torch.cat((x.amax(1), x.mean(1)), -1)


# ------------------------------------------------------------------------------------------------- losses


def cross_entropy(x: Tensor, w: Tensor) -> Tensor:
    return F.cross_entropy(x @ w, torch.arange(6))


def cross_entropy_by_parts(x: Tensor, w: Tensor) -> Tensor:
    logits = x @ w
    hit = torch.arange(6)[:, None] == torch.arange(7)
    return (torch.logsumexp(logits, -1) - torch.where(hit, logits, 0.0).sum(-1)).mean()


def z_loss(x: Tensor) -> Tensor:
    return 1e-3 * torch.logsumexp(x, -1).square().mean()


def contrastive(x: Tensor, y: Tensor) -> Tensor:
    """CLIP's loss, one direction."""
    scores = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T * 10.0
    return F.cross_entropy(scores, torch.arange(6))


def distilled(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(student / 2, -1), F.softmax(teacher / 2, -1), reduction="batchmean") * 4


def dice(x: Tensor, y: Tensor) -> Tensor:
    p, t = torch.sigmoid(x), torch.sigmoid(y)
    return 1 - (2 * (p * t).sum(-1) + 1) / (p.sum(-1) + t.sum(-1) + 1)


def focal(x: Tensor, y: Tensor) -> Tensor:
    t = torch.sigmoid(y)
    p = torch.sigmoid(x)
    losses = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    return (losses * (1 - (p * t + (1 - p) * (1 - t))).square()).mean()


# ------------------------------------------------------------------------------------------ einsum puzzles


def bilinear(x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("ni,oij,nj->no", x, a, y)


def bilinear_by_products(x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    return ((x[:, None] @ a.flatten(0, 1).T).view(x.shape[0], a.shape[0], -1) * y[:, None]).sum(-1)


def two_traces(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("ij,ij->", a @ b, a @ b)


def outer_and_back(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.einsum("i,j,j->i", a, b, c)


def outer_and_back_by_dot(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return a * torch.dot(b, c)


def gram(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return flat @ flat.mT / flat.shape[-1]


# ------------------------------------------------------------------------------------------- not captured


def top_two(x: Tensor) -> Tensor:
    return x.topk(2, -1).values.sum(-1)


def looked_up(ids: Tensor, table: Tensor) -> Tensor:
    return F.embedding((ids > 0).long(), table)


def scan(x: Tensor) -> Tensor:
    return torch.cumsum(x, -1)


def convolved(x: Tensor, w: Tensor) -> Tensor:
    return F.silu(F.conv1d(x, w, padding=1))


def relative_shift(x: Tensor) -> Tensor:
    """The shift of Transformer-XL: pad, reshape across rows, cut."""
    n, m = x.shape
    return F.pad(x, (1, 0)).view(m + 1, n)[1:].view(n, m) * 2


QKV: Final = "2x2x6x4 2x2x6x4 2x2x6x4"
TURNED: Final = "3x6x8 6x8 6x8"

SUBGRAPHS: Final[Mapping[str, Subgraph]] = {
    "rms norm": Subgraph("norms", rms, "3x8 8", rms_by_division),
    "rms norm and projection": Subgraph("norms", rms_linear, "3x8 8 8x5", rms_linear_folded),
    "rms norm with 1 + gain": Subgraph("norms", zero_centred_gain, "3x8 8"),
    "layer norm": Subgraph("norms", layer, "3x8 8 8", layer_by_var),
    "layer norm by moments": Subgraph("norms", layer_by_moments, "3x8 8 8", layer),
    "residual and norm": Subgraph("norms", add_norm, "3x8 3x8 8"),
    "group norm": Subgraph("norms", lambda x, g, b: F.group_norm(x, 2, g, b), "2x4x6 4 4", group_by_hand),
    "instance norm": Subgraph("norms", lambda x: F.instance_norm(x), "2x3x8"),
    "unit rows": Subgraph("norms", l2_rows, "3x8"),
    "adaptive layer norm": Subgraph("norms", adaptive_norm, "2x3x8 2x5 16x5"),
    "norm per head": Subgraph("norms", head_norm, "3x6x8 4"),
    "gelu": Subgraph("activations and gates", gelu_by_erf, "3x8", lambda x: F.gelu(x)),
    "gelu by tanh": Subgraph("activations and gates", gelu_by_tanh, "3x8"),
    "swish with a slope": Subgraph("activations and gates", lambda x, b: x * torch.sigmoid(b * x), "3x8 8"),
    "SwiGLU": Subgraph("activations and gates", gated, "3x8 8x6 8x6 6x8"),
    "SwiGLU by one weight": Subgraph("activations and gates", gated_by_one_weight, "3x8 8x12 6x8", gated_by_slices),
    "GeGLU": Subgraph("activations and gates", geglu, "3x8 12x8 12"),
    "GLU": Subgraph(
        "activations and gates",
        lambda x, w: F.glu(x @ w, -1),
        "3x8 8x12",
        lambda x, w: (x @ w[:, :6]) * torch.sigmoid(x @ w[:, 6:]),
    ),
    "squared relu": Subgraph("activations and gates", squared_relu, "3x8 8x6 6x8"),
    "squeeze and excite": Subgraph("activations and gates", squeeze_and_excite, "2x4x3x3 2x4 4x2"),
    "highway": Subgraph("activations and gates", highway, "3x8 8x8 8x8"),
    "GRU cell": Subgraph("activations and gates", gru_cell, "3x5 3x4 12x5 12x4"),
    "LSTM cell": Subgraph("activations and gates", lstm_cell, "3x5 3x4 3x4 16x5 16x4"),
    "attention": Subgraph("attention", attention, QKV, attention_by_einsum),
    "attention by hand": Subgraph("attention", attention_by_hand, QKV, attention),
    "attention by bmm": Subgraph("attention", attention_by_bmm, QKV, attention),
    "attention with a maximum": Subgraph("attention", attention_safe, QKV, attention),
    "attention in one operator": Subgraph(
        "attention", lambda q, k, v: F.scaled_dot_product_attention(q, k, v), QKV, attention
    ),
    "causal attention": Subgraph("attention", causal, QKV, causal_by_mask),
    "causal attention by places": Subgraph("attention", causal_by_places, QKV, causal),
    "sliding window": Subgraph("attention", sliding, QKV),
    "alibi": Subgraph("attention", alibi, QKV + " 2"),
    "soft-capped scores": Subgraph("attention", soft_capped, QKV),
    "grouped heads": Subgraph("attention", grouped, "2x4x6x4 2x2x6x4 2x2x6x4", grouped_by_repeats),
    "attention sink": Subgraph("attention", with_sink, QKV + " 2"),
    "attention block": Subgraph("attention", attention_block, "2x6x8 8x8 8x8 8x8 8x8", attention_block_by_einsum),
    "fused projection": Subgraph("attention", fused_projection, "2x6x8 8x24", fused_projection_by_chunks),
    "multi-query attention": Subgraph("attention", multi_query, "2x6x8 8x16", multi_query_by_columns),
    "Llama's attention": Subgraph(
        "attention", llama_attention, "2x6x8 8 8x16 6x4 6x4 8x8", llama_attention_in_one_operator
    ),
    "rows that see nothing": Subgraph("attention", padded, QKV),
    "cross attention": Subgraph("attention", cross_attention, "2x6x8 2x5x8 8x4 8x4 8x4"),
    "cache and new keys": Subgraph("attention", cache_and_new, "2x1x4 2x5x4 2x1x4 2x5x4 2x1x4"),
    "linear attention": Subgraph("attention", linear_attention, "2x6x4 2x6x4 2x6x4", linear_attention_the_long_way),
    "rope": Subgraph("rotary embeddings", rope, TURNED, rope_by_slices),
    "rope by a view": Subgraph("rotary embeddings", rope_by_view, "3x6x8 6x4 6x4", rope_by_view_and_parts),
    "rope interleaved": Subgraph("rotary embeddings", rope_interleaved, "3x6x8 6x4 6x4", rope_interleaved_whole),
    "rope, then scores": Subgraph("rotary embeddings", rope_scores, "3x6x8 3x6x8 6x8 6x8", rope_scores_by_products),
    "rope, then attention": Subgraph("rotary embeddings", rope_attention, "3x6x8 3x6x8 3x6x8 6x8 6x8"),
    "rope on half of a head": Subgraph("rotary embeddings", partial_rope, "3x6x8 6x4 6x4"),
    "residual chain": Subgraph("residuals and reductions", residual_chain, "3x8 8x8 8x8"),
    "norm, gates, residual": Subgraph("residuals and reductions", pre_norm_block, "3x8 8 8x6 8x6 6x8"),
    "low-rank update": Subgraph("residuals and reductions", lora, "3x8 8x5 8x2 2x5", lora_merged),
    "nGPT residual": Subgraph("residuals and reductions", ngpt, "3x8 3x8 8", ngpt_by_lerp),
    "chain of products": Subgraph("residuals and reductions", low_rank_chain, "3x8 8x2 2x5 5x4", other_association),
    "dense mixture of experts": Subgraph("residuals and reductions", experts, "3x8 8x4 4x8x5", experts_by_einsum),
    "weighted pooling": Subgraph("residuals and reductions", pooled, "2x6x8 2x6"),
    "squared distances": Subgraph("residuals and reductions", distances, "4x8 5x8", distances_by_products),
    "kernel regression": Subgraph("residuals and reductions", kernel_regression, "4x8 5x8 5x3"),
    "entropy": Subgraph("residuals and reductions", entropy, "3x8", entropy_by_log),
    "standardised columns": Subgraph("residuals and reductions", standardised, "6x8"),
    "covariance": Subgraph("residuals and reductions", covariance, "6x8"),
    "two poolings side by side": Subgraph("residuals and reductions", max_pool_tokens, "2x6x8"),
    "cross entropy": Subgraph("losses", cross_entropy, "6x8 8x7"),
    "cross entropy by parts": Subgraph("losses", cross_entropy_by_parts, "6x8 8x7"),
    "z loss": Subgraph("losses", z_loss, "3x8"),
    "contrastive loss": Subgraph("losses", contrastive, "6x8 6x8"),
    "distillation": Subgraph("losses", distilled, "3x8 3x8"),
    "dice loss": Subgraph("losses", dice, "3x8 3x8"),
    "focal loss": Subgraph("losses", focal, "3x8 3x8"),
    "huber loss": Subgraph("losses", lambda x, y: F.huber_loss(x, y), "3x8 3x8"),
    "bilinear form": Subgraph("einsum puzzles", bilinear, "3x4 5x4x6 3x6"),
    "norm of a product": Subgraph("einsum puzzles", two_traces, "3x4 4x5", lambda a, b: (a @ b).square().sum()),
    "outer and back": Subgraph("einsum puzzles", outer_and_back, "3 4 4", outer_and_back_by_dot),
    "gram matrix": Subgraph("einsum puzzles", gram, "2x3x4x5"),
    "product of sums": Subgraph(
        "einsum puzzles",
        lambda a, b: torch.einsum("ik,jl->ij", a, b),
        "3x4 5x6",
        lambda a, b: a.sum(1)[:, None] * b.sum(1),
    ),
    "largest two": Subgraph("not captured", top_two, "3x8", refused="aten.topk"),
    "embedding": Subgraph("not captured", looked_up, "3x8 2x5", refused="aten.embedding"),
    "running sum": Subgraph("not captured", scan, "3x8", refused="aten.cumsum"),
    "convolution": Subgraph("not captured", convolved, "2x3x8 4x3x3", refused="aten.conv1d"),
    "relative shift": Subgraph("not captured", relative_shift, "4x6", refused="used as one whole"),
}
"""By name."""
