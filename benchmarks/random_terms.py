"""Random expressions, random sound steps and tempting wrong ones, and numbers that tell expressions apart.

The evaluator shares no code with ``sgraph.evaluate``: two precisions on one grid, trusted where they agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraph.axis import Axis, Size, ordered
from sgraph.expr import (
    CONDITIONS,
    REDUCTIONS,
    Expr,
    Op,
    Read,
    Sign,
    add,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    log,
    make,
    max_over,
    maximum,
    min_over,
    minimum,
    mul,
    neg_inf,
    nonempty,
    recip,
    rename,
    sqrt,
    sum_over,
    unused_copy,
    walk,
    where,
)

J, K, M = Axis("j", 4), Axis("k", 5), Axis("m", Size("M", 1, 64))
Z = Axis("z", Size("Z", 0, 64))
AXES = (J, K, M, Z)

DISTRIBUTED = frozenset({Op.ADD, Op.MUL, Op.RECIP, Op.SQRT, Op.EXP, Op.LOG, Op.CALL, Op.MAX2, Op.MIN2})
"""Operators that move into ``where``."""

Array = NDArray[np.floating[Any]]


# ------------------------------------------------------------------------------------------ evaluation


@dataclass
class Evaluator:
    """Values of expressions on a grid of named axes; NaN where an expression is undefined."""

    sizes: dict[str, int]
    seed: int
    kind: type[np.floating[Any]] = np.float64
    axes: tuple[Axis, ...] = ()
    memory: dict[Expr, Array] = field(default_factory=dict[Expr, Array])
    overflowed: bool = False

    def __call__(self, e: Expr) -> Array:
        """The value at every index of all axes of ``e``."""
        self.axes = ordered({a for n in walk([e]) for a in (*n.free, *([n.axis] if n.op in REDUCTIONS else []))})
        self.memory = {}
        with np.errstate(all="ignore"):
            for node in walk([e]):
                value = self.node(node, [self.memory[a] for a in node.args])
                low = node.op in (Op.LEAF, Op.NEG_INF, Op.ADD, Op.MAX2, Op.WHERE, Op.MAX)
                self.overflowed |= bool(np.any(np.isposinf(value) if low else np.isinf(value)))
                self.memory[node] = value
        return self.memory[e]

    def extent(self, axis: Axis) -> int:
        """The number of indices of an axis."""
        return self.sizes[axis.name]

    def tensor(self, read: Read) -> Array:
        """Numbers that a tensor holds, the same at every reading."""
        shape = tuple(self.extent(a) for a in read.axes)
        rng = np.random.default_rng([self.seed, *read.tensor.encode()])
        values = rng.choice([0.0, 1.0, -1.0, 0.5, -0.25, 2.0, 0.75, -1.5, 1.25], size=shape)
        if rng.random() < 0.5:
            values = rng.uniform(-2, 2, size=shape)
        if rng.random() < 0.4:
            values = np.abs(values) + 0.125
        if not read.finite:
            values = np.where(rng.random(shape) < 0.4, -np.inf, values)
        return values.astype(self.kind)

    def spread(self, values: Array, axes: tuple[Axis, ...]) -> Array:
        """Values with a dimension for every axis."""
        order = sorted(range(len(axes)), key=lambda i: axes[i].key)
        shape = [self.extent(a) if a in axes else 1 for a in self.axes]
        return np.transpose(values, order).reshape(shape)

    def node(self, node: Expr, args: list[Array]) -> Array:
        """One operator on the values of its operands."""
        one = np.ones([1] * len(self.axes), dtype=self.kind)
        nan = self.kind(np.nan)
        match node.op, args:
            case Op.LEAF, _:
                assert isinstance(node.attr, Read)
                return self.spread(self.tensor(node.attr), node.axes)
            case Op.CONST, _:
                return one * self.kind(node.value.numerator) / self.kind(node.value.denominator)
            case Op.NEG_INF, _:
                return one * -np.inf
            case Op.EXTENT, _:
                return one * self.extent(node.axis)
            case Op.INDEX, _:
                return self.spread(np.arange(self.extent(node.axis)).astype(self.kind), (node.axis,))
            case Op.ADD, (a, b):
                # What cancels but for rounding is 0: roots and reciprocals of it have to be seen as such.
                rounded = np.where(np.abs(a + b) < 1e-12 * (np.abs(a) + np.abs(b)), self.kind(0), a + b)
                return np.where(np.isneginf(a) | np.isneginf(b), a + b, rounded)
            case Op.MAX2, (a, b):
                return np.maximum(a, b)
            case Op.EXP, (a,):
                return np.exp(a)
            case Op.WHERE, (c, a, b):
                return np.where(np.isnan(c), nan, np.where(c > 0, a, b))
            case Op.MAX, (a,):
                return self.reduced(np.maximum.reduce, a, node.axis, -np.inf)
            case _:
                return self.finite_node(node, [np.where(np.isinf(a), nan, a) for a in args])

    def finite_node(self, node: Expr, args: list[Array]) -> Array:
        """An operator that takes no minus infinity."""
        nan = self.kind(np.nan)
        match node.op, args:
            case Op.MUL, (a, b):
                return a * b
            case Op.RECIP, (a,):
                return np.where(a == 0, nan, 1 / a)
            case Op.SQRT, (a,):
                return np.sqrt(np.where((a < 0) & (a > -1e-9), self.kind(0), a))
            case Op.LOG, (a,):
                return np.where(a > 0, np.log(a), nan)
            case Op.CALL, (a,):
                return FUNCTIONS[node.name](a)
            case Op.MIN2, (a, b):
                return np.minimum(a, b)
            case ((Op.LT | Op.LE | Op.EQ), (a, b)):
                compared = {Op.LT: a < b, Op.LE: a <= b, Op.EQ: a == b}[node.op]
                return np.where(np.isnan(a + b), nan, compared.astype(self.kind))
            case Op.SUM, (a,):
                return self.reduced(np.add.reduce, a, node.axis, 0.0)
            case Op.MIN, (a,):
                return self.reduced(np.minimum.reduce, a, node.axis, np.nan)
            case _:
                raise AssertionError(node.op)

    def reduced(self, function: Callable[..., Array], values: Array, axis: Axis, empty: float) -> Array:
        """A reduction over one axis."""
        at = self.axes.index(axis)
        shape = list(values.shape)
        shape[at] = self.extent(axis)
        full = np.broadcast_to(values, shape)
        if shape[at] == 0:
            return np.full([*shape[:at], 1, *shape[at + 1 :]], empty, dtype=self.kind)
        return function(full, axis=at, keepdims=True)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
    "abs": np.abs,
    "tanh": np.tanh,
}


def values_at(e: Expr, sizes: dict[str, int], seed: int, axes: tuple[Axis, ...]) -> tuple[Array, Array]:
    """The value at every index of the axes, in two precisions."""
    out: list[Array] = []
    for kind in (np.float64, np.longdouble):
        evaluator = Evaluator(sizes, seed, kind)
        values = evaluator(e)
        assert set(e.free) <= set(axes)
        kept = [i for i, a in enumerate(evaluator.axes) if a in axes]
        values = values.reshape([values.shape[i] for i in kept])
        have = [evaluator.axes[i] for i in kept]
        values = values.reshape([values.shape[have.index(a)] if a in have else 1 for a in axes])
        full = np.broadcast_to(values, [sizes[a.name] for a in axes]).astype(np.longdouble)
        if evaluator.overflowed:
            raise OverflowError
        out.append(full)
    return out[0], out[1]


def contradiction(left: Expr, right: Expr, trials: int = 6) -> str | None:
    """Numbers at which ``left`` is defined and ``right`` is not the same, if some are found."""
    axes = ordered(left.free | right.free)
    rng = random.Random(left.digest + right.digest)
    for seed in range(trials):
        sizes = {a.name: rng.randint(0 if a == Z else 1, 3) for a in AXES}
        try:
            rough, fine = values_at(left, sizes, seed, axes)
            other_rough, other = values_at(right, sizes, seed, axes)
        except OverflowError:
            continue
        with np.errstate(all="ignore"):
            scale = 1 + np.abs(fine)
            trusted = ~np.isnan(fine) & ~np.isnan(rough) & (np.isinf(fine) == np.isinf(rough))
            trusted &= np.isinf(fine) | ((np.abs(rough - fine) <= 1e-10 * scale) & (scale < 1e6))
            trusted &= (np.isnan(other) == np.isnan(other_rough)) & (
                np.isnan(other) | np.isinf(other) | (np.abs(other - other_rough) <= 1e-8 * scale)
            )
            same = np.where(np.isinf(fine), fine == other, np.abs(fine - other) <= 1e-6 * scale)
        if np.any(trusted & ~same):
            return f"sizes {sizes}, seed {seed}: {fine[trusted & ~same][:1]} and {other[trusted & ~same][:1]}"
    return None


# ------------------------------------------------------------------------------------------ expressions


class Expressions:
    """Random expressions and random steps on them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def leaf(self) -> Expr:
        """An element of a tensor over some axes."""
        axes = tuple(a for a in AXES if self.random.random() < 0.4)
        return leaf(self.random.choice("xyzwuv") + "".join(a.name for a in axes), axes)

    def mask(self) -> Expr:
        """An element of a tensor that may hold minus infinity."""
        axes = tuple(a for a in (J, K, M) if self.random.random() < 0.5)
        return leaf("mask" + "".join(a.name for a in axes), axes, finite=False)

    def axis(self) -> Axis:
        """Any axis."""
        return self.random.choice(AXES)

    def positive(self, depth: int) -> Expr:
        """A term that is positive."""
        kind = self.random.random()
        if kind < 0.4:
            return exp(self.any(depth - 1) * const("1/4"))
        if kind < 0.7:
            inner = self.any(depth - 1)
            return inner * inner + const("1/8")
        return sum_over(self.random.choice((J, K, M)), exp(self.leaf()))

    def any(self, depth: int) -> Expr:
        """A term."""
        if depth <= 0:
            return self.leaf()
        makers: list[tuple[float, Callable[[int], Expr]]] = [
            (0.22, lambda d: self.any(d) * self.any(d)),
            (0.18, lambda d: self.any(d) + self.any(d)),
            (0.18, lambda d: sum_over(self.axis(), self.any(d))),
            (0.05, lambda d: max_over(self.random.choice((J, K, M)), self.any(d))),
            (0.02, lambda d: min_over(self.random.choice((J, K, M)), self.any(d))),
            (0.08, lambda d: recip(self.positive(d))),
            (0.03, lambda d: recip(self.any(d))),
            (0.05, lambda d: sqrt(self.positive(d))),
            (0.02, lambda d: sqrt(self.any(d))),
            (0.04, lambda d: exp(self.any(d) * const("1/8"))),
            (0.02, lambda d: exp(self.any(d) * const("1/8") + self.mask())),
            (0.02, lambda d: exp(max_over(J, self.leaf() + self.mask()))),
            (0.02, lambda d: log(self.positive(d))),
            (0.04, lambda d: call(self.random.choice(["silu", "relu", "tanh", "abs", "sigmoid"]), self.any(d))),
            (0.03, lambda d: maximum(self.any(d), self.any(d))),
            (0.01, lambda d: minimum(self.any(d), self.any(d))),
            (0.05, lambda d: where(self.condition(), self.any(d), self.any(d))),
            (0.01, lambda d: exp(where(self.condition(), self.any(d), neg_inf()))),
            (0.04, lambda d: const(self.random.choice(["-1", "2", "1/2", "0"])) * self.any(d)),
            (0.02, lambda d: extent(self.axis()) * self.any(d)),
        ]
        weights = [w for w, _ in makers]
        return self.random.choices([m for _, m in makers], weights)[0](depth - 1)

    def condition(self) -> Expr:
        """A comparison of positions."""
        op = self.random.choice((Op.LT, Op.LE, Op.EQ))
        if self.random.random() < 0.3:
            return make(op, (self.leaf(), self.leaf()))
        return make(op, (index(self.random.choice((J, K))), index(M)))

    # ---------------------------------------------------------------------------------------- steps

    def sound(self, e: Expr) -> Iterator[Expr]:
        """Expressions that are defined and equal wherever this one is, by one step at the top."""
        new, shift = self.leaf(), leaf(f"shift{self.random.randint(0, 9)}", [])
        match e.op, e.args:
            case Op.MUL, (a, b):
                yield b * a
                yield from (mul(a.args[0], a.args[1] * b) for _ in [0] if a.op is Op.MUL)
                yield from (mul(a * b.args[0], b.args[1]) for _ in [0] if b.op is Op.MUL)
                yield from (sum_over(b.axis, a * b.args[0]) for _ in [0] if b.op is Op.SUM and b.axis not in a.free)
                yield from (a * b.args[0] + a * b.args[1] for _ in [0] if b.op is Op.ADD)
                yield from (exp(a.args[0] + b.args[0]) for _ in [0] if self._both(Op.EXP, a, b) and a.args[0].finite)
                yield from (recip(a.args[0] * b.args[0]) for _ in [0] if self._both(Op.RECIP, a, b))
                yield from (sqrt(a.args[0] * b.args[0]) for _ in [0] if self._both(Op.SQRT, a, b))
                yield from (a.args[0] for _ in [0] if a.op is Op.SQRT and a is b)
                yield from (const(1) for _ in [0] if b.op is Op.RECIP and b.args[0] is a)
                yield from (const(a.value + 1) * b + const(-1) * b for _ in [0] if a.op is Op.CONST)
            case Op.ADD, (a, b):
                yield from self._sound_add(a, b)
            case Op.SUM, (b,):
                yield from self._sound_sum(e.axis, b, new)
            case ((Op.MAX | Op.MIN), (b,)):
                yield from self._sound_extremum(e, b)
            case Op.EXP, (a,):
                yield exp(a + new) * recip(exp(new))
                yield from (exp(a.args[0]) * exp(a.args[1]) for _ in [0] if a.op is Op.ADD)
            case Op.RECIP, (a,):
                yield from (recip(a.args[0]) * recip(a.args[1]) for _ in [0] if a.op is Op.MUL)
                yield from (exp(-a.args[0]) for _ in [0] if a.op is Op.EXP)
                yield from (a.args[0] for _ in [0] if a.op is Op.RECIP)
                yield from (recip(a.args[0] + const("1/2") * a.args[1] * const(2)) for _ in [0] if a.op is Op.ADD)
            case ((Op.MAX2 | Op.MIN2 | Op.WHERE), _):
                yield from self._sound_choice(e, new, shift)
            case Op.CALL, (a,) if e.name == "silu":
                yield a * call("sigmoid", a)
            case Op.CALL, (a,) if e.name == "relu":
                yield maximum(const(0), a)
            case _:
                pass
        if e.op in DISTRIBUTED:
            yield from self._sound_cases(e)
        if self.random.random() < 0.2 and e.finite and e.op not in CONDITIONS:
            yield e * const(1)
            yield e + new - new
            yield e * exp(new) * exp(-new)

    def _sound_choice(self, e: Expr, new: Expr, shift: Expr) -> Iterator[Expr]:
        match e.op, e.args:
            case Op.MAX2, (a, b):
                yield maximum(b, a)
                yield maximum(a, maximum(a, b))
                yield maximum(a + shift, b + shift) - shift
            case Op.MIN2, (a, b):
                yield -maximum(-b, -a)
            case Op.WHERE, (c, a, b):
                yield where(c, where(c, a, b), b)
                yield where(c, a, where(c, a * new, b)) if a.finite else where(c, a, where(c, a, b))
                if c.op is Op.LT:
                    yield where(make(Op.LE, c.args[::-1]), b, a)
                if c.op is Op.LE:
                    yield where(make(Op.LT, c.args[::-1]), b, a)
            case _:
                raise AssertionError(e.op)

    def _sound_cases(self, e: Expr) -> Iterator[Expr]:
        """A function of ``where`` as ``where`` of the function: it is evaluated where it is taken."""
        for place, operand in enumerate(e.args):
            if operand.op is Op.WHERE:
                condition, *branches = operand.args
                then, otherwise = (
                    make(e.op, (*e.args[:place], branch, *e.args[place + 1 :]), e.attr) for branch in branches
                )
                yield where(condition, then, otherwise)

    def _sound_add(self, a: Expr, b: Expr) -> Iterator[Expr]:
        yield b + a
        if a.op is Op.ADD:
            yield add(a.args[0], a.args[1] + b)
        if self._both(Op.MUL, a, b) and a.args[0] is b.args[0]:
            yield a.args[0] * (a.args[1] + b.args[1])
        if self._both(Op.SUM, a, b) and a.axis == b.axis:
            yield sum_over(a.axis, a.args[0] + b.args[0])
        if a is b and a.finite:
            yield const(2) * a

    def _both(self, op: Op, a: Expr, b: Expr) -> bool:
        return a.op is op and b.op is op

    def _sound_sum(self, k: Axis, b: Expr, new: Expr) -> Iterator[Expr]:
        other = unused_copy(k, b.free)
        yield sum_over(other, rename(b, {k: other}))
        if b.op is Op.MUL:
            # Out of a sum that may be empty only what is defined anyway.
            for out, rest in (b.args, b.args[::-1]):
                if k not in out.free and (nonempty(k) or out.op is Op.LEAF):
                    yield out * sum_over(k, rest)
        if b.op is Op.ADD:
            yield sum_over(k, b.args[0]) + sum_over(k, b.args[1])
        if b.op is Op.SUM and b.axis != k:
            yield sum_over(b.axis, sum_over(k, b.args[0]))
        if k not in b.free and (nonempty(k) or b.op is Op.LEAF):
            yield extent(k) * b
        if b.op is Op.EXP and k not in new.free:
            yield exp(new) * sum_over(k, exp(b.args[0] - new))

    def _sound_extremum(self, e: Expr, b: Expr) -> Iterator[Expr]:
        k = e.axis
        other = unused_copy(k, b.free)
        yield make(e.op, (rename(b, {k: other}),), other)
        if b.op is Op.ADD and k not in b.args[0].free:
            yield b.args[0] + make(e.op, (b.args[1],), k)
        if b.op is e.op and b.axis != k:
            yield make(e.op, (make(e.op, (b.args[0],), k),), b.axis)
        if b.op is Op.MUL and k not in b.args[0].free and b.args[0].sign is Sign.POSITIVE:
            yield b.args[0] * make(e.op, (b.args[1],), k)
        if k not in b.free:
            yield b
        if e.op is Op.MIN and b.finite:
            yield -max_over(k, -b)

    def tempting(self, e: Expr) -> Iterator[Expr]:
        """Steps that are wrong unless a condition happens to hold, and plain mistakes."""
        new = self.leaf()
        match e.op, e.args:
            case Op.MUL, (a, b):
                yield a
                yield sqrt(a * a) * b
                yield from (sum_over(b.axis, a * b.args[0]) for _ in [0] if b.op is Op.SUM)
                yield from (recip(a.args[0] + b.args[0]) for _ in [0] if self._both(Op.RECIP, a, b))
                yield e * new * recip(new)
                yield e * sqrt(new) * sqrt(new) * recip(new)
            case Op.ADD, (a, b):
                yield a
                yield e + const(0) * recip(new)
                yield e + log(new * new) - const(2) * log(new)
            case Op.SUM, (b,):
                yield b
                yield sum_over(self.random.choice([a for a in AXES if a != e.axis]), b)
                yield extent(e.axis) * b
                if b.op is Op.MUL:
                    yield b.args[0] * sum_over(e.axis, b.args[1])
                    yield sum_over(e.axis, b.args[0]) * sum_over(e.axis, b.args[1])
                if b.op is Op.SUM:
                    yield sum_over(b.axis, b.args[0])
            case ((Op.MAX | Op.MIN), (b,)):
                yield b
                if b.op is Op.MUL:
                    yield b.args[0] * make(e.op, (b.args[1],), e.axis)
            case Op.SQRT, (a,):
                yield from (sqrt(a.args[0]) * sqrt(a.args[1]) for _ in [0] if a.op is Op.MUL)
                yield from (a.args[0] for _ in [0] if a.op is Op.MUL and a.args[0] is a.args[1])
                yield sqrt(sqrt(a * a))
            case Op.RECIP, (a,):
                yield from (recip(a.args[0]) + recip(a.args[1]) for _ in [0] if a.op is Op.ADD)
                yield a * recip(a * a)
                yield sqrt(recip(a * a))
            case Op.EXP, (a,):
                yield recip(exp(-a))
                yield exp(a - new) * exp(max_over(Z, new))
                yield exp(self.mask() + a) * exp(-self.mask())
            case Op.WHERE, (c, a, b):
                yield where(c, b, a)
                yield where(c, a * new * recip(new), b)
            case Op.CALL, (a,):
                yield call(e.name, -a)
            case _:
                pass

    def step(self, e: Expr, kind: Callable[[Expr], Iterator[Expr]]) -> Expr | None:
        """One step somewhere inside, or None if there is none to take."""
        # Rounding inside a condition would make numbers useless.
        inside = {n for c in walk([e]) if c.op in CONDITIONS for n in walk([c])}
        nodes = [n for n in walk([e]) if n not in inside]
        for node in self.random.sample(nodes, len(nodes)):
            steps = [s for s in kind(node) if s is not node]
            if steps:
                return self.put(e, node, self.random.choice(steps))
        return None

    def put(self, e: Expr, node: Expr, new: Expr) -> Expr:
        """``e`` with one occurrence of ``node`` exchanged (its free axes keep their binders)."""
        paths = [p for p in self.paths(e) if p[1] is node]
        path, _ = self.random.choice(paths)
        return self.replaced(e, path, new)

    def paths(self, e: Expr, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Expr]]:
        """Every occurrence of every node."""
        yield path, e
        for i, a in enumerate(e.args):
            yield from self.paths(a, (*path, i))

    def replaced(self, e: Expr, path: tuple[int, ...], new: Expr) -> Expr:
        """``e`` with another node at one place."""
        if not path:
            return new
        args = list(e.args)
        args[path[0]] = self.replaced(args[path[0]], path[1:], new)
        return make(e.op, tuple(args), e.attr)

    def rewritten(self, e: Expr, steps: int) -> Expr:
        """``e`` after sound steps, fewer where it grows too large."""
        for _ in range(steps):
            stepped = self.step(e, self.sound)
            if stepped is None or sum(1 for _ in self.paths(stepped)) > 200:
                break
            e = stepped
        return e


def pair(seed: int) -> tuple[Expressions, Expr, Expr]:
    """The source of randomness, a term, and the same term after 1 to 40 sound steps."""
    source = Expressions(seed)
    e = source.any(source.random.randint(2, 5))
    return source, e, source.rewritten(e, source.random.randint(1, 40))


def broken_pair(seed: int) -> tuple[Expr, Expr] | None:
    """A term, and the same after sound steps and a wrong one; None if numbers do not show it to be wrong."""
    source, e, rewritten = pair(seed)
    broken = source.step(rewritten, source.tempting)
    return (e, broken) if broken is not None and contradiction(e, broken) is not None else None
