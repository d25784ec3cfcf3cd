"""The pipeline: capture, saturate, generate, prove, then lower and rank on a target.

This is the only place where the parts meet; it reads like the picture in the design: each step takes one typed
value and returns one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prism.effort import Effort, effort
from prism.guard import Guarded
from prism.modules import state_of, with_state, without_state
from prism.progress import Progress
from prism.report import Accuracy, Exact, Families, Report, Row, VerdictRecord
from prism.result import Origin, Result, ensure_writable
from prism.settings import Settings
from prism.shelf import Shelf, from_store
from sgraph.axis import Axis, Extent, smallest
from sgraph.border import viewed
from sgraph.errors import InputError, SoundnessError
from sgraph.evaluate import numerically_equal
from sgraph.expr import Expr, leaves, rebuild, rename
from sgraph.generate import Family, Search, generate
from sgraph.ir import SGraph, Store
from sgraph.program import Program
from sgraph.target import Target

if TYPE_CHECKING:
    import torch

    from prism.saved import Mode
    from verify.certificate import Certificate
    from verify.verdict import Verdict

log = logging.getLogger("prism.search")


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asked for."""

    function: Callable[..., object]
    """The torch function."""
    inputs: tuple[torch.Tensor, ...]
    """Example inputs, one per parameter."""
    name: str = ""
    """Name for reports; empty for the function's own."""
    sizes: Mapping[str, Sequence[Extent]] | None = None
    """Symbolic extents, per parameter."""
    target: str | None = None
    """Device name; None for the GPU if there is one, else the CPU."""
    effort: str = "default"
    """``quick``, ``default`` or ``max``."""
    seed: int = 0
    """Seed of every random choice."""
    out: Path | None = None
    """Folder for the run; None for one under the cache directory."""
    constant: frozenset[str] = field(default_factory=frozenset[str])
    """Parameters that stay the same between calls."""
    use_store: bool = True
    """Whether a result may come from the store, and is kept there."""
    masks: frozenset[str] = field(default_factory=frozenset[str])
    """Parameters that are additive masks and may hold minus infinity."""

    @property
    def all_inputs(self) -> tuple[torch.Tensor, ...]:
        """The example inputs, then a module's parameters and buffers: the inputs of the captured program."""
        return (*self.inputs, *(t.detach() for t in state_of(self.function).values()))

    @property
    def reference(self) -> Callable[..., object]:
        """The function over ``all_inputs``."""
        return with_state(self.function)


@dataclass(frozen=True, slots=True)
class Proved:
    """A family that passed gate 1."""

    number: int
    """Its place in the generator's order, from 1."""
    family: Family
    """The sGraph, with its schedules."""
    verdict: Verdict
    """The proof."""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything up to the proofs: the same for every target of a kind."""

    program: Program
    """What is computed."""
    search: Search
    """What the generator listed and set aside."""
    proved: tuple[Proved, ...]
    """In the generator's order."""
    statuses: Mapping[str, int]
    """Families that were not proved, by status."""
    sizes: Mapping[Axis, int]
    """Extents of the example inputs."""
    truncated: bool = False
    """Whether the rewrite table hit a limit, so that the search is not complete."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a target made of the proved families."""

    rows: tuple[Row, ...]
    """Best first, baselines included."""
    best: Proved | None
    """The family that won; None where a baseline did, or nothing survived."""
    run: Callable[..., object]
    """What a call executes."""
    source: str
    """Source of the best."""
    torch_source: str
    """The best family as a torch function."""
    accuracy: Accuracy | None
    """Gate 3 for the best."""
    certificate: Certificate | None
    """Evidence for the best."""
    speedup: float | None
    """Fastest baseline over the best; None where nothing was timed."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""
    exact: Exact | None = None
    """Gate 2 for the best, where a kernel was emitted."""
    header: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the emitted source says of its checks."""


def run(request: Request, settings: Settings, progress: Progress) -> Result:
    """Superoptimize one function.

    Raises:
        PrismError: one of its subclasses, for everything a user can mend.
    """
    from autotune.calibration import calibrated
    from autotune.targets import detect_target, find_target

    spent = effort(request.effort)
    if request.out is not None:
        ensure_writable(request.out)
    with progress.stage("target"):
        target = find_target(request.target) if request.target else detect_target()
        target = calibrated(target, settings.cache_dir / "calibrations")
    with progress.stage("capture"):
        program, sizes = captured(request)
    shelf = Shelf.of(request, program, sizes, target, settings)
    with progress.stage("store"):
        known = shelf.find(request)
    if known is not None:
        return from_store(known, run_folder(request, settings, program, target), progress.seconds)
    found = search(program, sizes, target, spent, settings, progress)
    if target.kind == "cpu":
        from prism.on_cpu import outcome_on_cpu

        outcome = outcome_on_cpu(request, found, target, spent, progress)
    else:
        from prism.on_gpu import outcome_on_gpu

        outcome = outcome_on_gpu(request, found, target, spent, settings, progress)
    outcome = replace(outcome, notes=(*outcome.notes, *shelf.notes))
    result = _result(request, found, target, spent, outcome, settings, progress)
    shelf.keep(result, complete=not progress.stop_requested)
    return result


