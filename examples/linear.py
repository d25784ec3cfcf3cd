"""A plain matrix product, the smallest program there is to optimise: how is the work spread over the GPU?"""

from __future__ import annotations

import torch


def linear(x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """``x @ W``."""
    return x @ W


def inputs() -> tuple[torch.Tensor, ...]:
    """16 tokens of 4096 features, a weight with 6144 outputs."""
    return torch.randn(16, 4096, dtype=torch.bfloat16), torch.randn(4096, 6144, dtype=torch.bfloat16) / 64


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(linear, *inputs()).report())
