"""Attention while a language model decodes one token: grouped heads, a long cache of keys and values.

Sizes are those of an 8-billion-parameter model with 32 query heads in 8 groups of 4; a group shares its keys and
values. Query heads come as [8, 4], because Prism keeps one axis per dimension of an input.
"""

from __future__ import annotations

import torch


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """``softmax(q @ k.T / sqrt(128)) @ v`` for each query head."""
    scores = torch.einsum("bhgd,blhd->bhgl", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhgl,blhd->bhgd", torch.softmax(scores, dim=-1), v)


def inputs() -> tuple[torch.Tensor, ...]:
    """8 sequences: one query token each, 8192 cached keys and values."""
    q = torch.randn(8, 8, 4, 128, dtype=torch.bfloat16)
    # Drawing 134 million numbers takes seconds; an example may repeat a block of them.
    block = torch.randn(8, 1024, 8, 128, dtype=torch.bfloat16)
    return q, block.repeat(1, 8, 1, 1), block.flip(0).repeat(1, 8, 1, 1)


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(attention, *inputs()).report())
