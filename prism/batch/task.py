"""One task of a batch, and what became of it: plain values that travel between processes and machines."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Task:
    """One search: a subgraph at one shape, for one target, with one seed."""

    name: str
    """Unique in its job; also the name of its output folder."""
    function: str
    """``FILE::function``, or the path of an exported ``.pt2``."""
    inputs: tuple[str, ...]
    """``NAME=dtype[sizes]`` for each input that is not the file's own example."""
    constant: tuple[str, ...]
    """Parameters that stay the same between calls."""
    target: str
    """Device name; empty for the worker's own device."""
    effort: str
    """Preset."""
    seed: int
    """Of every random choice."""
    budget_s: float
    """Seconds until its worker is ended."""
    folder: str
    """Where its run is written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A result by value, for the store and for the run's folder."""

    program: str
    """Name of the function."""
    target: str
    """Device name."""
    fields: tuple[tuple[str, str], ...]
    """What it is stored under: names and texts."""
    manifest: bytes
    """``run.json``."""
    files: dict[str, bytes]
    """The other files, by name."""


@dataclass(frozen=True, slots=True)
class Done:
    """A task that ended by itself."""

    summary: dict[str, object] = field(default_factory=dict[str, object])
    """For the ledger and for people; plain JSON values, no times, so that equal work gives equal records."""
    stored: Stored | None = None
    """What goes into the store."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that cannot be done; trying again would end alike."""

    reason: str
    """Why."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """A task whose worker ended under it."""

    reason: str
    """What is known: a signal, an exit code, the words of the system."""


Outcome = Done | Failed | Crashed