def captured(request: Request) -> tuple[Program, dict[Axis, int]]:
    """The program of a request, and the extents of its example inputs."""
    from prism.frontend import capture

    program = capture(
        request.function,
        request.inputs,
        name=request.name or None,
        sizes=request.sizes,
        constant=request.constant,
        may_hold_minus_inf=request.masks,
    )
    return program, concrete_sizes(program, request.all_inputs)


def search(
    program: Program,
    sizes: Mapping[Axis, int],
    target: Target,
    spent: Effort,
    settings: Settings,
    progress: Progress,
) -> Found:
    """Saturate, generate and prove: everything that needs no device."""
    from rewrites.saturate import Limits, saturate, warm_up
    from rewrites.seeds import find_seeds

    warm_up()
    with progress.stage("saturate"):
        limits = Limits(memory_bytes=int(settings.memory_gib * (1 << 30)))
        seeds = find_seeds([o.value for o in program.outputs], limit=spent.seeds)
        table = saturate(seeds.values, seeds.pairs, limits=limits)
    with progress.stage("generate"):
        listed = generate(
            program,
            table,
            target,
            sizes,
            spent.limits,
            on_progress=lambda n: progress.update(plans=n),
            stop=lambda: progress.stop_requested,
        )
        progress.update(families=len(listed.families))
        if table.truncated:
            log.warning("the rewrite table of %s hit a limit: the search is not complete", program.name)
    with progress.stage("prove"):
        proved, statuses = _prove(listed.families, spent.proved, progress)
    return Found(program, listed, proved, statuses, sizes, table.truncated)


def concrete_sizes(program: Program, inputs: Sequence[torch.Tensor]) -> dict[Axis, int]:
    """The extent of every axis in these inputs.

    Raises:
        InputError: one axis has two extents.
    """
    found: dict[Axis, int] = {}
    for tensor, given in zip(program.inputs, viewed(program, inputs), strict=True):
        for axis, size in zip(tensor.axes, given.shape, strict=True):
            if axis is not None and found.setdefault(axis.base, int(size)) != size:
                raise InputError(f"axis {axis} is {found[axis.base]} and {size}", where=f"input {tensor.name}")
    return {axis: smallest(axis.extent) for axis in program.axes} | found


def _prove(families: Sequence[Family], most: int, progress: Progress) -> tuple[tuple[Proved, ...], Mapping[str, int]]:
    """Gate 1 on the families in order. A refuted one is an internal error, never dropped in silence."""
    from verify.equivalence import prove
    from verify.verdict import Status

    proved: list[Proved] = []
    statuses: Counter[str] = Counter()
    for number, family in enumerate(families, 1):
        if number > most or (progress.stop_requested and proved):
            statuses["deferred: not proved within the effort"] += len(families) - number + 1
            break
        verdict = prove(family.graph, family.schedules)
        if verdict.status is Status.REFUTED and _listed_wrongly(family.graph):
            raise SoundnessError(
                f"the rewrite table lists a family that the normal form refutes: {verdict.reason}",
                where=str(family.graph),
                do="report this with the program; the search stops because the table cannot be trusted",
            )
        if verdict.status is Status.PROVED:
            proved.append(Proved(number, family, verdict))
        else:
            statuses[f"not equivalent: {verdict.status.value} ({verdict.reason.splitlines()[0]})"] += 1
        if number % 16 == 0 or number == len(families):
            progress.update(proved=len(proved))
    return tuple(proved), statuses


def _listed_wrongly(graph: SGraph) -> bool:
    """Whether what the table lists differs from the program in numbers.

    Where it does not, the scaled form of an exponential is undefined: its maximum is over masked elements only.
    """
    stored: dict[str, Store] = {}
    for kernel in graph.kernels:
        for store in kernel.stores:
            sources = {x: _held(stored[x.name], x) for x in leaves([store.value]) if x.name in stored}
            if numerically_equal(store.claim, rebuild(store.value, sources)) is not None:
                return True
        stored |= {s.tensor.name: s for s in kernel.stores}
    claims = ((o.value, stored[o.tensor.name].claim) for o in graph.program.outputs)
    return any(numerically_equal(value, claim) is not None for value, claim in claims)


