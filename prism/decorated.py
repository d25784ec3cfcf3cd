"""``@prism.superoptimize(...)``: a function that is searched for at its first call."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism.partitioned import Partitioned
    from prism.result import Result


class Decorated:
    """A function that is optimised for the inputs of its first call; other inputs run it as it was written."""

    def __init__(self, function: Callable[..., object], options: Mapping[str, object]) -> None:
        functools.update_wrapper(self, function)
        self.original = function
        """The function as it was written."""
        self.result: Result | Partitioned | None = None
        """What was found; None before the first call that could be searched for."""
        self._options = dict(options)
        self._turn = threading.RLock()

    def __call__(self, *inputs: object, **named: object) -> object:
        """Search at the first call, then run what was found."""
        if self.result is None:
            if self._needs_gradient(inputs, named):
                return self.original(*inputs, **named)
            with self._turn:
                if self.result is None:
                    self.search(*inputs, **named)
        assert self.result is not None
        return self.result(*inputs, **named)

    def search(self, *inputs: object, **named: object) -> Result | Partitioned:
        """Search now, for these inputs."""
        from prism.door import open_door
        from prism.guard import parameter_order, positional, unplaced
        from sgraph.errors import InputError

        values = positional(parameter_order(self.original), inputs, named)
        if values is None:
            raise InputError(unplaced(named), do="call it with all of its tensors, in order")
        self.result = open_door(self.original, values, **self._options)  # pyright: ignore[reportArgumentType]
        return self.result

    def _needs_gradient(self, inputs: tuple[object, ...], named: Mapping[str, object]) -> bool:
        """Whether a call is one for autograd, which no search would help."""
        import torch

        from prism.modules import state_of

        values = (*inputs, *named.values(), *state_of(self.original).values())
        return torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in values)
