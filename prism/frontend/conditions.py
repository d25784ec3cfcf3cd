"""What Boolean tensors mean, and the masks made of them: comparisons, logic, choices, triangles, positions."""

from __future__ import annotations

from collections.abc import Callable

from prism.frontend.axes import Dim
from prism.frontend.call import Call, Meaning, meaning
from prism.frontend.combine import elementwise, fold, position
from prism.frontend.values import (
    FALSE,
    TRUE,
    Tensorial,
    Value,
    choose,
    conjunction,
    disjunction,
    holds,
    negation,
)
from sgraph.errors import UnsupportedProgram
from sgraph.expr import Expr, Op, const, equal, less, less_equal, where


def _comparison(condition: Callable[[Expr, Expr], Expr], *, swapped: bool = False, negated: bool = False) -> Meaning:
    def compare(a: Expr, b: Expr) -> Expr:
        tree = holds(condition(b, a) if swapped else condition(a, b))
        return negation(tree) if negated else tree

    return lambda call: elementwise(call.axes, compare, call.tensor("self"), call.tensor("other"), boolean=True)


meaning("lt", "less")(_comparison(less))
meaning("le", "less_equal")(_comparison(less_equal))
meaning("gt", "greater")(_comparison(less, swapped=True))
meaning("ge", "greater_equal")(_comparison(less_equal, swapped=True))
meaning("eq")(_comparison(equal))
meaning("ne", "not_equal")(_comparison(equal, negated=True))


@meaning("logical_not", "bitwise_not")
def _not(call: Call) -> Tensorial:
    return elementwise(call.axes, negation, call.condition("self"), boolean=True)


def _logic(connective: Callable[[Expr, Expr], Expr]) -> Meaning:
    return lambda call: elementwise(
        call.axes, connective, call.condition("self"), call.condition("other"), boolean=True
    )


def _exclusive(a: Expr, b: Expr) -> Expr:
    return choose(a, negation(b), b)


for _names, _connective in (
    (("bitwise_and", "logical_and", "__and__"), conjunction),
    (("bitwise_or", "logical_or", "__or__"), disjunction),
    (("bitwise_xor", "logical_xor", "__xor__"), _exclusive),
):
    meaning(*_names)(_logic(_connective))


@meaning("any", "all")
def _any_or_all(call: Call) -> Tensorial:
    """Whether a count of the elements that are true, or of those that are not, is above 0."""
    value = call.condition("self")
    dimensions = call.dimensions("dim", value.rank)
    every = call.node.operator.startswith("aten.all")
    counted = elementwise(call.axes, negation, value) if every else value.numeric()
    number = fold(call.axes, counted, dimensions, Op.SUM, keep=call.flag("keepdim"))
    yes, no = (FALSE, TRUE) if every else (TRUE, FALSE)
    return elementwise(call.axes, lambda n: where(less(const(0), n), yes, no), number, boolean=True)


@meaning("where")
def _where(call: Call) -> Tensorial:
    if not call.has("self"):
        call.refuse("the form with one operand lists indices")
    then, otherwise = (call.tensor(n, may_be_infinite=True) for n in ("self", "other"))
    return elementwise(call.axes, choose, call.condition("condition"), then, otherwise, boolean=call.boolean)


@meaning("masked_fill")
def _masked_fill(call: Call) -> Tensorial:
    value, other = call.tensor("value", may_be_infinite=True), call.tensor("self")
    return elementwise(call.axes, choose, call.condition("mask"), value, other, boolean=call.boolean)


# ------------------------------------------------------------------------------------ positions and triangles


@meaning("arange")
def _arange(call: Call) -> Tensorial:
    """``start + step * position``."""
    (size,) = call.shape()
    if size.extent is None:
        call.refuse(f"it makes {size} elements")
    dim = call.axes.fresh(size.extent)
    start = call.number("start") if "start" in call.node.arguments else const(0)
    step = call.number("step") if "step" in call.node.arguments else const(1)
    place = position(dim) if step is const(1) else step * position(dim)
    return Value((dim,), place if start is const(0) else start + place)


def causal(row: Dim, column: Dim, diagonal: int) -> Expr:
    """The condition that a column is at most ``diagonal`` right of its row."""
    return less_equal(position(column), position(row) + diagonal if diagonal else position(row))


@meaning("tril", "triu")
def _triangle(call: Call) -> Tensorial:
    """Zero above (``tril``) or below (``triu``) a diagonal."""
    value = call.stored("self")
    lower = call.node.operator.startswith("aten.tril")
    diagonal = call.node.arguments["diagonal"]
    if not isinstance(value, Value):
        raise UnsupportedProgram(
            f"{call.node.operator} of a joined tensor", where=call.node.line, do="take the triangle of each part"
        )
    if not isinstance(diagonal, int):
        call.refuse("its diagonal depends on a symbolic size")
    row, column = value.dims[-2:]
    if lower:
        expr = where(causal(row, column, diagonal), value.expr, const(0))
    else:
        expr = where(causal(row, column, diagonal - 1), const(0), value.expr)
    return Value(value.dims, expr, value.boolean)
