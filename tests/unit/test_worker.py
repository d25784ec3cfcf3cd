"""A process that crashes, hangs or runs out of memory loses the request in hand, and no search."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from autotune.guided import fastest, search
from autotune.landscape import Landscape
from autotune.study import Dimension, Rejected
from autotune.worker import Lost, Worker

DIMENSIONS = (
    Dimension("tile", (16, 32, 64, 128, 256)),
    Dimension("warps", (1, 2, 4, 8)),
    Dimension("stages", (1, 2, 3)),
)


def landscape(tmp_path: Path) -> tuple[Landscape, Path]:
    points = [(t, w, s) for t in DIMENSIONS[0].choices for w in DIMENSIONS[1].choices for s in DIMENSIONS[2].choices]
    made = Landscape("made", "made up", DIMENSIONS, {p: 1e-5 * (1 + abs(p[0] - 64) / 64 + p[1] / 8) for p in points})
    path = tmp_path / "landscape.json"
    path.write_text(made.to_json())
    return made, path


def measured(worker: Worker, point: tuple[int, ...]) -> float | Rejected:
    answer = worker.ask(point)
    return Rejected(f"launch failed: {answer.reason}") if isinstance(answer, Lost) else answer


def test_accidents_become_reasons_and_the_next_request_is_answered(tmp_path: Path) -> None:
    made, path = landscape(tmp_path)
    accidents = {(16, 1, 1): "crash", (32, 1, 1): "hang", (64, 1, 1): "out of memory"}
    with Worker("autotune.worker:Replaying", str(path), accidents, limit_s=0.5) as worker:
        assert worker.ask((16, 1, 1)) == Lost("crashed (SIGSEGV)")
        assert worker.ask((128, 1, 1)) == made.seconds[128, 1, 1]
        assert worker.ask((32, 1, 1)) == Lost("no answer within 0.5 s")
        assert worker.ask((64, 1, 1)) == Lost("out of memory")
        assert worker.ask((64, 2, 1)) == made.seconds[64, 2, 1]
        assert worker.started == 4


def test_a_service_that_cannot_be_built_is_a_reason() -> None:
    with Worker("autotune.worker:Replaying", "/nonexistent", {}) as worker:
        answer = worker.ask((1,))
        assert isinstance(answer, Lost)
        assert "not a recording" in answer.reason


def test_accidents_are_statuses_of_a_search(tmp_path: Path) -> None:
    made, path = landscape(tmp_path)
    accidents = {(64, 1, s): kind for s, kind in zip((1, 2, 3), ("crash", "hang", "out of memory"), strict=True)}
    with Worker("autotune.worker:Replaying", str(path), accidents, limit_s=0.5) as worker:
        done = search(made.space(), lambda p: measured(worker, p), trials=60, seed=0)
    assert len(done) == 60
    assert {t.reason for t in done if t.reason} == {
        "launch failed: crashed (SIGSEGV)",
        "launch failed: no answer within 0.5 s",
        "launch failed: out of memory",
    }
    best = fastest(done)
    assert best is not None and best.point[:2] == (64, 2)


@pytest.mark.slow
def test_fifty_kills_in_one_search_lose_at_most_the_candidate_in_hand(tmp_path: Path) -> None:
    made, path = landscape(tmp_path)
    kills: list[int] = []
    ended = threading.Event()

    def killer(worker: Worker) -> None:
        draw = random.Random(0)
        while not ended.is_set() and len(kills) < 50:
            time.sleep(draw.uniform(0.0, 0.3))
            pid = worker.pid
            if pid is not None:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                kills.append(pid)

    answers: list[float | Rejected] = []

    def measure(point: tuple[int, ...]) -> float | Rejected:
        answers.append(measured(worker, point))
        return answers[-1]

    with Worker("autotune.worker:Replaying", str(path), {}, 0.01, limit_s=20) as worker:
        thread = threading.Thread(target=killer, args=(worker,))
        thread.start()
        rounds = 0
        while len(kills) < 50 and rounds < 40:
            done = search(made.space(), measure, trials=60, seed=rounds)
            assert len(done) == 60
            rounds += 1
        ended.set()
        thread.join()
    assert len(kills) >= 50
    lost = [a for a in answers if isinstance(a, Rejected)]
    assert 0 < len(lost) <= len(kills)
    assert {a.reason for a in lost} == {"launch failed: crashed (SIGKILL)"}
