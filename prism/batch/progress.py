"""What a batch shows and records while it runs: one live table on a terminal, plain lines elsewhere, and a log of
events as JSON lines.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prism.batch.ledger import ENDED

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

STATES = ("done", "failed", "quarantined", "running", "pending")


class EventLog:
    """One JSON object per line, each written at once, so that a killed batch leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """The file; later runs of the same job append to it."""
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, task: str = "", **facts: object) -> None:
        """Append an event with the time."""
        line = json.dumps({"time_s": round(time.time(), 3), "event": event, "task": task, **facts})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class View:
    """What a person sees."""

    def __init__(self, say: Callable[[str], None] | None, total: int) -> None:
        self._say = say
        self._total = total
        self._live: Live | None = None
        self._counts: Counter[str] = Counter()
        self._running: dict[str, float] = {}

    @contextmanager
    def shown(self) -> Generator[View]:
        """Show the live table for the length of a block, on a terminal only."""
        if self._say is None or not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), refresh_per_second=4) as live:
            self._live = live
            yield self
        self._live = None

    def update(self, counts: Mapping[str, int], running: Sequence[str]) -> None:
        """Show how far the batch is: tasks by state, and those in hand."""
        self._counts = Counter(counts)
        self._running = {name: self._running.get(name, time.monotonic()) for name in running}
        if self._live is not None:
            self._live.update(self._table())

    def line(self, text: str) -> None:
        """Say what happened, where there is no live table to say it."""
        if self._say is None:
            return
        ended = sum(self._counts[state] for state in ENDED)
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            self._say(f"[{ended}/{self._total}] {text}")

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row("tasks", ", ".join(f"{self._counts[s]} {s}" for s in STATES if self._counts[s]))
        for name, since in self._running.items():
            table.add_row("now", f"{name} ({time.monotonic() - since:.0f} s)")
        return table
