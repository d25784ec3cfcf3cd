"""Load emitted kernel sources, and own what is process-wide about Triton: its settings and who has patched it.

A source is one Python file with ``@triton.jit`` functions and ``launch(*tensors, config=None)``. Triton reads a
kernel's text back from its file, so a source that exists only as a string is written to a private folder first.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import Signature
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from sgraph.errors import CompilationFailed, SettingsError

FP_FUSION = "1"
"""Whether ``a * b + c`` contracts to one rounding. Triton 3.10 turns its default off: here it is pinned on."""

Grid = tuple[int, int, int]
"""Programs of a launch along x, y and z."""


class JitKernel(Protocol):
    """What is used here of a ``triton.JITFunction``, alike in Triton 3.6 to 3.9."""

    fn: Callable[..., Any]
    """The Python function that was decorated."""
    src: str
    """Its text from ``def`` on, without decorators and indentation."""
    raw_src: list[str]
    """Its lines, decorators included."""
    starting_line_number: int
    """Line of the first decorator in the file."""
    signature: Signature
    """Its parameters."""
    params: Sequence[Any]
    """Triton's view of them; ``is_constexpr`` tells the compile-time ones."""
    device_caches: dict[object, Any]
    """Compiled kernels by the driver's current device."""


# ------------------------------------------------------------------------------------------------- settings


def fp_fusion() -> str:
    """Whether kernels compiled here contract multiply-adds; what the user's environment says comes first."""
    return os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", FP_FUSION)


@cache
def prepare_triton() -> None:
    """Pin what would otherwise depend on the Triton version; safe to call often, before any patching.

    Imports the code generator, because it copies ``tl.minimum`` and others when it is first imported: imported
    while the interpreter's patches are in place, it would keep the patched ones for good.

    Raises:
        SettingsError: ``TRITON_INTERPRET`` is set. Triton then decorates its own library for its stock
            interpreter, and nothing compiles in this process.
    """
    fp_fusion()
    importlib.import_module("triton.compiler.code_generator")
    library_function: object = importlib.import_module("triton.language").sum
    if type(library_function).__name__ != "JITFunction":
        raise SettingsError(
            "TRITON_INTERPRET is set, so Triton was loaded without its compiler",
            where="environment",
            do="unset TRITON_INTERPRET: kernels are interpreted here without it",
        )


class _Turn:
    """The right to have Triton patched: one holder per process, and never twice by one thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holder: tuple[int, str] | None = None

    @contextmanager
    def taken(self, purpose: str) -> Generator[None]:
        holder, me = self.holder, threading.get_ident()
        if holder is not None and holder[0] == me:
            raise RuntimeError(f"{purpose} inside {holder[1]}: one at a time in a thread")
        with self.lock:
            self.holder = (me, purpose)
            try:
                yield
            finally:
                self.holder = None


_turn = _Turn()


class Patches:
    """Attributes replaced for a while, restored in reverse order."""

    def __init__(self) -> None:
        self._undo: list[tuple[object, str, bool, object]] = []

    def set(self, owner: object, name: str, value: object) -> None:
        """Replace ``owner.name``, remembering whether ``owner`` itself had it."""
        own = vars(owner)
        self._undo.append((owner, name, name in own, own.get(name)))
        setattr(owner, name, value)

    def restore(self) -> None:
        """Put everything back."""
        while self._undo:
            owner, name, had, value = self._undo.pop()
            if had:
                setattr(owner, name, value)
            else:
                delattr(owner, name)


@contextmanager
def patching(purpose: str) -> Generator[Patches]:
    """Patch Triton for the length of a ``with`` block.

    Interpreting and offline compiling both change Triton for the whole process, so they take turns: another
    thread waits, and a nested use in the same thread raises RuntimeError instead of waiting for itself.
    """
    prepare_triton()
    with _turn.taken(purpose):
        patches = Patches()
        try:
            yield patches
        finally:
            patches.restore()


# ------------------------------------------------------------------------------------------------ launching


def bind_launch(
    kernel: JitKernel, args: Sequence[object], keywords: Mapping[str, object]
) -> tuple[dict[str, Any], dict[str, object]]:
    """Split what a launch was given into the kernel's arguments, defaults included, and launch options.

    Raises:
        TypeError: an argument is missing or given twice.
        KeyError: a keyword is neither a parameter nor a launch option of the CUDA back end.
    """
    from triton.backends.nvidia.compiler import CUDAOptions

    known = set(CUDAOptions.__dataclass_fields__)
    parameters = kernel.signature.parameters
    options = {k: v for k, v in keywords.items() if k not in parameters}
    for name in options:
        if name not in known:
            raise KeyError(f"{kernel.fn.__name__} has no parameter or launch option {name!r}")
    bound = kernel.signature.bind(*args, **{k: v for k, v in keywords.items() if k in parameters})
    bound.apply_defaults()
    return dict(bound.arguments), options


def launch_grid(grid: object, arguments: Mapping[str, Any]) -> Grid:
    """The grid of a launch as three numbers; a callable grid is asked with the kernel's arguments."""
    sizes: Any = grid(arguments) if callable(grid) else grid
    if isinstance(sizes, int):
        sizes = (sizes,)
    numbers = [int(n) for n in sizes]
    if len(numbers) > 3:
        raise ValueError(f"a grid has at most three dimensions, not {numbers}")
    x, y, z = (*numbers, 1, 1, 1)[:3]
    return x, y, z


# -------------------------------------------------------------------------------------------------- loading

_modules: dict[tuple[str, str], ModuleType] = {}
_loading = threading.Lock()


@cache
def _folder() -> Path:
    """This process's private folder of sources, removed at exit."""
    folder = Path(tempfile.mkdtemp(prefix="prism-sources-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child must not take it from its parent
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def load_source(source: str, name: str) -> ModuleType:
    """The module of a kernel source, executed at most once per process for one text and name.

    ``name`` is only for people: it appears in the module's name and in tracebacks. The text is executed as
    Python with the rights of this process: give it sources that Prism printed, or that you have read.

    Raises:
        CompilationFailed: the text does not run as a module; the cause is chained.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()
    with _loading:
        known = _modules.get((name, digest))
        if known is not None:
            return known
        stem = re.sub(r"\W", "_", name) or "kernel"
        path = _folder() / f"{stem}_{digest[:16]}.py"
        path.write_text(source, encoding="utf-8")
        module = _modules[name, digest] = _execute(path, f"prism_kernel_{stem}_{digest[:16]}")
        return module


def load_file(path: Path) -> ModuleType:
    """The module of a kernel source in a file, from a private copy: later edits of the file do not reach it.

    Raises:
        CompilationFailed: the file cannot be read, or does not run as a module.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompilationFailed(f"cannot read kernel source: {error}", where=str(path)) from error
    return load_source(source, path.stem)


def _execute(path: Path, module_name: str) -> ModuleType:
    prepare_triton()
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # inspect and dataclasses look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise CompilationFailed(
            f"the kernel source does not load: {type(error).__name__}: {error}",
            where=str(path),
            do="run the file with python: it needs nothing but torch and triton",
        ) from error
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
