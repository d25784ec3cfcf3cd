"""The programs that Prism is measured on, as plain torch functions with the shapes people run them at.

Each has gains, eps, scales and masks as real models do. ``M`` rows (tokens), ``B`` sequences, ``L`` cached tokens
are symbolic; every other extent is a constant of the model. The paper's five are weightless and scale-free, for
comparison with Prism and Mirage (arXiv 2604.15272, evaluation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

EPS: Final = 1e-6

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Workload:
    """One program, its tensors and the sizes it is reported at."""

    name: str
    """Its identifier in every table."""
    function: Callable[..., object]
    """The torch function."""
    shapes: Mapping[str, tuple[str | int, ...]]
    """Shape of each parameter, in order; a name stands for a symbolic extent."""
    points: tuple[Sizes, ...]
    """Sizes of the symbolic extents that are reported."""
    small: Sizes
    """Every extent, constants of the model included, at sizes that can be checked exhaustively."""
    sets: frozenset[Literal["core", "paper", "more"]] = frozenset({"core"})
    """Which runs include it."""
    ragged: tuple[Sizes, ...] = ()
    """Sizes that divide no tile."""
    model: Sizes = field(default_factory=dict[str, int])
    """The named extents that are constants of the model."""

    def extents(self, point: Sizes) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter at a point."""
        known = {**self.model, **point}
        return {
            name: tuple(known[s] if isinstance(s, str) else s for s in shape) for name, shape in self.shapes.items()
        }

    def inputs(
        self,
        point: Sizes,
        *,
        dtype: torch.dtype = torch.bfloat16,
        device: str = "cpu",
        seed: int = 0,
    ) -> tuple[Tensor, ...]:
        """Normal draws, one tensor per parameter; ``device="meta"`` draws nothing."""
        shapes = self.extents(point).values()
        if device == "meta":
            return tuple(torch.empty(s, dtype=dtype, device="meta") for s in shapes)
        random = torch.Generator(device).manual_seed(seed)
        return tuple(torch.randn(s, dtype=dtype, device=device, generator=random) for s in shapes)

    def symbolic(self) -> dict[str, tuple[str | int, ...]]:
        """The shapes with the constants of the model filled in and the symbolic extents left as names."""
        return {
            name: tuple(self.model.get(s, s) if isinstance(s, str) else s for s in shape)
            for name, shape in self.shapes.items()
        }


def rmsnorm(x: Tensor, g: Tensor) -> Tensor:
    """Root-mean-square norm over the last axis, with gain."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * g


def rmsnorm_linear(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """RMSNorm, then a projection."""
    return rmsnorm(x, g) @ w


def gated_mlp(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """SwiGLU without its down projection."""
    return F.silu(x @ gate) * (x @ up)


def gated_mlp_gelu(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """GeGLU without its down projection."""
    return F.gelu(x @ gate, approximate="tanh") * (x @ up)


def rmsnorm_gated_mlp(x: Tensor, g: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """RMSNorm, then SwiGLU."""
    return gated_mlp(rmsnorm(x, g), gate, up)


def rmsnorm_mlp(x: Tensor, g: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """RMSNorm, SwiGLU and the down projection."""
    return rmsnorm_gated_mlp(x, g, gate, up) @ down


def lora(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A projection with a low-rank update scaled by 2."""
    return x @ w + 2.0 * (x @ a) @ b


