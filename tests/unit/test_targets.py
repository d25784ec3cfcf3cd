"""Targets by name, and the target a device is recognised as."""

from __future__ import annotations

import copy
import logging
import os
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from autotune.targets import (
    SHARED_MEMORY_LIMIT_BYTES,
    TARGETS,
    TF32_FLOPS_PER_S,
    DeviceFacts,
    detect_target,
    find_target,
    target_of,
)
from sgraph.errors import UnknownTarget
from sgraph.program import DType

H200 = DeviceFacts(
    name="NVIDIA H200",
    architecture=90,
    processors=132,
    shared_memory_bytes=227 * 1024,
    shared_memory_per_processor_bytes=228 * 1024,
    registers=65536,
    l2_bytes=60 * 2**20,
    dram_bytes_per_s=4.917e12,
)


def test_the_named_targets() -> None:
    assert set(TARGETS) == {"a100", "h100", "h200", "b200", "cpu"}
    for name, target in TARGETS.items():
        assert target.name == name
        assert find_target(f" {name.upper()} ") is target
        assert target.dot_flops_per_s[DType.BF16] >= target.dot_flops_per_s[DType.FP32] > 0
        assert target.dot_flops_per_s[DType.FP32] == target.pointwise_flops_per_s  # ieee dots: no tensor cores
        assert 0 < target.shared_memory_bytes <= target.shared_memory_per_processor_bytes
        if target.kind == "cuda":
            assert target.shared_memory_bytes == SHARED_MEMORY_LIMIT_BYTES[target.architecture]
            tf32 = TF32_FLOPS_PER_S[name]
            assert target.pointwise_flops_per_s < tf32 < target.dot_flops_per_s[DType.BF16]
        assert pickle.loads(pickle.dumps(target)) == target == copy.deepcopy(target)  # it travels to workers


def test_speed_of_light_figures_of_an_h200() -> None:
    target = find_target("h200")
    weights = 2 * 4096 * 6144  # rmsnorm_linear with few rows reads little else
    assert (weights + 2 * 16 * (4096 + 6144)) / target.dram_bytes_per_s == pytest.approx(10.5e-6, rel=0.02)
    assert 2 * 2048 * 4096 * 6144 / target.dot_flops_per_s[DType.BF16] == pytest.approx(104e-6, rel=0.02)
    assert target.processors == 132


def test_the_cpu_target_is_this_machine() -> None:
    cpu = TARGETS["cpu"]
    assert (cpu.kind, cpu.architecture, cpu.processors) == ("cpu", 0, os.cpu_count())
    assert cpu.l2_bytes >= 2**20


@pytest.mark.parametrize(("name", "hint"), [("h20", "did you mean"), ("h2000", "h200"), ("xyzzy", "known: a100")])
def test_an_unknown_target_says_what_there_is(name: str, hint: str) -> None:
    with pytest.raises(UnknownTarget, match=name) as failure:
        find_target(name)
    assert hint in failure.value.do
    assert "a100, h100, h200, b200, cpu" in failure.value.do


def test_a_known_device_keeps_datasheet_peaks_and_its_own_sizes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "prism.target"):
        target = target_of(replace(H200, l2_bytes=50 * 2**20))
    assert target == replace(TARGETS["h200"], l2_bytes=50 * 2**20)
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "architecture", "processors", "bandwidth", "like"),
    [
        ("NVIDIA GH200 480GB", 90, 132, 4.0e12, "h100"),
        ("NVIDIA H100 PCIe", 90, 114, 2.04e12, "h100"),
        ("NVIDIA L40S", 89, 142, 0.864e12, "h100"),
        ("NVIDIA GeForce RTX 5090", 120, 170, 1.79e12, "b200"),
        ("Tesla T4", 75, 40, 0.32e12, "a100"),
    ],
)
def test_an_unknown_device_borrows_peaks_and_says_so(
    name: str, architecture: int, processors: int, bandwidth: float, like: str, caplog: pytest.LogCaptureFixture
) -> None:
    facts = DeviceFacts(name, architecture, processors, 0, 0, 0, 0, bandwidth)
    with caplog.at_level(logging.WARNING, "prism.target"):
        target = target_of(facts)
    assert target.dot_flops_per_s == TARGETS[like].dot_flops_per_s
    assert (target.architecture, target.processors, target.dram_bytes_per_s) == (architecture, processors, bandwidth)
    assert target.shared_memory_bytes == SHARED_MEMORY_LIMIT_BYTES[architecture]
    assert target.name not in TARGETS
    assert like in caplog.text
    assert name in caplog.text


def test_detection_reads_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert detect_target() is TARGETS["cpu"]

    properties = SimpleNamespace(
        name="NVIDIA H200",
        major=9,
        minor=0,
        multi_processor_count=132,
        L2_cache_size=60 * 2**20,
        shared_memory_per_block_optin=232448,
        shared_memory_per_multiprocessor=233472,
        regs_per_multiprocessor=65536,
    )

    def get_device_properties(device: int) -> SimpleNamespace:
        assert device == 1
        return properties

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", get_device_properties)
    assert detect_target(1) == TARGETS["h200"]


def test_detection_takes_bandwidth_from_clock_and_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(
        name="NVIDIA A100-PCIE-40GB",
        major=8,
        minor=0,
        multi_processor_count=104,
        memory_clock_rate=1215000,
        memory_bus_width=5120,
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def get_device_properties(device: int) -> SimpleNamespace:
        assert device == 0
        return properties

    monkeypatch.setattr(torch.cuda, "get_device_properties", get_device_properties)
    target = detect_target()
    assert target.name == "nvidia-a100-pcie-40gb"
    assert target.dram_bytes_per_s == pytest.approx(1.555e12, rel=0.01)
