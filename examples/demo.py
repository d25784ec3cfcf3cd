"""The main job: search, prove, lower and rank kernels for two programs, on this machine and for an H200."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
JOBS = [
    ("rmsnorm_linear.py::rmsnorm_linear", "h200"),
    ("gated_mlp.py::gated_mlp", "h200"),
    ("rmsnorm_linear.py::rmsnorm_linear", "cpu"),
    ("gated_mlp.py::gated_mlp", "cpu"),
]


def main() -> None:
    """Run every job as a user would, and stop at the first that fails."""
    for function, target in JOBS:
        command = [sys.executable, "-m", "prism.cli", "optimize", str(HERE / function), "--target", target]
        print(f"\n$ prism optimize examples/{function} --target {target}\n", flush=True)
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
