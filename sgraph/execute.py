"""Schedules run tile by tile in double precision: what the stages of a kernel compute, with nothing assumed.

Statements see what lowering lets them see. A value exists in the loop body that defines it and in loops nested
there, an accumulator is there once the loop that started it has ended, and only tiles of entered axes can be touched.
A schedule that uses anything else fails with an AssertionError that names the expression, since the stages would be
wrong; so does one that leaves an element of a stored tensor unwritten or writes it twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, assert_never

import numpy as np

from sgraph.arithmetic import DOUBLE, Array
from sgraph.axis import Axis, ordered
from sgraph.evaluate import Values, apply, check_shape, constant, number, pointwise, product_of, read, reduced, size_of
from sgraph.expr import REDUCTIONS, Expr, Op, const, factors, reduction
from sgraph.ir import Role
from sgraph.program import Tensor
from sgraph.schedule import (
    Accumulate,
    Compute,
    Load,
    Loop,
    Merge,
    Phase,
    Reduce,
    Schedule,
    Statement,
    Write,
    WritePartial,
)

_UNIT: Final = {Op.SUM: 0.0, Op.MAX: -np.inf, Op.MIN: np.inf}
_STEP: Final = {Op.SUM: Op.ADD, Op.MAX: Op.MAX2, Op.MIN: Op.MIN2}


def execute(
    schedule: Schedule,
    tensors: Mapping[str, Array],
    sizes: Mapping[str, int],
    tiles: Mapping[str, int],
    cells: int = 2,
) -> dict[str, Array]:
    """The tensors that a kernel stores, as its schedule computes them.

    Args:
        schedule: What to run.
        tensors: What it reads, by name, without dimensions of extent 1 that have no axis.
        sizes: Extent of each axis by its name; a static extent need not be given.
        tiles: Tile size of every grid, loop and split axis by its name. The last tile is shorter where it must be.
        cells: Over how many programs a split axis is cut; cells that are left without a tile are run empty.

    Returns:
        The stored tensors by name, without dimensions of extent 1 that have no axis.

    Raises:
        InputError: a tensor or a size is missing, or a tensor does not have the sizes of its axes.
        AssertionError: the schedule uses what is not available, or does not write every element exactly once.
    """
    run = _Run(schedule, tensors, sizes, tiles, cells)
    with np.errstate(all="ignore"):
        for phase in schedule.phases:
            run.phase(phase)
    return run.results()


class _Scope:
    """One run through the body of a loop, or of a program: what is known there and further out."""

    def __init__(self, ranges: Mapping[Axis, range], outer: _Scope | None = None) -> None:
        self.ranges = {**(outer.ranges if outer else {}), **ranges}
        self.outer = outer
        self.values: dict[Expr, Values] = {}
        self.running: dict[Expr, Values] = {}

    def value(self, e: Expr) -> Values:
        """A value that has been defined here or further out."""
        scope: _Scope | None = self
        while scope is not None:
            if e in scope.values:
                return scope.values[e]
            scope = scope.outer
        raise AssertionError(f"{e} is not available here")

    def accumulating(self, e: Expr) -> dict[Expr, Values]:
        """Where the accumulator of a reduction is kept while its loop runs."""
        scope: _Scope | None = self
        while scope is not None:
            if e in scope.running:
                return scope.running
            scope = scope.outer
        raise AssertionError(f"{e} accumulates outside the loop that starts it")


class _Written:
    """An array in memory that remembers how often each element was written."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.data: Array = np.full(shape, np.nan)
        self.count = np.zeros(shape, dtype=int)

    def write(self, region: tuple[slice | int, ...], data: Array) -> None:
        self.data[region] = data
        self.count[region] += 1


