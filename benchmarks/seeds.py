"""What each transformation of ``rewrites.seeds`` is worth: ``python -m benchmarks.seeds [name ...]``.

For each program, the generator runs on the table without seeds, with the seeds of all transformations, and with those
of all but one. Times are the model's, for order only; *waits* is the smallest number of reductions over one axis that
wait for one another in any one-kernel family, and tells algebra apart from schedule. ``--stored N`` sets how many
intermediates may be stored between kernels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from rewrites.saturate import saturate, warm_up
from rewrites.seeding_terms import passes
from rewrites.seeds import TRANSFORMATIONS, SeedReport, Transformation, find_seeds
from sgraph.generate import SearchLimits, generate
from sgraph.plans import PlanLimits
from sgraph.program import Program
from tests.programs import H200, LARGE, sizes_of
from tests.programs_seeds import (
    FIRES_ON,
    WORKLOADS,
    Extents,
)

COLUMNS: Final = ("program", "seeds from", "seeds", "refused", "e-nodes", "families", "best us", "waits", "seconds")
WIDTHS: Final = (24, 34, 6, 8, 8, 9, 8, 6, 8)


def programs() -> Mapping[str, Callable[[Extents], Program]]:
    """The workloads first, then the programs of the tests, each once."""
    others = {build.__name__: build for builders in FIRES_ON.values() for build in builders}
    return {**WORKLOADS, **{name: build for name, build in others.items() if name not in WORKLOADS}}


def rows(program: Program, stored: int) -> Iterable[Sequence[object]]:
    """One row without seeds, one with all, and one without each transformation that takes part."""
    values = [o.value for o in program.outputs]
    none = SeedReport(tuple(values), (), {}, 0.0)
    everything = find_seeds(values)
    yield row(program, "none", none, stored)
    yield row(program, "all", everything, stored)
    for left_out in TRANSFORMATIONS:
        report = find_seeds(values, [t for t in TRANSFORMATIONS if t is not left_out])
        if (report.values, report.seeds) != (everything.values, everything.seeds):
            yield row(program, f"all but {left_out.name}", report, stored)


def row(program: Program, label: str, report: SeedReport, stored: int) -> Sequence[object]:
    """Saturates and generates once."""
    begin = time.perf_counter()
    table = saturate(report.values, seeds=report.pairs)
    found = generate(program, table, H200, sizes_of(program), SearchLimits(PlanLimits(stored=stored)))
    seconds = report.seconds + time.perf_counter() - begin
    single = [f.graph.kernels[0] for f in found.families if len(f.graph.kernels) == 1]
    waits = min((max(passes(s.value) for s in kernel.stores) for kernel in single), default=0)
    best = min((f.estimate_s for f in found.families), default=float("nan"))
    refused = sum(n for reasons in report.refused.values() for n in reasons.values())
    nodes = f"{table.e_nodes}{'+' if table.truncated else ''}"
    return (
        program.name,
        label,
        len(report.seeds) + sum(a is not o.value for a, o in zip(report.values, program.outputs, strict=True)),
        refused,
        nodes,
        len(found.families),
        f"{best * 1e6:.2f}",
        waits,
        f"{seconds:.2f}",
    )


def describe(transformations: Iterable[Transformation]) -> None:
    """Prints what the transformations do."""
    for t in transformations:
        print(f"{t.name:24}{t.before_after}\n{'':24}{t.reference}")
    print()


def show(cells: Sequence[object]) -> None:
    """Prints one row, words to the left and numbers to the right."""
    aligned = [f"{c!s:{'<' if i < 2 else '>'}{w}}" for i, (c, w) in enumerate(zip(cells, WIDTHS, strict=True))]
    print("".join(aligned), flush=True)


def main() -> None:
    """Prints the table."""
    known = programs()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("program", nargs="*", choices=[*known, []], help="all of them, if none is named")
    parser.add_argument("--stored", type=int, default=0, help="intermediates between kernels (default 0)")
    parser.add_argument("--rows", type=int, default=LARGE["m"], help="extent of the row axis m")
    arguments = parser.parse_args()
    warm_up()
    describe(TRANSFORMATIONS)
    show(COLUMNS)
    for name in arguments.program or known:
        for cells in rows(known[name]({**LARGE, "m": arguments.rows}), arguments.stored):
            show(cells)


if __name__ == "__main__":
    main()
