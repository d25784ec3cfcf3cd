"""Text for people: expressions, programs, sGraphs and schedules as one reads them.

``python`` is the other printer: source that rebuilds the identical object (``sgraph.rebuilding``); it is offered
here so that both printers are found in one place.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from sgraph.axis import Axis, Extent, Size
from sgraph.border import merge_text, view_text
from sgraph.expr import Expr, Op, leaves, reduction, walk
from sgraph.ir import Kernel, Role, SGraph
from sgraph.program import Program, Tensor
from sgraph.rebuilding import python
from sgraph.schedule import (
    Accumulate,
    Compute,
    Load,
    Loop,
    Merge,
    Phase,
    Reduce,
    Schedule,
    Statement,
    Write,
    WritePartial,
)

__all__ = ["extent_text", "program_text", "python", "schedule_text", "sgraph_text", "tensor_text", "text"]

LONGEST_LINE: Final = 2000
"""Characters beyond which shared subterms are named instead of repeated."""

# How tightly a piece of text binds, from loose to tight.
_COMPARISON, _SUM, _PRODUCT, _POWER, _ATOM = range(5)

_COMPARE: Final = {Op.LT: "<", Op.LE: "<=", Op.EQ: "=="}
_FUNCTION: Final = {
    Op.SQRT: "sqrt",
    Op.EXP: "exp",
    Op.LOG: "log",
    Op.MAX2: "max",
    Op.MIN2: "min",
    Op.WHERE: "where",
}


# ------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class _Piece:
    """Printed text with what is needed to put it into other text."""

    body: str
    rank: int
    negative: bool = False
    """A minus sign stands before ``body``."""

    def within(self, rank: int) -> str:
        """The text where something binding at least as tightly as ``rank`` is expected."""
        if self.negative:
            signed = f"-{self.magnitude(_PRODUCT)}"
            return f"({signed})" if rank >= _PRODUCT else signed
        return self.magnitude(rank)

    def magnitude(self, rank: int) -> str:
        """The text without its sign."""
        return f"({self.body})" if self.rank < rank else self.body


def text(e: Expr) -> str:
    """The expression as a person writes it, on one line: ``sum[k](x[m,k] * W[k,n]) / |k|``.

    Shared subterms are repeated. Beyond about 2000 characters they are named instead, in ``let`` lines before the
    last one.
    """
    if _expanded_length(e) <= LONGEST_LINE:
        return _render(e, {})
    names = _shared_names(e)
    lines = [f"let {name} = {_render(node, names)}" for node, name in names.items()]
    return "\n".join([*lines, names.get(e) or _render(e, names)])


def _render(e: Expr, names: Mapping[Expr, str]) -> str:
    """``e`` on one line, where everything below it that has a name is written by it."""
    if e in names:
        names = {node: name for node, name in names.items() if node is not e}
    pieces: dict[Expr, _Piece] = {}
    for node in _walk_unnamed(e, names):
        pieces[node] = _piece(node, pieces, names)
    return pieces[e].within(_COMPARISON)


def _walk_unnamed(e: Expr, names: Mapping[Expr, str]) -> Iterator[Expr]:
    """Nodes below ``e``, operands first, not descending below named ones."""
    done: set[Expr] = set()
    stack = [(e, False)]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if a not in names)


def _piece(node: Expr, pieces: Mapping[Expr, _Piece], names: Mapping[Expr, str]) -> _Piece:
    def of(argument: Expr) -> _Piece:
        return _Piece(names[argument], _ATOM) if argument in names else pieces[argument]

    match node.op:
        case Op.LEAF:
            return _Piece(_indexed(node.name, node.axes), _ATOM)
        case Op.CONST:
            size = abs(node.value)
            return _Piece(str(size), _ATOM if size.denominator == 1 else _PRODUCT, node.value < 0)
        case Op.NEG_INF:
            return _Piece("inf", _ATOM, negative=True)
        case Op.EXTENT:
            return _Piece(f"|{node.axis}|", _ATOM)
        case Op.INDEX:
            return _Piece(f"index({node.axis})", _ATOM)
        case Op.ADD:
            left, right = map(of, node.args)
            sign, body = ("-", right.magnitude(_PRODUCT)) if right.negative else ("+", right.magnitude(_SUM))
            return _Piece(f"{left.within(_SUM)} {sign} {body}", _SUM)
        case Op.MUL | Op.RECIP:
            return _product(_factors(node, names), of, names)
        case Op.LT | Op.LE | Op.EQ:
            left, right = map(of, node.args)
            return _Piece(f"{left.within(_SUM)} {_COMPARE[node.op]} {right.within(_SUM)}", _COMPARISON)
        case Op.SUM | Op.MAX | Op.MIN:
            axes, operand = _chain(node, names)
            return _Piece(f"{_indexed(node.op.value, axes)}({of(operand).within(_COMPARISON)})", _ATOM)
        case Op.CALL | Op.SQRT | Op.EXP | Op.LOG | Op.MAX2 | Op.MIN2 | Op.WHERE:
            name = node.name if node.op is Op.CALL else _FUNCTION[node.op]
            return _Piece(f"{name}({', '.join(of(a).within(_COMPARISON) for a in node.args)})", _ATOM)
        case _:
            assert_never(node.op)


def _product(factors: Sequence[Expr], of: Callable[[Expr], _Piece], names: Mapping[Expr, str]) -> _Piece:
    """A product: the sign in front, repeated factors as powers, reciprocals as divisions at the end."""

    def divides(factor: Expr) -> bool:
        return (
            factor.op is Op.RECIP
            and factor not in names
            and (factor.args[0].op is not Op.SQRT or factor.args[0] in names)
        )

    negative = False
    body, rank = "", _ATOM
    for factor, run in itertools.groupby(sorted(factors, key=divides)):
        power, inverse = len(list(run)), divides(factor)
        if inverse or factor.op is not Op.RECIP or factor in names:
            piece = of(factor.args[0] if inverse else factor)
        else:
            piece = _Piece(f"rsqrt({of(factor.args[0].args[0]).within(_COMPARISON)})", _ATOM)
        negative ^= piece.negative and power % 2 == 1
        if piece.body == "1" and len(factors) > 1 and not inverse:
            continue
        shown = piece.magnitude(_PRODUCT if power == 1 and not inverse else _POWER if power == 1 else _ATOM)
        shown += f"^{power}" if power > 1 else ""
        rank = _PRODUCT if body or inverse else piece.rank if power == 1 else _POWER
        body = f"{body or 1} / {shown}" if inverse else f"{body} * {shown}" if body else shown
    return _Piece(body or "1", max(rank, _PRODUCT), negative)


def _factors(node: Expr, names: Mapping[Expr, str]) -> tuple[Expr, ...]:
    """The factors of a product, not looking inside named ones."""
    if node.op is not Op.MUL:
        return (node,)
    out: list[Expr] = []
    stack = list(reversed(node.args))
    while stack:
        factor = stack.pop()
        if factor.op is Op.MUL and factor not in names:
            stack.extend(reversed(factor.args))
        else:
            out.append(factor)
    return tuple(out)


def _chain(node: Expr, names: Mapping[Expr, str]) -> tuple[tuple[Axis, ...], Expr]:
    """Axes and operand of a chain of like reductions, not looking inside named ones."""
    axes, operand = [node.axis], node.args[0]
    while operand.op is node.op and operand not in names:
        axes.append(operand.axis)
        operand = operand.args[0]
    return tuple(axes), operand


def _indexed(name: str, axes: Iterable[Axis]) -> str:
    inner = ",".join(map(str, axes))
    return f"{name}[{inner}]" if inner else name


def _expanded_length(e: Expr) -> int:
    """About how long the text is when shared subterms are repeated."""
    length: dict[Expr, int] = {}
    for node in walk([e]):
        length[node] = 4 + len(str(node.attr or "")) // 4 + sum(length[a] for a in node.args)
    return length[e]


def _shared_names(e: Expr) -> dict[Expr, str]:
    """A name for every compound node that is used more than once, operands first."""
    nodes = list(walk([e]))
    uses = Counter(a for node in nodes for a in node.args)
    taken = {x.name for x in leaves([e])}
    fresh = (n for n in (f"e{i}" for i in itertools.count(1)) if n not in taken)
    return {node: next(fresh) for node in nodes if uses[node] > 1 and node.args}


# -------------------------------------------------------------------------------------------- programs


def extent_text(extent: Extent) -> str:
    """An extent with what is known about it: ``4096``, ``M in 1..64``, ``kv in 16..8192, multiple of 16``."""
    if not isinstance(extent, Size):
        return str(extent)
    divisor = f", multiple of {extent.divisor}" if extent.divisor > 1 else ""
    return f"{extent.name} in {extent.low}..{extent.high}{divisor}"


def tensor_text(tensor: Tensor) -> str:
    """A tensor with axes and element type: ``x[m,k] bf16``; a dimension of extent 1 is a ``1``."""
    inner = ",".join("1" if a is None else str(a) for a in tensor.axes)
    flags = [f" {word}" for word, set_ in (("constant", tensor.constant), ("may hold -inf", not tensor.finite)) if set_]
    return f"{tensor.name}[{inner}] {tensor.dtype.short}{','.join(flags)}"


def program_text(p: Program) -> str:
    """Inputs with axes, element types and flags, outputs as equations, extents and facts."""
    lines = [f"program {p.name}" + (f"  ({p.source})" if p.source else "")]
    lines += [f"  takes   {tensor_text(t)}" for t in (p.border.parameters if p.border is not None else ())]
    lines += [f"  input   {tensor_text(t)}{view}" for t, view in zip(p.inputs, view_texts(p), strict=True)]
    lines += [f"  output  {_equation(o.tensor, o.value, '          ')}" for o in p.outputs]
    if p.border is not None:
        merged = ((o.tensor.name, m) for o, m in zip(p.outputs, p.border.merges, strict=True))
        lines += [f"  returns {merge_text(name, merge)}" for name, merge in merged]
    lines += [f"  axis    {a}: {extent_text(a.extent)}" for a in p.axes]
    lines += [f"  fact    {fact}" for fact in p.facts]
    return "\n".join(lines)


def view_texts(p: Program) -> list[str]:
    """How each input lies in what the function takes, as text behind it; empty where that is the same."""
    if p.border is None:
        return [""] * len(p.inputs)
    return [f" = {view_text(v)}" if v.steps else "" for v in p.border.views]


def _equation(tensor: Tensor, value: Expr, margin: str) -> str:
    return f"{tensor_text(tensor)} = {text(value)}".replace("\n", f"\n{margin}")


# --------------------------------------------------------------------------------------------- sGraphs


def sgraph_text(g: SGraph) -> str:
    """One screen: per kernel its name, the role of each axis, what it reads, and its equations."""
    count = f"{len(g.kernels)} kernel" + ("s" if len(g.kernels) != 1 else "")
    blocks = [f"sgraph of {g.program.name}: {count}", *map(_kernel_text, g.kernels)]
    return "\n".join(blocks)


def _kernel_text(kernel: Kernel) -> str:
    kind = "fold" if kernel.fold else "kernel"  # a fold runs once, its reads are constant
    lines = [f"{kind} {kernel.name}: {_roles_text(kernel)}", f"  reads   {', '.join(kernel.reads) or 'nothing'}"]
    lines += [f"  stores  {_equation(s.tensor, s.value, '          ')}" for s in kernel.stores]
    return "\n".join(lines)


def _roles_text(kernel: Kernel) -> str:
    if not kernel.roles:
        return "roles undecided" if kernel.axes else "no axes"
    named = [(role, kernel.with_role(role)) for role in Role]
    return "; ".join(f"{role.value} {', '.join(map(str, axes))}" for role, axes in named if axes)


# ------------------------------------------------------------------------------------------- schedules


def schedule_text(s: Schedule) -> str:
    """The stages as indented pseudo-code, in which every value is defined once and then used by its name."""
    names = _value_names(s)
    lines = [f"schedule of kernel {s.kernel.name}: {_roles_text(s.kernel)}"]
    for phase in s.phases:
        lines.append(f"{phase.name}: {_phase_text(s.kernel, phase)}")
        lines += _body_lines(phase.body, names, "  ")
    return "\n".join(lines)


def _phase_text(kernel: Kernel, phase: Phase) -> str:
    where = f"for each tile of {', '.join(map(str, phase.grid))}" if phase.grid else "one program"
    if phase.split is None:
        return where
    writes = any(isinstance(statement, WritePartial) for statement in phase.body)
    cell = f"cell of {phase.split}"
    return f"{where}, for each {cell}" if writes else f"{where}, over every {cell}"


def _value_names(s: Schedule) -> dict[Expr, str]:
    """Short names for what statements compute, in order of appearance."""
    values = [v for phase in s.phases for statement in _statements(phase.body) for v in _defined(statement)]
    taken = {x.name for x in leaves(store.value for store in s.kernel.stores)}
    fresh = (n for n in (f"v{i}" for i in itertools.count(1)) if n not in taken)
    return {v: next(fresh) for v in dict.fromkeys(values)}


def _statements(body: Sequence[Statement]) -> Iterator[Statement]:
    """Every statement, loops before their bodies."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        yield statement
        if isinstance(statement, Loop):
            stack.extend(reversed(statement.body))


