"""Job files: what ``prism batch`` works through, as TOML.

::

    [batch]
    targets = ["h200"]          # everything but functions can be said here or per subgraph
    effort = "quick"
    seeds = [0]
    budget_s = 900.0            # of one task; its worker is ended after that
    crashes = 3                 # workers that may end under a task until it is set aside
    output = "runs"             # folder of the runs, from the job file

    [[subgraph]]
    function = "programs.py::rmsnorm_linear"
    constant = ["g", "W"]

    [[subgraph.shapes]]         # one task for each; without any, the file's example inputs
    x = "bf16[8,4096]"

    [[subgraph.shapes]]
    x = "bf16[M:1..64,4096]"    # a bucket: one kernel for all of them

    [[subgraph]]
    function = "block.pt2"      # exported by torch.export.save
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tomllib
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prism.batch.lines import line_of
from prism.batch.task import Task
from sgraph.errors import JobFileError, PrismError

LARGEST_BYTES: Final = 4 << 20
LONGEST_LINE: Final = 4096
"""Characters; the reader of TOML takes minutes for keys of many thousand parts."""
MOST_TASKS: Final = 100_000


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Targets = Annotated[list[str], Field(min_length=1)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Budget = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Subgraph(_Table):
    """``[[subgraph]]``: one function, at some shapes."""

    function: str
    """``FILE::function`` or a ``.pt2`` file, from the job file's folder."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,80}$")] | None = None
    """For task names; the function's own by default."""
    constant: list[str] = Field(default_factory=list)
    """Parameters that stay the same between calls."""
    shapes: list[dict[str, str]] = Field(default_factory=list)
    """``NAME = "dtype[sizes]"`` per input; one task for each."""
    targets: Targets | None = None
    """In place of the batch's."""
    effort: str | None = None
    """In place of the batch's."""
    seeds: Seeds | None = None
    """In place of the batch's."""
    budget_s: Budget | None = None
    """In place of the batch's."""


class Batch(_Table):
    """``[batch]``: what holds for every subgraph."""

    targets: Targets = Field(default_factory=lambda: [""])
    """Device names; by default the worker's own device."""
    effort: str = "default"
    """Preset."""
    seeds: Seeds = Field(default_factory=lambda: [0])
    """Seeds of every random choice, one task for each."""
    budget_s: Budget = 3600.0
    """Seconds of one task."""
    crashes: Annotated[int, Field(ge=1)] = 3
    """Workers that may end under a task until it is quarantined."""
    output: str = "runs"
    """Folder of the runs, from the job file's folder."""


class Job(_Table):
    """A job file."""

    batch: Batch = Field(default_factory=Batch)
    """What holds for every subgraph."""
    subgraph: Annotated[list[Subgraph], Field(min_length=1)]
    """What to work through."""


def read_job(path: Path) -> tuple[Job, tuple[Task, ...]]:
    """A job file and its tasks, every mistake named with its line.

    Functions are looked for in their files, without running them.

    Raises:
        JobFileError: the file cannot be read, is no TOML, or asks for something that does not exist.
    """
    text = _text(path)
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > LONGEST_LINE:
            seen = f"line {number} has more than {LONGEST_LINE} characters"
            raise JobFileError(seen, where=f"{path}:{number}", do="break it")
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise JobFileError(f"it is no TOML: {problem}"[:400], where=str(path), do="see `prism batch --help`") from None
    try:
        job = Job.model_validate(data)
    except ValidationError as problem:
        raise _mistakes(problem, text, path) from None
    tasks = tuple(_Tasks(job, text, path).all())
    return job, tasks


def digest_of(tasks: tuple[Task, ...], device: str = "search") -> str:
    """What tells one job from another: its tasks, and what is done with them."""
    return hashlib.sha256(json.dumps([device, [asdict(t) for t in tasks]], sort_keys=True).encode()).hexdigest()[:16]


def _text(path: Path) -> str:
    if not path.is_file():
        raise JobFileError(f"there is no job file {path}", where=str(path), do="check the path")
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise JobFileError(f"it has more than {LARGEST_BYTES} bytes", where=str(path), do="split it into several")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise JobFileError(f"it cannot be read: {error.strerror}", where=str(path), do="check the file") from error
    except UnicodeDecodeError:
        raise JobFileError("it is no text", where=str(path), do="write it as UTF-8") from None


def _mistakes(problem: ValidationError, text: str, path: Path) -> JobFileError:
    lines = [f"line {line_of(text, e['loc'])}: {_field(e['loc'])}: {e['msg']}" for e in problem.errors()]
    shown = lines[:8] + ([f"and {len(lines) - 8} more"] if len(lines) > 8 else [])
    first = line_of(text, problem.errors()[0]["loc"])
    return JobFileError("\n".join(shown), where=f"{path}:{first}", do="see `prism batch --help` for the fields")


