"""Scalar expressions over named axes: the one denotation of every tensor value.

The free axes of an expression are its shape; a broadcast, a transpose and a view cost nothing, and a matrix
product is ``sum(k, A[m,k] * B[k,n])``. Expressions are interned: equality is identity, and derived facts
(free axes, sign, digest) are computed once.

Grammar (the semantics are in ``docs/language.md``)::

    e ::= leaf(tensor; axes)              an element of an input or of a stored tensor
        | const(q) | -inf                 an exact rational; minus infinity, only inside where
        | extent(a) | index(a)            size of an axis; position along it
        | e + e | e * e | 1/e             subtraction and division are defined on top
        | sqrt(e) | exp(e) | log(e)
        | call(f; e)                      a unary function that stays whole: sigmoid, silu, tanh, erf, ...
        | max2(e, e) | min2(e, e)
        | lt(e, e) | le(e, e) | eq(e, e)  conditions; only as first operand of where
        | where(c, e, e)                  lazy: the other branch need not be defined
        | sum(a; e) | max(a; e) | min(a; e)

Values are partial functions over the reals with minus infinity.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import reduce
from typing import Final

from sgraph.axis import Axis, ordered


class Op(StrEnum):
    """The operators of the language, each with its arity and meaning."""

    LEAF = "leaf"  # 0: an element of a tensor
    CONST = "const"  # 0: an exact rational
    NEG_INF = "-inf"  # 0: minus infinity
    EXTENT = "extent"  # 0: number of indices of an axis
    INDEX = "index"  # 0: position along an axis
    ADD = "add"  # 2
    MUL = "mul"  # 2
    RECIP = "recip"  # 1: undefined at 0
    SQRT = "sqrt"  # 1: undefined below 0
    EXP = "exp"  # 1: exp(-inf) = 0
    LOG = "log"  # 1: undefined at and below 0
    CALL = "call"  # 1: a named unary function
    MAX2 = "max2"  # 2
    MIN2 = "min2"  # 2
    LT = "lt"  # 2: condition
    LE = "le"  # 2: condition
    EQ = "eq"  # 2: condition
    WHERE = "where"  # 3: condition, then, otherwise
    SUM = "sum"  # 1, binds an axis; empty sum is 0
    MAX = "max"  # 1, binds an axis; empty maximum is -inf
    MIN = "min"  # 1, binds an axis


REDUCTIONS: Final = frozenset({Op.SUM, Op.MAX, Op.MIN})
CONDITIONS: Final = frozenset({Op.LT, Op.LE, Op.EQ})


@dataclass(frozen=True, slots=True)
class Read:
    """How a leaf reads its tensor."""

    tensor: str
    """Name of the tensor."""
    axes: tuple[Axis, ...]
    """One axis per dimension that is not of extent 1, in the tensor's own order."""
    finite: bool = True
    """False where the tensor is declared to hold minus infinity."""


Attr = Fraction | Axis | Read | str | None


class Sign(StrEnum):
    """What is known of a value's sign wherever it is defined."""

    POSITIVE = "> 0"
    NONNEGATIVE = ">= 0"
    ANY = "any"


POSITIVE_CALLS: Final = frozenset({"sigmoid", "softplus"})
NONNEGATIVE_CALLS: Final = frozenset({"relu", "abs"})


