"""Expressions, programs and sGraphs as numbers: the reference that everything printed is compared with.

A tensor is given as an array with one dimension per dimension that has an axis: the dimensions of extent 1 that a
``Tensor`` may have besides are left out (``squeeze``) wherever expressions are evaluated by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice
from math import prod
from typing import Any, Final

import numpy as np

from sgraph.arithmetic import DOUBLE, Arithmetic, Array, Indecisive, precise
from sgraph.axis import Axis, Extent, Size, ordered
from sgraph.border import parameters, returned, viewed
from sgraph.errors import InputError
from sgraph.expr import REDUCTIONS, Expr, Op, leaves, reduction, walk
from sgraph.ir import SGraph
from sgraph.program import Program, Tensor

_MOST_FACTORS: Final = 16
"""Factors of a product that is summed without being formed."""
_MOST_CELLS: Final = 10_000
"""Cells of a product that is summed in one go; looking for an order of its factors takes longer."""


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """A value at every index of its axes."""

    axes: tuple[Axis, ...]
    """One axis per dimension of ``data``."""
    data: Array
    """The numbers; NaN where the value is undefined."""

    def ordered(self, axes: Sequence[Axis]) -> Array:
        """The numbers with one dimension per given axis; of size 1 for axes that the value does not vary over."""
        position = {a: i for i, a in enumerate(self.axes)}
        assert position.keys() <= set(axes), f"a value over {self.axes} has no place for an axis of {axes}"
        moved = self.data.transpose([position[a] for a in axes if a in position])
        return moved.reshape([self.data.shape[position[a]] if a in position else 1 for a in axes])


# ------------------------------------------------------------------------------------------- expressions


def evaluate(
    e: Expr, tensors: Mapping[str, Array], sizes: Mapping[str, int], arithmetic: Arithmetic = DOUBLE
) -> Values:
    """The value of an expression, NaN wherever it is undefined.

    Args:
        e: The expression, over complete axes.
        tensors: By name, without dimensions of extent 1 that have no axis.
        sizes: Extent of each axis by its name; a static extent need not be given.
        arithmetic: The kind of numbers to compute with.

    Raises:
        InputError: a tensor or a size is missing, or a tensor does not have the sizes of its axes.
        UnsupportedOperator: a function has no known value.
    """
    done: dict[Expr, Values] = {}
    stack = [(e, False)]
    with np.errstate(all="ignore"):
        while stack:
            node, expanded = stack.pop()
            if node in done:
                continue
            operands = _operands(node, arithmetic)
            if expanded or not operands:
                done[node] = _value(node, operands, done, tensors, sizes, arithmetic)
            else:
                stack.append((node, True))
                stack.extend((o, False) for o in operands)
    return done[e]


def _operands(node: Expr, arithmetic: Arithmetic) -> tuple[Expr, ...]:
    """What a node is computed from: the factors of a contraction, else its operands."""
    return (arithmetic is DOUBLE and _contraction(node)) or node.args


def _contraction(node: Expr) -> tuple[Expr, ...]:
    """The factors of a sum of a product of finite values, which need not be formed before it is summed.

    Empty where the node is no such sum, and where shared products have very many factors.
    """
    if node.op is not Op.SUM:
        return ()
    axes, operand = reduction(node)
    found: list[Expr] = []
    stack = [operand]
    while stack and len(found) <= _MOST_FACTORS:
        factor = stack.pop()
        if factor.op is Op.MUL:
            stack.extend(reversed(factor.args))
        else:
            found.append(factor)
    fits = 1 < len(found) <= _MOST_FACTORS and len(set(axes)) == len(axes)
    return tuple(found) if fits and all(f.finite for f in found) else ()


def _value(
    node: Expr,
    operands: tuple[Expr, ...],
    done: Mapping[Expr, Values],
    tensors: Mapping[str, Array],
    sizes: Mapping[str, int],
    arithmetic: Arithmetic,
) -> Values:
    match node.op:
        case Op.LEAF:
            data = read(node, tensors)
            check_shape(node.name, data.shape, tuple(size_of(a, sizes) for a in node.axes))
            return Values(node.axes, arithmetic.array(data))
        case Op.EXTENT:
            return number(size_of(node.axis, sizes), arithmetic)
        case Op.INDEX:
            return Values((node.axis,), arithmetic.array(np.arange(size_of(node.axis, sizes))))
        case Op.CONST | Op.NEG_INF:
            return constant(node, arithmetic)
        case Op.SUM if operands != node.args:
            axes, _ = reduction(node)
            return contract(axes, [done[o] for o in operands], {a: size_of(a, sizes) for a in axes})
        case op if op in REDUCTIONS:
            return reduced(op, node.axis, done[node.args[0]], size_of(node.axis, sizes), arithmetic)
        case _:
            return pointwise(node, [done[o] for o in operands], arithmetic)


def size_of(axis: Axis, sizes: Mapping[str, int]) -> int:
    """The extent of an axis.

    Raises:
        InputError: it is symbolic and not given.
    """
    assert not axis.level, f"{axis} is an atom of a tile split, which has no extent of its own"
    if axis.name in sizes:
        return sizes[axis.name]
    if isinstance(axis.extent, int):
        return axis.extent
    raise InputError(f"axis {axis} has no size", do=f"give the value of {axis.extent}")


def read(leaf: Expr, tensors: Mapping[str, Array]) -> Array:
    """The array that a leaf reads.

    Raises:
        InputError: there is no tensor of that name.
    """
    if leaf.name not in tensors:
        raise InputError(f"tensor {leaf.name} is missing", do=f"give an array for {leaf.name}")
    return np.asarray(tensors[leaf.name])


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse an array that does not have one dimension of the right size per axis.

    Raises:
        InputError: it has not.
    """
    if shape != expected:
        raise InputError(f"tensor {name} has shape {shape}, its axes have {expected}", where=name)


