"""What the printers of one emitted function share: its arguments, indices and names, and what is in scope."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from autotune.layout import Layout
from autotune.lower.arguments import Arguments, Partials
from autotune.lower.code import Code, Kind, Level, literal
from autotune.lower.names import FileNames, Names
from autotune.lower.padding import Padding
from autotune.lower.pointwise import Pointwise
from autotune.lower.tiles import Tiles
from autotune.lower.uses import load_padding
from sgraph.expr import Expr, Op, leaves
from sgraph.ir import SGraph
from sgraph.program import DType
from sgraph.schedule import Phase, Schedule


class Function:
    """One ``@triton.jit`` function while it is printed."""

    def __init__(
        self, graph: SGraph, schedule: Schedule, phase: Phase, layout: Layout, names: FileNames, partials: Partials
    ) -> None:
        self.graph = graph
        self.phase = phase
        self.layout = layout
        self.file = names
        self.partials = partials
        self.names: Names = names.names.copy()
        self.arguments = Arguments(schedule.kernel, layout, names)
        self.tiles = Tiles(phase, layout, names, self.arguments)
        self.pads: dict[Expr, Padding] = load_padding(phase, layout)

    def dtype(self, leaf: Expr) -> DType:
        """Element type of the tensor that a leaf reads."""
        return self.graph.tensor(leaf.name).dtype

    def fresh(self, value: Expr) -> str:
        """A new variable for a value, named after it."""
        dims = self.layout.dims(value.free)
        return self.names.fresh(self.file.value(value, dims, dot=value in self.layout.contractions))


@dataclass(slots=True)
class Scope:
    """One body of statements: the lines printed so far and the values available to later ones."""

    function: Function
    lines: list[str] = field(default_factory=list[str])
    """The body's text, without the indentation it will get."""
    values: dict[Expr, Code] = field(default_factory=dict[Expr, Code])
    """Text of each available value in float32 (integers as they are)."""
    raw: dict[Expr, Code] = field(default_factory=dict[Expr, Code])
    """Loaded tiles in the type they were loaded with."""
    pads: dict[Expr, Padding] = field(default_factory=dict[Expr, Padding])
    """Padded lanes of values that were masked when they were printed."""
    depth: int = 0
    """Loops around this body."""

    def inner(self) -> Scope:
        """The body of a loop in this one: it sees everything available here."""
        return Scope(self.function, [], dict(self.values), dict(self.raw), dict(self.pads), self.depth + 1)

    @property
    def pointwise(self) -> Pointwise:
        """The printer of elementwise operators on this body's values."""
        return Pointwise(self.operand, self.named, self.function.layout.dims)

    def operand(self, value: Expr) -> Code:
        """The text of an available value, a number or an index."""
        match value.op:
            case Op.CONST:
                return literal(value.value)
            case Op.NEG_INF:
                return Code('float("-inf")', static=True)
            case Op.EXTENT:
                static = isinstance(value.axis.extent, int)
                return Code(self.function.arguments.size(value.axis), kind=Kind.INT, static=static)
            case Op.INDEX:
                return self.function.tiles.index(value.axis)
            case _:
                if value not in self.values:
                    assert is_constant(value), f"{value.op} is used before it is available"
                    return self.pointwise.compute(value)
                return self.values[value]

    def named(self, code: Code, hint: str) -> Code:
        """A variable that holds the value of an expression."""
        name = self.function.names.fresh(f"{hint}_{self.function.file.suffix(code.dims)}" if code.dims else hint)
        self.lines.append(f"{name} = {code.text}")
        return replace(code, text=name, level=Level.ATOM, divisor=None, value=None)


def is_constant(value: Expr) -> bool:
    """Whether a value is a number that needs no data: it is printed where it is used."""
    return not value.free and not leaves([value])
