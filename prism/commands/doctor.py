"""``prism doctor``."""

from __future__ import annotations

import json

import typer

from prism.commands.options import Json


def doctor(as_json: Json = False) -> None:
    """Versions, GPU, Triton, caches: what this machine has and what is missing."""
    from prism.doctor import examine, to_records
    from prism.settings import load

    findings = examine(load())
    if as_json:
        typer.echo(json.dumps(to_records(findings), indent=2))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject:<22} {finding.text}")
    if not all(f.ok for f in findings):
        raise typer.Exit(1)
