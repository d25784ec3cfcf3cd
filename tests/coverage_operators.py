"""The operators that capture understands, one line each, and what it refuses: the table behind ``docs/coverage.md``.

Every line is a plain torch function that is captured and compared with torch in float64 by ``test_coverage``.
"""

# pyright: reportUnknownLambdaType=false
# ruff: noqa: PLW0108 (a line shows how the operator is called)
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Function = (
    Callable[[Tensor], object]
    | Callable[[Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], object]
    | Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], object]
)
Line = tuple[Function, str]
"""A function and the shapes of its inputs, drawn from a normal distribution: ``3x5 5``."""

INF: Final = float("inf")
HEADS: Final = "2x2x4x8 2x2x5x8 2x2x5x6"


def _above(x: Tensor) -> Tensor:
    """Well above 0, for logarithms and roots."""
    return x * x + 0.5


def _classes(x: Tensor) -> Tensor:
    """Class numbers, one for each row."""
    return torch.arange(x.shape[0]) * 2


PRODUCTS: Final[Mapping[str, Line]] = {
    "matmul": (lambda x, w: x @ w, "2x3x5 5x4"),
    "matmul of vectors": (lambda x, y: x @ y, "5 5"),
    "matmul with broadcast batches": (lambda x, y: torch.matmul(x, y), "2x1x3x5 4x5x2"),
    "mm": (lambda x, w: torch.mm(x, w), "3x5 5x4"),
    "bmm": (lambda x, y: torch.bmm(x, y), "2x3x5 2x5x4"),
    "mv": (lambda x, v: torch.mv(x, v), "3x5 5"),
    "dot": (lambda x, y: torch.dot(x, y), "5 5"),
    "outer": (lambda x, y: torch.outer(x, y), "3 5"),
    "addmm": (lambda b, x, w: torch.addmm(b, x, w, alpha=2, beta=0.5), "4 3x5 5x4"),
    "addmv": (lambda b, x, v: torch.addmv(b, x, v), "3 3x5 5"),
    "addr": (lambda b, x, y: torch.addr(b, x, y), "3x5 3 5"),
    "baddbmm": (lambda b, x, y: torch.baddbmm(b, x, y), "2x3x4 2x3x5 2x5x4"),
    "linear": (lambda x, w, b: F.linear(x, w, b), "2x3x5 4x5 4"),
    "einsum": (lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k), "2x3x4x5 2x3x6x5"),
    "einsum with an ellipsis": (lambda x, w: torch.einsum("...k,kn->...n", x, w), "2x3x5 5x4"),
    "einsum of three": (lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), "2x3 3x4 4x5"),
    "einsum without an arrow": (lambda a, b: torch.einsum("ij,jk", a, b), "2x3 3x4"),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=1), "2x3x4 4x5"),
    "chain_matmul": (lambda a, b, c: torch.linalg.multi_dot([a, b, c]), "2x3 3x4 4x5"),
}