class Expr:
    """One interned node. Build it with the functions of this module, never directly."""

    __slots__ = ("__weakref__", "args", "attr", "digest", "finite", "free", "op", "sign")

    op: Op
    """Operator."""
    args: tuple[Expr, ...]
    """Operands."""
    attr: Attr
    """What the operator needs besides operands: value, axis, function name, or what it reads."""
    free: frozenset[Axis]
    """Axes the value depends on."""
    sign: Sign
    """Derived sign fact; leaves are unknown."""
    finite: bool
    """Whether the value is known never to be minus infinity wherever it is defined."""
    digest: bytes
    """Content hash, the same in every process."""

    @property
    def axis(self) -> Axis:
        """The axis of ``extent``, ``index`` and reductions."""
        assert isinstance(self.attr, Axis)
        return self.attr

    @property
    def value(self) -> Fraction:
        """The value of ``const``."""
        assert isinstance(self.attr, Fraction)
        return self.attr

    @property
    def name(self) -> str:
        """The tensor of ``leaf`` or the function of ``call``."""
        if isinstance(self.attr, Read):
            return self.attr.tensor
        assert isinstance(self.attr, str)
        return self.attr

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes by which ``leaf`` reads its tensor, one per dimension that is not of extent 1."""
        assert isinstance(self.attr, Read)
        return self.attr.axes

    def __add__(self, other: Expr | int) -> Expr:
        return add(self, lift(other))

    def __radd__(self, other: int) -> Expr:
        return add(lift(other), self)

    def __sub__(self, other: Expr | int) -> Expr:
        return add(self, negate(lift(other)))

    def __rsub__(self, other: int) -> Expr:
        return add(lift(other), negate(self))

    def __mul__(self, other: Expr | int) -> Expr:
        return mul(self, lift(other))

    def __rmul__(self, other: int) -> Expr:
        return mul(lift(other), self)

    def __truediv__(self, other: Expr | int) -> Expr:
        return mul(self, recip(lift(other)))

    def __neg__(self) -> Expr:
        return negate(self)

    def __str__(self) -> str:
        from sgraph.printer import text

        return text(self)

    __repr__ = __str__

    def __reduce__(self) -> tuple[object, ...]:
        return (make, (self.op, self.args, self.attr))


_interned: weakref.WeakValueDictionary[tuple[object, ...], Expr] = weakref.WeakValueDictionary()


def make(op: Op, args: tuple[Expr, ...] = (), attr: Attr = None) -> Expr:
    """The node with this operator, operands and attribute."""
    key = (op, args, attr)
    found = _interned.get(key)
    if found is not None:
        return found
    node = Expr.__new__(Expr)
    node.op, node.args, node.attr = op, args, attr
    node.free = _free_axes(op, args, attr)
    node.finite = _finite(op, args, attr)
    node.sign = _sign(op, args, attr)
    node.digest = _digest(op, args, attr)
    _interned[key] = node
    return node


def _free_axes(op: Op, args: tuple[Expr, ...], attr: Attr) -> frozenset[Axis]:
    if op is Op.LEAF:
        assert isinstance(attr, Read)
        assert len(set(attr.axes)) == len(attr.axes), f"leaf {attr.tensor} repeats an axis"
        return frozenset(attr.axes)
    if op is Op.INDEX:
        assert isinstance(attr, Axis)
        return frozenset({attr})
    inner = frozenset[Axis]().union(*(a.free for a in args))
    return inner - {attr} if op in REDUCTIONS else inner


def _finite(op: Op, args: tuple[Expr, ...], attr: Attr) -> bool:
    match op:
        case Op.LEAF:
            assert isinstance(attr, Read)
            return attr.finite
        case Op.NEG_INF:
            return False
        case Op.EXP:
            return True
        case Op.MAX2:
            return args[0].finite or args[1].finite
        case Op.WHERE:
            return args[1].finite and args[2].finite
        case Op.MAX | Op.MIN:
            assert isinstance(attr, Axis)
            return nonempty(attr) and args[0].finite
        case _:
            return all(a.finite for a in args)


def _digest(op: Op, args: tuple[Expr, ...], attr: Attr) -> bytes:
    state = hashlib.blake2b(f"{op.value}|{attr!r}".encode(), digest_size=16)
    for argument in args:
        state.update(argument.digest)
    return state.digest()


def _sign(op: Op, args: tuple[Expr, ...], attr: Attr) -> Sign:
    signs = [a.sign for a in args]
    match op:
        case Op.CONST:
            assert isinstance(attr, Fraction)
            return Sign.POSITIVE if attr > 0 else Sign.NONNEGATIVE if attr == 0 else Sign.ANY
        case Op.EXTENT:
            assert isinstance(attr, Axis)
            return Sign.POSITIVE if nonempty(attr) else Sign.NONNEGATIVE
        case Op.INDEX:
            return Sign.NONNEGATIVE
        case Op.EXP:
            # exp(-inf) = 0: strictly positive only where the argument is known to be finite.
            return Sign.POSITIVE if args[0].finite else Sign.NONNEGATIVE
        case Op.CALL:
            if attr in POSITIVE_CALLS and args[0].finite:
                return Sign.POSITIVE
            known = attr in POSITIVE_CALLS or attr in NONNEGATIVE_CALLS
            return Sign.NONNEGATIVE if known else Sign.ANY
        case Op.MUL if args[0] is args[1]:
            return Sign.POSITIVE if signs[0] is Sign.POSITIVE else Sign.NONNEGATIVE
        case Op.ADD:
            if Sign.ANY in signs:
                return Sign.ANY
            return Sign.POSITIVE if Sign.POSITIVE in signs else Sign.NONNEGATIVE
        case Op.MUL | Op.MIN2:
            return _weakest(signs)
        case Op.MAX2:
            order = (Sign.POSITIVE, Sign.NONNEGATIVE, Sign.ANY)
            return min(signs, key=order.index)
        case Op.RECIP | Op.SQRT:
            # Where 1/x is defined x is not 0, so a nonnegative x gives a positive reciprocal.
            if op is Op.RECIP and signs[0] is not Sign.ANY:
                return Sign.POSITIVE
            return Sign.NONNEGATIVE if op is Op.SQRT and signs[0] is not Sign.POSITIVE else signs[0]
        case Op.WHERE:
            return _weakest(signs[1:])
        case Op.SUM | Op.MIN:
            # An empty sum is 0, so a sum of positive terms is positive only over a non-empty axis.
            assert isinstance(attr, Axis)
            if signs[0] is Sign.POSITIVE and not nonempty(attr):
                return Sign.NONNEGATIVE if op is Op.SUM else Sign.ANY
            return signs[0]
        case Op.MAX:
            assert isinstance(attr, Axis)
            return signs[0] if nonempty(attr) else Sign.ANY
        case _:
            return Sign.ANY


def _weakest(signs: list[Sign]) -> Sign:
    if Sign.ANY in signs:
        return Sign.ANY
    return Sign.NONNEGATIVE if Sign.NONNEGATIVE in signs else Sign.POSITIVE


def nonempty(axis: Axis) -> bool:
    """Whether a complete axis is known to have at least one index."""
    extent = axis.extent
    return not axis.level and (extent if isinstance(extent, int) else extent.low) >= 1


def walk(roots: Iterable[Expr]) -> Iterator[Expr]:
    """Every node below ``roots`` once, operands before their users."""
    done: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded or not node.args:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if a not in done)


# ------------------------------------------------------------------------------------------ constructors


def leaf(tensor: str, axes: Iterable[Axis], *, finite: bool = True) -> Expr:
    """An element of ``tensor`` at these axes; ``finite=False`` if it may hold minus infinity."""
    return make(Op.LEAF, (), Read(tensor, tuple(axes), finite))


def const(value: int | str | Fraction) -> Expr:
    """An exact rational constant."""
    return make(Op.CONST, (), Fraction(value))


def lift(value: Expr | int | Fraction) -> Expr:
    """A Python number as a constant; expressions as they are."""
    return value if isinstance(value, Expr) else const(value)


def neg_inf() -> Expr:
    """Minus infinity."""
    return make(Op.NEG_INF)


def extent(axis: Axis) -> Expr:
    """The number of indices of an axis."""
    return make(Op.EXTENT, (), axis.base)


def index(axis: Axis) -> Expr:
    """The position along an axis."""
    return make(Op.INDEX, (), axis)


def add(a: Expr, b: Expr) -> Expr:
    """``a + b``."""
    return make(Op.ADD, (a, b))


def mul(a: Expr, b: Expr) -> Expr:
    """``a * b``."""
    return make(Op.MUL, (a, b))


def negate(a: Expr) -> Expr:
    """``-a``, as a product with -1."""
    return const(-a.value) if a.op is Op.CONST else mul(const(-1), a)


def recip(a: Expr) -> Expr:
    """``1 / a``."""
    return make(Op.RECIP, (a,))


def sqrt(a: Expr) -> Expr:
    """The nonnegative square root."""
    return make(Op.SQRT, (a,))


def rsqrt(a: Expr) -> Expr:
    """``1 / sqrt(a)``."""
    return recip(sqrt(a))


def exp(a: Expr) -> Expr:
    """The exponential; ``exp(-inf) = 0``."""
    return make(Op.EXP, (a,))


def log(a: Expr) -> Expr:
    """The natural logarithm."""
    return make(Op.LOG, (a,))


def call(function: str, a: Expr) -> Expr:
    """A unary function that the algebra keeps whole, by name."""
    return make(Op.CALL, (a,), function)


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger of two values."""
    return make(Op.MAX2, (a, b))


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller of two values."""
    return make(Op.MIN2, (a, b))


def less(a: Expr, b: Expr) -> Expr:
    """The condition ``a < b``."""
    return make(Op.LT, (a, b))


def less_equal(a: Expr, b: Expr) -> Expr:
    """The condition ``a <= b``."""
    return make(Op.LE, (a, b))


def equal(a: Expr, b: Expr) -> Expr:
    """The condition ``a == b``."""
    return make(Op.EQ, (a, b))


def where(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    """``then`` where the condition holds, else ``otherwise``; lazy in both."""
    assert condition.op in CONDITIONS
    return make(Op.WHERE, (condition, then, otherwise))


def sum_over(axes: Axis | Iterable[Axis], e: Expr) -> Expr:
    """The sum over one or several complete axes."""
    return _reduce(Op.SUM, axes, e)


def max_over(axes: Axis | Iterable[Axis], e: Expr) -> Expr:
    """The maximum over one or several complete axes."""
    return _reduce(Op.MAX, axes, e)


def min_over(axes: Axis | Iterable[Axis], e: Expr) -> Expr:
    """The minimum over one or several complete axes."""
    return _reduce(Op.MIN, axes, e)


def _reduce(op: Op, axes: Axis | Iterable[Axis], e: Expr) -> Expr:
    chain = (axes,) if isinstance(axes, Axis) else tuple(axes)
    return reduce(lambda inner, axis: make(op, (inner,), axis), reversed(chain), e)


def mean_over(axis: Axis, e: Expr) -> Expr:
    """The mean over a complete axis."""
    return sum_over(axis, e) * recip(extent(axis))


def product(factors: Iterable[Expr]) -> Expr:
    """The product of the factors, associated to the left; 1 if there are none."""
    chain = list(factors)
    return reduce(mul, chain) if chain else const(1)


def factors(e: Expr) -> tuple[Expr, ...]:
    """The factors of a product, nested products flattened, in order of appearance."""
    return chain(e, Op.MUL)


def chain(e: Expr, op: Op) -> tuple[Expr, ...]:
    """The operands of a chain of one operator, in order of appearance; ``e`` alone if it is another's."""
    out: list[Expr] = []
    stack = [e]
    while stack:
        node = stack.pop()
        if node.op is op:
            stack.extend(reversed(node.args))
        else:
            out.append(node)
    return tuple(out)


