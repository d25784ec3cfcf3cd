"""Groups of operators cut down to what one search can look through.

A group is cut where only one tensor is alive: behind a residual sum, or anywhere in a chain.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

from torch.fx import Node

MOST_PRODUCTS: Final = 6
"""Products of matrices in a region, where it can be cut. Listing the kernels of more takes minutes, not seconds."""
_PRODUCTS: Final = {
    "linear": 1,
    "matmul": 1,
    "mm": 1,
    "bmm": 1,
    "baddbmm": 1,
    "addmm": 1,
    "einsum": 1,
    "scaled_dot_product_attention": 3,  # and hard to search: a softmax between its products
}
_LAYER = re.compile(r"(?:\.|\[')(\d+)(?:\.|'\]|$)")


def sections(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    """One group as one region or several, in order."""
    if products(nodes) <= MOST_PRODUCTS:
        return [nodes]
    packed: list[tuple[Node, ...]] = []
    for piece in _pieces(nodes):
        joined = (*packed[-1], *piece) if packed else piece
        if packed and products(joined) <= MOST_PRODUCTS:
            packed[-1] = joined
        else:
            packed.append(piece)
    return packed


def _pieces(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    """The group cut behind every node whose tensor is the only one that later nodes of the group use."""
    place = {node: i for i, node in enumerate(nodes)}
    last = {node: max((place[u] for u in node.users if u in place), default=-1) for node in nodes}
    found: list[tuple[Node, ...]] = []
    start, alive = 0, set[Node]()
    for i, node in enumerate(nodes):
        alive = {n for n in alive if last[n] > i} | ({node} if last[node] > i else set())
        if alive == {node} or not alive:
            found.append(nodes[start : i + 1])
            start = i + 1
    return [*found, nodes[start:]] if start < len(nodes) else found


def products(nodes: Sequence[Node]) -> int:
    """Products of matrices among some operators."""
    return sum(
        _PRODUCTS.get(str(n.target if n.op == "call_method" else getattr(n.target, "__name__", "")), 0) for n in nodes
    )


def layer_of(node: Node) -> str:
    """Which of a row of modules a node belongs to, such as ``model.layers.3``; empty where it is in none."""
    stack = cast("Mapping[str, tuple[str, object]]", node.meta.get("nn_module_stack") or {})
    for path, _ in stack.values():
        found = _LAYER.search(path)
        if found is not None:
            return path[: found.end(1)]
    return ""
