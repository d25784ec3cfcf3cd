"""RMSNorm with gain, then a linear layer: the input of an attention or MLP block of a language model.

Sizes are those of an 8-billion-parameter model decoding 16 tokens: hidden size 4096, 6144 output features.
"""

from __future__ import annotations

import torch


def rmsnorm_linear(x: torch.Tensor, g: torch.Tensor, W: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:  # noqa: N803
    """``(x / rms(x) * g) @ W`` with the root mean square over the last dimension."""
    normalised = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * g
    return normalised @ W


def inputs() -> tuple[torch.Tensor, ...]:
    """16 tokens, a gain and a weight."""
    x = torch.randn(16, 4096, dtype=torch.bfloat16)
    g = torch.randn(4096, dtype=torch.bfloat16)
    weight = torch.randn(4096, 6144, dtype=torch.bfloat16) / 64
    return x, g, weight


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(rmsnorm_linear, *inputs()).report())
