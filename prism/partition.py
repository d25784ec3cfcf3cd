"""A graph that Dynamo traced, divided into regions that Prism optimises and a rest that stays torch.

Operators without a meaning in the language, changes in place, random draws and everything that is not a pure function
of tensors are left to torch. What is between them is merged along its data flow into the largest regions that can run
as one call: contracting every region to one point leaves the graph without cycles (so regions are convex), and no
region reaches across an operator with side effects. Each region is captured on its own; where that fails, the
operator that the refusal names is left to torch and the regions are formed again.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, cast

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.symbolic_shapes import free_symbols

from prism.effects import Effects, effects, memory_order, storage, tensors
from prism.extraction import Extracted, NoSize, extract
from prism.frontend.arguments import dtype_name
from prism.frontend.call import find
from prism.frontend.denotation import denote
from prism.frontend.trace import EXACT, REAL, Placeholder, Trace, fingerprint
from prism.frontend.tracing import trace
from prism.grouping import group
from prism.regions import Cut, Partition, Region, Skipped
from prism.sections import layer_of, sections
from sgraph.axis import Extent, Size
from sgraph.errors import InputError, PrismError, UnsupportedOperator
from sgraph.expr import REDUCTIONS, Op, walk
from sgraph.program import Program

LARGEST_SIZE: Final = 1 << 16
"""A size that torch leaves open is optimised up to this; longer ones run as they were written."""
LEAST_OPERATORS: Final = 2
"""Operators in a region without a reduction that make it worth a search."""
_TAG = re.compile(r"<node (\w+)>")
_RESULT = re.compile(r"result (\d+) of")


@dataclass(frozen=True, slots=True)
class Divided:
    """A graph and how it was divided."""

    graph: GraphModule
    """As Dynamo traced it."""
    partition: Partition
    """The regions and the rest."""
    parts: tuple[tuple[Region, Extracted], ...]
    """Every region with its code."""
    epochs: Mapping[Node, int]
    """Nodes in one epoch may change places."""


def divide(graph: GraphModule, inputs: Sequence[object]) -> Divided:
    """Divide a graph, given one call's inputs (tensors, and numbers for sizes that torch left open)."""
    reason = _whole_graph_reason(graph, inputs)
    if not reason:
        try:
            known = effects(graph, inputs)
        except Exception as error:  # whatever an operator raises on fake tensors
            reason = f"it does not run on tensors without data: {type(error).__name__}: {str(error).splitlines()[:1]}"
        else:
            return _Division(graph, known).divided()
    return Divided(graph, Partition((), (), (), len(_calls(graph)), reason), (), {})


def _whole_graph_reason(graph: GraphModule, inputs: Sequence[object]) -> str:
    """Why nothing in a graph can be optimised; empty if something can."""
    for value in inputs:
        if isinstance(value, torch.Tensor) and type(value) not in (torch.Tensor, torch.nn.Parameter):
            return f"an input is of the tensor subclass {type(value).__name__}"
    if torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in inputs):
        return "an input requires a gradient, which kernels do not give; call it under torch.no_grad()"
    devices = {x.device.type for x in inputs if isinstance(x, torch.Tensor)}
    if any(torch.is_autocast_enabled(kind) for kind in devices if kind != "meta") or any(
        "autocast" in str(node.target) for node in graph.graph.nodes
    ):
        return "it runs under autocast, which chooses the types of operators"
    return ""


def _calls(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.op.startswith("call_")]


