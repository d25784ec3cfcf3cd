"""Modules as functions: an ``nn.Module`` is a function of its inputs and then of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prism.guard import Guarded, misfit, parameter_order, positional, unplaced

if TYPE_CHECKING:
    import torch


def state_of(function: Callable[..., object]) -> dict[str, torch.Tensor]:
    """Parameters, then buffers, of a module by name; nothing for an ordinary function."""
    import torch

    if not isinstance(function, torch.nn.Module):
        return {}
    return {**dict(function.named_parameters()), **dict(function.named_buffers())}


def with_state(function: Callable[..., object]) -> Callable[..., object]:
    """The function of a module's inputs followed by its parameters and buffers; ordinary ones as they are."""
    import torch

    if not isinstance(function, torch.nn.Module):
        return function
    names = list(state_of(function))
    module = function

    def call(*values: torch.Tensor) -> object:
        own = len(values) - len(names)
        return torch.func.functional_call(module, dict(zip(names, values[own:], strict=True)), values[:own])

    return call


def without_state(function: Guarded, module: Callable[..., object]) -> Callable[..., object]:
    """The reverse: a function of everything, called with a module's own inputs and its present state."""
    import torch

    return ModuleCall(function, module) if isinstance(module, torch.nn.Module) else function


class ModuleCall:
    """A guarded function of a module's inputs and state, called as the module is.

    Where the guard does not hold the module itself answers, with its hooks and its gradients.
    """

    def __init__(self, guarded: Guarded, module: torch.nn.Module) -> None:
        self.guarded = guarded
        """What is called where the module is what it was."""
        self.module = module
        """What is called elsewhere."""
        self._names = parameter_order(module.forward)
        self._state = tuple(state_of(module))
        self._mode = mode_of(module)

    @property
    def fallbacks(self) -> int:
        """Calls that the module answered."""
        return self.guarded.fallbacks

    @property
    def reason(self) -> str:
        """Why it answered the last of them."""
        return self.guarded.reason

    def __call__(self, *inputs: object, **named: object) -> object:
        """Run the found callable on a module's own inputs, or the module where something is not as it was."""
        values = positional(self._names, inputs, named)
        state = state_of(self.module)
        if values is None:
            reason = unplaced(named)
        elif tuple(state) != self._state:
            reason = "the module has other parameters or buffers than when it was searched for"
        elif mode_of(self.module) != self._mode:
            reason = "the module's training mode or hooks have changed"
        else:
            everything = (*values, *(_without_gradient(t) for t in state.values()))
            reason = misfit(self.guarded.program, everything)
            if reason is None:
                return self.guarded.found(*everything)
        self.guarded.missed(reason)
        return self.module(*inputs, **named)


def _without_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """A parameter outside gradient mode without its flag; inside it the guard has to see the flag."""
    import torch

    return tensor if torch.is_grad_enabled() else tensor.detach()


def mode_of(module: torch.nn.Module) -> tuple[tuple[bool, int], ...]:
    """What else than its state decides what a module computes: whether it trains, and who listens."""
    return tuple(
        (m.training, len(m._forward_hooks) + len(m._forward_pre_hooks))  # pyright: ignore[reportPrivateUsage]
        for m in module.modules()
    )
