"""The same studies on a real device: families and baselines measured, the fastest of them returned.

What is measured is a function of launches to times, so that a recorded or synthetic device can stand in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from autotune.parameters import KernelParameters, Parameters, candidates
from autotune.resources import violated
from autotune.study import Dimension, Rejected, minimise
from autotune.tuner import Built
from sgraph.axis import Axis
from sgraph.target import Target

log = logging.getLogger("prism.measure")

Launch = Callable[..., object]


class Time(Protocol):
    """One time on a device."""

    @property
    def median_us(self) -> float:
        """Median microseconds of the whole subgraph."""
        ...

    @property
    def spread_percent(self) -> float:
        """Spread of the repeats."""
        ...


Timer = Callable[[Mapping[str, Launch]], "tuple[Mapping[str, Time], Mapping[str, str]]"]
"""Times launches in one interleaved run; also the reason for each that could not be run."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one study may spend."""

    trials: int
    """Assignments measured at most."""
    seconds: float
    """Wall time at most."""
    seed: int = 0
    """Of the sampler."""
    stop: Callable[[], bool] = lambda: False
    """Asked before each measurement; True ends the study with what it has."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A family with the parameters that measured best."""

    built: Built
    """The family and its source."""
    parameters: Parameters
    """Fastest measured."""
    launch: Launch
    """The source's launcher with these parameters."""
    measured: int
    """Assignments that were measured."""
    reasons: Mapping[str, int]
    """Assignments that were not, by reason."""


def tune(
    built: Built,
    launch: Callable[..., object],
    timer: Timer,
    target: Target,
    sizes: Mapping[Axis, int],
    budget: Budget,
) -> Tuned | str:
    """The fastest measured parameters of one family, starting from the model's; or why nothing could be run.

    Args:
        built: the family with the model's parameters.
        launch: the source's ``launch``; called with the inputs and ``config=``.
        timer: the device.
        target: its limits.
        sizes: extents, one per complete axis.
        budget: trials and seconds.
    """
    named = {a.name: n for a, n in sizes.items()}
    graph, schedules = built.family.graph, built.family.schedules
    spaces = [candidates(k, named, target) for k in graph.kernels]
    dimensions = [Dimension(f"{i}.{n}", choices) for i, space in enumerate(spaces) for n, choices in space.items()]
    deadline = time.monotonic() + budget.seconds
    reasons: dict[str, int] = {}

    def parameters_of(point: tuple[int, ...]) -> Parameters:
        values = iter(point)
        return Parameters(tuple(KernelParameters.from_config({n: next(values) for n in space}) for space in spaces))

    def evaluate(point: tuple[int, ...]) -> float | Rejected:
        parameters = parameters_of(point)
        for schedule, chosen in zip(schedules, parameters.kernels, strict=True):
            broken = violated(graph, schedule, chosen, named, target)
            if broken is not None:
                return Rejected(broken)
        times, failed = timer({"candidate": configured(launch, parameters)})
        if "candidate" in times:
            return times["candidate"].median_us * 1e-6
        reason = failed.get("candidate", "not timed")
        reasons[reason] = reasons.get(reason, 0) + 1
        return Rejected(reason)

    config = built.parameters.to_config()
    start = tuple(config[f"kernel_{i}"][n] for i, space in enumerate(spaces) for n in space)
    looked = minimise(
        dimensions,
        evaluate,
        trials=budget.trials,
        seed=budget.seed,
        seeds=[start],
        stop=lambda: budget.stop() or time.monotonic() > deadline,
    )
    fastest = next((t for t in looked if not t.reason), None)
    if fastest is None:
        return looked[0].reason if looked else "no time was left to measure it"
    parameters = parameters_of(fastest.point)
    measured = sum(not t.reason for t in looked)
    return Tuned(built, parameters, configured(launch, parameters), measured, reasons)


def configured(launch: Callable[..., object], parameters: Parameters) -> Launch:
    """A launcher with its configuration fixed."""
    config = parameters.to_config()
    return lambda *inputs: launch(*inputs, config=config)


def decide(times: Mapping[str, Time], ours: Sequence[str], baselines: Sequence[str]) -> tuple[str, float | None]:
    """The fastest candidate, ours only if it beats every baseline by more than twice the noise; and its speed-up.

    Raises:
        ValueError: nothing was timed.
    """
    timed = [n for n in (*baselines, *ours) if n in times]
    if not timed:
        raise ValueError("nothing was timed")
    fastest = min(timed, key=lambda n: times[n].median_us)
    rivals = [n for n in baselines if n in times]
    if not rivals or fastest in baselines:
        return fastest, 1.0 if rivals else None
    best = min(rivals, key=lambda n: times[n].median_us)
    speedup = times[best].median_us / times[fastest].median_us
    noise = 2 * max(times[best].spread_percent, times[fastest].spread_percent)
    return (fastest, speedup) if 100 * (speedup - 1) > noise else (best, 1.0)
