"""``prism optimize``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from prism.commands.options import Effort, Inputs, Json, Seed, Store, Target


def optimize(
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What to optimise.")],
    *,
    target: Target = None,
    effort: Effort = "default",
    inputs: Inputs = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run: sources, report, certificate.")] = None,
    seed: Seed = 0,
    store: Store = True,
    as_json: Json = False,
) -> None:
    """Search, prove, lower, tune and rank kernels for one function."""
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.pipeline import Request, run
    from prism.progress import Progress
    from prism.settings import load

    progress = Progress(live=not as_json)
    with progress.shown():
        with progress.stage("load"):
            loaded = load_function(function)
            tensors, sizes = override_inputs(loaded, [parse_input_spec(text) for text in inputs or []])
        request = Request(
            loaded.function, tuple(tensors), loaded.name, sizes, target, effort, seed, out, use_store=store
        )
        result = run(request, load(), progress)
    if as_json:
        typer.echo(result.to_json())
        return
    from rich.console import Console

    from prism.render import WIDTH, show

    show(result.record, Console(width=None if sys.stdout.isatty() else WIDTH))
