"""Small layered graphs as inline SVG: left to right, inputs first, colours from the page's style."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final, Literal

import networkx as nx

Kind = Literal["input", "output", "operation", "kernel", "stored", "constant", "passing"]

CHARACTER: Final = 7.3
"""Width of one character of the page's monospaced font at its size in drawings."""
LINE: Final = 16
"""Height of a line of text."""
GAP_X: Final = 44
GAP_Y: Final = 14
PADDING: Final = 10


@dataclass(frozen=True, slots=True)
class Node:
    """A box."""

    key: Hashable
    """What edges refer to."""
    lines: tuple[str, ...]
    """Its text."""
    kind: Kind
    """How it is drawn."""

    @property
    def width(self) -> float:
        """In pixels."""
        return max(len(line) for line in self.lines) * CHARACTER + 2 * PADDING

    @property
    def height(self) -> float:
        """In pixels."""
        return len(self.lines) * LINE + PADDING if self.kind != "passing" else LINE / 2


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from one box to another."""

    source: Hashable
    target: Hashable
    label: str = ""
    """Written at the line's middle."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes and lines."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = field(default=())


def svg(drawing: Drawing, title: str) -> str:
    """The drawing as an ``<svg>`` element.

    Layers are longest paths from the inputs; inside a layer boxes lie near what they come from, and lines that pass a
    layer have a place in it as well.
    """
    layers, routes = _layers(drawing)
    passing = {k: Node(k, ("",), "passing") for stops in routes.values() for k in stops}
    nodes = {**{n.key: n for n in drawing.nodes}, **passing}
    widths = [max(nodes[k].width for k in layer) for layer in layers]
    heights = [sum(nodes[k].height + GAP_Y for k in layer) - GAP_Y for layer in layers]
    # Labels are written in the gaps, so a gap is as wide as the longest label that crosses it.
    gap = max([GAP_X, *(len(e.label) * CHARACTER + 16 for e in drawing.edges)])
    height = max(heights) + 2 * PADDING
    places: dict[Hashable, tuple[float, float]] = {}
    x = float(PADDING)
    for layer, width, used in zip(layers, widths, heights, strict=True):
        y = (height - used) / 2
        for key in layer:
            places[key] = (x + (width - nodes[key].width) / 2, y)
            y += nodes[key].height + GAP_Y
        x += width + gap
    body = [_edge(e, routes[e], nodes, places) for e in drawing.edges]
    body += [_node(n, places[n.key]) for n in drawing.nodes]
    width = x - gap + PADDING
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}"><title>{escape(title)}</title>{"".join(body)}</svg>'
    )


def _layers(drawing: Drawing) -> tuple[list[list[Hashable]], dict[Edge, list[Hashable]]]:
    """Keys by layer, and for each edge what stands for it in the layers that it passes."""
    graph: nx.DiGraph[Hashable] = nx.DiGraph()
    graph.add_nodes_from(n.key for n in drawing.nodes)
    graph.add_edges_from((e.source, e.target) for e in drawing.edges)
    layers = [list(layer) for layer in nx.topological_generations(graph)]
    depth = {key: i for i, layer in enumerate(layers) for key in layer}
    routes: dict[Edge, list[Hashable]] = {}
    for edge in drawing.edges:
        stops = [("passing", edge, i) for i in range(depth[edge.source] + 1, depth[edge.target])]
        routes[edge] = list[Hashable](stops)
        nx.add_path(graph, [edge.source, *stops, edge.target])
        for stop in stops:
            layers[stop[2]].append(stop)
    rank: dict[Hashable, float] = {}
    for i, layer in enumerate(layers):
        if i:
            layer.sort(key=lambda key: _middle([rank[p] for p in graph.predecessors(key) if p in rank]))
        rank |= {key: (place + 0.5) / len(layer) for place, key in enumerate(layer)}
    return layers, routes


def _middle(places: Sequence[float]) -> float:
    return sum(places) / len(places) if places else 0.5


def _node(node: Node, place: tuple[float, float]) -> str:
    x, y = place
    middle = x + node.width / 2
    first = y + (node.height - len(node.lines) * LINE) / 2 + LINE * 0.76
    text = "".join(
        f'<text x="{middle:.1f}" y="{first + i * LINE:.1f}" text-anchor="middle">{escape(line)}</text>'
        for i, line in enumerate(node.lines)
    )
    radius = 4 if node.kind == "operation" else 8
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{node.width:.1f}" height="{node.height:.1f}" rx="{radius}"/>'
    return f'<g class="node {node.kind}">{box}{text}</g>'


def _edge(
    edge: Edge,
    stops: Sequence[Hashable],
    nodes: Mapping[Hashable, Node],
    places: Mapping[Hashable, tuple[float, float]],
) -> str:
    corners: list[tuple[float, float, float]] = []
    for key in (edge.source, *stops, edge.target):
        (x, y), node = places[key], nodes[key]
        corners.append((x, x + node.width, y + node.height / 2))
    (_, x0, y0), *rest = corners
    start, steps = (x0, y0), [f"M{x0:.1f} {y0:.1f}"]
    for left, right, y in rest:
        bend = (left - x0) / 2
        steps.append(f"C{x0 + bend:.1f} {y0:.1f} {left - bend:.1f} {y:.1f} {left:.1f} {y:.1f}")
        if (left, right, y) != corners[-1]:
            steps.append(f"H{right:.1f}")
        x0, y0 = right, y
    path = f'<path d="{"".join(steps)}"/>'
    if not edge.label:
        return f'<g class="edge">{path}</g>'
    x, y = (start[0] + rest[0][0]) / 2, (start[1] + rest[0][2]) / 2 - 4
    return f'<g class="edge">{path}<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(edge.label)}</text></g>'
