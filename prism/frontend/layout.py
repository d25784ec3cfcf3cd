"""What operators mean that move, add or drop dimensions, or make constant tensors."""

from __future__ import annotations

from prism.frontend.axes import Value
from prism.frontend.call import Call, meaning
from prism.frontend.trace import Ref
from sgraph.axis import Axis, Extent, Size
from sgraph.errors import UnsupportedProgram
from sgraph.expr import Expr, const, extent, unused_copy

END_OF_SLICE = 2**63 - 1
"""Torch's end of an open slice."""


@meaning(
    *("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "_unsafe_view"),
    *("squeeze", "unsqueeze", "atleast_1d", "atleast_2d"),
)
def _reshape(call: Call) -> Value:
    """Dimensions of extent 1 come and go; the others must keep their order."""
    value = call.tensor("self")
    shape = call.shape()
    kept = [e for e in shape if e != 1]
    if kept != [a.extent for a in value.axes]:
        raise UnsupportedProgram(
            f"{call.node.operator} of {_shape_text(value)} to [{', '.join(map(str, shape))}] splits or merges axes",
            where=call.node.line,
            do="pass tensors that already have these dimensions, and keep reshapes outside the captured function",
        )
    if call.node.operator.startswith("aten.squeeze"):
        _refuse_squeeze_of_symbol(call, value)
    axes = iter(value.axes)
    return Value(tuple(None if e == 1 else next(axes) for e in shape), value.expr)


def _refuse_squeeze_of_symbol(call: Call, value: Value) -> None:
    """A symbolic size that may be 1 would lose its dimension for that value only."""
    named = call.has("dim")
    squeezed = call.dimensions("dim", len(value.dims)) if named else range(len(value.dims))
    for dimension in squeezed:
        axis = value.dims[dimension] if value.dims else None
        if axis is not None and isinstance(axis.extent, Size) and axis.extent.low <= 1:
            raise UnsupportedProgram(
                f"{call.node.operator} drops the dimension {axis.extent} where it is 1 and keeps it elsewhere",
                where=call.node.line,
                do=f"squeeze only dimensions of fixed size, or let {axis.extent} start at 2",
            )


def _shape_text(value: Value) -> str:
    return f"[{', '.join('1' if a is None else str(a.extent) for a in value.dims)}]"


@meaning("transpose", "swapaxes", "swapdims")
def _transpose(call: Call) -> Value:
    value = call.tensor("self")
    rank = len(value.dims)
    names = ("dim0", "dim1") if "dim0" in call.node.arguments else ("axis0", "axis1")
    (first,), (second,) = (call.dimensions(n, rank) for n in names)
    order = list(range(rank))
    order[first], order[second] = order[second], order[first]
    return _permuted(value, order)


@meaning("t", "numpy_T", "mT", "adjoint")
def _reverse(call: Call) -> Value:
    value = call.tensor("self")
    order = list(range(len(value.dims)))
    return _permuted(value, [*order[:-2], *reversed(order[-2:])] if len(order) > 2 else order[::-1])


@meaning("permute")
def _permute(call: Call) -> Value:
    value = call.tensor("self")
    return _permuted(value, call.dimensions("dims", len(value.dims)) if value.dims else ())


@meaning("movedim", "moveaxis")
def _movedim(call: Call) -> Value:
    value = call.tensor("self")
    rank = len(value.dims)
    sources, targets = call.dimensions("source", rank), call.dimensions("destination", rank)
    order = [d for d in range(rank) if d not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return _permuted(value, order)


def _permuted(value: Value, order: tuple[int, ...] | list[int]) -> Value:
    return Value(tuple(value.dims[i] for i in order), value.expr)


@meaning("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> Value:
    value = call.tensor("self")
    shape = call.shape()
    padded = (None,) * (len(shape) - len(value.dims)) + value.dims
    return _filled(call, padded, shape, value.expr)


@meaning("full", "full_like", "new_full")
def _full(call: Call) -> Value:
    return _constant(call, call.number("fill_value"))


@meaning("fill")
def _fill(call: Call) -> Value:
    return _constant(call, call.number("value"))


@meaning("zeros", "zeros_like", "new_zeros")
def _zeros(call: Call) -> Value:
    return _constant(call, const(0))


@meaning("ones", "ones_like", "new_ones")
def _ones(call: Call) -> Value:
    return _constant(call, const(1))


@meaning("scalar_tensor")
def _scalar(call: Call) -> Value:
    return _constant(call, call.number("s"))


def _constant(call: Call, value: Expr) -> Value:
    shape = call.shape()
    return _filled(call, (None,) * len(shape), shape, value)


def _filled(call: Call, dims: tuple[Axis | None, ...], shape: tuple[Extent, ...], expr: Expr) -> Value:
    """``expr`` repeated along every dimension that has an extent but no axis yet."""
    out: list[Axis | None] = []
    taken = [a for a in dims if a is not None]
    for axis, size in zip(dims, shape, strict=True):
        if axis is None and size != 1:
            new = unused_copy(call.axes.fresh(size), taken)
            taken.append(new)
            out.append(new)
        else:
            out.append(axis)
    return Value(tuple(out), expr)


@meaning("slice")
def _slice(call: Call) -> Value:
    value = call.tensor("self")
    start, end, step = (call.node.arguments[n] for n in ("start", "end", "step"))
    size = call.shape()[call.dimensions("dim", len(value.dims))[0]]
    if start not in (None, 0) or step != 1 or end not in (None, END_OF_SLICE, size):
        call.refuse("it takes a part of an axis")
    return value


@meaning("select")
def _select(call: Call) -> Value:
    value = call.tensor("self")
    (dimension,) = call.dimensions("dim", len(value.dims))
    if value.dims[dimension] is not None:
        call.refuse("it takes one index of an axis")
    return Value(value.dims[:dimension] + value.dims[dimension + 1 :], value.expr)


@meaning("sym_size")
def _size(call: Call) -> Value:
    value = call.tensor("self")
    axis = value.dims[call.dimensions("dim", len(value.dims))[0]]
    return Value((), const(1) if axis is None else extent(axis))


@meaning("python.getitem")
def _getitem(call: Call) -> Value:
    reference, position = call.node.arguments["0"], call.node.arguments["1"]
    assert isinstance(reference, Ref) and isinstance(position, int)
    return call.reference(reference, position)
