"""Rewrite rules as data.

One record says everything about a rule: both sides, side conditions, where it is from. The egglog rewrite
(``rewrites.language``), the machine check (``rewrites.check``) and the documentation (``rewrites.rules_doc``)
are all derived from it, so that what is checked is what runs.

``RULES`` holds grading-preserving rules only: each keeps the multiset of opaque factors and binders of a
term, so that a class is a sub-multiset with a subset of binders and saturation ends. Cancellation,
distributivity and constant folding live in the normal form, never here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from sgraph.expr import REDUCTIONS, Op


@dataclass(frozen=True, slots=True)
class AxisVariable:
    """Stands for any complete axis."""

    name: str
    """Name in the rule's text."""

    def __str__(self) -> str:
        return self.name


class Pattern:
    """Either side of a rule, or a part of one."""

    __slots__ = ()

    def __add__(self, other: Pattern) -> Term:
        return Term(Op.ADD, (self, other))

    def __mul__(self, other: Pattern) -> Term:
        return Term(Op.MUL, (self, other))

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True)
class Variable(Pattern):
    """Stands for any expression."""

    name: str
    """Name in the rule's text."""

    __str__ = Pattern.__str__


@dataclass(frozen=True, slots=True)
class Term(Pattern):
    """An operator over patterns."""

    op: Op
    """Operator; leaves do not occur in patterns."""
    args: tuple[Pattern, ...] = ()
    """Operands."""
    attr: Fraction | AxisVariable | str | None = None
    """Constant, axis or function name, as in ``sgraph.expr``."""

    __str__ = Pattern.__str__


class Fact(StrEnum):
    """What a side condition may ask for."""

    NOT_FREE = "is not free in"
    NONEMPTY = "is not empty"
    NONNEGATIVE = ">= 0"
    POSITIVE = "> 0"
    FINITE = "is never -inf"


@dataclass(frozen=True, slots=True)
class Condition:
    """One side condition: a fact about an expression, an axis, or both."""

    fact: Fact
    """What must be known."""
    variable: Variable | None = None
    """The expression it is about; None for ``NONEMPTY``."""
    axis: AxisVariable | None = None
    """The axis it is about; only for ``NOT_FREE`` and ``NONEMPTY``."""

    def __str__(self) -> str:
        parts = (self.axis, self.fact.value, self.variable) if self.axis else (self.variable, self.fact.value)
        return " ".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Rule:
    """``left`` may be replaced by ``right`` wherever the conditions are known to hold."""

    name: str
    """Unique, lower case with hyphens."""
    left: Pattern
    """What it matches."""
    right: Pattern
    """What it adds to the class."""
    when: tuple[Condition, ...] = ()
    """Side conditions; every one of them is necessary (checked by mutation)."""
    reference: str = "elementary"
    """Paper and section, or ``elementary``."""
    both_ways: bool = False
    """Whether the right side is also replaced by the left."""
    single: tuple[Variable, ...] = ()
    """Variables that match a single factor only, never a product. The rule is right without; but where products are
    taken apart one factor at a time, n factors have n * 2^n nodes instead of 3^n, and the same classes."""

    def __str__(self) -> str:
        arrow = "<->" if self.both_ways else "->"
        conditions = f"  when {', '.join(map(str, self.when))}" if self.when else ""
        return f"{text(self.left)}  {arrow}  {text(self.right)}{conditions}"


def text(pattern: Pattern) -> str:
    """A pattern as a person writes it."""
    match pattern:
        case Variable(name):
            return name
        case Term(Op.CONST, (), attr):
            return str(attr)
        case Term(Op.NEG_INF, (), _):
            return "-inf"
        case Term((Op.ADD | Op.MUL) as op, (a, b), _):
            sign = " + " if op is Op.ADD else " * "
            return sign.join(_operand(x, op, first) for x, first in ((a, True), (b, False)))
        case Term(Op.RECIP, (a,), _):
            return f"1/{_operand(a, Op.RECIP, False)}"
        case Term(op, args, attr):
            head = attr if op is Op.CALL else op.value
            shown = [str(attr)] if isinstance(attr, AxisVariable) else []
            return f"{head}({', '.join([*shown, *map(text, args)])})"
        case _:
            raise TypeError(f"not a pattern: {pattern!r}")


def _operand(pattern: Pattern, parent: Op, first: bool) -> str:
    """The operand in brackets where the parent binds tighter, or a right operand regroups."""
    binding = {Op.ADD: 1, Op.MUL: 2, Op.RECIP: 3}
    own = binding.get(pattern.op, 4) if isinstance(pattern, Term) else 4
    if isinstance(pattern, Term) and pattern.op is Op.CONST and str(pattern.attr).startswith("-"):
        own = 0
    return text(pattern) if own > binding[parent] or (first and own == binding[parent]) else f"({text(pattern)})"


