"""Checking a kernel again from what was kept of it: nothing is searched, lowered, imported or executed.

The plan is proved once more from its text, the emitted source is evaluated in exact arithmetic once more, with fresh
inputs, and the certificate is compared with what was found. A certificate is a record, not an authority: where it
says more than can be shown again, that is a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from sgraph.errors import PrismError
from sgraph.ir import SGraph
from sgraph.stages import Unschedulable, derive
from verify.certificate import Certificate
from verify.equivalence import prove
from verify.exact import check_exactly
from verify.verdict import Status, Verdict


class Outcome(StrEnum):
    """How one check ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one kernel."""

    check: str
    """What was checked."""
    outcome: Outcome
    """How it ended."""
    detail: str
    """What was found, in words."""
    seconds: float
    """Wall time."""


def recheck(graph: SGraph, source: str, certificate: Certificate, seed: int) -> Iterator[Finding]:
    """Every check of one kernel, each as it ends.

    Args:
        graph: The plan, read back from its text.
        source: The emitted Triton text; empty where a torch program was printed instead, which is not checked here.
        certificate: What is claimed of it.
        seed: Of the inputs of exact evaluation.
    """
    verdict, finding = _proof(graph)
    yield finding
    yield _timed("certificate", lambda: _certificate(graph, verdict, certificate))
    if source:
        yield _timed("exact evaluation", lambda: _exact(graph, source, seed))


def _proof(graph: SGraph) -> tuple[Verdict | None, Finding]:
    found: list[Verdict] = []

    def proof() -> tuple[Outcome, str]:
        try:
            schedules = tuple(derive(kernel) for kernel in graph.kernels)
        except Unschedulable as reason:
            return Outcome.FAILED, f"the plan has no schedule: {reason}"
        verdict = prove(graph, schedules)
        found.append(verdict)
        outcome = {Status.PROVED: Outcome.PASSED, Status.REFUTED: Outcome.FAILED, Status.UNKNOWN: Outcome.UNKNOWN}
        return outcome[verdict.status], verdict.reason

    finding = _timed("proof", proof)
    return (found[0] if found else None), finding


def _certificate(graph: SGraph, verdict: Verdict | None, certificate: Certificate) -> tuple[Outcome, str]:
    """Whether the certificate is about this plan, and claims what was proved."""
    if certificate.program != graph.program.name or certificate.program_text != str(graph.program):
        return Outcome.FAILED, "it is about another program"
    if certificate.status is not Status.PROVED:
        return Outcome.FAILED, f"it says {certificate.status}"
    if verdict is None:
        return Outcome.UNKNOWN, "there is no proof to compare it with"
    claimed = [(e.subject, e.spec_digest, e.candidate_digest, e.status) for e in certificate.equations]
    shown = [(o.subject, o.spec.digest.hex(), o.candidate.digest.hex(), o.status) for o in verdict.obligations]
    if claimed != shown:
        return Outcome.FAILED, "its equations are not those of this plan"
    broken = [f"{n.mode}: {r.failure}" for n in certificate.numerics for r in n.rounds if r.failure is not None]
    if broken or not all(n.passed for n in certificate.numerics):
        return Outcome.FAILED, f"it records a broken numerical contract{': ' + broken[0] if broken else ''}"
    return Outcome.PASSED, f"its {len(claimed)} equations are those that were proved"


def _exact(graph: SGraph, source: str, seed: int) -> tuple[Outcome, str]:
    report = check_exactly(graph.program, source, seed=seed)
    return (Outcome.PASSED if report.passed else Outcome.FAILED), str(report)


def _timed(check: str, run: Callable[[], tuple[Outcome, str]]) -> Finding:
    start = time.perf_counter()
    try:
        outcome, detail = run()
    except PrismError as error:
        outcome, detail = Outcome.FAILED, str(error).splitlines()[0]
    return Finding(check, outcome, detail, time.perf_counter() - start)
