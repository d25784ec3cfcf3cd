"""Modules as functions: an ``nn.Module`` is a function of its inputs and then of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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


def without_state(function: Callable[..., object], module: Callable[..., object]) -> Callable[..., object]:
    """The reverse: a function of everything, called with a module's own inputs and its present state."""
    state = list(state_of(module).values())
    if not state:
        return function
    return lambda *own: function(*own, *(t.detach() for t in state_of(module).values()))