def subpatterns(*patterns: Pattern) -> tuple[Pattern, ...]:
    """Every part of the patterns, themselves included, each once, in order of appearance."""
    out: dict[Pattern, None] = {}
    stack = list(reversed(patterns))
    while stack:
        part = stack.pop()
        out.setdefault(part)
        if isinstance(part, Term):
            stack.extend(reversed(part.args))
    return tuple(out)


def variables(*patterns: Pattern) -> tuple[Variable, ...]:
    """The metavariables of the patterns, in order of appearance."""
    return tuple(p for p in subpatterns(*patterns) if isinstance(p, Variable))


def axis_variables(*patterns: Pattern) -> tuple[AxisVariable, ...]:
    """The axis variables of the patterns, in order of appearance."""
    found = (p.attr for p in subpatterns(*patterns) if isinstance(p, Term))
    return tuple(dict.fromkeys(a for a in found if isinstance(a, AxisVariable)))


# ----------------------------------------------------------------------------------- words to write rules in


def constant(value: int | Fraction) -> Term:
    """An exact constant."""
    return Term(Op.CONST, (), Fraction(value))


def unary(op: Op, a: Pattern) -> Term:
    """``recip``, ``sqrt``, ``exp`` or ``log`` of a pattern."""
    return Term(op, (a,))


def reduce_over(op: Op, axis: AxisVariable, a: Pattern) -> Term:
    """A sum, maximum or minimum."""
    assert op in REDUCTIONS
    return Term(op, (a,), axis)


def extent_of(axis: AxisVariable) -> Term:
    """The extent of an axis."""
    return Term(Op.EXTENT, (), axis)


def not_free(axis: AxisVariable, variable: Variable) -> Condition:
    """The expression does not depend on the axis."""
    return Condition(Fact.NOT_FREE, variable, axis)


def nonempty(axis: AxisVariable) -> Condition:
    """The axis has at least one index."""
    return Condition(Fact.NONEMPTY, None, axis)


def nonnegative(variable: Variable) -> Condition:
    """The expression is a real number >= 0 wherever it is defined."""
    return Condition(Fact.NONNEGATIVE, variable)


def positive(variable: Variable) -> Condition:
    """The expression is a real number > 0 wherever it is defined."""
    return Condition(Fact.POSITIVE, variable)


def finite(variable: Variable) -> Condition:
    """The expression is never minus infinity."""
    return Condition(Fact.FINITE, variable)


_a, _b, _c = Variable("a"), Variable("b"), Variable("c")
_j, _k = AxisVariable("j"), AxisVariable("k")
_one, _zero, _minus_one = constant(1), constant(0), constant(-1)


def _sum(axis: AxisVariable, a: Pattern) -> Term:
    return reduce_over(Op.SUM, axis, a)


def _max(axis: AxisVariable, a: Pattern) -> Term:
    return reduce_over(Op.MAX, axis, a)


def _min(axis: AxisVariable, a: Pattern) -> Term:
    return reduce_over(Op.MIN, axis, a)


def _larger(a: Pattern, b: Pattern) -> Term:
    return Term(Op.MAX2, (a, b))


def _smaller(a: Pattern, b: Pattern) -> Term:
    return Term(Op.MIN2, (a, b))


def _log(a: Pattern) -> Term:
    return unary(Op.LOG, a)


def _recip(a: Pattern) -> Term:
    return unary(Op.RECIP, a)


def _exp(a: Pattern) -> Term:
    return unary(Op.EXP, a)


def _sqrt(a: Pattern) -> Term:
    return unary(Op.SQRT, a)


_SPORES = "Wang et al., SPORES, PVLDB 13(11) 2020, section 3"
_SEMIRING = "Aji and McEliece, The Generalized Distributive Law, IEEE Trans. Inf. Theory 46(2) 2000, section II"
_LATTICE = "Davey and Priestley, Introduction to Lattices and Order, 2nd ed., 2002, chapter 4"