def _field(place: tuple[int | str, ...]) -> str:
    return ".".join(str(p) if isinstance(p, str) else f"#{p + 1}" for p in place)[:200]


class _Tasks:
    """The tasks of a job, each value looked at once."""

    def __init__(self, job: Job, text: str, path: Path) -> None:
        self.job = job
        self.text = text
        self.path = path
        self.folder = path.resolve().parent
        self.names: Counter[str] = Counter()

    def all(self) -> list[Task]:
        """Every task, in the order of the file."""
        self._known(("batch",), self.job.batch.targets, self.job.batch.effort)
        found: list[Task] = []
        for number, subgraph in enumerate(self.job.subgraph):
            found += self._of(number, subgraph)
            if len(found) > MOST_TASKS:
                raise self._wrong(("subgraph", number), f"the job has more than {MOST_TASKS} tasks")
        return found

    def _of(self, number: int, subgraph: Subgraph) -> list[Task]:
        place = ("subgraph", number)
        batch = self.job.batch
        self._known(place, subgraph.targets or [], subgraph.effort or batch.effort)
        function = self._function(number, subgraph.function)
        file, _, own = function.rpartition("::")
        name = subgraph.name or (own if file else re.sub(r"[^A-Za-z0-9_.-]", "_", Path(function).stem))
        self.names[name] += 1
        name = name if self.names[name] == 1 else f"{name}.{self.names[name]}"
        shapes = [self._inputs(number, i, s) for i, s in enumerate(subgraph.shapes)] or [()]
        return [
            self._task(subgraph, name, function, (i, inputs), target, seed)
            for i, inputs in enumerate(shapes)
            for target in subgraph.targets or batch.targets
            for seed in subgraph.seeds or batch.seeds
        ]

    def _task(
        self, subgraph: Subgraph, name: str, function: str, shape: tuple[int, tuple[str, ...]], target: str, seed: int
    ) -> Task:
        batch = self.job.batch
        full = f"{name}-{shape[0]}-{target or 'here'}-{seed}"
        return Task(
            name=full,
            function=function,
            inputs=shape[1],
            constant=tuple(subgraph.constant),
            target=target,
            effort=subgraph.effort or batch.effort,
            seed=seed,
            budget_s=subgraph.budget_s or batch.budget_s,
            folder=str(self.folder / batch.output / full),
        )

    def _known(self, place: tuple[int | str, ...], targets: list[str], preset: str) -> None:
        from autotune.targets import find_target
        from prism.effort import effort

        for field, check, values in (("targets", find_target, filter(None, targets)), ("effort", effort, [preset])):
            for value in values:
                try:
                    check(value)
                except PrismError as problem:
                    raise self._wrong((*place, field), problem.seen, problem.do) from None

    def _function(self, number: int, function: str) -> str:
        """The function with its file from the root, after a look that both exist."""
        place = ("subgraph", number, "function")
        file, _, name = function.partition("::")
        path = self.folder / file
        if not path.is_file():
            raise self._wrong(place, f"there is no file {path}", "paths are relative to the job file")
        if path.suffix == ".pt2":
            return str(path)
        if not name:
            raise self._wrong(place, f"{function!r} names no function", "write FILE::function")
        defined = self._defined(path, place)
        if name not in defined:
            raise self._wrong(place, f"{file} has no function `{name}`", f"one of: {', '.join(sorted(defined))}"[:300])
        return f"{path}::{name}"

    def _defined(self, path: Path, place: tuple[int | str, ...]) -> set[str]:
        """Names that a Python file binds at top level, read without running it."""
        try:
            body = ast.parse(path.read_bytes()).body
        except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as problem:
            raise self._wrong(place, f"{path} is no Python file: {problem}") from None
        names: set[str] = set()
        for node in body:
            match node:
                case ast.FunctionDef(name=name):
                    names.add(name)
                case ast.Assign(targets=targets):
                    names |= {t.id for t in targets if isinstance(t, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    names.add(name)
                case _:
                    pass
        return names

    def _inputs(self, number: int, i: int, shape: dict[str, str]) -> tuple[str, ...]:
        from prism.frontend import parse_input_spec

        found: list[str] = []
        for name, spec in shape.items():
            text = f"{name}={spec}"
            try:
                parse_input_spec(text)
            except PrismError as problem:
                raise self._wrong(("subgraph", number, "shapes", i, name), problem.seen, problem.do) from None
            found.append(text)
        return tuple(found)

    def _wrong(self, place: tuple[Any, ...], seen: str, do: str = "") -> JobFileError:
        line = line_of(self.text, place)
        where = f"{self.path}:{line}"
        return JobFileError(f"line {line}: {_field(place)}: {seen}", where=where, do=do or "fix the file")
