"""The store: a second search is answered, a miss is explained, and a bad file breaks nothing and runs nothing."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import prism
from prism.cli import main
from prism.pipeline import Request, run
from prism.progress import Progress
from prism.result import Result
from prism.settings import load
from prism.store import Key, Store, open_store
from prism.store.database import FILE
from prism.store.key import FIELDS, Field, key_of
from sgraph.errors import ForeignRun, ForeignStore, PrismError, SettingsError, UnreadableRun, UnreadableStore


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) @ weight


def inputs(rows: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 32, generator=generator), torch.randn(32, 48, generator=generator)


def search(rows: int = 8, *, seed: int = 0, use_store: bool = True) -> Result:
    return prism.superoptimize(
        linear, *inputs(rows), target="h200", effort="quick", seed=seed, use_store=use_store, fallback=False
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory with one result."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_CACHE_DIR", str(folder))
        search()
    shutil.rmtree(folder / "runs")
    return folder


@pytest.fixture
def cache(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(searched, tmp_path / "cache")
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def from_store(result: Result) -> bool:
    return any(note.startswith("from the store") for note in result.record.notes)


# ------------------------------------------------------------------------------------------------ answered


def test_the_second_search_comes_from_the_store(cache: Path) -> None:
    start = time.perf_counter()
    result = search()
    seconds = time.perf_counter() - start
    assert from_store(result)
    assert "saturate" not in result.record.seconds
    assert seconds < 10, "a search of this takes longer than reading it"
    given = inputs()
    got = result(*given)
    assert isinstance(got, torch.Tensor)
    torch.testing.assert_close(got, linear(*given), rtol=1e-4, atol=1e-4)
    assert result.source.startswith('"""')
    with open_store(cache) as store:
        (entry,) = store.entries()
        assert entry.uses == 1


def test_a_loaded_folder_and_a_stored_result_are_the_same(cache: Path) -> None:
    result = search()
    assert result.record.source_path is not None
    loaded = prism.load(Path(result.record.source_path).parent)
    assert loaded.source == result.source
    assert loaded.record == result.record


class Searched(Exception):
    """The search was started."""


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise Searched

    monkeypatch.setattr("prism.pipeline.search", start)


@pytest.mark.usefixtures("cache", "no_search")
def test_what_differs_is_searched_anew() -> None:
    assert from_store(search())
    for other in (lambda: search(9), lambda: search(seed=1), lambda: search(use_store=False)):
        with pytest.raises(Searched):
            other()


@pytest.mark.usefixtures("cache", "no_search")
def test_the_store_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISM_STORE", "off")
    with pytest.raises(Searched):
        search()
    monkeypatch.setenv("PRISM_STORE", "perhaps")
    with pytest.raises(SettingsError, match="PRISM_STORE='perhaps' is neither on nor off"):
        search()


@pytest.mark.usefixtures("cache", "no_search")
def test_a_change_of_prism_itself_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prism.store.key.code", lambda: "another")
    with pytest.raises(Searched):
        search()


def test_a_stopped_search_is_kept_and_does_not_answer(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Progress()
    stopped.stop_requested = True
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path / "other"))
    result = run(Request(linear, inputs(), target="h200", effort="quick"), load(), stopped)
    assert any("stopped" in note for note in result.record.notes)
    with open_store(tmp_path / "other") as store:
        (entry,) = store.entries()
        assert not entry.complete
        assert store.read(entry.digest).graph == result.graph
        key = Key(entry.program, entry.fields)
        assert store.get(key) is None
    with open_store(cache) as store:  # nor does it replace a complete one
        store.put(key, result, complete=False)
        (entry,) = store.entries()
        assert entry.complete


# ---------------------------------------------------------------------------------------------------- keys


def test_every_field_decides_the_key(cache: Path) -> None:
    with open_store(cache) as store:
        (entry,) = store.entries()
    assert tuple(f.name for f in entry.fields) == FIELDS
    key = Key(entry.program, entry.fields)
    assert key.digest == entry.digest
    for place, field in enumerate(entry.fields):
        changed = list(entry.fields)
        changed[place] = Field(field.name, field.text + " ")
        assert Key(entry.program, tuple(changed)).digest != key.digest, field.name


def test_where_the_function_stands_does_not_matter(searched: Path) -> None:
    with open_store(searched) as store:
        (entry,) = store.entries()
        program = store.read(entry.digest).program
    from autotune.targets import find_target

    moved = dataclasses.replace(program, source="elsewhere.py:1")
    sizes = dict.fromkeys(program.axes, 8)
    keys = {key_of(p, sizes, find_target("h200"), "modelled", "quick", 0) for p in (program, moved)}
    assert len(keys) == 1


