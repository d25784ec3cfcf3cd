"""Importing Prism and asking for help stay light; the five packages must be ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "triton", "egglog", "z3", "optuna", "sympy", "numpy", "networkx", "mpmath")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_prism_pulls_in_nothing_heavy() -> None:
    assert not loaded_by("import prism") & set(HEAVY)


def test_the_command_line_pulls_in_nothing_heavy() -> None:
    assert not loaded_by("import prism.cli") & set(HEAVY)


def test_a_foreign_package_of_the_same_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "verify.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport prism"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert str(tmp_path / "verify.py") in done.stderr
