"""What a schedule computes: its statements read as mathematics, for all tile sizes and ragged tails at once.

Nothing here is shared with the code that makes or prints schedules. Every axis ``k`` is split into three atoms,
``k.cell`` (which program), ``k.step`` (which iteration) and ``k.lane`` (inside a tile); a tile of a tensor
denotes its leaf over the atoms. Where a role has no use for an atom (a looped axis has one cell), that atom has a
single value, so an equation that holds for arbitrary atoms holds for every role. The last tile may be ragged:
positions outside the axis carry ``valid = 0`` in sums and ``pad = -inf`` in maxima, at the reduction itself.

What is summed is what the statements sum: lanes by a tile reduction, steps by the end of the loop that an
accumulator was started by, cells by the merge of the combine phase. A statement that has no meaning (a value used
where it does not exist, a partial sum taken for a finished one, a result written twice) is refused with a reason.

A scaled accumulation (Milakov and Gimelshein, arXiv 1805.02867) carries ``M = max e`` and ``sum r * exp(e - M)``.
That its step and its merge compute exactly these, whatever the tiles and cells, is one lemma about a monoid; the
tests check it at 50 digits with empty and fully masked tiles included. Its form is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import assert_never

from sgraph.axis import Axis, ordered
from sgraph.expr import REDUCTIONS, Expr, Op, add, const, exp, factors, leaf, make, mul, product, reduction, walk
from sgraph.ir import Kernel, Role
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


class NoDenotation(Exception):
    """A schedule that computes nothing definite; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Written:
    """What reaches one stored tensor."""

    tensor: Tensor
    """Where it goes."""
    named: Expr
    """What the schedule says it writes, over complete axes."""
    denoted: Expr
    """What its statements compute, over atoms."""


def denote(schedule: Schedule) -> tuple[Written, ...]:
    """What a schedule writes to each of its kernel's tensors, in the order of the kernel's stores.

    Raises:
        NoDenotation: a statement has no meaning, or a tensor is not written exactly once.
    """
    kernel = schedule.kernel
    partials: dict[Expr, _Total] = {}
    written: dict[str, Written] = {}
    for phase, combines in _phases(schedule):
        _Interpreter(kernel, phase, combines, partials, written).run()
    missing = [s.tensor.name for s in kernel.stores if s.tensor.name not in written]
    if missing:
        raise NoDenotation(f"{', '.join(missing)} is never written")
    return tuple(written[s.tensor.name] for s in kernel.stores)


def split(value: Expr) -> Expr:
    """An expression over complete axes, rewritten over atoms: what a kernel that computes it has to denote."""
    done: dict[Expr, Expr] = {}
    for node in walk([value]):
        match node.op:
            case Op.LEAF:
                done[node] = leaf(node.name, _atoms(node.axes), finite=node.finite)
            case Op.INDEX:
                done[node] = position(node.axis)
            case op if op in REDUCTIONS:
                axes, operand = _distinct(node)
                done[node] = _Total(op, axes, (done[operand],), _atoms(axes)).value()
            case _:
                done[node] = make(node.op, tuple(done[a] for a in node.args), node.attr)
    return done[value]


def _distinct(value: Expr) -> tuple[tuple[Axis, ...], Expr]:
    """Axes and operand of a chain of like reductions, ended before an axis that is bound a second time."""
    axes: list[Axis] = []
    node = value
    while node.op is value.op and node.axis not in axes:
        axes.append(node.axis)
        node = node.args[0]
    return tuple(axes), node


VALID = "valid:"
"""Leaf that is 1 inside an axis and 0 beyond its end."""
PAD = "pad:"
"""Leaf that is 0 inside an axis and minus infinity beyond its end."""
ROOF = "roof:"
"""Leaf that is 0 inside an axis and plus infinity beyond its end; met only as an addend under ``min``."""
POSITION = "index:"
"""Leaf that is the position along an axis."""


