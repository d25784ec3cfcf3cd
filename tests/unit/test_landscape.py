"""The search on replayed landscapes: few measurements, none wasted, never worse than chance."""

from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path

import pytest

from autotune.guided import Space, fastest, search
from autotune.landscape import Landscape, Replay, read_landscape, regret, synthetic
from autotune.study import Dimension
from benchmarks.landscapes import RECORDED, judge
from sgraph.errors import InputError

DIMENSIONS = (
    Dimension("tile_m", (16, 32, 64, 128, 256)),
    Dimension("tile_n", (16, 32, 64, 128, 256)),
    Dimension("tile_k", (32, 64, 128)),
    Dimension("warps", (1, 2, 4, 8)),
    Dimension("stages", (1, 2, 3, 4)),
)


def modelled(point: tuple[int, ...], wrong: float = 0.0) -> float:
    """A smooth time with its best in the middle; ``wrong`` moves it."""
    m, n, k, warps, stages = (math.log2(v) for v in point)
    return 1e-5 * (
        1
        + 0.2 * (m - 6 + wrong) ** 2
        + 0.15 * (n - 7 + wrong) ** 2
        + 0.1 * (k - 6) ** 2
        + 0.1 * abs(warps - m / 3)
        + 0.1 * abs(stages - 1.5 - wrong / 2)
    )


def made(seed: int) -> Landscape:
    points = tuple(p for p in itertools.product(*(d.choices for d in DIMENSIONS)) if p[0] * p[1] * p[4] <= 65536)
    space = Space(DIMENSIONS, points, tuple(map(modelled, points)))
    return synthetic(space, f"made {seed}", lambda p: modelled(p, wrong=0.7), ruggedness=0.08, seed=seed)


def test_synthetic_landscapes_within_15_percent_after_12_and_3_after_100() -> None:
    row = judge(made(0), range(10))
    assert row.ours["12"] <= 1.15
    assert row.ours["100"] <= 1.03
    assert all(row.ours[n] <= row.random[n] for n in row.ours)
    assert row.wasted_percent == 0


def test_recorded_landscapes_within_15_percent_after_12_and_3_after_100() -> None:
    paths = sorted(RECORDED.glob("*.json"))
    assert paths, "a recording belongs to the repository"
    for path in paths:
        row = judge(read_landscape(path), range(10))
        assert row.ours["12"] <= 1.15
        assert row.ours["100"] <= 1.03
        assert all(row.ours[n] <= row.random[n] for n in row.ours), row


def test_a_wrong_model_is_corrected() -> None:
    landscape = made(1)
    upside_down = Landscape(
        "upside down",
        "made up",
        DIMENSIONS,
        landscape.seconds,
        {},
        {p: 1 / t for p, t in landscape.seconds.items()},
    )
    found = [
        regret(
            landscape,
            [t.point for t in search(upside_down.space(), Replay(upside_down).measure, trials=60, seed=s)],
            60,
        )
        for s in range(5)
    ]
    assert statistics.median(found) < 1.1


def test_noise_and_accidents_do_not_stop_a_search() -> None:
    landscape = made(2)
    best = sorted(landscape.seconds, key=lambda p: landscape.seconds[p])[:6]
    kinds = ("crash", "hang", "out of memory")
    device = Replay(landscape, noise=0.1, seed=3, accidents={p: kinds[i % 3] for i, p in enumerate(best)})  # type: ignore[misc]
    done = search(landscape.space(), device.measure, trials=80, seed=0)
    assert len(done) == 80 and len(set(device.asked)) == 80
    assert {t.reason for t in done if t.reason} <= {
        "launch failed: the process ended: illegal memory access",
        "launch failed: no answer within the time limit",
        "launch failed: out of memory",
    }
    winner = fastest(done)
    assert winner is not None and landscape.seconds[winner.point] < 1.3 * landscape.best_s


def test_nothing_that_runs_is_no_winner() -> None:
    landscape = made(3)
    device = Replay(landscape, accidents=dict.fromkeys(landscape.seconds, "crash"))
    done = search(landscape.space(), device.measure, trials=15, seed=0)
    assert len(done) == 15 and fastest(done) is None


def test_the_same_seed_searches_the_same_and_stops_when_told() -> None:
    landscape = made(4)
    first = [t.point for t in search(landscape.space(), Replay(landscape).measure, trials=25, seed=7)]
    assert first == [t.point for t in search(landscape.space(), Replay(landscape).measure, trials=25, seed=7)]
    asked: list[int] = []
    done = search(
        landscape.space(),
        Replay(landscape).measure,
        trials=25,
        seed=7,
        stop=lambda: bool(asked.append(1)) or len(asked) > 4,
    )
    assert len(done) == 4


def test_a_small_space_is_exhausted_once() -> None:
    dimension = Dimension("warps", (1, 2, 4))
    space = Space((dimension,), ((1,), (2,), (4,)), (1.0, 1.0, 1.0))
    assert sorted(t.point for t in search(space, lambda p: 1.0 / p[0], trials=50, seed=0)) == [(1,), (2,), (4,)]


def test_recordings_survive_their_file(tmp_path: Path) -> None:
    landscape = made(5)
    broken = Landscape("b", "o", DIMENSIONS, {(16, 16, 32, 1, 1): 1.0}, {(16, 16, 32, 1, 2): "spills"}, {})
    for each in (landscape, broken):
        path = tmp_path / "one.json"
        path.write_text(each.to_json())
        assert read_landscape(path) == each
    (tmp_path / "bad.json").write_text('{"format": 1, "name": 3}')
    with pytest.raises(InputError, match="not a recording of a landscape"):
        read_landscape(tmp_path / "bad.json")
    (tmp_path / "old.json").write_text('{"format": 0}')
    with pytest.raises(InputError, match="format 0, 1 expected"):
        read_landscape(tmp_path / "old.json")