def _defined(statement: Statement) -> tuple[Expr, ...]:
    match statement:
        case Compute(value) | Reduce(value):
            return (value,)
        case Accumulate() | Merge():
            return statement.state
        case Loop(start=start):
            return start
        case Load() | Write() | WritePartial():
            return ()


def _body_lines(body: Sequence[Statement], names: Mapping[Expr, str], margin: str) -> list[str]:
    lines: list[str] = []
    for statement in body:
        lines += [margin + line for line in _statement_lines(statement, names)]
    return lines


def _statement_lines(statement: Statement, names: Mapping[Expr, str]) -> list[str]:
    match statement:
        case Load(value):
            return [f"load {_render(value, {})}"]
        case Compute(value) | Reduce(value):
            return [f"{names[value]} = {_render(value, names)}"]
        case Accumulate(values, scale):
            return _accumulate_lines(values, scale, names)
        case Loop(axis, start, body):
            units = [f"{names[v]} = {'0' if v.op is Op.SUM else '-inf' if v.op is Op.MAX else 'inf'}" for v in start]
            return [*units, f"for each tile of {axis}:", *_body_lines(body, names, "  ")]
        case Merge(values, scale):
            relative = f", relative to {names[scale]}" if scale is not None else ""
            return [f"{names[v]} = merged over the cells{relative if v is not scale else ''}" for v in statement.state]
        case Write(tensor, value):
            return [f"store {_indexed(tensor.name, tensor.named_axes)} = {names.get(value) or _render(value, names)}"]
        case WritePartial(value):
            return [f"store partial {names[value]}"]


def _accumulate_lines(values: Sequence[Expr], scale: Expr | None, names: Mapping[Expr, str]) -> list[str]:
    lines: list[str] = []
    note, known = "", names
    if scale is not None:
        axes, operand = reduction(scale)
        lines.append(f"{names[scale]} max= {_indexed('max', axes)}({_within(operand, names)})")
        note = f", rescaled to the new {names[scale]}"
        # What depends on the finished maximum is computed in a later pass and has no name yet.
        known = {node: name for node, name in names.items() if node is scale or scale not in walk([node])}
    for value in values:
        axes, operand = reduction(value)
        sign = "+" if value.op is Op.SUM else value.op.value
        lines.append(f"{names[value]} {sign}= {_indexed(value.op.value, axes)}({_within(operand, known)}){note}")
    return lines


def _within(operand: Expr, names: Mapping[Expr, str]) -> str:
    return names.get(operand) or _render(operand, names)