POINTWISE: Final[Mapping[str, Line]] = {
    "add": (lambda x, y: torch.add(x, y, alpha=2) + 1, "3x5 5"),
    "sub": (lambda x, y: 1 - torch.sub(x, y, alpha=3), "3x5 3x1"),
    "mul": (lambda x, y: x * y * 2, "3x5 5"),
    "div": (lambda x, y: x / _above(y) / 3 + 1 / _above(x), "3x5 5"),
    "neg": (lambda x: -x, "3x5"),
    "abs": (lambda x: x.abs(), "3x5"),
    "sign": (lambda x: torch.sign(x) + torch.sgn(x), "3x5"),
    "square": (lambda x: x.square(), "3x5"),
    "pow": (lambda x: x**3 + _above(x) ** -0.5 + _above(x) ** 1.5, "3x5"),
    "pow of a number": (lambda x: 2.0**x, "3x5"),
    "sqrt": (lambda x: torch.sqrt(_above(x)), "3x5"),
    "rsqrt": (lambda x: torch.rsqrt(_above(x)), "3x5"),
    "reciprocal": (lambda x: torch.reciprocal(_above(x)), "3x5"),
    "exp": (lambda x: torch.exp(x), "3x5"),
    "exp2": (lambda x: torch.exp2(x), "3x5"),
    "expm1": (lambda x: torch.expm1(x), "3x5"),
    "log": (lambda x: torch.log(_above(x)), "3x5"),
    "log2": (lambda x: torch.log2(_above(x)), "3x5"),
    "log10": (lambda x: torch.log10(_above(x)), "3x5"),
    "log1p": (lambda x: torch.log1p(_above(x)), "3x5"),
    "logaddexp": (lambda x, y: torch.logaddexp(x, y), "3x5 3x5"),
    "xlogy": (lambda x, y: torch.xlogy(x, _above(y)), "3x5 3x5"),
    "sin": (lambda x: torch.sin(x), "3x5"),
    "cos": (lambda x: torch.cos(x), "3x5"),
    "tan": (lambda x: torch.tan(x * 0.1), "3x5"),
    "sinh": (lambda x: torch.sinh(x), "3x5"),
    "cosh": (lambda x: torch.cosh(x), "3x5"),
    "tanh": (lambda x: torch.tanh(x), "3x5"),
    "erf": (lambda x: torch.erf(x), "3x5"),
    "erfc": (lambda x: torch.erfc(x), "3x5"),
    "sigmoid": (lambda x: torch.sigmoid(x), "3x5"),
    "log_sigmoid": (lambda x: F.logsigmoid(x), "3x5"),
    "hypot": (lambda x, y: torch.hypot(x, y), "3x5 3x5"),
    "maximum": (lambda x, y: torch.maximum(x, y) + torch.max(x, y) + torch.fmax(x, y), "3x5 5"),
    "minimum": (lambda x, y: torch.minimum(x, y) + torch.min(x, y) + torch.fmin(x, y), "3x5 5"),
    "clamp": (lambda x: x.clamp(-0.5, 0.7) + x.clamp_min(0.1) + x.clamp(max=0.2), "3x5"),
    "clamp to tensors": (lambda x, a: torch.clamp(x, min=a), "3x5 5"),
    "lerp": (lambda x, y, w: torch.lerp(x, y, w) + torch.lerp(x, y, 0.3), "3x5 3x5 5"),
    "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=0.5), "3x5 3x5 5"),
    "addcdiv": (lambda x, y, z: torch.addcdiv(x, y, _above(z), value=0.5), "3x5 3x5 5"),
    "heaviside": (lambda x, y: torch.heaviside(x, y), "3x5 3x5"),
    "relu": (lambda x: F.relu(x), "3x5"),
    "relu6": (lambda x: F.relu6(x * 9), "3x5"),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), "3x5"),
    "prelu": (lambda x, a: F.prelu(x, a), "2x3x5 3"),
    "elu": (lambda x: F.elu(x, 0.7), "3x5"),
    "celu": (lambda x: F.celu(x, 1.3), "3x5"),
    "selu": (lambda x: F.selu(x), "3x5"),
    "gelu": (lambda x: F.gelu(x), "3x5"),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), "3x5"),
    "silu": (lambda x: F.silu(x), "3x5"),
    "mish": (lambda x: F.mish(x), "3x5"),
    "softplus": (lambda x: F.softplus(x) + F.softplus(x, beta=2.0), "3x5"),
    "softsign": (lambda x: F.softsign(x), "3x5"),
    "softshrink": (lambda x: F.softshrink(x, 0.4), "3x5"),
    "hardshrink": (lambda x: F.hardshrink(x, 0.4), "3x5"),
    "tanhshrink": (lambda x: F.tanhshrink(x), "3x5"),
    "hardtanh": (lambda x: F.hardtanh(x, -0.3, 0.8), "3x5"),
    "hardsigmoid": (lambda x: F.hardsigmoid(x * 5), "3x5"),
    "hardswish": (lambda x: F.hardswish(x * 5), "3x5"),
    "threshold": (lambda x: F.threshold(x, 0.3, -2.0), "3x5"),
    "glu": (lambda x: F.glu(x, -1), "3x8"),
    "dropout outside of training": (lambda x: F.dropout(x, 0.5, training=False) * 2, "3x5"),
    "casts between floats": (lambda x: x.float().double() * 2 + x.to(torch.float64), "3x5"),
    "copies": (lambda x: x.clone().contiguous().detach() * 2, "3x5"),
}

