"""The three ways in which every operator combines tensors: element by element, by contraction, by reduction.

Each distributes over parts that ``cat`` or ``stack`` has joined: element by element part by part, a sum over the
joined dimension as the sum of the parts' sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Final, NoReturn, cast, overload

from prism.frontend.axes import Axes, Dim, distinct, flat, size_of
from prism.frontend.trace import ONE, Product
from prism.frontend.values import Joined, Tensorial, Value
from sgraph.axis import Axis
from sgraph.errors import UnsupportedProgram
from sgraph.expr import (
    Expr,
    Op,
    add,
    const,
    equal,
    extent,
    index,
    leaves,
    make,
    max_over,
    maximum,
    min_over,
    minimum,
    mul,
    product,
    rebuild,
    rename,
    sum_over,
    walk,
    where,
)

Label = str | int
"""What says that dimensions of several tensors belong together, as a letter of ``einsum`` does."""

MOST_EQUAL_PARTS: Final = 4
"""Unequal parts are taken apart into at most so many equal ones to be one whole."""

FOLDS: Final = {Op.SUM: (sum_over, add), Op.MAX: (max_over, maximum), Op.MIN: (min_over, minimum)}
"""For each reduction, how it folds axes and how it folds two partial results."""


# ------------------------------------------------------------------------------------------- plain tensors


def align(
    axes: Axes, operands: Sequence[Value], labels: Sequence[Sequence[Label]]
) -> tuple[dict[Label, Dim], list[Expr]]:
    """Give equally labelled dimensions one axis and differently labelled ones different copies.

    Each operand's axes are renamed all at once, so ``a + a.T`` denotes ``a[i,j] + a[j,i]``.
    """
    chosen: dict[Label, Dim] = {}
    for value, names in zip(operands, labels, strict=True):
        for label, dim in zip(names, value.dims, strict=True):
            if not dim:
                continue
            if label in chosen:
                axes.unify(chosen[label], dim)
            else:
                chosen[label] = distinct(dim, flat(chosen.values()))
    if not axes.settled:
        # The first run only finds out what is unified and split; its expressions are thrown away.
        return chosen, [value.expr for value in operands]
    exprs: list[Expr] = []
    for value, names in zip(operands, labels, strict=True):
        renaming: dict[Axis, Axis] = {}
        for label, dim in zip(names, value.dims, strict=True):
            renaming.update(zip(dim, chosen[label] if dim else (), strict=True))
        exprs.append(rename(value.expr, renaming))
    return chosen, exprs


One = Callable[[Expr], Expr]
Two = Callable[[Expr, Expr], Expr]
Three = Callable[[Expr, Expr, Expr], Expr]


@overload
def elementwise(axes: Axes, function: One, a: Tensorial, /, *, boolean: bool = ...) -> Tensorial: ...
@overload
def elementwise(axes: Axes, function: Two, a: Tensorial, b: Tensorial, /, *, boolean: bool = ...) -> Tensorial: ...
@overload
def elementwise(
    axes: Axes, function: Three, a: Tensorial, b: Tensorial, c: Tensorial, /, *, boolean: bool = ...
) -> Tensorial: ...
@overload
def elementwise(
    axes: Axes, function: Callable[..., Expr], /, *operands: Tensorial, boolean: bool = ...
) -> Tensorial: ...
def elementwise(axes: Axes, function: Callable[..., Expr], *operands: Tensorial, boolean: bool = False) -> Tensorial:
    """A function of aligned elements, dimensions broadcast from the right; ``boolean`` if it makes conditions."""
    rank = max(o.rank for o in operands)
    labels = [range(rank - o.rank, rank) for o in operands]
    joined = next((i for i, o in enumerate(operands) if isinstance(o, Joined)), None)
    if joined is None:
        chosen, exprs = align(axes, cast("tuple[Value, ...]", operands), labels)
        return Value(tuple(chosen.get(i, ()) for i in range(rank)), function(*exprs), boolean)
    place = labels[joined][cast("Joined", operands[joined]).dimension]
    columns = _columns(axes, operands, labels, place)
    if columns is None:
        return elementwise(axes, function, *(_if_stacked(axes, o) for o in operands), boolean=boolean)
    return _join(axes, place, [elementwise(axes, function, *column, boolean=boolean) for column in columns])


def contract(
    axes: Axes, operands: Sequence[Tensorial], labels: Sequence[Sequence[Label]], result: Sequence[Label]
) -> Tensorial:
    """The sum of products over every label that ``result`` leaves out, as in ``einsum``."""
    joined = next((i for i, o in enumerate(operands) if isinstance(o, Joined)), None)
    if joined is None:
        chosen, exprs = align(axes, cast("Sequence[Value]", operands), labels)
        summed = flat(dim for label, dim in chosen.items() if label not in result)
        return Value(tuple(chosen.get(label, ()) for label in result), sum_over(summed, product(exprs)))
    label = labels[joined][cast("Joined", operands[joined]).dimension]
    columns = _columns(axes, operands, labels, label)
    if columns is None:
        return contract(axes, [_if_stacked(axes, o) for o in operands], labels, result)
    parts = [contract(axes, column, labels, result) for column in columns]
    if label in result:
        return _join(axes, result.index(label), parts)
    return _combined(axes, add, parts)


def fold(axes: Axes, value: Tensorial, dimensions: Sequence[int], op: Op, *, keep: bool) -> Tensorial:
    """A reduction over some dimensions; those without an axis have one index and change nothing."""
    over, combine = FOLDS[op]
    if isinstance(value, Value):
        folded = flat(dim for i, dim in enumerate(value.dims) if i in dimensions)
        kept = tuple(() if i in dimensions else d for i, d in enumerate(value.dims) if keep or i not in dimensions)
        return Value(kept, over(folded, value.expr))
    parts = [fold(axes, part, dimensions, op, keep=keep) for part in value.parts]
    if value.dimension in dimensions:
        return _combined(axes, combine, parts)
    dropped = 0 if keep else sum(d < value.dimension for d in set(dimensions))
    return _join(axes, value.dimension - dropped, parts)


def _combined(axes: Axes, function: Two, parts: Sequence[Tensorial]) -> Tensorial:
    result, *others = parts
    for part in others:
        result = elementwise(axes, function, result, part)
    return result


def count(value: Tensorial, dimensions: Sequence[int]) -> Expr:
    """How many elements a reduction over some dimensions takes together."""
    if isinstance(value, Value):
        return product(extent(a) for i, dim in enumerate(value.dims) if i in dimensions for a in dim)
    counts = [count(part, dimensions) for part in value.parts]
    return reduce(add, counts) if value.dimension in dimensions else counts[0]


def fewest(value: Tensorial, dimensions: Sequence[int]) -> int:
    """The least that ``count`` can be."""
    if isinstance(value, Value):
        return Product.of(a.extent for i, dim in enumerate(value.dims) if i in dimensions for a in dim).smallest
    counts = [fewest(part, dimensions) for part in value.parts]
    return sum(counts) if value.dimension in dimensions else counts[0]


def position(dim: Dim) -> Expr:
    """The position along a dimension."""
    if not dim:
        return const(0)
    return reduce(lambda outer, axis: mul(outer, extent(axis)) + index(axis), dim[1:], index(dim[0]))


# ------------------------------------------------------------------------------------------- joined tensors


def join(axes: Axes, parts: Sequence[Tensorial], dimension: int) -> Tensorial:
    """``cat`` along a dimension."""
    flattened: list[Value] = []
    for part in parts:
        if isinstance(part, Value):
            flattened.append(part)
        elif part.dimension == dimension:
            flattened.extend(part.parts)
        else:
            flattened.append(whole(axes, part))
    for part in flattened[1:]:
        for number, (a, b) in enumerate(zip(flattened[0].dims, part.dims, strict=True)):
            if number != dimension:
                axes.unify(a, b)
    return flattened[0] if len(flattened) == 1 else Joined(dimension, tuple(flattened))


def _join(axes: Axes, dimension: int, parts: Sequence[Tensorial]) -> Joined:
    return Joined(dimension, tuple(whole(axes, part) for part in parts))


def _columns(
    axes: Axes, operands: Sequence[Tensorial], labels: Sequence[Sequence[Label]], label: Label
) -> list[tuple[Tensorial, ...]] | None:
    """The operands of each part; None if stacked parts meet the axis of a tensor that is one whole."""
    found = [o for o, names in zip(operands, labels, strict=True) if isinstance(o, Joined) and _along(o, names, label)]
    lengths = found[0].lengths
    rows: list[Sequence[Tensorial]] = []
    for operand, names in zip(operands, labels, strict=True):
        place = names.index(label) if label in names else None
        if place is None or (isinstance(operand, Value) and not operand.dims[place]):
            rows.append([operand] * len(lengths))
        elif isinstance(operand, Value):
            if all(length == ONE for length in lengths):
                return None
            rows.append(_pieces(axes, operand, place, found[0]))
        elif _along(operand, names, label) and operand.lengths == lengths:
            rows.append(operand.parts)
        else:
            _refuse(axes, f"parts of {_text(lengths)} meet a tensor that is joined from other parts")
    return list(zip(*rows, strict=True))


def _along(joined: Joined, names: Sequence[Label], label: Label) -> bool:
    return names[joined.dimension] == label


def _if_stacked(axes: Axes, operand: Tensorial) -> Tensorial:
    return whole(axes, operand) if isinstance(operand, Joined) else operand


def whole(axes: Axes, value: Tensorial) -> Value:
    """A tensor as one element over axes; equal parts are told apart by their position.

    Raises:
        UnsupportedProgram: it is joined from parts of different sizes.
    """
    if isinstance(value, Value):
        return value
    value = _in_equal_parts(axes, value)
    first = value.lengths[0]
    if any(length != first or length.extent is None for length in value.lengths):
        _refuse(axes, f"the tensor joined from parts of {_text(value.lengths)} is used as one whole")
    new = axes.fresh(len(value.parts))
    # Equal parts: which one is an axis of its own, in front of those of the parts.
    dims = tuple(new if i == value.dimension else () for i in range(value.rank + 1))
    parts = [_with_unit(part, value.dimension) for part in value.parts]

    def pick(place: Expr, *elements: Expr) -> Expr:
        *others, last = elements
        for number, element in reversed(list(enumerate(others))):
            last = where(equal(place, const(number)), element, last)
        return last

    result = elementwise(axes, pick, Value(dims, position(new)), *parts, boolean=value.boolean)
    assert isinstance(result, Value)
    place = value.dimension
    merged = result.dims[place] + result.dims[place + 1]
    return Value((*result.dims[:place], merged, *result.dims[place + 2 :]), result.expr, result.boolean)


def _in_equal_parts(axes: Axes, value: Joined) -> Joined:
    """The same joined from equal parts, where a few of those make up all parts (2, 2 and 4)."""
    if value.length is None:
        return value
    lengths = [length.number for length in value.lengths]
    unit = math.gcd(*lengths)
    if len(set(lengths)) == 1 or value.length.number // unit > MOST_EQUAL_PARTS:
        return value
    parts = [
        piece(axes, part, value.dimension, start, Product(unit))
        for part, length in zip(value.parts, lengths, strict=True)
        for start in range(0, length, unit)
    ]
    return Joined(value.dimension, tuple(parts))


def _with_unit(value: Value, place: int) -> Value:
    return Value((*value.dims[:place], (), *value.dims[place:]), value.expr, value.boolean)


def _pieces(axes: Axes, value: Value, dimension: int, joined: Joined) -> list[Value]:
    lengths = joined.lengths
    if any(length.extent is None for length in lengths):
        _refuse(axes, f"parts of {_text(lengths)} meet a tensor that is one whole")
    sizes = [
        const(length.number) if not length.sizes else count(part, (joined.dimension,))
        for part, length in zip(joined.parts, lengths, strict=True)
    ]
    if any(length.sizes for length in lengths):
        starts = list(accumulate(sizes[:-1], add, initial=const(0)))
        return [piece(axes, value, dimension, start, length) for start, length in zip(starts, lengths, strict=True)]
    numbers = accumulate((length.number for length in lengths[:-1]), initial=0)
    return [piece(axes, value, dimension, start, length) for start, length in zip(numbers, lengths, strict=True)]


def piece(axes: Axes, value: Value, dimension: int, start: Expr | int, length: Product) -> Value:
    """Some indices of a dimension; a negative ``start`` counts from the end.

    Raises:
        UnsupportedProgram: an input is read at these indices, and they are no fixed part of it.
    """
    dim = value.dims[dimension]
    if length == size_of(dim):
        return value
    assert length.extent is not None
    whole_size = size_of(dim)
    taken: list[tuple[Axis, tuple[int, int] | None]] | None = None
    if isinstance(start, int) and not length.sizes and dim:
        begin = start + whole_size.number if start < 0 and not whole_size.sizes else start
        taken = axes.cut(dim, begin, length.number)
        if start == -1 and len(dim) == 1:
            # Of the last index no number is needed, so that it is the last at any extent.
            taken = [(dim[0], (-1, 1))]
    if taken is None:
        return _computed(axes, value, dimension, start, length)
    new: list[Axis] = []
    moved: list[_Moved] = []
    others = [a for d in (*value.dims[:dimension], *value.dims[dimension + 1 :]) for a in d]
    for axis, indices in taken:
        if indices is None or indices == (0, axis.extent):
            new.append(axis)
            others.append(axis)
            continue
        part = distinct(axes.part(axis, *indices), (*others, *new))
        new += part
        moved.append(_Moved(axis, indices[0], indices[1], part))
    dims = (*value.dims[:dimension], tuple(new), *value.dims[dimension + 1 :])
    return Value(dims, _moved(axes, value.expr, moved) if axes.settled else value.expr, value.boolean)


@dataclass(frozen=True, slots=True)
class _Moved:
    """Some indices of an axis."""

    axis: Axis
    start: int
    length: int
    part: Dim
    """The axes that count them."""


def _moved(axes: Axes, expr: Expr, parts: Sequence[_Moved]) -> Expr:
    """``expr`` at some indices of some axes: inputs are read in views, positions are shifted."""
    for part in parts:
        expr = _moved_along(axes, expr, part)
    return expr


def _moved_along(axes: Axes, expr: Expr, part: _Moved) -> Expr:
    if part.axis not in expr.free:
        return expr
    # Names that no axis has: they are bound nowhere, so nothing is captured between the steps.
    old = Axis("<old>", part.axis.extent)
    marks = {Axis(f"<new {i}>", a.extent): a for i, a in enumerate(part.part)}
    expr = rename(expr, {part.axis: old})
    start = const(part.start) if part.start >= 0 else extent(part.axis) + part.start
    exchanged = {index(old): start + position(tuple(marks)) if marks else start}
    own = tuple(axes.part(part.axis, part.start, part.length))
    for read in leaves([expr]):
        if old in read.axes:
            if part.length == 1:
                axes.sources.fixed.add(part.axis.base)
            narrow = axes.sources.narrowed(read, old, part.start, part.length, own, tuple(marks))
            exchanged[read] = narrow
    return rename(without_choice(rebuild(expr, exchanged)), marks)


def at_index(axes: Axes, expr: Expr, axis: Axis, number: int) -> Expr:
    """``expr`` at one index of an axis."""
    return _moved_along(axes, expr, _Moved(axis, number, 1, ()))


def _computed(axes: Axes, value: Value, dimension: int, start: Expr | int, length: Product) -> Value:
    """Indices known only at call time, of a dimension along which the element is a function of the position."""
    dim = value.dims[dimension]
    assert length.extent is not None
    new = distinct(axes.fresh(length.extent), value.axes)
    dims = (*value.dims[:dimension], new, *value.dims[dimension + 1 :])
    expr = _shifted(axes, value.expr, dim, new, start) if axes.settled else value.expr
    return Value(dims, expr, value.boolean)


def _shifted(axes: Axes, expr: Expr, dim: Dim, new: Dim, start: Expr | int) -> Expr:
    """``expr`` with the position along ``dim`` read as ``start`` plus the position along ``new``."""
    used = [a for a in dim if a in expr.free]
    if not used:
        return expr
    old_marks = {a: Axis(f"<old {i}>", a.extent) for i, a in enumerate(used)}
    new_marks = {a: Axis(f"<new {i}>", a.extent) for i, a in enumerate(new)}
    expr = rename(expr, old_marks)
    readers = sorted({leaf.name for leaf in leaves([expr]) if not set(leaf.axes).isdisjoint(old_marks.values())})
    if readers or len(dim) > 1:
        names = " and ".join(f"`{name}`" for name in readers) or "a merged dimension"
        raise UnsupportedProgram(
            f"a part of an axis is taken along which {names} is read, and which part depends on symbolic sizes or is "
            "no block of the merged dimensions",
            where=axes.line,
            do=f"fix the sizes in it to numbers, or pass {names} in parts, one tensor each",
        )
    begin = start if isinstance(start, Expr) else const(start) if start >= 0 else count_of(dim) + start
    place = begin + position(tuple(new_marks.values())) if new else begin
    shifted = rebuild(expr, {index(old_marks[used[0]]): place})
    return without_choice(rename(shifted, {mark: a for a, mark in new_marks.items()}))


def count_of(dim: Dim) -> Expr:
    """The number of indices of a dimension."""
    return product(extent(a) for a in dim)


def without_choice(e: Expr) -> Expr:
    """The expression without choices between known numbers."""
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        operands = tuple(done[a] for a in node.args)
        if node.op is Op.WHERE and all(a.op is Op.CONST for a in operands[0].args):
            a, b = (x.value for x in operands[0].args)
            holds = {Op.LT: a < b, Op.LE: a <= b, Op.EQ: a == b}[operands[0].op]
            done[node] = operands[1] if holds else operands[2]
        elif node.op is Op.ADD and all(a.op is Op.CONST for a in operands):
            done[node] = const(operands[0].value + operands[1].value)
        else:
            done[node] = make(node.op, operands, node.attr) if operands else node
    return done[e]


def _text(lengths: Sequence[Product]) -> str:
    return " and ".join(map(str, lengths))


def _refuse(axes: Axes, seen: str) -> NoReturn:
    raise UnsupportedProgram(
        f"{seen}; a joined tensor can be summed over, combined with the same parts, and taken apart",
        where=axes.line,
        do="compute with the parts: f(a) and f(b) in place of f(cat(a, b))",
    )
