"""Equality saturation in a guarded child process.

The engine has no limits of its own: one step can allocate all memory or run for a minute, and then it aborts the
process. So it runs in a child that imports little but the engine, is started once and used for many calls, has a
memory limit of its own, and is killed by the parent at the deadline. Sizes are checked between steps. Engine
runs are deterministic; when a step kills the child, the run is repeated in a new child up to the step before,
and that table is returned as truncated.

Parent and child exchange JSON over a pipe: an egglog program one way, rows of integers the other way.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any, Final, cast

from rewrites.language import COUNTED, EXPORTED, Rows, decode, encode, preamble
from rewrites.rules import RULES, Rule
from rewrites.table import Table
from sgraph.errors import SaturationFailed
from sgraph.expr import Expr, Op, walk

log = logging.getLogger("prism.rewrites.saturate")

LARGEST_SUM: Final = 6
"""Sums of more terms keep their association: regrouping n terms costs about 3^n nodes."""
START_SECONDS: Final = 120.0
"""How long a child may take to import the engine."""
_STOP: Final = 0.75
"""Share of the time limit after which a run opens no further step, so that there is time for the export."""
_START_AND_EXPORT_SECONDS: Final = 5.0
"""Allowance for a repeated run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one saturation may use."""

    e_nodes: int = 60_000
    """Largest table, in nodes of the engine; a commuted product counts as another node there."""
    seconds: float = 20.0
    """Wall time of a run, not counting the start of the child. A step that is cut off costs a repeated run."""
    memory_bytes: int = 4 << 30
    """What the engine may allocate on top of what its process maps at start."""


def saturate(
    values: Sequence[Expr],
    seeds: Sequence[tuple[Expr, Expr]] = (),
    rules: Sequence[Rule] = RULES,
    limits: Limits | None = None,
) -> Table:
    """The table of everything the rules make equal to the values and their parts.

    Args:
        values: what to saturate, such as a program's outputs.
        seeds: pairs of a part of a value, or of another seed, and an expression that equals it. The caller has
            proved them.
        rules: what to rewrite with. A rule that is not in ``RULES`` is checked first.
        limits: where to stop; a table that a limit cut short is sound and says ``truncated``.

    Raises:
        SaturationFailed: a rule is not right, or the child died before it had any table.
    """
    _require_checked(rules)
    limits = limits or Limits()
    begin = time.monotonic()
    statement, encoding = encode(values, seeds)
    everything = [*values, *itertools.chain.from_iterable(seeds)]
    program = _Program(preamble(_without_large_sums(rules, everything)), statement)
    with _lock:
        outcome, whole = _saturate_guarded(program, limits)
    assert outcome.rows is not None
    seconds = time.monotonic() - begin
    log.debug("saturated in %d steps, %.3f s, complete: %s", outcome.steps, seconds, whole)
    return decode(outcome.rows, encoding, truncated=not whole, seconds=seconds, steps=outcome.steps)


def warm_up() -> None:
    """Starts the child without waiting for it, so that its imports overlap with other work."""
    with _lock:
        _current_worker()


def shut_down() -> None:
    """Ends the child, if there is one. The next call starts another."""
    global _worker  # noqa: PLW0603 - one child per process
    with _lock:
        if _worker is not None:
            _worker.kill()
            _worker = None


def _require_checked(rules: Sequence[Rule]) -> None:
    """Checks the rules that are not ours; ours are checked with the tests."""
    foreign = [rule for rule in rules if rule not in RULES]
    if foreign:
        from rewrites.check import require

        for rule in foreign:
            require(rule)


def _without_large_sums(rules: Sequence[Rule], values: Sequence[Expr]) -> list[Rule]:
    """The rules, without regrouping of sums if one of the values has a sum of many terms."""
    terms: dict[Expr, int] = {}
    for part in walk(values):
        terms[part] = sum(terms[a] for a in part.args) if part.op is Op.ADD else 1
    if max(terms.values(), default=0) <= LARGEST_SUM:
        return list(rules)
    log.info("a sum has more than %d terms: sums keep their association", LARGEST_SUM)
    return [rule for rule in rules if rule.name != "add-assoc"]


# ------------------------------------------------------------------------------------------ the parent's side


@dataclass(frozen=True, slots=True)
class _Program:
    """An egglog program in two parts; an engine with the first part loaded is used again."""

    rules: str
    values: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one run of the engine ended."""

    rows: Rows | None
    """The exported functions; None where there is no table."""
    steps: int
    """Rounds after which a table within the limits exists; -1 if there is none."""
    saturated: bool = False
    """Whether the last round found nothing new."""
    reason: str = ""
    """Why there are no rows."""


