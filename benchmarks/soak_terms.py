"""Random terms against the normal form: sound rewritings have to be proved, broken ones must never be.

A run is a file. It is written every few seconds and when it is interrupted, and the same command goes on from it.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from benchmarks.random_terms import broken_pair, pair
from rewrites.normal_form import compare

SAVE_EVERY_S: Final = 5.0
APART: Final = 10_000_000
"""Between the seeds of sound and of broken terms."""

Row = tuple[str, int, str]
"""``sound`` or ``broken``, the seed, and the answer: ``proved``, or what was said instead."""


@dataclass(frozen=True, slots=True)
class Soak:
    """What to try."""

    count: int
    """Terms of each kind."""
    seed: int
    """Of the first; the others follow."""


@dataclass(slots=True)
class Results:
    """What came of it so far."""

    soak: Soak
    """What was asked for."""
    rows: list[Row] = field(default_factory=list[Row])
    """One per term, in the order of their seeds; terms that are defined nowhere or show no difference do not count."""
    next_seed: dict[str, int] = field(default_factory=dict[str, int])
    """Where each kind goes on."""

    def of(self, kind: str) -> list[Row]:
        """The rows of one kind."""
        return [row for row in self.rows if row[0] == kind]

    @property
    def complete(self) -> bool:
        """Whether all were tried."""
        return all(len(self.of(kind)) >= self.soak.count for kind in _TRIES)

    @property
    def missed(self) -> list[Row]:
        """Equal terms that were not proved."""
        return [row for row in self.of("sound") if row[2] != "proved"]

    @property
    def accepted(self) -> list[Row]:
        """Different terms that were proved equal: each is an error in the theory."""
        return [row for row in self.of("broken") if row[2] == "proved"]


def _try_sound(seed: int) -> str | None:
    _, e, rewritten = pair(seed)
    found = compare(e, rewritten)
    if "nowhere" in found.reason:
        return None
    return "proved" if found.equal else found.reason


def _try_broken(seed: int) -> str | None:
    broken = broken_pair(seed)
    if broken is None:
        return None
    return "proved" if compare(*broken).equal else "not proved"


_TRIES: Final[dict[str, Callable[[int], str | None]]] = {"sound": _try_sound, "broken": _try_broken}


def run(soak: Soak, file: Path, *, stop_after: int | None = None, command: str = "") -> Results:
    """Try every term that the file does not hold yet; Ctrl-C keeps what was found.

    Raises:
        SystemExit: the file holds a run of another seed, or is none.
    """
    results = _read(soak, file)
    saved = time.monotonic()
    try:
        with Progress(transient=True) as progress:
            for kind, attempt in _TRIES.items():
                task = progress.add_task(kind, total=soak.count, completed=len(results.of(kind)))
                left = soak.count - len(results.of(kind))
                while left > 0 and (stop_after is None or len(results.rows) < stop_after):
                    seed = results.next_seed[kind]
                    answer = attempt(seed)
                    results.next_seed[kind] = seed + 1
                    if answer is not None:
                        results.rows.append((kind, seed, answer))
                        left -= 1
                        progress.advance(task)
                    if time.monotonic() - saved > SAVE_EVERY_S:
                        _write(results, file, command)
                        saved = time.monotonic()
    except KeyboardInterrupt:
        pass
    _write(results, file, command)
    return results


def _read(soak: Soak, file: Path) -> Results:
    fresh = Results(soak, [], {"sound": soak.seed, "broken": soak.seed + APART})
    if not file.exists():
        return fresh
    try:
        held: dict[str, Any] = json.loads(file.read_text())
        if held["soak"]["seed"] != soak.seed:
            raise SystemExit(
                f"{file} holds a run of another seed: give --seed {held['soak']['seed']}, or another --out"
            )
        rows = [(str(kind), int(seed), str(answer)) for kind, seed, answer in held["rows"]]
        return Results(soak, rows, {str(k): int(n) for k, n in held["next_seed"].items()})
    except (ValueError, KeyError, TypeError) as problem:
        raise SystemExit(f"{file} is not a soak of terms ({problem}): give another --out") from problem


def _write(results: Results, file: Path, command: str) -> None:
    """The whole record; a run that is killed while it writes keeps the one before."""
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "soak": asdict(results.soak),
        "sound": len(results.of("sound")),
        "proved": len(results.of("sound")) - len(results.missed),
        "broken": len(results.of("broken")),
        "broken_and_proved": len(results.accepted),
        "missed": results.missed,
        "accepted": results.accepted,
        "next_seed": results.next_seed,
        "rows": results.rows,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".part")
    beside.write_text(_text(record))
    beside.replace(file)


def _text(record: dict[str, Any]) -> str:
    """JSON with one row to a line."""
    rows = ",\n".join(f"    {json.dumps(row)}" for row in record["rows"])
    head = json.dumps({k: v for k, v in record.items() if k != "rows"}, indent=2)
    return f'{head[:-2]},\n  "rows": [\n{rows}\n  ]\n}}\n'
