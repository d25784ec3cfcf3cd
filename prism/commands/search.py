"""``prism search``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from prism.commands.options import Constants, Effort, Inputs, Json, Masks, Target

if TYPE_CHECKING:
    from prism.searching import Searched


def search(
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What to search.")],
    *,
    target: Target = None,
    effort: Effort = "default",
    inputs: Inputs = None,
    masks: Masks = None,
    constants: Constants = None,
    top: Annotated[int, typer.Option(min=0, help="Families printed, best estimate first.")] = 5,
    as_json: Json = False,
) -> None:
    """Capture, rewrite, generate and prove: the funnel and the families, without lowering or tuning."""
    from prism.searching import families_text, funnel_text, search_record

    searched = search_for(function, target, effort, inputs, masks, constants, live=not as_json)
    if as_json:
        typer.echo(json.dumps(search_record(searched), indent=2))
        return
    typer.echo(funnel_text(searched))
    if top and searched.found.search.families:
        typer.echo(f"\n{families_text(searched, top)}")
    typer.echo("\nseconds: " + ", ".join(f"{stage} {s:.2f}" for stage, s in searched.seconds.items()))


def search_for(
    function: str,
    target: str | None,
    effort: str,
    inputs: list[str] | None,
    masks: list[str] | None,
    constants: list[str] | None,
    *,
    live: bool,
) -> Searched:
    """The search of one function, with its live line.

    Raises:
        PrismError: one of its subclasses, for everything a user can mend.
    """
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.pipeline import Request
    from prism.progress import Progress
    from prism.searching import run_search
    from prism.settings import load

    progress = Progress(live=live)
    with progress.shown():
        with progress.stage("load"):
            loaded = load_function(function)
            tensors, sizes = override_inputs(loaded, [parse_input_spec(text) for text in inputs or []])
        request = Request(
            loaded.function,
            tuple(tensors),
            loaded.name,
            sizes,
            target,
            effort,
            constant=frozenset(constants or ()),
            masks=frozenset(masks or ()),
        )
        return run_search(request, load(), progress)
