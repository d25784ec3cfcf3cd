"""What is drawn of a program and of a plan: the dataflow before, the kernels after, and the inside of each kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from prism.page.drawing import Drawing, Edge, Node
from sgraph.axis import Axis
from sgraph.bounds import tensor_bytes
from sgraph.expr import REDUCTIONS, Expr, Op, chain, factors, reduction, walk
from sgraph.ir import Kernel, Role, SGraph
from sgraph.printer import schedule_text
from sgraph.program import Program
from sgraph.stages import derive

Sizes = Mapping[Axis, int]


# ------------------------------------------------------------------------------------------------ before


def program_drawing(program: Program) -> Drawing:
    """The program as it was captured: inputs, operations, outputs. Constants are written into their operations."""
    boxes: dict[object, Node] = {}
    edges: dict[Edge, None] = {}
    stack = [o.value for o in program.outputs]
    seen: set[Expr] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        label, operands = _operation(node)
        boxes[node] = Node(node, (label,), "input" if node.op is Op.LEAF else "operation")
        for operand in operands:
            edges[Edge(operand, node)] = None
            stack.append(operand)
    for output in program.outputs:
        tensor = output.tensor
        key = ("output", tensor.name)
        text = f"{tensor.name}[{', '.join(map(str, tensor.named_axes))}]"
        boxes[key] = Node(key, (text,), "output")
        if output.value not in boxes:  # a constant
            boxes[output.value] = Node(output.value, (str(output.value),), "constant")
        edges[Edge(output.value, key)] = None
    return Drawing(tuple(boxes.values()), tuple(edges))


def _operation(node: Expr) -> tuple[str, tuple[Expr, ...]]:
    """A node's label and the operands that are drawn: not its constants, and products and reductions as one."""
    if node.op is Op.LEAF:
        return str(node), ()
    if node.op in REDUCTIONS:
        axes, operand = reduction(node)
        return f"{node.op.value}[{', '.join(map(str, axes))}]", _drawn([operand])
    if node.op is Op.MUL:
        parts = factors(node)
        return _joined("*", parts), _drawn(parts)
    if node.op is Op.ADD:
        terms = chain(node, Op.ADD)
        return _joined("+", terms), _drawn(terms)
    if node.op is Op.RECIP:
        return "1 / ·", _drawn(node.args)
    if node.op is Op.CALL:
        return node.name, _drawn(node.args)
    names = {Op.LT: "<", Op.LE: "<=", Op.EQ: "==", Op.MAX2: "max", Op.MIN2: "min"}
    return names.get(node.op, node.op.value), _drawn(node.args)


def _constant(node: Expr) -> bool:
    return not any(n.op in {Op.LEAF, Op.INDEX} for n in walk([node]))


def _drawn(operands: tuple[Expr, ...] | list[Expr]) -> tuple[Expr, ...]:
    return tuple(dict.fromkeys(o for o in operands if not _constant(o)))


def _joined(sign: str, parts: tuple[Expr, ...]) -> str:
    constants = [_number(p) for p in parts if _constant(p)]
    return f" {sign} ".join(["·", *constants]) if constants else sign


def _number(value: Expr) -> str:
    if value.op is Op.CONST and isinstance(value.attr, Fraction) and value.attr.denominator > 1000:
        return f"{float(value.attr):.3g}"
    return str(value)


# ------------------------------------------------------------------------------------------------- after


def plan_drawing(graph: SGraph, sizes: Sizes) -> Drawing:
    """Kernels and the tensors between them; every line says how much memory it moves."""
    boxes: dict[object, Node] = {}
    edges: list[Edge] = []
    outputs = {o.tensor.name for o in graph.program.outputs}
    for kernel in graph.kernels:
        roles = [
            f"{role.value} {', '.join(map(str, kernel.with_role(role)))}" for role in Role if kernel.with_role(role)
        ]
        boxes[kernel.name] = Node(
            kernel.name, ("fold, runs once" if kernel.fold else f"kernel {kernel.name}", *roles), "kernel"
        )
        for name in kernel.reads:
            boxes.setdefault(("tensor", name), _tensor_node(graph, name, outputs))
            edges.append(Edge(("tensor", name), kernel.name, _bytes(graph, name, sizes)))
        for store in kernel.stores:
            name = store.tensor.name
            boxes.setdefault(("tensor", name), _tensor_node(graph, name, outputs))
            edges.append(Edge(kernel.name, ("tensor", name), _bytes(graph, name, sizes)))
    return Drawing(tuple(boxes.values()), tuple(edges))


