"""Residual addition and RMSNorm with two results: the sum goes on along the residual stream, the norm into a layer."""

from __future__ import annotations

import torch


def add_rmsnorm(
    x: torch.Tensor, r: torch.Tensor, g: torch.Tensor, eps: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """``h = x + r`` and ``h / rms(h) * g``."""
    h = x + r
    return h, h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps) * g


def inputs() -> tuple[torch.Tensor, ...]:
    """2048 tokens, their residual stream and a gain."""
    x = torch.randn(2048, 4096, dtype=torch.bfloat16)
    r = torch.randn(2048, 4096, dtype=torch.bfloat16)
    g = torch.randn(4096, dtype=torch.bfloat16)
    return x, r, g


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(add_rmsnorm, *inputs()).report())
