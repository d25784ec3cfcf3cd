"""Emitted texts with one mistake each: those that compute something else are refused by the gates.

A seeded sample; ``python -m benchmarks.mutants`` runs as many as wanted over all workloads and records them. Whether a
mutant is wrong is decided by other means than the gate that has to refuse it (``benchmarks.mutants.is_wrong``).
"""

from __future__ import annotations

import ast
from functools import cache
from itertools import islice

import pytest

from autotune.targets import find_target
from benchmarks.families import search_families
from benchmarks.mutants import Judged, Text, is_wrong, judge, summary, texts_of
from benchmarks.mutations import MUTATIONS, mutants, places
from benchmarks.workloads import WORKLOADS

SEED = 20
SAMPLE = 30
"""Mutants of a text in the long run: every mutation twice."""
QUICK = ("softmax",)
SLOW = (
    "rmsnorm_linear",
    "paper_rms_norm",
    "gated_mlp",
    "lora",
    "add_rmsnorm",
    "gqa_decode",
    "paper_attention",
    "softmax_chain",
)


@cache
def texts(workload: str) -> tuple[Text, ...]:
    return tuple(texts_of(search_families(WORKLOADS[workload], find_target("h200"))))


def sample(workload: str, count: int, most: int) -> list[Judged]:
    """The gates' verdicts on so many mutants of so many texts."""
    return [
        judge(text, index, mutant, SEED)
        for text in texts(workload)[:most]
        for index, mutant in enumerate(islice(mutants(text.source, SEED), count))
    ]


def check(workload: str, count: int, most: int) -> None:
    rows = sample(workload, count, most)
    accepted = [f"{r.text} line {r.line}: {r.before} => {r.after}" for r in rows if r.live and not r.refused_by]
    assert not accepted
    assert sum(r.live for r in rows) > len(rows) // 2, "most mistakes matter"


@pytest.mark.parametrize("workload", QUICK)
def test_no_live_mutant_is_accepted(workload: str) -> None:
    check(workload, count=5, most=1)


@pytest.mark.slow
@pytest.mark.parametrize("workload", SLOW)
def test_no_live_mutant_of_the_others_is_accepted(workload: str) -> None:
    check(workload, SAMPLE, most=5)


def test_the_judge_tells_right_from_wrong() -> None:
    text = texts("softmax")[0]
    assert not is_wrong(text, text.source)
    assert is_wrong(text, text.source.replace("offs_m < M", "offs_m < M - 1"))
    assert is_wrong(text, text.source.replace("launch(", "launched("))


def test_every_mutation_occurs() -> None:
    found = {
        name for t in (*texts("rmsnorm_linear"), *texts("gqa_decode")) for _, name, _ in places(ast.parse(t.source))
    }
    assert found == {m.__name__ for m in MUTATIONS}


def test_the_figures_count_what_they_say() -> None:
    def row(live: bool, refused_by: str) -> Judged:
        return Judged("t/1", "", 0, "lost_operand", 1, "", "", live, refused_by, "")

    figures = summary([row(True, "exact"), row(True, ""), row(False, ""), row(False, "exact")])
    assert (figures["live_mutants"], figures["accepted"], figures["no_difference_seen"]) == (2, 1, 2)
    assert figures["of_these_refused"] == 1
