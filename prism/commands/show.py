"""``prism show``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from prism.commands.options import Constants, Effort, Inputs, Json, Masks, Target
from prism.commands.search import search_for


def show(  # noqa: PLR0913 (one option per question a caller may have)
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What to search.")],
    number: Annotated[int | None, typer.Argument(metavar="N", help="A family, as numbered by `prism search`.")] = None,
    *,
    family: Annotated[int | None, typer.Option("--family", metavar="N", help="The same, as an option.")] = None,
    target: Target = None,
    effort: Effort = "default",
    inputs: Inputs = None,
    masks: Masks = None,
    constants: Constants = None,
    as_json: Json = False,
) -> None:
    """One family in full: kernels, roles, stages, bounds, and Python that rebuilds it."""
    from prism.searching import family_record, family_text
    from sgraph.errors import InputError

    if number is not None and family is not None and number != family:
        raise InputError(f"two families are named: {number} and --family {family}", do="name one")
    chosen = number if number is not None else family if family is not None else 1
    searched = search_for(function, target, effort, inputs, masks, constants, live=not as_json)
    if as_json:
        typer.echo(json.dumps(family_record(searched, chosen, full=True), indent=2))
    else:
        typer.echo(family_text(searched, chosen))
