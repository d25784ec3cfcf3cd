"""Parameters of an instance: tile sizes, split factors, warps, pipeline stages and program order.

One assignment per kernel of a family. A configuration is the same as plain numbers, as the emitted source
keeps it in its ``CONFIG`` table: ``{"kernel_0": {"tile_m": 16, ..., "split": 1, "warps": 4, ...}}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from autotune.layout import MIN_DOT, Layout, layout_of
from sgraph.axis import Axis
from sgraph.ir import Kernel, Role, SGraph
from sgraph.target import Target

TILED: Final = frozenset({Role.GRID, Role.LOOP, Role.SPLIT})
"""Roles whose axes have a tile parameter; a whole axis has one tile, the next power of two of its extent."""
PROGRAMS_WANTED: Final = 256
"""Programs that a default split aims for: about two per multiprocessor of the targets."""
TILE_ELEMENTS: Final = 4096
"""Elements of a default tile outside dot products."""


@dataclass(frozen=True, slots=True)
class KernelParameters:
    """One kernel's parameters."""

    tiles: tuple[tuple[str, int], ...]
    """Axis name and power-of-two tile of each grid, loop and split axis."""
    split: int = 1
    """Cells of the split axis; 1 if there is none."""
    warps: int = 4
    """Warps per program."""
    stages: int = 3
    """Pipeline stages of loops."""
    group: int = 1
    """Tiles of the next to last grid axis that are visited together for reuse in the cache; 1 is plain order."""

    def tile(self, axis: Axis) -> int:
        """The tile of a grid, loop or split axis.

        Raises:
            KeyError: the axis has none.
        """
        return dict(self.tiles)[str(axis)]

    def to_config(self) -> dict[str, int]:
        """The parameters as plain numbers."""
        tiles = {f"tile_{axis}": tile for axis, tile in self.tiles}
        return {**tiles, "split": self.split, "warps": self.warps, "stages": self.stages, "group": self.group}

    @staticmethod
    def from_config(config: Mapping[str, int]) -> KernelParameters:
        """The inverse of ``to_config``; what is left out keeps its default."""
        tiles = tuple((k.removeprefix("tile_"), n) for k, n in config.items() if k.startswith("tile_"))
        return KernelParameters(
            tiles,
            split=config.get("split", 1),
            warps=config.get("warps", 4),
            stages=config.get("stages", 3),
            group=config.get("group", 1),
        )


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of every kernel of a family, in the order of its kernels."""

    kernels: tuple[KernelParameters, ...]
    """One for each kernel."""

    def to_config(self) -> dict[str, dict[str, int]]:
        """As the ``config`` of an emitted source's ``launch``; it survives JSON."""
        return {f"kernel_{i}": k.to_config() for i, k in enumerate(self.kernels)}

    @staticmethod
    def from_config(config: Mapping[str, Mapping[str, int]]) -> Parameters:
        """The inverse of ``to_config``."""
        return Parameters(
            tuple(KernelParameters.from_config(config[f"kernel_{i}"]) for i in range(len(config))),
        )


def tiled_axes(kernel: Kernel) -> tuple[Axis, ...]:
    """The axes that have a tile parameter, in canonical order."""
    return tuple(a for a, role in kernel.roles if role in TILED)


def padded(extent: int) -> int:
    """The next power of two, at least 1."""
    return 1 << max(extent - 1, 0).bit_length()


def whole_tile(axis: Axis, layout: Layout, sizes: Mapping[str, int]) -> int:
    """The tile of a resident axis."""
    return max(padded(sizes[axis.name]), MIN_DOT if axis in layout.dot_axes else 1)


def tile_sizes(kernel: Kernel, parameters: KernelParameters, sizes: Mapping[str, int]) -> dict[Axis, int]:
    """The tile of every axis of a kernel; 1 for scalar axes."""
    layout = layout_of(kernel)
    given = dict(parameters.tiles)
    return {
        a: 1 if a in layout.scalar else given[str(a)] if role in TILED else whole_tile(a, layout, sizes)
        for a, role in kernel.roles
    }


# ------------------------------------------------------------------------------------------------- defaults


def default_parameters(graph: SGraph, sizes: Mapping[str, int]) -> Parameters:
    """Reasonable parameters for every kernel, before any search.

    Args:
        graph: a family whose roles are decided.
        sizes: extent of each axis by name.
    """
    return Parameters(tuple(_default(k, sizes) for k in graph.kernels))


def _default(kernel: Kernel, sizes: Mapping[str, int]) -> KernelParameters:
    layout = layout_of(kernel)
    role = kernel.role
    tiles: dict[Axis, int] = {}
    resident = [whole_tile(a, layout, sizes) for a in kernel.with_role(Role.WHOLE)]
    budget = max(1, TILE_ELEMENTS // max(resident, default=1))
    for axis in sorted(tiled_axes(kernel), key=lambda a: (role[a] is Role.GRID, a.key)):
        most = padded(sizes[axis.name])
        if axis in layout.scalar:
            tiles[axis] = 1
        elif axis in layout.dot_axes:
            tiles[axis] = max(MIN_DOT, min(64, most))
        else:
            tiles[axis] = max(1, min(budget, most, 1024 if role[axis] is not Role.GRID else 64))
            budget = max(1, budget // tiles[axis])
    programs = math.prod(-(-sizes[a.name] // tiles[a]) for a in kernel.with_role(Role.GRID))
    split = 1
    for axis in kernel.with_role(Role.SPLIT):
        steps = -(-sizes[axis.name] // tiles[axis])
        split = padded(max(1, min(-(-PROGRAMS_WANTED // programs), steps // 2, 64)))
    in_order = tuple((str(a), tiles[a]) for a in tiled_axes(kernel))
    return KernelParameters(in_order, split=split, warps=4, stages=3, group=1)


# ---------------------------------------------------------------------------------------------------- space


def candidates(kernel: Kernel, sizes: Mapping[str, int], target: Target) -> dict[str, tuple[int, ...]]:
    """The raw search space: choices of each dimension, named as in a configuration.

    A point is made into parameters by ``KernelParameters.from_config``; whether it fits the target is for
    ``autotune.resources.violated`` to say.
    """
    layout = layout_of(kernel)
    role = kernel.role
    space: dict[str, tuple[int, ...]] = {}
    for axis in tiled_axes(kernel):
        most = padded(sizes[axis.name])
        if axis in layout.scalar:
            space[f"tile_{axis}"] = (1,)
        elif axis in layout.dot_axes:
            space[f"tile_{axis}"] = _powers(MIN_DOT, min(256, most))
        elif role[axis] is Role.GRID:
            space[f"tile_{axis}"] = _powers(1, min(1024, most))
        else:
            space[f"tile_{axis}"] = _powers(min(32, most), min(4096, most))
    looped = kernel.with_role(Role.LOOP) + kernel.with_role(Role.SPLIT)
    split = kernel.with_role(Role.SPLIT)
    space["split"] = _powers(1, min(64, padded(sizes[split[0].name]))) if split else (1,)
    space["warps"] = (1, 2, 4, 8, 16) if target.kind == "cuda" else (4,)
    space["stages"] = (1, 2, 3, 4, 5, 6) if looped else (1,)
    grouped = [a for a in kernel.with_role(Role.GRID) if a in layout.dot_axes]
    space["group"] = (1, 4, 8) if len(grouped) > 1 else (1,)
    return space


def _powers(low: int, high: int) -> tuple[int, ...]:
    """Powers of two from ``low`` to ``high``, at least one."""
    found = [low]
    while found[-1] * 2 <= high:
        found.append(found[-1] * 2)
    return tuple(found)