def position(axis: Axis) -> Expr:
    """The position along a complete axis, over its atoms."""
    return leaf(POSITION + axis.name, _atoms([axis]))


def _atoms(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    return tuple(a.atom(level) for a in axes for level in ("cell", "step", "lane"))


def _masked(op: Op, axes: Sequence[Axis], operand: Expr) -> Expr:
    """The operand of a reduction over these axes, neutral beyond their ends."""
    match op:
        case Op.SUM:
            return product([*(leaf(VALID + a.name, _atoms([a])) for a in ordered(set(axes))), operand])
        case Op.MAX:
            return reduce(add, (leaf(PAD + a.name, _atoms([a]), finite=False) for a in ordered(set(axes))), operand)
        case _:
            assert op is Op.MIN
            return reduce(add, (leaf(ROOF + a.name, _atoms([a]), finite=False) for a in ordered(set(axes))), operand)


@dataclass(frozen=True, slots=True)
class _Total:
    """A reduction as far as it has got."""

    op: Op
    axes: tuple[Axis, ...]
    """What its name says it reduces."""
    rest: tuple[Expr, ...]
    """Factors of what one element contributes; of a scaled sum, all but its exponential."""
    atoms: tuple[Axis, ...]
    """What has been reduced."""
    exponent: Expr | None = None
    """Of a scaled sum: the exponent of one element's exponential, whose maximum the sum is relative to."""
    place: int = 0
    """Of a scaled sum: where the exponential stands among the factors."""
    scale: Expr | None = None
    """Of a scaled sum: the name of that maximum."""

    def over(self, *atoms: Axis) -> _Total:
        return replace(self, atoms=(*self.atoms, *atoms))

    def value(self) -> Expr:
        parts = list(self.rest)
        if self.exponent is not None:
            highest = self._chain(Op.MAX, self.exponent)
            parts.insert(self.place, exp(add(self.exponent, mul(const(-1), highest))))
        return self._chain(self.op, product(parts))

    def _chain(self, op: Op, operand: Expr) -> Expr:
        # Like reductions over finite index sets commute: one canonical order.
        masked = _masked(op, self.axes, operand)
        return reduce(lambda inner, a: make(op, (inner,), a), ordered(set(self.atoms)), masked)


@dataclass(slots=True)
class _Running:
    """An accumulator from its start to the end of the loop that started it."""

    depth: int
    """How many loops lie outside the one that started it."""
    pending: list[Axis] = field(default_factory=list[Axis])
    """Loops it was accumulated in whose end has not come."""
    total: _Total | None = None
    """Empty until it is accumulated."""


def _phases(schedule: Schedule) -> tuple[tuple[Phase, bool], ...]:
    """The phases, each with whether it combines; their form is checked."""
    role = schedule.kernel.role
    undecided = [str(a) for a in schedule.kernel.axes if a not in role]
    if undecided:
        raise NoDenotation(f"axis {undecided[0]} has no role")
    for phase in schedule.phases:
        wrong = [a for a in phase.grid if role.get(a) is not Role.GRID]
        if wrong or len(set(phase.grid)) != len(phase.grid):
            raise NoDenotation(f"phase {phase.name} is launched over {_names(phase.grid)}: not distinct grid axes")
    match schedule.phases:
        case (only,) if only.split is None:
            return ((only, False),)
        case (main, combine) if main.split is not None and main.split == combine.split:
            if role.get(main.split) is not Role.SPLIT:
                raise NoDenotation(f"axis {main.split} is split but its role is not")
            return ((main, False), (combine, True))
        case _:
            raise NoDenotation("a schedule is one phase, or a main and a combine phase over one split axis")


class _Interpreter:
    """One phase, statement by statement, as one program of it sees them."""

    def __init__(
        self, kernel: Kernel, phase: Phase, combines: bool, partials: dict[Expr, _Total], written: dict[str, Written]
    ) -> None:
        self.role = kernel.role
        self.targets = [s.tensor for s in kernel.stores]
        self.phase = phase
        self.combines = combines
        self.partials = partials
        self.written = written
        self.loops: list[Axis] = []
        self.running: dict[Expr, _Running] = {}
        self.values: dict[Expr, Expr] = {}
        self.totals: dict[Expr, _Total] = {}

    def run(self) -> None:
        self.execute(self.phase.body)

    def execute(self, body: Sequence[Statement]) -> None:
        for statement in body:
            match statement:
                case Load(value):
                    self.load(value)
                case Compute(value):
                    self.compute(value)
                case Reduce(value):
                    self.reduce(value)
                case Accumulate():
                    self.accumulate(statement)
                case Loop():
                    self.loop(statement)
                case Merge():
                    self.merge(statement)
                case WritePartial(value):
                    self.write_partial(value)
                case Write(tensor, value):
                    self.write(tensor, value)
                case _:
                    assert_never(statement)

    # ------------------------------------------------------------------------------------------- values

    def reach(self, axes: Iterable[Axis], what: str) -> None:
        """Refuse unless this point of the program has a definite tile of every axis."""
        for axis in ordered(set(axes)):
            match self.role.get(axis):
                case Role.GRID if axis not in self.phase.grid:
                    raise NoDenotation(f"{what} varies over {axis}, which phase {self.phase.name} has no programs for")
                case Role.LOOP | Role.SPLIT if axis not in self.loops:
                    raise NoDenotation(f"{what} varies over {axis} and stands outside the loop over {axis}")
                case None:
                    raise NoDenotation(f"{what} varies over {axis}, which has no role")
                case _:
                    pass

    def operand(self, value: Expr) -> Expr:
        """The denotation of a value that a statement uses: a product of available ones."""
        return product(self.factor(f) for f in factors(value))

    def factor(self, value: Expr) -> Expr:
        if value in self.running:
            raise NoDenotation(f"{value} is used inside the loop that accumulates it: it is a partial value there")
        if value in self.values:
            return self.values[value]
        match value.op:
            case Op.CONST | Op.NEG_INF | Op.EXTENT:
                return value
            case Op.INDEX:
                self.reach([value.axis], f"index({value.axis})")
                return position(value.axis)
            case _:
                raise NoDenotation(f"{value} is used where it is not available")

    def load(self, value: Expr) -> None:
        if value.op is not Op.LEAF:
            raise NoDenotation(f"{value} is loaded and is no tensor")
        self.reach(value.free, f"the load of {value}")
        self.values[value] = split(value)

    def compute(self, value: Expr) -> None:
        if not value.args or value.op is Op.MUL or value.op in REDUCTIONS:
            raise NoDenotation(f"{value} is computed pointwise and is no pointwise operation")
        self.values[value] = make(value.op, tuple(self.operand(a) for a in value.args), value.attr)

    def reduce(self, value: Expr) -> None:
        axes, operand = _reduction(value)
        for axis in axes:
            if self.role.get(axis) is not Role.WHOLE:
                raise NoDenotation(f"{value} is reduced at once over {axis}, of which a program holds one tile only")
        self.values[value] = _Total(value.op, axes, (self.operand(operand),), _atoms(axes)).value()

    # ------------------------------------------------------------------------------------- accumulators

    def loop(self, loop: Loop) -> None:
        axis = loop.axis
        if self.role.get(axis) not in (Role.LOOP, Role.SPLIT):
            raise NoDenotation(f"a loop over {axis}, whose role is {self.role.get(axis, 'undecided')}")
        if axis in self.loops:
            raise NoDenotation(f"a loop over {axis} inside a loop over {axis}")
        if self.role[axis] is Role.SPLIT and (self.combines or axis != self.phase.split):
            raise NoDenotation(f"phase {self.phase.name} loops over {axis} and has no chunk of it")
        for value in loop.start:
            _reduction(value)
            if value in self.running:
                raise NoDenotation(f"{value} is set to its unit while it is being accumulated")
            self.running[value] = _Running(depth=len(self.loops))
        outer_values, outer_totals = self.values, self.totals
        self.values, self.totals = dict(outer_values), dict(outer_totals)
        self.loops.append(axis)
        self.execute(loop.body)
        self.loops.pop()
        # What was made inside varied from step to step: it is gone, except what was accumulated.
        self.values, self.totals = outer_values, outer_totals
        self.close(axis)
        for value in loop.start:
            total = self.running.pop(value).total
            if total is None:
                raise NoDenotation(f"{value} is started before the loop over {axis} and not accumulated in it")
            self.totals[value] = total
            self.values[value] = total.value()

    def close(self, axis: Axis) -> None:
        """The end of a loop: what was accumulated in it has met all its steps."""
        # A looped axis has one cell; the cells of a split one are other programs, and meet in the merge.
        met = [axis.atom("step")] if self.role[axis] is Role.SPLIT else [axis.atom("step"), axis.atom("cell")]
        for state in self.running.values():
            if axis in state.pending and state.total is not None:
                state.pending.remove(axis)
                state.total = state.total.over(*met)

    def accumulate(self, statement: Accumulate) -> None:
        depths = {self.started(v) for v in statement.state}
        if len(depths) != 1:
            raise NoDenotation(f"{statement.state[0]} and what is accumulated with it are started by different loops")
        loops = self.loops[depths.pop() :]
        for value in statement.state:
            axes, _ = _reduction(value)
            for axis in loops:
                if axis not in axes:
                    raise NoDenotation(f"{value} is accumulated once per step of {axis}, which it does not reduce")
            for axis in axes:
                self.tile_of(axis, value, loops)
        if statement.scale is not None:
            scaled = self.scaled_totals(statement.scale, statement.values)
        else:
            scaled = {v: self.plain_total(v) for v in statement.values}
        for value, total in scaled.items():
            state = self.running[value]
            if state.total is not None:
                raise NoDenotation(f"{value} is accumulated twice")
            state.total, state.pending = total, list(loops)

    def started(self, value: Expr) -> int:
        if value not in self.running:
            raise NoDenotation(f"{value} is accumulated and was not set to its unit before")
        return self.running[value].depth

    def tile_of(self, axis: Axis, value: Expr, loops: Sequence[Axis]) -> None:
        """Refuse unless what is accumulated meets every tile of an axis that it reduces."""
        match self.role.get(axis):
            case Role.WHOLE:
                return
            case Role.LOOP | Role.SPLIT if axis in loops:
                return
            case Role.LOOP | Role.SPLIT if axis in self.loops:
                raise NoDenotation(f"{value} is set to its unit in every step of {axis}: it holds the last step only")
            case Role.LOOP | Role.SPLIT:
                raise NoDenotation(f"{value} is accumulated over {axis} outside the loop over {axis}")
            case _:
                raise NoDenotation(f"{value} is accumulated over {axis}, of which a program holds one tile only")

    def tile_atoms(self, axes: Sequence[Axis]) -> tuple[Axis, ...]:
        """What one tile reduction reduces: lanes, and all of an axis that is resident."""
        return tuple(atom for a in axes for atom in (_atoms([a]) if self.role[a] is Role.WHOLE else (a.atom("lane"),)))

    def plain_total(self, value: Expr) -> _Total:
        axes, operand = _reduction(value)
        return _Total(value.op, axes, (self.operand(operand),), self.tile_atoms(axes))

    def scaled_totals(self, scale: Expr, values: Sequence[Expr]) -> dict[Expr, _Total]:
        """The maximum and the sums relative to it, after checking that they have the form of the lemma."""
        axes, exponent = _reduction(scale)
        if scale.op is not Op.MAX or len(set(axes)) != len(axes):
            raise NoDenotation(f"{scale} is a scale and no maximum")
        shifted = exp(add(exponent, mul(const(-1), scale)))
        found = {scale: self.plain_total(scale)}
        for value in values:
            over, operand = _reduction(value)
            parts = list(factors(operand))
            if value.op is not Op.SUM or len(over) != len(axes) or set(over) != set(axes) or parts.count(shifted) != 1:
                raise NoDenotation(f"{value} is no sum over {_names(axes)} with one factor exp(e - {scale})")
            place = parts.index(shifted)
            rest = tuple(self.factor(f) for f in parts if f is not shifted)
            found[value] = _Total(
                Op.SUM, over, rest, self.tile_atoms(over), exponent=self.operand(exponent), place=place, scale=scale
            )
        return found

    # --------------------------------------------------------------------------------------- workspaces

    def write_partial(self, value: Expr) -> None:
        cut = self.phase.split
        if cut is None or self.combines:
            raise NoDenotation(f"phase {self.phase.name} writes a partial {value} and is no main phase of a split")
        if value not in self.totals:
            raise NoDenotation(f"a partial {value} is written where no accumulator of it is finished")
        if cut not in _reduction(value)[0]:
            raise NoDenotation(f"a partial {value} is written, which does not reduce the split axis {cut}")
        if value in self.partials:
            raise NoDenotation(f"a partial {value} is written twice")
        self.covers(value.free, f"a partial {value}")
        self.partials[value] = self.totals[value]

    def merge(self, statement: Merge) -> None:
        cut = self.phase.split
        if cut is None or not self.combines:
            raise NoDenotation(f"phase {self.phase.name} merges {statement.state[0]} and is no combine phase")
        for value in statement.state:
            if value not in self.partials:
                raise NoDenotation(f"{value} is merged and no cell writes a partial of it")
            if value is not statement.scale and self.partials[value].scale is not statement.scale:
                raise NoDenotation(f"{value} is merged relative to another scale than it was accumulated with")
            self.reach(value.free, f"the merge of {value}")
            total = self.partials[value].over(cut.atom("cell"))
            self.values[value] = total.value()

    # -------------------------------------------------------------------------------------------- stores

    def covers(self, axes: Iterable[Axis], what: str) -> None:
        """Refuse unless this point of the program stands for exactly one tile of something over these axes."""
        over = set(axes)
        self.reach(over, what)
        for axis in self.loops:
            if axis not in over:
                raise NoDenotation(f"{what} is written again in every step of {axis}, over which it does not vary")

    def write(self, tensor: Tensor, value: Expr) -> None:
        if tensor not in self.targets:
            raise NoDenotation(f"{tensor.name} is written and is no tensor of this kernel")
        if tensor.name in self.written:
            raise NoDenotation(f"{tensor.name} is written twice")
        axes = set(tensor.named_axes)
        denoted = self.operand(value)
        stray = [a for a in ordered(denoted.free) if replace(a, level="") not in axes]
        if stray:
            raise NoDenotation(f"{tensor.name} is written with a value that still differs between {_every(stray[0])}")
        self.covers(axes, tensor.name)
        cut = () if self.phase.split is None or self.combines else (self.phase.split,)
        for axis in (*self.phase.grid, *cut):
            if axis not in axes:
                raise NoDenotation(f"{tensor.name} is written by every cell of {axis}, over which it does not vary")
        self.written[tensor.name] = Written(tensor, value, denoted)


def _reduction(value: Expr) -> tuple[tuple[Axis, ...], Expr]:
    if value.op not in REDUCTIONS:
        raise NoDenotation(f"{value} is accumulated and is no reduction")
    axes, operand = reduction(value)
    if len(set(axes)) != len(axes):
        raise NoDenotation(f"{value} reduces one axis twice")
    return axes, operand


def _every(atom: Axis) -> str:
    """An atom in words."""
    axis = replace(atom, level="")
    return {"cell": f"cells of {axis}", "step": f"steps of {axis}"}.get(atom.level, f"positions along {axis}")


def _names(axes: Iterable[Axis]) -> str:
    return ", ".join(map(str, axes)) or "nothing"
