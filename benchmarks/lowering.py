"""Coverage of the back end: which families of each workload become kernels that pass every gate without a GPU.

    python -m benchmarks.lowering [--workload NAME ...] [--families N] [--others N] [--seed S] [--json FILE]

Of each workload the first families that the generator lists and a random sample of the others are lowered, evaluated
exactly (gate 2), held to the numerical contract in the interpreter on ragged extents (gate 3), and compiled for sm_80
and sm_90 at random parameter assignments that the resource model calls feasible there. What does not pass is listed
with its reason; of a family without a feasible assignment nothing is compiled. A family may be correct and still
break the contract, since its algebra cancels what eager's does not: those are counted as inaccurate, apart from
kernels that are wrong in float32 on ordinary inputs. Every family is recorded when it is done. The exit code is 1 if
less than 99 % of the families pass.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.table import Table

from autotune.compile_pool import CompileJob, CompilePool
from autotune.interpreter import interpreted
from autotune.lower import lower
from autotune.module import load_source
from autotune.offline import CompileFailure, Meta, Outcome
from autotune.parameters import Parameters
from autotune.targets import find_target
from benchmarks.families import Searched, random_parameters, sample, search_families, small_parameters
from benchmarks.workloads import WORKLOADS, Sizes, Workload
from prism.interpreted import exactly, interpret, twin_sizes
from sgraph import border
from sgraph.errors import PrismError
from sgraph.generate import Family
from verify.numerics import check_numerics

TARGETS: Final = ("a100", "h200")
"""Compiled for: sm_80 and sm_90."""
ASSIGNMENTS: Final = 3
"""Random parameter assignments of every family."""
WANTED: Final = 0.99
"""Share of the families that have to pass."""


@dataclass(slots=True)
class Assignment:
    """One parameter assignment of a family."""

    sizes: Sizes
    """The symbolic extents it is compiled for."""
    config: Mapping[str, Mapping[str, int]]
    """The parameters."""
    interpreted: str = ""
    """Why its small twin fails on ragged extents; empty if it passes."""
    compiled: dict[str, str] = field(default_factory=dict[str, str])
    """Why it does not compile, by target; empty if it does."""


@dataclass(slots=True)
class Record:
    """What became of one family."""

    workload: str
    family: int
    """Its place in the generator's order, from 1."""
    roles: list[dict[str, str]]
    """Of every axis, by kernel."""
    lowered: str = ""
    """Why it has no text; empty if it has."""
    exact: str = ""
    """Why exact evaluation refuses it; empty if it passes."""
    float32: str = ""
    """Why it is wrong in exact float32 arithmetic; empty if it is not."""
    contract: str = ""
    """How it breaks the numerical contract in its own types; empty if it keeps it."""
    lower_ms: float = 0.0
    exact_s: float = 0.0
    interpret_s: float = 0.0
    assignments: list[Assignment] = field(default_factory=list[Assignment])

    @property
    def failures(self) -> Iterator[tuple[str, str]]:
        """What it fails, and why; inaccuracy is not among them."""
        for stage in ("lowered", "exact", "float32"):
            if reason := getattr(self, stage):
                yield stage, reason
        for a in self.assignments:
            if a.interpreted:
                yield "interpreted", a.interpreted
            yield from ((f"compiled for {t}", reason) for t, reason in a.compiled.items() if reason)

    @property
    def infeasible(self) -> bool:
        """Whether no assignment was drawn that the resource model calls feasible on all targets: none was compiled."""
        return not self.lowered and not self.assignments

    @property
    def passed(self) -> bool:
        """Whether it fails nothing."""
        return next(self.failures, None) is None


# ------------------------------------------------------------------------------------------------ one family


