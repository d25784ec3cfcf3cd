"""``prism explain-cost``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from prism.commands.options import Effort, Inputs, Json, Seed

TERMS = {
    "launch_s": "launches",
    "dram_s": "memory, at the bandwidth that the bytes in flight allow",
    "l2_s": "last-level cache, re-reads included",
    "dot_s": "dot products, padding included",
    "pointwise_s": "other arithmetic",
    "chain_s": "latency of the longest chain of iterations",
    "combine_s": "combining the parts of a split",
}
"""What each term of the model is."""


def explain_cost(
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="Whose kernels.")],
    target: Annotated[
        str, typer.Option(help="a100, h100, h200, b200, or a .toml file (base = ..., figures).")
    ] = "h200",
    family: Annotated[int, typer.Option(min=1, help="Place of the family in the generator's order.")] = 1,
    inputs: Inputs = None,
    effort: Effort = "quick",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show every term of the cost model for each kernel of a family, at the parameters the model chooses.

    Times are modelled. The largest of memory, cache, dot, other arithmetic and latency counts, for they overlap.
    """
    record = _record(function, target, family, inputs or [], effort, seed)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo(f"family {family} of {record['program']} on {record['target']}: {record['modelled_us']:.2f} us modelled")
    for kernel in record["kernels"]:
        config = ", ".join(f"{k} {v}" for k, v in kernel["parameters"].items())
        typer.echo(f"\n{kernel['name']}: {config}")
        typer.echo(
            f"  {kernel['programs']} programs, {kernel['resident']} at once on a processor, {kernel['waves']} waves; "
            f"{kernel['registers']} registers, {kernel['shared_bytes']} B shared (estimates)"
        )
        for term, meaning in TERMS.items():
            mark = "  <- counts" if term == kernel["dominant"] else ""
            typer.echo(f"  {kernel[term] * 1e6:9.3f} us  {meaning}{mark}")
        typer.echo(f"  {kernel['total_s'] * 1e6:9.3f} us  together")


def _record(function: str, target_name: str, number: int, inputs: list[str], effort: str, seed: int) -> dict[str, Any]:
    import math

    from autotune.calibration import calibrated
    from autotune.fit import TERMS as OVERLAPPING
    from autotune.resources import registers_per_thread, shared_memory_bytes
    from autotune.targets import find_target
    from autotune.tuner import NotBuilt, Tuner
    from prism.effort import effort as spent_for
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.pipeline import Request, captured, search
    from prism.progress import Progress
    from prism.settings import load
    from sgraph.errors import InputError, NoFeasibleFamily

    settings, spent = load(), spent_for(effort)
    target = calibrated(find_target(target_name), settings.cache_dir / "calibrations")
    if target.kind != "cuda":
        raise InputError("the CPU target is measured, not modelled", where="--target", do="name a GPU")
    loaded = load_function(function)
    tensors, given = override_inputs(loaded, [parse_input_spec(text) for text in inputs])
    program, sizes = captured(Request(loaded.function, tuple(tensors), loaded.name, given))
    found = search(program, sizes, target, spent, settings, Progress(live=False))
    proved = next((p for p in found.proved if p.number == number), None)
    if proved is None:
        there = ", ".join(str(p.number) for p in found.proved[:20])
        raise InputError(f"no proved family {number}", where="--family", do=f"one of {there or 'none'}")
    options = Tuner(target, found.sizes, trials=spent.trials, seed=seed).options(proved.family, 1)
    if isinstance(options, NotBuilt):
        raise NoFeasibleFamily(f"family {number}: {options.reason}", where=target.name, do="another family or target")
    named = {a.name: n for a, n in found.sizes.items()}
    graph, kernels = proved.family.graph, list[dict[str, Any]]()
    costs = options[0].costs
    for schedule, chosen, cost in zip(proved.family.schedules, options[0].parameters.kernels, costs, strict=True):
        terms = asdict(cost)
        kernels.append(
            {
                "name": schedule.kernel.name,
                "parameters": chosen.to_config(),
                **terms,
                "total_s": cost.total_s,
                "dominant": max(OVERLAPPING, key=lambda t: terms[t]),
                "waves": math.ceil(cost.programs / (cost.resident * target.processors)),
                "registers": registers_per_thread(graph, schedule, chosen, named, target),
                "shared_bytes": shared_memory_bytes(graph, schedule, chosen, named, target),
            }
        )
    return {
        "program": program.name,
        "target": target.name,
        "family": number,
        "modelled_us": options[0].modelled_s * 1e6,
        "kernels": kernels,
    }
