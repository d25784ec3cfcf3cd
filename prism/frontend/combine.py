"""The three ways in which every operator combines tensors: element by element, by contraction, by reduction.

Each distributes over parts that ``cat`` or ``stack`` has joined: element by element part by part, a sum over the
joined dimension as the sum of the parts' sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    max_over,
    maximum,
    min_over,
    minimum,
    mul,
    product,
    rebuild,
    rename,
    sum_over,
    where,
)

Label = str | int
"""What says that dimensions of several tensors belong together, as a letter of ``einsum`` does."""

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
            _refuse(axes, "tensors that are themselves joined along another dimension are joined again")
    for part in flattened[1:]:
        for number, (a, b) in enumerate(zip(flattened[0].dims, part.dims, strict=True)):
            if number != dimension:
                axes.unify(a, b)
    return flattened[0] if len(flattened) == 1 else Joined(dimension, tuple(flattened))


def _join(axes: Axes, dimension: int, parts: Sequence[Tensorial]) -> Joined:
    if any(isinstance(part, Joined) for part in parts):
        _refuse(axes, "the result is joined along two dimensions at once")
    return Joined(dimension, cast("tuple[Value, ...]", tuple(parts)))


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
    """A tensor as one element over axes; stacked parts are told apart by their position.

    Raises:
        UnsupportedProgram: it is joined from parts that have axes of their own.
    """
    if isinstance(value, Value):
        return value
    if any(length != ONE for length in value.lengths):
        _refuse(axes, f"the tensor joined from parts of {_text(value.lengths)} is used as one whole")
    new = axes.fresh(len(value.parts))
    dims = tuple(new if i == value.dimension else () for i in range(value.rank))

    def pick(place: Expr, *elements: Expr) -> Expr:
        *others, last = elements
        for number, element in reversed(list(enumerate(others))):
            last = where(equal(place, const(number)), element, last)
        return last

    place = Value(dims, position(new))
    result = elementwise(axes, pick, place, *value.parts, boolean=value.boolean)
    assert isinstance(result, Value)
    return result


def _pieces(axes: Axes, value: Value, dimension: int, joined: Joined) -> list[Value]:
    lengths = joined.lengths
    if any(length.extent is None for length in lengths):
        _refuse(axes, f"parts of {_text(lengths)} meet a tensor that is one whole")
    sizes = [
        const(length.number) if not length.sizes else count(part, (joined.dimension,))
        for part, length in zip(joined.parts, lengths, strict=True)
    ]
    starts = accumulate(sizes[:-1], lambda a, b: a + b, initial=const(0))
    return [piece(axes, value, dimension, start, length) for start, length in zip(starts, lengths, strict=True)]


def piece(axes: Axes, value: Value, dimension: int, start: Expr, length: Product) -> Value:
    """The indices from ``start`` on of a dimension along which the element is a function of the position.

    Raises:
        UnsupportedProgram: the element is read from an input at these indices; axes have no sub-ranges.
    """
    dim = value.dims[dimension]
    if length == size_of(dim):
        return value
    assert length.extent is not None
    new = distinct(axes.fresh(length.extent), value.axes)
    dims = (*value.dims[:dimension], new, *value.dims[dimension + 1 :])
    expr = _shifted(axes, value.expr, dim, new, start) if axes.settled else value.expr
    return Value(dims, expr, value.boolean)


def _shifted(axes: Axes, expr: Expr, dim: Dim, new: Dim, start: Expr) -> Expr:
    """``expr`` with the position along ``dim`` read as ``start`` plus the position along ``new``."""
    used = [a for a in dim if a in expr.free]
    if not used:
        return expr
    # Names that no axis has: they are bound nowhere, so nothing is captured between the steps.
    old_marks = {a: Axis(f"<old {i}>", a.extent) for i, a in enumerate(used)}
    new_marks = {a: Axis(f"<new {i}>", a.extent) for i, a in enumerate(new)}
    expr = rename(expr, old_marks)
    readers = sorted({leaf.name for leaf in leaves([expr]) if not set(leaf.axes).isdisjoint(old_marks.values())})
    if readers or len(dim) > 1:
        names = " and ".join(f"`{name}`" for name in readers) or "a merged dimension"
        raise UnsupportedProgram(
            f"a part of an axis is taken along which {names} is read: axes have no sub-ranges",
            where=axes.line,
            do=f"pass {names} in parts, one tensor each, and compute with the parts",
        )
    place = start + position(tuple(new_marks.values())) if new else start
    shifted = rebuild(expr, {index(old_marks[used[0]]): place})
    return rename(shifted, {mark: a for a, mark in new_marks.items()})


def _text(lengths: Sequence[Product]) -> str:
    return " and ".join(map(str, lengths))


def _refuse(axes: Axes, seen: str) -> NoReturn:
    raise UnsupportedProgram(
        f"{seen}; a joined tensor can be summed over, combined with the same parts, and taken apart",
        where=axes.line,
        do="compute with the parts: f(a) and f(b) in place of f(cat(a, b))",
    )
