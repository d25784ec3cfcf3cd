"""Loading ``FILE::function`` and its example inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from prism.frontend import load_function
from sgraph.errors import FileOrFunctionNotFound, InputError

TWO_FUNCTIONS = """
    import torch

    def double(x):
        return x * 2

    def triple(x):
        return x * 3

    def _private(x):
        return x

    def inputs():
        return (torch.ones(2, 3),)

    def inputs_triple():
        return [torch.ones(4)]
"""


def write(folder: Path, text: str, name: str = "program.py") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


def test_a_function_is_loaded_with_its_inputs(tmp_path: Path) -> None:
    path = write(tmp_path, TWO_FUNCTIONS)
    loaded = load_function(f"{path}::double")
    assert (loaded.name, loaded.path, loaded.parameters) == ("double", path, ["x"])
    assert [tuple(x.shape) for x in loaded.inputs] == [(2, 3)]
    assert loaded.function(21) == 42


def test_inputs_of_one_function_come_first(tmp_path: Path) -> None:
    loaded = load_function(f"{write(tmp_path, TWO_FUNCTIONS)}::triple")
    assert [tuple(x.shape) for x in loaded.inputs] == [(4,)]


def test_the_only_function_needs_no_name(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        import torch
        from torch import matmul

        def product(x, y):
            return matmul(x, y)

        def inputs():
            return torch.ones(2, 2), torch.ones(2, 2)
        """,
    )
    assert load_function(str(path)).name == "product"


def test_a_module_object_can_be_loaded(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        import torch

        block = torch.nn.Linear(3, 4)

        def inputs():
            return torch.ones(2, 3)
        """,
    )
    loaded = load_function(f"{path}::block")
    assert len(loaded.inputs) == 1
    assert loaded.parameters == ["input"]


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "FACTOR = 5", "neighbour_of_program.py")
    text = """
        import torch
        import neighbour_of_program

        def scale(x):
            return x * neighbour_of_program.FACTOR

        def inputs():
            return (torch.ones(1),)
        """
    before = list(sys.path)
    assert load_function(f"{write(tmp_path, text)}::scale").function(2) == 10
    assert sys.path == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{folder}/progam.py::double", r"there is no file .*progam\.py[\s\S]*did you mean .*program\.py\?"),
        ("{folder}/nowhere/program.py", r"the folder .*nowhere does not exist either"),
        ("{folder}/program.py::dubble", r"has no function `dubble`[\s\S]*one of: .*program\.py::double"),
        ("{folder}/program.py::zzz", r"one of: .*::double, .*::triple"),
        ("{folder}/program.py::_private", r"has no function `_private`"),
        ("{folder}/program.py::inputs", r"has no function `inputs`"),
        ("{folder}/program.py", r"has several functions[\s\S]*name one: .*::double, .*::triple"),
        ("{folder}/empty.py", r"has no public function"),
        ("{folder}/text.txt", r"is not a Python file"),
        ("{folder}/syntax.py", r"cannot be loaded: SyntaxError[\s\S]*syntax\.py:2"),
        ("{folder}/raises.py", r"cannot be loaded: ZeroDivisionError[\s\S]*raises\.py:3[\s\S]*python .*work first"),
        ("{folder}/exits.py", r"cannot be loaded: SystemExit"),
    ],
)
def test_what_cannot_be_loaded_is_refused(tmp_path: Path, target: str, message: str) -> None:
    write(tmp_path, TWO_FUNCTIONS)
    write(tmp_path, "", "empty.py")
    write(tmp_path, "", "text.txt")
    write(tmp_path, "\ndef broken(:", "syntax.py")
    write(tmp_path, "\nx = 1\ny = x / 0\n", "raises.py")
    write(tmp_path, "raise SystemExit(3)", "exits.py")
    with pytest.raises(FileOrFunctionNotFound, match=message) as caught:
        load_function(target.format(folder=tmp_path))
    assert caught.value.do


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("", r"offers no example inputs for `double`[\s\S]*inputs\(\) or inputs_double\(\)"),
        ("def inputs():\n    return 3", r"inputs\(\) returns something of type int"),
        ("def inputs():\n    return (3,)", r"item 0 of inputs\(\) is of type int, not a tensor"),
        ("def inputs():\n    return 1 / 0", r"inputs\(\) failed: ZeroDivisionError[\s\S]*program\.py:4"),
        ("def inputs(n):\n    return n", r"inputs\(\) failed: TypeError"),
    ],
)
def test_unusable_inputs_are_refused(tmp_path: Path, provider: str, message: str) -> None:
    path = write(tmp_path, f"def double(x):\n    return x * 2\n{provider}\n")
    with pytest.raises(InputError, match=message) as caught:
        load_function(f"{path}::double")
    assert caught.value.do


def test_the_frontend_does_not_import_torch_by_itself() -> None:
    check = "import sys, prism.frontend; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0
