"""On a CUDA device: calibration, the measuring process, and the library entry for measuring."""

from __future__ import annotations

import pytest
import torch

from autotune.calibration import calibrate
from autotune.measure import measure
from autotune.targets import detect_target

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def _once(t: torch.Tensor) -> object:
    return t + 1


def _twice(t: torch.Tensor) -> object:
    return t + 1, t + 2


def test_the_device_is_calibrated_below_its_datasheet() -> None:
    target = detect_target()
    found = calibrate(target)
    assert 0.3 * target.dram_bytes_per_s < found.copy_bytes_per_s < 1.02 * target.dram_bytes_per_s
    assert 1e-7 < found.launch_s < 1e-5
    assert 1e-7 < found.latency_s < 1e-5


def test_twice_the_work_takes_about_twice_as_long() -> None:
    x = torch.randn(64 << 20, device="cuda")
    found = measure({"twice": _twice, "once": _once}, [x])
    assert 1.6 < found.times["twice"].median_us / found.times["once"].median_us < 2.4
    assert found.faster("once", "twice") and not found.alarms
