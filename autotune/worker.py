"""A process that runs what may crash, hang or exhaust memory; losing it loses the request in hand and no more.

The process is given a **service** by name (``package.module:function``) with plain arguments; the function returns an
object with ``handle(request)``. A request that ends badly becomes a ``Lost`` with its reason, and the next request
finds a fresh process. Requests and answers are pickled over a private socket: both ends are ours.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Protocol, Self, cast

log = logging.getLogger("prism.worker")

START_S: Final = 120.0
"""How long a process may take to import and to build its service."""
_MAIN: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from autotune.worker import serve; serve(int(sys.argv[1]))"
)


class Service(Protocol):
    """What a process does with requests."""

    def handle(self, request: Any) -> Any:
        """The answer; an exception is a ``Lost`` at the other end, and ends the process."""
        ...


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that has no answer."""

    reason: str
    """``crashed (signal 11)``, ``no answer within 30 s``, ``out of memory``, or what was raised."""


@dataclass(frozen=True, slots=True)
class _Raised:
    reason: str


class Worker:
    """One process at a time with one service; a context manager, so that the process ends."""

    def __init__(self, service: str, *arguments: object, limit_s: float = 60.0, start_s: float = START_S) -> None:
        self.service = service
        self.arguments = arguments
        self.limit_s = limit_s
        self.start_s = start_s
        self.started = 0
        """Processes started so far."""
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None else None

    def ask(self, request: object) -> Any | Lost:
        """The service's answer, or why there is none."""
        try:
            answer = self._start() if self._line is None else "ready"
            if not isinstance(answer, Lost | _Raised):
                assert self._line is not None
                _send(self._line, request)
                answer = self._receive(self.limit_s)
        except (EOFError, OSError):
            answer = Lost(self._ending())
        if isinstance(answer, _Raised):
            answer = Lost(answer.reason)
        if isinstance(answer, Lost):
            log.info("a request was lost: %s", answer.reason)
            self.close()
        return answer

    def close(self) -> None:
        """End the process."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        self._line = self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> Any:
        ours, theirs = socket.socketpair()
        # A flag, not the entry of the script that runs now: a user's script need not guard its main part.
        command = [sys.executable, "-c", _MAIN, str(theirs.fileno()), json.dumps(sys.path)]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._line = Connection(ours.detach())
        self.started += 1
        _send(self._line, (self.service, self.arguments))
        return self._receive(self.start_s)

    def _receive(self, seconds: float) -> Any:
        assert self._line is not None
        if not self._line.poll(seconds):
            return Lost(f"no answer within {seconds:g} s")
        return _received(self._line)

    def _ending(self) -> str:
        """How the process ended."""
        if self._process is None:
            return "the process did not start"
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the process stopped answering"
        if code >= 0:
            return f"crashed (exit code {code})"
        return f"crashed ({signal.Signals(-code).name})"


def serve(descriptor: int) -> None:
    """The other end of ``Worker``: build the service, answer requests until the line closes or one raises."""
    line = Connection(descriptor)
    name, arguments = cast("tuple[str, tuple[object, ...]]", _received(line))
    module, function = name.split(":")
    try:
        build = cast("Callable[..., Service]", getattr(importlib.import_module(module), function))
        service = build(*arguments)
    except Exception as error:
        _send(line, _Raised(_reason(error)))
        return
    _send(line, "ready")
    while True:
        try:
            request = _received(line)
        except (EOFError, OSError):
            return
        try:
            _send(line, service.handle(request))
        except Exception as error:
            # After an error on a device its context may be unusable: the next request gets a fresh process.
            _send(line, _Raised(_reason(error)))
            return


def _send(line: Connection, item: object) -> None:
    # Plain pickle: torch teaches the connection's own to share memory, which needs more than a line between processes.
    line.send_bytes(pickle.dumps(item))


def _received(line: Connection) -> Any:
    return pickle.loads(line.recv_bytes())


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "out of memory"
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}"[:300] if text else type(error).__name__


# -------------------------------------------------------------------------------------------------- services


class Replaying:
    """A recorded landscape as a service, with accidents that are real: for tests of what survives them."""

    def __init__(self, path: str, accidents: dict[tuple[int, ...], str], seconds: float = 0.0) -> None:
        from pathlib import Path

        from autotune.landscape import Replay, read_landscape

        self.device = Replay(read_landscape(Path(path)))
        self.accidents = accidents
        self.seconds = seconds

    def handle(self, request: tuple[int, ...]) -> object:
        """Seconds of a point; or the process crashes, hangs or runs out of memory."""
        time.sleep(self.seconds)
        match self.accidents.get(request):
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(3600)
            case "out of memory":
                raise MemoryError
            case _:
                pass
        return self.device.measure(request)
