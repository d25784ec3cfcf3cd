"""Verdicts and their times: per workload, right rewritings proved and wrong ones refused.

    python -m benchmarks.proofs [--json FILE] [ROW ...]

Right rewritings are torch functions (``benchmarks.rewritings``). Wrong ones are mutations of the captured expression,
one node each: a dropped term, factor or mask, a reduction of another kind or over another axis, exchanged operands,
other constants. Only those count whose value is seen to differ, on numbers that the prover does not draw. The exit
code is 1 if a wrong one is proved or a right one refuted. Times are processor time of one verdict, after capture.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.rewritings import MASKS, RIGHT
from benchmarks.workloads import WORKLOADS, Workload
from prism.pairs import Pair, Pairs, side_by_side
from prism.proving import decide
from sgraph.arithmetic import Array
from sgraph.axis import ordered
from sgraph.evaluate import evaluate
from sgraph.expr import (
    REDUCTIONS,
    Expr,
    Op,
    call,
    const,
    index,
    leaves,
    make,
    mul,
    nonempty,
    rebuild,
    recip,
    walk,
)
from verify.verdict import Status, Verdict

MOST: Final = 24
"""Mutations per workload, spread evenly over all that there are."""
SMALL: Final = 5
"""Extents at which a mutation is seen to differ."""
DIFFERENCE: Final = 1e-6
"""Relative difference above which a mutation is wrong."""
OTHER_CALL: Final = {"sigmoid": "tanh", "tanh": "sigmoid", "silu": "relu", "gelu_tanh": "silu", "gelu": "relu"}
OTHER_REDUCTION: Final = {Op.SUM: Op.MAX, Op.MAX: Op.MIN, Op.MIN: Op.MAX}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was answered about one rewriting."""

    what: str
    """Which rewriting."""
    right: bool
    """Whether it is equal to the workload."""
    status: str
    """The verdict."""
    reason: str
    """Why."""
    cpu_ms: float
    """Processor time of the verdict."""


@dataclass(frozen=True, slots=True)
class Report:
    """One workload."""

    name: str
    outcomes: tuple[Outcome, ...]
    not_wrong: int
    """Mutations that were left out since no difference was seen."""

    def count(self, *, right: bool, status: Status) -> int:
        """How many rewritings got this verdict."""
        return sum(o.right == right and o.status == status for o in self.outcomes)

    @property
    def times(self) -> list[float]:
        """Milliseconds of each verdict."""
        return [o.cpu_ms for o in self.outcomes]


# ---------------------------------------------------------------------------------------------- mutations


def mutations(e: Expr) -> Iterator[tuple[str, Expr]]:
    """The expression with one thing wrong, each with a name; they vary over no further axes."""
    for node in walk([e]):
        for what, other in _changed(node):
            if other.free <= node.free | e.free and other is not node:
                mutant = rebuild(e, {node: other})
                if mutant.free <= e.free:
                    yield what, mutant
    for a, b in combinations(leaves([e]), 2):
        if a.name != b.name and a.free == b.free:
            yield f"{a.name} and {b.name} exchanged", rebuild(e, {a: b, b: a})


def _changed(node: Expr) -> Iterator[tuple[str, Expr]]:
    match node.op:
        case Op.CONST if abs(node.value) != 1 and node.value:
            yield f"{node.value} doubled", const(2 * node.value)
        case Op.LEAF:
            yield f"{node.name} doubled", mul(const(2), node)
            yield f"{node.name} squared", mul(node, node)
        case Op.ADD:
            a, b = node.args
            yield _named("dropped term", b), a
            yield _named("dropped term", a), b
            yield _named("subtracted instead of added", b), a - b
        case Op.MUL:
            a, b = node.args
            yield _named("dropped factor", b), a
            yield _named("dropped factor", a), b
            yield _named("divided by instead of multiplied by", b), mul(a, recip(b))
        case Op.RECIP | Op.SQRT | Op.EXP | Op.LOG:
            yield _named(f"dropped {node.op}", node), node.args[0]
        case Op.CALL:
            yield _named(f"dropped {node.name}", node), node.args[0]
            if node.name in OTHER_CALL:
                other = OTHER_CALL[node.name]
                yield _named(f"{other} instead of {node.name}", node), call(other, node.args[0])
        case Op.WHERE:
            condition, a, b = node.args
            yield _named("mask dropped", node), a
            yield _named("branches exchanged", node), make(Op.WHERE, (condition, b, a))
        case Op.LE:
            yield _named("< instead of <=", node), make(Op.LT, node.args)
        case Op.INDEX:
            yield _named("position off by one", node), index(node.axis) + 1
        case Op.EXTENT:
            yield _named("dropped extent", node), const(1)
        case op if op in REDUCTIONS:
            yield from _other_reductions(node)
        case _:
            pass


def _other_reductions(node: Expr) -> Iterator[tuple[str, Expr]]:
    other = OTHER_REDUCTION[node.op]
    yield _named(f"{other} instead of {node.op}", node), make(other, node.args, node.axis)
    for axis in ordered(node.args[0].free - {node.axis}):
        if nonempty(axis):
            yield _named(f"over {axis} instead of {node.axis}", node), make(node.op, node.args, axis)