def _tensor_node(graph: SGraph, name: str, outputs: set[str]) -> Node:
    tensor = graph.tensor(name)
    inputs = {t.name for t in graph.program.inputs}
    kind = "output" if name in outputs else "input" if name in inputs else "stored"
    text = f"{name}[{', '.join(map(str, tensor.named_axes))}]"
    return Node(("tensor", name), (text, tensor.dtype.short), kind)


def _bytes(graph: SGraph, name: str, sizes: Sizes) -> str:
    return bytes_text(tensor_bytes(graph.tensor(name), sizes))


def bytes_text(count: float) -> str:
    """A number of bytes with three digits and a unit."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    return ""


# ------------------------------------------------------------------------------------------------ inside


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of a stage, and the loops inside it, in order."""

    head: str
    """``for each tile of k``."""
    note: str
    """Tile sizes and how many times it runs."""
    kind: str
    """``grid`` or ``loop``."""
    items: tuple[Block | str, ...]
    """Statements and inner loops."""


def kernel_blocks(kernel: Kernel, parameters: Mapping[str, int], sizes: Sizes) -> tuple[Block, ...]:
    """The stages of a kernel as nested blocks, one for each device kernel."""
    lines = schedule_text(derive(kernel)).splitlines()[1:]
    heads = [line for line in lines if not line.startswith(" ")]
    note = _grid_note(kernel, parameters, sizes)
    return tuple(
        Block(head, note, "grid", _nested(body, 2, parameters, sizes))
        for head, body in zip(heads, _split(lines), strict=True)
    )


def _split(lines: list[str]) -> list[list[str]]:
    bodies: list[list[str]] = []
    for line in lines:
        if line.startswith(" "):
            bodies[-1].append(line)
        else:
            bodies.append([])
    return bodies


def _nested(lines: list[str], margin: int, parameters: Mapping[str, int], sizes: Sizes) -> tuple[Block | str, ...]:
    items: list[Block | str] = []
    place = 0
    while place < len(lines):
        text = lines[place][margin:]
        place += 1
        inner: list[str] = []
        while place < len(lines) and lines[place].startswith(" " * (margin + 2)):
            inner.append(lines[place])
            place += 1
        if inner:
            note = _loop_note(text, parameters, sizes)
            items.append(Block(text.rstrip(":"), note, "loop", _nested(inner, margin + 2, parameters, sizes)))
        else:
            items.append(text)
    return tuple(items)


def _grid_note(kernel: Kernel, parameters: Mapping[str, int], sizes: Sizes) -> str:
    tiles = {a: parameters.get(f"tile_{a}") for a in kernel.with_role(Role.GRID)}
    known = {a: t for a, t in tiles.items() if t is not None and a.base in sizes}
    if not known:
        return ""
    programs = math.prod(-(-sizes[a.base] // t) for a, t in known.items()) * parameters.get("split", 1)
    parts = [f"{a} {t}" for a, t in known.items()]
    if parameters.get("split", 1) > 1:
        parts.append(f"{parameters['split']} cells")
    return f"tiles {', '.join(parts)}: {programs} program{'s' * (programs != 1)}"


def _loop_note(text: str, parameters: Mapping[str, int], sizes: Sizes) -> str:
    for axis, size in sizes.items():
        if text.startswith(f"for each tile of {axis}") and f"tile_{axis}" in parameters:
            tile = parameters[f"tile_{axis}"]
            chunk = -(-size // parameters.get("split", 1))
            steps = -(-chunk // tile)
            return f"tile {tile}: {steps} step{'s' * (steps != 1)}"
    return ""