class _Division:
    """One graph on its way to regions."""

    def __init__(self, graph: GraphModule, known: Effects) -> None:
        self.graph = graph
        self.known = known
        self.calls = _calls(graph)
        self.cuts: dict[Node, str] = {}
        """Nodes that are left to torch, with the reason."""
        self.edges: set[Node] = set()
        """Nodes that would be at a region's edge and compute nothing there: views, lengths, masks."""
        self.captured: dict[tuple[Node, ...], tuple[Region, Extracted] | Skipped] = {}

    def divided(self) -> Divided:
        """Form regions until every one of them is captured."""
        for node in self.calls:
            reason = self._reason(node)
            if reason:
                self.cuts[node] = reason
        self._look_up_operators()
        while not self._settled():
            pass
        groups = self._groups()
        found = [self.captured[g] for g in groups]
        parts = tuple(f for f in found if not isinstance(f, Skipped))
        skipped = tuple(f for f in found if isinstance(f, Skipped))
        cuts = tuple(self._cut(node, reason) for node, reason in self.cuts.items() if self._is_news(node))
        partition = Partition(tuple(r for r, _ in parts), cuts, skipped, len(self.calls))
        return Divided(self.graph, partition, parts, self.known.epochs)

    def _is_news(self, node: Node) -> bool:
        """Arithmetic on sizes is nobody's loss."""
        return bool(list(tensors(self.known.values[node]))) or node in self.known.barriers

    def _reason(self, node: Node) -> str:
        """Why a node is left to torch before anything is captured; empty if it is not."""
        if node in self.known.barriers:
            return self.known.barriers[node]
        made = list(tensors(self.known.values[node]))
        if not made:
            return "computes no tensor"
        for tensor in (*made, *(t for i in node.all_input_nodes for t in tensors(self.known.values[i]))):
            if dtype_name(tensor.dtype) not in REAL | EXACT:
                return f"holds {dtype_name(tensor.dtype)}; Prism computes with real numbers"
            if tensor.layout is not torch.strided:
                return "is not dense"
            if tensor.numel() == 0:
                return "is empty"
        kinds = {t.device for t in made} | {
            t.device for i in node.all_input_nodes for t in tensors(self.known.values[i]) if t.dim()
        }
        return f"is on several devices: {', '.join(sorted(map(str, kinds)))}" if len(kinds) > 1 else ""

    # ------------------------------------------------------------------------------------------- regions

    def _groups(self) -> list[tuple[Node, ...]]:
        """The largest regions of nodes that are not left to torch."""
        inside = [n for n in self.calls if n not in self.cuts and n not in self.edges]
        return [part for nodes in group(self.graph, inside, self.known.epochs, layer_of) for part in sections(nodes)]

    def _settled(self) -> bool:
        """Look at every region; False as soon as one has to change."""
        groups = self._groups()
        edges = {node for nodes in groups for node in self._empty_edges(nodes)}
        if edges:
            self.edges |= edges
            return False
        return all(nodes in self.captured or self._capture(nodes) for nodes in groups)

    def _empty_edges(self, nodes: tuple[Node, ...]) -> set[Node]:
        """Results of a region that are not real numbers newly computed from its inputs."""
        inside = set(nodes)
        code = Extracted.edges(nodes)
        memory = {storage(t) for i in code.inputs for t in tensors(self.known.values[i])}
        reached: set[Node] = set()
        for node in nodes:
            if any(
                i in reached or (i not in inside and self.known.tensor(i) is not None) for i in node.all_input_nodes
            ):
                reached.add(node)
        # A tuple that is taken apart has to be made in the same region; what nobody uses is in none.
        found = {n for n in nodes if any(self._is_tuple(i) and i not in inside for i in n.all_input_nodes)}
        if not code.outputs:
            found |= inside
        for node in code.outputs:
            tensor = self.known.tensor(node)
            computed = tensor is not None and node in reached and dtype_name(tensor.dtype) in REAL and _dense(tensor)
            if tensor is None or not computed or storage(tensor) in memory:
                found.add(node)
            else:
                memory.add(storage(tensor))
        return found

    def _is_tuple(self, node: Node) -> bool:
        return self.known.tensor(node) is None and bool(list(tensors(self.known.values[node])))

    def _capture(self, nodes: tuple[Node, ...]) -> bool:
        """Capture one region; False if that took a node out of it."""
        lines = tuple(dict.fromkeys(line for n in nodes if (line := source_of(n))))
        operators = tuple(operator_of(n) for n in nodes)
        try:
            code = extract(nodes, self.known)
            traced = trace(
                _tagged(code),
                self._examples(code),
                name="region",
                sizes=_sizes(code),
                constant=(),
                masks=(),
            )
            program = denote(traced)
        except NoSize as problem:
            self.cuts[problem.node] = "its sizes are not sizes of its tensors"
            return False
        except PrismError as problem:
            culprit = _culprit(problem, nodes)
            if culprit is None:
                self.captured[nodes] = Skipped(operators, lines, problem.seen)
                return True
            self.cuts[culprit] = problem.seen
            return False
        reason = _not_worth(program, operators)
        if reason:
            self.captured[nodes] = Skipped(operators, lines, reason)
            return True
        traced, masks = _with_masks(traced, {p for p, n in zip(code.names, code.inputs, strict=True) if _constant(n)})
        program = replace(denote(traced), source=lines[0] if lines else "")
        device = next(tensors(self.known.values[nodes[-1]])).device
        region = Region(
            name=f"region_{nodes[0].name}",
            nodes=tuple(n.name for n in nodes),
            operators=operators,
            lines=lines,
            inputs=tuple(n.name for n in code.inputs),
            outputs=tuple(n.name for n in code.outputs),
            sizes=_sizes(code),
            masks=masks,
            program=program,
            key=f"{device} {fingerprint(traced)}",
        )
        self.captured[nodes] = region, code
        return True

    def _examples(self, code: Extracted) -> tuple[torch.Tensor, ...]:
        """Tensors to trace with; their contents are never read, so their memory is never touched."""
        fakes = [cast("torch.Tensor", self.known.values[n]) for n in code.inputs]
        return tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in fakes)

    def _look_up_operators(self) -> None:
        """Find the operators without a meaning, all at once, before regions are formed."""
        for nodes in self._groups():
            try:
                code = extract(nodes, self.known)
                traced = trace(
                    _tagged(code), self._examples(code), name="region", sizes=_sizes(code), constant=(), masks=()
                )
            except (NoSize, PrismError):
                continue  # capturing the region meets the same again, and says so
            by_name = {n.name: n for n in nodes}
            for node in traced.nodes:
                if node.results[0] is None:  # an assertion that torch has put in
                    continue
                try:
                    find(node)
                except UnsupportedOperator as problem:
                    tag = _TAG.search(node.line)
                    if tag is not None:
                        self.cuts[by_name[tag[1]]] = problem.seen

    def _cut(self, node: Node, reason: str) -> Cut:
        return Cut(operator_of(node), node.name, source_of(node), reason)


