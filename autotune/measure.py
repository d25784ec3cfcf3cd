"""Measure callables on a CUDA device as Prism does: ``autotune.measure.measure({"mine": f, "eager": g}, inputs)``.

The whole callable is captured in a CUDA graph, its inputs are rotated over five sizes of the last-level cache, so that
every launch reads cold memory, and candidates take turns forwards and backwards (A-B-B-A). The first candidate takes
part twice: how far its two times lie apart (A-A) is the noise, and a difference counts only above twice that. A time
below the speed of light, or more than ten times faster than the first candidate, is an alarm to explain, no success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from autotune.measured import Launch, Time, Timer

if TYPE_CHECKING:
    import torch

TWIN: Final = "\x00twin"
"""Name of the first candidate's second entry."""
TOO_FAST: Final = 10.0
"""A ratio above it is an alarm."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Times of callables that were measured against each other."""

    times: Mapping[str, Time]
    """By candidate."""
    noise_percent: float
    """How far two measurements of the first candidate lie apart (A-A)."""
    failures: Mapping[str, str] = field(default_factory=dict[str, str])
    """Candidates that could not be captured or run, and why."""
    alarms: tuple[str, ...] = ()
    """What cannot be right, in words."""

    def faster(self, one: str, other: str) -> bool:
        """Whether a candidate is faster than another by more than twice the noise.

        Raises:
            KeyError: one of them has no time.
        """
        gain = 100 * (self.times[other].median_us / self.times[one].median_us - 1)
        return gain > 2 * self.noise_percent


def measure(
    candidates: Mapping[str, Launch],
    inputs: Sequence[torch.Tensor],
    *,
    limit_us: float = 0.0,
    cache_bytes: int | None = None,
    timer: Timer | None = None,
) -> Measurement:
    """Times of callables on the device their inputs lie on.

    Args:
        candidates: by name; the first is the reference.
        inputs: one example call, on a CUDA device.
        limit_us: speed of light; a time below it is an alarm.
        cache_bytes: last-level cache; None for the device's own.
        timer: measures in the place of the device; for tests and recordings.
    """
    assert candidates, "nothing to measure"
    first = next(iter(candidates))
    timed, failed = (timer or _on_device(inputs, cache_bytes))({**candidates, TWIN: candidates[first]})
    times = {n: t for n, t in timed.items() if n != TWIN}
    noise = float("inf")
    if first in times and TWIN in timed:
        pair = sorted((times[first].median_us, timed[TWIN].median_us))
        noise = 100 * (pair[1] / pair[0] - 1)
    failures = {n: reason for n, reason in failed.items() if n != TWIN}
    return Measurement(times, noise, failures, tuple(_alarms(times, first, limit_us)))


def _alarms(times: Mapping[str, Time], first: str, limit_us: float) -> list[str]:
    found: list[str] = []
    for name, time in times.items():
        if time.median_us < limit_us:
            share = 100 * limit_us / time.median_us
            found.append(f"{name} takes {time.median_us:.2f} us, {share:.0f} % of the speed of light")
        if first in times and times[first].median_us > TOO_FAST * time.median_us:
            found.append(f"{name} is {times[first].median_us / time.median_us:.0f} times as fast as {first}")
    return found


def _on_device(inputs: Sequence[torch.Tensor], cache_bytes: int | None) -> Timer:
    import torch

    from autotune.device import time_candidates

    size = cache_bytes
    if size is None:
        size = int(torch.cuda.get_device_properties(inputs[0].device).L2_cache_size)
    cache: int = size

    def timer(launches: Mapping[str, Callable[..., object]]) -> tuple[Mapping[str, Time], Mapping[str, str]]:
        return time_candidates(launches, inputs, cache)

    return timer
