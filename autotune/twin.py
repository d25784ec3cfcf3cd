"""The small twin of a family: extents and parameters at which its emitted text can be interpreted.

Every axis is ragged, takes several tiles, and has an extent of its own; axes that are held as one index get two or
three, since each index of them is a program or a step by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from autotune.layout import layout_of
from autotune.parameters import KernelParameters, Parameters, candidates, tile_sizes
from autotune.targets import find_target
from sgraph.axis import Axis, Size
from sgraph.ir import Kernel, Role, SGraph
from sgraph.schedule import Loop, Phase, Schedule, Statement
from sgraph.stages import derive

TILE: Final = 16
"""Tile of every axis: small, so that ragged extents still take several tiles."""
EXTENTS: Final = (37, 21, 19, 35, 18, 23, 33)
"""Extents by axis: none a multiple of the tile, two or three tiles each."""
TWO_TILES: Final = TILE + 2
"""The shortest extent that takes two tiles, the last one ragged."""
INDICES: Final = (3, 2)
"""Extents of axes that are held as one index."""
MOST_STEPS: Final = 400
"""Steps of all programs of one run of the twin; one takes a millisecond or two to interpret, and a check has ten."""
CELLS: Final = 3
"""Cells of a split axis: no power of two, so that the last ones may be empty."""


def small_sizes(sizes: Mapping[Axis, int], graph: SGraph | None = None, kept: Iterable[Axis] = ()) -> dict[str, int]:
    """Ragged extents small enough to interpret, different for every axis and within declared ranges.

    Args:
        sizes: real extents, one for every axis of the program.
        graph: the family that is interpreted, if it is known: the extents then also fit ``MOST_STEPS``.
        kept: axes that keep their real extent.
    """
    real = {a: sizes[a] for a in kept}
    wanted = {**_ragged(sizes, _indexed(graph) if graph is not None else frozenset()), **real}
    chosen = _allowed(wanted, sizes)
    if graph is None:
        return chosen
    schedules = [derive(k) for k in graph.kernels]
    streamed = {a.base for k in graph.kernels for role in (Role.LOOP, Role.SPLIT) for a in k.with_role(role)}
    while _steps(schedules, chosen) > MOST_STEPS:
        free = [a for a in wanted if a not in real and wanted[a] > INDICES[-1]]
        # An axis that is accumulated over keeps two tiles as long as it can: one step, or one cell, shows no rescaling.
        others = [a for a in free if a not in streamed or wanted[a] > TWO_TILES]
        longest = max(others or free, key=lambda a: (wanted[a], a.key), default=None)
        if longest is None:
            break
        wanted[longest] = TWO_TILES if wanted[longest] > TWO_TILES else wanted[longest] // 2
        chosen = _allowed(wanted, sizes)
    return chosen


def sizes_to_keep(sizes: Mapping[Axis, int]) -> Iterator[tuple[Axis, ...]]:
    """Sets of axes to keep at their real extents, from none to all constant ones, short axes first.

    A function may depend on an extent: attention divides by the root of one.
    """
    constant = sorted((a for a in sizes if isinstance(a.extent, int)), key=lambda a: (sizes[a], a.key))
    yield ()
    yield from ((a,) for a in constant)
    yield from (tuple(constant[:n]) for n in range(2, len(constant) + 1))


def small_config(graph: SGraph, sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Small tiles for every kernel, as the ``config`` of the emitted ``launch``."""
    return Parameters(tuple(_small_parameters(k, sizes) for k in graph.kernels)).to_config()


def _small_parameters(kernel: Kernel, sizes: Mapping[str, int]) -> KernelParameters:
    space = candidates(kernel, sizes, find_target("a100"))
    config = {name: min(choices, key=lambda c: abs(c - TILE)) for name, choices in space.items()}
    split = CELLS if kernel.with_role(Role.SPLIT) else 1
    return KernelParameters.from_config({**config, "split": split, "warps": 4, "stages": 2, "group": 1})


def _indexed(graph: SGraph) -> frozenset[Axis]:
    """Axes that every kernel which has them holds as one index."""
    tiled = {a.base for k in graph.kernels for a in k.axes if a not in layout_of(k).scalar}
    return frozenset(a.base for k in graph.kernels for a in k.axes) - tiled


def _ragged(sizes: Mapping[Axis, int], indexed: frozenset[Axis]) -> dict[Axis, int]:
    wanted: dict[Axis, int] = {}
    for i, axis in enumerate(sorted(sizes)):
        extents = INDICES if axis in indexed else EXTENTS
        wanted[axis] = extents[i % len(extents)]
    return wanted


def _allowed(wanted: Mapping[Axis, int], sizes: Mapping[Axis, int]) -> dict[str, int]:
    """Wanted extents within what is declared; axes of one symbol are equally long."""
    symbols: dict[Size, int] = {}
    for axis in sizes:
        if isinstance(axis.extent, Size):
            symbols[axis.extent] = max(symbols.get(axis.extent, 0), wanted[axis])
    small: dict[str, int] = {}
    for axis in sorted(sizes):
        extent = axis.extent
        if isinstance(extent, int):
            small[axis.name] = min(wanted[axis], sizes[axis])
        else:
            multiple = max(symbols[extent] // extent.divisor, 1) * extent.divisor
            small[axis.name] = max(min(multiple, extent.high), extent.low)
    return small


def _steps(schedules: list[Schedule], sizes: Mapping[str, int]) -> int:
    """Loop steps, and programs without a loop, of one run with small tiles."""
    return sum(
        _phase_steps(phase, _trips(schedule.kernel, sizes)) for schedule in schedules for phase in schedule.phases
    )


def _trips(kernel: Kernel, sizes: Mapping[str, int]) -> dict[Axis, int]:
    tiles = tile_sizes(kernel, _small_parameters(kernel, sizes), sizes)
    return {a: -(-sizes[a.name] // tile) for a, tile in tiles.items()}


def _phase_steps(phase: Phase, trips: Mapping[Axis, int]) -> int:
    programs = math.prod(trips[a] for a in phase.grid)
    if phase.name != "main":
        return programs * CELLS
    return programs * max(1, sum(_body_steps(phase.body, trips)))


def _body_steps(body: tuple[Statement, ...], trips: Mapping[Axis, int]) -> Iterator[int]:
    for statement in body:
        if isinstance(statement, Loop):
            yield trips[statement.axis] * max(1, sum(_body_steps(statement.body, trips)))
