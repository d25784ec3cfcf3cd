"""Search for the fastest of many valid points with few measurements, guided by a model that is roughly right.

The points are listed before anything is measured, so no measurement is spent on an invalid or a repeated one.
Three proposers take turns:

* **seeds**: the model's best of each structural variant, far from each other;
* **residuals**: a Gaussian process over ``log(measured / modelled)`` corrects the model where it was wrong, and the
  point of the largest expected improvement is next (the model is the prior mean);
* **Optuna**: a tree-structured Parzen estimator proposes; the valid point nearest to its proposal is measured.

What cannot be run is told to both as a penalty: learning nothing from it, they would propose its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from autotune.study import PENALTY_FACTOR, Dimension, Evaluate, Rejected, Trial

if TYPE_CHECKING:
    import optuna

Floats = NDArray[np.float64]

SEEDS: Final = 5
"""Points measured first."""
OPTUNA_FROM: Final = 15
"""Points measured before Optuna is asked: with fewer it proposes at random."""
OPTUNA_EVERY: Final = 5
"""Every so many points, the next one is Optuna's."""
LENGTH: Final = 0.6
"""Distance, as a part of the range of each dimension, over which residuals of the model are alike."""
ROUGHNESS: Final = 0.02
"""Standard deviation of what is not smooth in a landscape, and of the noise, as a part of the time."""
PAIR_ERROR: Final = 0.12
"""Standard deviation of what pairs of values have for themselves, such as a tile and a number of warps."""
MODEL_ERROR: Final = 0.35
"""Standard deviation of the logarithm of measured over modelled, before anything is measured."""
UNSEEN_MODEL: Final = 1.0
"""Modelled seconds of every point where there is no model."""


@dataclass(frozen=True, slots=True)
class Space:
    """The valid points of a search and what the model says of them."""

    dimensions: tuple[Dimension, ...]
    """What a point is made of."""
    points: tuple[tuple[int, ...], ...]
    """Each once."""
    modelled_s: tuple[float, ...]
    """Modelled seconds of each; all equal where there is no model."""

    def __post_init__(self) -> None:
        assert len(self.points) == len(self.modelled_s) > 0

    def coordinates(self) -> Floats:
        """The points in the unit cube, powers of two by their exponents; shape [points, dimensions]."""
        columns: list[Floats] = []
        for place, dimension in enumerate(self.dimensions):
            rank = {choice: n for n, choice in enumerate(dimension.choices)}
            span = max(1, len(dimension.choices) - 1)
            columns.append(np.array([rank[p[place]] / span for p in self.points]))
        return np.stack(columns, axis=1)


def search(
    space: Space,
    measure: Evaluate,
    *,
    trials: int,
    seed: int,
    first: Sequence[tuple[int, ...]] = (),
    stop: Callable[[], bool] = lambda: False,
) -> list[Trial]:
    """Every point measured, in the order of measuring.

    Args:
        space: the valid points.
        measure: seconds of a point, or why it could not be run.
        trials: measurements at most.
        seed: of the proposers.
        first: points measured before the seeds, such as what the model chose; those that are not valid are left out.
        stop: asked before each measurement.
    """
    state = _State(space, seed, trials)
    index = {p: i for i, p in enumerate(space.points)}
    queue = list(dict.fromkeys([*(index[p] for p in first if p in index), *_seeds(space, state.at)]))
    done: list[Trial] = []
    while len(done) < min(trials, len(space.points)) and not stop():
        if queue:
            chosen = queue.pop(0)
        elif len(done) >= OPTUNA_FROM and len(done) % OPTUNA_EVERY == 0:
            chosen = state.by_optuna()
        else:
            chosen = state.by_residuals()
        answer = measure(space.points[chosen])
        rejected = isinstance(answer, Rejected)
        trial = (
            Trial(space.points[chosen], math.inf, answer.reason) if rejected else Trial(space.points[chosen], answer)
        )
        done.append(trial)
        state.tell(chosen, trial)
    return done


def fastest(trials: Sequence[Trial]) -> Trial | None:
    """The fastest trial that ran."""
    return min((t for t in trials if not t.reason), key=lambda t: t.seconds, default=None)


def _seeds(space: Space, at: Floats) -> list[int]:
    """The model's best, then the best of those far enough from the ones before, each step allowing less model."""
    times = np.array(space.modelled_s)
    order = np.argsort(times, kind="stable")
    near = 0.5 * math.sqrt(1 + 0.1 * at.shape[1])
    chosen: list[int] = []
    while len(chosen) < min(SEEDS, len(space.points)):
        taken = at[chosen] if chosen else np.full((1, at.shape[1]), 9.0)
        apart = np.abs(at[:, None, :] - taken[None, :, :]).max(axis=2).min(axis=1)
        fresh = next((int(i) for i in order if apart[i] >= near), None)
        if fresh is None:
            near /= 2
            continue
        chosen.append(fresh)
    return chosen


