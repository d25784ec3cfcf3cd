"""``prism batch``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism.commands.options import Json

if TYPE_CHECKING:
    from prism.batch.executor import Executor
    from prism.batch.job import Job
    from prism.batch.ledger import Row
    from prism.batch.task import Task

DEVICES = ("search", "null")


def batch(
    job: Annotated[Path, typer.Argument(metavar="JOB.toml", help="Subgraphs, shapes, targets and budgets.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and list its tasks.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a job that was started before.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what the job has done; results stay.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=512, help="Workers.")] = 1,
    executor: Annotated[str, typer.Option(help="local (processes of this machine) or ray (a Ray cluster).")] = "local",
    device: Annotated[str, typer.Option(help="search, or null: load and capture only.")] = "search",
    as_json: Json = False,
) -> None:
    r"""Work through a job file with several workers; may be killed and resumed at any moment.

    \b
    [batch]                       targets, effort, seeds, budget_s, crashes, output
    [[subgraph]]                  function = "FILE::NAME" or "FILE.pt2", name, constant,
                                  and targets, effort, seeds, budget_s of its own
    [[subgraph.shapes]]           INPUT = "dtype[sizes]"; one task for each table

    Exit code 0: every task is done; 1: some failed or are quarantined; 130: stopped.
    """
    from prism.batch.job import digest_of, read_job

    read, tasks = read_job(job)
    if device not in DEVICES:
        raise typer.BadParameter(f"{device!r} is not one of {', '.join(DEVICES)}", param_hint="--device")
    if dry_run:
        _list(tasks, as_json)
        return
    chosen = _executor(executor, workers, device)
    rows, stopped = _run(read, (digest_of(tasks, device), tasks), chosen, (resume, restart), not as_json)
    if as_json:
        typer.echo(json.dumps([_record(row) for row in rows], indent=2))
    else:
        _summarise(rows)
    if stopped:
        raise typer.Exit(130)
    if any(row.state != "done" for row in rows):
        raise typer.Exit(1)


def _executor(name: str, workers: int, device: str) -> Executor:
    """The workers, started."""
    from prism.batch import work

    chosen = work.capture if device == "null" else work.search
    if name == "local":
        from prism.batch.local import LocalExecutor

        return LocalExecutor(chosen, workers)
    if name == "ray":
        from prism.batch.on_ray import RayExecutor

        return RayExecutor(chosen, workers)
    raise typer.BadParameter(f"{name!r} is neither local nor ray", param_hint="--executor")


def _run(
    job: Job, entered: tuple[str, tuple[Task, ...]], executor: Executor, how: tuple[bool, bool], shown: bool
) -> tuple[tuple[Row, ...], bool]:
    """Work through the tasks; their rows, and whether a person stopped it."""
    from prism.batch.driver import Driver, left
    from prism.batch.ledger import Ledger
    from prism.batch.progress import EventLog, View
    from prism.progress import Progress
    from prism.result import ensure_writable
    from prism.settings import load
    from prism.store import open_store

    (digest, tasks), (resume, restart) = entered, how
    try:
        output = ensure_writable(Path(tasks[0].folder).parent)
        with open_store(load().cache_dir) as store, Progress().shown() as interrupt:
            ledger = Ledger(store, digest)
            if restart:
                ledger.forget()
            ledger.start(tasks, resume=resume)
            view = View(_say if shown else None, len(tasks))
            driver = Driver(
                ledger,
                {t.name: t for t in tasks},
                executor,
                job.batch.crashes,
                EventLog(output / "events.jsonl"),
                view,
                lambda: interrupt.stop_requested,
            )
            with view.shown():
                rows = driver.run()
            return rows, interrupt.stop_requested and left(rows) > 0
    finally:
        executor.stop()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _list(tasks: tuple[Task, ...], as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(t) for t in tasks], indent=2))
        return
    for task in tasks:
        inputs = f"  {' '.join(task.inputs)}" if task.inputs else ""
        typer.echo(f"{task.name:<32} {task.function}  {task.effort}, seed {task.seed}{inputs}")
    typer.echo(f"{len(tasks)} tasks")


def _summarise(rows: tuple[Row, ...]) -> None:
    for row in rows:
        if row.state != "done":
            reason = f": {row.reason}" if row.reason else ""
            typer.echo(f"{row.task}: {row.state}{reason}")
    states = {state: sum(r.state == state for r in rows) for state in sorted({r.state for r in rows})}
    typer.echo(", ".join(f"{count} {state}" for state, count in states.items()))


def _record(row: Row) -> dict[str, object]:
    return {
        "task": row.task,
        "state": row.state,
        "crashes": row.crashes,
        "reason": row.reason,
        "seconds": round(row.seconds, 3),
        "result": json.loads(row.result) if row.result else None,
    }
