"""Python source that rebuilds an expression, a program or an sGraph, identical to the last shared node.

The source uses the constructors that a person would use and nothing else, so that ``sgraph.reader`` can read it
back without executing it. Nodes that are used more than once, and nodes whose text grows long, are bound to names.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from sgraph.axis import Axis, Extent, Size
from sgraph.expr import CONDITIONS, REDUCTIONS, Expr, Op, Read, const, walk
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import Border, Narrow, Program, Split, Tensor

CONSTRUCTORS: Final[dict[str, tuple[str, ...]]] = {
    "sgraph.axis": ("Axis", "Size"),
    "sgraph.expr": (
        "Op",
        "call",
        "const",
        "exp",
        "extent",
        "index",
        "leaf",
        "log",
        "make",
        "max_over",
        "maximum",
        "min_over",
        "minimum",
        "neg_inf",
        "recip",
        "rsqrt",
        "sqrt",
        "sum_over",
        "where",
    ),
    "sgraph.ir": ("Kernel", "Role", "SGraph", "Store"),
    "sgraph.program": ("Border", "DType", "Narrow", "Output", "Program", "Split", "Tensor", "View"),
}
"""Everything the source may call or name, by module. The reader allows these and nothing else."""

RESULT: Final = "result"
"""The name that the source binds the rebuilt object to."""

_LONGEST_TERM: Final = 80
"""Characters beyond which a node gets a line of its own, which also bounds how deep parentheses nest."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"' r"|'(?:[^'\\]|\\.)*'")

_SUM, _PRODUCT, _ATOM = range(3)

_FUNCTION: Final = {
    Op.RECIP: "recip",
    Op.SQRT: "sqrt",
    Op.EXP: "exp",
    Op.LOG: "log",
    Op.MAX2: "maximum",
    Op.MIN2: "minimum",
    Op.WHERE: "where",
    Op.SUM: "sum_over",
    Op.MAX: "max_over",
    Op.MIN: "min_over",
}


def python(obj: Expr | Program | SGraph) -> str:
    """Python source that binds ``result`` to the identical object."""
    writer = _Writer(_roots(obj))
    match obj:
        case Expr():
            value = writer.expr(obj)
        case Program():
            value = writer.program(obj)
        case SGraph():
            value = writer.sgraph(obj)
    body = [*writer.lines, f"{RESULT} = {value}", ""]
    return "\n".join([*_imports("\n".join(body)), "", *body])


def _roots(obj: Expr | Program | SGraph) -> list[Expr]:
    match obj:
        case Expr():
            return [obj]
        case Program():
            return [o.value for o in obj.outputs]
        case SGraph():
            stored = [e for k in obj.kernels for s in k.stores for e in (s.value, s.claim)]
            return [*_roots(obj.program), *stored]


def _imports(body: str) -> list[str]:
    """Import lines for the constructors that the body names outside its string literals."""
    words = set(re.findall(r"\w+", _STRING.sub("", body)))
    found = {module: [n for n in names if n in words] for module, names in CONSTRUCTORS.items()}
    return [f"from {module} import {', '.join(names)}" for module, names in found.items() if names]


class _Writer:
    """Lines written so far, and the name or text of everything that has been written."""

    def __init__(self, roots: list[Expr]) -> None:
        self.lines: list[str] = []
        self._uses = Counter([*roots, *(a for node in walk(roots) for a in node.args)])
        self._taken = {RESULT, *(name for names in CONSTRUCTORS.values() for name in names)}
        self._bound: dict[Size | Axis | Tensor | Program, str] = {}
        self._terms: dict[Expr, tuple[str, int]] = {}

    # --------------------------------------------------------------------------------- expressions

    def expr(self, e: Expr) -> str:
        """The text of an expression, after binding what it shares."""
        for node in walk([e]):
            if node not in self._terms:
                term, rank = self._term(node)
                if (self._uses[node] > 1 and (node.args or node.op is Op.LEAF)) or len(term) > _LONGEST_TERM:
                    term, rank = self._bind(*_suggestion(node), term), _ATOM
                self._terms[node] = term, rank
        return self._terms[e][0]

    def _term(self, node: Expr) -> tuple[str, int]:
        arguments = [self._terms[a] for a in node.args]
        match node.op:
            case Op.ADD if (inner := self._negated(node.args[1])) is not None:
                return f"{_within(arguments[0], _SUM)} - {_within(inner, _PRODUCT)}", _SUM
            case Op.ADD:
                return f"{_within(arguments[0], _SUM)} + {_within(arguments[1], _PRODUCT)}", _SUM
            case Op.MUL if (inner := self._divisor(node.args[1])) is not None:
                return f"{_within(arguments[0], _PRODUCT)} / {_within(inner, _ATOM)}", _PRODUCT
            case Op.MUL:
                return f"{_within(arguments[0], _PRODUCT)} * {_within(arguments[1], _ATOM)}", _PRODUCT
            case Op.RECIP if node.args[0].op is Op.SQRT and not self._stands_alone(node.args[0]):
                return _call("rsqrt", self._terms[node.args[0].args[0]][0]), _ATOM
            case _:
                return self._constructor(node, [text for text, _ in arguments]), _ATOM

    def _negated(self, node: Expr) -> tuple[str, int] | None:
        """The ``b`` of ``(-1) * b``, where ``a - b`` rebuilds exactly that."""
        minus = node.op is Op.MUL and node.args[0] is const(-1) and node.args[1].op is not Op.CONST
        return None if not minus or self._stands_alone(node) else self._terms[node.args[1]]

    def _divisor(self, node: Expr) -> tuple[str, int] | None:
        """The ``b`` of ``recip(b)``, where ``a / b`` reads better; ``rsqrt`` does not."""
        plain = node.op is Op.RECIP and node.args[0].op is not Op.SQRT
        return None if not plain or self._stands_alone(node) else self._terms[node.args[0]]

    def _stands_alone(self, node: Expr) -> bool:
        """Whether a node has a line of its own, so that its users must name it."""
        return self._uses[node] > 1 or self._terms[node][0].isidentifier()

    def _constructor(self, node: Expr, arguments: list[str]) -> str:
        match node.attr:
            case Read(tensor, axes, finite):
                flag = [] if finite else ["finite=False"]
                return _call("leaf", quoted(tensor), _tuple(map(self.axis, axes)), *flag)
            case Axis() if node.op in REDUCTIONS:
                return _call(_FUNCTION[node.op], self.axis(node.attr), *arguments)
            case Axis() if node.op is Op.INDEX or (not node.attr.copy and not node.attr.level):
                return _call(node.op.value, self.axis(node.attr))
            case Axis():
                return _call("make", f"Op.{node.op.name}", "()", self.axis(node.attr))
            case str():
                return _call("call", quoted(node.attr), *arguments)
            case None if node.op in CONDITIONS:
                return _call("make", f"Op.{node.op.name}", _tuple(arguments))
            case None:
                return _call("neg_inf" if node.op is Op.NEG_INF else _FUNCTION[node.op], *arguments)
            case value:
                return _call("const", str(value) if value.denominator == 1 else quoted(str(value)))

    # ----------------------------------------------------------------------------- axes and tensors

    def axis(self, axis: Axis) -> str:
        """The name bound to an axis."""
        if axis not in self._bound:
            flags = [f"copy={axis.copy}"] * bool(axis.copy) + [f"level={quoted(axis.level)}"] * bool(axis.level)
            term = _call("Axis", quoted(axis.name), self._extent(axis.extent), *flags)
            suffix = f"_{axis.copy}" * bool(axis.copy) + f"_{axis.level}" * bool(axis.level)
            self._bound[axis] = self._bind(axis.name + suffix, "", term)
        return self._bound[axis]

    def _extent(self, extent: Extent) -> str:
        if not isinstance(extent, Size):
            return str(extent)
        if extent not in self._bound:
            numbers = (f"low={extent.low}", f"high={extent.high}", f"divisor={extent.divisor}")
            self._bound[extent] = self._bind(f"{extent.name}_size", "", _call("Size", quoted(extent.name), *numbers))
        return self._bound[extent]

    def tensor(self, tensor: Tensor) -> str:
        """The name bound to a tensor."""
        if tensor not in self._bound:
            axes = _tuple("None" if a is None else self.axis(a) for a in tensor.axes)
            flags = ["constant=True"] * tensor.constant + ["finite=False"] * (not tensor.finite)
            dtype = f"DType.{tensor.dtype.name}"
            term = _call("Tensor", quoted(tensor.name), axes, dtype, *flags)
            self._bound[tensor] = self._bind(tensor.name, "", term)
        return self._bound[tensor]

    # -------------------------------------------------------------------------- programs and sgraphs

    def program(self, p: Program) -> str:
        """The constructor call of a program."""
        inputs = _tuple(map(self.tensor, p.inputs))
        outputs = _tuple(_call("Output", self.tensor(o.tensor), self.expr(o.value)) for o in p.outputs)
        source = [f"source={quoted(p.source)}"] * bool(p.source)
        facts = [f"facts={_tuple(map(quoted, p.facts))}"] * bool(p.facts)
        border = [f"border={self._border(p.border)}"] if p.border is not None else []
        return _call("Program", quoted(p.name), inputs, outputs, *source, *facts, *border)

    def _border(self, border: Border) -> str:
        parameters = _tuple(map(self.tensor, border.parameters))
        views = _tuple(
            _call("View", quoted(v.parameter), *([_tuple(map(_step, v.steps))] if v.steps else []))
            for v in border.views
        )
        merges = _tuple(_tuple(map(str, merge)) for merge in border.merges)
        return self._bind("border", "", _call("Border", parameters, views, merges))

    def sgraph(self, g: SGraph) -> str:
        """The constructor call of an sGraph."""
        program = self._bind("program", "", self.program(g.program))
        return _call("SGraph", program, _tuple([self._kernel(k) for k in g.kernels]))

    def _kernel(self, kernel: Kernel) -> str:
        stores = _tuple([self._store(s) for s in kernel.stores])
        roles = _tuple(f"({self.axis(a)}, Role.{r.name})" for a, r in kernel.roles)
        return self._bind(kernel.name, "", _call("Kernel", quoted(kernel.name), stores, roles))

    def _store(self, store: Store) -> str:
        return _call("Store", self.tensor(store.tensor), self.expr(store.value), self.expr(store.claim))

    # ------------------------------------------------------------------------------------- writing

    def _bind(self, base: str, first: str, term: str) -> str:
        """A new line that names ``term``: ``base`` with the suffix ``first``, else with a number."""
        word = re.sub(r"[^A-Za-z0-9_]", "_", base)
        word = word if word.isidentifier() and not keyword.iskeyword(word) else f"_{word}"
        names = itertools.chain([word + first], (f"{word}_{i}" for i in itertools.count(2)))
        name = next(n for n in names if n not in self._taken)
        self._taken.add(name)
        self.lines.append(f"{name} = {term}")
        return name


def _call(function: str, *arguments: str) -> str:
    return f"{function}({', '.join(arguments)})"


def _tuple(items: Iterable[str]) -> str:
    listed = list(items)
    return f"({listed[0]},)" if len(listed) == 1 else f"({', '.join(listed)})"


def quoted(text: str) -> str:
    """A Python string literal, in double quotes where that needs no escaping."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _within(term: tuple[str, int], rank: int) -> str:
    return f"({term[0]})" if term[1] < rank else term[0]


def _step(step: Narrow | Split) -> str:
    if isinstance(step, Narrow):
        return _call("Narrow", str(step.dim), str(step.start), str(step.length))
    return _call("Split", str(step.dim), _tuple(map(str, step.sizes)))


def _suggestion(node: Expr) -> tuple[str, str]:
    """A name for a shared node, and its first suffix: what it reads, or what it is."""
    if node.op is Op.LEAF:
        return "_".join([node.name, *map(str, node.axes)]), ""
    return node.name if node.op is Op.CALL else node.op.value, "_1"