def number(value: int, arithmetic: Arithmetic = DOUBLE) -> Values:
    """A value that varies over nothing."""
    return Values((), arithmetic.array(np.asarray(value)))


def constant(node: Expr, arithmetic: Arithmetic = DOUBLE) -> Values:
    """The value of ``const`` or minus infinity."""
    value = arithmetic.number(-np.inf if node.op is Op.NEG_INF else node.value)
    return Values((), np.asarray(value, dtype=arithmetic.dtype))


def pointwise(node: Expr, operands: Sequence[Values], arithmetic: Arithmetic = DOUBLE) -> Values:
    """The element-wise operator of ``node`` on its operands, which are broadcast over each other's axes."""
    if node.op is Op.CALL:
        return apply(partial(arithmetic.call, node.name), *operands, dtype=arithmetic.dtype)
    return apply(arithmetic.operators[node.op], *operands, dtype=arithmetic.dtype)


def apply(function: Callable[..., Array], *operands: Values, dtype: type = np.float64) -> Values:
    """An element-wise function of values, which are broadcast over each other's axes."""
    axes = max((v.axes for v in operands), key=len)
    if all(v.axes in (axes, ()) for v in operands):
        return Values(axes, np.asarray(function(*(v.data for v in operands)), dtype=dtype))
    axes = ordered(frozenset(a for v in operands for a in v.axes))
    return Values(axes, np.asarray(function(*(v.ordered(axes) for v in operands)), dtype=dtype))


def product_of(operands: Iterable[Values]) -> Values:
    """The product of values in double precision; 1 if there are none."""
    chain = list(operands)
    # Minus infinity may stand alone, but not be multiplied, not even by 1.
    return reduce(lambda a, b: apply(DOUBLE.operators[Op.MUL], a, b), chain) if chain else number(1)