CONDITIONS: Final[Mapping[str, Line]] = {
    "comparisons": (
        lambda x, y: (x < y) * x + (x <= y) * 2 + (x > y) * y + (x >= y) * 3 + (x == 0) * 5 + (x != y) * 7,
        "3x5 5",
    ),
    "where": (lambda x, y: torch.where(x > 0, x, y), "3x5 5"),
    "masked_fill": (lambda x, y: x.masked_fill(y > 0, 0.5), "3x5 5"),
    "logic": (lambda x, y: torch.where((x > 0) & ~(y > 0) | ((x > 1) ^ (y > 1)), x, -x), "3x5 5"),
    "any": (lambda x: torch.where((x > 1).any(-1, keepdim=True), x, -x), "3x5"),
    "all": (lambda x: torch.where((x > -1).all(-1, keepdim=True), x, -x), "3x5"),
    "tril": (lambda x: x.tril() + x.tril(-1), "5x5"),
    "triu": (lambda x: x.triu() + x.triu(1), "5x5"),
    "arange": (lambda x: x * torch.arange(5) + torch.arange(1.0, 3.5, 0.5, dtype=x.dtype), "3x5"),
    "linspace": (lambda x: x * torch.linspace(0.0, 1.0, 5, dtype=x.dtype), "3x5"),
    "eye": (lambda x: x @ torch.eye(5, dtype=x.dtype) + torch.eye(3, 5, dtype=x.dtype), "3x5"),
    "full, zeros, ones": (lambda x: x + torch.full((5,), 2.5) + torch.zeros(5) + torch.ones_like(x), "3x5"),
    "additive mask of minus infinity": (
        lambda x: torch.softmax(x + torch.full((5, 5), -INF, dtype=x.dtype).triu(1), -1),
        "5x5",
    ),
    "mask by lengths": (
        lambda x: torch.softmax(x.masked_fill(torch.arange(5)[None, :] >= 2 + torch.arange(3)[:, None], -INF), -1),
        "3x5",
    ),
}

REDUCTIONS: Final[Mapping[str, Line]] = {
    "sum": (lambda x: x.sum() + x.sum((0, 2)).sum(0, keepdim=True), "2x3x5"),
    "mean": (lambda x: x.mean(-1) + x.mean(), "2x3x5"),
    "amax": (lambda x: x.amax(-1) + x.amax((0, 1, 2)), "2x3x5"),
    "amin": (lambda x: x.amin(-1) + x.amin((0, 1, 2)), "2x3x5"),
    "max": (lambda x: x.max(-1).values + x.max(), "3x5"),
    "min": (lambda x: x.min(-1).values + x.min(), "3x5"),
    "aminmax": (lambda x: torch.aminmax(x, dim=-1).max - torch.aminmax(x, dim=-1).min, "3x5"),
    "var": (lambda x: x.var(-1) + x.var((0, 1), correction=0), "3x5"),
    "std": (lambda x: x.std(-1) + x.std(-1, unbiased=False), "3x5"),
    "var_mean": (lambda x: sum(torch.var_mean(x, -1)), "3x5"),
    "norm": (lambda x: x.norm(dim=-1) + torch.linalg.vector_norm(x, dim=-1), "3x5"),
    "norm of order 1 and infinity": (lambda x: x.norm(1, dim=-1) + torch.linalg.vector_norm(x, INF, dim=-1), "3x5"),
    "logsumexp": (lambda x: torch.logsumexp(x, -1), "3x5"),
    "softmax": (lambda x: torch.softmax(x, -1) + x.softmax(0) + F.softmin(x, -1), "3x5"),
    "log_softmax": (lambda x: F.log_softmax(x, -1), "3x5"),
}

NORMS: Final[Mapping[str, Line]] = {
    "rms_norm": (lambda x, g: F.rms_norm(x, (5,), g, 1e-6) + F.rms_norm(x, (5,)), "3x5 5"),
    "layer_norm": (lambda x, g, b: F.layer_norm(x, (5,), g, b, 1e-5), "3x5 5 5"),
    "layer_norm over two dimensions": (lambda x: F.layer_norm(x, (3, 5)), "2x3x5"),
    "group_norm": (lambda x, g, b: F.group_norm(x, 2, g, b), "2x6x5 6 6"),
    "instance_norm": (lambda x, g, b: F.instance_norm(x, weight=g, bias=b), "2x3x5 3 3"),
    "batch_norm outside of training": (lambda x, m, v, g, b: F.batch_norm(x, m, _above(v), g, b), "2x3x5 3 3 3 3"),
    "normalize": (lambda x: F.normalize(x, dim=-1), "3x5"),
    "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y, dim=-1), "3x5 3x5"),
}

