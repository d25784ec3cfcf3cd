"""What the README shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[2] / "README.md"


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path))
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    example = tmp_path / "example.py"
    example.write_text(code)
    names: dict[str, object] = {}
    exec(compile(code, str(example), "exec"), names)
    y, expected = names["y"], names["rmsnorm_linear"](names["x"], names["g"], names["W"])  # pyright: ignore[reportCallIssue]
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert "families and baselines" in capsys.readouterr().out


def test_every_command_it_names_exists() -> None:
    text = README.read_text()
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile
