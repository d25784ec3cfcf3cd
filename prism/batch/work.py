"""What a worker does with a task: the same search as everywhere, its result returned by value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prism.batch.task import Done, Stored, Task
from sgraph.errors import FileOrFunctionNotFound

if TYPE_CHECKING:
    from prism.frontend import LoadedFunction
    from prism.pipeline import Request
    from prism.result import Result
    from prism.saved import SavedRun
    from prism.store import Key


def search(task: Task) -> Done:
    """Search for a task's subgraph, unless the store has its result; the driver writes what is returned.

    Raises:
        PrismError: one of its subclasses, for everything that trying again would not mend.
    """
    from prism.pipeline import run
    from prism.progress import Progress
    from prism.settings import load
    from prism.shelf import request_key

    settings = load()
    request = request_of(task)
    key = request_key(request)
    known = _known(key, settings.cache_dir) if settings.store else None
    if known is not None:
        return _by_value(key, _restored(known, request))
    return _by_value(key, run(request, settings, Progress()))


def capture(task: Task) -> Done:
    """The null device: the function is loaded and captured, nothing is searched."""
    from prism.pipeline import captured

    program, _ = captured(request_of(task))
    return Done({"program": program.name, "outputs": len(program.outputs), "status": "captured"})


def request_of(task: Task) -> Request:
    """The search that a task asks for.

    Raises:
        FileOrFunctionNotFound: its file or function does not exist, or does not load.
        InputError: the file offers no example inputs.
        InputSpecError: a shape names an input that the function does not have.
    """
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.pipeline import Request

    loaded = _exported(Path(task.function)) if task.function.endswith(".pt2") else load_function(task.function)
    inputs, sizes = override_inputs(loaded, [parse_input_spec(text) for text in task.inputs])
    return Request(
        loaded.function,
        tuple(inputs),
        loaded.name,
        sizes,
        task.target or None,
        task.effort,
        task.seed,
        Path(task.folder),
        frozenset(task.constant),
        use_store=False,
    )


def _exported(path: Path) -> LoadedFunction:
    """A program that ``torch.export.save`` wrote, as a module with its example inputs."""
    import torch

    from prism.frontend import LoadedFunction

    try:
        program = torch.export.load(path)
    except Exception as error:  # a damaged archive fails in many ways
        raise FileOrFunctionNotFound(
            f"{path} is no exported program: {type(error).__name__}: {str(error)[:200]}",
            where=str(path),
            do="write it with torch.export.save, by this version of torch",
        ) from error
    given = program.example_inputs
    tensors = tuple(t for t in given[0] if isinstance(t, torch.Tensor)) if given is not None else ()
    name = "".join(c if c.isalnum() else "_" for c in path.stem)
    return LoadedFunction(program.module(), tensors, path, name if name.isidentifier() else f"exported_{name}")


def _known(key: Key, cache_dir: Path) -> SavedRun | None:
    """What the store has for this key; only read, for the driver is the one who writes."""
    from prism.store import open_store
    from sgraph.errors import ForeignRun, ForeignStore, UnreadableRun, UnreadableStore

    try:
        with open_store(cache_dir) as store:
            return store.get(key)
    except (UnreadableRun, ForeignRun, UnreadableStore, ForeignStore):
        return None  # the driver, who writes to it, says what is wrong with the store


def _restored(known: SavedRun, request: Request) -> Result:
    from prism.restored import restore

    return restore(known, request.function)


def _by_value(key: Key, result: Result) -> Done:
    record = result.record
    best = record.best
    summary: dict[str, object] = {
        "program": record.program,
        "target": record.target,
        "key": key.digest,
        "best": best.name if best is not None else "",
        "status": best.status if best is not None else "nothing found",
        "timing": record.timing,
        "families": record.families.enumerated,
        "proved": record.families.proved,
        "kernels": best.kernels if best is not None else 0,
        "modelled_us": best.modelled_us if best is not None else None,
        "measured_us": best.measured_us if best is not None else None,
        "speedup": record.speedup,
    }
    stored = Stored(
        key.program,
        record.target,
        tuple((f.name, f.text) for f in key.fields),
        result.manifest().model_dump_json(indent=2).encode() + b"\n",
        {name: text.encode() for name, text in result.files().items()},
    )
    return Done(summary, stored)