def reduced(op: Op, axis: Axis, operand: Values, size: int, arithmetic: Arithmetic = DOUBLE) -> Values:
    """The reduction of a value over one axis of the given size, over which it may also be constant."""
    axes = (*(a for a in operand.axes if a != axis), axis)
    data = operand.ordered(axes)
    if axis not in operand.axes:
        data = np.broadcast_to(data, (*data.shape[:-1], size))
    result = arithmetic.reductions[op](data, data.ndim - 1)
    return Values(axes[:-1], np.asarray(result, dtype=arithmetic.dtype))


def contract(axes: Iterable[Axis], operands: Sequence[Values], sizes: Mapping[Axis, int]) -> Values:
    """The sum over distinct axes of a product of finite values, without forming the product."""
    summed = set(axes)
    found = {a for v in operands for a in v.axes}
    label = {a: i for i, a in enumerate(ordered(found))}
    free = ordered(found - summed)
    terms: list[Array | list[int]] = []
    for value in operands:
        terms += [value.data, [label[a] for a in value.axes]]
    cells = prod(n for n in {a: n for v in operands for a, n in zip(v.axes, v.data.shape, strict=True)}.values())
    result = np.einsum(*terms, [label[a] for a in free], optimize=cells > _MOST_CELLS)
    return Values(free, np.asarray(result * prod(sizes[a] for a in summed - found), dtype=np.float64))


# ------------------------------------------------------------------------------------ programs and sGraphs


def squeeze(tensor: Tensor, data: Array) -> Array:
    """The array without the dimensions of extent 1 that have no axis.

    Raises:
        InputError: the array has another number of dimensions, or such a dimension has another size.
    """
    array = np.asarray(data)
    units = [i for i, a in enumerate(tensor.axes) if a is None]
    if array.ndim != len(tensor.axes) or any(array.shape[i] != 1 for i in units):
        raise InputError(f"tensor {tensor.name} has shape {array.shape}, expected {tensor.axes}", where=tensor.name)
    return array.reshape([n for i, n in enumerate(array.shape) if i not in units])


def unsqueeze(tensor: Tensor, data: Array) -> Array:
    """The inverse of ``squeeze``."""
    sizes = iter(data.shape)
    return data.reshape([1 if a is None else next(sizes) for a in tensor.axes])


