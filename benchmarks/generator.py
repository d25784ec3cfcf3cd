"""How large the generator's space is, and how long search and proof take: ``python -m benchmarks.generator``.

One row per workload at one of its reported points, then programs that grow by operators and by axes. What was set
aside is printed below each row, by reason. ``--json FILE`` records everything. Seconds are wall time; generation and
proof also as processor time, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from autotune.targets import find_target
from benchmarks.workloads import WORKLOADS, gqa_decode, rmsnorm
from prism.effort import EFFORTS, Effort, effort
from prism.frontend import capture
from prism.pipeline import concrete_sizes
from rewrites.saturate import saturate, warm_up
from rewrites.seeds import find_seeds
from sgraph.generate import Search, generate
from verify.equivalence import prove

OPERATORS: Final = (5, 10, 15, 20, 30)
AXES: Final = (1, 2, 3, 4, 5)
TARGET: Final = "h200"
PROOF_S: Final = 8.0
"""Processor seconds after which no further family of a row is proved."""

Function = Callable[..., object]
Row = dict[str, object]


def qknorm_attention_projected(
    x: Tensor, wq: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor, wo: Tensor
) -> Tensor:
    """A decoding step: query projection, norms of queries and keys, attention over cached keys, output projection."""
    q = torch.einsum("bc,chgd->bhgd", x, wq)
    return torch.einsum("bhgd,hgdo->bo", gqa_decode(rmsnorm(q, q_gain), rmsnorm(k, k_gain), v), wo)


def programs() -> Iterator[tuple[str, str, Function, tuple[Tensor, ...]]]:
    """Set, name, function and inputs without storage of everything that is measured."""
    for name, workload in WORKLOADS.items():
        point = workload.points[min(1, len(workload.points) - 1)]
        yield "workload", name, workload.function, workload.inputs(point, device="meta")
    shapes = ((16, 4096), (4096, 8, 4, 128), (16, 4096, 8, 128), (16, 4096, 8, 128), (128,), (128,), (8, 4, 128, 4096))
    yield "workload", "qknorm_attention_projected", qknorm_attention_projected, _meta(*shapes)
    for count in OPERATORS:
        yield "operators", str(count), _chain(count), _meta((64, 1024), *[(1024,)] * count)
    for count in AXES:
        yield "axes", str(count), _batched(count), _meta((*[8] * count, 512), (512, 256))


def _meta(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.empty(s, dtype=torch.bfloat16, device="meta") for s in shapes)


def _chain(count: int) -> Function:
    """A chain of operators on rows: gain, activation, residual and norm in turn."""

    def chain(x: Tensor, *vectors: Tensor) -> Tensor:
        value = x
        for i, vector in enumerate(vectors):
            match i % 4:
                case 0:
                    value = value * vector
                case 1:
                    value = F.silu(value)
                case 2:
                    value = value + x
                case _:
                    value = value * torch.rsqrt(value.square().mean(-1, keepdim=True) + 1e-6)
        return value

    names = ", ".join(f"v{i}" for i in range(count))
    scope: dict[str, Function] = {"chain": chain}
    exec(f"def operators(x, {names}):\n    return chain(x, {names})", scope)
    return scope["operators"]


def _batched(count: int) -> Function:
    """A normed projection whose rows have several axes."""

    def batched(x: Tensor, w: Tensor) -> Tensor:
        return F.silu((x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)) @ w)

    assert count >= 1
    return batched


def measured(kind: str, name: str, function: Function, inputs: tuple[Tensor, ...], spent: Effort) -> Row:
    """One row: sizes of the space, what was set aside, and seconds by stage."""
    clock, busy = [time.perf_counter()], [time.process_time()]

    def lap() -> None:
        clock.append(time.perf_counter())
        busy.append(time.process_time())

    program = capture(function, inputs, name=f"{kind}_{name}" if kind != "workload" else name)
    sizes = concrete_sizes(program, inputs)
    lap()
    seeds = find_seeds([o.value for o in program.outputs], limit=spent.seeds)
    lap()
    table = saturate(seeds.values, seeds.pairs)
    lap()
    found = generate(program, table, find_target(TARGET), sizes, spent.limits)
    lap()
    verdicts: Counter[str] = Counter()
    for family in found.families[: spent.proved]:
        if time.process_time() - busy[-1] > PROOF_S:
            verdicts["not tried"] = min(spent.proved, len(found.families)) - verdicts.total()
            break
        verdicts[prove(family.graph, family.schedules).status.value] += 1
    lap()
    stages = ("capture", "seeds", "saturate", "generate", "prove")
    seconds = {s: round(b - a, 4) for s, a, b in zip(stages, clock, clock[1:], strict=False)}
    return {
        "set": kind,
        "name": name,
        "e_nodes": table.e_nodes,
        "table_truncated": table.truncated,
        "cut_sets": found.cut_sets,
        "plans": found.plans,
        **_kernels(found),
        "families": len(found.families),
        "verdicts": dict(sorted(verdicts.items())),
        "best_estimate_us": round(1e6 * found.families[0].estimate_s, 3) if found.families else None,
        "next_bound_us": None if found.next_bound_s is None else round(1e6 * found.next_bound_s, 3),
        "dropped": dict(found.dropped),
        "seconds": seconds,
        "cpu_seconds": {"generate": round(busy[4] - busy[3], 4), "prove": round(busy[5] - busy[4], 4)},
    }


def _kernels(found: Search) -> dict[str, int]:
    """Distinct kernels among the families, without and with roles."""
    kernels = {tuple((s.tensor, s.value) for s in k.stores) for f in found.families for k in f.graph.kernels}
    return {"kernels": len(kernels), "kernel_role_pairs": found.kernels}


COLUMNS: Final = {"e_nodes": 8, "cut_sets": 9, "plans": 6, "kernels": 8, "kernel_role_pairs": 18, "families": 9}


def lines(row: Row) -> Iterator[str]:
    """A row as text, then what was set aside."""
    seconds, dropped, cpu = row["seconds"], row["dropped"], row["cpu_seconds"]
    assert isinstance(seconds, dict)
    assert isinstance(dropped, dict)
    assert isinstance(cpu, dict)
    cells = "".join(f"{row[c]!s:>{width}}" for c, width in COLUMNS.items())
    proved = row["verdicts"]
    yield (
        f"{row['set']!s:10}{row['name']!s:28}{cells}  generate {seconds['generate']:.2f} s (cpu {cpu['generate']:.2f})"
        f"  prove {seconds['prove']:.2f} s (cpu {cpu['prove']:.2f})  {proved}"
    )
    for reason, count in dropped.items():
        yield f"    {count:>6}  {reason}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rows as they are measured, and record them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to record every row")
    parser.add_argument("--effort", choices=list(EFFORTS), default="default")
    given = parser.parse_args(arguments)
    warm_up()
    spent = effort(given.effort)
    sys.stdout.write(f"{'':38}{''.join(f'{c:>{width}}' for c, width in COLUMNS.items())}\n")
    rows: list[Row] = []
    for kind, name, function, inputs in programs():
        rows.append(measured(kind, name, function, inputs, spent))
        sys.stdout.write("\n".join(lines(rows[-1])) + "\n")
        sys.stdout.flush()
    if given.json is not None:
        given.json.write_text(json.dumps(_record(rows, given.effort, given.json), indent=1) + "\n")


def _record(rows: list[Row], effort_name: str, path: Path) -> Mapping[str, object]:
    return {
        "command": f"python -m benchmarks.generator --effort {effort_name} --json {path}",
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("torch", "egglog")}},
        "machine": {"cores": os.cpu_count(), "load_average": [round(x, 2) for x in os.getloadavg()]},
        "seed": None,
        "note": "the search draws nothing at random; times of families are modelled, for order only",
        "target": TARGET,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
