"""Landscapes: what every point of a space takes, recorded from a device or made up; and the device that replays them.

A recording is one JSON file: the dimensions, and for each point its seconds, or why it could not be run. A replay
device answers from it, with the noise and the accidents of a real device if wanted, so that the tuner that spends
GPU time is tested without a GPU.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from autotune.guided import Space
from autotune.study import Dimension, Rejected
from sgraph.errors import InputError

Accident = Literal["crash", "hang", "out of memory"]

FORMAT: Final = 1
"""Of the recording file."""
POINT_RUGGEDNESS: Final = 0.015
"""Standard deviation of the factor that each point of a synthetic landscape has for itself."""


@dataclass(frozen=True, slots=True)
class Landscape:
    """Every point of a space with its time."""

    name: str
    """For tables."""
    origin: str
    """Where the times come from: a device and a date, or how they were made up."""
    dimensions: tuple[Dimension, ...]
    """What a point is made of."""
    seconds: Mapping[tuple[int, ...], float]
    """Time of each point that runs."""
    failures: Mapping[tuple[int, ...], str] = field(default_factory=dict[tuple[int, ...], str])
    """Why the others do not."""
    modelled_s: Mapping[tuple[int, ...], float] = field(default_factory=dict[tuple[int, ...], float])
    """What a model says of the points; empty where there is none."""

    @property
    def best_s(self) -> float:
        """The fastest point: the exhaustive optimum."""
        return min(self.seconds.values())

    def space(self) -> Space:
        """The points as a search sees them."""
        points = tuple(sorted({*self.seconds, *self.failures}))
        return Space(self.dimensions, points, tuple(self.modelled_s.get(p, 1.0) for p in points))

    def to_json(self) -> str:
        """The recording as text."""
        return json.dumps(
            {
                "format": FORMAT,
                "name": self.name,
                "origin": self.origin,
                "dimensions": {d.name: list(d.choices) for d in self.dimensions},
                "points": [
                    {
                        "at": list(p),
                        "seconds": self.seconds.get(p),
                        "failure": self.failures.get(p, ""),
                        "modelled_s": self.modelled_s.get(p),
                    }
                    for p in sorted({*self.seconds, *self.failures})
                ],
            }
        )


def read_landscape(path: Path) -> Landscape:
    """A recording from its file.

    Raises:
        InputError: the file is not a recording, or of another format.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise InputError(f"format {data['format']}, {FORMAT} expected", where=str(path), do="record it again")
        points = [(tuple(int(v) for v in p["at"]), p) for p in data["points"]]
        return Landscape(
            str(data["name"]),
            str(data["origin"]),
            tuple(Dimension(n, tuple(c)) for n, c in data["dimensions"].items()),
            {at: float(p["seconds"]) for at, p in points if p["seconds"] is not None},
            {at: str(p["failure"]) for at, p in points if p["seconds"] is None},
            {at: float(p["modelled_s"]) for at, p in points if p["modelled_s"] is not None},
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"not a recording of a landscape: {type(error).__name__}: {error}", where=str(path), do="record it again"
        ) from error


def synthetic(
    space: Space, name: str, bend: Callable[[tuple[int, ...]], float], *, ruggedness: float, seed: int
) -> Landscape:
    """A landscape that a model is roughly right about.

    Real ones are rugged because values of parameters get on well or badly with each other (a tile and a number of
    warps, a tile and the stages): every pair of values has a factor of its own here, and each point a smaller one.

    Args:
        space: the valid points, with the model that a search will be given.
        name: for tables.
        bend: the smooth truth at a point, in seconds: the model with other constants, say.
        ruggedness: standard deviation of all these factors together; the same at each visit.
        seed: of the factors.
    """
    pairs = [(i, j) for j in range(len(space.dimensions)) for i in range(j)]
    draw = random.Random(seed)
    effect = {
        (i, j, a, b): draw.gauss(0, ruggedness / math.sqrt(max(1, len(pairs))))
        for i, j in pairs
        for a in space.dimensions[i].choices
        for b in space.dimensions[j].choices
    }
    seconds = {
        p: bend(p) * math.exp(sum(effect[i, j, p[i], p[j]] for i, j in pairs) + draw.gauss(0, POINT_RUGGEDNESS))
        for p in space.points
    }
    modelled = dict(zip(space.points, space.modelled_s, strict=True))
    origin = f"made up: the model with other constants, {100 * ruggedness:.0f} % ruggedness, seed {seed}"
    return Landscape(name, origin, space.dimensions, seconds, {}, modelled)


class Replay:
    """A device that answers from a landscape; the same seed gives the same answers."""

    def __init__(
        self,
        landscape: Landscape,
        *,
        noise: float = 0.0,
        seed: int = 0,
        accidents: Mapping[tuple[int, ...], Accident] = MappingProxyType({}),
    ) -> None:
        self.landscape = landscape
        self.noise = noise
        self.accidents = accidents
        self.asked: list[tuple[int, ...]] = []
        """Every point that was measured, in order."""
        self._draw = random.Random(seed)

    def measure(self, point: tuple[int, ...]) -> float | Rejected:
        """Seconds of a point, with noise; or why it cannot be run."""
        self.asked.append(point)
        if point in self.accidents:
            return Rejected(_ACCIDENTS[self.accidents[point]])
        if point in self.landscape.failures:
            return Rejected(self.landscape.failures[point])
        if point not in self.landscape.seconds:
            return Rejected("not recorded")
        return self.landscape.seconds[point] * math.exp(abs(self._draw.gauss(0, self.noise)))

    @property
    def wasted(self) -> int:
        """Measurements of invalid points, and of points that were measured before."""
        good = {p for p in self.asked if p in self.landscape.seconds}
        return len(self.asked) - len(good)


_ACCIDENTS: Final[Mapping[Accident, str]] = MappingProxyType(
    {
        "crash": "launch failed: the process ended: illegal memory access",
        "hang": "launch failed: no answer within the time limit",
        "out of memory": "launch failed: out of memory",
    }
)
"""How a real device's worker reports the same."""


def regret(landscape: Landscape, measured: Sequence[tuple[int, ...]], after: int) -> float:
    """How far the best of the first measurements lies above the optimum: 1.15 is 15 % slower."""
    times = [landscape.seconds[p] for p in measured[:after] if p in landscape.seconds]
    return min(times, default=math.inf) / landscape.best_s
