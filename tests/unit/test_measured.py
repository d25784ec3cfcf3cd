"""Measured studies on a synthetic device: they find the fast point, survive failures, and never return a slower one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from autotune.measured import FINALISTS, REPEATS, Budget, Launch, LaunchDevice, Tuned, decide, tune
from autotune.parameters import Parameters, default_parameters
from autotune.targets import find_target
from autotune.tuner import Built
from sgraph.generate import Family
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.stages import derive
from tests.programs import LARGE, linear, sizes_of

ROLES = {"m": Role.GRID, "n": Role.GRID, "k": Role.LOOP}


@dataclass(frozen=True)
class Figure:
    median_us: float
    spread_percent: float = 1.0


def built() -> Built:
    program = linear(LARGE)
    stores = tuple(Store(o.tensor, o.value, o.value) for o in program.outputs)
    kernel = Kernel("k0", stores, tuple((a, ROLES[a.name]) for a in program.axes))
    graph = SGraph(program, (kernel,))
    family = Family(graph, (derive(kernel),), 1e-6, 1e-6)
    return Built(family, default_parameters(graph, LARGE), "", 1e-5, ())


class Device:
    """Times a launch by its configuration; some configurations crash."""

    def __init__(self, crash_above: int = 1 << 30) -> None:
        self.crash_above = crash_above
        self.configs: list[dict[str, int]] = []

    def launch(self, *_: object, config: dict[str, dict[str, int]]) -> dict[str, int]:
        return config["kernel_0"]

    def time(self, launches: Mapping[str, Launch]) -> tuple[dict[str, Figure], dict[str, str]]:
        times: dict[str, Figure] = {}
        failed: dict[str, str] = {}
        for name, launch in launches.items():
            config = launch()
            assert isinstance(config, dict)
            self.configs.append(config)
            if config["tile_n"] > self.crash_above:
                failed[name] = "the device said no"
            else:
                times[name] = Figure(10.0 + abs(config["tile_n"] - 128) / 16 + abs(config["warps"] - 8))
        return times, failed


def test_the_fastest_measured_point_wins() -> None:
    device = Device()
    found = tune(
        built(),
        LaunchDevice(device.launch, device.time),
        device.launch,
        find_target("h200"),
        sizes_of(linear(LARGE)),
        Budget(80, 60.0, seed=1),
    )
    assert isinstance(found, Tuned)
    best = found.parameters.to_config()["kernel_0"]
    assert (best["tile_n"], best["warps"]) in {(128, 8), (128, 4), (64, 8), (128, 16)}
    assert found.measured + REPEATS * FINALISTS == len(device.configs)
    assert device.configs[0]["tile_n"] == 64, "the model's choice is measured first"


def test_failures_are_reasons_and_the_study_goes_on() -> None:
    device = Device(crash_above=64)
    found = tune(
        built(),
        LaunchDevice(device.launch, device.time),
        device.launch,
        find_target("h200"),
        sizes_of(linear(LARGE)),
        Budget(40, 60.0, seed=1),
    )
    assert isinstance(found, Tuned)
    assert found.parameters.to_config()["kernel_0"]["tile_n"] <= 64
    assert set(found.reasons) == {"the device said no"}


def test_nothing_that_runs_is_a_reason() -> None:
    device = Device(crash_above=1)
    found = tune(
        built(),
        LaunchDevice(device.launch, device.time),
        device.launch,
        find_target("h200"),
        sizes_of(linear(LARGE)),
        Budget(10, 60.0, seed=1),
    )
    assert found == "the device said no"


def test_a_budget_of_no_time_says_so() -> None:
    device = Device()
    found = tune(
        built(),
        LaunchDevice(device.launch, device.time),
        device.launch,
        find_target("h200"),
        sizes_of(linear(LARGE)),
        Budget(10, -1.0),
    )
    assert found == "no time was left to measure it"


@pytest.mark.parametrize(
    ("ours", "baseline", "winner", "speedup"),
    [(50.0, 100.0, "ours", 2.0), (99.0, 100.0, "eager", 1.0), (120.0, 100.0, "eager", 1.0)],
)
def test_never_slower(ours: float, baseline: float, winner: str, speedup: float) -> None:
    assert decide({"ours": Figure(ours), "eager": Figure(baseline)}, ["ours"], ["eager"]) == (winner, speedup)


def test_parameters_survive_their_configuration() -> None:
    parameters = built().parameters
    assert Parameters.from_config(parameters.to_config()) == parameters
