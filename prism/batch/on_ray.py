"""Workers as actors of a Ray cluster: one per GPU where the cluster has some, else one per CPU asked for.

Ray is optional (``pip install "prism-superoptimizer[ray]"``). Tasks and outcomes travel by value, so the machines need
no common disk; they need the same files under the same paths, and the same Prism.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from prism.batch.executor import Work
from prism.batch.local import attempt
from prism.batch.task import Crashed, Done, Failed, Outcome, Task
from sgraph.errors import MissingDependency

START_S: Final = 120.0
"""How long the cluster may take to give the first worker."""


class _Actor:
    """Runs in a Ray worker."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def run(self, task: Task) -> Outcome:
        """One task."""
        return attempt(self.work, task)


@dataclass(slots=True)
class _Worker:
    actor: Any
    """A handle of Ray's."""
    task: Task | None = None
    result: Any = None
    """Reference to the outcome of its task."""
    deadline: float = 0.0


class RayExecutor:
    """Actors of a Ray cluster (see ``prism.batch.executor``)."""

    def __init__(self, work: Work, workers: int) -> None:
        self._ray = _ray()
        self._own = not self._ray.is_initialized()
        if self._own:  # RAY_ADDRESS names a cluster; without it one is started on this machine
            self._ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._work = work
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        self._each: dict[str, float] = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": 1}
        self._workers = [self._start() for _ in range(min(workers, gpus) if gpus else workers)]

    @property
    def free(self) -> int:
        """How many actors have no task."""
        return sum(w.task is None for w in self._workers)

    def submit(self, task: Task) -> None:
        """Give the task to a free actor."""
        worker = next(w for w in self._workers if w.task is None)
        worker.task, worker.deadline = task, time.monotonic() + START_S + task.budget_s
        worker.result = worker.actor.run.remote(task)

    def wait(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """What has ended; an actor that died or overran its budget is replaced."""
        busy = [w for w in self._workers if w.task is not None]
        if not busy:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait([w.result for w in busy], num_returns=1, timeout=seconds)
        ended: list[tuple[Task, Outcome]] = []
        for place, worker in enumerate(self._workers):
            if worker.task is None:
                continue
            outcome: Outcome | None = None
            if worker.result in ready:
                outcome = self._outcome(worker)
            elif time.monotonic() >= worker.deadline:
                outcome = Failed(f"not done within its budget of {worker.task.budget_s:g} s")
                self._ray.kill(worker.actor)
            if outcome is None:
                continue
            ended.append((worker.task, outcome))
            if isinstance(outcome, Done) or (worker.result in ready and not isinstance(outcome, Crashed)):
                worker.task = worker.result = None
            else:
                self._workers[place] = self._start()
        return ended

    def stop(self) -> None:
        """End every actor; a cluster that was started here too."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers = []
        if self._own and self._ray.is_initialized():
            self._ray.shutdown()

    def _outcome(self, worker: _Worker) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(worker.result)
        except self._ray.exceptions.RayError as error:
            return Crashed(f"its worker ended: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
        return outcome

    def _start(self) -> _Worker:
        return _Worker(self._ray.remote(**self._each)(_Actor).remote(self._work))


def _ray() -> Any:  # an optional package, not there when types are checked
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingDependency(
            "the executor ray needs Ray, which is not installed", do='pip install "prism-superoptimizer[ray]"'
        ) from error
