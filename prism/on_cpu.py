"""The CPU target: proved plans printed as torch, proved again as printed, checked and measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import torch

from autotune.cpu import CpuMeasurement, CpuRow, measure_cpu
from autotune.torch_printer import load_torch, print_torch
from prism.effort import Effort
from prism.pipeline import Found, Outcome, Proved, Request
from prism.progress import Progress
from prism.proving import prove
from prism.report import Accuracy, Row
from prism.work import work_of
from sgraph.border import parameters
from sgraph.bounds import launches, lower_bound, speed_of_light
from sgraph.errors import PrismError
from sgraph.program import Program
from sgraph.target import Target
from verify.certificate import Certificate
from verify.inputs import HOSTILE, Distribution, make_inputs
from verify.numerics import NumericsReport, Prepared, Round
from verify.verdict import Status

log = logging.getLogger("prism.measure")

HOSTILE_ELEMENTS: Final = 1 << 23
"""A program is tried on hostile inputs where its inputs have no more elements than this."""


def outcome_on_cpu(request: Request, found: Found, target: Target, spent: Effort, progress: Progress) -> Outcome:
    """Measure the proved plans on this machine against eager and Inductor; never slower than the fastest."""
    with progress.stage("print and prove again"):
        prepared = _prepared(request, found)
        plans, refused = _printed(request, found, spent, prepared)
    with progress.stage("measure"), progress.raising():
        reports: dict[int, NumericsReport] = {}

        def check(function: Callable[..., object]) -> str | None:
            report = checked(prepared, function)
            reports[id(function)] = report
            return None if report.passed else f"inaccurate: {report}"

        measured, callables = measure_cpu(
            request.reference,
            [(_name(p), p.family.graph) for p in plans],
            request.all_inputs,
            seconds=spent.measure_s,
            seed=request.seed,
            on_progress=lambda text: progress.update(now=text),
            check=check,
        )
    progress.stop_requested = progress.stop_requested or not measured.complete
    by_name = {_name(p): p for p in plans}
    best = by_name.get(measured.winner.rsplit(" (", 1)[0])
    first = best or (plans[0] if plans else None)
    torch_source = print_torch(first.family.graph) if first is not None else ""
    if best is not None:
        torch_source = measured.row(measured.winner).source
    report = reports.get(id(callables[measured.winner])) if measured.winner in callables else None
    certificate = None
    if best is not None:
        numerics = [report] if report is not None else []
        certificate = Certificate.of(found.program, best.verdict, numerics=numerics, seed=request.seed)
    return Outcome(
        rows=(*_ranked(measured, by_name, found, target), *refused),
        best=best,
        run=callables.get(measured.winner, request.reference),
        source="",
        torch_source=torch_source,
        accuracy=_accuracy(report, "cpu"),
        certificate=certificate,
        speedup=measured.speedup,
        notes=_notes(measured),
    )


def _prepared(request: Request, found: Found) -> list[tuple[str, Prepared]]:
    """Inputs to hold candidates to: the example's, and hostile ones of the same sizes where those are moderate."""
    examples = Prepared.of(found.program, request.reference, request.all_inputs)
    sets = [("the example inputs", examples)]
    if sum(t.numel() for t in request.all_inputs) > HOSTILE_ELEMENTS:
        return sets
    masked = any(not t.finite for t in found.program.inputs)
    for offset, distribution in enumerate(d for d in HOSTILE if masked or d is not Distribution.MASKED_ROWS):
        inputs = make_inputs(
            found.program, examples.sizes, seed=request.seed + offset, distribution=distribution, device="cpu"
        )
        sets.append((distribution.value, Prepared.of(found.program, request.reference, inputs)))
    return sets


def checked(prepared: Sequence[tuple[str, Prepared]], function: Callable[..., object]) -> NumericsReport:
    """Gate 3 on a callable: a round for each set of inputs, up to the first that breaks the contract."""
    rounds: list[Round] = []
    for name, inputs in prepared:
        ratio, failure = inputs.check_once(function)
        rounds.append(Round(name, 0, inputs.sizes, ratio, failure))
        if failure is not None:
            break
    return NumericsReport("contract", tuple(rounds))