def examine(searched: Searched, number: int, family: Family, pool: CompilePool, seed: int) -> Record:
    """Everything that can be found about one family without a GPU."""
    roles = [{str(a): r.value for a, r in k.roles} for k in family.graph.kernels]
    record = Record(searched.workload.name, number, roles)
    start = time.process_time()
    try:
        source = lower(family.graph, family.schedules)
    except PrismError as error:
        record.lowered = _words(error)
        return record
    record.lower_ms = 1e3 * (time.process_time() - start)
    draw = random.Random(f"{seed} {searched.workload.name} {number}")
    pending = _submitted(searched, family, source, pool, draw, record)
    record.exact, record.exact_s = _timed(lambda: _exact(searched, source, seed))
    _, record.interpret_s = _timed(lambda: _interpreted(searched, family, source, seed, record))
    for assignment in record.assignments:
        small = small_parameters(family.graph, Parameters.from_config(assignment.config))
        assignment.interpreted = _contract(searched, family, source, small, seed)
    for assignment, target, future in pending:
        outcome = future.result()
        failed = isinstance(outcome, CompileFailure)
        assignment.compiled[target] = f"{outcome.reason}: {_last_line(outcome.detail)}" if failed else ""
    return record


def _submitted(
    searched: Searched, family: Family, source: str, pool: CompilePool, draw: random.Random, record: Record
) -> list[tuple[Assignment, str, Future[Outcome]]]:
    """Random assignments, on their way through the compiler."""
    targets = [find_target(t) for t in TARGETS]
    pending: list[tuple[Assignment, str, Future[Outcome]]] = []
    for _ in range(ASSIGNMENTS):
        point = draw.choice(searched.points)
        sizes = searched.sizes(point)
        parameters = random_parameters(family, sizes, targets, draw)
        if parameters is None:
            continue
        assignment = Assignment(point, parameters.to_config())
        record.assignments.append(assignment)
        inputs = border.parameters(family.graph.program)
        shapes = (Meta(tuple(1 if a is None else sizes[a.name] for a in t.axes), t.dtype.value) for t in inputs)
        arguments = tuple(shapes)
        for target in targets:
            job = CompileJob(source, target.architecture, arguments, assignment.config, searched.workload.name)
            pending.append((assignment, target.name, pool.submit(job)))
    return pending


def _exact(searched: Searched, source: str, seed: int) -> str:
    try:
        exactly(searched.found.program, source, seed)
    except PrismError as error:
        return _words(error)
    return ""


def _interpreted(searched: Searched, family: Family, source: str, seed: int, record: Record) -> str:
    """The interpreter's two reports, into the record."""
    try:
        exact, own = interpret(searched.workload.function, searched.found, family, source, seed)
    except PrismError as error:
        record.float32 = _words(error)
        return ""
    record.float32 = "" if exact.passed else _last_line(str(exact))
    record.contract = "; ".join(f"{r.name}: {r.failure.reason}" for r in own.rounds if r.failure)
    return ""


def _contract(searched: Searched, family: Family, source: str, parameters: Parameters, seed: int) -> str:
    """Ordinary inputs in the program's own types, with these parameters, on ragged extents."""
    program = searched.found.program
    sizes = twin_sizes(searched.workload.function, searched.found, family)
    module = load_source(source, program.name)

    def run(*inputs: torch.Tensor) -> object:
        with interpreted():
            return module.launch(*inputs, config=parameters.to_config())

    try:
        report = check_numerics(
            program, run, searched.workload.function, sizes=sizes, rounds=1, seed=seed, hostile=False
        )
    except PrismError as error:
        return _words(error)
    return "" if report.passed else _last_line(str(report))


def _timed(call: Callable[[], str]) -> tuple[str, float]:
    start = time.process_time()
    return call(), time.process_time() - start


def _words(error: PrismError) -> str:
    return " | ".join(str(error).splitlines())[:400]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()[:300]


# --------------------------------------------------------------------------------------------------- output