ATTENTION: Final[Mapping[str, Line]] = {
    "scaled_dot_product_attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), HEADS),
    "with a scale": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), HEADS),
    "causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), HEADS),
    "with an additive mask": (lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), HEADS + " 4x5"),
    "with a Boolean mask": (lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m > -0.5), HEADS + " 4x5"),
    "with rows that see nothing": (
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, torch.arange(5)[None, :] + 2 < 2 * torch.arange(4)[:, None]
        ),
        HEADS,
    ),
    "causal and padded": (
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, torch.ones(4, 5, dtype=torch.bool).tril() & (torch.arange(5) < 3)
        ),
        HEADS,
    ),
    "with grouped heads": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        "2x6x4x8 2x3x5x8 2x3x5x8",
    ),
}

VIEWS: Final[Mapping[str, Line]] = {
    "view": (lambda x: x.view(2, 3, 2, 4).sum(2), "2x3x8"),
    "reshape": (lambda x: (x * 2).reshape(6, 8), "2x3x8"),
    "flatten": (lambda x: (x * 2).flatten(1), "2x3x8"),
    "unflatten": (lambda x: x.unflatten(-1, (2, 4)).amax(-1), "2x3x8"),
    "permute": (lambda x: (x * 2).permute(2, 0, 1), "2x3x5"),
    "transpose": (lambda x: x.transpose(0, 1) * 2 + x.T * 3, "3x5"),
    "mT": (lambda x: x.mT * 2 + x.swapaxes(-1, -2), "2x3x5"),
    "movedim": (lambda x: x.movedim(0, -1) * 2, "2x3x5"),
    "unsqueeze and squeeze": (lambda x: (x.unsqueeze(1) * 2).squeeze(1) + x[:, None].squeeze(), "3x5"),
    "expand": (lambda x, y: x[:, None].expand(3, 4, 5) * y, "3x5 3x4x5"),
    "broadcast_to": (lambda x, y: torch.broadcast_to(x, (3, 5)) * y, "5 3x5"),
    "repeat": (lambda x: x.repeat(2, 3) * 2, "3x5"),
    "tile": (lambda x: x.tile(3) * 2, "3x5"),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, dim=1) * 2, "3x5"),
    "select": (lambda x: x[1] * x[-1], "3x5"),
    "slice": (lambda x: x[:, 1:4] * x[:, :3], "3x5"),
    "narrow": (lambda x: x.narrow(1, 1, 3) * 2, "3x5"),
    "split": (lambda x: sum(x.split(2, -1)), "3x8"),
    "split by sizes": (lambda x, w: (x @ w).split([6, 2], -1)[0].sum(-1), "3x5 5x8"),
    "chunk": (lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1], "3x8"),
    "unbind": (lambda x: x.unbind(1)[0] * x.unbind(1)[2], "2x3x5"),
    "cat": (lambda x, y: torch.cat((x, y * 2), -1) + 1, "3x4 3x4"),
    "cat, then a reduction": (lambda x, y: torch.cat((x, y), -1).softmax(-1)[:, :4], "3x4 3x6"),
    "stack": (lambda x, y: torch.stack((x, y), 1) * 2, "3x4 3x4"),
    "hstack and vstack": (lambda x, y: torch.hstack((x, y)) * 2 + torch.vstack((x, y)).sum(), "3x4 3x4"),
    "pad, then a reduction": (lambda x: F.pad(x, (1, 2), value=0.5).square().sum(-1), "3x5"),
}

LOSSES: Final[Mapping[str, Line]] = {
    "mse_loss": (lambda x, t: F.mse_loss(x, t) + F.mse_loss(x, t, reduction="sum"), "3x5 3x5"),
    "l1_loss": (lambda x, t: F.l1_loss(x, t, reduction="none"), "3x5 3x5"),
    "smooth_l1_loss": (lambda x, t: F.smooth_l1_loss(x, t, beta=0.7), "3x5 3x5"),
    "huber_loss": (lambda x, t: F.huber_loss(x, t, delta=0.7), "3x5 3x5"),
    "kl_div": (lambda x, t: F.kl_div(F.log_softmax(x, -1), torch.softmax(t, -1), reduction="sum"), "3x5 3x5"),
    "binary_cross_entropy_with_logits": (
        lambda x, t: F.binary_cross_entropy_with_logits(x, torch.sigmoid(t)),
        "3x5 3x5",
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, _classes(x)), "3x5"),
    "cross_entropy of probabilities": (lambda x, t: F.cross_entropy(x, torch.softmax(t, -1)), "3x5 3x5"),
    "cross_entropy with smoothing": (lambda x: F.cross_entropy(x, _classes(x), label_smoothing=0.1), "3x5"),
    "cross_entropy per row": (lambda x: F.cross_entropy(x, _classes(x), reduction="none"), "3x5"),
    "cross_entropy with ignored rows": (
        lambda x: F.cross_entropy(x, torch.where(torch.arange(3) < 1, -100, _classes(x))),
        "3x5",
    ),
}

