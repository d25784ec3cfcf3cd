"""Run the workloads on a target and record every row: times and ratios, or what could not be run and why.

``python -m benchmarks --set core --target cpu --quick`` writes one JSON file with the date, the device, versions, the
command, every row, failures and losses, and prints the table. On a machine without the target's GPU it runs the
search and the model, and says that nothing was timed.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.workloads import WORKLOADS, Sizes, Workload
from prism.effort import Effort, effort
from prism.pipeline import Found, Outcome, Request, captured, search
from prism.progress import Progress
from prism.settings import Settings
from sgraph.bounds import speed_of_light
from sgraph.errors import PrismError
from sgraph.target import Target

RESULTS: Final = Path(__file__).parent / "results"
FORMAT: Final = 1
MEASURE_S: Final = 120.0
"""Seconds of measuring per row, compilation of every baseline included, so that none goes without."""
QUICK_S: Final = 60.0
MOST_BYTES: Final = 1 << 30
"""Inputs above this are not run on a CPU."""
MOST_FLOPS: Final = 2e11
"""Nor are programs above this: one call would take seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One workload at one size and element type."""

    workload: str
    point: dict[str, int]
    dtype: str
    status: str
    """``measured``, ``modelled``, ``failed`` or ``not run``."""
    reason: str = ""
    """Why it failed or was not run."""
    ours_us: float | None = None
    """The fastest plan of ours, whether it won or not."""
    baseline_us: float | None = None
    """The fastest baseline."""
    baseline: str = ""
    ratio: float | None = None
    """Baseline over ours, same interleaved run; below 1 we are slower."""
    returned: float | None = None
    """Baseline over what a caller gets: never below 1."""
    winner: str = ""
    noise_percent: float | None = None
    """A difference below it counts as none."""
    modelled_us: float | None = None
    limit_us: float | None = None
    """Speed of light of the program on the target."""
    limit_percent: float | None = None
    """Share of the speed of light that ours reaches."""
    families: int = 0
    """Listed by the generator."""
    proved: int = 0
    seconds: float = 0.0
    """For the whole row."""
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Every candidate and baseline."""
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Run:
    """One run over many workloads."""

    format: int
    date: str
    command: str
    target: str
    device: str
    """What it ran on; ``none: ...`` where the target was not present."""
    load: tuple[float, float, float]
    """Load averages of the machine when the run began."""
    threads: int
    versions: dict[str, str]
    rows: list[Row]

    def losses(self) -> list[Row]:
        """Rows where no plan of ours beats the fastest baseline."""
        return [r for r in self.rows if r.ratio is not None and r.ratio < 1]

    def failures(self) -> list[Row]:
        """Rows that ended without a result."""
        return [r for r in self.rows if r.status in {"failed", "not run"}]


