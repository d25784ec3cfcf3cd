"""Attention with RMSNorm on queries and keys per head, as in Qwen3, while decoding one token.

Sizes are those of Qwen3-8B: 32 query heads in 8 groups of 4, 128 features per head.
"""

from __future__ import annotations

import torch
from torch.nn.functional import rms_norm


def qknorm_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_gain: torch.Tensor,
    k_gain: torch.Tensor,
    eps: float = 1e-6,
) -> torch.Tensor:
    """``softmax(norm(q) @ norm(k).T / sqrt(128)) @ v`` for each query head."""
    width = q.shape[-1]
    queries, keys = rms_norm(q, (width,), q_gain, eps), rms_norm(k, (width,), k_gain, eps)
    scores = torch.einsum("bhgd,blhd->bhgl", queries, keys) * width**-0.5
    return torch.einsum("bhgl,blhd->bhgd", torch.softmax(scores, dim=-1), v)


def inputs() -> tuple[torch.Tensor, ...]:
    """16 sequences: one query token each, 4096 cached keys and values, a gain for queries and one for keys."""
    q = torch.randn(16, 8, 4, 128, dtype=torch.bfloat16)
    # Drawing 134 million numbers takes seconds; an example may repeat a block of them.
    block = torch.randn(16, 512, 8, 128, dtype=torch.bfloat16)
    gains = torch.randn(2, 128, dtype=torch.bfloat16)
    return q, block.repeat(1, 8, 1, 1), block.flip(0).repeat(1, 8, 1, 1), gains[0], gains[1]


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(qknorm_attention, *inputs()).report())
