"""Studies find the optimum of small spaces, learn from penalties, and never look at a point twice."""

from __future__ import annotations

import math
from collections import Counter

from autotune.study import Dimension, Rejected, minimise

TILES = Dimension("tile", tuple(2**i for i in range(4, 10)))
WARPS = Dimension("warps", (1, 2, 4, 8, 16))
STAGES = Dimension("stages", (1, 2, 3, 4, 5, 6))


def bowl(point: tuple[int, ...]) -> float | Rejected:
    tile, warps, stages = point
    if tile * stages > 1024:
        return Rejected("shared memory")
    return 1.0 + abs(math.log2(tile) - 7) + abs(math.log2(warps) - 2) + abs(stages - 3) / 2


def test_small_space_is_enumerated() -> None:
    found = minimise([WARPS], lambda p: float(p[0]), trials=10, seed=0)
    assert [t.point for t in found] == [(1,), (2,), (4,), (8,), (16,)]


def test_sampled_space_reaches_the_optimum_and_never_repeats() -> None:
    looked: Counter[tuple[int, ...]] = Counter()

    def counting(point: tuple[int, ...]) -> float | Rejected:
        looked[point] += 1
        return bowl(point)

    found = minimise([TILES, WARPS, STAGES], counting, trials=80, seed=1)
    assert max(looked.values()) == 1
    assert found[0].seconds <= 1.5
    assert all(t.seconds == math.inf for t in found if t.reason)


def test_seeds_come_first_and_the_same_seed_repeats_the_run() -> None:
    order: list[tuple[int, ...]] = []

    def noting(point: tuple[int, ...]) -> float | Rejected:
        order.append(point)
        return bowl(point)

    first = minimise([TILES, WARPS, STAGES], noting, trials=20, seed=3, seeds=[(128, 4, 3)])
    assert order[0] == (128, 4, 3)
    assert first == minimise([TILES, WARPS, STAGES], bowl, trials=20, seed=3, seeds=[(128, 4, 3)])


def test_stop_ends_with_what_was_found() -> None:
    looked: list[tuple[int, ...]] = []

    def noting(point: tuple[int, ...]) -> float:
        looked.append(point)
        return 1.0

    found = minimise([TILES, WARPS, STAGES], noting, trials=50, seed=0, stop=lambda: len(looked) >= 5)
    assert len(found) == 5