def _printed(
    request: Request, found: Found, spent: Effort, prepared: Sequence[tuple[str, Prepared]]
) -> tuple[list[Proved], list[Row]]:
    """Plans that differ as torch programs and whose printed text is proved equal to the program once more."""
    kept: dict[str, Proved] = {}
    refused: list[Row] = []
    looked: set[str] = set()
    for proved in found.proved:
        if len(kept) == spent.tuned:
            break
        try:
            source = print_torch(proved.family.graph)
        except PrismError as error:
            refused.append(_row(proved, "limit", str(error).splitlines()[0]))
            continue
        if source in looked:
            continue
        looked.add(source)
        # The contract first: it takes milliseconds, and a text that breaks it need not be proved.
        inaccurate = _inaccurate(source, prepared)
        if inaccurate is not None:
            refused.append(_row(proved, "inaccurate", inaccurate))
            continue
        texts = dict.fromkeys((source, print_torch(proved.family.graph, forms=True)))
        reasons = (_not_equal(request, found.program, load_torch(text, library=True)) for text in texts)
        reason = next((r for r in reasons if r is not None), None)
        if reason is None:
            kept[source] = proved
        else:
            refused.append(_row(proved, "check failed", reason))
    return list(kept.values()), refused


def _inaccurate(source: str, prepared: Sequence[tuple[str, Prepared]]) -> str | None:
    """Why a printed text, run eagerly, breaks the contract; None if it keeps it. What cannot be run says so later."""
    try:
        report = checked(prepared, load_torch(source))
    except (PrismError, RuntimeError, TypeError):
        return None
    return None if report.passed else str(report).splitlines()[-1].strip()


def _not_equal(request: Request, program: Program, function: Callable[..., object]) -> str | None:
    """Why a printed torch program is not proved equal to the program; None if it is."""
    sizes = {
        t.name: tuple(1 if a is None else a.extent for a in t.axes)
        for t in parameters(program)
        if any(a is not None and not isinstance(a.extent, int) for a in t.axes)
    }
    masks = [t.name for t in parameters(program) if not t.finite]
    try:
        verdict = prove(request.function, function, request.inputs, sizes=sizes, may_hold_minus_inf=masks)
    except PrismError as error:
        return f"the printed program cannot be captured: {error}"
    return None if verdict.status is Status.PROVED else f"of the printed program, {verdict.reason}"


def _ranked(measured: CpuMeasurement, by_name: dict[str, Proved], found: Found, target: Target) -> tuple[Row, ...]:
    """The winner first, then by time; what failed comes last."""
    rows = sorted(
        measured.rows,
        key=lambda r: (r.name != measured.winner, bool(r.failure), r.median_us if r.median_us is not None else 1e30),
    )
    return tuple(_measured_row(row, by_name.get(row.name.rsplit(" (", 1)[0]), found, target) for row in rows)


def _measured_row(row: CpuRow, proved: Proved | None, found: Found, target: Target) -> Row:
    status = "measured" if not row.failure else _status(row.failure)
    shown = Row(
        name=row.name,
        kind="baseline" if row.kind == "baseline" else "family",
        status=status,
        detail=row.failure,
        measured_us=row.median_us,
        spread_percent=row.spread_percent,
    )
    if proved is None:
        return shown
    graph = proved.family.graph
    limit_us = speed_of_light(graph, target, found.sizes) * 1e6
    flops, traffic = work_of(graph, found.sizes)
    return shown.model_copy(
        update={
            "family": proved.number,
            "kernels": launches(graph),
            "bound_us": lower_bound(graph, target, found.sizes) * 1e6,
            "flops": flops,
            "traffic_bytes": traffic,
            "speed_of_light_percent": 100 * limit_us / row.median_us if row.median_us else None,
            "verdict": proved.verdict.status.value,
        }
    )


def _status(failure: str) -> str:
    if failure.startswith("inaccurate"):
        return "inaccurate"
    if failure.startswith(("not compiled", "slower than the finalists")):
        return "deferred"
    return "launch failed"


def _row(proved: Proved, status: str, detail: str) -> Row:
    verdict = proved.verdict.status.value
    return Row(name=_name(proved), kind="family", family=proved.number, status=status, detail=detail, verdict=verdict)


def _name(proved: Proved) -> str:
    return f"family {proved.number}"


def _accuracy(report: NumericsReport | None, where: str) -> Accuracy | None:
    if report is None:
        return None
    detail = "" if report.passed else str(report)
    return Accuracy(
        passed=report.passed, where=where, rounds=len(report.rounds), worst=report.worst_ratio, detail=detail
    )


def _notes(measured: CpuMeasurement) -> tuple[str, ...]:
    machine = measured.environment
    notes = [
        measured.why,
        f"measured on {machine}" if isinstance(machine, str) else f"threads: {torch.get_num_threads()}",
    ]
    notes.append(
        f"a difference counts above {measured.threshold_percent:.1f} % (repeated runs of one program differ by "
        f"{measured.noise_percent:.1f} %)"
    )
    if measured.fallback:
        notes.append(f"timing protocol not kept: {measured.fallback}")
    if not measured.complete:
        notes.append("measuring was interrupted")
    return tuple(notes)
