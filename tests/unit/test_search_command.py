"""``prism search`` and ``prism show``: the funnel adds up, families are listed and shown in full, mistakes are told."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest

from prism.cli import main
from sgraph.ir import SGraph
from sgraph.reader import read

PROGRAM = """
import torch

def normed(x, g, w):
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g) @ w

def inputs():
    return torch.randn(16, 64), torch.randn(64), torch.randn(64, 32)
"""


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return f"{path}::normed"


def prism(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prism", *arguments, "--target", "h200"])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


def test_the_funnel_adds_up(source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert prism(monkeypatch, "search", source, "--effort", "quick", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    families = record["families"]
    assert [f["number"] for f in families] == list(range(1, record["listed"] + 1))
    assert sum(record["statuses"].values()) == record["listed"]
    for kind in ("proved", "deferred"):
        counted = sum(n for status, n in record["statuses"].items() if status.startswith(kind))
        assert counted == sum(f["status"].startswith(kind) for f in families)
    assert all(a["estimate_us"] <= b["estimate_us"] for a, b in itertools.pairwise(families))
    assert all(f["bound_us"] <= f["estimate_us"] for f in families)
    if record["next_bound_us"] is not None:
        assert any(reason.startswith("deferred") for reason in record["dropped"])


def test_the_text_is_best_first_and_says_what_was_set_aside(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prism(monkeypatch, "search", source, "--top", "2") == 0
    text = capsys.readouterr().out
    assert "[1] bound" in text
    assert "[3]" not in text
    for words in ("families listed", "limit: intermediate without a reduction", "modelled", "seconds: load"):
        assert words in text


def test_constants_may_be_folded(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prism(monkeypatch, "search", source, "--constant", "g", "--constant", "w", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert any(k["fold"] for f in record["families"] for k in f["kernels"])


def test_a_family_is_shown_in_full(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prism(monkeypatch, "show", source, "2") == 0
    text = capsys.readouterr().out
    for words in ("family 2 of normed", "proved", "schedule of kernel k0", "lower bound in seconds", "SGraph(program"):
        assert words in text
    assert prism(monkeypatch, "show", source, "--family", "2", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    graph = read(record["python"])
    assert isinstance(graph, SGraph)
    assert str(graph) == record["text"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("9999",), ["family 9999", "listed", "--effort"]),
        (("0",), ["family 0"]),
        (("1", "--family", "2"), ["two families", "name one"]),
    ],
)
def test_a_family_that_does_not_exist(
    arguments: tuple[str, ...],
    words: list[str],
    source: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prism(monkeypatch, "show", source, *arguments) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


def test_an_unknown_constant_is_a_mistake(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prism(monkeypatch, "search", source, "--constant", "weights") == 2
    assert "weights" in capsys.readouterr().err
