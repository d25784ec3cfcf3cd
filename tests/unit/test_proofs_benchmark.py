"""The benchmark of verdicts covers every workload, and its mutations are wrong."""

from __future__ import annotations

import pytest

from benchmarks.proofs import examine
from benchmarks.rewritings import RIGHT
from benchmarks.workloads import WORKLOADS
from verify.verdict import Status


def test_every_workload_has_rewritings() -> None:
    assert RIGHT.keys() == WORKLOADS.keys()
    assert all(len(found) >= 3 for found in RIGHT.values())


@pytest.mark.parametrize("name", ["causal_attention", "rope_scores", "entropy_chain", "paper_qk_norm_attention"])
def test_right_ones_are_proved_and_wrong_ones_refuted(name: str) -> None:
    report = examine(WORKLOADS[name])
    right, wrong = (sum(o.right is side for o in report.outcomes) for side in (True, False))
    assert report.count(right=True, status=Status.PROVED) == right >= 3
    assert report.count(right=False, status=Status.REFUTED) == wrong >= 8
