"""The driver of a batch: claims tasks, hands them to workers, records what comes back.

The driver is the only one who writes to the store. It may be killed at any moment: what is recorded stays, what was
running runs again (``prism batch --resume``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prism.batch.executor import Executor
from prism.batch.ledger import LEASE_S, Ledger, Row
from prism.batch.progress import EventLog, View
from prism.batch.task import Crashed, Done, Failed, Outcome, Stored, Task
from prism.result import write_files

WAIT_S: Final = 0.5
"""How long the driver waits for a worker before it looks around."""


@dataclass(slots=True)
class Driver:
    """One run of the driver over a job's tasks."""

    ledger: Ledger
    """What is done."""
    tasks: dict[str, Task]
    """Every task of the job, by name."""
    executor: Executor
    """The workers."""
    crashes: int
    """Workers that may end under a task until it is quarantined."""
    events: EventLog
    """For the record."""
    view: View
    """For a person."""
    stop: Callable[[], bool] = lambda: False
    """Asked before tasks are claimed; True ends the batch once the tasks in hand have ended."""

    def run(self) -> tuple[Row, ...]:
        """Work until nothing is left to claim; every task's row, in the order of the job file."""
        started: dict[str, float] = {}
        beaten = time.monotonic()
        self.events.write("batch started", tasks=len(self.tasks), owner=self.ledger.owner)
        try:
            while True:
                free = 0 if self.stop() else self.executor.free
                for name in self.ledger.claim(free) if free else []:
                    started[name] = time.monotonic()
                    self.events.write("task started", name)
                    self.executor.submit(self.tasks[name])
                self.view.update(self.ledger.counts(), list(started))
                if not started:
                    break
                for task, outcome in self.executor.wait(WAIT_S):
                    text = self._ended(task, outcome, time.monotonic() - started.pop(task.name))
                    self.view.update(self.ledger.counts(), list(started))
                    self.view.line(f"{task.name}: {text}")
                if time.monotonic() - beaten > LEASE_S / 4:
                    self.ledger.beat()
                    beaten = time.monotonic()
        finally:
            self.executor.stop()
            self.ledger.release()
        rows = self.ledger.rows()
        self.events.write("batch ended", states={s: sum(r.state == s for r in rows) for s in {r.state for r in rows}})
        return rows

    def _ended(self, task: Task, outcome: Outcome, seconds: float) -> str:
        """Record how a task ended; in a few words."""
        took = round(seconds, 3)
        match outcome:
            case Crashed(reason):
                quarantined = self.ledger.crash(task.name, reason, self.crashes)
                what = "quarantined" if quarantined else "crashed"
                self.events.write(f"task {what}", task.name, reason=reason, seconds=took)
                return f"{what}: {reason}"
            case Failed(reason):
                self.ledger.end(task.name, outcome, seconds)
                self.events.write("task failed", task.name, reason=reason, seconds=took)
                return f"failed: {reason.splitlines()[0]}"
            case Done(summary, stored):
                if stored is not None:
                    save_by_value(stored, Path(task.folder))
                if not self.ledger.end(task.name, outcome, seconds):
                    self.events.write("task taken over", task.name, seconds=took)
                    return "done, but another driver had taken it over: not recorded twice"
                self.events.write("task done", task.name, seconds=took, **summary)
                return f"{_shown(summary)} ({seconds:.1f} s)"


def save_by_value(stored: Stored, folder: Path) -> None:
    """Write a run that came from a worker to its folder; the manifest last."""
    from prism.saved import MANIFEST

    write_files(folder, {n: d.decode() for n, d in stored.files.items()} | {MANIFEST: stored.manifest.decode()})


def _shown(summary: dict[str, object]) -> str:
    best, measured, modelled = (summary.get(n) for n in ("best", "measured_us", "modelled_us"))
    if not best:
        return str(summary.get("status", "done"))
    if isinstance(measured, float):
        return f"{best}, {measured:.1f} us measured"
    return f"{best}, {modelled:.1f} us modelled" if isinstance(modelled, float) else str(best)


def left(rows: Sequence[Row]) -> int:
    """How many tasks have not ended."""
    return sum(r.state in {"pending", "running"} for r in rows)