# -------------------------------------------------------------------------------------------------- damage


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def with_sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    return change


def of_another_program(path: Path) -> None:
    path.unlink()
    with_sql("CREATE TABLE visits (url TEXT)")(path)


def folder_in_the_way(path: Path) -> None:
    path.unlink()
    path.mkdir()


WHOLE: dict[str, tuple[Callable[[Path], object], type[PrismError], str]] = {
    "cut off": (shortened, UnreadableStore, "damaged"),
    "no database": (lambda p: p.write_bytes(b"cos\nsystem\n(S'true'\ntR." * 50), UnreadableStore, "not a database"),
    "another program's": (of_another_program, ForeignStore, "not a store"),
    "older": (with_sql("PRAGMA user_version = 0"), ForeignStore, "format 0, an older one"),
    "newer": (with_sql("PRAGMA user_version = 7"), ForeignStore, "format 7, a newer one"),
    "a trigger": (
        with_sql("CREATE TRIGGER t AFTER UPDATE ON runs BEGIN DELETE FROM runs; END"),
        ForeignStore,
        "other tables",
    ),
    "a view": (with_sql("CREATE VIEW v AS SELECT * FROM runs"), ForeignStore, "other tables"),
    "a folder": (folder_in_the_way, UnreadableStore, "no plain file"),
}


