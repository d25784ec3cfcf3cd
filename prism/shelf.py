"""The store's place in the pipeline: a result that was found before, or one that is kept now.

A store that is damaged, foreign, full or locked is warned about and never stops a search.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prism.settings import Settings
from sgraph.axis import Axis
from sgraph.errors import ForeignRun, ForeignStore, PrismError, UnreadableRun, UnreadableStore
from sgraph.program import Program
from sgraph.target import Target

if TYPE_CHECKING:
    from prism.pipeline import Request
    from prism.result import Result
    from prism.store import Key

log = logging.getLogger("prism.store")


@dataclass(slots=True)
class Shelf:
    """Where one search looks before it starts, and leaves what it found."""

    cache_dir: Path
    """Where the store is."""
    key: Key | None
    """What the search is stored under; None where the store is not used."""
    notes: list[str] = field(default_factory=list[str])
    """What the report should say of the store."""

    @classmethod
    def of(
        cls, request: Request, program: Program, sizes: Mapping[Axis, int], target: Target, settings: Settings
    ) -> Shelf:
        """The place of a search: none where the store is off."""
        if not (request.use_store and settings.store):
            return cls(settings.cache_dir, None)
        return cls(settings.cache_dir, _key(request, program, sizes, target))

    def find(self, request: Request) -> Result | None:
        """The result of an earlier search that was not stopped, printed anew; None if there is none to use."""
        from prism.restored import restore
        from prism.store import open_store

        if self.key is None:
            return None
        try:
            with open_store(self.cache_dir) as store:
                saved = store.get(self.key)
                if saved is None:
                    return None
                result = restore(saved, request.function)
                store.used(self.key)
        except (UnreadableRun, ForeignRun) as problem:
            self._warn("the stored result cannot be used, so this is a new search", problem)
            return None
        except (UnreadableStore, ForeignStore) as problem:
            self._warn("the store is not used", problem)
            self.key = None
            return None
        return result

    def keep(self, result: Result, *, complete: bool) -> None:
        """Store a result; a store that cannot take it is warned about."""
        from prism.store import open_store

        if self.key is None:
            return
        try:
            with open_store(self.cache_dir) as store:
                store.put(self.key, result, complete=complete)
        except (UnreadableStore, ForeignStore) as problem:
            log.warning("the result was not stored: %s", problem)

    def _warn(self, what: str, problem: PrismError) -> None:
        self.notes.append(f"{what}: {problem.seen}")
        log.warning("%s: %s", what, problem)


def from_store(result: Result, folder: Path, seconds: Mapping[str, float]) -> Result:
    """A stored result as the answer to this search: written to its folder, and saying where it comes from."""
    record = result.record
    name = Path(record.source_path).name if record.source_path else None
    spent = sum(record.seconds.values())
    answered = replace(
        result,
        record=record.model_copy(
            update={
                "source_path": None if name is None else str(folder / name),
                "seconds": dict(seconds),
                "notes": [*record.notes, f"from the store: an earlier search found it in {spent:.1f} s"],
            }
        ),
    )
    answered.save(folder)
    return answered


def request_key(request: Request) -> Key:
    """What a request is stored under; captures its function."""
    from autotune.targets import detect_target, find_target
    from prism.pipeline import captured

    target = find_target(request.target) if request.target else detect_target()
    return _key(request, *captured(request), target)


def _key(request: Request, program: Program, sizes: Mapping[Axis, int], target: Target) -> Key:
    from prism.store.key import device_of, key_of

    return key_of(program, sizes, target, device_of(target), request.effort, request.seed)