def _saturate_guarded(program: _Program, limits: Limits) -> tuple[_Outcome, bool]:
    """One run, repeated up to the last good step if it went over a limit; and whether it was complete."""
    begin = time.monotonic()
    outcome = _run(program, limits, None, limits.seconds)
    if outcome.rows is not None:
        return outcome, outcome.saturated
    first, steps = outcome.reason, outcome.steps
    # The same steps take about the same time again; a new child and the export come on top.
    grace = _START_AND_EXPORT_SECONDS + 2 * (time.monotonic() - begin)
    while steps >= 0:
        log.warning("saturation stopped after %d steps: %s", steps, outcome.reason)
        outcome = _run(program, limits, steps, grace)
        if outcome.rows is not None:
            return outcome, False
        steps = min(outcome.steps, steps - 1)
    raise SaturationFailed(
        f"the rewrite engine ended without a table: {first}"
        + (f"; when repeated: {outcome.reason}" if outcome.reason != first else ""),
        where="rewrites.saturate",
        do="raise Limits (seconds, memory_bytes, e_nodes), or optimize the program in parts",
    )


def _run(program: _Program, limits: Limits, steps: int | None, seconds: float) -> _Outcome:
    """Sends one program to the child and waits for its rows; kills the child when the time is over."""
    worker = _current_worker()
    worker.wait_until_ready()
    deadline = time.monotonic() + seconds
    request = {
        "rules": program.rules,
        "values": program.values,
        "e_nodes": limits.e_nodes,
        "seconds": _STOP * limits.seconds,
        "memory_bytes": limits.memory_bytes,
        "steps": steps,
    }
    done = -1
    try:
        worker.send(request)
        while True:
            reply = worker.receive(deadline)
            match reply:
                case {"step": int(done)}:
                    continue
                case {"rows": dict(rows), "steps": int(count), "saturated": bool(saturated)}:
                    return _Outcome(cast(Rows, rows), count, saturated)
                case {"over": str(reason)}:
                    return _Outcome(None, done - 1, reason=reason)
                case _:
                    raise AssertionError(f"unexpected reply {reply!r}")
    except _WorkerDied as death:
        _discard(worker)
        return _Outcome(None, done, reason=str(death))
    except BaseException:
        # An interrupt, too: the child is in the middle of something that nobody waits for.
        _discard(worker)
        raise


class _WorkerDied(Exception):
    """The child ended, or was killed at the deadline."""


