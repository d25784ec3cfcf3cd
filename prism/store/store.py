"""Results of searches in the store: put, get, listed, explained, checked, pruned."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism.saved import FILES, SOURCES, SavedRun, largest, parse_manifest, run_of
from prism.store.database import FILE, MOVE, connect, reading, typed, writing
from prism.store.key import Field, Key, fields_from
from sgraph.errors import PrismError, UnreadableRun, UnreadableStore

if TYPE_CHECKING:
    from prism.result import Result

STORED: Final = tuple(name for name in FILES if name not in SOURCES)
"""Files that a store keeps; the sources are printed anew, their hashes are in the manifest."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored result, without its contents."""

    digest: str
    """Hash of its key."""
    program: str
    """Name of the function."""
    target: str
    """Device name."""
    complete: bool
    """False for a search that was stopped."""
    created_s: float
    """When it was found, seconds since 1970."""
    used_s: float
    """When it last answered a search."""
    uses: int
    """How often it did."""
    bytes: int
    """Size of its contents."""
    fields: tuple[Field, ...]
    """What it is stored under."""

    def text(self, name: str) -> str:
        """The text of a field; empty if it has none of that name."""
        return next((f.text for f in self.fields if f.name == name), "")


class Store:
    """Results by key, in one file that several processes use at once."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        """Open, and of this format."""
        self.path = path
        """The file."""

    def get(self, key: Key) -> SavedRun | None:
        """The complete result of this key, as data; None if there is none.

        Raises:
            UnreadableRun: the entry is damaged.
            ForeignRun: it is of another version.
            UnreadableStore: the file is damaged.
        """
        return self.read(key.digest) if self.complete(key) else None

    def complete(self, key: Key) -> bool:
        """Whether there is a result of this key from a search that was not stopped."""
        with reading(self.path):
            found = self.connection.execute("SELECT complete FROM runs WHERE digest = ?", (key.digest,)).fetchone()
        return found is not None and found[0] == 1

    def read(self, digest: str) -> SavedRun:
        """A result as data.

        Raises:
            UnreadableRun: there is none, or it is damaged.
            ForeignRun: it is of another version.
        """
        where = f"{self.path}, entry {digest[:12]}"
        with reading(self.path):
            row = self.connection.execute(
                "SELECT manifest, manifest_sha256 FROM runs WHERE digest = ?", (digest,)
            ).fetchone()
            found = self.connection.execute("SELECT name, data FROM files WHERE digest = ?", (digest,)).fetchall()
        if row is None:
            raise UnreadableRun("there is no such entry", where=where, do="prism cache ls")
        typed(row, (bytes, str), self.path)
        for file in found:
            typed(file, (str, bytes), self.path)
        data, sha256 = row
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UnreadableRun("its manifest was changed", where=where, do="prism cache prune")
        manifest = parse_manifest(data, where)
        texts: dict[str, bytes] = dict(found)
        if set(texts) != set(manifest.files) - SOURCES or any(len(t) > largest(n) for n, t in texts.items()):
            raise UnreadableRun("its files are not those of its manifest", where=where, do="prism cache prune")
        return run_of(manifest, texts, Path(where))

    def used(self, key: Key) -> None:
        """Note that a result answered a search."""
        with writing(self.connection, self.path):
            self.connection.execute(
                "UPDATE runs SET used_s = ?, uses = uses + 1 WHERE digest = ?", (time.time(), key.digest)
            )

    def put(self, key: Key, result: Result, *, complete: bool) -> None:
        """Keep a result; one of a search that was stopped never replaces a complete one."""
        self.put_contents(
            key,
            result.record.target,
            result.manifest().model_dump_json().encode(),
            {n: t.encode() for n, t in result.files().items() if n in STORED},
            complete=complete,
        )

    def put_contents(self, key: Key, target: str, manifest: bytes, files: dict[str, bytes], *, complete: bool) -> None:
        """Keep a result whose manifest and files are given as they are written."""
        with writing(self.connection, self.path):
            self.insert(key, target, manifest, files, complete=complete)

    def insert(self, key: Key, target: str, manifest: bytes, files: dict[str, bytes], *, complete: bool) -> None:
        """The same, as part of a transaction that the caller has begun."""
        digest, now = key.digest, time.time()
        old = self.connection.execute("SELECT complete FROM runs WHERE digest = ?", (digest,)).fetchone()
        if old is not None and old[0] and not complete:
            return
        self.connection.execute("DELETE FROM runs WHERE digest = ?", (digest,))
        self.connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
            (digest, key.program, target, complete, now, now, manifest, hashlib.sha256(manifest).hexdigest()),
        )
        self.connection.executemany(
            "INSERT INTO fields VALUES (?, ?, ?, ?)",
            [(digest, place, f.name, f.text) for place, f in enumerate(key.fields)],
        )
        self.connection.executemany(
            "INSERT INTO files VALUES (?, ?, ?)", [(digest, name, data) for name, data in files.items()]
        )

    # -------------------------------------------------------------------------------------------- the whole

    def entries(self) -> tuple[Entry, ...]:
        """Every result, the newest first.

        Raises:
            UnreadableStore: the file is damaged.
        """
        with reading(self.path):
            rows = self.connection.execute(
                "SELECT digest, program, target, complete, created_s, used_s, uses, length(manifest) + "
                "coalesce((SELECT sum(length(data)) FROM files WHERE files.digest = runs.digest), 0) "
                "FROM runs ORDER BY created_s DESC, digest"
            ).fetchall()
            fields: dict[str, list[tuple[str, str]]] = {}
            for digest, name, value in self.connection.execute(
                "SELECT digest, name, value FROM fields ORDER BY digest, place"
            ):
                typed((digest, name, value), (str, str, str), self.path)
                fields.setdefault(digest, []).append((name, value))
        for row in rows:
            typed(row, (str, str, str, int, float, float, int, int), self.path)
        return tuple(
            Entry(d, p, t, bool(c), created, used, uses, size, fields_from(fields.get(d, [])))
            for d, p, t, c, created, used, uses, size in rows
        )

    def nearest(self, key: Key) -> Entry | None:
        """The entry that shares most fields with a key, the specification above all; None in an empty store."""
        asked = {f.name: f.text for f in key.fields}

        def likeness(entry: Entry) -> tuple[bool, bool, int, float]:
            same = sum(asked.get(f.name) == f.text for f in entry.fields)
            return entry.text("spec") == asked["spec"], entry.program == key.program, same, entry.created_s

        return max(self.entries(), key=likeness, default=None)

    def damaged(self, check: Callable[[SavedRun], object]) -> dict[str, str]:
        """What is wrong with each entry that is not in order, by digest.

        Args:
            check: a further look at each run that can be read; raises a PrismError for what is wrong.

        Raises:
            UnreadableStore: the file itself is damaged.
        """
        with reading(self.path):
            (state,) = self.connection.execute("PRAGMA integrity_check(1)").fetchone()
        if state != "ok":
            raise UnreadableStore(f"the store is damaged: {state}", where=str(self.path), do=MOVE)
        wrong: dict[str, str] = {}
        for entry in self.entries():
            try:
                check(self.read(entry.digest))
            except PrismError as problem:
                wrong[entry.digest] = problem.seen
                continue
            if Key(entry.program, entry.fields).digest != entry.digest:
                wrong[entry.digest] = "its fields are not those of its key"
        return wrong

    def remove(self, digests: Sequence[str]) -> int:
        """Forget these results, and give their space back; returns how many there were."""
        with writing(self.connection, self.path):
            gone = [self.connection.execute("DELETE FROM runs WHERE digest = ?", (d,)).rowcount for d in digests]
        with reading(self.path):
            self.connection.execute("VACUUM")
        return sum(gone)

    def close(self) -> None:
        """Close the file; the last process to do so folds the log into it."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


