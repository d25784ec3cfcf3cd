"""Opening the store's file, and distrusting it.

The file may be cut off, changed, another program's, or of another version. What is opened is a plain SQLite file with
exactly the tables that this version makes: no triggers, no views, nothing that would run. Several processes may use it
at once; each write is one transaction, and a process that is killed leaves the last whole one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sgraph.errors import ForeignStore, UnreadableStore

APPLICATION: Final = 0x50524D53
"""``application_id`` of the file, "PRMS": tells a store from any other SQLite file."""
FORMAT: Final = 1
"""``user_version`` of the file."""
WAIT_S: Final = 20.0
"""How long a process waits for another one's write."""
LARGEST_VALUE_BYTES: Final = 64 << 20
FILE: Final = "store.sqlite3"

TABLES: Final = (
    """CREATE TABLE runs (
    digest TEXT PRIMARY KEY,
    program TEXT NOT NULL,
    target TEXT NOT NULL,
    complete INTEGER NOT NULL,
    created_s REAL NOT NULL,
    used_s REAL NOT NULL,
    uses INTEGER NOT NULL,
    manifest BLOB NOT NULL,
    manifest_sha256 TEXT NOT NULL
)""",
    """CREATE TABLE fields (
    digest TEXT NOT NULL REFERENCES runs (digest) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (digest, place)
)""",
    """CREATE TABLE files (
    digest TEXT NOT NULL REFERENCES runs (digest) ON DELETE CASCADE,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (digest, name)
)""",
    """CREATE TABLE jobs (
    job TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    created_s REAL NOT NULL
)""",
    """CREATE TABLE tasks (
    job TEXT NOT NULL REFERENCES jobs (job) ON DELETE CASCADE,
    task TEXT NOT NULL,
    place INTEGER NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    lease_s REAL NOT NULL,
    crashes INTEGER NOT NULL,
    reason TEXT NOT NULL,
    result TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (job, task)
)""",
)
"""Results of searches, and the ledger of batch jobs."""


def connect(path: Path) -> sqlite3.Connection:
    """The store in this file, made if there is none.

    Raises:
        UnreadableStore: the file is damaged, cannot be opened, or another process keeps it locked.
        ForeignStore: it is another program's, or of another version.
    """
    where = str(path)
    if path.exists() and not path.is_file():
        raise UnreadableStore("it is no plain file", where=where, do=MOVE)
    with reading(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnreadableStore(f"its folder cannot be made: {error.strerror}", where=where, do=MOVE) from error
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


MOVE: Final = "move the file away (`prism cache prune --all` does), or set PRISM_CACHE_DIR to another folder"


@contextmanager
def reading(path: Path) -> Generator[None]:
    """What SQLite says of the file, as one of our errors."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UnreadableStore(f"the store cannot be used: {error}", where=str(path), do=MOVE) from error
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise UnreadableStore(f"the store is damaged: {error}", where=str(path), do=MOVE) from error


@contextmanager
def writing(connection: sqlite3.Connection, path: Path) -> Generator[None]:
    """One transaction: all of it is kept, or nothing."""
    with reading(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def typed(row: Sequence[object], kinds: Sequence[type], path: Path) -> None:
    """Refuse a row whose values are of other types than this version writes.

    Raises:
        UnreadableStore: they are.
    """
    if not all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)):
        raise UnreadableStore("the store is damaged: a value is of the wrong type", where=str(path), do=MOVE)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE_BYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    if not _tables(connection) and _number(connection, "application_id") == 0:
        _make(connection, path)
    _check(connection, path)
    # What was committed survives the process and the machine.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _make(connection: sqlite3.Connection, path: Path) -> None:
    """An empty file becomes a store, in one transaction, by whichever process comes first."""
    with writing(connection, path):
        if not _tables(connection):
            for table in TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if _number(connection, "application_id") != APPLICATION:
        raise ForeignStore("this SQLite file is not a store of Prism's", where=str(path), do=MOVE)
    version = _number(connection, "user_version")
    if version != FORMAT:
        age = "an older" if version < FORMAT else "a newer"
        raise ForeignStore(
            f"the store has format {version}, {age} one; this version reads {FORMAT}", where=str(path), do=MOVE
        )
    if _tables(connection) != set(TABLES):
        raise ForeignStore("the store has other tables than this version makes", where=str(path), do=MOVE)


def _tables(connection: sqlite3.Connection) -> set[str]:
    """What the file defines; indexes that SQLite makes by itself have no text."""
    return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}


def _number(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
