"""``torch.compile(model, backend="prism")``: Dynamo's graphs divided, searched, and stitched together again.

    torch.compile(model, backend="prism", options={"target": "cpu", "effort": "quick", "fallback": "eager"})

Dynamo calls the backend for each graph that it traces. At the graph's first call, with real tensors, the graph is
divided (``prism.partition``), every region is searched, and what was found is stitched into the graph. Regions that
are the same program at the same sizes, such as the layers of a model, are searched once. What is not in a region runs
through Inductor, or as it is.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch.fx import GraphModule

from prism.partition import Divided, divide
from prism.regions import Partition, Region
from prism.stitching import Observed, Observing, stitched
from sgraph.errors import InputError, NoFeasibleFamily, PrismError, SaturationFailed

if TYPE_CHECKING:
    from prism.result import Result

log = logging.getLogger("prism.search")

NAME: Final = "prism"
"""Under which name torch knows the backend."""
FALLBACKS: Final = ("inductor", "eager")


@dataclass(frozen=True, slots=True)
class Options:
    """What ``torch.compile(..., options=...)`` takes."""

    target: str | None = None
    """As for ``prism.superoptimize``."""
    effort: str = "default"
    """``quick``, ``default`` or ``max``, for each region."""
    seed: int = 0
    """Of every random choice."""
    fallback: Literal["inductor", "eager"] = "inductor"
    """How everything outside the regions runs."""
    out: Path | None = None
    """Folder with one folder for each region's run; None for the cache directory."""
    progress: bool = False
    """Whether to show a live line on a terminal."""

    @staticmethod
    def of(given: Mapping[str, object] | None) -> Options:
        """Options from names and values.

        Raises:
            InputError: one does not exist, or has a value that it cannot have.
        """
        known = [f.name for f in fields(Options)]
        for name, value in (given or {}).items():
            if name not in known:
                raise InputError(f"the backend has no option {name!r}", do=f"use one of {', '.join(known)}")
            if name == "fallback" and value not in FALLBACKS:
                raise InputError(f"fallback={value!r} does not exist", do=f"use one of {', '.join(FALLBACKS)}")
        from prism.effort import effort

        values = dict(given or {})
        effort(str(values.get("effort", "default")))
        if isinstance(values.get("out"), str):
            values["out"] = Path(str(values["out"]))
        return Options(**values)  # pyright: ignore[reportArgumentType]


@dataclass(slots=True)
class Searches:
    """Searches of this process, each done once."""

    results: dict[tuple[object, ...], Result | PrismError] = field(
        default_factory=dict[tuple[object, ...], "Result | PrismError"]
    )
    """What was found, or why nothing was, by region and options."""
    done: int = 0
    """How many searches were run."""
    _turn: threading.RLock = field(default_factory=threading.RLock)

    def find(
        self, region: Region, seen: Observed, function: Callable[..., object], options: Options
    ) -> Result | PrismError:
        """The result for a region: remembered, or searched for now."""
        key = (region.key, options.target, options.effort, options.seed)
        with self._turn:
            if key not in self.results:
                self.done += 1
                try:
                    self.results[key] = _search(region, seen, function, options)
                except (NoFeasibleFamily, SaturationFailed) as problem:
                    log.warning("%s runs as it was written: %s", region.name, problem.seen)
                    self.results[key] = problem
            return self.results[key]


def _search(region: Region, seen: Observed, function: Callable[..., object], options: Options) -> Result:
    from prism.pipeline import Request, run
    from prism.progress import Progress
    from prism.settings import load

    shown = Progress(live=options.progress)
    request = Request(
        function,
        seen.inputs,
        region.name,
        region.sizes,
        options.target,
        options.effort,
        options.seed,
        options.out / region.name if options.out is not None else None,
        masks=frozenset(region.masks),
    )
    with shown.shown(), torch.no_grad():
        return run(request, load(), shown)