def _held(store: Store, read: Expr) -> Expr:
    """What a leaf that reads a stored tensor stands for."""
    return rename(store.claim, dict(zip(store.tensor.named_axes, read.axes, strict=True)))


def _result(
    request: Request,
    found: Found,
    target: Target,
    spent: Effort,
    outcome: Outcome,
    settings: Settings,
    progress: Progress,
) -> Result:
    from verify.certificate import versions

    verdict = None
    if outcome.best is not None:
        proof = outcome.best.verdict
        verdict = VerdictRecord(status=proof.status.value, reason=proof.reason, facts=list(proof.facts))
    statuses = Counter(found.statuses)
    ended = _ended(outcome.rows)
    statuses.update(ended.values())
    if len(found.proved) > len(ended):
        statuses["deferred: proved, not tuned within the effort"] += len(found.proved) - len(ended)
    notes = [*(f"fact: {fact}" for fact in found.program.facts), *outcome.notes]
    if found.truncated:
        notes.append("the rewrite table hit a limit: the search is not complete")
    if progress.stop_requested:
        notes.append("stopped by Ctrl-C: this is the best found until then")
    folder = run_folder(request, settings, found.program, target)
    record = Report(
        program=found.program.name,
        equations=str(found.program),
        target=target.name,
        timing="measured" if any(r.measured_us is not None for r in outcome.rows) else "modelled",
        effort=spent.name,
        seed=request.seed,
        families=Families(
            enumerated=len(found.search.families),
            proved=len(found.proved),
            dropped={reason: n for reason, n in found.search.dropped.items() if n},
            statuses=dict(sorted(statuses.items())),
        ),
        best=_best_row(outcome),
        ranking=list(outcome.rows),
        verdict=verdict,
        exact=outcome.exact,
        accuracy=outcome.accuracy,
        speedup=outcome.speedup,
        source_path=_source_path(outcome, folder),
        seconds=dict(progress.seconds),
        versions=versions(),
        notes=notes,
    )
    graph = outcome.best.family.graph if outcome.best is not None else None
    guarded = Guarded(found.program, outcome.run, request.reference)
    result = Result(
        without_state(guarded, request.function),
        record,
        outcome.source,
        outcome.torch_source,
        graph,
        _certificate(outcome),
        _origin(request, found, outcome),
    )
    result.save(folder)
    return result


def _certificate(outcome: Outcome) -> Certificate | None:
    """The evidence of a target, completed by what is the same for all: the rules, and gate 2."""
    from prism.store.key import rule_set
    from verify.certificate import ExactFigures

    if outcome.certificate is None:
        return None
    exact = outcome.exact
    figures = None if exact is None else ExactFigures(evaluations=exact.evaluations, fields=dict(exact.fields))
    return outcome.certificate.model_copy(update={"rule_set": rule_set(), "exact": figures})


def _source_path(outcome: Outcome, folder: Path) -> str | None:
    """Where the source of the best is written; None where there is none."""
    name = "kernel.py" if outcome.source else "torch_form.py" if outcome.torch_source else None
    return None if name is None else str(folder / name)


def _origin(request: Request, found: Found, outcome: Outcome) -> Origin:
    """What a saved run needs so that its callable can be made again."""
    best = _best_row(outcome)
    if outcome.best is None or best is None:
        mode: Mode = "original"
    elif outcome.source:
        mode = "triton"
    else:
        mode = "inductor" if "(inductor" in best.name else "eager"
    return Origin(
        program=found.program,
        shapes=tuple(tuple(t.shape) for t in request.all_inputs),
        own_inputs=len(request.inputs),
        mode=mode,
        parameters=best.parameters if best is not None and mode == "triton" else {},
        header=outcome.header,
    )


def _ended(rows: Sequence[Row]) -> dict[int, str]:
    """The one status of each family that a target tried; a family may have a row per way of running it."""
    ended: dict[int, str] = {}
    for row in rows:
        if row.family is not None and (row.family not in ended or row.status == "measured"):
            ended[row.family] = row.status
    return ended


def _best_row(outcome: Outcome) -> Row | None:
    ended = {"measured", "modelled"}
    return next((row for row in outcome.rows if row.status in ended), None)


def run_folder(request: Request, settings: Settings, program: Program, target: Target) -> Path:
    """Where a run is written: the folder that was asked for, or one under the cache directory."""
    import hashlib

    if request.out is not None:
        return request.out
    digest = hashlib.blake2b(str(program).encode(), digest_size=4).hexdigest()
    return settings.cache_dir / "runs" / f"{program.name}-{target.name}-{digest}"
