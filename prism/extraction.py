"""A region of a graph as a function of its own.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch.fx import Graph, GraphModule, Node

from prism.effects import Effects


class NoSize(Exception):
    """A node uses a size that no tensor of its region has."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.node = node


@dataclass(frozen=True, slots=True)
class Edges:
    """What goes into a region and what comes out."""

    inputs: tuple[Node, ...]
    """Nodes outside that it reads, in order of first use; numbers among them."""
    outputs: tuple[Node, ...]
    """Its nodes that are used outside."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """A region with its code."""

    nodes: tuple[Node, ...]
    """Its operators, in order."""
    inputs: tuple[Node, ...]
    """Nodes outside whose tensors it takes."""
    outputs: tuple[Node, ...]
    """Its nodes whose tensors it returns."""
    names: tuple[str, ...]
    """Names of its parameters."""
    module: GraphModule
    """Its operators as a module of tensors."""
    origin: Mapping[str, str]
    """From the names of the module's nodes to those of the graph's."""

    @staticmethod
    def edges(nodes: Sequence[Node]) -> Edges:
        """What goes into some nodes and what comes out."""
        inside = set(nodes)
        inputs = dict.fromkeys(i for n in nodes for i in n.all_input_nodes if i not in inside)
        return Edges(tuple(inputs), tuple(n for n in nodes if any(u not in inside for u in n.users)))

    def signed(self, function: Callable[..., object]) -> Callable[..., object]:
        """A function of ``*tensors`` under the names of this region's parameters."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(n, kind) for n in self.names])
        setattr(function, "__signature__", signature)  # noqa: B010 (functions have no such attribute by their type)
        return function

    def function(self, name: str) -> Callable[..., object]:
        """The region as an ordinary function: what is searched for, and what runs where a search's result cannot."""
        module = self.module

        def region(*values: torch.Tensor) -> object:
            return module(*values)

        region.__name__ = name
        return self.signed(region)


def extract(nodes: tuple[Node, ...], known: Effects) -> Extracted:
    """The code of a region.

    Raises:
        NoSize: it uses a size that torch left open and that none of its tensors has.
    """
    edges = Extracted.edges(nodes)
    inputs = tuple(n for n in edges.inputs if known.tensor(n) is not None)
    graph = Graph()
    env: dict[Node, Node] = {}
    names = tuple(f"x{i}" for i in range(len(inputs)))
    for name, node in zip(names, inputs, strict=True):
        env[node] = graph.placeholder(name)
    origin: dict[str, str] = {}
    for node in nodes:
        for needed in node.all_input_nodes:
            if needed not in env:
                _add_size(graph, needed, env, inputs, node)
        env[node] = graph.node_copy(node, env.__getitem__)
        origin[env[node].name] = node.name
    results = tuple(env[n] for n in edges.outputs)
    graph.output(results[0] if len(results) == 1 else results)
    return Extracted(nodes, inputs, edges.outputs, names, GraphModule(torch.nn.Module(), graph), origin)


def _add_size(graph: Graph, size: Node, env: dict[Node, Node], inputs: Sequence[Node], user: Node) -> None:
    """Compute a number inside the region: from the sizes of its tensors, by the arithmetic of the graph."""
    chain, stack = dict[Node, None](), [size]
    while stack:
        node = stack.pop()
        if node in env:
            continue
        chain.pop(node, None)
        chain[node] = None
        if not _size_of_a_tensor(node, inputs):
            if node.op == "placeholder":
                raise NoSize(user)
            stack.extend(node.all_input_nodes)
    for node in reversed(chain):
        found = _size_of_a_tensor(node, inputs)
        if found is not None:
            tensor, dimension = found
            env[node] = graph.call_method("size", (env[tensor], dimension))
        elif all(i in env for i in node.all_input_nodes):
            env[node] = graph.node_copy(node, env.__getitem__)
        else:
            raise NoSize(user)


def _size_of_a_tensor(node: Node, inputs: Sequence[Node]) -> tuple[Node, int] | None:
    """An input and a dimension of it whose size is the number that a node computes."""
    value = node.meta.get("example_value")
    if not isinstance(value, torch.SymInt):
        return None
    for tensor in inputs:
        shaped = tensor.meta.get("example_value")
        if isinstance(shaped, torch.Tensor):
            for dimension, size in enumerate(cast("Sequence[int | torch.SymInt]", shaped.shape)):
                if isinstance(size, torch.SymInt) and size.node.expr == value.node.expr:
                    return tensor, dimension
    return None