@dataclass(slots=True)
class _Worker:
    """A child process with an engine."""

    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    errors: IO[bytes]
    ready: bool = field(default=False)

    @classmethod
    def start(cls) -> _Worker:
        """Starts a child; it imports the engine while the caller goes on."""
        ours, theirs = Pipe()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        paths = [os.path.abspath(p) for p in sys.path]  # noqa: PTH100 - entries may be archives
        # One arena: a second thread's own would take 64 MB of the address space that the memory limit counts.
        engine = {"RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        environment = os.environ | engine | {"PYTHONPATH": os.pathsep.join(paths)}
        command = f"from rewrites.saturate import serve; serve({theirs.fileno()}, {os.getpid()})"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[theirs.fileno()],
            env=environment,
            start_new_session=True,  # an interrupt at the terminal is for the parent alone
        )
        theirs.close()
        return cls(process, ours, errors)

    def wait_until_ready(self) -> None:
        """Waits until the engine is imported.

        Raises:
            SaturationFailed: the child ended while starting.
        """
        if self.ready:
            return
        try:
            reply = self.receive(time.monotonic() + START_SECONDS)
        except _WorkerDied as death:
            _discard(self)
            raise SaturationFailed(
                f"the rewrite engine did not start: {death}",
                where="rewrites.saturate",
                do="check that `python -c 'import egglog'` works; prism needs egglog 13.2",
            ) from None
        except BaseException:
            _discard(self)
            raise
        assert reply == {"ready": True}, reply
        self.ready = True

    def send(self, request: object) -> None:
        """Sends one message."""
        try:
            self.connection.send_bytes(json.dumps(request).encode())
        except OSError as error:
            raise _WorkerDied(self._last_words()) from error

    def receive(self, deadline: float) -> object:
        """The child's next message, at the latest at the deadline (``time.monotonic``)."""
        try:
            if not self.connection.poll(max(0.0, deadline - time.monotonic())):
                raise _WorkerDied("it ran out of time")
            return json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise _WorkerDied(self._last_words()) from error

    def _last_words(self) -> str:
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its end of the pipe"
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"its process ended with {how}" + (f" ({lines[-1][:300]})" if lines else "")

    def kill(self) -> None:
        """Ends the child at once."""
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Closes this side of the pipe; an idle child then ends by itself."""
        self.connection.close()
        self.errors.close()


_lock = threading.RLock()
_worker: _Worker | None = None


def _current_worker() -> _Worker:
    global _worker  # noqa: PLW0603 - one child per process
    if _worker is not None and _worker.process.poll() is not None:
        _discard(_worker)
    if _worker is None:
        _worker = _Worker.start()
    return _worker


def _discard(worker: _Worker) -> None:
    global _worker  # noqa: PLW0603 - one child per process
    worker.kill()
    if _worker is worker:
        _worker = None


def _forget() -> None:
    """After a fork, the child belongs to the parent."""
    global _worker, _lock  # noqa: PLW0603 - one child per process
    _lock = threading.RLock()
    if _worker is not None:
        _worker.close()
        _worker = None


def _end_at_exit() -> None:
    # Without the lock: a thread that is still waiting for a table would hold it.
    if _worker is not None:
        _worker.process.kill()


os.register_at_fork(after_in_child=_forget)
atexit.register(_end_at_exit)


# ------------------------------------------------------------------------------------------- the child's side


def serve(descriptor: int, parent: int) -> None:
    """Runs programs that come over the pipe, until it is closed. Only for the child process."""
    import resource

    bindings = _load_engine()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    mapped = _mapped_bytes()
    connection: Connection[Any, Any] = Connection(descriptor)
    _reply(connection, {"ready": True})
    engine, loaded = bindings.EGraph(), ""
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = mapped + request["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
        if request["rules"] != loaded:
            engine, loaded = bindings.EGraph(), request["rules"]
            engine.run_program(*engine.parse_program(loaded))
        engine.run_program(bindings.Push(1))
        _serve_one(connection, bindings, engine, request)
        engine.run_program(bindings.Pop(bindings.RustSpan("", 0, 0), 1))


def _load_engine() -> Any:
    """The engine's extension module by itself.

    The package around it imports a code formatter and a tracing library, and takes ten times as long.
    """
    package = find_spec("egglog")
    assert package is not None, "egglog is not installed"
    for folder in package.submodule_search_locations or ():
        for suffix in EXTENSION_SUFFIXES:
            file = Path(folder) / f"bindings{suffix}"
            if file.exists():
                spec = spec_from_file_location("bindings", file)
                assert spec is not None and spec.loader is not None
                module = module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    from egglog import bindings

    return bindings


def _serve_one(connection: Connection[Any, Any], bindings: Any, engine: Any, request: dict[str, Any]) -> None:
    """Saturates one program step by step, reporting each finished step."""
    stop = time.monotonic() + request["seconds"]
    sizes = bindings.PrintSize(bindings.RustSpan("", 0, 0), None)
    analysis = engine.parse_program("(run-schedule (saturate analysis))")
    step = engine.parse_program("(run-schedule (run rewriting))")
    engine.run_program(*engine.parse_program(request["values"]))
    engine.run_program(*analysis)
    done, saturated = 0, False
    _reply(connection, {"step": done})
    while not saturated and done != request["steps"] and time.monotonic() < stop:
        (report,) = engine.run_program(*step)
        saturated = not report.report.updated
        engine.run_program(*analysis)
        done += 1
        _reply(connection, {"step": done})
        (counts,) = engine.run_program(sizes)
        nodes = sum(count for name, count in counts.sizes if name in COUNTED)
        if nodes > request["e_nodes"]:
            _reply(connection, {"over": f"{nodes} nodes, more than {request['e_nodes']}"})
            return
    _reply(connection, {"rows": _export(engine), "steps": done, "saturated": saturated})


def _export(engine: Any) -> dict[str, list[list[int]]]:
    """The rows of the engine's functions as integers; classes are numbered in order of appearance."""
    functions = engine.freeze().functions
    number: dict[Any, int] = {}
    rows: dict[str, list[list[int]]] = {}
    for name in EXPORTED:
        function = functions[name]
        kinds = [*function.input_sorts, *([] if function.output_sort == "Unit" else [function.output_sort])]
        rows[name] = [
            [
                number.setdefault(value, len(number)) if kind == "T" else engine.value_to_i64(value)
                for kind, value in zip(kinds, [*row.inputs, row.output], strict=False)
            ]
            for row in function.rows
        ]
    return rows


def _reply(connection: Connection[Any, Any], message: object) -> None:
    # The parent may have gone away in the meantime; the next read then sees the end of the pipe.
    with contextlib.suppress(BrokenPipeError):
        connection.send_bytes(json.dumps(message).encode())


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent has ended, even in the middle of a step."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def _mapped_bytes() -> int:
    """Address space in use; 0 where the system does not say, which makes the memory limit tighter."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
