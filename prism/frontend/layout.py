"""What operators mean that move, add, drop, merge or split dimensions, or make constant tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from prism.frontend.axes import Dim, distinct, flat, shape_text
from prism.frontend.call import Call, Results, meaning
from prism.frontend.combine import join, piece, whole
from prism.frontend.trace import ONE, Product, Ref
from prism.frontend.values import FALSE, TRUE, Joined, Tensorial, Value, permuted, scalar
from sgraph.errors import UnsupportedProgram
from sgraph.expr import Expr, const, extent, product

END_OF_SLICE = 2**63 - 1
"""Torch's end of an open slice."""


@meaning(
    *("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "_unsafe_view"),
    *("squeeze", "unsqueeze", "atleast_1d", "atleast_2d", "atleast_3d", "ravel"),
)
def _reshape(call: Call) -> Tensorial:
    """The same elements in row-major order: axes are regrouped, and split where a dimension ends inside one."""
    value = call.stored("self")
    if call.node.operator.startswith("aten.squeeze"):
        _refuse_squeeze_of_symbol(call, value)
    return _reshaped(call, value, call.shape())


def _reshaped(call: Call, value: Tensorial, shape: Sequence[Product]) -> Tensorial:
    if isinstance(value, Joined):
        place = _same_place(value, shape)
        if place is not None:
            parts: list[Value] = []
            for part, length in zip(value.parts, value.lengths, strict=True):
                reshaped = _reshaped(call, part, (*shape[:place], length, *shape[place + 1 :]))
                assert isinstance(reshaped, Value)
                parts.append(reshaped)
            return Joined(place, tuple(parts))
        value = whole(call.axes, value)
    dims = call.axes.regroup(value.axes, shape)
    if dims is None:
        raise UnsupportedProgram(
            f"{call.node.operator} of {shape_text(value.dims)} to [{', '.join(map(str, shape))}]: "
            "the dimensions have no common refinement",
            where=call.node.line,
            do="split and merge whole dimensions in their order, or pass tensors that already have these dimensions",
        )
    return Value(dims, value.expr, value.boolean)


def _same_place(value: Joined, shape: Sequence[Product]) -> int | None:
    """Where the joined dimension is in a shape that keeps it as it is."""
    part = value.parts[0].shape
    before = math.prod(_numbers(part[: value.dimension]))
    for place, size in enumerate(shape):
        if size == value.length and math.prod(_numbers(shape[:place])) == before:
            return place
    return None


def _numbers(sizes: Sequence[Product]) -> list[int]:
    """The sizes as numbers; a symbolic one as its largest value, which is enough to tell products apart in order."""
    return [size.number * math.prod(s.high for s in size.sizes) for size in sizes]


def _refuse_squeeze_of_symbol(call: Call, value: Tensorial) -> None:
    """A symbolic size that may be 1 would lose its dimension for that value only."""
    named = call.has("dim")
    squeezed = call.dimensions("dim", value.rank) if named else range(value.rank)
    sizes = (value.parts[0] if isinstance(value, Joined) else value).shape
    for dimension in squeezed:
        size = sizes[dimension] if sizes else ONE
        if size.sizes and size.smallest <= 1:
            raise UnsupportedProgram(
                f"{call.node.operator} drops the dimension {size} where it is 1 and keeps it elsewhere",
                where=call.node.line,
                do=f"squeeze only dimensions of fixed size, or let {size} start at 2",
            )


# -------------------------------------------------------------------------------------------- permutations


@meaning("transpose", "swapaxes", "swapdims")
def _transpose(call: Call) -> Tensorial:
    value = call.stored("self")
    names = ("dim0", "dim1") if "dim0" in call.node.arguments else ("axis0", "axis1")
    first, second = (call.place(n, value.rank) for n in names)
    order = list(range(value.rank))
    if order:
        order[first], order[second] = order[second], order[first]
    return permuted(value, order)


@meaning("t", "numpy_T", "mT", "adjoint", "mH", "matrix_H")
def _reverse(call: Call) -> Tensorial:
    value = call.stored("self")
    order = list(range(value.rank))
    return permuted(value, [*order[:-2], *reversed(order[-2:])] if len(order) > 2 else order[::-1])


@meaning("permute")
def _permute(call: Call) -> Tensorial:
    value = call.stored("self")
    return permuted(value, call.dimensions("dims", value.rank) if value.rank else ())


@meaning("movedim", "moveaxis")
def _movedim(call: Call) -> Tensorial:
    value = call.stored("self")
    if not value.rank:  # of a single element, -1 and 0 name a dimension that it does not have
        return value
    sources, targets = call.dimensions("source", value.rank), call.dimensions("destination", value.rank)
    order = [d for d in range(value.rank) if d not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return permuted(value, order)


# --------------------------------------------------------------------------------- repetition and constants


@meaning("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> Tensorial:
    return _expanded(call, call.stored("self"), call.shape())


def _expanded(call: Call, value: Tensorial, shape: Sequence[Product]) -> Tensorial:
    """The tensor repeated along dimensions that it does not have."""
    added = len(shape) - value.rank
    if isinstance(value, Value):
        return _filled(call, ((),) * added + value.dims, shape, value.expr, value.boolean)
    place = value.dimension + added
    sizes = [(*shape[:place], length, *shape[place + 1 :]) for length in value.lengths]
    dims = [((),) * added + part.dims for part in value.parts]
    parts = [_filled(call, d, s, p.expr, p.boolean) for d, s, p in zip(dims, sizes, value.parts, strict=True)]
    return join(call.axes, parts, place)


@meaning("repeat_interleave")
def _repeat_interleave(call: Call) -> Tensorial:
    """Each index several times: a new fastest axis in the dimension."""
    value, repeats = whole(call.axes, call.stored("self")), call.node.arguments["repeats"]
    if not isinstance(repeats, int) or not call.has("dim"):
        call.refuse("only a number of repeats along one dimension is understood")
    return repeated(call, value, call.place("dim", value.rank), repeats)


def repeated(call: Call, value: Value, dimension: int, repeats: int) -> Value:
    """Each index of a dimension ``repeats`` times in a row."""
    new = distinct(call.axes.fresh(repeats), value.axes)
    dims = (*value.dims[:dimension], value.dims[dimension] + new, *value.dims[dimension + 1 :])
    return Value(dims, value.expr, value.boolean)


@meaning("repeat", "tile")
def _repeat(call: Call) -> Tensorial:
    """The whole dimension several times: a new slowest axis in it."""
    value = whole(call.axes, call.stored("self"))
    shape = call.shape()
    dims: list[Dim] = []
    taken = value.axes
    for dim, size in zip(((),) * (len(shape) - value.rank) + value.dims, shape, strict=True):
        times = size
        for axis in dim:
            divided = times.over(axis.extent)
            assert divided is not None
            times = divided
        if times.extent is None:
            call.refuse(f"it repeats {times} times")
        new = distinct(call.axes.fresh(times.extent), taken)
        taken += new
        dims.append(new + dim)
    return Value(tuple(dims), value.expr, value.boolean)


@meaning("full", "full_like", "new_full")
def _full(call: Call) -> Tensorial:
    return _constant(call, call.number("fill_value", may_be_infinite=True))


@meaning("fill")
def _fill(call: Call) -> Tensorial:
    return _constant(call, call.number("value", may_be_infinite=True))


@meaning("zeros", "zeros_like", "new_zeros")
def _zeros(call: Call) -> Tensorial:
    return _constant(call, const(0))


@meaning("ones", "ones_like", "new_ones")
def _ones(call: Call) -> Tensorial:
    return _constant(call, const(1))


@meaning("scalar_tensor")
def _scalar(call: Call) -> Tensorial:
    return _constant(call, call.number("s"))


def _constant(call: Call, value: Expr) -> Value:
    shape = call.shape()
    if call.boolean:
        value = FALSE if value is const(0) else TRUE
    return _filled(call, ((),) * len(shape), shape, value, call.boolean)


def _filled(call: Call, dims: tuple[Dim, ...], shape: Sequence[Product], expr: Expr, boolean: bool) -> Value:
    """``expr`` repeated along every dimension that has an extent but no axis yet."""
    out: list[Dim] = []
    taken = flat(dims)
    for dim, size in zip(dims, shape, strict=True):
        if dim:
            out.append(dim)
            continue
        if size.extent is None:
            call.refuse(f"it makes a dimension of size {size}")
        new = distinct(call.axes.fresh(size.extent), taken)
        taken += new
        out.append(new)
    return Value(tuple(out), expr, boolean)


# ------------------------------------------------------------------------------------------ parts of tensors


@meaning("cat", "concat", "concatenate")
def _cat(call: Call) -> Tensorial:
    values = call.stored_list("tensors")
    return join(call.axes, _alike(call, values), call.place("dim", values[0].rank))


@meaning("hstack", "vstack", "row_stack", "dstack", "column_stack")
def _stack_along(call: Call) -> Tensorial:
    """``cat`` of tensors that get the dimension they are joined along, if they do not have it."""
    name = call.node.operator.split(".")[1]
    least, dimension = {"vstack": (2, 0), "row_stack": (2, 0), "dstack": (3, 2), "column_stack": (2, 1)}.get(
        name, (1, 1)
    )
    values = [whole(call.axes, v) for v in _alike(call, call.stored_list("tensors"))]
    if name == "hstack" and values[0].rank == 1:
        dimension = 0
    return join(
        call.axes, [_at_least(value, least, behind=name not in ("vstack", "row_stack")) for value in values], dimension
    )


def _at_least(value: Value, rank: int, *, behind: bool) -> Value:
    """The tensor with units in front or, of a vector in columns, behind."""
    units = ((),) * (rank - value.rank)
    if rank == 3 and value.rank == 1:
        return Value(((), *value.dims, ()), value.expr, value.boolean)
    return Value((*value.dims, *units) if behind else (*units, *value.dims), value.expr, value.boolean)


@meaning("broadcast_tensors")
def _broadcast(call: Call) -> Results:
    values = call.stored_list("tensors")
    shape = call.shape()
    return tuple(_expanded(call, value, shape) for value in values)


@meaning("stack")
def _stack(call: Call) -> Tensorial:
    values = call.stored_list("tensors")
    place = call.place("dim", values[0].rank + 1)
    return join(call.axes, [_with_dimension(call, value, place) for value in _alike(call, values)], place)


def _alike(call: Call, values: Sequence[Tensorial]) -> list[Tensorial]:
    return [value if call.boolean else value.numeric() for value in values]


def _with_dimension(call: Call, value: Tensorial, place: int) -> Value:
    plain = whole(call.axes, value)
    return Value((*plain.dims[:place], (), *plain.dims[place:]), plain.expr, plain.boolean)


@meaning("constant_pad_nd", "pad")
def _pad(call: Call) -> Tensorial:
    """The tensor between constants, from the last dimension on."""
    value = call.stored("self")
    if call.node.arguments.get("mode", "constant") != "constant":
        call.refuse("its mode is not constant")
    widths = call.node.arguments["pad"]
    assert isinstance(widths, tuple)
    name = "value" if call.has("value") else ""
    fill = call.number(name, may_be_infinite=True) if name else const(0)
    for number, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        place = value.rank - 1 - number
        if not isinstance(before, int) or not isinstance(after, int) or before < 0 or after < 0:
            call.refuse("it takes away, or adds a number computed from symbolic sizes")
        if before or after:
            plain = whole(call.axes, value)
            sides = [_constants_beside(call, plain, place, width, fill) for width in (before, after)]
            value = join(call.axes, [s for s in (sides[0], plain, sides[1]) if s is not None], place)
    return value


def _constants_beside(call: Call, value: Value, place: int, width: int, fill: Expr) -> Value | None:
    """A constant of the tensor's sizes but one."""
    if not width:
        return None
    new = distinct(call.axes.fresh(width), value.axes)
    return Value((*value.dims[:place], new, *value.dims[place + 1 :]), fill)


@meaning("slice", "narrow")
def _slice(call: Call) -> Tensorial:
    value = call.stored("self")
    dimension = call.place("dim", value.rank)
    start, step = call.node.arguments["start"] or 0, call.node.arguments.get("step", 1)
    size = call.node.results[0].shape[dimension] if call.node.results[0] is not None else ""
    everything = call.node.arguments.get("end", END_OF_SLICE) in (None, END_OF_SLICE)
    if start == 0 and step == 1 and everything and "end" in call.node.arguments:
        return value
    if step != 1:
        call.refuse("it takes every few indices of an axis")
    if not isinstance(start, int) or isinstance(size, str):
        call.refuse("its bounds are computed from symbolic sizes")
    return taken(call, value, dimension, start, size)


def taken(call: Call, value: Tensorial, dimension: int, start: int, size: Product) -> Tensorial:
    """``size`` indices from ``start`` on; a negative start counts from the end."""
    if not size.number:
        call.refuse("it takes no index at all")
    if isinstance(value, Joined) and value.dimension == dimension:
        return _taken_of_parts(call, value, start, size)
    if isinstance(value, Joined):
        parts = [taken(call, part, dimension, start, size) for part in value.parts]
        return join(call.axes, parts, value.dimension)
    if size == value.shape[dimension]:
        return value
    length = value.shape[dimension]
    if not length.sizes and start < 0:
        start = max(start, -length.number)
    if size.extent is None:
        call.refuse(f"it takes {size} indices")
    return piece(call.axes, value, dimension, start, size)


def _taken_of_parts(call: Call, value: Joined, start: int, size: Product) -> Tensorial:
    length = value.length
    if length is None:
        call.refuse("it takes a part of tensors of symbolic sizes")
    first = _from_left(start, length.number)
    last = first + size.number
    kept: list[Tensorial] = []
    for part, (begin, end) in zip(value.parts, pairwise(_bounds(value)), strict=True):
        low, high = max(first, begin), min(last, end)
        if low < high:
            kept.append(taken(call, part, value.dimension, low - begin, Product(high - low)))
    return join(call.axes, kept, value.dimension)


def _from_left(start: int, length: int) -> int:
    return start if start >= 0 else max(start + length, 0)


def _bounds(value: Joined) -> list[int]:
    return list(accumulate((length.number for length in value.lengths), initial=0))


@meaning("select")
def _select(call: Call) -> Tensorial:
    value = call.stored("self")
    dimension = call.place("dim", value.rank)
    position = call.node.arguments["index"]
    if not isinstance(position, int):
        call.refuse("its index is computed")
    return _without(taken(call, value, dimension, position, ONE), dimension)


def _without(value: Tensorial, dimension: int) -> Tensorial:
    """The same without a dimension of extent 1."""
    if isinstance(value, Value):
        return Value(value.dims[:dimension] + value.dims[dimension + 1 :], value.expr, value.boolean)
    parts = tuple(Value(p.dims[:dimension] + p.dims[dimension + 1 :], p.expr, p.boolean) for p in value.parts)
    return Joined(value.dimension - (dimension < value.dimension), parts)


@meaning("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def _split(call: Call) -> Results:
    value = call.stored("self")
    dimension = call.place("dim", value.rank)
    sizes = [call.shape(i)[dimension] for i in range(len(call.node.results))]
    if len(sizes) > 1 and any(size.sizes for size in sizes):
        call.refuse("it splits a dimension of symbolic size")
    starts = accumulate((size.number for size in sizes[:-1]), initial=0)
    return tuple(taken(call, value, dimension, start, size) for start, size in zip(starts, sizes, strict=True))


@meaning("unbind")
def _unbind(call: Call) -> Results:
    value = call.stored("self")
    dimension = call.place("dim", value.rank)
    count = range(len(call.node.results))
    return tuple(_without(taken(call, value, dimension, i, ONE), dimension) for i in count)


@meaning("sym_size")
def _size(call: Call) -> Tensorial:
    value = call.stored("self")
    dimension = call.place("dim", value.rank)
    if isinstance(value, Joined):
        if dimension == value.dimension:
            call.refuse("the size of a joined dimension is a sum")
        value = value.parts[0]
    return scalar(product(extent(a) for a in value.dims[dimension]))


@meaning("python.getitem")
def _getitem(call: Call) -> Tensorial:
    reference, position = call.node.arguments["0"], call.node.arguments["1"]
    assert isinstance(reference, Ref) and isinstance(position, int)
    return call.reference(reference, position)