def reduction(e: Expr) -> tuple[tuple[Axis, ...], Expr]:
    """Axes and operand of a chain of like reductions: ``sum(j, sum(k, e))`` gives ``((j, k), e)``."""
    assert e.op in REDUCTIONS
    axes: list[Axis] = []
    node = e
    while node.op is e.op:
        axes.append(node.axis)
        node = node.args[0]
    return tuple(axes), node


def rebuild(e: Expr, replacements: Mapping[Expr, Expr]) -> Expr:
    """``e`` with every node in ``replacements`` exchanged. Capture of bound axes is the caller's concern."""
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        if node in replacements:
            done[node] = replacements[node]
        elif node.args:
            done[node] = make(node.op, tuple(done[a] for a in node.args), node.attr)
        else:
            done[node] = node
    return done[e]


_Renaming = frozenset[tuple[Axis, Axis]]
"""Old and new axes, of those free axes of a node that change."""


def rename(e: Expr, axes: Mapping[Axis, Axis]) -> Expr:
    """``e`` with its free axes renamed, all at once; bound axes move out of the way."""
    root = (e, _relevant(e, axes.items()))
    done: dict[tuple[Expr, _Renaming], Expr] = {}
    stack = [root]
    while stack:
        node, renaming = stack[-1]
        if (node, renaming) in done:
            stack.pop()
        elif not renaming:
            done[stack.pop()] = node
        else:
            attr, inner = _renamed(node, dict(renaming))
            operands = [(a, _relevant(a, inner.items())) for a in node.args]
            missing = [operand for operand in operands if operand not in done]
            if missing:
                stack.extend(missing)
            else:
                done[stack.pop()] = make(node.op, tuple(done[operand] for operand in operands), attr)
    return done[root]


