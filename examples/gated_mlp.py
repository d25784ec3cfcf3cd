"""The gated half of a Llama MLP: two projections of the same input, one of them through SiLU.

Sizes are those of an 8-billion-parameter model decoding 16 tokens: hidden size 4096, 14336 features inside.
"""

from __future__ import annotations

import torch
from torch.nn.functional import silu


def gated_mlp(x: torch.Tensor, w_gate: torch.Tensor, w_up: torch.Tensor) -> torch.Tensor:
    """``silu(x @ w_gate) * (x @ w_up)``."""
    return silu(x @ w_gate) * (x @ w_up)


def inputs() -> tuple[torch.Tensor, ...]:
    """16 tokens and two weights."""
    x = torch.randn(16, 4096, dtype=torch.bfloat16)
    # Drawing all 117 million weights takes seconds; an example may repeat a block of them.
    block = torch.randn(4096, 1024, dtype=torch.bfloat16) / 64
    return x, block.repeat(1, 14), block.flip(0).repeat(1, 14)


if __name__ == "__main__":
    import prism

    print(prism.superoptimize(gated_mlp, *inputs()).report())
