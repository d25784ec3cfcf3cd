"""A saved run made callable again: its text is printed anew and compared, never executed as it was stored.

The family is read as data, proved again (gate 1), given its schedules and printed by the same printers with the same
parameters. What runs is that new text, and only where its hash is the one the run was saved with.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism.guard import Guarded
from prism.modules import with_state, without_state
from prism.result import Origin, Result
from prism.saved import SavedRun, read_run
from sgraph.errors import ForeignRun, InputError, PrismError, UnreadableRun
from sgraph.ir import SGraph

if TYPE_CHECKING:
    from autotune.parameters import Parameters
    from sgraph.schedule import Schedule

COMPILE_SECONDS: Final = 120.0
"""The longest that the first call of a run through Inductor compiles; after that it runs as printed."""
LARGEST_PARAMETER: Final = 1 << 20

log = logging.getLogger("prism.store")


def load(folder: str | Path, original: Callable[..., object] | None = None) -> Result:
    """The result that ``Result.save`` wrote, callable again.

    Nothing that the folder holds is executed: the sGraph is parsed, proved and printed again, and the new text must
    have the hash of the saved one.

    Args:
        folder: the saved run.
        original: the function that was searched for. It answers calls that the run is not for (other shapes or
            types), and everything where a baseline won; a module also gives its state. Without it such calls raise.

    Raises:
        RunNotFound: the folder is no saved run.
        UnreadableRun: it is cut off or was changed.
        ForeignRun: it is of another version, or this version prints other text for it.
    """
    return restore(read_run(folder), original)


def restore(saved: SavedRun, original: Callable[..., object] | None = None) -> Result:
    """The result of a run that was read.

    Raises:
        UnreadableRun: the family is not proved, or its parameters are not those of its kernels.
        ForeignRun: this version prints other text for it.
    """
    manifest = saved.manifest
    source, torch_source = printed(saved)
    reference = with_state(original) if original is not None else _refusing(saved)
    run = Guarded(saved.program, _callable(saved, source, torch_source, reference), reference)
    whole = len(manifest.inputs) == manifest.own_inputs
    return Result(
        run if whole or original is None else without_state(run, original),
        saved.report,
        source,
        torch_source,
        saved.graph,
        saved.certificate,
        Origin(
            saved.program,
            tuple(i.shape for i in manifest.inputs),
            manifest.own_inputs,
            manifest.mode,
            manifest.parameters,
            manifest.header,
        ),
    )


def printed(saved: SavedRun) -> tuple[str, str]:
    """Triton source and torch form of the best family, printed anew; each empty where the run has none.

    Raises:
        UnreadableRun: the family is not proved, or its parameters are not those of its kernels.
        ForeignRun: this version prints other text than the run was saved with.
    """
    if saved.graph is None:
        return "", saved.torch_source  # of a family that lost; text to read, never run
    try:
        schedules = _proved(saved.graph, saved)
        torch_source = _torch(saved.graph, saved)
        source = _triton(saved, schedules) if saved.manifest.mode == "triton" else ""
    except (UnreadableRun, ForeignRun):
        raise
    except PrismError as problem:
        raise UnreadableRun(problem.seen[:400], where=str(saved.folder), do="search again") from problem
    for name, text in {"torch_form.py": torch_source, "kernel.py": source}.items():
        if text and not _same(saved, name, text):
            raise _otherwise(saved, name)
    return source, torch_source


def _proved(graph: SGraph, saved: SavedRun) -> tuple[Schedule, ...]:
    """The schedules of a stored family, which is trusted no more than a new one."""
    from sgraph.stages import Unschedulable, derive
    from verify.equivalence import prove
    from verify.verdict import Status

    where = str(saved.folder)
    if not graph.decided:
        raise UnreadableRun("the family has no roles", where=where, do="search again")
    try:
        schedules = tuple(derive(kernel) for kernel in graph.kernels)
    except Unschedulable as problem:
        raise UnreadableRun(f"the family has no schedule: {problem}", where=where, do="search again") from problem
    verdict = prove(graph, schedules)
    if verdict.status is not Status.PROVED:
        raise UnreadableRun(f"the family is not proved: {verdict.reason}", where=where, do="search again")
    return schedules


def _torch(graph: SGraph, saved: SavedRun) -> str:
    """The torch form, with functions computed their other way where that is what was saved."""
    from autotune.torch_printer import print_torch

    text = print_torch(graph)
    if saved.manifest.mode == "inductor" and not _same(saved, "torch_form.py", text):
        return print_torch(graph, forms=True)
    return text


def _triton(saved: SavedRun, schedules: tuple[Schedule, ...]) -> str:
    from autotune.lower import lower

    assert saved.graph is not None
    return lower(saved.graph, schedules, _parameters(saved.graph, saved), saved.manifest.header)


def _parameters(graph: SGraph, saved: SavedRun) -> Parameters:
    """The parameters, after a look that they are those of these kernels."""
    from autotune.parameters import Parameters, tiled_axes

    config = saved.manifest.parameters
    expected = {
        f"kernel_{i}": {*(f"tile_{a}" for a in tiled_axes(k)), "split", "warps", "stages", "group"}
        for i, k in enumerate(graph.kernels)
    }
    named = {kernel: set(numbers) for kernel, numbers in config.items()}
    fits = named == expected and all(_possible(name, n) for k in config.values() for name, n in k.items())
    if not fits:
        raise UnreadableRun("the parameters are not those of the kernels", where=str(saved.folder), do="search again")
    return Parameters.from_config(config)


def _possible(name: str, number: int) -> bool:
    power = number & (number - 1) == 0
    return 1 <= number <= LARGEST_PARAMETER and (power or name in {"stages", "group", "split"})


def _same(saved: SavedRun, name: str, text: str) -> bool:
    """Whether a text is the one that was saved under this name."""
    ended = text if text.endswith("\n") else text + "\n"
    return hashlib.sha256(ended.encode()).hexdigest() == saved.manifest.files[name]


def _otherwise(saved: SavedRun, name: str) -> ForeignRun:
    changed = [
        f"{package} {version} then, {now or 'none'} now"
        for package, version in saved.manifest.versions.items()
        if (now := _versions().get(package)) != version
    ]
    return ForeignRun(
        f"the family prints as another {name} than the saved one" + (f" ({'; '.join(changed)})" if changed else ""),
        where=str(saved.folder),
        do="search again with this version",
    )


def _versions() -> Mapping[str, str]:
    from verify.certificate import versions

    return versions()


# --------------------------------------------------------------------------------------------------- callables


def _callable(
    saved: SavedRun, source: str, torch_source: str, reference: Callable[..., object]
) -> Callable[..., object]:
    """What a call executes."""
    from autotune.torch_printer import load_torch

    match saved.manifest.mode:
        case "triton":
            from prism.on_gpu import by_device

            return by_device(source, saved.program.name, load_torch(torch_source))
        case "eager":
            return load_torch(torch_source)
        case "inductor":
            return ThroughInductor(load_torch(torch_source))
        case "original":
            name = saved.report.best.name if saved.report.best is not None else "eager"
            if name.startswith("inductor"):
                return ThroughInductor(reference, autotune="max-autotune" in name)
            return reference


class ThroughInductor:
    """A function that Inductor compiles at its first call; where it cannot, the function as it is."""

    def __init__(self, function: Callable[..., object], *, autotune: bool = False) -> None:
        self.function = function
        """What is compiled."""
        self.autotune = autotune
        """Whether with max-autotune."""
        self._compiled: Callable[..., object] | None = None
        self._turn = threading.Lock()

    def __call__(self, *inputs: object) -> object:
        """Compile if this is the first call, then run."""
        with self._turn:
            if self._compiled is None:
                self._compiled = self._compile(inputs)
        return self._compiled(*inputs)

    def _compile(self, inputs: tuple[object, ...]) -> Callable[..., object]:
        import torch

        from autotune.cpu_baselines import compile_function

        tensors = [t for t in inputs if isinstance(t, torch.Tensor)]
        if any(t.is_cuda for t in tensors):
            mode = "max-autotune-no-cudagraphs" if self.autotune else None
            return torch.compile(self.function, mode=mode)
        try:
            return compile_function(self.function, tensors, COMPILE_SECONDS, autotune=self.autotune)
        except Exception as problem:  # whatever the compiler raises: the program itself still runs
            log.warning("runs without Inductor: %s: %s", type(problem).__name__, str(problem).splitlines()[:1])
            return self.function


def _refusing(saved: SavedRun) -> Callable[..., object]:
    """What answers where the original function would have to, and was not given."""

    def refuse(*inputs: object) -> object:
        from prism.guard import misfit

        reason = misfit(saved.program, inputs) or f"{saved.program.name} itself was fastest, and it is not saved"
        raise InputError(
            f"the saved run cannot answer this call: {reason}",
            where=str(saved.folder),
            do="prism.load(folder, original=function) calls the function there",
        )

    return refuse
