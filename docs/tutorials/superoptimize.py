# %% [markdown]
# # Superoptimize a subgraph
#
# A function of tensors goes in; a callable with its evidence comes out. Nothing here needs a GPU: for a GPU that is
# not present, times are modelled and everything else (search, proof, emitted source, exact evaluation, numerics in the
# interpreter) is real.

# %%
from pathlib import Path

import torch

import prism


def gated_norm(x: torch.Tensor, gain: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """RMSNorm with a gain, times a sigmoid gate."""
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain
    return normed * torch.sigmoid(gate)


inputs = (torch.randn(16, 256), torch.randn(256), torch.randn(16, 256))

# %% [markdown]
# `target` names a device; without it, the GPU is taken if there is one and else this CPU. `effort` is `quick`,
# `default` or `max`. `out` is the folder of the run: report, source, plan, certificate, all as plain files.

# %%
fast = prism.superoptimize(gated_norm, *inputs, target="h200", effort="quick", out=Path("runs/gated_norm"))
print(fast.report())

# %% [markdown]
# The result is called in place of the function. On CPU tensors it runs the same plan as torch code; on the GPU it
# launches the Triton source. An input that the proof does not cover runs the original function, with a warning.

# %%
torch.testing.assert_close(fast(*inputs), gated_norm(*inputs), rtol=1e-4, atol=1e-4)

# %% [markdown]
# `fast.source` is the kernel, meant to be read; `fast.verdict` says what was proved and which facts it rests on.
# `prism report runs/gated_norm` writes all of it as one HTML page.

# %%
print(fast.source)
print(fast.verdict)
