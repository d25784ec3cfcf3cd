"""Saved runs: the folder reads back as it was written, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import prism
from autotune.torch_printer import print_torch
from prism.result import Result
from prism.saved import MANIFEST, SavedRun, read_run
from sgraph.axis import Size
from sgraph.errors import ForeignRun, InputError, PrismError, RunNotFound, UnreadableRun

SIZES = {"x": (Size("M", 1, 64), 32)}


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh") @ weight


def inputs(rows: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 32, generator=generator), torch.randn(32, 48, generator=generator)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return prism.superoptimize(
            linear, *inputs(), target="h200", effort="quick", fallback=False, out=folder, sizes=SIZES
        )


@pytest.fixture
def folder(result: Result, tmp_path: Path) -> Path:
    return result.save(tmp_path / "run")


def test_a_run_reads_back_as_it_was(result: Result, folder: Path) -> None:
    saved = read_run(folder)
    assert saved.report == result.record
    assert saved.graph == result.graph
    assert saved.program == result.origin.program
    assert saved.source == result.source
    assert saved.torch_source == result.torch_source
    assert saved.certificate == result.certificate
    assert saved.certificate is not None
    assert saved.certificate.rule_set
    assert saved.certificate.exact is not None
    assert saved.certificate.exact.evaluations > 0
    assert saved.parameters == (result.record.best.parameters if result.record.best else None)
    first, second = saved.inputs
    assert (first.name, first.shape, first.extents) == ("x", (8, 32), SIZES["x"])
    assert (second.name, second.dtype.value, second.extents) == ("weight", "float32", (32, 48))


def test_a_loaded_run_is_callable_with_the_text_printed_anew(result: Result, folder: Path) -> None:
    loaded = prism.load(folder, linear)
    assert loaded.source == result.source
    assert loaded.to_json() == result.to_json()
    for rows in (8, 1, 64, 100):  # the last is outside the range: the original answers
        given = inputs(rows)
        got = loaded(*given)
        assert isinstance(got, torch.Tensor)
        torch.testing.assert_close(got, linear(*given), rtol=1e-4, atol=1e-4)
    assert loaded.save(folder.parent / "again") != folder
    assert read_run(folder.parent / "again").manifest == read_run(folder).manifest


def test_without_the_original_a_call_outside_the_run_says_so(folder: Path) -> None:
    loaded = prism.load(folder)
    assert isinstance(loaded(*inputs()), torch.Tensor)
    with pytest.raises(InputError, match=r"M = 100.*\n.*\n.*original=function"):
        loaded(*inputs(100))


@pytest.mark.parametrize("forms", [False, True])
def test_a_torch_form_is_printed_anew_in_the_form_that_was_fastest(result: Result, folder: Path, forms: bool) -> None:
    assert result.graph is not None
    text = print_torch(result.graph, forms=forms)
    assert forms == (text != result.torch_source)
    measured = dataclasses.replace(
        result, source="", torch_source=text, origin=dataclasses.replace(result.origin, mode="inductor")
    )
    loaded = prism.load(measured.save(folder), linear)
    assert loaded.torch_source == text
    edit(folder, "torch_form.py", lambda t: t + "# changed\n")
    with pytest.raises(ForeignRun, match=r"prints as another torch_form\.py"):
        prism.load(folder)


def test_a_later_save_leaves_nothing_of_an_earlier_one(result: Result, folder: Path) -> None:
    lost = dataclasses.replace(
        result, source="", graph=None, certificate=None, origin=dataclasses.replace(result.origin, mode="original")
    )
    lost.save(folder)
    saved = read_run(folder)
    assert saved.graph is None
    assert not (folder / "kernel.py").exists()
    given = inputs()
    torch.testing.assert_close(prism.load(folder, linear)(*given), linear(*given))
    with pytest.raises(InputError, match="was fastest, and it is not saved"):
        prism.load(folder)(*given)


# ------------------------------------------------------------------------------------------------- damage


def edit(folder: Path, name: str, change: Callable[[str], str], *, sign: bool = True) -> None:
    """Change a file; with ``sign``, make the manifest agree, as someone with a purpose would."""
    path = folder / name
    before = path.read_text()
    after = change(before)
    assert after != before, "the test changes nothing"
    path.write_text(after)
    if sign and name != MANIFEST:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"][name] = hashlib.sha256(after.encode()).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(manifest))


def in_manifest(change: Callable[[dict[str, object]], None]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        manifest = json.loads(text)
        change(manifest)
        return json.dumps(manifest)

    return changed


def replace_by_link(folder: Path) -> None:
    (folder.parent / "elsewhere.py").write_text((folder / "kernel.py").read_text())
    (folder / "kernel.py").unlink()
    (folder / "kernel.py").symlink_to(folder.parent / "elsewhere.py")


def replace_by_pipe(folder: Path) -> None:
    (folder / "report.json").unlink()
    os.mkfifo(folder / "report.json")


def sparse(folder: Path) -> None:
    with (folder / "report.json").open("r+b") as file:
        file.truncate(1 << 33)


DAMAGE: dict[str, tuple[Callable[[Path], object], type[PrismError], str]] = {
    "no folder": (shutil.rmtree, RunNotFound, "no run folder"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), RunNotFound, "no run.json"),
    "missing file": (lambda f: (f / "sgraph.py").unlink(), UnreadableRun, "No such file"),
    "cut off": (
        lambda f: edit(f, "kernel.py", lambda t: t[: len(t) // 2], sign=False),
        UnreadableRun,
        "kernel.py is not the file that was saved",
    ),
    "manifest cut off": (lambda f: edit(f, MANIFEST, lambda t: t[:200]), UnreadableRun, "JSON"),
    "one byte": (lambda f: edit(f, "sgraph.py", lambda t: t.replace("32", "33", 1), sign=False), UnreadableRun, "hash"),
    "binary": (lambda f: (f / MANIFEST).write_bytes(bytes(range(256))), UnreadableRun, "JSON"),
    "pickle": (lambda f: (f / MANIFEST).write_bytes(b"cos\nsystem\n(S'true'\ntR."), UnreadableRun, "JSON"),
    "version": (
        lambda f: edit(f, MANIFEST, in_manifest(lambda m: m.update(format=2))),
        ForeignRun,
        "format 2, this version reads 1",
    ),
    "traversal": (
        lambda f: edit(f, MANIFEST, in_manifest(lambda m: m.update(files={"../x": "0" * 64}))),
        UnreadableRun,
        "no file of a run",
    ),
    "link": (replace_by_link, UnreadableRun, "symbolic link"),
    "pipe": (replace_by_pipe, UnreadableRun, "no plain file"),
    "huge": (sparse, UnreadableRun, "bytes where at most"),
    "nested": (lambda f: (f / MANIFEST).write_text("[" * 100_000), UnreadableRun, "recursion limit"),
    "graph that runs code": (
        lambda f: edit(f, "sgraph.py", lambda _: "import os\nos.abort()\n"),
        UnreadableRun,
        "Import statement",
    ),
    "kernel with another claim": (
        lambda f: edit(f, "kernel.py", lambda t: t + "\nraise SystemExit\n"),
        ForeignRun,
        "prints as another kernel.py",
    ),
    "parameters of other kernels": (
        lambda f: edit(f, MANIFEST, in_manifest(lambda m: m.update(parameters={"kernel_0": {"tile_q": 16}}))),
        UnreadableRun,
        "parameters are not those",
    ),
    "certificate": (
        lambda f: edit(f, "certificate.json", lambda t: t.replace('"proved"', '"certain"')),
        UnreadableRun,
        "status",
    ),
    "report of another program": (
        lambda f: edit(f, "report.json", lambda t: t.replace('"linear"', '"other"')),
        UnreadableRun,
        "another program or target",
    ),
    "not UTF-8": (lambda f: (f / "sgraph.py").write_bytes(b"\xff\xfe"), UnreadableRun, "hash"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str, folder: Path) -> None:
    spoil, error, words = DAMAGE[damage]
    spoil(folder)
    with pytest.raises(error) as refused:
        prism.load(folder)
    assert words in str(refused.value)
    assert "try:" in str(refused.value)


def test_a_wrong_family_is_refused_whatever_the_hashes_say(folder: Path) -> None:
    """The kernel leaves out the gelu: the text is in order and the proof is not."""
    edit(folder, "sgraph.py", lambda t: t.replace("weight_k_n * gelu_tanh_1", 'weight_k_n * leaf("x", (m, k))'))
    with pytest.raises(UnreadableRun, match="not proved"):
        prism.load(folder)


def test_a_hundred_random_corruptions_are_refused_or_harmless(result: Result, folder: Path) -> None:
    draw = random.Random(0)
    for number in range(100):
        target = folder.parent / f"run{number}"
        shutil.copytree(folder, target)
        path = target / draw.choice(sorted(p.name for p in folder.iterdir()))
        data = bytearray(path.read_bytes())
        for _ in range(draw.choice((1, 1, 4, 64))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        spoiled = bytes(data[: draw.randrange(len(data))] if number % 4 == 0 else data)
        if spoiled == path.read_bytes():
            continue
        path.write_bytes(spoiled)
        try:
            found: SavedRun = read_run(target)
        except PrismError as refused:
            assert "try:" in str(refused)
        else:  # the manifest has no hash of itself: what it says of versions is only for people
            assert path.name == MANIFEST
            assert (found.source, found.graph, found.report) == (result.source, result.graph, result.record)
