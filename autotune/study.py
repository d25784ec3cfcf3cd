"""Optuna studies over discrete parameters, by ask and tell.

A point that cannot be used is told a penalty, not a failure: samplers learn nothing from failures and propose
such points again. Powers of two are searched as their exponents. Points already seen are answered from memory.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import optuna

PENALTY_FACTOR: Final = 4.0
"""A rejected point is told this many times the worst value accepted so far."""

log = logging.getLogger("prism.tune")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter and the values it can take."""

    name: str
    """Unique in a study."""
    choices: tuple[int, ...]
    """Ascending."""

    def __post_init__(self) -> None:
        assert self.choices and list(self.choices) == sorted(set(self.choices)), self

    @property
    def powers(self) -> bool:
        """Whether the choices are consecutive powers of two."""
        return self.choices[0] > 0 and all(b == 2 * a for a, b in itertools.pairwise(self.choices))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A point that cannot be used, and why."""

    reason: str
    """Short, the same for every point rejected for the same cause."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One point that was looked at."""

    point: tuple[int, ...]
    """One value per dimension, in their order."""
    seconds: float
    """Its time; infinite for a rejected point."""
    reason: str = ""
    """Why it was rejected."""


Evaluate = Callable[[tuple[int, ...]], "float | Rejected"]


def minimise(
    dimensions: Sequence[Dimension],
    evaluate: Evaluate,
    *,
    trials: int,
    seed: int,
    seeds: Sequence[tuple[int, ...]] = (),
    stop: Callable[[], bool] = lambda: False,
) -> list[Trial]:
    """Every point looked at, fastest first; rejected ones last.

    Args:
        dimensions: the space.
        evaluate: seconds of a point, or why it cannot be used.
        trials: distinct points to look at; a space no larger than that is enumerated.
        seed: of the sampler.
        seeds: points to look at first, such as a model's best of each structural variant.
        stop: asked before each point; True ends the study with what it has.
    """
    seen: dict[tuple[int, ...], Trial] = {}

    def look(point: tuple[int, ...]) -> Trial:
        if point not in seen:
            answer = evaluate(point)
            rejected = isinstance(answer, Rejected)
            seen[point] = Trial(point, math.inf, answer.reason) if rejected else Trial(point, answer)
        return seen[point]

    if math.prod(len(d.choices) for d in dimensions) <= trials:
        for point in itertools.product(*(d.choices for d in dimensions)):
            if stop():
                break
            look(point)
    else:
        _sample(dimensions, look, seen, trials, seed, seeds, stop)
    log.debug("looked at %d points, %d rejected", len(seen), sum(bool(t.reason) for t in seen.values()))
    return sorted(seen.values(), key=lambda t: (t.seconds, t.point))


def _sample(
    dimensions: Sequence[Dimension],
    look: Callable[[tuple[int, ...]], Trial],
    seen: dict[tuple[int, ...], Trial],
    trials: int,
    seed: int,
    seeds: Sequence[tuple[int, ...]],
    stop: Callable[[], bool],
) -> None:
    """Ask and tell until enough distinct points were seen, or the sampler only repeats itself."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, trials))
    study = optuna.create_study(sampler=sampler)
    for point in seeds:
        study.enqueue_trial(_encoded(dimensions, point), skip_if_exists=True)
    asked = 0
    while len(seen) < trials and asked < 3 * trials and not stop():
        asked += 1
        trial = study.ask()
        point = tuple(_suggested(trial, d) for d in dimensions)
        answer = look(point)
        finite = [t.seconds for t in seen.values() if not t.reason]
        penalty = PENALTY_FACTOR * max(finite, default=1.0)
        study.tell(trial, penalty if answer.reason else answer.seconds)


def _suggested(trial: optuna.Trial, dimension: Dimension) -> int:
    if dimension.powers:
        first = dimension.choices[0].bit_length() - 1
        return 1 << trial.suggest_int(dimension.name, first, first + len(dimension.choices) - 1)
    return dimension.choices[trial.suggest_int(dimension.name, 0, len(dimension.choices) - 1)]


def _encoded(dimensions: Sequence[Dimension], point: tuple[int, ...]) -> dict[str, int]:
    return {
        d.name: value.bit_length() - 1 if d.powers else d.choices.index(value)
        for d, value in zip(dimensions, point, strict=True)
    }
