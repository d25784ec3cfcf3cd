"""``prism report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that prism optimize --out wrote.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default: report.html in the run.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a run as one HTML page that needs no network."""
    from prism.page import page
    from prism.saved import read_run
    from sgraph.errors import OutputNotWritable

    path = out or run / "report.html"
    text = page(read_run(run))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputNotWritable(
            f"cannot write {path}: {error.strerror or error}", do="another file with --out"
        ) from None
    typer.echo(str(path))
    if show:
        typer.launch(str(path))