@contextmanager
def open_store(cache_dir: Path) -> Generator[Store]:
    """The store under this cache directory, made if there is none.

    Raises:
        UnreadableStore: it is damaged or cannot be opened.
        ForeignStore: the file is another program's, or of another version.
    """
    path = cache_dir / FILE
    store = Store(connect(path), path)
    try:
        yield store
    finally:
        store.close()


def unreachable(
    store: Store, check: Callable[[SavedRun], object], older_than_days: float | None = None
) -> dict[str, str]:
    """The results that cannot answer a search here, with the reason, by digest.

    Args:
        store: where they are.
        check: a further look at each run; raises a PrismError for what is wrong.
        older_than_days: also those that were last used longer ago.
    """
    from prism.store.key import code, rule_set

    found = store.damaged(check)
    here = {"code": code(), "rules": rule_set()}
    for entry in store.entries():
        if entry.digest in found:
            continue
        other = [name for name, text in here.items() if entry.text(name) != text]
        if not entry.complete:
            found[entry.digest] = f"{entry.program}: the search was stopped"
        elif other:
            found[entry.digest] = f"{entry.program}: of other {' and '.join(other)}"
        elif older_than_days is not None and time.time() - entry.used_s > older_than_days * 86400:
            found[entry.digest] = f"{entry.program}: not used for {older_than_days:g} days"
    return found


def remove_store(cache_dir: Path, *, dry_run: bool) -> list[Path]:
    """Remove the store's files, whatever is in them; returns which."""
    path = cache_dir / FILE
    found = [p for p in (path, path.with_name(f"{FILE}-wal"), path.with_name(f"{FILE}-shm")) if p.is_file()]
    for file in found:
        if not dry_run:
            file.unlink()
    return found
