"""``prism doctor``: what this machine has, and what that means for a search."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass

from prism.settings import Settings

PACKAGES = ("torch", "triton", "egglog", "z3-solver", "optuna", "sympy", "numpy", "prism-superoptimizer")

PROBE = """
import torch
import triton
import triton.language as tl


@triton.jit
def double(x_ptr, out_ptr, N: tl.constexpr):
    offsets = tl.arange(0, N)
    tl.store(out_ptr + offsets, 2 * tl.load(x_ptr + offsets))


def launch(x, *, config=None):
    out = torch.empty_like(x)
    double[(1,)](x, out, x.shape[0])
    return out
"""
"""The smallest kernel that shows whether kernels can be compiled here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    subject: str
    """What was looked at."""
    ok: bool
    """False where something that Prism needs is missing or does not work."""
    text: str
    """What was found, and what to do if it is not well."""


def examine(settings: Settings) -> list[Finding]:
    """Everything worth knowing before a search, in the order a person would check it."""
    findings = [Finding("python", True, f"{platform.python_version()} on {platform.machine()}")]
    findings += [_package(name) for name in PACKAGES]
    findings += [_gpu(), _triton_compiles(), _rewrite_engine(), _compiler(), _cache(settings)]
    return findings


def to_records(findings: list[Finding]) -> list[dict[str, object]]:
    """The findings as plain data."""
    return [asdict(f) for f in findings]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, f"not installed: pip install {name}")


def _gpu() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("gpu", False, f"torch does not import: {error}")
    if not torch.cuda.is_available():
        return Finding("gpu", True, "none: default target is this machine's CPU; name another with --target")
    from autotune.targets import detect_target

    found = detect_target()
    return Finding("gpu", True, f"{torch.cuda.get_device_name()} (target {found.name}, {found.processors} SMs)")


def _triton_compiles() -> Finding:
    try:
        from autotune.module import load_source
        from autotune.offline import Meta, compile_launch

        module = load_source(PROBE, "probe")
        figures = compile_launch(module, 90, [Meta((64,), "float32")], {})[0]
        return Finding("offline compiler", True, f"compiles for sm_90 ({figures.registers} registers)")
    except Exception as error:  # a diagnosis reports whatever is wrong
        return Finding("offline compiler", False, f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _rewrite_engine() -> Finding:
    try:
        from rewrites.saturate import saturate
        from sgraph.axis import Axis
        from sgraph.expr import leaf, sum_over

        k = Axis("k", 4)
        table = saturate([sum_over(k, leaf("a", [k]) * leaf("b", [k]))])
        return Finding("rewrite engine", True, f"starts and saturates ({table.e_nodes} e-nodes)")
    except Exception as error:  # a diagnosis reports whatever is wrong
        return Finding("rewrite engine", False, f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _compiler() -> Finding:
    found = shutil.which("g++") or shutil.which("c++")
    if found:
        return Finding("c++ compiler", True, f"{found} (used by Inductor on the CPU)")
    return Finding("c++ compiler", True, "none: Inductor baselines on the CPU are left out; install g++ to add them")


def _cache(settings: Settings) -> Finding:
    folder = settings.cache_dir
    present = folder if folder.exists() else next(p for p in folder.parents if p.exists())
    if os.access(present, os.W_OK):
        return Finding("cache", True, f"{folder} ({shutil.disk_usage(present).free >> 30} GiB free)")
    return Finding("cache", False, f"{folder} is not writable: set PRISM_CACHE_DIR")