class _State:
    """What was measured, and the two proposers."""

    def __init__(self, space: Space, seed: int, trials: int) -> None:
        self.space = space
        self.at = space.coordinates()
        self.prior: Floats = np.log(np.array(space.modelled_s))
        self.free: NDArray[np.bool_] = np.ones(len(space.points), dtype=bool)
        self.seen: list[int] = []
        self.logs: list[float] = []
        self.failed: list[bool] = []
        self.study = _study(seed, trials)
        self.ranges = _ranges(space.dimensions)

    def tell(self, chosen: int, trial: Trial) -> None:
        import optuna

        self.free[chosen] = False
        self.seen.append(chosen)
        self.failed.append(bool(trial.reason))
        self.logs.append(0.0 if trial.reason else math.log(max(trial.seconds, 1e-12)))
        ran = [v for v, bad in zip(self.logs, self.failed, strict=True) if not bad]
        worst = max(ran, default=0.0)
        told = math.exp(worst) * PENALTY_FACTOR if trial.reason else trial.seconds
        params = {d.name: d.choices.index(v) for d, v in zip(self.space.dimensions, trial.point, strict=True)}
        self.study.add_trial(optuna.trial.create_trial(params=params, distributions=self.ranges, value=told))

    def by_optuna(self) -> int:
        """The unmeasured valid point nearest to what Optuna proposes."""
        import optuna

        asked = self.study.ask(self.ranges)
        wanted = np.array(
            [asked.params[d.name] / max(1, len(d.choices) - 1) for d in self.space.dimensions], dtype=np.float64
        )
        self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
        distance = np.abs(self.at - wanted).sum(axis=1) + 1e-3 * (self.prior - self.prior.min())
        return int(np.argmin(np.where(self.free, distance, np.inf)))

    def by_residuals(self) -> int:
        """The unmeasured point with the largest expected improvement."""
        ran = [v for v, bad in zip(self.logs, self.failed, strict=True) if not bad]
        if not ran:
            return int(np.argmin(np.where(self.free, self.prior, np.inf)))
        penalty = max(ran) + 0.5
        values = np.array([penalty if bad else v for v, bad in zip(self.logs, self.failed, strict=True)])
        residual = values - self.prior[self.seen]
        centre = float(np.median(residual[~np.array(self.failed)]))
        mean, deviation = _posterior(self.at[self.seen], residual - centre, self.at)
        predicted = self.prior + centre + mean
        gain = _expected_improvement(predicted, deviation, min(ran))
        return int(np.argmax(np.where(self.free, gain, -np.inf)))


def _posterior(at: Floats, residual: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the residual at the wanted points: Matern 5/2, fixed hyperparameters."""
    kernel = _covariance(at, at)
    kernel[np.diag_indices_from(kernel)] += ROUGHNESS**2
    cross = _covariance(wanted, at)
    factor = np.linalg.cholesky(kernel)
    solved = np.linalg.solve(factor.T, np.linalg.solve(factor, residual)).astype(np.float64)
    inner = np.linalg.solve(factor, cross.T).astype(np.float64)
    variance = MODEL_ERROR**2 + PAIR_ERROR**2 + ROUGHNESS**2 - (inner**2).sum(axis=0)
    return cross @ solved, np.sqrt(np.maximum(variance, 1e-12))


def _covariance(a: Floats, b: Floats) -> Floats:
    """Alike where the points are near, and where they share values of two parameters: such pairs have a mood."""
    alike = (np.abs(a[:, None, :] - b[None, :, :]) < 1e-9).sum(axis=2)
    pairs = max(1, a.shape[1] * (a.shape[1] - 1) // 2)
    shared = alike * (alike - 1) / (2 * pairs)
    result: Floats = MODEL_ERROR**2 * _matern(a, b) + PAIR_ERROR**2 * shared
    return result


def _matern(a: Floats, b: Floats) -> Floats:
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    r = np.sqrt(np.maximum(square, 0.0)) * math.sqrt(5) / (LENGTH * math.sqrt(a.shape[1]))
    result: Floats = (1 + r + r**2 / 3) * np.exp(-r)
    return result


def _expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    # Abramowitz and Stegun 7.1.26 would do, but the error function of the library is exact and vectorised by numpy.
    below = 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2)))
    result: Floats = deviation * (z * below + density)
    return result


def _study(seed: int, trials: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, trials)))


def _ranges(dimensions: Sequence[Dimension]) -> dict[str, Any]:
    from optuna.distributions import IntDistribution

    return {d.name: IntDistribution(0, len(d.choices) - 1) for d in dimensions}
