"""Kernels' values as torch expressions: pointwise arithmetic, reductions, and sums of products as contractions.

What runs in which element type is said in ``autotune.torch_printer``.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from autotune.torch_forms import FORMS
from autotune.torch_nodes import ATOM, COMPARE, MUL, NEGATE, Dims, Node, Nodes, Value, identifier
from sgraph.axis import Axis, Extent
from sgraph.errors import UnsupportedOperator, UnsupportedProgram
from sgraph.expr import Expr, Op, Read, const, factors, leaves, reduction, walk
from sgraph.ir import SGraph
from sgraph.program import DType, Tensor
from sgraph.scaled import stabilise

CHUNK: Final = 64
"""Extent assumed of a symbolic axis where costs are compared, inside its range."""

CALLS: Final = {
    **{name: f"torch.{name}({{}})" for name in ("exp", "sigmoid", "tanh", "erf", "relu", "abs", "sin", "cos")},
    "silu": "F.silu({})",
    "softplus": "F.softplus({})",
    "gelu": "F.gelu({})",
    "gelu_tanh": 'F.gelu({}, approximate="tanh")',
}
"""Unary functions that the algebra keeps whole, and how torch writes them."""


@dataclass(frozen=True, slots=True)
class _Factor:
    """An operand of a sum of products: some factors of the summand, or a product already contracted."""

    parts: tuple[Expr, ...]
    """The factors; empty once contracted."""
    axes: frozenset[Axis]
    dtype: DType
    """The type it has as operand of a product: that of its largest tensor."""
    value: Value | None = None
    """Its value once contracted."""


class Lowering:
    """Expressions over tensors to torch values."""

    def __init__(self, graph: SGraph, *, forms: bool = False) -> None:
        self.graph = graph
        self.used: dict[str, None] = {}
        """Functions printed in their other form, in order of first use."""
        self.nodes = Nodes()
        tensors = (*graph.program.inputs, *graph.intermediates)
        self.compute = DType.FP64 if any(t.dtype is DType.FP64 for t in tensors) else DType.FP32
        self.forms = forms and self.compute is DType.FP32
        self._dots = {_dot_key(node, {}) for node in _sums(o.value for o in graph.program.outputs)}
        self._inputs = {t.name: frozenset({t.name}) for t in graph.program.inputs}
        for kernel in graph.kernels:
            for store in kernel.stores:
                self._inputs[store.tensor.name] = _tensors(store.value, self._inputs)
        self._done: dict[Expr, Value] = {}
        self._number: dict[Expr, Fraction | float] = {}
        self._dtype: dict[Expr, DType | None] = {}
        self._rank: dict[Axis, int] = {}

    def store(self, tensor: Tensor, value: Expr) -> Node:
        """The node whose text is assigned to ``tensor``."""
        value = stabilise(value)
        read = [axis for e in leaves([value]) for axis in e.axes]
        self._rank = {axis: i for i, axis in enumerate(dict.fromkeys((*tensor.named_axes, *read)))}
        # Association depends on the order of the store's axes, so values are shared by node, not by expression.
        self._done = {}
        for node in walk([value]):
            self._fold(node)
            self._dtype[node] = self._operand_dtype(node)
            if node not in self._number:
                self._done[node] = self._lower(node)
        result = self.value(value)
        if result.node.dtype is None:
            result = self._filled(result, tensor.dtype)
        result = self.nodes.cast(result, tensor.dtype)
        return self._shaped(result, tensor).node

    def value(self, e: Expr) -> Value:
        """The value of an expression that was lowered before."""
        return self.nodes.number(self._number[e]) if e in self._number else self._done[e]

    def extent(self, axis: Axis) -> str:
        """The size of an axis, as text: a number if static, else the size of an input.

        Raises:
            UnsupportedProgram: no input has the axis.
        """
        if isinstance(axis.extent, int):
            return str(axis.extent)
        for tensor in self.graph.program.inputs:
            for place, other in enumerate(tensor.axes):
                if other is not None and other.extent == axis.extent:
                    return f"{tensor.name}.shape[{place}]"
        raise UnsupportedProgram(
            f"the size {axis.extent} of axis {axis} is the size of no input",
            where=self.graph.program.name,
            do="declare the size as a number",
        )

    def _shaped(self, a: Value, tensor: Tensor) -> Value:
        """``a`` with exactly the tensor's dimensions."""
        permuted = [x for x in tensor.axes if x in a.axes] != [x for x in a.dims if x is not None]
        a = self.nodes.view(a, tuple(x if x in a.axes else None for x in tensor.axes))
        missing = [x for x in tensor.named_axes if x not in a.axes]
        suffix = ""
        if missing:
            sizes = ", ".join("1" if x is None else self.extent(x) for x in tensor.axes)
            suffix = f".expand({sizes})"
        if missing or permuted:
            a = self.nodes.unary("{}" + suffix + ".contiguous()", a, word="copy")
        return Value(a.node, tensor.axes)

    def _filled(self, number: Value, dtype: DType) -> Value:
        """A Python number as a tensor without dimensions, on the device of the inputs."""
        device = f", device={self.graph.program.inputs[0].name}.device" if self.graph.program.inputs else ""
        return self.nodes.unary(
            f"torch.tensor({{}}, dtype=torch.{dtype.value}{device})", number, word="number", dtype=dtype
        )

    def _float(self, e: Expr | Value) -> Value:
        """The value in the type arithmetic is done in; Python numbers stay numbers."""
        a = self.value(e) if isinstance(e, Expr) else e
        return a if a.node.dtype in (None, DType.BOOL) else self.nodes.cast(a, self.compute)

    def _tensor(self, e: Expr) -> Value:
        a = self._float(e)
        return self._filled(a, self.compute) if a.node.dtype is None else a

    # -------------------------------------------------------------------------------- single operators

    def _fold(self, e: Expr) -> None:
        """Record the value of ``e`` if it is a number known when printing."""
        known = [self._number[a] for a in e.args if a in self._number]
        if len(known) < len(e.args):
            return
        match e.op:
            case Op.CONST:
                self._number[e] = e.value
            case Op.NEG_INF:
                self._number[e] = float("-inf")
            case Op.EXTENT if isinstance(e.axis.extent, int):
                self._number[e] = Fraction(e.axis.extent)
            case Op.ADD:
                self._number[e] = known[0] + known[1]
            case Op.MUL:
                self._number[e] = known[0] * known[1]
            case Op.RECIP if known[0]:
                self._number[e] = 1 / known[0]
            case Op.SQRT if known[0] >= 0:
                self._number[e] = float(known[0]) ** 0.5
            case _:
                pass

    def _lower(self, e: Expr) -> Value:
        nodes = self.nodes
        match e.op:
            case Op.LEAF:
                return self._read(e)
            case Op.EXTENT:
                return nodes.make(Node(self.extent(e.axis)))
            case Op.INDEX:
                return self._positions(e.axis)
            case Op.ADD:
                return self._add(*e.args)
            case Op.MUL:
                return self._product(factors(e))
            case Op.RECIP:
                return self._product((e,))
            case Op.SQRT:
                return nodes.unary("torch.sqrt({})", self._tensor(e.args[0]), word="sqrt")
            case Op.EXP:
                return nodes.unary(self._call("exp"), self._tensor(e.args[0]), word="exp")
            case Op.LOG:
                return nodes.unary("torch.log({})", self._tensor(e.args[0]), word="log")
            case Op.CALL:
                return nodes.unary(self._call(e.name), self._tensor(e.args[0]), word=e.name)
            case Op.MAX2 | Op.MIN2:
                return self._extremum(e)
            case Op.LT | Op.LE | Op.EQ:
                sign = {Op.LT: "<", Op.LE: "<=", Op.EQ: "=="}[e.op]
                # Positions stay integers here: float32 counts exactly to 2**24 only.
                a, b = (self.value(x) if x.op is Op.INDEX else self._float(x) for x in e.args)
                a = self._tensor(e.args[0]) if a.node.dtype is b.node.dtype is None else a
                return nodes.binary(sign, a, b, self._union(a, b), dtype=DType.BOOL)
            case Op.WHERE:
                condition, then, otherwise = (self._float(a) for a in e.args)
                if condition.node.dtype is not DType.BOOL:  # a maximum or a product of conditions
                    zero = nodes.number(Fraction(0))
                    condition = nodes.binary("!=", condition, zero, condition.dims, dtype=DType.BOOL)
                then = self._tensor(e.args[1]) if then.node.dtype is otherwise.node.dtype is None else then
                chosen = (condition, then, otherwise)
                return nodes.function("torch.where", chosen, self._union(*chosen), self.compute)
            case Op.SUM:
                return self._sum(e)
            case _:
                assert e.op in (Op.MAX, Op.MIN), e.op
                axes, operand = reduction(e)
                a = self._tensor(operand)
                inside = [x for x in axes if x in a.axes]
                return nodes.reduce("amax" if e.op is Op.MAX else "amin", a, inside) if inside else a

    def _call(self, name: str) -> str:
        if not (self.forms and name in FORMS):
            return _call_template(name)
        self.used.setdefault(name)
        return FORMS[name].name + "({})"

    def _read(self, e: Expr) -> Value:
        assert isinstance(e.attr, Read)
        tensor = self.graph.tensor(e.name)
        axes = iter(e.axes)
        dims = tuple(None if a is None else next(axes) for a in tensor.axes)
        return self.nodes.make(Node(tensor.name, dtype=tensor.dtype), dims)

    def _positions(self, axis: Axis) -> Value:
        device = self.graph.program.inputs[0].name
        template = f"torch.arange({self.extent(axis)}, device={device}.device)"
        return self.nodes.make(Node(template, dtype=DType.INT64, word=f"index_{identifier(axis)}"), (axis,))

    def _add(self, left: Expr, right: Expr) -> Value:
        if self._negative(left) and not self._negative(right):
            left, right = right, left
        if self._negative(right):
            a, b = self._float(left), self._product((*factors(right), const(-1)))
            return self.nodes.binary("-", a, b, self._union(a, b))
        a, b = self._float(left), self._float(right)
        if a.node.dtype is None and b.node.dtype is not None:
            a, b = b, a
        return self.nodes.binary("+", a, b, self._union(a, b))

    def _negative(self, e: Expr) -> bool:
        sign = 1
        for factor in factors(e):
            if self._number.get(factor, 1) < 0:
                sign = -sign
        return sign < 0 and self._number.get(e, 0) != float("-inf")

    def _extremum(self, e: Expr) -> Value:
        a, b = self._float(e.args[0]), self._float(e.args[1])
        largest = e.op is Op.MAX2
        if a.node.dtype is None:
            a, b = b, a
        if a.node.dtype is None:
            return self.nodes.function("max" if largest else "min", (a, b), (), None)
        if b.node.dtype is None:
            template = f"{{}}.clamp({'min' if largest else 'max'}={{}})"
            return self.nodes.make(
                Node(template, (a.node, b.node), (ATOM, COMPARE), dtype=a.node.dtype, word="clamp"), a.dims
            )
        return self.nodes.function(
            "torch.maximum" if largest else "torch.minimum", (a, b), self._union(a, b), self.compute
        )

    # --------------------------------------------------------------------------------------- products

    def _product(self, parts: Iterable[Expr], also: Iterable[Value] = ()) -> Value:
        """A pointwise product, small factors multiplied with each other first, reciprocals as quotients."""
        coefficient: Fraction | float = Fraction(1)
        terms: dict[frozenset[Axis], tuple[list[Value], list[Value]]] = {}
        for value in also:
            terms.setdefault(value.axes, ([], []))[0].append(value)
        for part in parts:
            known = part.value if part.op is Op.CONST else self._number.get(part)
            if known is not None:
                coefficient = coefficient * known
                continue
            inverse = part.op is Op.RECIP
            if inverse and part.args[0].op is Op.SQRT and part.args[0].args[0] not in self._number:
                inner = self._tensor(part.args[0].args[0])
                a, inverse = self.nodes.unary("torch.rsqrt({})", inner, word="rsqrt"), False
            else:
                a = self._float(part.args[0] if inverse else part)
            terms.setdefault(a.axes, ([], []))[inverse].append(a)
        groups = [(axes, self._times(above), below) for axes, (above, below) in terms.items()]
        return self._scaled(coefficient, self._merge(groups))

    def _scaled(self, coefficient: Fraction | float, product: tuple[Value | None, list[Value]]) -> Value:
        above, below = product
        if isinstance(coefficient, Fraction) and abs(coefficient.numerator) == 1 < coefficient.denominator and above:
            divisor = self.nodes.make(Node(str(coefficient.denominator)))
            above, coefficient = self._binary("/", above, divisor), coefficient.numerator
        if above is None:
            above = self.nodes.number(coefficient)
        elif coefficient == -1:
            above = self.nodes.make(
                Node("-{}", (above.node,), (NEGATE,), NEGATE, above.node.dtype, "negated"), above.dims
            )
        elif coefficient != 1:
            above = self._binary("*", self.nodes.number(coefficient), above)
        for divisor in below:
            above = self._binary("/", above, divisor)
        return above

    def _merge(
        self, groups: list[tuple[frozenset[Axis], Value | None, list[Value]]]
    ) -> tuple[Value | None, list[Value]]:
        """Groups of factors as one numerator and its divisors; a group joins the smallest one that covers it."""
        groups = sorted(groups, key=lambda g: (self._size(g[0]), len(g[0])))
        above: Value | None = None
        below: list[Value] = []
        for place, (axes, over, under) in enumerate(groups):
            host = next((i for i in range(place + 1, len(groups)) if axes < groups[i][0]), None)
            quotient, rest = over, under
            if over is not None:
                for divisor in under:
                    quotient = self._binary("/", quotient or over, divisor)
                rest = []
            if host is None:
                above = self._times([v for v in (above, quotient) if v])
                below += rest
            else:
                axes_, over_, under_ = groups[host]
                # A number goes in front; everything else follows the value it scales.
                chain = [over_, quotient] if quotient and quotient.node.dtype else [quotient, over_]
                groups[host] = (axes_, self._times([v for v in chain if v]), [*under_, *rest])
        return above, below

    def _times(self, values: Sequence[Value]) -> Value | None:
        result: Value | None = None
        seen: set[Value] = set()
        for value in values:
            if value in seen:
                continue
            seen.add(value)
            count = list(values).count(value)
            if count > 1 and value.node.dtype is not None:
                template = "torch.square({})" if count == 2 else f"torch.pow({{}}, {count})"
                term = self.nodes.unary(template, value, word="square" if count == 2 else "power")
                result = term if result is None else self._binary("*", result, term)
                continue
            for _ in range(count):
                result = value if result is None else self._binary("*", result, value)
        return result

    def _binary(self, sign: str, a: Value, b: Value) -> Value:
        return self.nodes.binary(sign, a, b, self._union(a, b))

    def _union(self, *values: Value) -> Dims:
        """Dimensions that the values broadcast to: those of the first that has every axis, else in rank order."""
        axes = frozenset[Axis]().union(*(v.axes for v in values))
        full = [v.dims for v in values if v.axes == axes]
        return max(full, key=len) if full else self._in_order(axes)

    def _in_order(self, axes: Iterable[Axis]) -> tuple[Axis, ...]:
        return tuple(sorted(axes, key=lambda a: (self._rank.get(a, len(self._rank)), a.key)))

    def _size(self, axes: Iterable[Axis]) -> int:
        size = 1
        for axis in axes:
            size *= _typical(axis.extent)
        return size

    # ------------------------------------------------------------------------------- sums of products

    def _sum(self, e: Expr) -> Value:
        axes, operand = reduction(e)
        bound = frozenset(axes) & operand.free
        parts = factors(operand)
        operands = _operands([p for p in parts if p.free], bound, self._size)
        groups = [self._factor(g) for g in operands if bound & group_axes(g)]
        if len(groups) == 1:
            groups = self._vector_split(groups[0], bound, e)
        outside = [p for p in parts if not p.free]
        outside += [p for g in operands if not bound & group_axes(g) for p in g]
        # The sum of what does not vary over an axis is that many times it.
        counts = [self.nodes.make(Node(self.extent(a))) for a in axes if a not in bound]
        if not groups:
            return self._product(outside, counts)
        result = self._contracted(groups, bound)
        return self._product(outside, [self._float(result), *counts]) if outside or counts else result

    def _factor(self, parts: Sequence[Expr]) -> _Factor:
        dtype = _largest_dtype((self._dtype[p], p.free) for p in parts) or self.compute
        return _Factor(tuple(parts), group_axes(parts), dtype)

    def _vector_split(self, factor: _Factor, bound: frozenset[Axis], e: Expr) -> list[_Factor]:
        """A factor whose parts are a matrix and a vector along the summed axes, as two operands."""
        vectors = [p for p in factor.parts if bound <= p.free < factor.axes]
        if not vectors or not any(p.free == factor.axes for p in factor.parts):
            return [factor]
        main = max(vectors, key=lambda p: self._size(p.free))
        vector = self._factor([p for p in factor.parts if p.free <= main.free])
        matrix = self._factor([p for p in factor.parts if not p.free <= main.free])
        exact = _product_dtype(vector.dtype, matrix.dtype) in (DType.FP32, DType.FP64)
        return [vector, matrix] if exact or _dot_key(e, self._inputs) in self._dots else [factor]

    def _contracted(self, operands: list[_Factor], bound: frozenset[Axis]) -> Value:
        """The operands multiplied and summed, cheapest pair first."""
        todo = list(operands)
        while len(todo) > 1:
            pairs = list(itertools.combinations(range(len(todo)), 2))
            i, j = min(pairs, key=lambda p: self._size(todo[p[0]].axes | todo[p[1]].axes))
            others = [x for n, x in enumerate(todo) if n not in (i, j)]
            kept = frozenset[Axis]().union(*(x.axes for x in others))
            pair = self._pair(todo[i], todo[j], bound & (todo[i].axes | todo[j].axes) - kept)
            todo = [*others[:i], pair, *others[i:]]
        (last,) = todo
        value = self._operand(last)
        left = [a for a in value.dims if a in bound]
        return self.nodes.reduce("sum", self._float(value), left) if left else value

    def _operand(self, factor: _Factor) -> Value:
        return factor.value or self._product(factor.parts)

    def _pair(self, left: _Factor, right: _Factor, summed: frozenset[Axis]) -> _Factor:
        dtype = _product_dtype(left.dtype, right.dtype)
        values: list[Value] = []
        for mine, other in ((left, right), (right, left)):
            private = summed & mine.axes - other.axes
            value = self._operand(mine)
            values.append(self.nodes.reduce("sum", self._float(value), private) if private else value)
        common = summed & left.axes & right.axes
        if common:
            result = self._dot(self.nodes.cast(values[0], dtype), self.nodes.cast(values[1], dtype), common)
        else:
            result = self._binary("*", self._float(values[0]), self._float(values[1]))
        # The narrow type survives, so that a chain of products rounds as torch does.
        kept = _largest_dtype([(left.dtype, left.axes), (right.dtype, right.axes)])
        return _Factor((), result.axes, kept or dtype, result)

    def _dot(self, a: Value, b: Value, common: frozenset[Axis]) -> Value:
        """A product summed over ``common``: ``a @ b`` where torch can, else ``einsum``."""
        shared = a.axes & b.axes
        batch = self._in_order(shared - common)
        rows, columns = self._in_order(a.axes - shared), self._in_order(b.axes - shared)
        if _swapped(a, b, common, self._rank):
            a, b, rows, columns = b, a, columns, rows
        if len(common) > 1 or len(columns) > 1 or (len(rows) > 1 and batch):
            return self._einsum(a, b, self._in_order((a.axes | b.axes) - common))
        (inner,) = common
        row: Dims = rows or (None,)
        column: Dims = columns or (None,)
        # Without a batch, torch takes any number of leading dimensions as rows.
        ready = not batch and len(a.dims) > 1 and a.dims[-1] == inner
        left = a if ready else self.nodes.view(a, (*batch, *row, inner))
        right = self.nodes.view(b, (*batch, inner, *column))
        return self._statement("{} @ {}", (left, right), (*left.dims[:-1], *column), f"dot_{identifier(inner)}")

    def _einsum(self, a: Value, b: Value, axes: tuple[Axis, ...]) -> Value:
        operands = [self.nodes.view(v, tuple(x for x in v.dims if x is not None)) for v in (a, b)]
        letters: dict[Axis, str] = {}
        for axis in (x for v in operands for x in v.dims if x is not None):
            if axis not in letters:
                wish = [axis.name[0].lower(), *string.ascii_letters]
                letters[axis] = next(c for c in wish if c in string.ascii_letters and c not in letters.values())
        text = ",".join("".join(letters[x] for x in v.dims if x is not None) for v in operands)
        template = f'torch.einsum("{text}->{"".join(letters[x] for x in axes)}", {{}}, {{}})'
        return self._statement(template, operands, axes, "dot")

    def _statement(self, template: str, operands: Sequence[Value], dims: Dims, word: str) -> Value:
        infix = template == "{} @ {}"
        needs = (ATOM, ATOM) if infix else (COMPARE, COMPARE)
        a, b = (v.node for v in operands)
        return self.nodes.make(
            Node(template, (a, b), needs, MUL if infix else ATOM, a.dtype, word, statement=True), dims
        )

    def _operand_dtype(self, e: Expr) -> DType | None:
        """The type of an operand of a product: that of the largest tensor in it; None for numbers."""
        if e.op is Op.LEAF:
            dtype = self.graph.tensor(e.name).dtype
            return dtype if dtype in (DType.BF16, DType.FP16, DType.FP32, DType.FP64) else None
        return _largest_dtype((self._dtype[a], a.free) for a in e.args)


