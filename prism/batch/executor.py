"""What a set of workers is: three methods, whatever the workers are.

A worker does one task at a time and may die at any moment; the executor then says so and has a new one. Which task
runs again, and how often, is for the driver to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from prism.batch.task import Done, Failed, Outcome, Task

Work = Callable[[Task], Done | Failed]
"""What a worker does with a task: a function of a module, found by its name in the worker's process."""


class Executor(Protocol):
    """Workers that do tasks."""

    @property
    def free(self) -> int:
        """How many further tasks would start at once."""
        ...

    def submit(self, task: Task) -> None:
        """Start a task; there must be a free worker."""
        ...

    def wait(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """What has ended, waiting up to this long for the first; every submitted task appears once."""
        ...

    def stop(self) -> None:
        """End every worker and what it runs. Tasks in hand appear no more."""
        ...
