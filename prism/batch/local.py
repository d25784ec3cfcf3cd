"""Workers as processes of this machine: one task each, ended with everything they started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from prism.batch.executor import Work
from prism.batch.task import Crashed, Failed, Outcome, Task
from sgraph.errors import PrismError

WATCH_S: Final = 0.5
"""How often a worker looks whether its driver is alive."""


@dataclass(slots=True)
class _Worker:
    """One process and the task it has."""

    process: BaseProcess
    connection: Connection
    task: Task | None = None
    deadline: float = 0.0


class LocalExecutor:
    """Processes of this machine (see ``prism.batch.executor``)."""

    def __init__(self, work: Work, workers: int) -> None:
        assert workers >= 1
        self._work = work
        self._context = multiprocessing.get_context("spawn")  # workers use threads, torch and CUDA: never forked
        self._workers = [self._start() for _ in range(workers)]

    @property
    def free(self) -> int:
        """How many workers have no task."""
        return sum(w.task is None for w in self._workers)

    def submit(self, task: Task) -> None:
        """Give the task to a free worker."""
        place, worker = next((i, w) for i, w in enumerate(self._workers) if w.task is None)
        if not worker.process.is_alive():  # it died without a task: nobody's fault
            self._end(worker)
            worker = self._workers[place] = self._start()
        worker.task, worker.deadline = task, time.monotonic() + task.budget_s
        with suppress(OSError):  # a worker that died just now is noticed by ``wait``
            worker.connection.send(task)

    def wait(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """What has ended; a worker that died or overran its budget is replaced."""
        busy = [w for w in self._workers if w.task is not None]
        left = min((w.deadline - time.monotonic() for w in busy), default=seconds)
        ready = wait([w.connection for w in busy], max(0.0, min(seconds, left))) if busy else []
        if not busy:
            time.sleep(seconds)
        ended: list[tuple[Task, Outcome]] = []
        for place, worker in enumerate(self._workers):
            if worker.task is None:
                continue
            outcome = self._outcome(worker, ready)
            if outcome is None and time.monotonic() >= worker.deadline:
                outcome = Failed(f"not done within its budget of {worker.task.budget_s:g} s")
                self._end(worker)
            if outcome is None:
                continue
            ended.append((worker.task, outcome))
            worker.task = None
            if not worker.process.is_alive():
                self._workers[place] = self._start()
        return ended

    def stop(self) -> None:
        """End every worker and what it started."""
        for worker in self._workers:
            self._end(worker)
        self._workers = []

    def _outcome(self, worker: _Worker, ready: Sequence[object]) -> Outcome | None:
        if worker.connection not in ready:
            return None
        try:
            outcome: Outcome = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            reason = _ending(worker.process.exitcode)
            self._end(worker)
            return Crashed(reason)
        return outcome

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work, os.getpid()), daemon=False)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _end(self, worker: _Worker) -> None:
        # The worker leads a process group of its own: compilers and engines that it started go with it.
        assert worker.process.pid is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _ending(code: int | None) -> str:
    if code is None:
        return "its worker does not answer"
    if code < 0:
        with suppress(ValueError):
            return f"its worker was ended by {signal.Signals(-code).name}"
    return f"its worker ended with exit code {code}"


def _serve(connection: Connection, work: Work, driver: int) -> None:
    """A worker's process: tasks in, outcomes out, until there is no driver."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver to act on
    threading.Thread(target=_watch, args=(driver,), daemon=True).start()
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        outcome = attempt(work, task)
        try:
            connection.send(outcome)
        except OSError:
            return


def attempt(work: Work, task: Task) -> Outcome:
    """The task's outcome in this process; an exception is a failure with its words."""
    try:
        return work(task)
    except PrismError as error:
        return Failed(f"{type(error).__name__}: {error}")
    except Exception as error:  # whatever a user's function raises is that task's failure alone
        return Failed(f"{type(error).__name__}: {error}")


def _watch(driver: int) -> None:
    """End this process and what it started once its driver is gone."""
    while os.getppid() == driver:
        time.sleep(WATCH_S)
    os.killpg(0, signal.SIGKILL)