def _named(what: str, node: Expr) -> str:
    shown = str(node).splitlines()[-1]
    return f"{what}: {shown if len(shown) <= 48 else shown[:45] + '...'}"


def differs(spec: Expr, mutant: Expr) -> bool:
    """Whether the two are seen to have other values, on small tensors of several kinds."""
    axes = ordered(spec.free | mutant.free)
    sizes: dict[str, int] = {}
    for node in walk([spec, mutant]):
        sizes |= {a.name: min(SMALL, a.extent) for a in node.free if isinstance(a.extent, int)}
    for trial in range(6):
        random = np.random.default_rng([77, trial])
        scale = (1.0, 1e-3, 3.0)[trial % 3]
        tensors = {x.name: _drawn(x, sizes, random) * scale for x in leaves([spec, mutant])}
        a, b = np.broadcast_arrays(*(evaluate(e, tensors, sizes).ordered(axes) for e in (spec, mutant)))
        with np.errstate(invalid="ignore"):
            other = np.isfinite(a) & ~(np.abs(a - b) <= DIFFERENCE * (1 + np.abs(a)))
        if other.any():
            return True
    return False


def _drawn(x: Expr, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
    shape = [sizes[a.name] for a in x.axes]
    data = random.uniform(-1, 1, shape) * 2
    return data if x.finite else np.where(random.random(shape) < 0.2, -np.inf, data)


# -------------------------------------------------------------------------------------------- measurement


def examine(workload: Workload) -> Report:
    """Every verdict on one workload."""
    masks = MASKS.get(workload.name, ())
    inputs = [torch.empty(shape) for shape in workload.extents(workload.points[0]).values()]
    outcomes: list[Outcome] = []
    for number, candidate in enumerate(RIGHT[workload.name]):
        pairs = side_by_side(workload.function, candidate, inputs, may_hold_minus_inf=masks)
        outcomes.append(_timed(f"rewriting {number}", pairs, right=True))
    spec = side_by_side(workload.function, workload.function, inputs, may_hold_minus_inf=masks)
    found: dict[Expr, tuple[str, Pair]] = {}
    for pair in spec.results:
        for what, mutant in mutations(pair.first):
            found.setdefault(mutant, (what, Pair(pair.name, pair.first, mutant)))
    wrong = [(what, pair) for what, pair in found.values() if differs(pair.first, pair.second)]
    step = max(1, -(-len(wrong) // MOST))
    for what, pair in wrong[::step]:
        outcomes.append(_timed(what, Pairs((pair,), spec.sizes, ()), right=False))
    return Report(workload.name, tuple(outcomes), len(found) - len(wrong))


def _timed(what: str, pairs: Pairs, *, right: bool) -> Outcome:
    start = time.process_time()
    verdicts = [decide(pair, pairs.sizes) for pair in pairs.results]
    cpu_ms = 1e3 * (time.process_time() - start)
    worst = max(verdicts, key=_badness)
    return Outcome(what, right, worst.status.value, worst.reason, cpu_ms)


def _badness(verdict: Verdict) -> int:
    return (Status.PROVED, Status.UNKNOWN, Status.REFUTED).index(verdict.status)


# ------------------------------------------------------------------------------------------------- output


def table(reports: Sequence[Report]) -> Table:
    """One line per workload."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("workload")
    for heading in ("right", "proved", "wrong", "refuted", "unknown", "accepted", "median ms", "max ms"):
        shown.add_column(heading, justify="right")
    for r in reports:
        right = sum(o.right for o in r.outcomes)
        shown.add_row(
            r.name,
            str(right),
            str(r.count(right=True, status=Status.PROVED)),
            str(len(r.outcomes) - right),
            str(r.count(right=False, status=Status.REFUTED)),
            str(r.count(right=False, status=Status.UNKNOWN)),
            str(r.count(right=False, status=Status.PROVED)),
            f"{median(r.times):.1f}",
            f"{max(r.times):.1f}",
        )
    return shown


def record(reports: Sequence[Report]) -> dict[str, object]:
    """Everything, with what is needed to repeat it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.proofs " + " ".join(sys.argv[1:]),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "numpy")}},
        "machine": platform.processor() or platform.machine(),
        "time": "processor time of one verdict, after capture, one run each",
        "rows": [asdict(r) for r in reports],
    }


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs", description="Verdicts and their times.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of workloads; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every verdict here")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(WORKLOADS)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    chosen = [w for w in WORKLOADS.values() if not arguments.rows or w.name in arguments.rows]
    examine(WORKLOADS["softmax"])  # the first verdict of a process loads what all need
    reports = [examine(workload) for workload in chosen]
    Console(width=None if sys.stdout.isatty() else 118).print(table(reports))
    for report in reports:
        for o in report.outcomes:
            if (o.status == Status.PROVED) is not o.right:
                print(f"{report.name}: {o.what}: {o.status}, {o.reason[:160]}")
    if arguments.json:
        arguments.json.write_text(json.dumps(record(reports), indent=2) + "\n")
    accepted = sum(r.count(right=False, status=Status.PROVED) for r in reports)
    refuted = sum(r.count(right=True, status=Status.REFUTED) for r in reports)
    sys.exit(1 if accepted or refuted else 0)


if __name__ == "__main__":
    main()
