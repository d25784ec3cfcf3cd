"""``prism explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism.commands.options import Inputs, Json, Masks


def explain(
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What to look at.")],
    inputs: Inputs = None,
    masks: Masks = None,
    as_json: Json = False,
) -> None:
    """Say what would be captured, what is left to torch and why, before any search."""
    from prism.explanation import explain as explain_function
    from prism.frontend import load_function, override_inputs, parse_input_spec

    loaded = load_function(function)
    tensors, sizes = override_inputs(loaded, [parse_input_spec(text) for text in inputs or []])
    found = explain_function(loaded.function, tensors, sizes=sizes, may_hold_minus_inf=masks or ())
    typer.echo(found.to_json() if as_json else found.text)
