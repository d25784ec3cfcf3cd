"""The file emitted for the fused rmsnorm_linear: on its own, interpreted, and compiled for three architectures."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autotune.interpreter import interpreted
from autotune.lower import lower
from autotune.module import load_source
from autotune.offline import Meta, compile_launch
from autotune.parameters import default_parameters
from rewrites.saturate import saturate
from sgraph.generate import Family, SearchLimits, generate
from sgraph.ir import Role
from tests.programs import H200, LARGE, rmsnorm_linear, sizes_of

ALONE = """
import torch
from kernel import DTYPES, launch

DTYPES.update(dict.fromkeys(DTYPES, torch.float32))
generator = torch.Generator().manual_seed(1)
x, g, W = (torch.randn(s, generator=generator) for s in [(3, 896), (896,), (896, 1000)])
W /= 30
exact = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-6) * g.double() @ W.double()
config = {"kernel_0": {"tile_m": 16, "tile_n": 64, "tile_k": 64}}
error = (launch(x, g, W, config=config).double() - exact).abs().max() / exact.abs().max()
assert error < 1e-5, error
"""


@pytest.fixture(scope="module")
def fused() -> Family:
    program = rmsnorm_linear(LARGE)
    found = generate(program, saturate([program.outputs[0].value]), H200, sizes_of(program), SearchLimits())
    for family in found.families:
        kernels = family.graph.kernels
        if len(kernels) == 1 and not kernels[0].with_role(Role.SPLIT):
            return family
    pytest.fail("the fused family was not found")


@pytest.fixture(scope="module")
def source(fused: Family) -> str:
    return lower(fused.graph, fused.schedules, default_parameters(fused.graph, LARGE))


def test_it_imports_torch_and_triton_alone(source: str) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        assert not isinstance(node, ast.ImportFrom)
    assert imported == {"torch", "triton", "triton.language"}


def test_it_is_one_pass_with_the_scale_in_the_epilogue(source: str) -> None:
    assert source.count("@triton.jit") == 1
    loop, epilogue = source.split("tl.range(")[1].split("tl.store(")
    assert "tl.dot(" in loop
    assert "rsqrt" not in loop
    assert "rsqrt" in epilogue


def test_it_runs_on_its_own_and_agrees_with_float64(source: str, tmp_path: Path) -> None:
    """Nothing of Prism is importable there; Triton's own interpreter runs it, which is exact in float32."""
    (tmp_path / "kernel.py").write_text(source)
    (tmp_path / "alone.py").write_text(ALONE)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": ""}
    command = [sys.executable, "alone.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_bfloat16_on_ragged_shapes_is_no_worse_than_eager(source: str) -> None:
    torch.manual_seed(2)
    x, g, w = (torch.randn(s, dtype=torch.bfloat16) for s in [(3, 896), (896,), (896, 1000)])
    w /= 30

    def reference(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g) @ w

    module = load_source(source, "rmsnorm_linear")
    with interpreted():
        got = module.launch(x, g, w, config={"kernel_0": {"tile_m": 16, "tile_n": 64, "tile_k": 64}})
    exact = reference(x.double(), g.double(), w.double())
    eager = (reference(x, g, w).double() - exact).abs().max()
    assert (got.double() - exact).abs().max() <= 2 * eager


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_it_compiles(source: str, architecture: int) -> None:
    module = load_source(source, "rmsnorm_linear")
    arguments = [Meta((16, 4096), "bfloat16"), Meta((4096,), "bfloat16"), Meta((4096, 6144), "bfloat16")]
    resources = compile_launch(module, architecture, arguments, {})
    assert len(resources) == 1
    assert resources[0].dot_instructions > 0
    assert resources[0].async_copies > 0, "the loop is pipelined"
    assert resources[0].spill_bytes == 0
