"""Random expressions: what is rewritten soundly is proved equal, what differs in numbers never is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.random_terms import broken_pair, contradiction, pair
from benchmarks.soak_terms import Soak, run
from rewrites.normal_form import compare


def check_sound_steps(seeds: range) -> list[str]:
    """What was not proved although the steps are sound; an empty list is the hope."""
    missed: list[str] = []
    for seed in seeds:
        _, e, rewritten = pair(seed)
        verdict = compare(e, rewritten)
        if not verdict.equal and "nowhere" not in verdict.reason:
            missed.append(f"{seed}: {verdict}")
    return missed


def test_sound_steps_are_proved() -> None:
    assert check_sound_steps(range(200)) == []


def test_what_is_proved_is_not_contradicted_by_numbers() -> None:
    """Whatever the steps were meant to be: a proof and a contradiction never stand side by side."""
    for seed in range(60):
        source, e, rewritten = pair(seed)
        other = source.step(rewritten, source.tempting)
        if other is not None and compare(e, other).equal:
            assert contradiction(e, other) is None, seed


def test_what_differs_is_never_proved() -> None:
    found = [(seed, pair) for seed in range(150) if (pair := broken_pair(seed)) is not None]
    assert len(found) > 60
    assert [seed for seed, (e, broken) in found if compare(e, broken).equal] == []


def test_a_soak_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "terms.json"
    first = run(Soak(count=6, seed=40_000), file, stop_after=5)
    assert not first.complete
    resumed = run(Soak(count=6, seed=40_000), file)
    assert resumed.complete
    whole = run(Soak(count=6, seed=40_000), tmp_path / "whole.json")
    assert resumed.rows == whole.rows
    assert json.loads(file.read_text())["proved"] == 6
    with pytest.raises(SystemExit, match="another seed"):
        run(Soak(count=6, seed=1), file)


@pytest.mark.slow
def test_many_sound_and_many_broken_pairs(tmp_path: Path) -> None:
    found = run(Soak(count=2_000, seed=1_000_000), tmp_path / "terms.json")
    assert found.accepted == []
    assert len(found.missed) <= 2