def inputs_of(p: Program, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The program's inputs by their names, from what its function takes.

    Raises:
        InputError: one is missing or does not have the dimensions that are viewed.
    """
    takes = parameters(p)
    for tensor in takes:
        if tensor.name not in tensors:
            raise InputError(f"tensor {tensor.name} is missing", do=f"give an array for {tensor.name}")
    arrays = viewed(p, [np.asarray(tensors[t.name]) for t in takes])
    return {t.name: x for t, x in zip(p.inputs, arrays, strict=True)}


def sizes_of(p: Program, tensors: Mapping[str, Array]) -> dict[str, int]:
    """The extent of every axis by its name, as the shapes of the inputs say.

    Static extents may have other sizes too, so that a program can be evaluated small: an equation holds at all sizes.

    Raises:
        InputError: an input is missing, or two dimensions with one axis have different sizes.
    """
    sizes = {a.name: a.extent for a in p.axes if isinstance(a.extent, int)}
    seen: dict[str, str] = {}
    for tensor in p.inputs:
        shape = squeeze(tensor, read(tensor.read(), tensors)).shape
        for axis, size in zip(tensor.named_axes, shape, strict=True):
            if axis.name in seen and sizes[axis.name] != size:
                other = f"{sizes[axis.name]} in {seen[axis.name]}"
                raise InputError(f"axis {axis} is {size} in {tensor.name} and {other}", where=tensor.name)
            sizes[axis.name], seen[axis.name] = size, tensor.name
    return sizes


def evaluate_program(p: Program, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a program by their names, in the shape in which its function returns them.

    Raises:
        InputError: an input is missing or its shape does not fit.
        UnsupportedOperator: a function has no known value.
    """
    given = inputs_of(p, tensors)
    sizes = sizes_of(p, given)
    values = {t.name: squeeze(t, given[t.name]) for t in p.inputs}
    return _returned(p, {o.tensor.name: _stored(o.tensor, o.value, values, sizes) for o in p.outputs})


def evaluate_sgraph(g: SGraph, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of an sGraph, kernel by kernel, from what each kernel's equations say.

    Roles and tiles play no part in it (``sgraph.execute`` runs those), and claims are not looked at.

    Raises:
        InputError: an input is missing or its shape does not fit, or an output is never stored.
        UnsupportedOperator: a function has no known value.
    """
    given = inputs_of(g.program, tensors)
    sizes = sizes_of(g.program, given)
    values = {t.name: squeeze(t, given[t.name]) for t in g.program.inputs}
    stored: dict[str, Array] = {}
    for kernel in g.kernels:
        written = {s.tensor.name: (s.tensor, _stored(s.tensor, s.value, values, sizes)) for s in kernel.stores}
        stored |= {name: data for name, (_, data) in written.items()}
        values |= {name: squeeze(tensor, data) for name, (tensor, data) in written.items()}
    missing = [o.tensor.name for o in g.program.outputs if o.tensor.name not in stored]
    if missing:
        raise InputError(f"no kernel stores {', '.join(missing)}", where=g.program.name)
    return _returned(g.program, stored)


def _returned(p: Program, stored: Mapping[str, Array]) -> dict[str, Array]:
    names = [o.tensor.name for o in p.outputs]
    return dict(zip(names, returned(p, [stored[name] for name in names]), strict=True))


def _stored(tensor: Tensor, value: Expr, tensors: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    shape = tuple(size_of(a, sizes) for a in tensor.named_axes)
    found = evaluate(value, tensors, sizes).ordered(tensor.named_axes)
    return unsqueeze(tensor, np.array(np.broadcast_to(found, shape)))


# ---------------------------------------------------------------------------------------- counterexamples


@dataclass(frozen=True, slots=True, eq=False)
class Witness:
    """Numbers at which two expressions differ. Printed, it is Python that can be pasted."""

    sizes: Mapping[str, int]
    """Extent of each axis by name."""
    seed: int
    """What the tensors were drawn from."""
    index: Mapping[str, int]
    """Where the two differ: position along each axis that either varies over."""
    left: float
    """Value of the first there."""
    right: float
    """Value of the second there; NaN if it is undefined."""
    tensors: Mapping[str, Array]
    """The arrays that were read."""

    def __str__(self) -> str:
        place = f" at {dict(self.index)}" if self.index else ""
        arrays = [f'    "{name}": array({data.tolist()}),' for name, data in self.tensors.items()]
        lines = [
            f"# left is {self.left!r}, right is {self.right!r}{place} (seed {self.seed})",
            "from numpy import array, inf",
            f"sizes = {dict(self.sizes)}",
        ]
        return "\n".join([*lines, "tensors = {", *arrays, "}"])


def numerically_equal(left: Expr, right: Expr, *, trials: int = 24, seed: int = 0) -> Witness | None:
    """Look for numbers at which ``left`` is defined and ``right`` is undefined or different.

    Small tensors are drawn at random: normal, positive, tiny, large, of the size of a constant that occurs (so that
    both sides of a bound are seen), and small integers with zeros, with minus infinity where it is declared. A
    difference in double precision counts only if fifty digits confirm it, so that neither cancellation nor overflow is
    taken for one. Static extents above 3 are drawn smaller: what holds at one extent only counts as different, as in a
    proof for all sizes.

    Returns:
        The first witness, or None if no difference was found, which proves nothing.

    Raises:
        UnsupportedOperator: a function has no known value.
    """
    bounds = constants((left, right))
    for trial in range(trials):
        random = np.random.default_rng([seed, trial])
        sizes = _draw_sizes((left, right), random)
        kind = _KINDS[trial % len(_KINDS)]
        scale = random.choice(bounds) if kind == "bounds" else _SCALES.get(kind, 1.0)
        tensors = {x.name: _draw(x, sizes, kind, random) * scale for x in leaves((left, right))}
        try:
            found = _difference(left, right, tensors, sizes)
        except Indecisive:
            continue
        if found is not None:
            index, values = found
            return Witness(sizes, seed, index, *values, tensors)
    return None


_KINDS: Final = ("normal", "integer", "positive", "tiny", "bounds", "large")
_SCALES: Final = {"tiny": 1e-3, "large": 1e3}


def constants(roots: Sequence[Expr]) -> list[float]:
    """How large the constants of expressions are, 1 if there are none: where a bound or a threshold may lie."""
    found = {abs(float(n.value)) for n in walk(roots) if n.op is Op.CONST and n.value}
    return sorted(found) or [1.0]


def _draw_sizes(roots: Sequence[Expr], random: np.random.Generator) -> dict[str, int]:
    """A small extent for every axis; axes that index the same dimension of one tensor get the same."""
    extents: dict[str, Extent] = {}
    parent: dict[str, str] = {}
    dimension: dict[tuple[str, int], str] = {}

    def owner(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in walk(roots):
        axes = node.axes if node.op is Op.LEAF else (node.axis,) if isinstance(node.attr, Axis) else ()
        for place, axis in enumerate(axes):
            extents[axis.name] = axis.extent
            parent.setdefault(axis.name, axis.name)
            if node.op is Op.LEAF:
                parent[owner(axis.name)] = owner(dimension.setdefault((node.name, place), axis.name))
    drawn: dict[Size | str, int] = {}
    for name in sorted(extents):
        extent = extents[owner(name)]
        drawn.setdefault(_symbol(extent, owner(name)), int(random.choice(_small_sizes(extent))))
    return {name: drawn[_symbol(extents[owner(name)], owner(name))] for name in extents}


def _symbol(extent: Extent, name: str) -> Size | str:
    """What a drawn extent belongs to: a symbol, or one axis by its name."""
    return extent if isinstance(extent, Size) else name


def _small_sizes(extent: Extent) -> list[int]:
    if not isinstance(extent, Size):
        return [extent] if extent <= 3 else [1, 2, 3]
    first = -(-extent.low // extent.divisor) * extent.divisor
    found = list(islice(range(first, extent.high + 1, extent.divisor), 3))
    return found if found and found[-1] <= 16 else [1, 2, 3]


def _draw(leaf: Expr, sizes: Mapping[str, int], kind: str, random: np.random.Generator) -> Array:
    shape = [sizes[a.name] for a in leaf.axes]
    data = random.integers(-2, 3, shape).astype(np.float64) if kind == "integer" else random.standard_normal(shape)
    data = np.abs(data) if kind == "positive" else data
    return data if leaf.finite else np.where(random.random(shape) < 0.25, -np.inf, data)


def _difference(
    left: Expr, right: Expr, tensors: Mapping[str, Array], sizes: Mapping[str, int]
) -> tuple[dict[str, int], tuple[float, float]] | None:
    """Where and how the two differ, seen in double precision and confirmed in fifty digits."""
    axes = ordered(left.free | right.free)
    found = None
    for arithmetic, tolerance in ((DOUBLE, 1e-9), (precise(), 1e-12)):
        sides = (evaluate(e, tensors, sizes, arithmetic).ordered(axes) for e in (left, right))
        a, b = np.broadcast_arrays(*sides)
        found = next((i for i in np.ndindex(a.shape) if _differs(a[i], b[i], tolerance)), None)
        if found is None:
            return None
    assert found is not None
    return {str(x): i for x, i in zip(axes, found, strict=True)}, (float(a[found]), float(b[found]))


def _differs(a: Any, b: Any, tolerance: float) -> bool:
    """Whether ``a`` is defined and ``b`` is undefined or another number; both of either kind of numbers."""
    if not a < np.inf:  # undefined, or beyond the range of double precision
        return False
    if not b < np.inf or a == -np.inf or b == -np.inf:
        return bool(a != b)
    return not abs(a - b) <= tolerance * (1 + abs(a))
