"""LayerNorm with gain and bias, then a linear layer: the input of an attention or MLP block of older transformers.

Sizes: 16 tokens, hidden size 4096, 6144 output features.
"""

from __future__ import annotations

import torch
from torch.nn.functional import layer_norm


def layernorm_linear(
    x: torch.Tensor,
    g: torch.Tensor,
    b: torch.Tensor,
    W: torch.Tensor,  # noqa: N803
    eps: float = 1e-5,
) -> torch.Tensor:
    """``layer_norm(x, g, b) @ W``."""
    return layer_norm(x, (x.shape[-1],), g, b, eps) @ W


def inputs() -> tuple[torch.Tensor, ...]:
    """16 tokens, a gain, a bias and a weight."""
    x = torch.randn(16, 4096, dtype=torch.bfloat16)
    g = torch.randn(4096, dtype=torch.bfloat16)
    b = torch.randn(4096, dtype=torch.bfloat16)
    weight = torch.randn(4096, 6144, dtype=torch.bfloat16) / 64
    return x, g, b, weight


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(layernorm_linear, *inputs()).report())