def _relevant(e: Expr, axes: Iterable[tuple[Axis, Axis]]) -> _Renaming:
    return frozenset((a, b) for a, b in axes if a != b and a in e.free)


def _renamed(e: Expr, axes: dict[Axis, Axis]) -> tuple[Attr, dict[Axis, Axis]]:
    """The attribute of a renamed node, and what its operands are renamed by: a bound axis in the way moves too."""
    if isinstance(e.attr, Read):
        return replace(e.attr, axes=tuple(axes.get(a, a) for a in e.attr.axes)), axes
    if e.op is Op.INDEX:
        return axes[e.axis], axes
    if e.op in REDUCTIONS and e.axis in axes.values():
        fresh = unused_copy(e.axis, e.args[0].free | set(axes.values()))
        return fresh, {**axes, e.axis: fresh}
    return e.attr, axes


def unused_copy(axis: Axis, taken: Iterable[Axis]) -> Axis:
    """The first copy of ``axis`` that is not in ``taken``."""
    used = set(taken)
    copy = 0
    while axis.renamed(copy) in used:
        copy += 1
    return axis.renamed(copy)


def bound_axes(roots: Iterable[Expr]) -> tuple[Axis, ...]:
    """Every axis that a reduction below ``roots`` binds, in canonical order."""
    return ordered({node.axis for node in walk(roots) if node.op in REDUCTIONS})


def leaves(roots: Iterable[Expr]) -> tuple[Expr, ...]:
    """Every leaf below ``roots``, in order of first appearance."""
    return tuple(node for node in walk(roots) if node.op is Op.LEAF)
