"""Progress of a search: one live line on a terminal, nothing elsewhere; and a Ctrl-C that keeps what was found."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    """What the search is doing now. Stages update it; a terminal may show it."""

    def __init__(self, *, live: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        """Wall time by stage, in order."""
        self.stop_requested = False
        """Whether the first Ctrl-C came: finish the candidate in hand and return the best so far."""
        self._facts: dict[str, str] = {}
        self._phase = ""
        self._live = live
        self._status: Status | None = None

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time one stage and show its name."""
        self._phase = name
        self._show()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def update(self, **facts: object) -> None:
        """Note figures for the live line: ``families=12, proved=3``."""
        self._facts.update({name.replace("_", " "): str(value) for name, value in facts.items()})
        self._show()

    def line(self) -> str:
        """The live line: phase and figures."""
        figures = ", ".join(f"{name} {value}" for name, value in self._facts.items())
        return f"{self._phase}: {figures}" if figures else self._phase

    def _show(self) -> None:
        if self._status is not None:
            self._status.update(self.line())

    @contextmanager
    def shown(self) -> Generator[Progress]:
        """Show the live line for the length of a block, on a terminal only, and take the first Ctrl-C."""
        with self._interruptible():
            if not (self._live and sys.stderr.isatty()):
                yield self
                return
            from rich.console import Console

            with Console(stderr=True).status("starting") as status:
                self._status = status
                try:
                    yield self
                finally:
                    self._status = None

    def raising(self) -> AbstractContextManager[None]:
        """Inside the block Ctrl-C raises at once, for work that keeps what it has when that happens."""
        return _on_interrupt(signal.default_int_handler)

    def _interruptible(self) -> AbstractContextManager[None]:
        def first(_signal: int, _frame: FrameType | None) -> None:
            self.stop_requested = True
            self.update(stopping="after this candidate (Ctrl-C again: at once)")
            signal.signal(signal.SIGINT, signal.default_int_handler)

        return _on_interrupt(first)


@contextmanager
def _on_interrupt(handler: Callable[[int, FrameType | None], object]) -> Generator[None]:
    """Ctrl-C goes to this handler inside the block; only the main thread can say so, others change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
