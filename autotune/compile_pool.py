"""Compile many kernel configurations at once, in processes that may hang or crash without harm.

    with CompilePool(cache_dir=folder) as pool:
        for outcome in pool.map(jobs):          # in the order of the jobs
            match outcome:
                case CompileFailure(reason, detail): ...
                case resources: ...             # one Resources per kernel launch

A worker is a fresh interpreter, not a fork and not a child that imports the caller's ``__main__``. It talks
JSON lines over pipes, one job at a time; a thread per worker starts it, feeds it, kills it when a job takes too
long, and starts another. Workers are in process groups of their own: Ctrl-C reaches the caller alone, and the
assembler that a worker has started dies with it. A worker ends when its caller does, however that ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Final, cast

from autotune.module import fp_fusion, load_source
from autotune.offline import (
    DETAIL_CHARACTERS,
    Argument,
    CompileFailure,
    Meta,
    Outcome,
    Reason,
    argument_from_json,
    argument_to_json,
    check_architecture,
    outcome_from_json,
    outcome_to_json,
    remember_triton_key,
    try_compile,
    write_json,
)
from sgraph.errors import CompilationFailed

log = logging.getLogger("prism.compile")

FORMAT: Final = 1
"""Version of the cached records; raise it when their fields change meaning."""
START_LIMIT_S: Final = 120.0
"""Longest a worker may take to import Triton; separate from the time limit of a job."""
START_ATTEMPTS: Final = 3
"""How many workers in a row may fail to start before a job is given up."""


@dataclass(frozen=True)
class CompileJob:
    """One launcher call to compile."""

    source: str
    """Text of the kernel source."""
    architecture: int
    """Compute capability times ten."""
    arguments: tuple[Argument, ...]
    """What ``launch`` is called with."""
    config: Mapping[str, object]
    """Its ``config``: names to JSON values. A list reaches the launcher as a tuple."""
    name: str = "kernel"
    """For people: what the source is called in messages. Not part of the job's identity."""

    @cached_property
    def request(self) -> str:
        """The job as one line of JSON; equal jobs have equal lines.

        Raises:
            TypeError: an argument or a configuration value is not JSON.
        """
        fields = {
            "source": self.source,
            "architecture": self.architecture,
            "arguments": [argument_to_json(a) for a in self.arguments],
            "config": dict(self.config),
        }
        return json.dumps(fields, sort_keys=True)

    @cached_property
    def key(self) -> str:
        """Hash of everything that the outcome depends on."""
        environment = f"{FORMAT}\n{_triton_version()}\n{fp_fusion()}\n"
        return hashlib.sha256((environment + self.request).encode()).hexdigest()


def _tuples(value: object) -> object:
    """JSON with lists as tuples: Triton hashes compile-time arguments."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in cast(list[object], value))
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in cast(dict[str, object], value).items()}
    return value


def _triton_version() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:  # built in place, without metadata
        import triton

        return str(triton.__version__)


# ----------------------------------------------------------------------------------------------------- pool


class CompilePool:
    """Worker processes that compile jobs, and what they have answered.

    Args:
        workers: how many processes; by default one per core.
        cache_dir: folder of earlier answers, created if needed, shared by pools; None to keep none on disk.
        time_limit_s: seconds one job may take before its worker is killed.

    Outcomes are remembered by content, in memory and on disk. Timeouts and crashes say as much of the machine as
    of the job: they are remembered in memory only. Safe to use from several threads.
    """

    def __init__(
        self, workers: int | None = None, *, cache_dir: Path | None = None, time_limit_s: float = 15.0
    ) -> None:
        self._count = max(1, workers or os.cpu_count() or 1)
        self._time_limit_s = time_limit_s
        self._cache = OutcomeCache(cache_dir) if cache_dir is not None else None
        self._jobs: queue.SimpleQueue[tuple[CompileJob, Future[Outcome]] | None] = queue.SimpleQueue()
        self._futures: dict[str, Future[Outcome]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> CompilePool:
        """Start the workers in the background; returns at once."""
        for number in range(self._count):
            worker = _Worker(self._time_limit_s, self._cache.folder if self._cache else None)
            thread = threading.Thread(target=self._serve, args=(worker,), name=f"prism-compile-{number}", daemon=True)
            self._workers.append(worker)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers and cancel what has not been answered; a second call does nothing."""
        with self._lock:
            self._closed = True
            for future in self._futures.values():
                future.cancel()
        for worker in self._workers:
            worker.close()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def submit(self, job: CompileJob) -> Future[Outcome]:
        """The future outcome of a job; the same future for the same job.

        The future never holds an exception of the compiler's: failures are outcomes. Waiting for one that
        ``close`` has cancelled raises CancelledError.

        Raises:
            RuntimeError: the pool is not open.
            TypeError: the job cannot be written as JSON.
            UnknownTarget: there is no such architecture.
        """
        check_architecture(job.architecture)
        key = job.key
        with self._lock:
            known = self._known(key)
        cached = self._cache.get(key) if known is None and self._cache else None
        with self._lock:
            known = self._known(key)
            if known is not None:
                return known
            future = self._futures[key] = Future[Outcome]()
            if cached is not None:
                future.set_result(cached)
            else:
                self._jobs.put((job, future))
            return future

    def _known(self, key: str) -> Future[Outcome] | None:
        if self._closed or not self._threads:
            raise RuntimeError("the compile pool is not open: use it in a with statement")
        known = self._futures.get(key)
        return None if known is None or known.cancelled() else known

    def map(self, jobs: Iterable[CompileJob]) -> Iterator[Outcome]:
        """The outcomes of all jobs, submitted now, in order, each as soon as it and those before it are there."""
        futures = [self.submit(job) for job in jobs]
        return (future.result() for future in futures)

    def _serve(self, worker: _Worker) -> None:
        """One thread: keep a worker ready and give it one job after the other."""
        worker.prepare()
        while (entry := self._jobs.get()) is not None:
            job, future = entry
            if not future.set_running_or_notify_cancel():
                continue
            try:
                outcome = worker.compile(job)
            except Exception as error:  # a job left without an outcome would hang its caller
                log.exception("compile worker failed")
                outcome = CompileFailure(Reason.CRASH, f"{type(error).__name__}: {error}")
            if self._cache and not (isinstance(outcome, CompileFailure) and not outcome.lasting):
                self._cache.put(job.key, outcome)
            future.set_result(outcome)
            worker.prepare()  # after a crash or a timeout, before the next job asks for it
        worker.end()


