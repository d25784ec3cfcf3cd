"""Fair timing of a few callables on a shared CPU: interleaved samples, robust statistics, measured noise.

Protocol (range of repeated trials 0.4-3.3 % in cache, 4-6 % when bound by memory): every round times each
candidate once, in shuffled order; a sample is about 2 ms of calls after one warm call; a sample during which
the process was preempted is dropped; the first candidate takes part twice, and how far its two halves lie
apart is the noise of the whole comparison (A-A). A row's time is the median of the faster half of its samples.
"""

from __future__ import annotations

import gc
import logging
import random
import statistics
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

SAMPLE_S: Final = 2e-3
"""Aimed length of one sample, in seconds."""
FEWEST: Final = 3
"""Below this number of samples no time is reported."""

log = logging.getLogger("prism.timing")


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one candidate."""

    name: str
    """The candidate."""
    median_us: float
    """Median of the faster half of its samples, in microseconds per call."""
    spread_percent: float
    """Range of that half relative to its median."""
    samples: int
    """How many samples count."""
    ratio_to_reference: float
    """Its time over that of the first candidate."""


@dataclass(frozen=True, slots=True)
class CpuComparison:
    """Times of candidates that were measured against each other."""

    rows: tuple[Timing, ...]
    """In the order the candidates were given; those that could not be timed are missing."""
    noise_percent: float
    """How far repeated measurements of the first candidate lie apart."""
    complete: bool
    """False if the person interrupted it."""
    fallback: str = ""
    """Why the rows count less than the protocol asks for; empty if it was kept."""
    failures: Mapping[str, str] = field(default_factory=dict[str, str])
    """Candidates that raised while being timed, and what they said."""

    def row(self, name: str) -> Timing | None:
        """The row of a candidate, or None where it has no time."""
        return next((r for r in self.rows if r.name == name), None)


@dataclass(slots=True)
class _Entry:
    """One callable that takes part in the rounds."""

    name: str
    call: Callable[[], object]
    repeats: int = 1
    clean: list[float] = field(default_factory=list[float])
    preempted: list[float] = field(default_factory=list[float])

    @property
    def taken(self) -> int:
        """Samples taken, clean or not."""
        return len(self.clean) + len(self.preempted)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_samples: int = 20,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> CpuComparison:
    """Time the candidates against each other until each has ``min_samples`` clean samples or time is up.

    A candidate that raises leaves the comparison and is listed under ``failures``. When a busy machine does not
    yield enough clean samples, samples during which the process was preempted count as well and ``fallback``
    says so: threads are not reduced instead, because compiled candidates have their number built in. The first
    three rounds are made even if they overrun ``seconds``; fewer samples give no time
    at all. ``KeyboardInterrupt`` ends the rounds; what was measured is returned.
    """
    assert candidates, "nothing to time"
    first = next(iter(candidates))
    entries = [_Entry(name, call) for name, call in candidates.items()]
    twin = _Entry(first, candidates[first])
    failures: dict[str, str] = {}
    complete = True
    with _collector_off():
        try:
            running = [e for e in [*entries, twin] if _calibrated(e, failures)]
            _rounds(running, failures, time.perf_counter() + seconds, min_samples, random.Random(seed), on_progress)
        except KeyboardInterrupt:
            complete = False
    entries = [e for e in entries if e.name not in failures]
    fallback = _fallback([*entries, twin] if first not in failures else entries, min_samples)
    if fallback:
        log.info("timing: %s", fallback)
    rows = _rows(entries, first, bool(fallback))
    noise = _noise(entries[0], twin, bool(fallback)) if entries and entries[0].name == first else float("inf")
    return CpuComparison(rows, noise, complete, fallback, failures)


@contextmanager
def _collector_off() -> Generator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _calibrated(entry: _Entry, failures: dict[str, str]) -> bool:
    """Choose how many calls make a sample; False if the candidate raises."""
    if entry.name in failures:
        return False
    try:
        entry.call()
        started = time.perf_counter()
        entry.call()
        once = time.perf_counter() - started
    except Exception as error:
        failures[entry.name] = _reason(error)
        return False
    if once < SAMPLE_S:
        started = time.perf_counter()
        count = max(1, int(SAMPLE_S / 4 / max(once, 1e-8)))
        for _ in range(count):
            entry.call()
        once = (time.perf_counter() - started) / count
    entry.repeats = max(1, round(SAMPLE_S / max(once, 1e-8)))
    return True


def _rounds(
    running: list[_Entry],
    failures: dict[str, str],
    deadline: float,
    min_samples: int,
    order: random.Random,
    on_progress: Callable[[str], None] | None,
) -> None:
    # Without a few rounds there is no time at all, so these are made even when they overrun the deadline.
    while running and (time.perf_counter() < deadline or min(e.taken for e in running) < FEWEST):
        if on_progress is not None:
            on_progress(
                f"timing {len(running)} candidates: {min(len(e.clean) for e in running)} of {min_samples} rounds"
            )
        for entry in order.sample(running, len(running)):
            try:
                _sample(entry)
            except Exception as error:
                failures[entry.name] = _reason(error)
        running = [e for e in running if e.name not in failures]
        if all(len(e.clean) >= min_samples for e in running):
            return


def _sample(entry: _Entry) -> None:
    entry.call()
    switches = _preemptions()
    started = time.perf_counter_ns()
    for _ in range(entry.repeats):
        entry.call()
    elapsed = time.perf_counter_ns() - started
    kept = entry.clean if _preemptions() == switches else entry.preempted
    kept.append(elapsed / entry.repeats / 1e3)


def _preemptions() -> int:
    """Involuntary context switches of the process so far, all threads; 0 where the system does not count them."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _fallback(entries: list[_Entry], min_samples: int) -> str:
    """Why the protocol was not kept, or an empty string."""
    short = [e for e in entries if len(e.clean) < min_samples]
    if not short:
        return ""
    fewest = min(len(e.clean) for e in short)
    dropped = sum(len(e.preempted) for e in entries)
    total = dropped + sum(len(e.clean) for e in entries)
    if dropped * 4 <= total:
        return f"time was up after {fewest} of {min_samples} clean samples; preempted samples count as well"
    return f"the machine is busy: {dropped} of {total} samples were preempted; they count as well"


