"""A linear layer with a low-rank adapter beside it: a full product and two thin ones.

Sizes are those of an 8-billion-parameter model decoding 16 tokens, with an adapter of rank 16.
"""

from __future__ import annotations

import torch


def lora(
    x: torch.Tensor,
    W: torch.Tensor,  # noqa: N803
    A: torch.Tensor,  # noqa: N803
    B: torch.Tensor,  # noqa: N803
    scale: float = 2.0,
) -> torch.Tensor:
    """``x @ W + scale * (x @ A) @ B``."""
    return x @ W + scale * ((x @ A) @ B)


def inputs() -> tuple[torch.Tensor, ...]:
    """16 tokens, a weight, and the two factors of the adapter."""
    x = torch.randn(16, 4096, dtype=torch.bfloat16)
    weight = torch.randn(4096, 6144, dtype=torch.bfloat16) / 64
    down = torch.randn(4096, 16, dtype=torch.bfloat16) / 64
    up = torch.randn(16, 6144, dtype=torch.bfloat16) / 4
    return x, weight, down, up


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(lora, *inputs()).report())
