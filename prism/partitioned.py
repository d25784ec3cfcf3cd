"""What ``superoptimize`` returns for a function of which only parts can be optimised.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from prism.backend import Backend, CompiledGraph, Options
from prism.explanation import Explanation, of_graphs
from prism.guard import positional
from prism.modules import mode_of
from sgraph.errors import PrismError

if TYPE_CHECKING:
    from prism.result import Result

log = logging.getLogger("prism.search")


@dataclass(slots=True, eq=False)
class Partitioned:
    """A torch function whose regions were optimised one by one; call it in place of the original.

    Dynamo traced the function, so its guards stand beside Prism's own: where a call differs from the example in
    anything that either looks at, the original function answers.
    """

    original: Callable[..., object] = field(repr=False)
    """The function as it was written."""
    compiled: Callable[..., object] = field(repr=False)
    """The function through Dynamo and the backend."""
    backend: Backend = field(repr=False)
    """What was compiled."""
    example: tuple[object, ...] = field(repr=False)
    """What describes the example inputs: one entry each."""
    names: tuple[str, ...]
    """Parameters of the function, in order."""
    fallbacks: int = 0
    """Calls that the original function answered."""
    reason: str = ""
    """Why it answered the last of them."""
    mode: object = None
    """Training mode and hooks of a module."""
    ranges: Mapping[int, Mapping[int, tuple[int, int]]] = field(
        default_factory=dict[int, Mapping[int, tuple[int, int]]]
    )
    """By input and dimension, the least and the largest size that was declared."""

    @property
    def graphs(self) -> tuple[CompiledGraph, ...]:
        """The graphs that Dynamo traced, in order."""
        return tuple(self.backend.graphs)

    @property
    def results(self) -> dict[str, Result | PrismError]:
        """What was found for each region, or why nothing was; by ``graph number.region``."""
        return {
            f"{number}.{name}": result
            for number, graph in enumerate(self.backend.graphs)
            for name, result in graph.results.items()
        }

    @property
    def source(self) -> str:
        """Sources of the best of every region, one behind the other."""
        found = {k: r for k, r in self.results.items() if not isinstance(r, PrismError) and r.source}
        return "\n\n".join(f"# region {name}\n{result.source}" for name, result in found.items())

    def __call__(self, *inputs: object, **named: object) -> object:
        """Run on these inputs, as the original function would be called."""
        values = positional(self.names, inputs, named) if named else inputs
        reason = self._misfit(values)
        if reason is not None or values is None:
            self.missed(reason or "")
            return self.original(*inputs, **named)
        return self.compiled(*values)

    def missed(self, reason: str) -> None:
        """Count a call that the original function answers, and warn of the first."""
        if not self.fallbacks:
            log.warning("%s runs as it was written: %s", _name(self.original), reason)
        self.fallbacks += 1
        self.reason = reason

    def _misfit(self, values: tuple[object, ...] | None) -> str | None:
        if values is None:
            return "it was not searched for with these arguments by name"
        if len(values) != len(self.example):
            return f"{len(values)} inputs given, {len(self.example)} expected"
        for number, (value, wanted) in enumerate(zip(values, self.example, strict=True)):
            given = described(value, self.ranges.get(number, {}))
            if given != wanted:
                name = self.names[number] if number < len(self.names) else f"input {number}"
                return f"{name} is {_shown(given)}, {_shown(wanted)} expected"
        if isinstance(self.original, torch.nn.Module) and mode_of(self.original) != self.mode:
            return "the module's training mode or hooks have changed"
        return None

    def explain(self) -> Explanation:
        """What was captured, what was left to torch, and why."""
        return of_graphs(_name(self.original), [g.divided for g in self.graphs if g.divided is not None], "")

    def report(self) -> str:
        """The partition, then what was found for each region, as text."""
        parts = [self.explain().text]
        for name, result in self.results.items():
            text = f"left to torch: {result.seen}" if isinstance(result, PrismError) else result.report()
            parts.append(f"region {name}\n{text}")
        if self.fallbacks:
            parts.append(f"{self.fallbacks} calls ran the original function, the last because {self.reason}")
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """The explanation and every region's record as JSON."""
        regions: dict[str, object] = {
            name: {"left to torch": r.seen} if isinstance(r, PrismError) else json.loads(r.to_json())
            for name, r in self.results.items()
        }
        record = {"explanation": json.loads(self.explain().to_json()), "regions": regions, "fallbacks": self.fallbacks}
        return json.dumps(record, indent=2)

    def save(self, folder: str | Path) -> Path:
        """Write every region's run to a folder of its own below this one."""
        path = Path(folder)
        for name, result in self.results.items():
            if not isinstance(result, PrismError):
                result.save(path / name)
        return path

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.report())}</pre>"


def described(value: object, ranges: Mapping[int, tuple[int, int]]) -> object:
    """What a call's argument has to share with the example: of a tensor its kind, type, sizes and place."""
    if isinstance(value, torch.Tensor):
        sizes = tuple(
            f"{ranges[d][0]}..{ranges[d][1]}" if d in ranges and ranges[d][0] <= n <= ranges[d][1] else int(n)
            for d, n in enumerate(value.shape)
        )
        grad = value.requires_grad and torch.is_grad_enabled()
        return (type(value).__name__, str(value.dtype), sizes, str(value.device), str(value.layout), grad)
    if isinstance(value, bool | int | float | str | type(None)):
        return (type(value).__name__, value)
    return (type(value).__name__, id(value))


def _shown(description: object) -> str:
    return " ".join(map(str, cast("tuple[object, ...]", description)))


def _name(function: Callable[..., object]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def partitioned(
    function: Callable[..., object],
    inputs: tuple[object, ...],
    options: Options,
    ranges: Mapping[int, Mapping[int, tuple[int, int]]],
) -> Partitioned:
    """Optimise the regions of a function, by calling it once, on copies of the example inputs.

    Raises:
        PrismError: the function does not run on these inputs.
    """
    from prism.dynamo import compiled_for, copies, run_once
    from prism.guard import parameter_order

    backend = Backend(options)
    own = copies(inputs, ranges)
    compiled = compiled_for(function, backend)
    run_once(compiled, own, function)
    target = function.forward if isinstance(function, torch.nn.Module) else function
    found = Partitioned(
        function,
        compiled,
        backend,
        tuple(described(x, ranges.get(i, {})) for i, x in enumerate(inputs)),
        parameter_order(target),
        mode=mode_of(function) if isinstance(function, torch.nn.Module) else None,
        ranges=ranges,
    )
    backend.seal(found.missed)
    return found