def table(records: Mapping[str, Sequence[Record]], captured: Mapping[str, str]) -> Table:
    """One line per workload."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("workload")
    compiled = [f"compiled {t}" for t in TARGETS]
    headings = ("families", "lowered", "exact", "float32", "contract", "infeasible", *compiled, "passed")
    for heading in (*headings, "lower ms", "exact s"):
        shown.add_column(heading, justify="right")
    for name, found in records.items():
        if name in captured:
            shown.add_row(name, "-", *[""] * 10)
            continue
        texts = [r for r in found if not r.lowered]
        made = [a for r in found for a in r.assignments]
        shown.add_row(
            name,
            str(len(found)),
            _share(len(texts), len(found)),
            _share(sum(not r.exact for r in texts), len(texts)),
            _share(sum(not r.float32 for r in texts), len(texts)),
            _share(sum(not r.contract for r in texts), len(texts)),
            str(sum(r.infeasible for r in found)),
            *(_share(sum(not a.compiled.get(t, "?") for a in made), len(made)) for t in TARGETS),
            _share(sum(r.passed for r in found), len(found)),
            f"{max((r.lower_ms for r in texts), default=0):.0f}",
            f"{max((r.exact_s for r in texts), default=0):.1f}",
        )
    return shown


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole}"


def record_of(
    records: Mapping[str, Sequence[Record]], captured: Mapping[str, str], arguments: argparse.Namespace
) -> dict[str, object]:
    """Everything, with what is needed to repeat it."""
    every = [r for found in records.values() for r in found]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.lowering " + " ".join(sys.argv[1:]),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "triton", "numpy")}},
        "machine": platform.processor() or platform.machine(),
        "gpu": "none: interpreted and compiled, not run",
        "seed": arguments.seed,
        "families": len(every),
        "passed": sum(r.passed for r in every),
        "infeasible": sum(r.infeasible for r in every),
        "inaccurate": sum(bool(r.contract) for r in every),
        "assignments": sum(len(r.assignments) for r in every),
        "not_captured": dict(captured),
        "rows": [asdict(r) for r in every],
    }


def write(arguments: argparse.Namespace, records: Mapping[str, Sequence[Record]], captured: Mapping[str, str]) -> None:
    """The record so far, in place of the last one at once."""
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.json.with_suffix(".part")
    part.write_text(json.dumps(record_of(records, captured, arguments), indent=1) + "\n")
    part.replace(arguments.json)


def _chosen(names: Sequence[str]) -> list[Workload]:
    return [w for name, w in WORKLOADS.items() if not names or name in names]


def _run(
    arguments: argparse.Namespace, records: dict[str, list[Record]], captured: dict[str, str], pool: CompilePool
) -> None:
    """Fill in the records, workload by workload."""
    target = find_target(TARGETS[-1])
    for workload in _chosen(arguments.workload):
        found = records.setdefault(workload.name, [])
        try:
            searched = search_families(workload, target)
        except PrismError as error:
            captured[workload.name] = _words(error)
            print(f"{workload.name}: not captured: {captured[workload.name]}", flush=True)
            continue
        for number, family in sample(searched.families, arguments.families, arguments.others, arguments.seed):
            record = examine(searched, number, family, pool, arguments.seed)
            found.append(record)
            if arguments.json:
                write(arguments, records, captured)
            for stage, reason in record.failures:
                print(f"{workload.name} family {number}: not {stage}: {reason}", flush=True)
            if record.contract:
                print(f"{workload.name} family {number}: inaccurate: {record.contract[:200]}", flush=True)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lowering", description="Coverage of the back end.")
    parser.add_argument("--workload", nargs="+", default=[], choices=list(WORKLOADS), help="default: all")
    parser.add_argument("--families", type=int, default=8, help="the first so many of every workload")
    parser.add_argument("--others", type=int, default=4, help="so many of the others at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep compiled kernels here")
    arguments = parser.parse_args()
    records: dict[str, list[Record]] = {}
    captured: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        cache = arguments.cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prism-coverage-")))
        pool = stack.enter_context(CompilePool(1, cache_dir=cache, time_limit_s=30))
        with contextlib.suppress(KeyboardInterrupt):
            _run(arguments, records, captured, pool)
    Console(width=None if sys.stdout.isatty() else 140).print(table(records, captured))
    every = [r for found in records.values() for r in found]
    passed = sum(r.passed for r in every)
    print(f"{passed} of {len(every)} families pass, {sum(bool(r.contract) for r in every)} are inaccurate")
    if arguments.json:
        write(arguments, records, captured)
    sys.exit(0 if every and passed >= WANTED * len(every) else 1)


if __name__ == "__main__":
    main()
