"""``prism verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism.commands.options import Json

if TYPE_CHECKING:
    from verify.recheck import Finding

EXIT_CODES = {"passed": 0, "failed": 1, "unknown": 3}
"""How ``prism verify`` ends by its outcome; mistakes end with 2 everywhere."""


def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run, or a folder that prism export wrote.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the inputs; default: drawn afresh.")] = None,
    as_json: Json = False,
) -> None:
    """Check kernels again without searching: files, proof, certificate, exact evaluation of the emitted text.

    Exit code 0: all passed; 1: something failed; 3: something could not be decided; 2: mistakes.
    """
    from prism.verifying import verify_path

    shown = ""

    def show(subject: str, finding: Finding) -> None:
        nonlocal shown
        if subject != shown:
            typer.echo(subject)
            shown = subject
        typer.echo(f"  {finding.outcome:<8}{finding.check:<18}{finding.detail} ({finding.seconds:.2f} s)")

    found = verify_path(path, seed, (lambda subject, finding: None) if as_json else show)
    if as_json:
        typer.echo(json.dumps(found.to_record(), indent=2))
    else:
        typer.echo(f"{found.outcome} (seed {found.seed})")
    raise typer.Exit(EXIT_CODES[found.outcome.value])
