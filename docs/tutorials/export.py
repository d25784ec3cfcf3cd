# %% [markdown]
# # Export tuned kernels as a library
#
# A saved run becomes a package that needs nothing but torch and triton, and that other people can read, install and
# check without Prism.

# %%
import importlib
import sys
from pathlib import Path

import torch

import prism
from prism.export import export_runs
from prism.verifying import verify_path


def add_norm(x: torch.Tensor, residual: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual and its RMSNorm."""
    h = x + residual
    return h, h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6) * gain


inputs = (torch.randn(16, 256), torch.randn(16, 256), torch.randn(256))
run = Path("runs/add_norm")
prism.superoptimize(add_norm, *inputs, target="h200", effort="quick", out=run)

# %% [markdown]
# The same as `prism export runs/add_norm --out library --name norm_library`. Several runs of one program, for other
# targets or sizes, become kernels of one operation, and a call takes the nearest.

# %%
library = Path("library")
for name in sorted(export_runs([run], library, "norm_library")):
    print(name)

# %% [markdown]
# Every function is a torch operation with shapes, gradients and guards, so it works under `torch.compile` and
# `torch.export`. On a device that no kernel was tuned for, the unfused program runs.

# %%
sys.path.insert(0, str(library))
norm_library = importlib.import_module("norm_library")
print(norm_library.OPERATIONS["add_norm"].explain(*inputs))
compiled = torch.compile(norm_library.add_norm, fullgraph=True, backend="aot_eager")
for got, expected in zip(compiled(*inputs), add_norm(*inputs), strict=True):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)

# %% [markdown]
# `prism verify library` checks it again: hashes, the proof of the plan, the certificate, and exact evaluation of the
# emitted text. It imports and executes nothing of the folder, and notices a changed byte.

# %%
found = verify_path(library)
print(found.outcome)
assert found.outcome == "passed"

kernel = library / "norm_library" / "add_norm_h200.py"
kernel.write_text(kernel.read_text().replace("1e-06", "1e-05"))
assert verify_path(library).outcome == "failed"
