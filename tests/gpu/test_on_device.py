"""On a CUDA device: found kernels run, keep the numerical contract, and are never slower than the baselines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import prism
from prism.frontend import load_function

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["linear", "rmsnorm_linear", "gated_mlp", "softmax", "add_rmsnorm"])
def test_an_example_on_the_device(name: str, tmp_path: Path) -> None:
    loaded = load_function(f"{EXAMPLES / name}.py::{name}")
    inputs = tuple(t.cuda() for t in loaded.inputs)
    found = prism.superoptimize(loaded.function, *inputs, effort="quick", out=tmp_path, fallback=False)
    assert found.record.timing == "measured"
    assert found.speedup is not None
    assert found.speedup >= 1.0
    got, expected = found(*inputs), loaded.function(*inputs)
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)
