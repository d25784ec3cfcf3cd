"""The largest groups of operators that can each run as one call.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from torch.fx import GraphModule, Node


def group(
    graph: GraphModule, inside: Sequence[Node], epochs: Mapping[Node, int], layer: Callable[[Node], str]
) -> list[tuple[Node, ...]]:
    """Merge nodes along edges while the graph of groups stays without cycles.

    No group spans two epochs, nor two layers of a model, so that layers stay alike.

    Returns:
        Groups in the order of their first nodes, each in the graph's order. A graph without cycles among contracted
        groups means that each of them is convex, and that they can be called one after the other.
    """
    groups = {node: number for number, node in enumerate(inside)}
    members = {number: [node] for number, node in enumerate(inside)}
    for node in inside:
        for other in node.all_input_nodes:
            if other not in groups or groups[other] == groups[node]:
                continue
            if epochs[other] != epochs[node] or layer(other) != layer(node):
                continue
            first, second = groups[other], groups[node]
            if not _roundabout(first, second, groups, members):
                for moved in members.pop(second):
                    groups[moved] = first
                    members[first].append(moved)
    found: dict[int, list[Node]] = {}
    for node in inside:
        found.setdefault(groups[node], []).append(node)
    return [tuple(nodes) for nodes in found.values()]


def _roundabout(first: int, second: int, groups: Mapping[Node, int], members: Mapping[int, Sequence[Node]]) -> bool:
    """Whether a path leads from one group to another through something else: as one, they would be in a cycle."""
    stack = [u for n in members[first] for u in n.users if groups.get(u) not in (first, second)]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        together = members[groups[node]] if node in groups else (node,)
        seen.update(together)
        for user in (u for n in together for u in n.users):
            if groups.get(user) == second:
                return True
            if user not in seen:
                stack.append(user)
    return False


def ordered(nodes: Iterable[Node], groups: Mapping[Node, int], epochs: Mapping[Node, int]) -> list[Node | int] | None:
    """Single nodes and groups (by number) in an order in which they can run; None if there is none.

    Nodes with side effects begin an epoch and keep their places; inside an epoch the original order is kept as far as
    the groups allow.
    """
    places: dict[Hashable, tuple[int, int]] = {}
    before: dict[Node | int, set[Node | int]] = {}
    for place, node in enumerate(nodes):
        unit: Node | int = groups.get(node, node)
        places.setdefault(unit, (epochs[node], place))
        before.setdefault(unit, set()).update(u for i in node.all_input_nodes if (u := groups.get(i, i)) != unit)
    sorter = TopologicalSorter(before)
    try:
        sorter.prepare()
    except CycleError:
        return None
    found: list[Node | int] = []
    ready: list[Node | int] = list(sorter.get_ready())
    while ready:
        ready.sort(key=places.__getitem__)
        unit = ready.pop(0)
        found.append(unit)
        sorter.done(unit)
        ready.extend(sorter.get_ready())
    return found
