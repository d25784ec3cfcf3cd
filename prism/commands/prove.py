"""``prism prove``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from prism.commands.options import Inputs, Json

EXIT_CODES = {"proved": 0, "refuted": 1, "unknown": 3}
"""How ``prism prove`` ends by its verdict; mistakes end with 2 everywhere."""


def prove(
    first: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="The specification; its file has the inputs.")],
    second: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What is to be proved equal to it.")],
    inputs: Inputs = None,
    as_json: Json = False,
) -> None:
    """Prove that two functions compute the same, or show where they differ.

    Exit code 0: proved; 1: refuted; 3: unknown; 2: mistakes.
    """
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.frontend.files import load_without_inputs
    from prism.proving import prove as prove_functions

    spec, candidate = load_function(first), load_without_inputs(second)
    tensors, sizes = override_inputs(spec, [parse_input_spec(text) for text in inputs or []])
    verdict = prove_functions(spec.function, candidate, tensors, sizes=sizes)
    if as_json:
        fields = ("status", "reason", "facts", "counterexample", "seconds")
        record = {"left": first, "right": second, **{name: getattr(verdict, name) for name in fields}}
        typer.echo(json.dumps(record, indent=2))
    else:
        typer.echo(f"left   {first}\nright  {second}\n{verdict}\ndecided in {1e3 * verdict.seconds:.1f} ms")
    raise typer.Exit(EXIT_CODES[verdict.status])