GROUPS: Final[Mapping[str, Mapping[str, Line]]] = {
    "Matrix products": PRODUCTS,
    "Element by element": POINTWISE,
    "Conditions, masks and constant tensors": CONDITIONS,
    "Reductions": REDUCTIONS,
    "Norms": NORMS,
    "Attention (`scaled_dot_product_attention`)": ATTENTION,
    "Views and parts": VIEWS,
    "Losses": LOSSES,
}
"""Every line by its group and name."""

REFUSED: Final[Mapping[str, tuple[Function, str, str]]] = {
    "rounding: `floor`, `round`, `ceil`, `trunc`": (lambda x: x.floor(), "3x5", "aten.floor"),
    "remainders: `fmod`, `remainder`": (lambda x: torch.remainder(x, 2), "3x5", "aten.remainder"),
    "division that rounds": (lambda x: torch.div(x, 2, rounding_mode="floor"), "3x5", "it rounds"),
    "casts from floats to integers": (lambda x: x.int().float(), "3x5", "turns real numbers into int32"),
    "products over an axis: `prod`, `cumprod`": (lambda x: x.prod(-1), "3x5", "aten.prod"),
    "running sums: `cumsum`, `logcumsumexp`": (lambda x: x.cumsum(-1), "3x5", "aten.cumsum"),
    "sorting: `sort`, `topk`, `median`, `kthvalue`": (lambda x: x.sort(-1).values, "3x5", "aten.sort"),
    "indices: `argmax`, `argmin`": (lambda x: x.argmax(-1) * x[:, 0], "3x5", "aten.argmax"),
    "gathering: `gather`, `index_select`, `embedding`, `x[indices]`": (
        lambda x: x[:, torch.tensor([1, 0])] * 2,
        "3x5",
        "reads a tensor that is not one of its inputs",
    ),
    "scattering: `scatter`, `index_add`": (
        lambda x, y: x.scatter_add(1, (y > 0).long(), y),
        "3x5 3x5",
        "aten.scatter_add",
    ),
    "shifts and reversals: `roll`, `flip`": (lambda x: torch.roll(x, 1, -1), "3x5", "aten.roll"),
    "every second element: `x[::2]`": (lambda x: x[:, ::2] * 2, "3x5", "every few indices"),
    "diagonals: `diagonal`, `trace`, `einsum('ii')`": (lambda x: torch.einsum("ii->i", x), "3x3", "a diagonal"),
    "convolutions and pooling": (lambda x, w: F.conv1d(x, w), "2x3x8 4x3x3", "aten.conv1d"),
    "powers but integers and halves": (lambda x: x.abs() ** 0.3, "3x5", "the exponent is 3/10"),
    "norms of order 3": (lambda x: x.norm(3, dim=-1), "3x5", "the norm of order 3"),
    "NaN and infinity: `nan_to_num`, `isnan`": (lambda x: torch.nan_to_num(x), "3x5", "aten.nan_to_num"),
    "random numbers: `dropout` in training, `rand`": (lambda x: F.dropout(x, 0.5), "3x5", "random"),
    "SDPA with a mask and `is_causal`": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, is_causal=True),
        HEADS + " 4x5",
        "Explicit attn_mask should not be set when is_causal=True",
    ),
    "reshapes without a common refinement": (lambda x: x.reshape(5, 3) * 2, "3x5", "no common refinement"),
    "unequal parts joined and used as a whole": (
        lambda x, y: torch.cat((x, y), -1) * 2,
        "3x4 3x6",
        "joined from parts of 4 and 6",
    ),
    "control flow by contents": (lambda x: x * 2 if x.sum() > 0 else x, "3x5", "decides by the contents"),
    "complex numbers": (lambda x: torch.view_as_complex(x.unflatten(-1, (4, 2))).abs(), "3x8", "view_as_complex"),
    "changes to an input in place": (lambda x: x.add_(1), "3x5", "in place"),
}
"""What capture refuses, with an example and a part of its message."""


def shapes_of(text: str) -> list[tuple[int, ...]]:
    """``3x5 5`` as shapes."""
    return [tuple(map(int, shape.split("x"))) for shape in text.split()]
