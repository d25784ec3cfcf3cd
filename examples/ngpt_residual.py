"""The residual step of nGPT: move from one point of the unit sphere towards another, then back onto the sphere.

Sizes: 8192 tokens of hidden size 4096, a step size for each feature.
"""

from __future__ import annotations

import torch


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Each row over its Euclidean length."""
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True))


def ngpt_residual(h: torch.Tensor, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """``norm(h + a * (norm(x) - h))``."""
    return _unit(h + a * (_unit(x) - h))


def inputs() -> tuple[torch.Tensor, ...]:
    """8192 tokens, the output of a layer for each, and step sizes."""
    h = torch.randn(8192, 4096, dtype=torch.bfloat16)
    x = torch.randn(8192, 4096, dtype=torch.bfloat16)
    a = torch.rand(4096, dtype=torch.bfloat16)
    return h, x, a


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(ngpt_residual, *inputs()).report())