def _counted(entry: _Entry, everything: bool) -> list[float]:
    return [*entry.clean, *entry.preempted] if everything else entry.clean


def _faster_half(samples: list[float]) -> list[float]:
    return sorted(samples)[: (len(samples) + 1) // 2]


def _rows(entries: list[_Entry], first: str, everything: bool) -> tuple[Timing, ...]:
    halves = {e.name: _faster_half(s) for e in entries if len(s := _counted(e, everything)) >= FEWEST}
    medians = {name: statistics.median(half) for name, half in halves.items()}
    reference = medians.get(first)
    return tuple(
        Timing(
            entry.name,
            medians[entry.name],
            100 * (halves[entry.name][-1] - halves[entry.name][0]) / medians[entry.name],
            len(_counted(entry, everything)),
            medians[entry.name] / reference if reference else float("nan"),
        )
        for entry in entries
        if entry.name in halves
    )


def _noise(first: _Entry, twin: _Entry, everything: bool) -> float:
    """Range, in percent, of four trials of the same callable: even and odd rounds of both of its entries."""
    trials: list[float] = []
    for entry in (first, twin):
        samples = _counted(entry, everything)
        if len(samples) < 2 * FEWEST:
            return float("inf") if len(samples) < FEWEST else _pair_noise(first, twin, everything)
        trials += [statistics.median(_faster_half(samples[start::2])) for start in (0, 1)]
    return 100 * (max(trials) / min(trials) - 1)


def _pair_noise(first: _Entry, twin: _Entry, everything: bool) -> float:
    samples = [_counted(e, everything) for e in (first, twin)]
    if min(len(s) for s in samples) < FEWEST:
        return float("inf")
    medians = [statistics.median(_faster_half(s)) for s in samples]
    return 100 * (max(medians) / min(medians) - 1)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
