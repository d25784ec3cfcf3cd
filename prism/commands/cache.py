"""``prism cache``: what the store holds, why a search hits or misses it, whether it is in order."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from prism.commands.options import Effort, Inputs, Json, Seed, Target

if TYPE_CHECKING:
    from rich.table import Table

    from prism.store import Entry

cache = typer.Typer(name="cache", help="Stored results: list, explain, check, prune.", no_args_is_help=True)


@cache.command("ls")
def listed(as_json: Json = False) -> None:
    """List the stored results, the newest first."""
    from prism.settings import load
    from prism.store import open_store
    from prism.store.key import code

    with open_store(load().cache_dir) as store:
        entries, path = store.entries(), store.path
    if as_json:
        typer.echo(json.dumps([_record(e) for e in entries], indent=2))
        return
    table = _table("program", "target", "effort", "seed", "found", "uses", "kB", "key", "state")
    for entry in entries:
        state = "" if entry.complete else "stopped"
        if entry.text("code") != code():
            state = ", ".join(filter(None, (state, "of other code")))
        table.add_row(
            entry.program,
            entry.target,
            entry.text("effort"),
            entry.text("seed"),
            _day(entry.created_s),
            str(entry.uses),
            f"{entry.bytes / 1000:.0f}",
            entry.digest[:12],
            state,
        )
    _show(table)
    typer.echo(f"{len(entries)} results in {path}")


@cache.command()
def why(
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What would be searched for.")],
    target: Target = None,
    effort: Effort = "default",
    inputs: Inputs = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Explain, field by field, why a search of this function would or would not come from the store."""
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.pipeline import Request
    from prism.settings import load
    from prism.shelf import request_key
    from prism.store import open_store

    loaded = load_function(function)
    tensors, sizes = override_inputs(loaded, [parse_input_spec(text) for text in inputs or []])
    key = request_key(Request(loaded.function, tuple(tensors), loaded.name, sizes, target, effort, seed))
    with open_store(load().cache_dir) as store:
        complete, nearest = store.complete(key), store.nearest(key)
    stored = {} if nearest is None else {f.name: f for f in nearest.fields}
    rows = [(f, stored.get(f.name)) for f in key.fields]
    different = [f.name for f, other in rows if other is None or other.text != f.text]
    if complete:
        verdict = "hit: every field is the same"
    elif nearest is None:
        verdict = "miss: the store is empty"
    elif not different:
        verdict = "miss: the stored search was stopped before its end, so it runs again"
    else:
        verdict = f"miss: the nearest result differs in {', '.join(different)}"
    if as_json:
        fields = [
            {"field": f.name, "asked": f.text, "stored": other.text if other else None, "same": f.name not in different}
            for f, other in rows
        ]
        near = nearest.digest if nearest else None
        typer.echo(json.dumps({"hit": complete, "verdict": verdict, "nearest": near, "fields": fields}, indent=2))
        return
    table = _table("field", "asked", "stored", "same")
    for field, other in rows:
        table.add_row(field.name, field.short, other.short if other else "-", "" if field.name in different else "yes")
    _show(table)
    typer.echo(verdict)


@cache.command()
def verify(as_json: Json = False) -> None:
    """Read every stored result, prove and print it again, and compare the texts. Exit code 1: one is not in order."""
    from prism.restored import printed
    from prism.settings import load
    from prism.store import open_store

    with open_store(load().cache_dir) as store:
        count, wrong = len(store.entries()), store.damaged(printed)
    if as_json:
        typer.echo(json.dumps({"results": count, "wrong": wrong}, indent=2))
    else:
        for digest, reason in wrong.items():
            typer.echo(f"FAIL  {digest[:12]}  {reason}")
        typer.echo(f"{count - len(wrong)} of {count} results are in order")
    if wrong:
        raise typer.Exit(1)


@cache.command()
def prune(
    older_than: Annotated[float | None, typer.Option(help="Days since a result was last used.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove the store itself, in order or not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove stored results: by default those that cannot answer a search here (damaged, stopped, of other code)."""
    from prism.restored import printed
    from prism.settings import load
    from prism.store import open_store
    from prism.store.store import remove_store, unreachable

    cache_dir = load().cache_dir
    if everything:
        gone = {str(p): "the whole store" for p in remove_store(cache_dir, dry_run=dry_run)}
    else:
        with open_store(cache_dir) as store:
            gone = unreachable(store, printed, older_than)
            if not dry_run:
                store.remove(list(gone))
    if as_json:
        typer.echo(json.dumps({"removed": gone, "dry_run": dry_run}, indent=2))
        return
    for what, reason in gone.items():
        typer.echo(f"{what if everything else what[:12]}  {reason}")
    typer.echo(f"{len(gone)} {'would be ' if dry_run else ''}removed")


def _record(entry: Entry) -> dict[str, object]:
    names = ("digest", "program", "target", "complete", "created_s", "used_s", "uses", "bytes")
    return {**{n: getattr(entry, n) for n in names}, "fields": {f.name: f.text for f in entry.fields}}


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show(table: Table) -> None:
    from rich.console import Console

    from prism.render import WIDTH

    Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False).print(table)
