"""CUDA targets on a machine that has the device: the built families measured against eager and torch.compile."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from autotune.device import DeviceTiming, time_candidates
from autotune.measured import Budget, History, Launch, Tuned, decide, tune
from autotune.measuring import FreshCall, ProcessDevice, measuring_worker
from autotune.module import load_source
from autotune.tuner import Built
from prism.pipeline import Found, Proved, Request
from prism.progress import Progress
from prism.report import Row
from prism.settings import load
from sgraph.bounds import speed_of_light
from sgraph.errors import KernelCheckFailed
from sgraph.target import Target
from verify.inputs import make_inputs
from verify.numerics import Prepared

log = logging.getLogger("prism.measure")


def present(target: Target) -> bool:
    """Whether this machine has the target device."""
    if target.kind != "cuda" or not torch.cuda.is_available():
        return False
    from autotune.targets import detect_target

    return detect_target().name == target.name


class Measured:
    """What measuring found: rows, the winner and its callable."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        """Best first."""
        self.winner: str = "eager"
        """A family's or a baseline's name."""
        self.speedup: float | None = None
        """Fastest baseline over the winner."""
        self.best: tuple[Proved, Tuned] | None = None
        """The winning family, if one won."""
        self.launches: dict[str, Launch] = {}
        """Everything that can be called, by name."""


def measure(
    request: Request,
    found: Found,
    built: Sequence[tuple[Proved, Built]],
    rows: Mapping[int, Row],
    target: Target,
    budget: Budget,
    progress: Progress,
) -> Measured:
    """Tune every built family on the device, then time the best of each with the baselines in one run."""
    inputs = [t.cuda() for t in request.all_inputs]
    prepared = Prepared.of(found.program, request.reference, inputs)
    outcome = Measured()
    tuned: dict[str, tuple[Proved, Tuned]] = {}
    failed: dict[str, tuple[str, str]] = {}
    share = Budget(budget.trials, budget.seconds / max(1, len(built)), budget.seed, budget.stop)

    def timer(launches: Mapping[str, Launch]) -> tuple[dict[str, DeviceTiming], dict[str, str]]:
        return time_candidates(launches, inputs, target.l2_bytes)

    for proved, candidate in built:
        name = f"family {proved.number}"
        progress.update(measuring=name)
        launch = load_source(candidate.source, found.program.name).launch
        with measuring_worker(candidate.source, found.program.name, "triton", inputs, target.l2_bytes) as worker:
            history = History(_history_file(proved, found, target), bucket_of(found))
            device = ProcessDevice(worker)
            best = tune(candidate, device, launch, target, found.sizes, share, history=history)
        if isinstance(best, str):
            failed[name] = ("launch failed", best)
            continue
        report = prepared.check(best.launch)
        if report.passed:
            tuned[name] = (proved, best)
        else:
            failed[name] = ("inaccurate", str(report).splitlines()[-1].strip())
        if budget.stop():
            break
    outcome.launches = {**_baselines(request.reference), **{n: t.launch for n, (_, t) in tuned.items()}}
    times, unable = timer(outcome.launches)
    baselines = [n for n in outcome.launches if n not in tuned]
    if times:
        outcome.winner, outcome.speedup = decide(times, list(tuned), baselines)
        outcome.best = tuned.get(outcome.winner)
    if outcome.best is not None:
        refused = _not_confirmed(request, found, *outcome.best, inputs, target)
        if refused is not None:
            failed[outcome.winner] = ("check failed", refused)
            outcome.winner, outcome.speedup = decide(times, [], baselines)
            outcome.best = None
    failed.update({n: ("launch failed", reason) for n, reason in unable.items()})
    by_name = {f"family {number}": row for number, row in rows.items()}
    names = [*outcome.launches, *(n for n in by_name if n not in outcome.launches)]
    outcome.rows = sorted(
        (_row(n, by_name.get(n), times.get(n), failed.get(n), tuned.get(n), found, target) for n in names),
        key=lambda r: (r.name != outcome.winner, r.measured_us is None, r.measured_us or 0.0),
    )
    return outcome


HELD_OUT: Final = 7919
"""Added to the seed for inputs that no measurement and no check has seen."""


def _not_confirmed(
    request: Request, found: Found, proved: Proved, tuned: Tuned, inputs: Sequence[torch.Tensor], target: Target
) -> str | None:
    """Gate 4: why the winner does not keep the contract in a fresh process on held-out seeds; None if it does."""
    sizes = {a.name: n for a, n in found.sizes.items()}
    held_out = make_inputs(found.program, sizes, seed=request.seed + HELD_OUT, device="cuda")
    prepared = Prepared.of(found.program, request.reference, held_out)
    with measuring_worker(tuned.built.source, found.program.name, "triton", inputs, target.l2_bytes) as worker:
        try:
            report = prepared.check(FreshCall(worker, tuned.parameters.to_config()))
        except KernelCheckFailed as failure:
            return f"family {proved.number}: {failure}"
    return None if report.passed else str(report).splitlines()[-1].strip()


def bucket_of(found: Found) -> dict[str, int]:
    """The symbolic extents of the example inputs, by axis."""
    return {a.name: n for a, n in found.sizes.items() if not isinstance(a.extent, int)}


def _history_file(proved: Proved, found: Found, target: Target) -> Path:
    """One file for each family on each device; buckets of symbolic extents share it."""
    text = str(proved.family.graph)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return load().cache_dir / "measured" / target.name / f"{found.program.name}-{digest}.jsonl"


def _baselines(function: Callable[..., object]) -> dict[str, Launch]:
    return {
        "eager": function,
        "inductor": torch.compile(function),
        "inductor max-autotune": torch.compile(function, mode="max-autotune-no-cudagraphs"),
    }


def _row(
    name: str,
    modelled: Row | None,
    timing: DeviceTiming | None,
    failed: tuple[str, str] | None,
    tuned: tuple[Proved, Tuned] | None,
    found: Found,
    target: Target,
) -> Row:
    row = modelled or Row(name=name, kind="baseline", status="deferred")
    if failed is not None:
        return row.model_copy(update={"status": failed[0], "detail": failed[1]})
    if timing is None:
        return row
    update: dict[str, object] = {
        "status": "measured",
        "measured_us": timing.median_us,
        "spread_percent": timing.spread_percent,
    }
    if tuned is not None:
        limit_us = speed_of_light(tuned[0].family.graph, target, found.sizes) * 1e6
        update["speed_of_light_percent"] = 100 * limit_us / timing.median_us
        update["parameters"] = tuned[1].parameters.to_config()
    return row.model_copy(update=update)