@dataclass(slots=True, eq=False)
class CompiledGraph:
    """One graph: divided and searched at its first call, then called."""

    graph: GraphModule
    """As Dynamo traced it."""
    options: Options
    """What was asked for."""
    searches: Searches
    """Where results are looked up."""
    divided: Divided | None = None
    """None before the first call."""
    results: dict[str, Result | PrismError] = field(default_factory=dict[str, "Result | PrismError"])
    """What each region's search found, by the region's name."""
    run: Callable[..., object] | None = None
    """What a call executes; None before the first one."""
    _turn: threading.RLock = field(default_factory=threading.RLock)

    @property
    def partition(self) -> Partition:
        """How the graph was divided.

        Raises:
            InputError: it was not called yet.
        """
        if self.divided is None:
            raise InputError("the graph was not called yet, so it is not divided", do="call it once")
        return self.divided.partition

    def __call__(self, *inputs: object) -> object:
        """Run the graph; the first time, divide and search it."""
        if self.run is None:
            with self._turn:
                if self.run is None:
                    return self._first(inputs)
        return self.run(*inputs)

    def _first(self, inputs: Sequence[object]) -> object:
        """Run the graph as it was written, watching, and search what was seen."""
        self.divided = divided = divide(self.graph, inputs)
        if not divided.parts:
            self.run = self._rest(self.graph)
            return self.run(*inputs)
        watched = Observing(divided)
        answer = watched.run(*inputs)
        found: dict[str, Callable[..., object]] = {}
        for region, code in divided.parts:
            result = self.searches.find(region, watched.seen[region.name], code.function(region.name), self.options)
            self.results[region.name] = result
            if not isinstance(result, PrismError):
                found[region.name] = result.run
        layouts = {name: seen.outputs for name, seen in watched.seen.items()}
        self.run = self._rest(stitched(divided, found, layouts))
        return answer

    def _rest(self, module: GraphModule) -> Callable[..., object]:
        if self.options.fallback == "eager":
            return module.forward
        return torch.compile(module, backend="inductor")


@dataclass(slots=True, eq=False)
class Backend:
    """A backend of ``torch.compile`` that remembers what it compiled."""

    options: Options = field(default_factory=Options)
    """For every graph."""
    searches: Searches = field(default_factory=Searches)
    """Shared by all its graphs."""
    graphs: list[CompiledGraph] = field(default_factory=list[CompiledGraph])
    """Every graph, in the order in which Dynamo traced them."""
    missed: Callable[[str], None] | None = None
    """Told of calls for which Dynamo wants another graph; None while graphs are still taken."""

    def seal(self, missed: Callable[[str], None]) -> None:
        """Search no further: graphs that Dynamo traces from now on run as they were written, and are counted."""
        self.missed = missed

    def __call__(self, graph: GraphModule, inputs: Sequence[object]) -> Callable[..., object]:
        """Compile one graph, as Dynamo asks."""
        if self.missed is not None:
            return _counted(graph.forward, self.missed)
        compiled = CompiledGraph(graph, self.options, self.searches)
        self.graphs.append(compiled)
        return compiled


def _counted(run: Callable[..., object], missed: Callable[[str], None]) -> Callable[..., object]:
    def counted(*inputs: object) -> object:
        missed("something that Dynamo guards differs from the example: layout, gradient mode, or a Python value")
        return run(*inputs)

    return counted


SEARCHES: Final = Searches()
"""Of ``torch.compile(..., backend="prism")`` in this process."""
GRAPHS: Final[list[CompiledGraph]] = []
"""Graphs compiled through ``torch.compile(..., backend="prism")`` in this process."""


def prism(
    graph: GraphModule,
    inputs: Sequence[object],
    *,
    options: Mapping[str, object] | None = None,
    mode: str | None = None,
) -> Callable[..., object]:
    """The backend that torch finds under the name ``prism``.

    Raises:
        InputError: there is no such option, or a mode was given.
    """
    if mode not in (None, "default"):
        raise InputError(f"the backend has no mode {mode!r}", do='use options={"effort": "quick"} or "max"')
    return Backend(Options.of(options), SEARCHES, GRAPHS)(graph, inputs)


def register() -> None:
    """Make ``backend="prism"`` known to torch where the package's entry point is not installed."""
    from torch._dynamo import list_backends, register_backend

    if NAME not in list_backends():
        register_backend(prism, name=NAME)  # pyright: ignore[reportArgumentType] (graphs may take numbers, too)
