"""One phase of a schedule as one ``@triton.jit`` function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from autotune.layout import Layout
from autotune.lower.arguments import Argument, Partials
from autotune.lower.code import Code, Dims, Kind, Level, infix
from autotune.lower.function import Function, Scope, is_constant
from autotune.lower.names import FileNames
from autotune.lower.padding import NEUTRAL_TEXT, ZERO, Lanes
from autotune.lower.reduce import PAIRWISE, dot, operand, reduced_tile
from autotune.lower.uses import count_uses, shifted, used_as
from sgraph.axis import Axis
from sgraph.errors import LoweringLimit
from sgraph.expr import Expr, Op, reduction
from sgraph.ir import SGraph
from sgraph.program import DType
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

INLINE: Final = 48
"""Longest expression that is written into its only use instead of a variable of its own."""
PADDING_TEXT: Final = {Lanes.NEGATIVE_INFINITY: 'float("-inf")', Lanes.POSITIVE_INFINITY: 'float("inf")'}
"""What a masked load puts into padded lanes, where it is not 0."""
INTEGERS: Final = frozenset({DType.INT32, DType.INT64})
"""Element types that stay integers, so that comparisons with indices are exact."""


@dataclass(frozen=True, slots=True)
class EmittedFunction:
    """A printed kernel function."""

    name: str
    """Its name."""
    arguments: tuple[Argument, ...]
    """Its parameters, in order."""
    lines: tuple[str, ...]
    """Its body, without indentation."""
    phase: Phase
    """What it was printed from."""


def emit_phase(
    graph: SGraph, schedule: Schedule, phase: Phase, layout: Layout, names: FileNames, partials: Partials
) -> EmittedFunction:
    """Print one phase of a kernel.

    Raises:
        LoweringLimit: it needs something that has no text yet.
    """
    function = Function(graph, schedule, phase, layout, names, partials)
    scope = Scope(function)
    _Body(function).statements(phase.body, scope)
    lines = function.tiles.program_lines()
    if phase.split is not None and phase.name == "main":
        lines.append("cell = tl.program_id(1)")
    lines += function.tiles.resident_lines()
    name = schedule.kernel.name if len(schedule.phases) == 1 else f"{schedule.kernel.name}_{phase.name}"
    return EmittedFunction(names.names.fresh(name), function.arguments.in_order(), (*lines, *scope.lines), phase)


class _Body:
    """Prints statements into scopes."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.passes: dict[Axis, int] = {}

    def statements(self, body: Sequence[Statement], scope: Scope) -> None:
        """Print a body; what is used only once, and in the same body, is inlined."""
        loops = [i for i, s in enumerate(body) if isinstance(s, Loop)]
        place = 0
        while place < len(body):
            if scope.depth == 0 and loops:
                self._stage(place, body[place], loops, scope)
            merges = tuple(_leading_merges(body[place:]))
            if merges:
                self._merge(merges, scope)
            else:
                self._statement(body[place], body[place + 1 :], scope)
            place += max(1, len(merges))

    def _stage(self, place: int, statement: Statement, loops: Sequence[int], scope: Scope) -> None:
        """Say which stage begins at a statement of the outermost body."""
        if place == loops[0] and scope.lines == ["# prologue"]:
            scope.lines.clear()  # all of it is inlined further down
        elif place == 0 and loops[0] > 0:
            scope.lines.append("# prologue")
        elif place == loops[-1] + 1:
            partial = isinstance(statement, WritePartial)
            scope.lines.append("# this cell's partial results" if partial else "# epilogue")

    def _statement(self, statement: Statement, later: Sequence[Statement], scope: Scope) -> None:
        match statement:
            case Load():
                self._load(statement.value, later, scope)
            case Compute():
                if not is_constant(statement.value):
                    self._define(statement.value, scope.pointwise.compute(statement.value), later, scope)
            case Reduce():
                self._define(statement.value, self._reduce(statement.value, scope), later, scope)
            case Accumulate():
                self._accumulate(statement, scope)
            case Loop():
                self._loop(statement, scope)
            case Write():
                self._write(statement, scope)
            case WritePartial():
                self._write_partial(statement.value, scope)
            case Merge():
                raise AssertionError("merges are printed together")

    # --------------------------------------------------------------------------------- loads and computations

    def _load(self, leaf: Expr, later: Sequence[Statement], scope: Scope) -> None:
        function = self.function
        dims = function.layout.dims(leaf.free)
        tensor = function.graph.tensor(leaf.name)
        if tensor.dtype is DType.FP64:
            raise LoweringLimit(f"tensor {tensor.name} is float64", do="kernels compute in float32: cast it first")
        kind = Kind.INT if tensor.dtype in INTEGERS else Kind.FLOAT
        other = "0" if kind is Kind.INT else PADDING_TEXT.get(function.pads[leaf].lanes, "0.0")
        text = self._masked_load(function.tiles.address(tensor, leaf.axes, dims), dims, other)
        plain, computed = used_as(leaf, later, function.layout)
        converts = tensor.dtype is not DType.FP32 and kind is Kind.FLOAT
        name = function.fresh(leaf)
        if converts and not plain:
            text += ".to(tl.float32)"
        scope.lines.append(f"{name} = {text}")
        scope.raw[leaf] = scope.values[leaf] = Code(name, dims, kind=kind)
        if converts and plain and computed:
            hint = f"{function.file.tensor[leaf.name]}_f32"
            scope.values[leaf] = scope.named(Code(f"{name}.to(tl.float32)", dims), hint)

    def _masked_load(self, address: str, dims: Dims, other: str) -> str:
        mask = self.function.tiles.mask(dims, dims)
        if mask is None:
            return f"tl.load({address})"
        return f"tl.load({address}, mask={mask.text}, other={other})"

    def _define(self, value: Expr, code: Code, later: Sequence[Statement], scope: Scope) -> None:
        """Make a computed value available: as an expression if it is short and used once here, else as a variable."""
        here, nested = count_uses(value, later)
        is_tile_load = code.dims and value.op in {Op.MAX, Op.MIN, Op.SUM}
        if here <= 1 and not nested and len(code.text) <= INLINE and not is_tile_load:
            scope.values[value] = code
            return
        name = self.function.fresh(value)
        scope.lines.append(f"{name} = {code.text}")
        scope.values[value] = replace(code, text=name, level=Level.ATOM, divisor=None, value=None, static=False)

    def _reduce(self, value: Expr, scope: Scope) -> Code:
        contraction = self.function.layout.contractions.get(value)
        if contraction is None:
            return reduced_tile(self.function, scope, value)
        dims = self.function.layout.dims(value.free)
        return Code(dot(self.function, scope, contraction, self._zeros(dims)), dims)

    # ------------------------------------------------------------------------------------------ accumulators

    def _zeros(self, dims: Dims) -> str:
        return f"tl.zeros([{', '.join(self.function.arguments.block(a) for a in dims)}], tl.float32)"

    def _start(self, value: Expr, scope: Scope) -> None:
        """Define an accumulator with its unit."""
        dims = self.function.layout.dims(value.free)
        name = self.function.fresh(value)
        unit = NEUTRAL_TEXT[value.op]
        if dims:
            shape = ", ".join(self.function.arguments.block(a) for a in dims)
            unit = self._zeros(dims) if value.op is Op.SUM else f"tl.full([{shape}], {unit}, tl.float32)"
        scope.lines.append(f"{name} = {unit}")
        scope.values[value] = Code(name, dims)

    def _accumulate(self, statement: Accumulate, scope: Scope) -> None:
        if statement.scale is not None:
            self._accumulate_scaled(statement, statement.scale, scope)
            return
        for value in statement.values:
            total = scope.values[value].text
            contraction = self.function.layout.contractions.get(value)
            if contraction is not None:
                scope.lines.append(f"{total} = {dot(self.function, scope, contraction, total)}")
                continue
            tile = reduced_tile(self.function, scope, value)
            pairwise = PAIRWISE.get(value.op)
            scope.lines.append(f"{total} = {pairwise}({total}, {tile.text})" if pairwise else f"{total} += {tile.text}")

    def _accumulate_scaled(self, statement: Accumulate, scale: Expr, scope: Scope) -> None:
        """One step of sums that are relative to a running maximum, which may still be minus infinity."""
        function, step = self.function, scope.inner()
        step.lines = scope.lines
        axes, exponent = reduction(scale)
        code = operand(function, scope, scale.op, exponent, axes)
        score = code if code.is_name else scope.named(code, "score")
        peak = scope.values[scale]
        tile = score
        for axis in reversed(function.layout.dims(axes)):
            place = tile.dims.index(axis)
            tile = Code(f"tl.max({tile.text}, axis={place})", tuple(a for a in tile.dims if a != axis))
        raised = scope.named(Code(f"tl.maximum({peak.text}, {tile.text})", peak.dims), "raised")
        shift, decay = self._rescaling(peak, raised, scope)
        relative = infix("-", score, shift, Level.SUM, function.layout.dims)
        weight = scope.named(Code(f"tl.exp({relative.text})", relative.dims), "weight")
        exponential = shifted(scale)
        step.values[exponential], step.pads[exponential] = weight, ZERO
        for value in statement.values:
            total = scope.values[value]
            rescaled = infix("*", total, decay, Level.PRODUCT, function.layout.dims).text
            contraction = function.layout.contractions.get(value)
            if contraction is not None:
                scope.lines.append(f"{total.text} = {dot(function, step, contraction, rescaled)}")
            else:
                scope.lines.append(f"{total.text} = {rescaled} + {reduced_tile(function, step, value).text}")
        scope.lines.append(f"{peak.text} = {raised.text}")

    def _rescaling(self, peak: Code, raised: Code, scope: Scope) -> tuple[Code, Code]:
        """What to subtract from exponents under a raised maximum, and the factor for sums under the old one."""
        guarded = f'tl.where({raised.text} == float("-inf"), 0.0, {raised.text})'
        shift = scope.named(Code(guarded, raised.dims), "shift")
        decay = scope.named(Code(f"tl.exp({peak.text} - {shift.text})", peak.dims), "decay")
        return shift, decay

    # ------------------------------------------------------------------------------------------------- loops

    def _loop(self, loop: Loop, scope: Scope) -> None:
        function, axis = self.function, loop.axis
        self.passes[axis] = self.passes.get(axis, 0) + 1
        number = f", pass {self.passes[axis]}" if self.passes[axis] > 1 else ""
        scope.lines.append(f"# loop over {axis}{number}")
        for value in loop.start:
            self._start(value, scope)
        inner = scope.inner()
        function.tiles.enter(axis)
        self.statements(loop.body, inner)
        pipelined = not any(isinstance(s, Loop) for s in loop.body)
        before, head, definitions = function.tiles.loop_lines(axis, pipelined=pipelined)
        scope.lines += [*before, head, *(f"    {line}" for line in (*definitions, *inner.lines))]

    # ------------------------------------------------------------------------------------------------ stores

    def _write(self, statement: Write, scope: Scope) -> None:
        tensor = statement.tensor
        dims = self.function.layout.dims(tensor.named_axes)
        address = self.function.tiles.address(tensor, tensor.named_axes, dims)
        value = scope.pointwise.signed(statement.value)
        self._store(address, value, dims, tensor.named_axes, scope)

    def _store(self, address: str, value: Code, dims: Dims, axes: Sequence[Axis], scope: Scope) -> None:
        """Store a tile once: by the first of the programs that hold the same one."""
        mask = self.function.tiles.mask(dims, dims)
        masked = f", mask={mask.text}" if mask is not None else ""
        line = f"tl.store({address}, {value.spread(dims).text}{masked})"
        repeated = [a for a in self.function.phase.grid if a not in axes]
        if repeated:
            scope.lines += [f"if {self.function.tiles.is_first(repeated)}:", f"    {line}"]
        else:
            scope.lines.append(line)

    def _partial(self, value: Expr) -> tuple[str, tuple[Axis, ...], Dims]:
        """Workspace, its axes and the tile dimensions of an accumulator's partial results."""
        dims = self.function.layout.dims(value.free)
        hint = self.function.file.value(value, dims, dot=value in self.function.layout.contractions)
        axes = (*sorted(value.free - set(dims)), *dims)
        return self.function.partials.name(value, hint), axes, dims

    def _write_partial(self, value: Expr, scope: Scope) -> None:
        variable, axes, dims = self._partial(value)
        address = self.function.tiles.partial_address(variable, axes, dims)
        self._store(address, scope.values[value], dims, axes, scope)

    def _merge(self, merges: Sequence[Merge], scope: Scope) -> None:
        """Finish accumulators from those of every cell, in one loop over the cells."""
        scope.lines.append("# merge the partial results of all cells")
        for merge in merges:
            for value in merge.state:
                self._start(value, scope)
        inner = scope.inner()
        for merge in merges:
            if merge.scale is None:
                for value in merge.values:
                    total, part = scope.values[value].text, self._read_partial(value)
                    pairwise = PAIRWISE.get(value.op)
                    inner.lines.append(f"{total} = {pairwise}({total}, {part})" if pairwise else f"{total} += {part}")
            else:
                self._merge_scaled(merge, merge.scale, inner)
        split = self.function.arguments.parameter("SPLIT")
        scope.lines += [f"for cell in tl.range(0, {split}):", *(f"    {line}" for line in inner.lines)]

    def _merge_scaled(self, merge: Merge, scale: Expr, scope: Scope) -> None:
        order = self.function.layout.dims
        peak = scope.values[scale]
        part = scope.named(Code(self._read_partial(scale), peak.dims), "peak")
        raised = scope.named(Code(f"tl.maximum({peak.text}, {part.text})", peak.dims), "raised")
        shift, decay = self._rescaling(peak, raised, scope)
        share = scope.named(Code(f"tl.exp({part.text} - {shift.text})", peak.dims), "share")
        for value in merge.values:
            total = scope.values[value]
            piece = scope.named(Code(self._read_partial(value), total.dims), "part")
            kept = infix("*", total, decay, Level.PRODUCT, order).text
            added = infix("*", piece, share, Level.PRODUCT, order).text
            scope.lines.append(f"{total.text} = {kept} + {added}")
        scope.lines.append(f"{peak.text} = {raised.text}")

    def _read_partial(self, value: Expr) -> str:
        variable, axes, dims = self._partial(value)
        return self._masked_load(
            self.function.tiles.partial_address(variable, axes, dims), dims, NEUTRAL_TEXT[value.op]
        )


def _leading_merges(body: Sequence[Statement]) -> Iterator[Merge]:
    """The merges that a body begins with."""
    for statement in body:
        if not isinstance(statement, Merge):
            return
        yield statement
