"""Whether results of a function share memory: a program's outputs never do, so such a function is not one program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from prism.frontend.trace import Meta, Node, Ref, Trace

END = 2**62
"""Stands for the end of a dimension, whatever its size."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One view: of which value, how, and if it is a part of one dimension, which."""

    parent: str
    how: str
    dimension: int | None = None
    part: tuple[int, int] | None = None
    """First index and the one behind the last."""

    def apart(self, other: _Step) -> bool:
        """Whether the two are parts of one dimension that have no index in common."""
        if self.part is None or other.part is None or (self.parent, self.dimension) != (other.parent, other.dimension):
            return False
        return self.part[1] <= other.part[0] or other.part[1] <= self.part[0]


def sharing(trace: Trace) -> tuple[int, int] | None:
    """The first two results that may share memory, by their numbers; None if no two do.

    Views are what torch's schemas call so. Parts of one dimension without a common index share nothing.
    """
    nodes = {node.name: node for node in trace.nodes}
    metas = {node.name: node.results[0] for node in trace.nodes} | {p.name: p.meta for p in trace.placeholders}
    paths = [_path(ref.name, nodes, metas) for ref in trace.outputs]
    for second, path in enumerate(paths):
        for first, earlier in enumerate(paths[:second]):
            if _overlap(earlier, path):
                return first, second
    return None


def _overlap(a: tuple[str, list[_Step]], b: tuple[str, list[_Step]]) -> bool:
    if a[0] != b[0]:
        return False
    different = next(((p, q) for p, q in zip(a[1], b[1], strict=False) if p != q), None)
    return different is None or not different[0].apart(different[1])


def _path(name: str, nodes: dict[str, Node], metas: dict[str, Meta | None]) -> tuple[str, list[_Step]]:
    """What a value is a view of in the end, and the views from there to it.

    A step names its parent by the way that leads there, so that the same view taken twice is the same step.
    """
    views: list[tuple[str, Node, int | None]] = []
    while name in nodes:
        node, index = nodes[name], None
        if node.operator == "python.getitem":
            source, place = node.arguments["0"], node.arguments["1"]
            if not (isinstance(source, Ref) and isinstance(place, int) and source.name in nodes):
                break
            node, index = nodes[source.name], place
        parent = _viewed(node, metas)
        if parent is None:
            break
        views.append((parent, node, index))
        name = parent
    steps: list[_Step] = []
    for parent, node, index in reversed(views):
        steps.append(_step(parent, node, index, metas[parent]))
    return name, steps


def _viewed(node: Node, metas: dict[str, Meta | None]) -> str | None:
    """The value that an operator makes a view of; None if it makes a new one."""
    source = node.arguments.get("self")
    if not isinstance(source, Ref) or not _is_view(node.operator):
        return None
    made, given = node.results[0], metas.get(source.name)
    if node.operator.startswith("aten.to.") and made is not None and given is not None and made.dtype != given.dtype:
        return None
    return source.name


@cache
def _is_view(operator: str) -> bool:
    """Whether torch's schema says that the result may alias an argument."""
    import torch

    namespace, _, rest = operator.partition(".")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace, None), name, None)
    schema = getattr(getattr(packet, overload, None), "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def _step(parent: str, node: Node, index: int | None, meta: Meta | None) -> _Step:
    given = {k: v for k, v in node.arguments.items() if k != "self"}
    how = f"{node.operator} {sorted((k, repr(v)) for k, v in given.items())}"
    dimension = given.get("dim", 0)
    if not isinstance(dimension, int) or meta is None or not meta.shape:
        return _Step(parent, how)
    dimension %= len(meta.shape)
    if index is not None:
        return _Step(parent, f"{how} {index}", dimension, (index, index + 1)) if _pieces(node) else _Step(parent, how)
    part = _part(node, given)
    return _Step(parent, how, dimension if part is not None else None, part)


def _pieces(node: Node) -> bool:
    """Whether an operator cuts a dimension into pieces, here counted and not measured."""
    return node.operator.split(".")[1] in {"chunk", "split", "split_with_sizes", "unbind", "tensor_split"}


def _part(node: Node, given: dict[str, object]) -> tuple[int, int] | None:
    """The indices that a slice or selection takes, where they are numbers from the front."""
    match node.operator.split(".")[1]:
        case "slice":
            start, end = given.get("start") or 0, given.get("end")
            end = END if end is None else end
        case "narrow":
            start, length = given.get("start"), given.get("length")
            end = start + length if isinstance(start, int) and isinstance(length, int) else None
        case "select":
            start = given.get("index")
            end = start + 1 if isinstance(start, int) else None
        case _:
            return None
    return (start, end) if isinstance(start, int) and isinstance(end, int) and start >= 0 and end > start else None
