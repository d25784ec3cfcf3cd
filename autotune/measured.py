"""The same studies on a real device: families and baselines measured, the fastest of them returned.

``tune`` asks a ``Device`` for the time of one assignment after another. Devices: ``LaunchDevice`` (launches timed in
this process), ``autotune.measuring.ProcessDevice`` (the same in a process that may crash or hang), ``NullDevice``
(compiles, never runs), and ``autotune.landscape.Replay`` for a search on its own.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from autotune.compile_pool import CompilePool
from autotune.cost import kernel_cost
from autotune.guided import Space, fastest, search
from autotune.offline import CompileFailure
from autotune.parameters import KernelParameters, Parameters, candidates
from autotune.resources import violated
from autotune.study import Dimension, Rejected
from autotune.tuner import Built, Tuner
from sgraph.axis import Axis
from sgraph.target import Target

log = logging.getLogger("prism.measure")

Launch = Callable[..., object]

POOL: Final = 2000
"""Valid assignments of a kernel that a search chooses from."""
FINALISTS: Final = 4
"""Assignments measured again before the fastest is named: the fastest of many noisy times is lucky."""
REPEATS: Final = 3


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


class Device(Protocol):
    """What a study asks for times."""

    def measure(self, parameters: Parameters) -> float | Rejected:
        """Seconds of the subgraph with these parameters, or why it cannot be run."""
        ...


class LaunchDevice:
    """Launches timed in this process."""

    def __init__(self, launch: Callable[..., object], timer: Timer) -> None:
        self.launch = launch
        self.timer = timer

    def measure(self, parameters: Parameters) -> float | Rejected:
        """Seconds by the timer."""
        times, failed = self.timer({"candidate": configured(self.launch, parameters)})
        if "candidate" in times:
            return times["candidate"].median_us * 1e-6
        return Rejected(failed.get("candidate", "not timed"))


class NullDevice:
    """Compiles and never runs: the answer is the modelled time, refused where the compiler refuses or spills."""

    def __init__(self, built: Built, tuner: Tuner, pool: CompilePool) -> None:
        self.built = built
        self.tuner = tuner
        self.pool = pool

    def measure(self, parameters: Parameters) -> float | Rejected:
        """Modelled seconds of what compiles."""
        outcome = self.pool.submit(self.tuner.job(self.built.family, self.built.source, parameters)).result()
        if isinstance(outcome, CompileFailure):
            return Rejected(f"compile failed: {outcome.reason}")
        if any(r.spills for r in outcome):
            return Rejected("registers spill")
        graph = self.built.family.graph
        pairs = zip(self.built.family.schedules, parameters.kernels, strict=True)
        return sum(kernel_cost(graph, s, p, self.tuner.target, self.tuner.sizes).total_s for s, p in pairs)


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
    device: Device,
    launch: Callable[..., object],
    target: Target,
    sizes: Mapping[Axis, int],
    budget: Budget,
    *,
    history: History | None = None,
) -> Tuned | str:
    """The fastest measured parameters of one family, starting from the model's; or why nothing could be run.

    Args:
        built: the family with the model's parameters.
        device: measures.
        launch: the source's ``launch``; called with the inputs and ``config=``.
        target: its limits.
        sizes: extents, one per complete axis.
        budget: trials and seconds.
        history: what was measured of this family before, at other sizes too; its best are tried first.
    """
    spaces = Joint.of(built, target, sizes, budget.seed)
    deadline = time.monotonic() + budget.seconds
    reasons: dict[str, int] = {}

    def evaluate(point: tuple[int, ...]) -> float | Rejected:
        answer = device.measure(spaces.parameters(point))
        if isinstance(answer, Rejected):
            reasons[answer.reason] = reasons.get(answer.reason, 0) + 1
        if history is not None:
            history.note(spaces.parameters(point), answer)
        return answer

    first = [spaces.point(built.parameters), *(spaces.point(p) for p in (history.best(FINALISTS) if history else ()))]
    done = search(
        spaces.space,
        evaluate,
        trials=budget.trials,
        seed=budget.seed,
        first=[p for p in first if p is not None],
        stop=lambda: budget.stop() or time.monotonic() > deadline,
    )
    if fastest(done) is None:
        return done[0].reason if done else "no time was left to measure it"
    finalists = sorted((t for t in done if not t.reason), key=lambda t: t.seconds)[:FINALISTS]
    again: dict[tuple[int, ...], list[float]] = {t.point: [t.seconds] for t in finalists}
    for _ in range(REPEATS if len(finalists) > 1 else 0):
        if budget.stop() or time.monotonic() > deadline:
            break
        for point, times in again.items():
            answer = device.measure(spaces.parameters(point))
            if not isinstance(answer, Rejected):
                times.append(answer)
    winner = min(again, key=lambda p: sorted(again[p])[len(again[p]) // 2])
    parameters = spaces.parameters(winner)
    return Tuned(built, parameters, configured(launch, parameters), sum(not t.reason for t in done), reasons)


@dataclass(frozen=True, slots=True)
class Joint:
    """The valid assignments of all kernels of a family together, as one space."""

    names: tuple[tuple[str, ...], ...]
    """Of each kernel's dimensions, as in a configuration."""
    space: Space
    """Points are the kernels' values one after another."""

    @classmethod
    def of(cls, built: Built, target: Target, sizes: Mapping[Axis, int], seed: int) -> Joint:
        """Points that fit the target, drawn where there are many; the one the model chose is among them."""
        named = {a.name: n for a, n in sizes.items()}
        graph, draw = built.family.graph, random.Random(seed)
        dimensions: list[Dimension] = []
        names: list[tuple[str, ...]] = []
        kernels: list[list[tuple[float, tuple[int, ...]]]] = []
        for i, (schedule, chosen) in enumerate(zip(built.family.schedules, built.parameters.kernels, strict=True)):
            choices = candidates(schedule.kernel, named, target)
            names.append(tuple(choices))
            dimensions += [Dimension(f"{i}.{n}", c) for n, c in choices.items()]
            start = chosen.to_config()
            listed = {tuple(start[n] for n in choices)}
            for _ in range(4 * POOL):
                listed.add(tuple(draw.choice(c) for c in choices.values()))
                if len(listed) == 2 * POOL:
                    break
            timed: list[tuple[float, tuple[int, ...]]] = []
            for point in sorted(listed):
                given = KernelParameters.from_config(dict(zip(choices, point, strict=True)))
                if violated(graph, schedule, given, named, target) is None:
                    timed.append((kernel_cost(graph, schedule, given, target, sizes).total_s, point))
            kernels.append(sorted(timed)[:POOL])
        together = kernels[0] if len(kernels) == 1 else _together(kernels, draw)
        points = {p: t for t, p in together}
        return cls(tuple(names), Space(tuple(dimensions), tuple(points), tuple(points.values())))

    def parameters(self, point: tuple[int, ...]) -> Parameters:
        """A point as parameters."""
        values = iter(point)
        return Parameters(tuple(KernelParameters.from_config({n: next(values) for n in names}) for names in self.names))

    def point(self, parameters: Parameters) -> tuple[int, ...] | None:
        """Parameters as a point, each value moved to the nearest choice; None if another number of kernels."""
        if len(parameters.kernels) != len(self.names):
            return None
        values: list[int] = []
        choices = iter(self.space.dimensions)
        for names, kernel in zip(self.names, parameters.kernels, strict=True):
            config = kernel.to_config()
            for name in names:
                dimension = next(choices)
                wanted = config.get(name, dimension.choices[0])
                values.append(min(dimension.choices, key=lambda c: abs(c - wanted)))
        return tuple(values)


