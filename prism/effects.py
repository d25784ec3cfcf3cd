"""What the operators of a torch graph do beside computing: changes in place, randomness, aliases.

A graph that Dynamo traced may change tensors in place, draw random numbers and switch global modes. Each such operator
ends an *epoch*: within one epoch every operator is a pure function of tensors that nobody changes, so the order of
operators inside an epoch is free and across epochs it is fixed. Found by running the graph once on fake tensors.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._python_dispatch import TorchDispatchMode

IN_PLACE = "changes a tensor in place"
RANDOM = "draws random numbers"
FOREIGN = "is no operator of torch's own, so nothing is known of what else it does"
HIGHER = "calls other functions"
MODE = "switches a mode of torch, or computes no tensor"
HARMLESS = (torch._C._log_api_usage_once,)  # pyright: ignore[reportPrivateUsage]
"""Functions that compute nothing and change nothing that another operator sees."""


@dataclass(slots=True)
class Effects:
    """What is known of every node."""

    values: dict[Node, object] = field(default_factory=dict[Node, object])
    """Fake results."""
    barriers: dict[Node, str] = field(default_factory=dict[Node, str])
    """Nodes that have to stay where they are, with the reason."""
    epochs: dict[Node, int] = field(default_factory=dict[Node, int])
    """How many barriers come before a node, itself included."""

    def tensor(self, node: Node) -> torch.Tensor | None:
        """The fake tensor that a node computes; None where it computes something else."""
        value = self.values.get(node)
        return value if isinstance(value, torch.Tensor) else None


def effects(graph: GraphModule, inputs: Sequence[object]) -> Effects:
    """Run a graph on fake copies of these inputs and note what its operators do."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in inputs]
    found = Effects()
    grad = torch.is_grad_enabled()
    try:
        with mode:
            _Observer(graph, found).run(*fakes)
    finally:
        torch.set_grad_enabled(grad)
    epoch = 0
    for node in graph.graph.nodes:
        epoch += node in found.barriers
        found.epochs[node] = epoch
    return found


class _Observer(Interpreter):
    """Runs node by node under a mode that sees every operator."""

    def __init__(self, graph: GraphModule, found: Effects) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.found = found
        self.storages: set[int] = set()

    def run_node(self, n: Node) -> object:
        """Run one node and note its effects."""
        if isinstance(n.target, HigherOrderOperator):
            self.found.barriers[n] = HIGHER
            value = n.meta.get("example_value")
        else:
            seen = _Operators(self.storages)
            with seen:
                value = cast("object", super().run_node(n))
            if n.op.startswith("call_"):
                reason = seen.reason or (MODE if _computes_nothing(value) and n.target not in HARMLESS else "")
                if reason:
                    self.found.barriers[n] = reason
        self.found.values[n] = value
        self.storages |= set(map(storage, tensors(value)))
        return value


def _computes_nothing(value: object) -> bool:
    return not isinstance(value, torch.Tensor | int | float | bool | torch.SymInt | torch.SymFloat) and not list(
        tensors(value)
    )


class _Operators(TorchDispatchMode):
    """Sees the operators that one node comes down to."""

    def __init__(self, storages: set[int]) -> None:
        super().__init__()
        self.storages = storages
        self.reason = ""

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        """Look at one operator and let it run."""
        given = dict(kwargs or {})
        self.reason = self.reason or self._reason(func, args, given)
        return func(*args, **given)

    def _reason(self, func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        if func.namespace not in ("aten", "prim", "prims"):
            return FOREIGN
        schema = func._schema.arguments  # pyright: ignore[reportPrivateUsage]
        named = {a.name: a.default_value for a in schema if a.has_default_value()}
        named |= {a.name: v for a, v in zip(schema, args, strict=False)} | dict(kwargs)
        for argument in schema:
            changed = argument.alias_info is not None and argument.alias_info.is_write
            # What the node itself has just made, it may change: torch.tensor(2.0) comes down to such operators.
            if changed and any(storage(t) in self.storages for t in tensors(named.get(argument.name))):
                return IN_PLACE
        random = torch.Tag.nondeterministic_seeded in func.tags
        return RANDOM if random and named.get("dropout_p", 1.0) != 0.0 else ""


def tensors(value: object) -> Iterator[torch.Tensor]:
    """The tensors in a result: itself, or those of a tuple or list."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in cast("Sequence[object]", value):
            yield from tensors(item)


def storage(tensor: torch.Tensor) -> int:
    """Which memory a tensor lies in: equal for a tensor and its views."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def memory_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """The dimensions of a dense tensor from the outermost in memory to the innermost."""
    return tuple(sorted(range(tensor.dim()), key=lambda d: (-tensor.stride(d), d)))
