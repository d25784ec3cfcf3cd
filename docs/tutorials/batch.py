# %% [markdown]
# # Batch jobs
#
# `prism batch JOB.toml` works through many subgraphs, shapes and targets with several workers. It can be killed at any
# moment, by Ctrl-C, `kill -9` or a power cut, and `--resume` goes on where it stopped: what is done is recorded, and
# nothing that was recorded is done twice.
#
# A file with functions says what its example inputs are.

# %%
import subprocess
import sys
from pathlib import Path

Path("programs.py").write_text("""\
import torch


def norm(x, gain):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain


def inputs_norm():
    return torch.randn(8, 128), torch.randn(128)


def gated(x, gate, up):
    return torch.nn.functional.silu(x @ gate) * (x @ up)


def inputs_gated():
    return torch.randn(8, 64), torch.randn(64, 96), torch.randn(64, 96)
""")

# %% [markdown]
# A job file lists them. Everything but the functions can be said once for all or for each. A shape such as
# `M:1..64` is a bucket: one kernel, proved for all of these sizes.

# %%
Path("job.toml").write_text("""\
[batch]
targets = ["h200"]
effort = "quick"

[[subgraph]]
function = "programs.py::norm"

[[subgraph.shapes]]
x = "fp32[M:1..64,128]"

[[subgraph]]
function = "programs.py::gated"
""")


def prism(*arguments: str) -> str:
    """The command line, as one would type it."""
    command = [sys.executable, "-m", "prism.cli", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


# %% [markdown]
# `--dry-run` checks the file, every mistake named with its line, and lists the tasks.

# %%
print(prism("batch", "job.toml", "--dry-run"))

# %% [markdown]
# Each task becomes a run folder, which `prism report`, `prism export` and `prism verify` take; `events.jsonl` beside
# them is the log.

# %%
print(prism("batch", "job.toml", "--workers", "2"))
runs = sorted(path.parent for path in Path("runs").rglob("run.json"))
for run in runs:
    print(run)
assert len(runs) == 2

# %% [markdown]
# A second run of a job that is done has nothing to do.

# %%
print(prism("batch", "job.toml", "--resume"))