def points_of(names: Iterable[str], sets: str, *, quick: bool) -> list[tuple[Workload, Sizes]]:
    """The workloads of a set, or those named, with their sizes; ``quick`` takes the middle size of each."""
    chosen = [w for w in WORKLOADS.values() if sets == "all" or sets in w.sets]
    wanted = set(names)
    if wanted:
        chosen = [w for w in WORKLOADS.values() if w.name in wanted]
    return [(w, p) for w in chosen for p in ((w.points[len(w.points) // 2],) if quick else w.points)]


def run_all(
    work: Sequence[tuple[Workload, Sizes]],
    dtypes: Sequence[str],
    target: Target,
    settings: Settings,
    *,
    quick: bool,
    seed: int = 0,
    said: Callable[[Row], None] = lambda _: None,
    save: Callable[[Run], None] = lambda _: None,
) -> Run:
    """Every workload at every size and type, one after another; ``save`` is called after each."""
    from verify.certificate import versions

    run = Run(
        FORMAT,
        time.strftime("%Y-%m-%dT%H:%M:%S"),
        " ".join(["python -m benchmarks", *sys.argv[1:]]),
        target.name,
        device_of(target),
        os.getloadavg(),
        torch.get_num_threads(),
        dict(versions()),
        [],
    )
    spent = effort("quick" if quick else "default")
    spent = replace(spent, measure_s=QUICK_S if quick else MEASURE_S, tuned=max(spent.tuned, 4))
    for workload, point in work:
        for dtype in dtypes:
            row = one(workload, point, dtype, target, spent, settings, seed)
            run.rows.append(row)
            said(row)
            save(run)
    return run


def device_of(target: Target) -> str:
    """What the run is timed on."""
    if target.kind == "cpu":
        from autotune.cpu_baselines import environment

        machine = environment()
        return f"{machine.model} (MKL shim {machine.mkl_shim}, large blocks {machine.large_blocks})"
    if present(target):
        return torch.cuda.get_device_name()
    return f"none: no {target.name} here; search and model only, nothing was timed"


def present(target: Target) -> bool:
    """Whether programs can be timed on the target here."""
    from prism.on_device import present as on_device

    return target.kind == "cpu" or on_device(target)


def one(
    workload: Workload, point: Sizes, dtype: str, target: Target, spent: Effort, settings: Settings, seed: int
) -> Row:
    """One row; an error is a row with its reason."""
    started = time.perf_counter()
    row = Row(workload.name, dict(point), dtype, "failed")
    try:
        reason = _too_large(workload, point, dtype, target)
        done = (
            replace(row, status="not run", reason=reason)
            if reason
            else _run(row, workload, target, spent, settings, seed)
        )
    except PrismError as error:
        done = replace(row, reason=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    except Exception as error:  # a benchmark goes on to the next row; the place is kept for whoever mends it
        where = traceback.extract_tb(error.__traceback__)[-1]
        done = replace(
            row, reason=f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:300]
        )
    return replace(done, seconds=round(time.perf_counter() - started, 1))


def _too_large(workload: Workload, point: Sizes, dtype: str, target: Target) -> str:
    if target.kind != "cpu":
        return ""
    inputs = workload.inputs(point, dtype=_dtype(dtype), device="meta")
    size = sum(t.numel() * t.element_size() for t in inputs)
    if size > MOST_BYTES:
        return f"inputs of {size / 2**30:.1f} GiB, more than the {MOST_BYTES / 2**30:.0f} GiB that are run on a CPU"
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        workload.function(*inputs)
    flops = counted.get_total_flops()
    return f"{flops:.1e} flops, more than the {MOST_FLOPS:.0e} that are run on a CPU" if flops > MOST_FLOPS else ""


def _run(row: Row, workload: Workload, target: Target, spent: Effort, settings: Settings, seed: int) -> Row:
    where = "cpu" if target.kind == "cpu" or not present(target) else "cuda"
    timed = present(target)
    inputs = workload.inputs(row.point, dtype=_dtype(row.dtype), device=where if timed else "meta", seed=seed)
    request = Request(workload.function, inputs, workload.name, target=target.name, effort=spent.name, seed=seed)
    progress = Progress(live=False)
    program, sizes = captured(request)
    found = search(program, sizes, target, spent, settings, progress)
    row = replace(row, families=len(found.search.families), proved=len(found.proved))
    if found.proved:
        limit = min(speed_of_light(p.family.graph, target, found.sizes) for p in found.proved)
        row = replace(row, limit_us=1e6 * limit)
    if not timed:
        return _modelled(row, found, target, spent, seed)
    return _measured(row, _outcome(request, found, target, spent, settings, progress))


def _outcome(
    request: Request, found: Found, target: Target, spent: Effort, settings: Settings, progress: Progress
) -> Outcome:
    if target.kind == "cpu":
        from prism.on_cpu import outcome_on_cpu

        return outcome_on_cpu(request, found, target, spent, progress)
    from prism.on_gpu import outcome_on_gpu

    return outcome_on_gpu(request, found, target, spent, settings, progress)


def _modelled(row: Row, found: Found, target: Target, spent: Effort, seed: int) -> Row:
    """What the model says of the first families; nothing is compiled and nothing is run."""
    from autotune.tuner import NotBuilt, Tuner

    tuner = Tuner(target, found.sizes, trials=spent.trials, seed=seed)
    times: dict[int, float] = {}
    reasons: list[str] = []
    for proved in found.proved[: spent.tuned]:
        options = tuner.options(proved.family, 1)
        if isinstance(options, NotBuilt):
            reasons.append(f"family {proved.number}: {options.status}: {options.reason}")
        else:
            times[proved.number] = 1e6 * options[0].modelled_s
    if not times:
        return replace(row, status="failed", reason="; ".join(reasons)[:300] or "no family was proved")
    best = min(times, key=lambda n: times[n])
    rows = [{"name": f"family {n}", "modelled_us": t} for n, t in sorted(times.items(), key=lambda item: item[1])]
    percent = 100 * row.limit_us / times[best] if row.limit_us else None
    return replace(
        row,
        status="modelled",
        winner=f"family {best}",
        modelled_us=times[best],
        limit_percent=percent,
        rows=rows,
        notes=reasons,
    )


def _measured(row: Row, outcome: Outcome) -> Row:
    timed = [r for r in outcome.rows if r.status == "measured" and r.measured_us is not None]
    ours = min((r for r in timed if r.kind == "family"), key=lambda r: r.measured_us or 0, default=None)
    rivals = min((r for r in timed if r.kind == "baseline"), key=lambda r: r.measured_us or 0, default=None)
    row = replace(
        row,
        status="measured",
        winner=outcome.rows[0].name if outcome.rows else "",
        returned=outcome.speedup,
        rows=[r.model_dump(exclude_defaults=True) for r in outcome.rows],
        notes=list(outcome.notes),
    )
    if rivals is None or rivals.measured_us is None:
        return replace(row, status="failed", reason="no baseline was timed")
    row = replace(row, baseline=rivals.name, baseline_us=rivals.measured_us)
    if ours is None or ours.measured_us is None:
        return replace(row, reason="no plan of ours was timed")
    return replace(
        row,
        ours_us=ours.measured_us,
        ratio=rivals.measured_us / ours.measured_us,
        limit_percent=100 * row.limit_us / ours.measured_us if row.limit_us else None,
    )


def _dtype(name: str) -> torch.dtype:
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def write(run: Run, path: Path) -> None:
    """The run as JSON; written beside and moved, so that a stopped run leaves the last complete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> Run:
    """A recorded run."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = [Row(**row) for row in data["rows"]]
    changed: dict[str, Any] = {**data, "load": tuple(data["load"]), "rows": rows}
    return Run(**changed)


def line(row: Row) -> str:
    """A row of the printed table."""
    sizes = " ".join(f"{k}={v}" for k, v in row.point.items())
    head = f"{row.workload:<18} {sizes:<14} {row.dtype:<5}"
    if row.status == "modelled":
        percent = f"{row.limit_percent:.0f} % of light" if row.limit_percent is not None else ""
        return f"{head} modelled {row.modelled_us:.1f} us {percent} ({row.proved} of {row.families} families proved)"
    if row.ratio is None:
        return f"{head} {row.status}: {row.reason}"
    returned = f"{row.returned:.2f}x returned" if row.returned is not None else ""
    percent = f", {row.limit_percent:.0f} % of light" if row.limit_percent is not None else ""
    return (
        f"{head} {row.ratio:5.2f}x  ours {row.ours_us:.0f} us, {row.baseline} {row.baseline_us:.0f} us{percent}; "
        f"{returned}: {row.winner}"
    )
