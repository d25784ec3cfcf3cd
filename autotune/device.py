"""Timing on a CUDA device: the whole subgraph in a captured graph, inputs rotated, candidates interleaved.

Only imported where a device is present; nothing here has been run without one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Launch = Callable[..., object]

ROTATED_CACHES = 5
"""Inputs are rotated over this many times the last-level cache, so that every replay reads cold memory."""
REPEATS = 7


@dataclass(frozen=True, slots=True)
class DeviceTiming:
    """One candidate's time on the device."""

    median_us: float
    """Median over repeats of one launch of the whole subgraph, cold."""
    spread_percent: float
    """Half the distance between the extremes, relative to the median."""


def rotated_inputs(inputs: Sequence[torch.Tensor], cache_bytes: int) -> list[list[torch.Tensor]]:
    """Copies of the inputs that together exceed the cache ``ROTATED_CACHES`` times; at most 64."""
    size = sum(t.numel() * t.element_size() for t in inputs)
    copies = min(64, max(2, -(-ROTATED_CACHES * cache_bytes // max(1, size))))
    return [list(inputs)] + [[t.clone() for t in inputs] for _ in range(copies - 1)]


def time_candidates(
    candidates: Mapping[str, Launch], inputs: Sequence[torch.Tensor], cache_bytes: int
) -> tuple[dict[str, DeviceTiming], dict[str, str]]:
    """Interleaved times of all candidates, and the reason for each that could not be captured or run."""
    sets = rotated_inputs(inputs, cache_bytes)
    graphs: dict[str, torch.cuda.CUDAGraph] = {}
    failed: dict[str, str] = {}
    for name, launch in candidates.items():
        try:
            graphs[name] = _captured(launch, sets)
        except Exception as error:  # whatever a candidate does wrong is its result, not ours
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    samples: dict[str, list[float]] = {name: [] for name in graphs}
    order = list(graphs)
    for repeat in range(REPEATS):
        for name in order if repeat % 2 == 0 else reversed(order):
            samples[name].append(_replay_us(graphs[name]) / len(sets))
    return {name: _timing(s) for name, s in samples.items()}, failed


def _captured(launch: Launch, sets: Sequence[Sequence[torch.Tensor]]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            launch(*sets[0])
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for given in sets:
            launch(*given)
    graph.replay()
    torch.cuda.synchronize()
    return graph


def _replay_us(graph: torch.cuda.CUDAGraph) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def _timing(samples: Sequence[float]) -> DeviceTiming:
    median = statistics.median(samples)
    return DeviceTiming(median, 50.0 * (max(samples) - min(samples)) / median)
