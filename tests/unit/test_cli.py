"""The command line: mistakes are one screen and exit code 2; --json is complete."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from prism.cli import main

GOOD = """
import torch

def linear(x, W):
    return x @ W

def inputs():
    return torch.randn(8, 32), torch.randn(32, 48)
"""


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path / "cache"))


def prism(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["prism", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


def write(folder: Path, text: str, name: str = "program.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


MISTAKES = {
    "unsupported operator": (
        "import torch\ndef f(x):\n    return torch.linalg.inv(x)\ndef inputs():\n    return (torch.randn(4, 4),)\n",
        ("::f", "--no-fallback"),
        ["linalg", "program.py:3"],
    ),
    "non-tensor argument": (
        "import torch\ndef f(x, n):\n    return x * n\ndef inputs():\n    return torch.randn(4, 4), 3\n",
        ("::f",),
        ["int", "tensor"],
    ),
    "mismatched shapes": (
        "import torch\ndef f(x, W):\n    return x @ W\ndef inputs():\n    return torch.ones(4, 5), torch.ones(6, 7)\n",
        ("::f",),
        ["program.py:3"],
    ),
    "unknown target": (GOOD, ("::linear", "--target", "h2000"), ["h2000", "h200"]),
    "no such function": (GOOD, ("::lineer",), ["lineer", "linear"]),
    "unknown effort": (GOOD, ("::linear", "--effort", "huge"), ["huge", "quick"]),
    "bad input spec": (GOOD, ("::linear", "--input", "x=bf17[8,32]"), ["bf17", "bf16"]),
    "input for no parameter": (GOOD, ("::linear", "--input", "y=bf16[8,32]"), ["y", "x, W"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_screen_and_exit_code_2(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, (function, *options), expected = MISTAKES[mistake]
    file = write(tmp_path, text)
    assert prism(monkeypatch, "optimize", file + function, *options) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= 24
    assert "try:" in shown
    for word in expected:
        assert word in shown, shown


def test_a_file_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prism(monkeypatch, "optimize", str(tmp_path / "nowhere.py::f")) == 2
    assert "nowhere.py" in capsys.readouterr().err


def test_an_unwritable_output_folder_is_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    file = write(tmp_path, GOOD)
    code = prism(monkeypatch, "optimize", f"{file}::linear", "--target", "h200", "--out", str(blocker / "out"))
    assert code == 2
    shown = capsys.readouterr().err
    assert str(blocker / "out") in shown
    assert "--out" in shown


def test_json_has_what_scripts_rely_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, GOOD)
    arguments = ("--target", "h200", "--effort", "quick", "--json", "--out", str(tmp_path / "run"))
    assert prism(monkeypatch, "optimize", f"{file}::linear", *arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["program"] == "linear"
    assert record["target"] == "h200"
    assert record["families"]["proved"] >= 2
    assert isinstance(record["families"]["dropped"], dict)
    best = record["best"]
    assert best["modelled_us"] > 0
    assert 0 < best["speed_of_light_percent"] <= 100
    assert best["kernels"] >= 1
    assert best["parameters"]
    assert record["verdict"]["status"] == "proved"
    assert Path(record["source_path"]).read_text().startswith('"""')
    assert {"capture", "saturate", "generate", "prove"} <= set(record["seconds"])
    assert (tmp_path / "run" / "certificate.json").exists()


def test_traceback_is_shown_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prism", "optimize", str(tmp_path / "nowhere.py::f"), "--traceback"])
    with pytest.raises(Exception, match="nowhere"):
        main()
