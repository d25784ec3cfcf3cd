"""What Prism asks of Dynamo: trace a function into graphs, with every Python effect where it was.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch.fx import GraphModule

from prism.partition import Divided, divide
from sgraph.errors import InputError, PrismError


def compiled_for(
    function: Callable[..., object], backend: Callable[[GraphModule, Sequence[object]], Callable[..., object]]
) -> Callable[..., object]:
    """A function through Dynamo with a backend of ours; sizes stay what they are unless they were declared open."""
    return torch.compile(function, backend=backend, dynamic=False)


def copies(inputs: Sequence[object], ranges: Mapping[int, Mapping[int, tuple[int, int]]]) -> tuple[object, ...]:
    """The inputs with tensors copied, so that trying a function changes nothing of the caller's."""
    import torch._dynamo as dynamo

    found: list[object] = []
    for number, value in enumerate(inputs):
        if isinstance(value, torch.Tensor):
            copy = value.detach().clone().requires_grad_(value.requires_grad)
            for dimension, (low, high) in ranges.get(number, {}).items():
                dynamo.mark_dynamic(copy, dimension, min=low, max=high)
            found.append(copy)
        else:
            found.append(value)
    return tuple(found)


def run_once(compiled: Callable[..., object], inputs: Sequence[object], original: Callable[..., object]) -> object:
    """Call a compiled function for the first time; torch's random numbers go on as if it had not been called.

    Raises:
        InputError: the function itself fails on these inputs.
    """
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            return compiled(*inputs)
    except PrismError:
        raise
    except Exception as error:
        cause = _prism_error(error)
        if cause is not None:
            raise cause from error
        text = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{getattr(original, '__name__', type(original).__name__)} does not run on these inputs: "
            f"{type(error).__name__}: {text}",
            do="check the shapes and types of the example inputs against the function",
        ) from error


def _prism_error(error: BaseException | None) -> PrismError | None:
    """The error of ours that torch wrapped in one of its own."""
    while error is not None:
        if isinstance(error, PrismError):
            return error
        error = error.__cause__ or error.__context__
    return None


@dataclass(slots=True)
class Looked:
    """A backend that only divides the graphs it gets, and runs them as they are."""

    found: list[Divided] = field(default_factory=list[Divided])
    """In the order of calling."""

    def __call__(self, graph: GraphModule, inputs: Sequence[object]) -> Callable[..., object]:
        """Take one graph, as Dynamo asks."""
        seen: list[Divided] = []

        def run(*given: object) -> object:
            if not seen:
                seen.append(divide(graph, given))
                self.found.extend(seen)
            return cast("object", graph(*given))

        return run
