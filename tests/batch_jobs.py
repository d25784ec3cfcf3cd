"""Cheap jobs for tests of batches: what their workers do is in the task's name. Also a driver that can be killed.

``python -m tests.batch_jobs CACHE OUTPUT COUNT SECONDS`` works through ``COUNT`` tasks with two workers.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from prism.batch.driver import Driver
from prism.batch.job import digest_of
from prism.batch.ledger import Ledger, Row
from prism.batch.local import LocalExecutor
from prism.batch.progress import EventLog, View
from prism.batch.task import Done, Failed, Stored, Task
from prism.store import open_store
from sgraph.errors import InputError


def task(name: str, folder: Path, *, budget_s: float = 60.0, seconds: float = 0.0) -> Task:
    """A task that does what its name says; ``seconds`` is how long."""
    return Task(name, f"{seconds}", (), (), "h200", "quick", 0, budget_s, str(folder / name))


def work(asked: Task) -> Done | Failed:
    """Note that it started, take its time, and end as its name says."""
    note = Path(asked.folder).parent / "started.log"
    with note.open("a", encoding="utf-8") as file:
        file.write(asked.name + "\n")
    time.sleep(float(asked.function))
    if asked.name.startswith("aborts"):
        os.abort()
    if asked.name.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if asked.name.startswith("exits"):
        os._exit(7)
    if asked.name.startswith("refuses"):
        raise InputError("the input is wrong", where="here", do="mend it")
    if asked.name.startswith("raises"):
        raise ZeroDivisionError("division by zero")
    if asked.name.startswith("hangs"):
        time.sleep(600)
    found = hashlib.sha256(asked.name.encode()).hexdigest()
    manifest = f'{{"found": "{found}"}}'.encode()
    stored = Stored(asked.name, "h200", (("spec", asked.name),), manifest, {"report.json": found.encode()})
    return Done({"found": found}, stored)


def drive(tasks: list[Task], cache: Path, output: Path, *, crashes: int, workers: int = 2) -> tuple[Row, ...]:
    """A driver with processes of this machine, in this process."""
    executor = LocalExecutor(work, workers)
    with open_store(cache) as store:
        ledger = Ledger(store, digest_of(tuple(tasks)))
        ledger.start(tasks, resume=True)
        events = EventLog(output / "events.jsonl")
        return Driver(ledger, {t.name: t for t in tasks}, executor, crashes, events, View(None, len(tasks))).run()


def many(count: int, seconds: float, output: Path) -> list[Task]:
    """Tasks that end well."""
    return [task(f"t{i}", output, seconds=seconds) for i in range(count)]


if __name__ == "__main__":
    cache, output, count, seconds = sys.argv[1:]
    drive(many(int(count), float(seconds), Path(output)), Path(cache), Path(output), crashes=1000)
