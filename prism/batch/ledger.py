"""The ledger of a batch: which task is in which state, in the store's file.

A task is ``pending``, ``running`` under an owner with a lease, or ended: ``done``, ``failed`` (trying again would end
alike) or ``quarantined`` (its workers crashed too often). A result and the state of its task are one transaction: what
is recorded is whole, survives the process and the machine, and is not done again.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from prism.batch.task import Done, Failed, Task
from prism.saved import SOURCES
from prism.store.database import reading, typed, writing
from prism.store.key import Key, fields_from
from prism.store.store import Store
from sgraph.errors import BatchError

LEASE_S: Final = 60.0
"""A task whose owner has not been heard of for this long is taken over."""
ENDED: Final = frozenset({"done", "failed", "quarantined"})
_KINDS: Final = (str, int, str, str, float, int, str, str, float)


@dataclass(frozen=True, slots=True)
class Row:
    """A task in the ledger."""

    task: str
    """Its name."""
    place: int
    """In the order of the job file."""
    state: str
    """``pending``, ``running``, ``done``, ``failed`` or ``quarantined``."""
    owner: str
    """Who runs it: host, process and start of that process; empty if nobody does."""
    lease_s: float
    """Until when, seconds since 1970."""
    crashes: int
    """Workers that ended under it."""
    reason: str
    """Of a failure or of the last crash."""
    result: str
    """Summary of what was found, as JSON."""
    seconds: float
    """Wall time of the run that ended it."""


class Ledger:
    """The tasks of one job."""

    def __init__(self, store: Store, job: str) -> None:
        self.store = store
        """Where the ledger and the results are."""
        self.job = job
        """Hash of the job's tasks."""
        self.owner = owner_of(os.getpid())
        """This process, as an owner."""

    def start(self, tasks: Sequence[Task], *, resume: bool) -> None:
        """Enter the tasks, or go on with those that were entered before.

        Raises:
            BatchError: the job was started before and ``resume`` is False.
        """
        text = json.dumps([asdict(t) for t in tasks], sort_keys=True)
        connection = self.store.connection
        with writing(connection, self.store.path):
            known = connection.execute("SELECT text FROM jobs WHERE job = ?", (self.job,)).fetchone()
            if known is None:
                connection.execute("INSERT INTO jobs VALUES (?, ?, ?)", (self.job, text, time.time()))
                connection.executemany(
                    "INSERT INTO tasks VALUES (?, ?, ?, 'pending', '', 0.0, 0, '', '', 0.0)",
                    [(self.job, t.name, place) for place, t in enumerate(tasks)],
                )
        if known is not None and not resume:
            ended = sum(r.state in ENDED for r in self.rows())
            raise BatchError(
                f"this job was started before; {ended} of its {len(tasks)} tasks have ended",
                do="--resume goes on with it, --restart forgets what it has done",
            )

    def forget(self) -> None:
        """Remove the job; results stay in the store.

        Raises:
            BatchError: another process is working on it.
        """
        alive = [r for r in self.rows() if r.state == "running" and r.owner != self.owner and not _gone(r.owner)]
        if alive and alive[0].lease_s > time.time():
            raise BatchError(f"{alive[0].owner} is working on this job", do="wait for it, or stop it")
        with writing(self.store.connection, self.store.path):
            self.store.connection.execute("DELETE FROM jobs WHERE job = ?", (self.job,))

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state."""
        with reading(self.store.path):
            found = self.store.connection.execute(
                "SELECT state, count(*) FROM tasks WHERE job = ? GROUP BY state", (self.job,)
            ).fetchall()
        return dict(found)

    def rows(self, state: str = "", most: int = -1) -> tuple[Row, ...]:
        """Every task, in the order of the job file; or those in a state, or the first of them."""
        with reading(self.store.path):
            found = self.store.connection.execute(
                "SELECT task, place, state, owner, lease_s, crashes, reason, result, seconds FROM tasks "
                "WHERE job = ? AND (? = '' OR state = ?) ORDER BY place LIMIT ?",
                (self.job, state, state, most),
            ).fetchall()
        for row in found:
            typed(row, _KINDS, self.store.path)
        return tuple(Row(*row) for row in found)

    def claim(self, count: int) -> list[str]:
        """Take up to this many tasks that nobody has; their names, in order.

        A running task is taken over where its lease has ended, or its owner was a process of this machine that is gone.
        """
        connection, now = self.store.connection, time.time()
        with writing(connection, self.store.path):
            left = [r.task for r in self.rows("running") if r.lease_s < now or _gone(r.owner)]
            free = [*left, *(r.task for r in self.rows("pending", count))][:count]
            connection.executemany(
                "UPDATE tasks SET state = 'running', owner = ?, lease_s = ? WHERE job = ? AND task = ?",
                [(self.owner, now + LEASE_S, self.job, task) for task in free],
            )
        return free

    def beat(self) -> None:
        """Extend the leases of everything this process runs."""
        connection = self.store.connection
        with writing(connection, self.store.path):
            connection.execute(
                "UPDATE tasks SET lease_s = ? WHERE job = ? AND owner = ? AND state = 'running'",
                (time.time() + LEASE_S, self.job, self.owner),
            )

    def end(self, task: str, outcome: Done | Failed, seconds: float) -> bool:
        """Record how a task ended, its result with it; False if somebody else has taken the task over."""
        connection = self.store.connection
        reason = outcome.reason if isinstance(outcome, Failed) else ""
        result = json.dumps(outcome.summary, sort_keys=True) if isinstance(outcome, Done) else ""
        state = "done" if isinstance(outcome, Done) else "failed"
        with writing(connection, self.store.path):
            changed = connection.execute(
                "UPDATE tasks SET state = ?, owner = '', lease_s = 0.0, reason = ?, result = ?, seconds = ? "
                "WHERE job = ? AND task = ? AND state = 'running' AND owner = ?",
                (state, reason, result, seconds, self.job, task, self.owner),
            ).rowcount
            if changed and isinstance(outcome, Done) and outcome.stored is not None:
                found = outcome.stored
                files = {name: data for name, data in found.files.items() if name not in SOURCES}
                key = Key(found.program, fields_from(found.fields))
                self.store.insert(key, found.target, found.manifest, files, complete=True)
        return changed == 1

    def crash(self, task: str, reason: str, most: int) -> bool:
        """Record that a task's worker died; True if that was once too often and the task is quarantined."""
        connection = self.store.connection
        with writing(connection, self.store.path):
            connection.execute(
                "UPDATE tasks SET crashes = crashes + 1, reason = ?, owner = '', lease_s = 0.0, "
                "state = CASE WHEN crashes + 1 >= ? THEN 'quarantined' ELSE 'pending' END "
                "WHERE job = ? AND task = ? AND owner = ?",
                (reason, most, self.job, task, self.owner),
            )
        with reading(self.store.path):
            found = connection.execute(
                "SELECT state FROM tasks WHERE job = ? AND task = ?", (self.job, task)
            ).fetchone()
        return found == ("quarantined",)

    def release(self) -> None:
        """Give back everything that this process runs."""
        connection = self.store.connection
        with writing(connection, self.store.path):
            connection.execute(
                "UPDATE tasks SET state = 'pending', owner = '', lease_s = 0.0 "
                "WHERE job = ? AND owner = ? AND state = 'running'",
                (self.job, self.owner),
            )


def owner_of(process: int) -> str:
    """A process of this machine as an owner; process numbers are used again, so its start is part of it."""
    return f"{platform.node()} {process} {_started(process)}"


def _gone(owner: str) -> bool:
    """Whether an owner was a process of this machine that has ended."""
    host, _, rest = owner.rpartition(" ")[0].rpartition(" ")
    started = owner.rpartition(" ")[2]
    return host == platform.node() and rest.isdigit() and _started(int(rest)) != started


def _started(process: int) -> str:
    """When a process of this machine started, in the system's ticks; ``ended`` where there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        try:
            os.kill(process, 0)
        except OSError:
            return "ended"
        return "unknown"  # a system without /proc
    fields = text.rpartition(")")[2].split()
    return "ended" if fields[0] in {"Z", "X"} else fields[19]