def _dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor fills its memory without gaps or repetition."""
    return tensor.permute(memory_order(tensor)).is_contiguous()


def _constant(node: Node) -> bool:
    """Whether a node is a parameter or a buffer, as far as Dynamo tells."""
    return node.op == "get_attr" or isinstance(node.meta.get("example_value"), torch.nn.Parameter)


def _not_worth(program: Program, operators: Sequence[str]) -> str:
    """Why a region is not worth a search; empty if it is."""
    parts = list(walk(o.value for o in program.outputs))
    if any(n.op in REDUCTIONS for n in parts):
        return ""
    computed = [n for n in parts if n.op not in (Op.LEAF, Op.CONST, Op.EXTENT, Op.INDEX)]
    if len(computed) >= LEAST_OPERATORS and len(operators) >= LEAST_OPERATORS:
        return ""
    return f"a lone {operators[-1]} leaves nothing to optimise"


def _culprit(problem: PrismError, nodes: Sequence[Node]) -> Node | None:
    """The node that a refusal is about."""
    by_name = {n.name: n for n in nodes}
    tag = _TAG.search(problem.where)
    if tag is not None and tag[1] in by_name:
        return by_name[tag[1]]
    result = _RESULT.search(problem.seen)
    outputs = Extracted.edges(tuple(nodes)).outputs
    if result is not None and int(result[1]) < len(outputs):
        return outputs[int(result[1])]
    if problem.seen.startswith("the result of") and len(outputs) == 1:
        return outputs[0]
    return None


def _with_masks(traced: Trace, constant: set[str]) -> tuple[Trace, tuple[str, ...]]:
    """The trace with every input that may hold minus infinity declared so: nobody has promised that it does not."""
    masks: list[str] = []
    for placeholder in traced.placeholders:
        if placeholder.meta.dtype not in REAL or placeholder.parameter in constant or placeholder.literal is not None:
            continue
        attempt = replace(traced, placeholders=_declared(traced.placeholders, {*masks, placeholder.parameter}))
        try:
            denote(attempt)
        except PrismError:
            continue  # minus infinity there would reach something that is not defined on it
        masks.append(placeholder.parameter)
    return replace(traced, placeholders=_declared(traced.placeholders, set(masks))), tuple(masks)


def _declared(placeholders: Sequence[Placeholder], masks: set[str]) -> tuple[Placeholder, ...]:
    return tuple(replace(p, finite=p.parameter not in masks) for p in placeholders)


# ------------------------------------------------------------------------------------------------- tracing


def _tagged(code: Extracted) -> Callable[..., object]:
    """The region as a function whose operators are called from lines that name their nodes."""
    runner = _Tagged(code.module, code.origin)

    def region(*values: torch.Tensor) -> object:
        return runner.run(*values)

    return code.signed(region)


class _Tagged(Interpreter):
    def __init__(self, module: GraphModule, origin: Mapping[str, str]) -> None:
        super().__init__(module)
        self.origin = origin
        self.at = ""

    def run_node(self, n: Node) -> object:
        self.at = self.origin.get(n.name, "")
        return cast("object", super().run_node(n))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> object:
        return _caller(self.at)(target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> object:
        first, *others = args
        return _caller(self.at)(getattr(first, target), others, kwargs)


@lru_cache(maxsize=4096)
def _caller(name: str) -> Callable[..., object]:
    names: dict[str, Callable[..., object]] = {}
    exec(compile("def call(f, a, k): return f(*a, **k)", f"<node {name}>", "exec"), names)
    return names["call"]


def _sizes(code: Extracted) -> dict[str, tuple[Extent, ...]]:
    """The sizes that torch left open, by parameter."""
    found: dict[str, tuple[Extent, ...]] = {}
    for name, node in zip(code.names, code.inputs, strict=True):
        value = node.meta.get("example_value")
        if isinstance(value, torch.Tensor) and any(isinstance(n, torch.SymInt) for n in value.shape):
            found[name] = tuple(_extent(n, node) for n in cast("Sequence[int | torch.SymInt]", value.shape))
    return found


def _extent(size: int | torch.SymInt, node: Node) -> Extent:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    symbols = free_symbols(size)
    if symbols != {expression}:
        if not symbols:
            return int(expression)
        raise InputError(f"{operator_of(node)} has the size {expression}, which is no size of an input")
    bounds = size.node.shape_env.var_to_range[expression]
    low, high = max(2, int(bounds.lower)), LARGEST_SIZE
    if bounds.upper < LARGEST_SIZE:
        high = int(bounds.upper)
    return Size(str(expression), low, high)


# ------------------------------------------------------------------------------------------------ wording


def operator_of(node: Node) -> str:
    """Torch's name for what a node calls."""
    if node.op == "call_method":
        return f"Tensor.{node.target}"
    return str(getattr(node.target, "__name__", node.target))


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]+(?:\n\s+(?P<code>\S[^\n]*))?')


def source_of(node: Node) -> str:
    """The innermost line outside torch that a node comes from, ``file:line: code``; empty if there is none."""
    frames = list(_FRAME.finditer(str(node.meta.get("stack_trace") or "")))
    folder = str(torch.__path__[0])
    users = [f for f in frames if not f["file"].startswith(folder)]
    if not users:
        return ""
    frame = users[-1]
    return f"{frame['file']}:{frame['line']}" + (f": {frame['code'].strip()}" if frame["code"] else "")
