"""Who uses a value, and how: what decides between a variable and an inlined expression, and what loads pad with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from autotune.layout import Layout
from autotune.lower.padding import HIGHEST, LOWEST, ZERO, Padding
from sgraph.axis import Axis
from sgraph.expr import Expr, Op, add, const, exp, factors, mul, reduction
from sgraph.schedule import Accumulate, Compute, Load, Loop, Merge, Phase, Reduce, Statement, Write, WritePartial


def walk_statements(body: Sequence[Statement]) -> Iterator[Statement]:
    """Every statement of a body in order, loops before what is in them."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        yield statement
        if isinstance(statement, Loop):
            stack.extend(reversed(statement.body))


def shifted(scale: Expr) -> Expr:
    """The exponential that sums accumulated relative to ``scale = max(S, e)`` have as a factor: ``exp(e - scale)``."""
    return exp(add(reduction(scale)[1], mul(const(-1), scale)))


def needs(statement: Statement) -> list[Expr]:
    """The values a statement is printed from, as often as it names them; nothing for a loop."""
    match statement:
        case Compute():
            return [f for a in statement.value.args for f in factors(a)]
        case Reduce():
            return list(factors(reduction(statement.value)[1]))
        case Accumulate():
            operands = [f for v in statement.values for f in factors(reduction(v)[1])]
            if statement.scale is None:
                return operands
            exponential = shifted(statement.scale)
            return [*factors(reduction(statement.scale)[1]), *(f for f in operands if f is not exponential)]
        case Write():
            return list(factors(statement.value))
        case WritePartial():
            return [statement.value]
        case Load() | Loop() | Merge():
            return []


def count_uses(value: Expr, body: Sequence[Statement]) -> tuple[int, int]:
    """How often the statements of a body name a value, and how often those of loops inside it do."""
    here = sum(needs(s).count(value) for s in body)
    everywhere = sum(needs(s).count(value) for s in walk_statements(body))
    return here, everywhere - here


def used_as(leaf: Expr, body: Sequence[Statement], layout: Layout) -> tuple[bool, bool]:
    """Whether a loaded tile is used as it is (an operand of a dot), and whether in float32 arithmetic."""
    plain = every = 0
    for statement in walk_statements(body):
        plain += _plain_operands(statement, layout)[leaf]
        every += needs(statement).count(leaf)
    return plain > 0, every > plain


def reductions(statement: Statement) -> tuple[Expr, ...]:
    """The reductions that a statement performs on tiles."""
    match statement:
        case Reduce():
            return (statement.value,)
        case Accumulate():
            return statement.state
        case _:
            return ()


def _plain_operands(statement: Statement, layout: Layout) -> Counter[Expr]:
    """Leaves that are all of one operand of a dot."""
    found: Counter[Expr] = Counter()
    for value in reductions(statement):
        dot = layout.contractions.get(value)
        if dot is not None:
            found.update(side[0] for side in (dot.left, dot.right) if len(side) == 1 and side[0].op is Op.LEAF)
    return found


def load_padding(phase: Phase, layout: Layout) -> dict[Expr, Padding]:
    """What each load puts into padded lanes: 0, or what a maximum or minimum of it ignores."""
    wanted: dict[Expr, Padding] = {}
    in_dots: set[Expr] = set()
    for statement in walk_statements(phase.body):
        for value in reductions(statement):
            axes, operand = reduction(value)
            if value.op in {Op.MAX, Op.MIN}:
                least = LOWEST if value.op is Op.MAX else HIGHEST
                wanted.update(dict.fromkeys(_addends(operand, axes), least))
            dot = layout.contractions.get(value)
            if dot is not None:
                in_dots.update((*dot.left, *dot.right))
    loads = [s.value for s in walk_statements(phase.body) if isinstance(s, Load)]
    return {v: ZERO if v in in_dots else wanted.get(v, ZERO) for v in loads}


def _addends(operand: Expr, axes: Sequence[Axis]) -> Iterator[Expr]:
    """Leaves that a value is a sum of, up to positive constant factors, if they vary over the axes."""
    stack = [operand]
    while stack:
        node = stack.pop()
        rest = [f for f in factors(node) if f.op is not Op.CONST or f.value < 0]
        if len(rest) != 1:
            continue
        if rest[0].op is Op.ADD:
            stack.extend(rest[0].args)
        elif rest[0].op is Op.LEAF and rest[0].free.issuperset(axes):
            yield rest[0]