class OutcomeCache:
    """Outcomes as JSON files, named by the hash of their job. A cache that cannot be used is only slower."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warned = False

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Outcome | None:
        """The recorded outcome, or None where there is none that can be read."""
        try:
            return outcome_from_json(json.loads(self._path(key).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._warn(f"cannot read {self._path(key)}: {error}")
            return None

    def put(self, key: str, outcome: Outcome) -> None:
        """Record an outcome; another process may do the same at the same time."""
        path = self._path(key)
        try:
            write_json(path, outcome_to_json(outcome))
        except OSError as error:
            self._warn(f"cannot write {path}: {error}")

    def _warn(self, message: str) -> None:
        if not self.warned:
            log.warning("compile cache: %s; further ones are not reported", message)
        self.warned = True


# ----------------------------------------------------------------------------------------- the parent's side


class _Process:
    """One worker process. Its owner thread talks to it and ends it; any thread may kill it."""

    def __init__(self, cache_dir: Path | None) -> None:
        self.ready = False
        """Whether it has said that it can take jobs."""
        # A killed process leaves its temporary files: sources, and what the assembler was reading.
        self._folder = tempfile.TemporaryDirectory(prefix="prism-compile-", ignore_cleanup_errors=True)
        self._noise: IO[bytes] = Path(self._folder.name, "stderr").open("w+b")  # noqa: SIM115  (closed by end)
        self._lock = threading.Lock()
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), str(cache_dir or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env={**os.environ, "TMPDIR": self._folder.name},
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def write(self, line: str) -> None:
        """Send one line; a dead process shows when it is read from."""
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            self._popen.stdin.write(line + "\n")
            self._popen.stdin.flush()

    def read(self, limit_s: float) -> tuple[str | None, bool]:
        """The next line, or None if the process ended first; and whether that was because the time was up."""
        assert self._popen.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self.kill()

        timer = threading.Timer(limit_s, expire)
        timer.daemon = True
        timer.start()
        try:
            line = self._popen.stdout.readline()
        finally:
            timer.cancel()
        return (line if line.endswith("\n") else None), expired.is_set()

    def position(self) -> int:
        """How much it has written to its standard error so far."""
        return self._noise.seek(0, os.SEEK_END)

    def said(self, since: int) -> str:
        """The end of what it has written to its standard error since a position."""
        self._noise.seek(max(since, self.position() - DETAIL_CHARACTERS))
        return self._noise.read().decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """Kill it and what it has started. Only before it is reaped: its number may be another's afterwards."""
        with self._lock:
            if self._popen.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._popen.pid, signal.SIGKILL)

    def end(self, patience_s: float = 0.0) -> int:
        """Wait that long for it to exit, kill what is left, reap it; its exit code, negative for a signal."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and not self._has_exited():
            time.sleep(0.02)
        self.kill()
        with self._lock:
            code = self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout, self._noise):
            if pipe is not None:
                with contextlib.suppress(OSError):  # a job half written
                    pipe.close()
        self._folder.cleanup()
        return code

    def _has_exited(self) -> bool:
        """Without reaping it: what it has started can then still be killed by its group."""
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class _Worker:
    """One thread's worker: a process, and another whenever that one has ended."""

    def __init__(self, time_limit_s: float, cache_dir: Path | None) -> None:
        self._time_limit_s = time_limit_s
        self._cache_dir = cache_dir
        self._process: _Process | None = None
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Kill the process, and start no other. From any thread."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def prepare(self) -> None:
        """Start a process if there is none; it imports Triton meanwhile."""
        with contextlib.suppress(OSError):  # if it persists, the next job says so
            self._start()

    def compile(self, job: CompileJob) -> Outcome:
        """What the process answers, or that it did not."""
        for attempt in range(1, START_ATTEMPTS + 1):
            process = self._start()
            if process is None:
                return CompileFailure(Reason.CRASH, "the compile pool was closed")
            if not process.ready:
                line, expired = process.read(START_LIMIT_S)
                process.ready = line is not None
                if not process.ready:
                    failure = self._ended(Reason.TIMEOUT if expired else Reason.CRASH, "while starting", 0)
                    log.warning("a compile worker did not start (attempt %d): %s", attempt, failure.detail)
                    continue
            return self._answer(process, job)
        return CompileFailure(Reason.CRASH, f"no compile worker starts, after {START_ATTEMPTS} attempts: see the log")

    def end(self) -> None:
        """Reap the process at the end of the thread."""
        if self._process is not None:
            self._process.end()

    def _start(self) -> _Process | None:
        with self._lock:
            if self._process is None and not self._closed:
                self._process = _Process(self._cache_dir)
            return None if self._closed else self._process

    def _answer(self, process: _Process, job: CompileJob) -> Outcome:
        before = process.position()
        process.write(json.dumps({"name": job.name, "request": job.request}))
        line, expired = process.read(self._time_limit_s)
        if line is None:
            if expired:
                return self._ended(Reason.TIMEOUT, f"after {self._time_limit_s:g} s", before)
            return self._ended(Reason.CRASH, "while compiling", before)
        outcome = outcome_from_json(json.loads(line))
        said = process.said(before)
        if isinstance(outcome, CompileFailure) and said:
            return CompileFailure(outcome.reason, f"{outcome.detail}\n{said}")
        return outcome

    def _ended(self, reason: Reason, when: str, since: int) -> CompileFailure:
        """The failure that the end of the process is, with what it said last."""
        with self._lock:
            process, self._process = self._process, None
        assert process is not None
        said = process.said(since)
        code = process.end(patience_s=0.0 if reason is Reason.TIMEOUT else 2.0)
        ending = f"was killed {when}"
        if reason is Reason.CRASH:
            ending = f"died {when}: {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"
        return CompileFailure(reason, f"the compile process {ending}\n{said}".rstrip())


