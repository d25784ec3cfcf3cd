"""The numerical audit of a rewrite table: random tensors at the leaves, and every node of a class must agree.

The value of a class is that of its smallest expression; then each other node is computed from the values of its
operand classes and compared, in float64, with definedness and minus infinity. Free axes and sign facts are
compared with the values, too. It shares no code with the engine or with the check of single rules.

Imports numpy; import this module at first use only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rewrites.table import Node, Table
from sgraph.axis import Axis, largest, ordered
from sgraph.expr import NONNEGATIVE_CALLS, POSITIVE_CALLS, Op, Read, Sign

Array = NDArray[np.float64]

RANGES: Final = ((-1.0, 1.0), (0.1, 1.0), (-1.0, -0.1))
"""Leaves are drawn from each range in a round of its own: small tensors of mixed signs may happen to have one sign."""
_RELATIVE, _ABSOLUTE = 1e-7, 1e-9


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Something a table states and a random evaluation contradicts."""

    cls: int
    """The class."""
    node: Node | None
    """The node that differs from its class; None if a fact about the class is wrong."""
    what: str
    """What is wrong."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The outcome of an audit."""

    seed: int
    """Seed of the tensors and of the sample."""
    checked: int
    """Nodes that were compared."""
    nodes: int
    """Nodes of the table."""
    disagreements: tuple[Disagreement, ...]
    """What was found wrong."""

    @property
    def passed(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.disagreements


def audit(table: Table, seed: int = 0, sample: int = 10_000) -> AuditReport:
    """Compares every node of every class on random tensors; of larger tables, ``sample`` nodes."""
    chosen = [(cls, n) for cls in range(table.classes) for n in table.nodes(cls)]
    if len(chosen) > sample:
        chosen = random.Random(seed).sample(chosen, sample)
    found: dict[Disagreement, None] = {}
    for offset, bounds in enumerate(RANGES):
        world = _World(table, np.random.default_rng((seed, offset)), bounds)
        with np.errstate(all="ignore"):
            values = world.class_values()
            for cls, value in enumerate(values):
                found.update(dict.fromkeys(_wrong_facts(table, world, cls, value)))
            for cls, entry in chosen:
                if not _same(world.evaluate(entry, values), values[cls]):
                    found.setdefault(Disagreement(cls, entry, "differs from the smallest expression of its class"))
    return AuditReport(seed, len(chosen), table.e_nodes, tuple(found))


def _same(a: Array, b: Array) -> bool:
    return np.allclose(*np.broadcast_arrays(a, b), rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)


def _wrong_facts(table: Table, world: _World, cls: int, value: Array) -> list[Disagreement]:
    out: list[Disagreement] = []
    for position, axis in enumerate(world.axes):
        if axis not in table.free(cls) and not _same(value, np.take(value, [0], axis=position)):
            out.append(Disagreement(cls, None, f"depends on {axis}"))
    defined = value[~np.isnan(value)]
    sign = table.sign(cls)
    if (sign is not Sign.ANY and (defined < 0).any()) or (sign is Sign.POSITIVE and (defined == 0).any()):
        out.append(Disagreement(cls, None, f"is not {sign.value}"))
    return out


@dataclass(slots=True)
class _World:
    """One choice of extents and tensors. Arrays have one dimension per axis, of extent 1 where they do not vary."""

    table: Table
    chance: np.random.Generator
    bounds: tuple[float, float]
    axes: tuple[Axis, ...] = field(init=False)
    extents: dict[Axis, int] = field(init=False)
    """By complete axis."""
    tensors: dict[tuple[str, tuple[int, ...]], Array] = field(default_factory=dict[tuple[str, tuple[int, ...]], Array])

    def __post_init__(self) -> None:
        found: set[Axis] = set()
        for cls in range(self.table.classes):
            for entry in self.table.nodes(cls):
                found |= {entry.attr} if isinstance(entry.attr, Axis) else set()
                found |= set(entry.attr.axes) if isinstance(entry.attr, Read) else set()
        self.axes = ordered(found)
        bases = ordered({a.base for a in found})
        self.extents = {a: min(largest(a.extent), int(self.chance.integers(2, 4))) for a in bases}

    def class_values(self) -> list[Array]:
        """The value of each class, from its smallest expression."""
        values: dict[int, Array] = {}
        for root in range(self.table.classes):
            stack = [root]
            while stack:
                entry = self.table.smallest(stack[-1])
                missing = [a for a in entry.args if a not in values]
                stack.extend(missing)
                if not missing:
                    values[stack.pop()] = self.evaluate(entry, values)
        return [values[cls] for cls in range(self.table.classes)]

    def evaluate(self, entry: Node, values: dict[int, Array] | Sequence[Array]) -> Array:
        """One node from the values of its operands; NaN where it is undefined."""
        args = [values[a] for a in entry.args]
        match entry.attr:
            case Read() as read:
                return self._leaf(read)
            case Axis() as axis if entry.op is Op.EXTENT:
                return self._scalar(float(self.extents[axis.base]))
            case Axis() as axis if entry.op is Op.INDEX:
                return self._placed(np.arange(self.extents[axis.base], dtype=np.float64), (axis,))
            case Axis() as axis:
                return self._reduced(entry.op, axis, args[0])
            case str() as name:
                return _where_real(args, _function(name)(args[0]))
            case None:
                return self._scalar(-np.inf) if entry.op is Op.NEG_INF else _applied(entry.op, args)
            case value:
                return self._scalar(float(value))

    def _scalar(self, value: float) -> Array:
        return np.full([1] * len(self.axes), value)

    def _leaf(self, read: Read) -> Array:
        shape = tuple(self.extents[a.base] for a in read.axes)
        key = (read.tensor, shape)
        if key not in self.tensors:
            data = self.chance.uniform(*self.bounds, shape)
            if not read.finite:
                data = np.where(self.chance.uniform(size=shape) < 0.2, -np.inf, data)
            self.tensors[key] = np.asarray(data, dtype=np.float64)
        return self._placed(self.tensors[key], read.axes)

    def _placed(self, data: Array, axes: Sequence[Axis]) -> Array:
        order = sorted(range(len(axes)), key=lambda i: self.axes.index(axes[i]))
        shape = [self.extents[a.base] if a in axes else 1 for a in self.axes]
        return data.transpose(order).reshape(shape)

    def _reduced(self, op: Op, axis: Axis, operand: Array) -> Array:
        place = self.axes.index(axis)
        shape = list(operand.shape)
        shape[place] = self.extents[axis.base]
        full = np.broadcast_to(operand, shape)
        if op is Op.MAX:
            return full.max(axis=place, keepdims=True)
        real = np.where(np.isneginf(full), np.nan, full)
        return (real.sum if op is Op.SUM else real.min)(axis=place, keepdims=True)


def _applied(op: Op, args: Sequence[Array]) -> Array:
    """An operator without an attribute."""
    match op, args:
        case Op.ADD, (a, b):
            return a + b
        case Op.EXP, (a,):
            return np.exp(a)
        case Op.MAX2, (a, b):
            return np.maximum(a, b)
        case Op.WHERE, (condition, then, otherwise):
            return np.where(np.isnan(condition), np.nan, np.where(condition != 0, then, otherwise))
        case Op.MUL, (a, b):
            return _where_real(args, a * b)
        case Op.RECIP, (a,):
            return _where_real(args, np.where(a == 0, np.nan, 1 / a))
        case Op.SQRT, (a,):
            return _where_real(args, np.sqrt(a))
        case Op.LOG, (a,):
            return _where_real(args, np.where(a <= 0, np.nan, np.log(a)))
        case Op.MIN2, (a, b):
            return _where_real(args, np.minimum(a, b))
        case ((Op.LT | Op.LE | Op.EQ), (a, b)):
            compare = {Op.LT: np.less, Op.LE: np.less_equal, Op.EQ: np.equal}[op]
            undefined = np.isnan(a) | np.isnan(b)
            return np.where(undefined, np.nan, compare(a, b))
        case _:
            raise TypeError(f"{op.value} with {len(args)} operands")


def _where_real(args: Sequence[Array], result: Array) -> Array:
    """The result, undefined where an operand is minus infinity."""
    for argument in args:
        result = np.where(np.isneginf(argument), np.nan, result)
    return result


def _function(name: str) -> Callable[[Array], Array]:
    """A stand-in for a named function: the table knows its sign at most, so any function of that sign will do."""
    shift = hashlib.blake2b(name.encode(), digest_size=2).digest()[0] / 256
    if name in POSITIVE_CALLS:
        return lambda x: np.exp(np.sin(x + shift))
    if name in NONNEGATIVE_CALLS:
        return lambda x: np.maximum(np.sin(x + shift), 0)
    return lambda x: np.sin(x + shift)