class _Run:
    """The memory and the parameters of one execution."""

    def __init__(
        self,
        schedule: Schedule,
        tensors: Mapping[str, Array],
        sizes: Mapping[str, int],
        tiles: Mapping[str, int],
        cells: int,
    ) -> None:
        self.kernel = schedule.kernel
        self.role = schedule.kernel.role
        self.tensors = tensors
        self.sizes = sizes
        self.tiles = tiles
        self.cells = cells
        self.stored = {s.tensor.name: _Written(self.shape(s.tensor.named_axes)) for s in self.kernel.stores}
        self.partial: dict[Expr, _Written] = {}

    def results(self) -> dict[str, Array]:
        for name, written in self.stored.items():
            assert (written.count == 1).all(), f"elements of {name} are not written exactly once"
        return {name: written.data for name, written in self.stored.items()}

    def phase(self, phase: Phase) -> None:
        """Run every program of a phase, one after the other."""
        assert set(phase.grid) == set(self.kernel.with_role(Role.GRID)), (
            f"grid of {phase.name} is not that of the roles"
        )
        parts = range(self.cells) if phase.split is not None and phase.name == "main" else (None,)
        tilings = [self.tiles_of(a, range(self.size(a))) for a in phase.grid]
        for cell, tile in itertools.product(parts, itertools.product(*tilings)):
            program = _Program(self, phase, cell)
            program.body(phase.body, _Scope(dict(zip(phase.grid, tile, strict=True))))

    def size(self, axis: Axis) -> int:
        return size_of(axis, self.sizes)

    def shape(self, axes: Iterable[Axis]) -> tuple[int, ...]:
        return tuple(map(self.size, axes))

    def tiles_of(self, axis: Axis, within: range) -> list[range]:
        """The tiles of a stretch of an axis, the last one perhaps ragged."""
        assert axis.name in self.tiles, f"axis {axis} has no tile size"
        step = self.tiles[axis.name]
        return [range(i, min(i + step, within.stop)) for i in range(within.start, within.stop, step)]

    def chunk(self, axis: Axis, cell: int) -> list[range]:
        """The tiles of a split axis that belong to one cell."""
        every = self.tiles_of(axis, range(self.size(axis)))
        share = -(-len(every) // self.cells)
        return every[cell * share : (cell + 1) * share]


class _Program:
    """One program of a phase."""

    def __init__(self, run: _Run, phase: Phase, cell: int | None) -> None:
        self.run = run
        self.split = phase.split
        self.cell = cell
        """Which part of the split axis is its own; None where the axis is not split, and in a combine phase."""

    def body(self, statements: Sequence[Statement], scope: _Scope) -> None:
        for statement in statements:
            self._statement(statement, scope)

    def _statement(self, statement: Statement, scope: _Scope) -> None:
        match statement:
            case Load(value):
                scope.values[value] = self._load(value, scope)
            case Compute(value):
                assert value.args and value.op is not Op.MUL and value.op not in REDUCTIONS, (
                    f"{value} is no computation"
                )
                scope.values[value] = pointwise(value, [self._operand(a, scope) for a in value.args])
            case Reduce(value):
                axes, operand = reduction(value)
                assert all(self.run.role.get(a) is Role.WHOLE for a in axes), f"{value} reduces what is not resident"
                scope.values[value] = self._reduced(value.op, axes, self._operand(operand, scope), scope)
            case Accumulate(values, scale):
                if scale is not None:
                    self._accumulate_scaled(values, scale, scope)
                else:
                    self._accumulate(values, scope)
            case Loop():
                self._loop(statement, scope)
            case Merge(values, scale):
                if scale is not None:
                    self._merge_scaled(values, scale, scope)
                else:
                    self._merge(values, scope)
            case Write(tensor, value):
                self._write(tensor, self._operand(value, scope), scope)
            case WritePartial(value):
                self._write_partial(value, scope)
            case _:
                assert_never(statement)

    # -------------------------------------------------------------------------------------- operands

    def _range(self, axis: Axis, scope: _Scope) -> range:
        """The positions along an axis that the current tile has."""
        if axis in scope.ranges:
            return scope.ranges[axis]
        assert self.run.role.get(axis) is Role.WHOLE, f"axis {axis} is not entered here"
        return range(self.run.size(axis))

    def _region(self, axes: Iterable[Axis], scope: _Scope) -> tuple[slice, ...]:
        return tuple(slice(r.start, r.stop) for r in (self._range(a, scope) for a in axes))

    def _lengths(self, axes: Iterable[Axis], scope: _Scope) -> tuple[int, ...]:
        return tuple(len(self._range(a, scope)) for a in axes)

    def _load(self, leaf: Expr, scope: _Scope) -> Values:
        assert leaf.op is Op.LEAF, f"{leaf} is no tensor"
        data = read(leaf, self.run.tensors)
        check_shape(leaf.name, data.shape, self.run.shape(leaf.axes))
        return Values(leaf.axes, np.asarray(data[self._region(leaf.axes, scope)], dtype=np.float64))

    def _operand(self, e: Expr, scope: _Scope) -> Values:
        """A product of available values."""
        return product_of(self._atom(f, scope) for f in factors(e))

    def _atom(self, e: Expr, scope: _Scope) -> Values:
        match e.op:
            case Op.CONST | Op.NEG_INF:
                return constant(e)
            case Op.EXTENT:
                return number(self.run.size(e.axis))
            case Op.INDEX:
                return Values((e.axis,), np.asarray(self._range(e.axis, scope), dtype=np.float64))
            case _:
                found = scope.value(e)
                assert found.data.shape == self._lengths(found.axes, scope), f"{e} is a tile of another iteration"
                return found

    def _reduced(self, op: Op, axes: Iterable[Axis], operand: Values, scope: _Scope) -> Values:
        for axis in axes:
            operand = reduced(op, axis, operand, len(self._range(axis, scope)))
        return operand

    # --------------------------------------------------------------------------------- accumulators

    def _loop(self, loop: Loop, scope: _Scope) -> None:
        axis = loop.axis
        assert axis not in scope.ranges, f"axis {axis} is looped over inside itself"
        if self.run.role.get(axis) is Role.SPLIT:
            assert axis == self.split and self.cell is not None, f"axis {axis} is split, but no cell of it is here"
            tiles = self.run.chunk(axis, self.cell)
        else:
            assert self.run.role.get(axis) is Role.LOOP, f"axis {axis} is looped over, but its role is another"
            tiles = self.run.tiles_of(axis, range(self.run.size(axis)))
        for value in loop.start:
            axes = ordered(value.free)
            scope.running[value] = Values(axes, np.full(self._lengths(axes, scope), _UNIT[value.op]))
        for tile in tiles:
            self.body(loop.body, _Scope({axis: tile}, scope))
        for value in loop.start:
            scope.values[value] = scope.running.pop(value)

    def _accumulate(self, values: Sequence[Expr], scope: _Scope) -> None:
        for value in values:
            axes, operand = reduction(value)
            tile = self._reduced(value.op, axes, self._operand(operand, scope), scope)
            kept = scope.accumulating(value)
            kept[value] = apply(DOUBLE.operators[_STEP[value.op]], kept[value], tile)

    def _accumulate_scaled(self, values: Sequence[Expr], scale: Expr, scope: _Scope) -> None:
        axes, of = reduction(scale)
        exponent = self._operand(of, scope)
        kept = scope.accumulating(scale)
        old = kept[scale]
        kept[scale] = apply(np.maximum, old, self._reduced(Op.MAX, axes, exponent, scope))
        decay, mantissa = _relative(old, kept[scale]), _relative(exponent, kept[scale])
        for value in values:
            over, operand = reduction(value)
            others = [f for f in factors(operand) if not _is_shifted(f, of, scale)]
            assert set(over) == set(axes) and len(others) + 1 == len(factors(operand)), f"{value} has no scale {scale}"
            tile = product_of([*(self._atom(f, scope) for f in others), mantissa])
            kept = scope.accumulating(value)
            rescaled = product_of([kept[value], decay])
            kept[value] = apply(np.add, rescaled, self._reduced(Op.SUM, axes, tile, scope))

    # ------------------------------------------------------------------------------------- stores

    def _write(self, tensor: Tensor, value: Values, scope: _Scope) -> None:
        axes = tensor.named_axes
        assert tensor.name in self.run.stored, f"{tensor.name} is not a tensor that the kernel stores"
        self.run.stored[tensor.name].write(self._region(axes, scope), value.ordered(axes))

    def _write_partial(self, value: Expr, scope: _Scope) -> None:
        assert self.cell is not None, f"{value} is stored as partial where no axis is split"
        axes = ordered(value.free)
        partial = self.run.partial.setdefault(value, _Written((self.run.cells, *self.run.shape(axes))))
        region = (self.cell, *self._region(axes, scope))
        data = self._atom(value, scope).ordered(axes)
        # Programs that differ only along grid axes which the accumulator does not vary over store the same numbers.
        again = partial.count[region] > 0
        assert np.array_equal(partial.data[region][again], data[again], equal_nan=True), (
            f"partial {value} is overwritten"
        )
        partial.write(region, data)

    def _partials(self, value: Expr, scope: _Scope) -> Values:
        """The partial values of every cell; the atom ``cell`` of the split axis counts the cells."""
        assert self.split is not None and self.cell is None, f"{value} is merged outside a combine phase"
        assert value in self.run.partial, f"no cell has stored a partial {value}"
        partial, axes = self.run.partial[value], ordered(value.free)
        region = (slice(None), *self._region(axes, scope))
        assert (partial.count[region] > 0).all(), f"partial {value} is not written by every cell"
        return Values((self.split.atom("cell"), *axes), partial.data[region])

    def _over_cells(self, op: Op, partials: Values) -> Values:
        assert self.split is not None
        return reduced(op, self.split.atom("cell"), partials, self.run.cells)

    def _merge(self, values: Sequence[Expr], scope: _Scope) -> None:
        for value in values:
            scope.values[value] = self._over_cells(value.op, self._partials(value, scope))

    def _merge_scaled(self, values: Sequence[Expr], scale: Expr, scope: _Scope) -> None:
        scales = self._partials(scale, scope)
        total = self._over_cells(Op.MAX, scales)
        scope.values[scale] = total
        for value in values:
            rescaled = product_of([self._partials(value, scope), _relative(scales, total)])
            scope.values[value] = self._over_cells(Op.SUM, rescaled)


def _relative(exponent: Values, scale: Values) -> Values:
    """``exp(exponent - scale)``; 0 where the scale is still minus infinity, since every exponent below it is too."""

    def shifted(e: Array, s: Array) -> Array:
        return np.exp(e - np.where(np.isneginf(s), 0.0, s))

    return apply(shifted, exponent, scale)


def _is_shifted(factor: Expr, exponent: Expr, scale: Expr) -> bool:
    """Whether a factor is ``exp(exponent - scale)``."""
    if factor.op is not Op.EXP or factor.args[0].op is not Op.ADD:
        return False
    e, shift = factor.args[0].args
    return e is exponent and shift.op is Op.MUL and shift.args == (const(-1), scale)
