"""The tutorials run as they are written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.py"))


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(tutorial: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PRISM_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(tutorial)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout


def test_tutorials_are_there() -> None:
    assert {path.stem for path in TUTORIALS} >= {"superoptimize", "read_a_proof", "export"}