def _together(
    kernels: Sequence[Sequence[tuple[float, tuple[int, ...]]]], draw: random.Random
) -> list[tuple[float, tuple[int, ...]]]:
    """Every kernel's assignments with the others' best, then draws that prefer what the model prefers."""
    best = [k[0] for k in kernels]
    chosen = [[*best[:i], option, *best[i + 1 :]] for i, k in enumerate(kernels) for option in k[: POOL // 4]]
    chosen += [[k[int(len(k) * draw.random() ** 3)] for k in kernels] for _ in range(POOL)]
    return [(sum(t for t, _ in one), tuple(v for _, p in one for v in p)) for one in chosen]


class History:
    """What was measured of one family: a file of one JSON line per measurement, read back by the next study.

    A study at other sizes (another bucket of a symbolic extent) starts from its best, and is short for it.
    """

    def __init__(self, path: Path | None, bucket: Mapping[str, int]) -> None:
        self.path = path
        self.bucket = dict(bucket)
        self.entries: list[tuple[dict[str, int], Parameters, float]] = []
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = _entry(line)
                if entry is not None:
                    self.entries.append(entry)

    def note(self, parameters: Parameters, answer: float | Rejected) -> None:
        """Keep one measurement; written at once, so that nothing is lost with the process."""
        failed = isinstance(answer, Rejected)
        if not failed:
            self.entries.append((self.bucket, parameters, answer))
        if self.path is not None:
            line = {
                "bucket": self.bucket,
                "config": parameters.to_config(),
                "seconds": None if failed else answer,
                "reason": answer.reason if isinstance(answer, Rejected) else "",
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def best(self, count: int) -> list[Parameters]:
        """The fastest of the nearest bucket."""
        if not self.entries:
            return []
        near = nearest_bucket(self.bucket, [b for b, _, _ in self.entries])
        ordered = sorted((e for e in self.entries if e[0] == near), key=lambda e: e[2])
        return list(dict.fromkeys(p for _, p, _ in ordered))[:count]


def _entry(line: str) -> tuple[dict[str, int], Parameters, float] | None:
    """A measurement of the file; None for one that failed, or a line that a dying process did not finish."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if data.get("seconds") is None:
        return None
    return dict(data["bucket"]), Parameters.from_config(data["config"]), float(data["seconds"])


def nearest_bucket(sizes: Mapping[str, int], buckets: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The bucket of symbolic extents closest to these sizes, as ratios of extents count; the smaller of two.

    Raises:
        ValueError: there is no bucket.
    """

    def distance(bucket: Mapping[str, int]) -> tuple[float, tuple[int, ...]]:
        apart = sum(abs(math.log2(max(1, n)) - math.log2(max(1, bucket.get(a, n)))) for a, n in sizes.items())
        return apart, tuple(bucket.values())

    return dict(min(buckets, key=distance))


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
