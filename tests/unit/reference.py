"""A slow evaluator of expressions, written from the semantics alone, for small extents.

An expression with free axes is an array with one dimension per free axis, in canonical order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
import numpy.typing as npt

from sgraph.axis import Axis, ordered
from sgraph.expr import Expr, Op, Read, walk
from sgraph.program import Program

Array = npt.NDArray[np.float64]

CALLS: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "cos": math.cos,
    "erf": math.erf,
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sin": math.sin,
    "softplus": lambda x: math.log1p(math.exp(x)),
    "tanh": math.tanh,
}

BINARY: dict[Op, Callable[[Array, Array], Array]] = {
    Op.ADD: np.add,
    Op.MUL: np.multiply,
    Op.MAX2: np.maximum,
    Op.MIN2: np.minimum,
    Op.LT: np.less,
    Op.LE: np.less_equal,
    Op.EQ: np.equal,
}

REDUCTIONS: dict[Op, Callable[..., Array]] = {Op.SUM: np.sum, Op.MAX: np.max, Op.MIN: np.min}


def results(program: Program, tensors: Mapping[str, Array], sizes: Mapping[str, int] | None = None) -> list[Array]:
    """The program's outputs, every dimension in its place."""
    out: list[Array] = []
    for output in program.outputs:
        axes = tuple(sorted(output.tensor.named_axes))
        value = np.broadcast_to(
            spread(evaluate(output.value, tensors, sizes or {}), ordered(output.value.free), axes),
            [length(a, sizes or {}) for a in axes],
        )
        shape = [1 if a is None else length(a, sizes or {}) for a in output.tensor.axes]
        out.append(value.transpose([axes.index(a) for a in output.tensor.named_axes]).reshape(shape))
    return out


def length(axis: Axis, sizes: Mapping[str, int]) -> int:
    return axis.extent if isinstance(axis.extent, int) else sizes[axis.extent.name]


def spread(value: Array, own: tuple[Axis, ...], target: tuple[Axis, ...]) -> Array:
    """``value`` with dimensions of length 1 for the axes of ``target`` that it does not have."""
    return value.reshape([value.shape[own.index(a)] if a in own else 1 for a in target])


def evaluate(e: Expr, tensors: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    done: dict[Expr, Array] = {}
    with np.errstate(all="ignore"):
        for node in walk([e]):
            done[node] = _node(node, [done[a] for a in node.args], tensors, sizes)
    return done[e]


def _node(e: Expr, args: list[Array], tensors: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    axes = ordered(frozenset[Axis]().union(*(a.free for a in e.args)))
    aligned = [spread(v, ordered(a.free), axes) for v, a in zip(args, e.args, strict=True)]
    match e.op:
        case Op.LEAF:
            assert isinstance(e.attr, Read)
            stored = np.squeeze(tensors[e.name])
            wanted = tuple(length(a, sizes) for a in e.axes)
            stored = tensors[e.name].reshape(wanted) if stored.shape != wanted else stored
            return stored.transpose([e.axes.index(a) for a in ordered(e.free)])
        case Op.CONST:
            return np.array(float(e.value))
        case Op.NEG_INF:
            return np.array(-math.inf)
        case Op.EXTENT:
            return np.array(float(length(e.axis, sizes)))
        case Op.INDEX:
            return np.arange(length(e.axis, sizes), dtype=np.float64)
        case Op.RECIP:
            return np.asarray(1 / args[0])
        case Op.SQRT:
            return np.sqrt(args[0])
        case Op.EXP:
            return np.exp(args[0])
        case Op.LOG:
            return np.log(args[0])
        case Op.CALL:
            return np.vectorize(CALLS[e.name], otypes=[np.float64])(args[0])
        case Op.WHERE:
            return np.where(*np.broadcast_arrays(*aligned))
        case Op.SUM | Op.MAX | Op.MIN:
            if e.axis in axes:
                return REDUCTIONS[e.op](args[0], axis=axes.index(e.axis))
            return args[0] * length(e.axis, sizes) if e.op is Op.SUM else args[0]
        case _:
            return reduce(BINARY[e.op], aligned)