# ----------------------------------------------------------------------------------------- the worker's side

_BOOTSTRAP: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from autotune.compile_pool import serve
serve(sys.argv[2])
"""


def serve(cache_dir: str) -> None:
    """The worker's main loop: jobs on standard input, outcomes on standard output, nothing else on either."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a compiler that aborts must not fill the disk
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # Triton prints PTX there
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()

    _warm_up(Path(cache_dir) if cache_dir else None)
    print("ready", file=replies, flush=True)
    while True:
        print(json.dumps(outcome_to_json(_compile(requests.get()))), file=replies, flush=True)


def _read_requests(requests: queue.SimpleQueue[str]) -> None:
    """Pass jobs on; when the caller is gone, end this process and what it has started, whatever it is doing."""
    for line in sys.stdin:
        requests.put(line)
    os.killpg(os.getpgrp(), signal.SIGKILL)


_FIRST_SOURCE: Final = """
import triton
import triton.language as tl


@triton.jit
def first(y_ptr):
    tl.store(y_ptr, 0.0)


def launch(y, *, config=None):
    first[(1,)](y)
"""


def _warm_up(cache_dir: Path | None) -> None:
    """Compile once, so that what only the first compilation of a process does is on no job's clock."""
    import torch

    torch.set_num_threads(1)
    if cache_dir is not None:
        with contextlib.suppress(OSError):  # a folder that cannot be used: the parent reports it
            remember_triton_key(cache_dir / "triton-key.json")
    try_compile(load_source(_FIRST_SOURCE, "first"), 80, [Meta((1,), "float32")], {})


def _compile(line: str) -> Outcome:
    message = json.loads(line)
    job = json.loads(message["request"])
    arguments: Sequence[Argument] = [argument_from_json(a) for a in job["arguments"]]
    config = cast(dict[str, object], _tuples(job["config"]))
    try:
        module = load_source(job["source"], message["name"])
    except CompilationFailed as error:
        return CompileFailure(Reason.SOURCE, str(error))
    except SystemExit as error:
        return CompileFailure(Reason.SOURCE, f"the kernel source exits: {error}")
    try:
        return try_compile(module, job["architecture"], arguments, config)
    except (Exception, SystemExit) as error:
        return CompileFailure(Reason.LAUNCHER, f"{type(error).__name__}: {error}")
