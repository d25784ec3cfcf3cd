"""``prism load``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from prism.commands.options import Json


def load(
    folder: Annotated[Path, typer.Argument(help="A saved run: what --out or Result.save wrote.")],
    as_json: Json = False,
) -> None:
    """Read a saved run, prove and print its family again, compare the text with the saved one, show its report.

    Nothing that the folder holds is executed. Exit code 2: it is damaged, changed, or of another version.
    """
    from prism.restored import load as load_run

    result = load_run(folder)
    if as_json:
        typer.echo(result.to_json())
        return
    from rich.console import Console

    from prism.render import WIDTH, show

    show(result.record, Console(width=None if sys.stdout.isatty() else WIDTH))
    verdict = "proved and printed again: the text is the saved one" if result.graph is not None else "read again"
    typer.echo(f"{folder}: {verdict}")
