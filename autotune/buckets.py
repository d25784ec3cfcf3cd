"""One kernel, several frozen configurations: a bucket of symbolic extents each, the nearest one taken at a call.

A family and its proof cover every extent, but a configuration that is fast for one token is slow for two thousand.
The emitted launcher takes a configuration with each call; this module says which.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from autotune.measured import nearest_bucket
from autotune.parameters import Parameters
from autotune.tuner import NotBuilt, Tuner
from sgraph.axis import Axis, Size
from sgraph.border import viewed
from sgraph.generate import Family
from sgraph.program import Program
from sgraph.target import Target

STEP: Final = 8
"""Ratio of neighbouring buckets."""
MOST: Final = 8
"""Buckets of a program at most."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Frozen configurations by the extents they were tuned for."""

    program: Program
    """Whose symbolic extents they are."""
    entries: tuple[tuple[tuple[tuple[str, int], ...], Parameters], ...]
    """Extent of each symbolic axis by name, and the parameters."""

    def config(self, inputs: Sequence[Any]) -> dict[str, dict[str, int]]:
        """The configuration for these inputs: that of the nearest bucket, in ratios of extents."""
        sizes = extents(self.program, inputs)
        chosen = nearest_bucket(sizes, [dict(b) for b, _ in self.entries])
        return next(p for b, p in self.entries if dict(b) == chosen).to_config()

    def wrap(self, launch: Callable[..., object]) -> Callable[..., object]:
        """The launcher with the configuration chosen at every call."""
        return lambda *inputs: launch(*inputs, config=self.config(inputs))


def extents(program: Program, inputs: Sequence[Any]) -> dict[str, int]:
    """The symbolic extents of a call, by axis name."""
    found: dict[str, int] = {}
    for tensor, given in zip(program.inputs, viewed(program, inputs), strict=True):
        for axis, size in zip(tensor.axes, given.shape, strict=True):
            if axis is not None and isinstance(axis.base.extent, Size):
                found[axis.base.name] = int(size)
    return found


def bucket_sizes(program: Program, example: Mapping[Axis, int]) -> list[dict[Axis, int]]:
    """Extents of every bucket: the example's own first, then steps through the ranges of the symbolic axes."""
    symbolic = [a for a in program.axes if isinstance(a.extent, Size)]
    if not symbolic:
        return []
    steps = [_steps(a, example[a]) for a in symbolic]
    listed = [{**example, **dict(zip(symbolic, point, strict=True))} for point in itertools.product(*steps)]
    own = dict(example)
    return [own, *(sizes for sizes in listed if sizes != own)][:MOST]


def _steps(axis: Axis, example: int) -> list[int]:
    size = axis.extent
    assert isinstance(size, Size)
    found, n = [example], size.low
    while n <= size.high and len(found) < MOST:
        found.append(min(size.high, max(size.low, -(-n // size.divisor) * size.divisor)))
        n = max(n * STEP, 1)
    return sorted(set(found), key=lambda v: (abs(v - example), v))


def modelled_buckets(
    family: Family,
    target: Target,
    program: Program,
    example: Parameters,
    sizes: Mapping[Axis, int],
    trials: int,
    seed: int,
) -> Buckets | None:
    """Configurations for every bucket: the example's as given, the others by the model; None without symbolic extents.

    A bucket that no assignment fits is left out: its calls take the nearest that has one.
    """
    listed = bucket_sizes(program, sizes)
    entries: list[tuple[tuple[tuple[str, int], ...], Parameters]] = []
    for n, bucket in enumerate(listed):
        options = Tuner(target, bucket, trials=trials, seed=seed).options(family, 1) if n else []
        if isinstance(options, NotBuilt):
            continue
        key = tuple((a.name, extent) for a, extent in bucket.items() if isinstance(a.extent, Size))
        entries.append((key, options[0].parameters if n else example))
    return Buckets(program, tuple(entries)) if entries else None
