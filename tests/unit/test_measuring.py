"""The measuring process on printed torch sources: it times, it calls, and what kills it is a reason."""

from __future__ import annotations

import pytest
import torch

from autotune.measured import Budget, History, Joint, NullDevice, Tuned, nearest_bucket, tune
from autotune.measuring import FreshCall, ProcessDevice, Timed, measuring_worker
from autotune.offline import CompileFailure, Reason
from autotune.parameters import Parameters
from autotune.study import Rejected
from autotune.targets import find_target
from autotune.tuner import Tuner
from sgraph.errors import KernelCheckFailed
from tests.programs import LARGE, linear, sizes_of
from tests.unit.test_measured import Device, built

SOURCE = """import torch


def run(x, w):
    return x @ w
"""
DEADLY = """import os
import torch


def run(x, w):
    os.kill(os.getpid(), 9)
"""


def test_a_source_is_timed_and_called_in_a_process() -> None:
    x, w = torch.randn(8, 16), torch.randn(16, 4)
    with measuring_worker(SOURCE, "linear", "torch", (x, w), 0) as worker:
        seconds = worker.ask(Timed(None))
        assert isinstance(seconds, float) and 0 < seconds < 1
        out = FreshCall(worker)(x, w)
        assert isinstance(out, torch.Tensor)
        torch.testing.assert_close(out, x @ w)
        assert worker.started == 1


def test_what_kills_the_process_is_a_reason() -> None:
    x, w = torch.randn(8, 16), torch.randn(16, 4)
    with measuring_worker(DEADLY, "linear", "torch", (x, w), 0) as worker:
        answer = ProcessDevice(worker).measure(built().parameters)
        assert answer == Rejected("launch failed: crashed (SIGKILL)")
        with pytest.raises(KernelCheckFailed, match=r"crashed \(SIGKILL\)"):
            FreshCall(worker)(x, w)


class Pool:
    """A compile pool that compiles nothing and refuses wide tiles."""

    def submit(self, job: object) -> Pool:
        self.job = job
        return self

    def result(self) -> object:
        wide = self.job.config["kernel_0"]["tile_n"] > 64  # type: ignore[attr-defined]
        return CompileFailure(Reason.SHARED_MEMORY, "") if wide else ()


def test_the_null_device_compiles_and_answers_with_the_model() -> None:
    made, target, sizes = built(), find_target("h200"), sizes_of(linear(LARGE))
    device = NullDevice(made, Tuner(target, sizes, trials=1, seed=0), Pool())  # type: ignore[arg-type]
    found = tune(made, device, lambda: None, target, sizes, Budget(30, 60.0, seed=0))
    assert isinstance(found, Tuned)
    assert found.parameters.to_config()["kernel_0"]["tile_n"] <= 64
    assert set(found.reasons) <= {"compile failed: out of shared memory"}


def test_points_and_parameters_are_the_same() -> None:
    joint = Joint.of(built(), find_target("h200"), sizes_of(linear(LARGE)), 0)
    for point in joint.space.points[:20]:
        assert joint.point(joint.parameters(point)) == point
    assert joint.point(built().parameters) in joint.space.points
    assert joint.point(Parameters(())) is None


def test_history_outlives_a_process_and_serves_the_nearest_bucket(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "linear.jsonl"
    target, sizes, made = find_target("h200"), sizes_of(linear(LARGE)), built()
    device = Device()
    timer = device.time

    class Timed_:  # noqa: N801
        def measure(self, parameters: Parameters) -> float:
            times, _ = timer({"it": lambda: parameters.to_config()["kernel_0"]})
            return times["it"].median_us * 1e-6

    tune(made, Timed_(), device.launch, target, sizes, Budget(60, 60, 0), history=History(path, {"m": 16}))
    with path.open("a") as file:
        file.write('{"bucket": {"m": 1')
    again = History(path, {"m": 24})
    assert len(again.entries) == 60
    short = tune(made, Timed_(), device.launch, target, sizes, Budget(5, 60, 1), history=again)
    assert isinstance(short, Tuned)
    best = short.parameters.to_config()["kernel_0"]
    assert best["tile_n"] == 128 and best["warps"] == 8, "the other bucket's best is tried within five measurements"


def test_the_nearest_bucket_counts_ratios() -> None:
    buckets = [{"m": 1}, {"m": 16}, {"m": 2048}]
    assert nearest_bucket({"m": 3}, buckets) == {"m": 1}
    assert nearest_bucket({"m": 5}, buckets) == {"m": 16}
    assert nearest_bucket({"m": 300}, buckets) == {"m": 2048}
    assert nearest_bucket({"m": 4}, buckets) == {"m": 1}
