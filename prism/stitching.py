"""A divided graph as a module again: regions call what was found for them, the rest is as it was.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch.fx import Graph, GraphModule, Interpreter, Node

from prism.effects import memory_order
from prism.extraction import Extracted
from prism.grouping import ordered
from prism.partition import Divided


class _Call(torch.nn.Module):
    """One region: calls what was found for it and lays the results out as torch would have."""

    def __init__(self, run: Callable[..., object], orders: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.run = run
        self.orders = tuple(orders)

    def forward(self, *inputs: torch.Tensor) -> object:
        """Run on a call's tensors."""
        # Dynamo does not follow: the rest may go through another compiler, the region is finished.
        return _run(self, *inputs)


@torch.compiler.disable
def _run(call: _Call, *inputs: torch.Tensor) -> object:
    result = call.run(*inputs)
    if isinstance(result, torch.Tensor):
        return _laid_out(result, call.orders[0])
    results = cast("Sequence[torch.Tensor]", result)
    return tuple(_laid_out(t, order) for t, order in zip(results, call.orders, strict=True))


def _laid_out(tensor: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The tensor in this order of dimensions in memory; operators behind it may look at that."""
    there = tensor.permute(order)
    if there.is_contiguous():
        return tensor
    back = sorted(range(len(order)), key=order.__getitem__)
    return there.contiguous().permute(back)


def stitched(
    divided: Divided, found: Mapping[str, Callable[..., object]], known: Mapping[str, Sequence[torch.Tensor]]
) -> GraphModule:
    """The graph with every region of ``found`` replaced by a call.

    Args:
        divided: the graph.
        found: what to call, by the region's name. Regions that are not named stay torch.
        known: for each region, results as torch computes them, for how they lie in memory.
    """
    graph, env = Graph(), dict[Node, Node]()
    parts = {i: (region, code) for i, (region, code) in enumerate(divided.parts) if region.name in found}
    groups = {node: i for i, (_, code) in parts.items() for node in code.nodes}
    order = ordered(divided.graph.graph.nodes, groups, divided.epochs)
    assert order is not None, "the regions of a graph depend on each other"
    calls: dict[str, _Call] = {}
    for unit in order:
        if isinstance(unit, Node):
            env[unit] = graph.node_copy(unit, env.__getitem__)
            continue
        region, code = parts[unit]
        calls[region.name] = _Call(found[region.name], [memory_order(t) for t in known[region.name]])
        _add_call(graph, env, region.name, code)
    held = {n.target: n for n in graph.nodes if n.op in ("call_module", "get_attr")}
    attributes = {str(name): calls[str(name)] if name in calls else _held(divided.graph, str(name)) for name in held}
    module = GraphModule(attributes, graph)
    module.train(divided.graph.training)
    return module


def _held(module: torch.nn.Module, path: str) -> object:
    """What a module holds under a dotted name."""
    return cast("object", operator.attrgetter(path)(module))


def _add_call(graph: Graph, env: dict[Node, Node], name: str, code: Extracted) -> None:
    call = graph.call_module(name, tuple(env[i] for i in code.inputs))
    if len(code.outputs) == 1:
        env[code.outputs[0]] = call
        return
    for position, node in enumerate(code.outputs):
        env[node] = graph.call_function(operator.getitem, (call, position))


@dataclass(slots=True)
class Observed:
    """What one run of a graph showed of a region."""

    inputs: tuple[torch.Tensor, ...] = ()
    """Copies of what it was called with; parameters as they are."""
    outputs: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    """What it returned."""


class Observing(Interpreter):
    """Runs a graph once, just as it is, and keeps what its regions take and return."""

    def __init__(self, divided: Divided) -> None:
        super().__init__(divided.graph, garbage_collect_values=False)
        self.seen: dict[str, Observed] = {region.name: Observed() for region in divided.partition.regions}
        self._last = {code.nodes[-1]: (region.name, code) for region, code in divided.parts}

    def run_node(self, n: Node) -> object:
        """Run one node; behind a region's last one, look at the region."""
        value = self.env[n] = cast("object", super().run_node(n))
        if n in self._last:
            name, code = self._last[n]
            kept = cast("Sequence[torch.Tensor]", [self.env[i] for i in code.inputs])
            copies = tuple(t.detach() if isinstance(t, torch.nn.Parameter) else t.detach().clone() for t in kept)
            # Of the results only the layout matters.
            outputs = [torch.empty_like(cast("torch.Tensor", self.env[o]), device="meta") for o in code.outputs]
            self.seen[name] = Observed(copies, outputs)
        return value