def group_axes(parts: Iterable[Expr]) -> frozenset[Axis]:
    """The axes of a product."""
    return frozenset[Axis]().union(*(p.free for p in parts))


def _operands(parts: Sequence[Expr], bound: frozenset[Axis], size: Callable[[Iterable[Axis]], int]) -> list[list[Expr]]:
    """Factors grouped with the operand whose axes they share: one group per maximal set of axes.

    A factor that no summed factor covers is a group by itself, without summed axes.
    """
    summed = {p.free for p in parts if p.free & bound}
    maximal = [
        axes for axes in dict.fromkeys(p.free for p in parts) if axes in summed and not any(axes < s for s in summed)
    ]
    groups: dict[frozenset[Axis], list[Expr]] = {axes: [] for axes in maximal}
    loose: list[list[Expr]] = []
    for part in parts:
        hosts = [axes for axes in maximal if part.free <= axes]
        if hosts:
            groups[min(hosts, key=size)].append(part)
        else:
            loose.append([part])
    return [*groups.values(), *loose]


def _swapped(a: Value, b: Value, common: frozenset[Axis], rank: dict[Axis, int]) -> bool:
    """Whether a product is printed ``b @ a``."""
    rows, columns = a.axes - b.axes, b.axes - a.axes
    if rows and columns:
        if len(rows) > 1 or len(columns) > 1:
            return len(columns) > len(rows)
        return rank.get(min(rows), 0) > rank.get(min(columns), 0)
    # A vector stands right of a matrix whose last axis is summed, else left of it.
    matrix = b if columns else a
    last = [axis for axis in matrix.dims if axis is not None][-1]
    return (last in common) is bool(columns)