@pytest.mark.parametrize("damage", WHOLE)
def test_a_store_that_cannot_be_used_is_named_and_breaks_no_search(
    damage: str, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, error, words = WHOLE[damage]
    spoil(cache / FILE)
    with pytest.raises(error) as refused, open_store(cache) as store:
        store.entries()
    assert words in str(refused.value)
    assert "prism cache prune --all" in str(refused.value)
    monkeypatch.setattr("prism.pipeline.search", raise_searched)
    with caplog.at_level(logging.WARNING, "prism.store"), pytest.raises(Searched):
        search()
    assert words in caplog.text


def raise_searched(*_: object) -> None:
    raise Searched


ENTRIES: dict[str, tuple[str, type[PrismError], str]] = {
    "manifest": ("UPDATE runs SET manifest = substr(manifest, 1, 100)", UnreadableRun, "manifest was changed"),
    "file": (
        "UPDATE files SET data = zeroblob(9) WHERE name = 'sgraph.py'",
        UnreadableRun,
        "hash differs",
    ),
    "missing": ("DELETE FROM files WHERE name = 'report.json'", UnreadableRun, "files are not those"),
    "further file": ("INSERT INTO files SELECT digest, '../x', x'00' FROM runs", UnreadableRun, "files are not those"),
    "type": ("UPDATE runs SET manifest = 5", UnreadableStore, "wrong type"),
}


@pytest.mark.parametrize("damage", ENTRIES)
def test_a_damaged_entry_is_named_and_searched_for_again(
    damage: str, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement, error, words = ENTRIES[damage]
    with_sql(statement)(cache / FILE)
    with open_store(cache) as store, pytest.raises(error, match=words):
        (digest,) = (d for (d,) in store.connection.execute("SELECT digest FROM runs"))
        store.read(digest)
    monkeypatch.setattr("prism.pipeline.search", raise_searched)
    with caplog.at_level(logging.WARNING, "prism.store"), pytest.raises(Searched):
        search()
    assert words in caplog.text


def test_a_kernel_that_prints_otherwise_is_not_run(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prism.restored import restore

    with open_store(cache) as store:
        (entry,) = store.entries()
        saved = store.read(entry.digest)
    manifest = saved.manifest.model_copy(update={"files": {**saved.manifest.files, "kernel.py": "0" * 64}})
    with pytest.raises(ForeignRun, match=r"prints as another kernel\.py"):
        restore(dataclasses.replace(saved, manifest=manifest))


def test_a_hundred_random_corruptions_are_refused_or_harmless(cache: Path) -> None:
    draw = random.Random(0)
    whole = (cache / FILE).read_bytes()
    with open_store(cache) as store:
        (entry,) = store.entries()
        intact = store.read(entry.digest)
    for number in range(100):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 8, 200))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        for left in cache.glob(f"{FILE}-*"):
            left.unlink()
        (cache / FILE).write_bytes(bytes(data[: draw.randrange(len(data))] if number % 5 == 0 else data))
        try:
            with open_store(cache) as store:
                for found in store.entries():
                    saved = store.read(found.digest)
                    assert (saved.graph, saved.report, saved.manifest) == (
                        intact.graph,
                        intact.report,
                        intact.manifest,
                    )
        except PrismError as refused:
            assert "try:" in str(refused)


# ------------------------------------------------------------------------------------------ several at once


def _write_many(folder: str, number: int, count: int) -> None:
    with open_store(Path(folder)) as store:
        for i in range(count):
            key = Key(f"p{number}", (Field("spec", f"{number} {i}"),))
            store.put_contents(key, "h200", b"{}", {"report.json": bytes(1000)}, complete=True)


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    start = multiprocessing.get_context("spawn")
    workers = [start.Process(target=_write_many, args=(str(tmp_path), n, 25)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0]
    with open_store(tmp_path) as store:
        assert len(store.entries()) == 50


def test_a_failed_write_leaves_the_old_entry(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        key = Key("p", (Field("spec", "s"),))
        store.put_contents(key, "h200", b"{}", {"report.json": b"1"}, complete=True)
        bad: dict[str, bytes] = {"report.json": b"2", "program.py": None}  # pyright: ignore[reportAssignmentType]
        with pytest.raises(UnreadableStore):
            store.put_contents(key, "h200", b"{}", bad, complete=True)
        found = store.connection.execute("SELECT data FROM files").fetchall()
        assert found == [(b"1",)]


def test_a_full_disk_is_a_warning(
    cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prism.shelf import Shelf

    result = search()

    def full(*_: object, **__: object) -> None:
        raise UnreadableStore("the store cannot be used: database or disk is full")

    monkeypatch.setattr(Store, "put", full)
    with caplog.at_level(logging.WARNING, "prism.store"):
        Shelf(cache, Key("p", ())).keep(result, complete=True)
    assert "disk is full" in caplog.text


# ---------------------------------------------------------------------------------------------- commands

PROGRAM = """
import torch

def linear(x, weight):
    return torch.relu(x) @ weight

def inputs():
    return torch.randn(8, 32), torch.randn(32, 48)
"""


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["prism", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    shown = capsys.readouterr()
    return (code if isinstance(code, int) else 0), shown.out + shown.err


@pytest.mark.usefixtures("cache")
def test_the_commands_say_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    ask = (f"{file}::linear", "--target", "h200", "--effort", "quick")

    code, text = command(monkeypatch, capsys, "cache", "ls", "--json")
    (entry,) = json.loads(text)
    assert (code, entry["program"], entry["complete"]) == (0, "linear", True)
    code, text = command(monkeypatch, capsys, "cache", "ls")
    assert "1 results in" in text

    assert command(monkeypatch, capsys, "cache", "why", *ask)[1].endswith("hit: every field is the same\n")
    code, text = command(monkeypatch, capsys, "cache", "why", *ask, "--seed", "4", "--json")
    found = json.loads(text)
    assert (found["hit"], found["verdict"]) == (False, "miss: the nearest result differs in seed")
    assert [(f["asked"], f["stored"]) for f in found["fields"] if not f["same"]] == [("4", "0")]
    shapes = ("--input", "x=fp32[16,32]")
    assert "differs in spec, trace, sizes" in command(monkeypatch, capsys, "cache", "why", *ask, *shapes)[1]

    assert command(monkeypatch, capsys, "cache", "verify") == (0, "1 of 1 results are in order\n")
    assert command(monkeypatch, capsys, "cache", "prune", "--dry-run") == (0, "0 would be removed\n")
    code, text = command(monkeypatch, capsys, "cache", "prune", "--older-than", "0")
    assert text.endswith("1 removed\n")
    assert "the store is empty" in command(monkeypatch, capsys, "cache", "why", *ask)[1]


def test_a_damaged_entry_is_found_and_pruned(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_sql("UPDATE files SET data = x'00' WHERE name = 'sgraph.py'")(cache / FILE)
    code, text = command(monkeypatch, capsys, "cache", "verify")
    assert code == 1
    assert "sgraph.py is not the file that was saved" in text
    assert command(monkeypatch, capsys, "cache", "prune")[1].endswith("1 removed\n")
    shortened(cache / FILE)
    assert command(monkeypatch, capsys, "cache", "ls")[0] == 2
    assert command(monkeypatch, capsys, "cache", "prune", "--all")[0] == 0
    assert "0 results" in command(monkeypatch, capsys, "cache", "ls")[1]


def test_load_shows_a_saved_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = search().save(tmp_path / "run")
    code, text = command(monkeypatch, capsys, "load", str(folder))
    assert (code, "proved and printed again" in text) == (0, True)
    (folder / "kernel.py").write_text("import os")
    assert command(monkeypatch, capsys, "load", str(folder))[0] == 2
    assert cache.exists()
