"""Whether any instance of a kernel fits a target: the smallest-tile test.

What a program holds on chip grows with every tile, so a role assignment is feasible if and only if it is with
minimal tiles. A minimal tile is one index, in dot products too: those are padded, or printed as multiply and
reduce, which costs time and is no obstacle. (A minimum of 16 per axis would rule out every kernel whose dot
products have several batch axes.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from sgraph.axis import Axis, largest
from sgraph.bounds import RESIDENT_WORDS
from sgraph.ir import Kernel, Role
from sgraph.schedule import Compute, Load, Loop, Reduce, Schedule, Statement
from sgraph.target import Target

LOADED_BYTES: Final = 1
"""An element of the narrowest type that is loaded."""


def violated(schedule: Schedule, target: Target) -> str | None:
    """The constraint that even the smallest tiles violate, with both figures; None if the kernel can fit."""
    tiles = smallest_tiles(schedule.kernel)
    fits = on_chip_bytes(target)
    for phase in schedule.phases:
        held = _held_bytes(phase.body, tiles)
        if held > fits:
            return f"on-chip memory: {held} B live at the smallest tiles, {fits} B of registers and shared memory"
    return None


def on_chip_bytes(target: Target) -> int:
    """Bytes of registers and shared memory that one program may use."""
    return 4 * max(target.registers, RESIDENT_WORDS) + (target.shared_memory_bytes if target.kind == "cuda" else 0)


def smallest_tiles(kernel: Kernel) -> dict[Axis, int]:
    """The least tile of every axis of a kernel: all of it, padded to a power of two, or one index."""
    tiles: dict[Axis, int] = {}
    for axis, role in kernel.roles:
        padded = 1 << max(largest(axis.extent) - 1, 0).bit_length()
        tiles[axis] = padded if role is Role.WHOLE else 1
    return tiles


def _held_bytes(body: tuple[Statement, ...], tiles: Mapping[Axis, int]) -> int:
    """Bytes that are live at once at the least: the accumulators of the deepest loops and one more tile there.

    Loads count as the narrowest type, everything computed as float32.
    """
    most = 0
    for statement in body:
        match statement:
            case Loop():
                started = sum(4 * _elements(v.free, tiles) for v in statement.start)
                most = max(most, started + _held_bytes(statement.body, tiles))
            case Load():
                most = max(most, LOADED_BYTES * _elements(statement.value.free, tiles))
            case Compute() | Reduce():
                most = max(most, 4 * _elements(statement.value.free, tiles))
            case _:
                pass
    return most


def _elements(axes: frozenset[Axis], tiles: Mapping[Axis, int]) -> int:
    return math.prod(tiles[a] for a in axes)