def add_rmsnorm(x: Tensor, r: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Residual and its norm, both returned."""
    h = x + r
    return h, rmsnorm(h, g)


def softmax(x: Tensor) -> Tensor:
    """Safe softmax over the last axis."""
    return torch.softmax(x, -1)


def layernorm(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """Layer norm with gain and bias."""
    return F.layer_norm(x, (x.shape[-1],), g, b, EPS)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True))


def ngpt_residual(h: Tensor, x: Tensor, a: Tensor) -> Tensor:
    """The residual update of nGPT: norms are L2, the step is per channel."""
    return _unit(h + a * (_unit(x) - h))


def gqa_decode(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query token over cached keys and values, heads in groups."""
    scores = torch.einsum("bhgd,blhd->bhgl", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhgl,blhd->bhgd", torch.softmax(scores, -1), v)


def qknorm_attention(q: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor) -> Tensor:
    """RMSNorm on queries and keys per head, then ``gqa_decode``."""
    return gqa_decode(rmsnorm(q, q_gain), rmsnorm(k, k_gain), v)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over several query tokens, heads in groups."""
    scores = torch.einsum("bihgd,bjhd->bhgij", q, k) * q.shape[-1] ** -0.5
    later = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).triu(1)
    weights = torch.softmax(scores.masked_fill(later, float("-inf")), -1)
    return torch.einsum("bhgij,bjhd->bihgd", weights, v)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention over several query tokens with an additive mask."""
    scores = torch.einsum("bihgd,bjhd->bhgij", q, k) * q.shape[-1] ** -0.5 + mask
    return torch.einsum("bhgij,bjhd->bihgd", torch.softmax(scores, -1), v)


def entropy_chain(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """Entropy of the softmax of a layer norm, per row."""
    z = layernorm(x, g, b)
    return torch.logsumexp(z, -1) - (torch.softmax(z, -1) * z).sum(-1)


def elementwise_chain(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, g: Tensor) -> Tensor:
    """Gated activations of one tensor, then a norm."""
    return rmsnorm(F.gelu(x * a + b, approximate="tanh") * torch.sigmoid(x * c) + torch.tanh(x + d), g)


def softmax_chain(x: Tensor) -> Tensor:
    """Softmax, layer norm, softmax."""
    return torch.softmax(F.layer_norm(torch.softmax(x, -1), (x.shape[-1],), eps=EPS), -1)


def rope_scores(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding by halves on queries and keys, then their products."""
    return torch.einsum("bhgd,blhd->bhgl", _rotate(q, cos[-1], sin[-1]), _rotate(k, cos[:, None], sin[:, None]))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def paper_rms_norm(x: Tensor, w: Tensor) -> Tensor:
    """RMSNorm without gain and eps, then a projection."""
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True))) @ w


def paper_rmsnorm_mlp(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """RMSNorm, then the product of two projections, no activation."""
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True))
    return (normed @ gate) * (normed @ up)


def paper_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without a scale."""
    return torch.softmax(q @ k.transpose(-1, -2), -1) @ v


def paper_qk_norm_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """RMSNorm of queries and keys without gain and eps, then attention."""
    norm_q = q * torch.rsqrt(q.square().mean(-1, keepdim=True))
    norm_k = k * torch.rsqrt(k.square().mean(-1, keepdim=True))
    return paper_attention(norm_q, norm_k, v)


def _rows(*rows: int) -> tuple[Sizes, ...]:
    return tuple({"M": m} for m in rows)


_RAGGED_ROWS: Final = _rows(3, 131, 997)
_SMALL: Final = {"M": 3, "k": 5, "n": 4, "r": 2}
_HEADS: Final = {"H": 8, "G": 4, "D": 128}
_SMALL_HEADS: Final = {"B": 2, "L": 5, "S": 3, "H": 2, "G": 2, "D": 4}
_PAPER: Final = frozenset[Literal["core", "paper", "more"]]({"paper"})
_MORE: Final = frozenset[Literal["core", "paper", "more"]]({"more"})
_QKV: Final = {"q": ("B", "H", "G", "D"), "k": ("B", "L", "H", "D"), "v": ("B", "L", "H", "D")}
_PREFILL: Final = {"q": ("B", "S", "H", "G", "D"), "k": ("B", "S", "H", "D"), "v": ("B", "S", "H", "D")}
_PAPER_ROWS: Final = ({"M": 8, "k": 1024}, {"M": 8, "k": 4096}, {"M": 16, "k": 4096})
_PAPER_HEADS: Final = tuple({"B": 2, "H": h, "S": 1, "L": 1024, "D": 128} for h in (8, 32))
_PAPER_QKV: Final = {"q": ("B", "H", "S", "D"), "k": ("B", "H", "L", "D"), "v": ("B", "H", "L", "D")}
_PAPER_SMALL: Final = {"B": 2, "H": 2, "S": 3, "L": 5, "D": 4}

WORKLOADS: Final[Mapping[str, Workload]] = {
    w.name: w
    for w in (
        Workload(
            "rmsnorm_linear",
            rmsnorm_linear,
            {"x": ("M", "k"), "g": ("k",), "w": ("k", "n")},
            _rows(1, 8, 16, 64, 2048),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096, "n": 6144},
        ),
        Workload(
            "gated_mlp",
            gated_mlp,
            {"x": ("M", "k"), "gate": ("k", "n"), "up": ("k", "n")},
            _rows(1, 8, 16, 64, 2048),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096, "n": 14336},
        ),
        Workload(
            "gated_mlp_gelu",
            gated_mlp_gelu,
            {"x": ("M", "k"), "gate": ("k", "n"), "up": ("k", "n")},
            _rows(1, 16),
            _SMALL,
            _MORE,
            ragged=_RAGGED_ROWS,
            model={"k": 4096, "n": 14336},
        ),
        Workload(
            "rmsnorm_gated_mlp",
            rmsnorm_gated_mlp,
            {"x": ("M", "k"), "g": ("k",), "gate": ("k", "n"), "up": ("k", "n")},
            _rows(1, 8, 16, 64),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096, "n": 14336},
        ),
        Workload(
            "rmsnorm_mlp",
            rmsnorm_mlp,
            {"x": ("M", "k"), "g": ("k",), "gate": ("k", "n"), "up": ("k", "n"), "down": ("n", "p")},
            _rows(16),
            {**_SMALL, "p": 3},
            _MORE,
            ragged=_RAGGED_ROWS,
            model={"k": 4096, "n": 14336, "p": 4096},
        ),
        Workload(
            "lora",
            lora,
            {"x": ("M", "k"), "w": ("k", "n"), "a": ("k", "r"), "b": ("r", "n")},
            tuple({"M": m, "r": r} for r in (16, 64) for m in (1, 16, 64, 2048)),
            _SMALL,
            ragged=tuple({**p, "r": 16} for p in _RAGGED_ROWS),
            model={"k": 4096, "n": 6144},
        ),
        Workload(
            "add_rmsnorm",
            add_rmsnorm,
            {"x": ("M", "k"), "r": ("M", "k"), "g": ("k",)},
            _rows(1, 64, 2048, 8192),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096},
        ),
        Workload(
            "softmax",
            softmax,
            {"x": ("M", "k")},
            ({"M": 4096, "k": 8192}, {"M": 64, "k": 128256}),
            _SMALL,
            ragged=({"M": 3, "k": 997},),
        ),
        Workload(
            "layernorm",
            layernorm,
            {"x": ("M", "k"), "g": ("k",), "b": ("k",)},
            _rows(2048),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096},
        ),
        Workload(
            "ngpt_residual",
            ngpt_residual,
            {"h": ("M", "k"), "x": ("M", "k"), "a": ("k",)},
            _rows(8, 64, 8192),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096},
        ),
        Workload(
            "gqa_decode",
            gqa_decode,
            _QKV,
            tuple({"B": b, "L": 8192} for b in (1, 8, 16, 64)),
            _SMALL_HEADS,
            ragged=tuple({"B": 1, "L": n} for n in (1, 100, 4097, 8191)),
            model=_HEADS,
        ),
        Workload(
            "gqa_decode_16_2",
            gqa_decode,
            _QKV,
            ({"B": 16, "L": 8192},),
            _SMALL_HEADS,
            _MORE,
            ragged=tuple({"B": 1, "L": n} for n in (1, 100, 4097, 8191)),
            model={"H": 2, "G": 8, "D": 128},
        ),
        Workload(
            "qknorm_attention",
            qknorm_attention,
            {**_QKV, "q_gain": ("D",), "k_gain": ("D",)},
            tuple({"B": b, "L": 4096} for b in (1, 16)),
            _SMALL_HEADS,
            ragged=tuple({"B": 1, "L": n} for n in (1, 100, 4097, 8191)),
            model=_HEADS,
        ),
        Workload(
            "causal_attention",
            causal_attention,
            _PREFILL,
            tuple({"B": 1, "S": s} for s in (2048, 4096)),
            _SMALL_HEADS,
            ragged=({"B": 1, "S": 100},),
            model=_HEADS,
        ),
        Workload(
            "masked_attention",
            masked_attention,
            {**_PREFILL, "mask": ("S", "S")},
            tuple({"B": 1, "S": s} for s in (2048, 4096)),
            _SMALL_HEADS,
            ragged=({"B": 1, "S": 100},),
            model=_HEADS,
        ),
        Workload(
            "entropy_chain",
            entropy_chain,
            {"x": ("M", "k"), "g": ("k",), "b": ("k",)},
            _rows(8, 128, 512),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096},
        ),
        Workload(
            "elementwise_chain",
            elementwise_chain,
            {"x": ("M", "k"), **dict.fromkeys("abcdg", ("k",))},
            _rows(8, 128, 512),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096},
        ),
        Workload(
            "softmax_chain",
            softmax_chain,
            {"x": ("M", "k")},
            _rows(128, 512),
            _SMALL,
            ragged=_RAGGED_ROWS,
            model={"k": 4096},
        ),
        Workload(
            "rope_scores",
            rope_scores,
            {"q": ("B", "H", "G", "D"), "k": ("B", "L", "H", "D"), "cos": ("L", "D"), "sin": ("L", "D")},
            tuple({"B": b, "L": 4096} for b in (1, 16)),
            _SMALL_HEADS,
            _MORE,
            model=_HEADS,
        ),
        Workload("paper_rms_norm", paper_rms_norm, {"x": ("M", "k"), "w": ("k", "k")}, _PAPER_ROWS, _SMALL, _PAPER),
        Workload(
            "paper_rmsnorm_mlp",
            paper_rmsnorm_mlp,
            {"x": ("M", "k"), "gate": ("k", "k"), "up": ("k", "k")},
            _PAPER_ROWS,
            _SMALL,
            _PAPER,
        ),
        Workload(
            "paper_swiglu",
            gated_mlp,
            {"x": ("M", "k"), "gate": ("k", "k"), "up": ("k", "k")},
            _PAPER_ROWS,
            _SMALL,
            _PAPER,
        ),
        Workload("paper_attention", paper_attention, _PAPER_QKV, _PAPER_HEADS, _PAPER_SMALL, _PAPER),
        Workload("paper_qk_norm_attention", paper_qk_norm_attention, _PAPER_QKV, _PAPER_HEADS, _PAPER_SMALL, _PAPER),
    )
}
"""Every workload by name. A check may run ``inputs(w.small)``; a model is asked about ``w.points``."""
