"""``FILE::function``: which function a person means, and the example inputs that its file offers."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from sgraph.errors import FileOrFunctionNotFound, InputError

if TYPE_CHECKING:
    import torch

INPUTS = "inputs"
"""Name of the function that returns example inputs; with ``_<function>`` behind it, for one function only."""


@dataclass(frozen=True, slots=True)
class LoadedFunction:
    """A function from a file."""

    function: Callable[..., object]
    """The function itself."""
    inputs: tuple[torch.Tensor, ...]
    """Example inputs, in the order of its parameters."""
    path: Path
    """The file."""
    name: str
    """Name of the function."""

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that the example inputs are for.

        Raises:
            InputError: there are too few or too many inputs.
        """
        from prism.frontend.arguments import location, parameter_names

        return parameter_names(self.function, self.inputs, self.name, location(self.function))


def load_function(target: str) -> LoadedFunction:
    """Load ``FILE::function``, or ``FILE`` if it has exactly one public function, and call its inputs function.

    Raises:
        FileOrFunctionNotFound: the file or the function does not exist, or the file does not load.
        InputError: the file offers no usable inputs for the function.
    """
    module, path, name, function = _find(target)
    return LoadedFunction(function, _call_inputs(module, name, target.partition("::")[0]), path.resolve(), name)


def load_without_inputs(target: str) -> Callable[..., object]:
    """The function that ``FILE::function`` names; its file need not offer example inputs.

    Raises:
        FileOrFunctionNotFound: the file or the function does not exist, or the file does not load.
    """
    return _find(target)[-1]


def _find(target: str) -> tuple[ModuleType, Path, str, Callable[..., object]]:
    """The loaded module of ``FILE::function``, its file, and the function with its name."""
    file, _, name = target.partition("::")
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileOrFunctionNotFound(f"there is no file {file}", where=target, do=_nearby(path))
    module = _load(path, target)
    functions = _public_functions(module)
    if not name:
        name = _only(functions, file)
    if name not in functions:
        close = difflib.get_close_matches(name, functions, n=3) or list(functions)
        raise FileOrFunctionNotFound(
            f"{file} has no function `{name}`",
            where=target,
            do=f"one of: {', '.join(f'{file}::{c}' for c in close)}" if close else "define a function at top level",
        )
    return module, path, name, functions[name]


def _nearby(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"check the path; the folder {folder} does not exist either"
    names = sorted(p.name for p in folder.glob("*.py"))
    close = difflib.get_close_matches(path.name, names, n=3) or difflib.get_close_matches(f"{path.name}.py", names, n=3)
    return f"did you mean {' or '.join(str(folder / c) for c in close)}?" if close else "check the path"


def _load(path: Path, target: str) -> ModuleType:
    # A name of its own keeps the file from shadowing an installed module; inspect and pickle want it registered.
    name = f"prism_loaded_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise FileOrFunctionNotFound(f"{path} is not a Python file", where=target, do="give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise FileOrFunctionNotFound(
            f"{path} cannot be loaded: {type(error).__name__}: {error}",
            where=_line_in(error, path),
            do=f"make `python {path}` work first",
        ) from error
    finally:
        sys.path.remove(folder)
    return module


def _line_in(error: BaseException, path: Path) -> str:
    """The last line of the file itself that an exception passed through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}:{error.lineno}"
    line = str(path)
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(path.resolve()):
            line = f"{path}:{step.tb_lineno}"
        step = step.tb_next
    return line


def _public_functions(module: ModuleType) -> dict[str, Callable[..., object]]:
    """Functions and module objects that the file itself defines, without those that provide inputs."""
    members = cast("Mapping[str, object]", vars(module))
    return {
        name: cast("Callable[..., object]", value)
        for name, value in members.items()
        if not name.startswith("_") and not _provides_inputs(name) and _is_own_function(value, module)
    }


def _provides_inputs(name: str) -> bool:
    return name == INPUTS or name.startswith(f"{INPUTS}_")


def _is_own_function(value: object, module: ModuleType) -> bool:
    if inspect.isfunction(value):
        return value.__module__ == module.__name__
    nn = sys.modules.get("torch.nn")
    return nn is not None and isinstance(value, nn.Module)


def _only(functions: Sequence[str] | Mapping[str, object], file: str) -> str:
    names = list(functions)
    if len(names) == 1:
        return names[0]
    raise FileOrFunctionNotFound(
        f"{file} has {'several functions' if names else 'no public function'}",
        where=file,
        do=f"name one: {', '.join(f'{file}::{n}' for n in names)}" if names else "define a function at top level",
    )


def _call_inputs(module: ModuleType, name: str, file: str) -> tuple[torch.Tensor, ...]:
    import torch

    found = [n for n in (f"{INPUTS}_{name}", INPUTS) if callable(getattr(module, n, None))]
    if not found:
        raise InputError(
            f"{file} offers no example inputs for `{name}`",
            where=file,
            do=f"define a function {INPUTS}() or {INPUTS}_{name}() that returns a tuple of tensors",
        )
    provider = found[0]
    try:
        result = cast("object", getattr(module, provider)())
    except Exception as error:
        raise InputError(
            f"{provider}() failed: {type(error).__name__}: {error}",
            where=_line_in(error, Path(file)),
            do="make it return a tuple of tensors",
        ) from error
    values = (result,) if isinstance(result, torch.Tensor) else result
    if not isinstance(values, tuple | list):
        raise InputError(
            f"{provider}() returns something of type {type(result).__name__}",
            where=file,
            do="make it return a tuple of tensors",
        )
    tensors = cast("Sequence[object]", values)
    for number, value in enumerate(tensors):
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"item {number} of {provider}() is of type {type(value).__name__}, not a tensor",
                where=file,
                do="make it return a tuple of tensors",
            )
    return tuple(cast("Sequence[torch.Tensor]", tensors))
