"""``prism export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prism.commands.options import Json


def export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist or be empty.")],
    name: Annotated[str, typer.Option(help="Name of the package and of its torch operations.")],
    form: Annotated[str, typer.Option("--format", help="package, flashinfer or hf-kernels.")] = "package",
    license_name: Annotated[str, typer.Option("--license", help="SPDX identifier for the generated code.")] = "",
    as_json: Json = False,
) -> None:
    """Ship tuned kernels as a library that needs nothing but torch and triton."""
    from prism.export import export_runs

    written = export_runs(runs, out, name, form=form, license_name=license_name)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "files": sorted(written)}, indent=2))
        return
    for path in sorted(written):
        typer.echo(f"{out / path}")
