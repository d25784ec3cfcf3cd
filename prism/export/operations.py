"""What is exported: operations with their kernels, gathered from saved runs that are checked on the way in."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.targets import find_target
from prism.saved import SavedRun
from sgraph.axis import Axis, Size
from sgraph.errors import InputError, NothingToExport
from sgraph.program import Program
from sgraph.target import Target


@dataclass(frozen=True, slots=True)
class Instance:
    """One kernel source, tuned for one target at one set of sizes."""

    run: SavedRun
    """Where it comes from."""
    target: Target
    """The device it was tuned for."""
    sizes: dict[Axis, int]
    """Extents it was tuned at."""

    @property
    def source(self) -> str:
        """The emitted text for CUDA targets; the printed torch program for the CPU."""
        return self.run.source if self.target.kind == "cuda" else self.run.torch_source

    @property
    def symbolic(self) -> dict[str, int]:
        """The sizes that may differ from call to call."""
        return {a.name: n for a, n in sorted(self.sizes.items()) if isinstance(a.extent, Size)}


@dataclass(frozen=True, slots=True)
class Operation:
    """One program with every kernel that was found for it."""

    name: str
    """Name of the exported function."""
    program: Program
    """What it computes."""
    instances: tuple[Instance, ...]
    """One per target and sizes."""


def gather(runs: Sequence[SavedRun]) -> tuple[Operation, ...]:
    """Operations in the order of the runs; runs of one program are kernels of one operation.

    Raises:
        NothingToExport: a run has no kernel that was proved and checked.
        InputError: two programs have one name, a name cannot be one of a Python function, or one kernel is given twice.
    """
    found: dict[str, Operation] = {}
    for run in runs:
        program = _program(run)
        instance = Instance(run, find_target(run.report.target), run.sizes)
        known = found.get(program.name)
        if known is None:
            found[program.name] = Operation(_checked_name(program.name, run.folder), program, (instance,))
            continue
        if known.program != program:
            raise InputError(
                f"two different programs are called {program.name}",
                where=f"{known.instances[0].run.folder} and {run.folder}",
                do="search one of them again under another name",
            )
        for other in known.instances:
            if (other.target, other.symbolic) == (instance.target, instance.symbolic):
                raise InputError(
                    f"two kernels of {program.name} for {instance.target.name} at the same sizes",
                    where=f"{other.run.folder} and {run.folder}",
                    do="name one of the two runs",
                )
        found[program.name] = Operation(known.name, program, (*known.instances, instance))
    return tuple(found.values())


def _program(run: SavedRun) -> Program:
    """The program of a run that has something to export."""
    report, reason = run.report, ""
    if run.graph is None or report.best is None or report.best.kind != "family":
        winner = report.best.name if report.best is not None else "nothing"
        reason = f"no family won: {winner} was the fastest"
    elif report.verdict is None or report.verdict.status != "proved":
        reason = "its kernel is not proved"
    elif report.accuracy is None or not report.accuracy.passed:
        reason = "its kernel did not pass the numerical contract"
    elif report.target != "cpu" and (report.exact is None or not report.exact.passed or not run.source):
        reason = "its emitted text did not pass exact evaluation"
    if reason or run.graph is None:
        raise NothingToExport(
            f"nothing to export for {report.program} on {report.target}: {reason}",
            where=str(run.folder),
            do="leave this run out, or search with a larger effort",
        )
    return run.graph.program


def _checked_name(name: str, folder: Path) -> str:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_") or name in dir(builtins):
        raise InputError(
            f"{name!r} cannot be the name of an exported function", where=str(folder), do="search under another name"
        )
    return name