def _sums(roots: Iterable[Expr]) -> Iterator[Expr]:
    return (node for node in walk(roots) if node.op is Op.SUM)


def _tensors(e: Expr, inputs: dict[str, frozenset[str]]) -> frozenset[str]:
    """The program's inputs that a value depends on."""
    return frozenset[str]().union(*(inputs.get(x.name, frozenset({x.name})) for x in leaves([e])))


def _dot_key(e: Expr, inputs: dict[str, frozenset[str]]) -> tuple[frozenset[str], frozenset[str]]:
    """What identifies a sum for the question whether the program has it: its axes and the inputs it depends on."""
    axes, operand = reduction(e)
    return frozenset(a.name for a in axes), _tensors(operand, inputs)


def _largest_dtype(operands: Iterable[tuple[DType | None, frozenset[Axis]]]) -> DType | None:
    known = [(dtype, len(axes)) for dtype, axes in operands if dtype is not None]
    largest = max((count for _, count in known), default=0)
    result: DType | None = None
    for dtype, count in known:
        if count == largest:
            result = dtype if result is None else _promoted(result, dtype)
    return result


def _promoted(a: DType, b: DType) -> DType:
    """The type torch promotes two floating types to."""
    if a is b:
        return a
    return DType.FP32 if {a, b} == {DType.BF16, DType.FP16} else max(a, b, key=lambda d: d.bytes)


def _product_dtype(a: DType, b: DType) -> DType:
    dtype = _promoted(a, b)
    return DType.FP32 if dtype is DType.FP16 else dtype


def _typical(extent: Extent) -> int:
    return extent if isinstance(extent, int) else min(max(CHUNK, extent.low), extent.high)


def _call_template(name: str) -> str:
    if name not in CALLS:
        raise UnsupportedOperator(
            f"the function {name} has no torch form",
            where="the torch printer",
            do=f"use one of {', '.join(sorted(CALLS))}",
        )
    return CALLS[name]
