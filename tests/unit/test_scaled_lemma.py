"""Rescaled accumulation is the plain sum in any order: the lemma, and wrong ways to merge that break it."""

from __future__ import annotations

import pytest

from rewrites.check import Verdict
from rewrites.scaled_lemma import STATEMENTS, Arithmetic, Merge, Scaled, Statement, check, merge


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.name)
def test_the_lemma_is_proved(statement: Statement) -> None:
    report = check(statement)
    assert report.verdict is Verdict.PROVED, report.reason


def without_rescaling(x: Scaled, y: Scaled, by: Arithmetic) -> Scaled:
    """Totals added as they are."""
    return Scaled(merge(x, y, by).scale, x.total + y.total)


def only_the_old_one_rescaled(x: Scaled, y: Scaled, by: Arithmetic) -> Scaled:
    """The tile's total is left relative to its own maximum."""
    scale = merge(x, y, by).scale
    old = 0 if x.scale is None or scale is None else x.total * by.exp(x.scale - scale)
    return Scaled(scale, old + y.total)


def rescaled_the_wrong_way(x: Scaled, y: Scaled, by: Arithmetic) -> Scaled:
    """Each total relative to the other one's scale."""
    if x.scale is None or y.scale is None:
        return merge(x, y, by)
    scale = merge(x, y, by).scale
    return Scaled(scale, x.total * by.exp(scale - x.scale) + y.total * by.exp(scale - y.scale))


def relative_to_the_last(x: Scaled, y: Scaled, by: Arithmetic) -> Scaled:
    """Right as a number; but the scale is that of the last tile, which lets exponentials grow."""
    if y.scale is None or x.scale is None:
        return merge(x, y, by)
    return Scaled(y.scale, x.total * by.exp(x.scale - y.scale) + y.total)


def unmasked(x: Scaled, y: Scaled, by: Arithmetic) -> Scaled:
    """A fully masked tile taken for one whose maximum is 0."""
    first, second = (Scaled(0, 0) if s.scale is None else s for s in (x, y))
    return merge(first, second, by)


@pytest.mark.parametrize(
    ("wrong", "broken"),
    [
        (without_rescaling, {"associative": False, "homomorphism": True, "step": True}),
        (only_the_old_one_rescaled, {"commutative": True, "homomorphism": True, "step": True}),
        (rescaled_the_wrong_way, {"homomorphism": True, "step": True, "associative": False}),
        (relative_to_the_last, {"commutative": True, "scale-is-the-maximum": True, "homomorphism": False}),
        (unmasked, {"unit": True, "scale-is-the-maximum": True, "homomorphism": False}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_wrong_merge_breaks_the_lemma(wrong: Merge, broken: dict[str, bool]) -> None:
    by_name = {s.name: s for s in STATEMENTS}
    found = {name: check(by_name[name], wrong).verdict is Verdict.REFUTED for name in broken}
    assert found == broken


def test_what_evaluation_misses_the_proof_does_not() -> None:
    """A merge that is wrong only for scales that are never drawn is not proved."""

    def rarely_wrong(x: Scaled, y: Scaled, by: Arithmetic) -> Scaled:
        good = merge(x, y, by)
        far = x.scale is not None and y.scale is not None and by.at_least(x.scale - y.scale, 1000)
        return Scaled(good.scale, good.total + 1) if far else good

    by_name = {s.name: s for s in STATEMENTS}
    assert check(by_name["homomorphism"], rarely_wrong).verdict is Verdict.UNKNOWN


def test_the_same_seed_finds_the_same_numbers() -> None:
    statement = STATEMENTS[1]
    reasons = {check(statement, only_the_old_one_rescaled, seed=3).reason for _ in range(2)}
    assert len(reasons) == 1
