"""CUDA targets: proved families lowered to Triton, tuned, compiled, checked; measured where the device is present."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypedDict

import torch

from autotune.buckets import Buckets, modelled_buckets
from autotune.compile_pool import CompilePool
from autotune.layout import LoweringLimit
from autotune.lower import lower
from autotune.measured import Budget
from autotune.module import load_source
from autotune.offline import Resources
from autotune.parameters import Parameters
from autotune.torch_printer import load_torch, print_torch
from autotune.tuner import Built, NotBuilt, Option, Tuner
from prism import on_device
from prism.effort import Effort
from prism.interpreted import Checked, check
from prism.pipeline import Found, Outcome, Proved, Request
from prism.progress import Progress
from prism.report import Accuracy, Exact, Row
from prism.settings import Settings
from prism.work import work_of
from sgraph.bounds import launches, speed_of_light
from sgraph.errors import KernelCheckFailed, NoFeasibleFamily, SoundnessError
from sgraph.target import Target
from verify.certificate import Certificate
from verify.numerics import NumericsReport

log = logging.getLogger("prism.tune")

BUCKET_TRIALS: Final = 40
"""Assignments that the model looks at for each further bucket of symbolic extents."""


def outcome_on_gpu(
    request: Request, found: Found, target: Target, spent: Effort, settings: Settings, progress: Progress
) -> Outcome:
    """The proved families as Triton, best first by the model, or by measurement where the device is here."""
    rows: dict[int, Row] = {}
    built: list[tuple[Proved, Built]] = []
    tuner = Tuner(
        target,
        found.sizes,
        trials=spent.trials,
        seed=request.seed,
        stop=lambda: progress.stop_requested,
    )
    with progress.stage("lower, tune and compile"):
        for proved, outcome in _built(found, target, spent, settings, tuner, progress):
            curve = [seconds * 1e6 for seconds in tuner.curve(proved.family)]
            rows[proved.number] = _row(proved, outcome, found, target).model_copy(update={"tuning_us": curve})
            if isinstance(outcome, Built):
                built.append((proved, outcome))
    if not built:
        raise NoFeasibleFamily(
            f"none of the {len(found.proved)} proved families of {found.program.name} could be built for {target.name}",
            where="; ".join(sorted({f"{r.status}: {r.detail}" for r in rows.values()}))[:600],
            do="a larger effort, another target, or report the reasons above",
        )
    built.sort(key=lambda pair: pair[1].modelled_s)
    if on_device.present(target):
        return _measured(request, found, built, rows, target, spent, progress)
    with progress.stage("check"):
        best = _first_accurate(request, found, built, rows, progress)
    ordered = sorted(rows.values(), key=lambda r: (r.status != "modelled", r.modelled_us or 0.0))
    if best is None:
        why = "no family passed its checks; the original function is returned"
        return Outcome(tuple(ordered), None, request.reference, "", "", None, None, None, (why,))
    proved, chosen, checked = best
    return Outcome(
        rows=tuple(ordered),
        **_evidence(request, found, proved, chosen.source, chosen.parameters, checked, target),
        speedup=None,
        notes=("times are modelled, not measured: the model ranks, it does not predict",),
    )


def _measured(
    request: Request,
    found: Found,
    built: list[tuple[Proved, Built]],
    rows: dict[int, Row],
    target: Target,
    spent: Effort,
    progress: Progress,
) -> Outcome:
    """The families on the device; one that wins is interpreted too before it is returned."""
    budget = Budget(spent.trials, spent.measure_s, request.seed, lambda: progress.stop_requested)
    with progress.stage("measure"):
        measured = on_device.measure(request, found, built, rows, target, budget, progress)
    if measured.best is None:
        why = f"no family beats {measured.winner} by more than the noise"
        run = measured.launches.get(measured.winner, request.reference)
        return Outcome(tuple(measured.rows), None, run, "", "", None, None, measured.speedup, (why,))
    proved, tuned = measured.best
    # Gates 2 and 3 on the text that is returned: with the parameters that measured best, not those of the model.
    text = lower(proved.family.graph, proved.family.schedules, tuned.parameters)
    checked = check(request.reference, found, proved.family, text, request.seed)
    if checked.broken is not None:
        why = f"family {proved.number} was fastest but breaks the numerical contract in the interpreter"
        accuracy = _accuracy(checked.reports)
        return Outcome(tuple(measured.rows), None, request.reference, "", "", accuracy, None, None, (why,))
    return Outcome(
        rows=tuple(measured.rows),
        **_evidence(request, found, proved, text, tuned.parameters, checked, target),
        speedup=measured.speedup,
    )


def _built(
    found: Found, target: Target, spent: Effort, settings: Settings, tuner: Tuner, progress: Progress
) -> list[tuple[Proved, Built | NotBuilt]]:
    """The first families tuned one after another; each compiles while the next is tuned."""
    pending: list[tuple[Proved, Future[Built | NotBuilt] | NotBuilt]] = []
    cache = settings.cache_dir / "compiled"
    with CompilePool(settings.workers, cache_dir=cache) as pool, ThreadPoolExecutor(settings.workers) as threads:
        for proved in found.proved[: spent.tuned]:
            if progress.stop_requested and pending:
                break
            options = tuner.options(proved.family, spent.compiled)
            if isinstance(options, NotBuilt):
                pending.append((proved, options))
            else:
                header = {"proof": f"{proved.verdict.status}: {proved.verdict.reason}", "target": target.name}
                pending.append((proved, threads.submit(_lowered, tuner, proved, options, pool, header)))
            progress.update(tuned=len(pending))
        return [(p, o if isinstance(o, NotBuilt) else o.result()) for p, o in pending]


def _lowered(
    tuner: Tuner, proved: Proved, options: Sequence[Option], pool: CompilePool, header: Mapping[str, str]
) -> Built | NotBuilt:
    try:
        return tuner.build(proved.family, options, pool, header)
    except LoweringLimit as limit:
        return NotBuilt("limit", str(limit).splitlines()[0])


class _Evidence(TypedDict):
    """What an outcome says of its best family."""

    best: Proved
    run: Callable[..., object]
    source: str
    torch_source: str
    header: Mapping[str, str]
    exact: Exact
    accuracy: Accuracy
    certificate: Certificate


def _evidence(
    request: Request,
    found: Found,
    proved: Proved,
    text: str,
    parameters: Parameters,
    checked: Checked,
    target: Target,
) -> _Evidence:
    """The emitted file with what was checked in its docstring; its code is the text that was checked."""
    reports = checked.reports
    rounds = sum(len(r.rounds) for r in reports)
    header = {
        "proof": f"{proved.verdict.status}: {proved.verdict.reason}",
        "exact evaluation": f"agreed in {checked.exact.evaluations} evaluations",
        "numerical contract": f"kept in {rounds} interpreted rounds",
    }
    source = lower(proved.family.graph, proved.family.schedules, parameters, header)
    if code_of(source) != code_of(text):
        raise SoundnessError(
            "the file printed after the checks is not the one that was checked",
            where=found.program.name,
            do="report this with the program: printing is not deterministic",
        )
    torch_source = print_torch(proved.family.graph)
    # Calls at other sizes than the example's take the configuration of the nearest bucket.
    buckets = modelled_buckets(
        proved.family, target, found.program, parameters, found.sizes, BUCKET_TRIALS, request.seed
    )
    return _Evidence(
        best=proved,
        run=by_device(source, found.program.name, load_torch(torch_source), buckets),
        source=source,
        torch_source=torch_source,
        header=header,
        exact=checked.exact,
        accuracy=_accuracy(reports),
        certificate=Certificate.of(found.program, proved.verdict, numerics=list(reports), seed=request.seed),
    )


def code_of(source: str) -> str:
    """An emitted file without its docstring."""
    return source[source.index('"""', source.index('"""') + 3) :]


def _first_accurate(
    request: Request,
    found: Found,
    built: list[tuple[Proved, Built]],
    rows: dict[int, Row],
    progress: Progress,
) -> tuple[Proved, Built, Checked] | None:
    """The fastest family whose emitted text passes gates 2 and 3; the others say why they do not."""
    for proved, candidate in built:
        progress.update(checking=f"family {proved.number}")
        try:
            checked = check(request.reference, found, proved.family, candidate.source, request.seed)
        except KernelCheckFailed as failure:
            rows[proved.number] = rows[proved.number].model_copy(
                update={"status": "check failed", "detail": str(failure).splitlines()[0]}
            )
            continue
        broken = checked.broken
        if broken is None:
            return proved, candidate, checked
        rows[proved.number] = rows[proved.number].model_copy(
            update={"status": "inaccurate", "detail": str(broken).splitlines()[-1].strip()}
        )
    return None


def by_device(
    source: str, name: str, on_cpu: Callable[..., object], buckets: Buckets | None = None
) -> Callable[..., object]:
    """The Triton launcher for CUDA tensors, configured by bucket; the printed torch program for CPU tensors."""

    def run(*inputs: torch.Tensor) -> object:
        if any(t.is_cuda for t in inputs):
            launch = load_source(source, name).launch
            return buckets.wrap(launch)(*inputs) if buckets is not None else launch(*inputs)
        return on_cpu(*inputs)

    return run


def _row(proved: Proved, outcome: Built | NotBuilt, found: Found, target: Target) -> Row:
    graph = proved.family.graph
    flops, traffic = work_of(graph, found.sizes)
    row = Row(
        name=f"family {proved.number}",
        kind="family",
        family=proved.number,
        status="modelled",
        kernels=launches(graph),
        roles=[{str(a): r.value for a, r in k.roles} for k in graph.kernels],
        bound_us=proved.family.bound_s * 1e6,
        flops=flops,
        traffic_bytes=traffic,
        verdict=proved.verdict.status.value,
    )
    if isinstance(outcome, NotBuilt):
        return row.model_copy(update={"status": outcome.status, "detail": outcome.reason})
    return row.model_copy(
        update={
            "modelled_us": outcome.modelled_s * 1e6,
            "speed_of_light_percent": 100 * speed_of_light(graph, target, found.sizes) / outcome.modelled_s,
            "parameters": outcome.parameters.to_config(),
            "resources": [_resources(r) for r in outcome.resources],
        }
    )


def _resources(found: Resources) -> dict[str, int | str]:
    return {
        "kernel": found.kernel,
        "registers": found.registers,
        "spill_bytes": found.spill_bytes,
        "shared_bytes": found.shared_bytes,
        "dot_instructions": found.dot_instructions,
        "async_copies": found.async_copies,
    }


def _accuracy(reports: tuple[NumericsReport, ...]) -> Accuracy:
    return Accuracy(
        passed=all(r.passed for r in reports),
        where="interpreted",
        rounds=sum(len(r.rounds) for r in reports),
        worst=max(r.worst_ratio for r in reports),
        detail="",
    )