RULES: Final[tuple[Rule, ...]] = (
    # Products become combs, one factor times the rest, with every factor in front.
    Rule("mul-comm", _a * _b, _b * _a, single=(_b,)),
    Rule("mul-assoc", (_a * _b) * _c, _a * (_b * _c), single=(_a,)),
    Rule("mul-swap", _a * (_b * _c), _b * (_a * _c), single=(_a, _b)),
    Rule("add-comm", _a + _b, _b + _a),
    Rule("add-assoc", _a + (_b + _c), (_a + _b) + _c, both_ways=True),
    # 1 * -inf is undefined: minus infinity may not be multiplied.
    Rule("mul-one", _one * _a, _a, (finite(_a),)),
    Rule("add-zero", _zero + _a, _a),
    # Over an empty axis the sum is 0 even where `a` is undefined, hence `nonempty` below.
    Rule(
        "sum-factor",
        _sum(_k, _a * _b),
        _a * _sum(_k, _b),
        (not_free(_k, _a), nonempty(_k)),
        _SPORES,
        both_ways=True,
        single=(_a,),
    ),
    Rule("sum-constant", _sum(_k, _a), extent_of(_k) * _a, (not_free(_k, _a), nonempty(_k)), _SPORES),
    Rule("sum-swap", _sum(_j, _sum(_k, _a)), _sum(_k, _sum(_j, _a)), (), _SPORES),
    Rule("sum-add", _sum(_k, _a + _b), _sum(_k, _a) + _sum(_k, _b), (), _SPORES, both_ways=True),
    # -inf + -inf is -inf, and exp(-inf) * exp(-inf) is 0.
    Rule("exp-add", _exp(_a + _b), _exp(_a) * _exp(_b), both_ways=True),
    Rule("exp-negate", _exp(_minus_one * _a), _recip(_exp(_a))),
    Rule("recip-mul", _recip(_a * _b), _recip(_a) * _recip(_b), both_ways=True, single=(_a,)),
    Rule("recip-recip", _recip(_recip(_a)), _a, (positive(_a),)),
    Rule("sqrt-mul", _sqrt(_a * _b), _sqrt(_a) * _sqrt(_b), (nonnegative(_a), nonnegative(_b)), single=(_a,)),
    Rule("max-constant", _max(_k, _a), _a, (not_free(_k, _a), nonempty(_k))),
    Rule("max-swap", _max(_j, _max(_k, _a)), _max(_k, _max(_j, _a))),
    Rule(
        "max-add",
        _max(_k, _a + _b),
        _a + _max(_k, _b),
        (not_free(_k, _a), nonempty(_k)),
        _SEMIRING,
        both_ways=True,
    ),
    Rule(
        "max-scale",
        _max(_k, _a * _b),
        _a * _max(_k, _b),
        (not_free(_k, _a), nonempty(_k), nonnegative(_a), finite(_b)),
        _SEMIRING,
        both_ways=True,
        single=(_a,),
    ),
    # A minimum over an empty axis, or with -inf among its operands, is undefined.
    Rule("min-constant", _min(_k, _a), _a, (not_free(_k, _a), nonempty(_k), finite(_a))),
    Rule("min-add", _min(_k, _a + _b), _a + _min(_k, _b), (not_free(_k, _a), finite(_a)), _SEMIRING, both_ways=True),
    Rule(
        "min-scale",
        _min(_k, _a * _b),
        _a * _min(_k, _b),
        (not_free(_k, _a), nonnegative(_a)),
        _SEMIRING,
        both_ways=True,
        single=(_a,),
    ),
    # Bounds that do not vary over the axis: clamp once, after the reduction.
    Rule("max2-comm", _larger(_a, _b), _larger(_b, _a)),
    Rule("min2-comm", _smaller(_a, _b), _smaller(_b, _a)),
    Rule("max-floor", _max(_k, _larger(_a, _b)), _larger(_a, _max(_k, _b)), (not_free(_k, _a), nonempty(_k)), _LATTICE),
    Rule(
        "max-ceiling",
        _max(_k, _smaller(_a, _b)),
        _smaller(_a, _max(_k, _b)),
        (not_free(_k, _a), nonempty(_k), finite(_b)),
        _LATTICE,
    ),
    Rule("min-floor", _min(_k, _larger(_a, _b)), _larger(_a, _min(_k, _b)), (not_free(_k, _a), finite(_b)), _LATTICE),
    Rule("min-ceiling", _min(_k, _smaller(_a, _b)), _smaller(_a, _min(_k, _b)), (not_free(_k, _a),), _LATTICE),
    Rule("log-mul", _log(_a * _b), _log(_a) + _log(_b), (positive(_a),), single=(_a,)),
    Rule("log-recip", _log(_recip(_a)), _minus_one * _log(_a)),
    Rule("log-exp", _log(_exp(_a)), _a, (finite(_a),)),
)
"""The grading-preserving tier: what saturation runs by default."""
