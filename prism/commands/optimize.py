"""``prism optimize``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from prism.commands.options import Constants, Effort, Inputs, Json, Masks, Seed, Store, Target


def optimize(  # noqa: PLR0913 (one option per question a caller may have)
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What to optimise.")],
    *,
    target: Target = None,
    effort: Effort = "default",
    inputs: Inputs = None,
    masks: Masks = None,
    constants: Constants = None,
    fallback: Annotated[
        bool, typer.Option("--fallback/--no-fallback", help="Optimise the supported parts of a function that is not.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for the run: sources, report, certificate.")] = None,
    seed: Seed = 0,
    store: Store = True,
    as_json: Json = False,
) -> None:
    """Search, prove, lower, tune and rank kernels for one function."""
    from prism.door import open_door
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.progress import Progress
    from prism.result import Result

    progress = Progress(live=not as_json)
    with progress.stage("load"):
        loaded = load_function(function)
        tensors, sizes = override_inputs(loaded, [parse_input_spec(text) for text in inputs or []])
    result = open_door(
        loaded.function,
        tuple(tensors),
        target=target,
        effort=effort,
        sizes=sizes,
        may_hold_minus_inf=masks or (),
        constant=constants or (),
        fallback=fallback,
        seed=seed,
        out=out,
        progress=progress,
        use_store=store,
        name=loaded.name,
    )
    if as_json:
        typer.echo(result.to_json())
        return
    if not isinstance(result, Result):
        typer.echo(result.report())
        return
    from rich.console import Console

    from prism.render import WIDTH, show

    show(result.record, Console(width=None if sys.stdout.isatty() else WIDTH))
