"""Whether any instance of a kernel fits a target: the smallest-tile test.

Shared memory and registers grow with every tile, so a role assignment is feasible if and only if it is with
minimal tiles. A tile below the minimum of a dot product is padded: a cost, not an obstacle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from sgraph.axis import Axis, largest
from sgraph.bounds import is_dot
from sgraph.expr import reduction, walk
from sgraph.ir import Kernel, Role
from sgraph.schedule import Compute, Load, Loop, Reduce, Schedule, Statement
from sgraph.target import Target

SMALLEST_DOT_TILE: Final = 16
"""Smallest tile of an axis that takes part in a dot product; other axes go down to one index."""
RESIDENT_WORDS: Final = 65_536
"""32-bit registers of one multiprocessor: what one program can hold at most."""


def violated(schedule: Schedule, target: Target) -> str | None:
    """The constraint that even the smallest tiles violate, with both figures; None if the kernel can fit."""
    tiles = smallest_tiles(schedule.kernel)
    for phase in schedule.phases:
        words = _live_words(phase.body, tiles)
        if words > RESIDENT_WORDS:
            return f"registers: {words} values live at the smallest tiles, {RESIDENT_WORDS} fit"
        shared = _streamed_bytes(phase.body, tiles)
        if target.kind == "cuda" and shared > target.shared_memory_bytes:
            return (
                f"shared memory: {shared} B of operand tiles at the smallest tiles, {target.shared_memory_bytes} B fit"
            )
    return None


def smallest_tiles(kernel: Kernel) -> dict[Axis, int]:
    """The least padded tile of every axis of a kernel."""
    in_dots = frozenset[Axis]().union(
        *(reduction(n)[1].free for n in walk(s.value for s in kernel.stores) if is_dot(n))
    )
    tiles: dict[Axis, int] = {}
    for axis, role in kernel.roles:
        padded = 1 << max(largest(axis.extent) - 1, 0).bit_length()
        least = SMALLEST_DOT_TILE if axis in in_dots else 1
        tiles[axis] = max(padded, least) if role is Role.WHOLE else least
    return tiles


def _elements(axes: frozenset[Axis], tiles: Mapping[Axis, int]) -> int:
    return math.prod(tiles[a] for a in axes)


def _live_words(body: tuple[Statement, ...], tiles: Mapping[Axis, int]) -> int:
    """Values that live across the deepest loop at once: accumulators and the widest tile of each body."""
    held = widest = 0
    for statement in body:
        match statement:
            case Loop():
                held += sum(_elements(v.free, tiles) for v in statement.start)
                widest = max(widest, _live_words(statement.body, tiles))
            case Load() | Compute() | Reduce():
                widest = max(widest, _elements(statement.value.free, tiles))
            case _:
                pass
    return held + widest


def _streamed_bytes(body: tuple[Statement, ...], tiles: Mapping[Axis, int]) -> int:
    """Operand tiles of one loop body, single-buffered, two bytes an element."""
    most = 0
    for statement in body:
        if isinstance(statement, Loop):
            loaded = sum(_elements(s.value.free, tiles) for s in statement.body if isinstance(s, Load))
            most = max(most, 2 * loaded, _streamed_bytes(statement.body, tiles))
    return most
