"""The machine check of a rewrite rule: evaluation, proof, and mutation of its side conditions.

1. *Evaluation*: both sides in 50-digit arithmetic on random tensors that depend on every axis the conditions
   allow; extents 0 to 3; 0, 1, -1, minus infinity and *undefined* among the values. Exactly one side undefined
   is a difference. Finds a counterexample or nothing.
2. *Proof*: z3 over the reals with explicit definedness and minus infinity; sums and maxima by induction on the
   extent, interchanged reductions by induction on both.
3. *Mutation*: each side condition is dropped in turn and evaluation must then find a counterexample, else
   the condition is unnecessary and does not belong in the record.

A rule that is not proved does not run (``require``); it makes no difference who wrote it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache, reduce
from operator import add
from typing import Final, Protocol, Self, cast

import mpmath

from rewrites.rules import (
    RULES,
    AxisVariable,
    Condition,
    Fact,
    Pattern,
    Rule,
    Term,
    Variable,
    axis_variables,
    subpatterns,
    variables,
)
from sgraph.errors import SaturationFailed
from sgraph.expr import REDUCTIONS, Op

DIGITS: Final = 50
LARGEST_EXTENT: Final = 3
UNDEFINED: Final = "undefined"
_OTHER: Final = AxisVariable("o")
_SPECIAL: Final[tuple[str, ...]] = ("0", "1", "-1", "-inf", UNDEFINED)
_FILLS: Final = 192
"""How many random fillings are tried, over all choices of extents."""


class Verdict(StrEnum):
    """What is known of a rule."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Case:
    """Numbers for everything a rule leaves open."""

    extents: Mapping[str, int]
    """Extent of each axis variable."""
    values: Mapping[str, tuple[tuple[str, ...], Mapping[tuple[int, ...], str]]]
    """Per metavariable the axes it depends on and its values: decimals, ``-inf`` or ``undefined``."""
    at: Mapping[str, int] = field(default_factory=dict[str, int])
    """Index of each free axis."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A case in which the two sides of a rule differ."""

    rule: Rule
    """The rule."""
    case: Case
    """The numbers."""
    left: str
    """Value of the left side."""
    right: str
    """Value of the right side."""

    def __str__(self) -> str:
        return "\n".join(
            (
                f"# {self.rule.name}: {self.rule}",
                f"# left = {self.left}, right = {self.right}",
                "from rewrites.check import Case, evaluate",
                f"case = {self.case!r}",
                "evaluate(rule.left, case), evaluate(rule.right, case)",
            )
        )


@dataclass(frozen=True, slots=True)
class RuleReport:
    """What the check of one rule found."""

    rule: Rule
    """The rule."""
    verdict: Verdict
    """Whether it holds."""
    reason: str
    """How it was proved, or why not."""
    counterexample: Counterexample | None = None
    """Where it fails; only if refuted."""
    unnecessary: tuple[Condition, ...] = ()
    """Side conditions without which the check finds no counterexample."""

    @property
    def passed(self) -> bool:
        """Whether the rule may run: proved, and every condition necessary."""
        return self.verdict is Verdict.PROVED and not self.unnecessary


def check_rule(rule: Rule, seed: int = 0) -> RuleReport:
    """Checks a rule by evaluation, proof and mutation. The same seed tries the same numbers."""
    from rewrites.prove import prove

    _refuse_unsupported(rule)
    found = find_counterexample(rule, seed)
    if found is not None:
        return RuleReport(rule, Verdict.REFUTED, f"left = {found.left}, right = {found.right}", found)
    mutants = ((c, replace(rule, when=tuple(x for x in rule.when if x != c))) for c in rule.when)
    unnecessary = tuple(c for c, mutant in mutants if find_counterexample(mutant, seed) is None)
    proof = prove(rule)
    verdict = Verdict.PROVED if proof.proved else Verdict.UNKNOWN
    return RuleReport(rule, verdict, proof.how, None, unnecessary)


@lru_cache(maxsize=256)
def _checked(rule: Rule) -> RuleReport:
    return check_rule(rule)


def require(rule: Rule) -> None:
    """Lets a rule through that is one of ``RULES``, whose checks run with the tests, or that passes its check.

    Raises:
        SaturationFailed: the rule is wrong, not proved, or has a condition that it does not need.
    """
    if rule in RULES:
        return
    report = _checked(rule)
    if report.passed:
        return
    if report.counterexample is not None:
        seen, do = f"rule {rule.name} is wrong:\n{report.counterexample}", "correct it, or add the missing condition"
    elif report.verdict is Verdict.UNKNOWN:
        seen, do = f"rule {rule.name} is not proved: {report.reason}", "split it into steps that can be proved"
    else:
        listed = ", ".join(map(str, report.unnecessary))
        seen, do = f"rule {rule.name} does not need: {listed}", "remove the condition from the rule"
    raise SaturationFailed(seen, where=str(rule), do=do)


# ----------------------------------------------------------------------------------------------- evaluation


class Real(Protocol):
    """A real number of ``DIGITS`` digits, or minus infinity: what is used of ``mpmath.mpf``."""

    def __add__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...
    def __mul__(self, other: Self, /) -> Self: ...
    def __truediv__(self, other: Self, /) -> Self: ...
    def __abs__(self) -> Self: ...
    def __lt__(self, other: Self, /) -> bool: ...
    def __le__(self, other: Self, /) -> bool: ...
    def __bool__(self) -> bool: ...


def _number(value: int | str | bool) -> Real:
    return cast(Real, mpmath.mpf(value))


def _is_low(value: Real) -> bool:
    return bool(mpmath.isinf(value))


class _UndefinedValue(Exception):
    """The expression has no value there."""


def evaluate(pattern: Pattern, case: Case) -> Real | None:
    """The value of one side of a rule in 50 digits; None where it is undefined."""
    with mpmath.workdps(DIGITS):
        try:
            return _value(pattern, case, dict(case.at))
        except _UndefinedValue:
            return None


def _value(pattern: Pattern, case: Case, at: Mapping[str, int]) -> Real:
    match pattern:
        case Variable(name):
            axes, table = case.values[name]
            entry = table[tuple(at[a] for a in axes)]
            if entry == UNDEFINED:
                raise _UndefinedValue
            return _number(entry)
        case Term(op, args, AxisVariable(name)):
            extent = case.extents[name]
            if op is Op.EXTENT:
                return _number(extent)
            if op is Op.INDEX:
                return _number(at[name])
            return _reduced(op, [_value(args[0], case, {**at, name: i}) for i in range(extent)])
        case Term(Op.WHERE, (condition, then, otherwise), _):
            return _value(then if _value(condition, case, at) else otherwise, case, at)
        case Term(op, args, attr):
            return _applied(op, [_value(a, case, at) for a in args], attr)
        case _:
            raise TypeError(f"not a pattern: {pattern!r}")


def _reduced(op: Op, values: list[Real]) -> Real:
    low = any(map(_is_low, values))
    match op:
        case Op.SUM if not low:
            return reduce(add, values, _number(0))
        case Op.MAX:
            return max(values, default=_number("-inf"))
        case Op.MIN if values and not low:
            return min(values)
        case _:
            raise _UndefinedValue


def _applied(op: Op, values: list[Real], attr: object) -> Real:
    """An operator on values that are real or minus infinity."""
    low = [_is_low(v) for v in values]
    match op, values:
        case Op.CONST, _:
            assert isinstance(attr, Fraction)
            return _number(attr.numerator) / _number(attr.denominator)
        case Op.NEG_INF, _:
            return _number("-inf")
        case Op.ADD, (a, b):
            return a + b
        case Op.EXP, (a,):
            return cast(Real, mpmath.exp(a))
        case Op.MAX2, (a, b):
            return max(a, b)
        case _ if any(low):
            raise _UndefinedValue
        case Op.MUL, (a, b):
            return a * b
        case Op.RECIP, (a,) if a:
            return _number(1) / a
        case Op.SQRT, (a,) if _number(0) <= a:
            return cast(Real, mpmath.sqrt(a))
        case Op.LOG, (a,) if _number(0) < a:
            return cast(Real, mpmath.log(a))
        case Op.MIN2, (a, b):
            return min(a, b)
        case Op.LT, (a, b):
            return _number(a < b)
        case Op.LE, (a, b):
            return _number(a <= b)
        case Op.EQ, (a, b):
            return _number(a == b)
        case ((Op.RECIP | Op.SQRT | Op.LOG), _):
            raise _UndefinedValue
        case _:
            raise TypeError(f"{op.value} does not occur in rules")


def _refuse_unsupported(rule: Rule) -> None:
    for part in subpatterns(rule.left, rule.right):
        if isinstance(part, Term) and part.op in (Op.LEAF, Op.CALL):
            raise SaturationFailed(
                f"rule {rule.name} contains {part.op.value}",
                where=str(rule),
                do="write the rule with variables and the operators that have a meaning of their own",
            )


def find_counterexample(rule: Rule, seed: int = 0) -> Counterexample | None:
    """A case in which the sides differ, small extents first; None if none was found."""
    for case in _cases(rule, random.Random(f"{rule.name}/{seed}")):
        left, right = evaluate(rule.left, case), evaluate(rule.right, case)
        if not _agree(left, right):
            return Counterexample(rule, case, _shown(left), _shown(right))
    return None


def _agree(left: Real | None, right: Real | None) -> bool:
    if left is None or right is None:
        return left is right
    if _is_low(left) or _is_low(right):
        return _is_low(left) and _is_low(right)
    with mpmath.workdps(DIGITS):
        return abs(left - right) <= _number(f"1e-{DIGITS - 15}") * (_number(1) + abs(left))


def _shown(value: Real | None) -> str:
    return UNDEFINED if value is None else str(mpmath.nstr(value, 12))


def _cases(rule: Rule, chance: random.Random) -> Iterator[Case]:
    bound = axis_variables(rule.left, rule.right)
    nonempty = {c.axis for c in rule.when if c.fact is Fact.NONEMPTY}
    axes = (*bound, _OTHER)
    choices = [range(1 if a in nonempty else 0, LARGEST_EXTENT + 1) for a in bound]
    all_sizes = sorted(itertools.product(*choices), key=sum)
    fills = max(12, _FILLS // len(all_sizes))
    for sizes in all_sizes:
        extents = {a.name: n for a, n in zip(axes, (*sizes, 2), strict=True)}
        for fill in range(fills):
            # First everything depends on everything it may, then on some of it.
            share = 1.0 if fill < fills // 2 else 0.6
            palette: list[str] = chance.sample(_SPECIAL, chance.randint(1, len(_SPECIAL))) if fill else []
            values = {v.name: _table(v, rule, extents, (share, palette), chance) for v in _all_variables(rule)}
            free = _free(rule.left, values) | _free(rule.right, values)
            for indices in itertools.product(*(range(extents[a]) for a in sorted(free))):
                yield Case(extents, values, dict(zip(sorted(free), indices, strict=True)))


def _all_variables(rule: Rule) -> tuple[Variable, ...]:
    return variables(rule.left, rule.right)


def _table(
    variable: Variable,
    rule: Rule,
    extents: Mapping[str, int],
    style: tuple[float, list[str]],
    chance: random.Random,
) -> tuple[tuple[str, ...], dict[tuple[int, ...], str]]:
    """Random values of a metavariable, as far as its conditions allow."""
    share, palette = style
    facts = {c.fact for c in rule.when if c.variable == variable}
    excluded = {c.axis.name for c in rule.when if c.fact is Fact.NOT_FREE and c.variable == variable and c.axis}
    axes = tuple(a for a in extents if a not in excluded and chance.random() < share)
    allowed = [s for s in palette if _satisfies(s, facts)]
    table: dict[tuple[int, ...], str] = {}
    for index in itertools.product(*(range(extents[a]) for a in axes)):
        if allowed and chance.random() < 0.5:
            table[index] = chance.choice(allowed)
        else:
            low = 1 if facts & {Fact.NONNEGATIVE, Fact.POSITIVE} else -200
            table[index] = str(chance.choice([n for n in range(low, 201) if n]) / 100)
    return axes, table


def _satisfies(value: str, facts: set[Fact]) -> bool:
    """Whether a special value has all the facts; facts say nothing where a value is undefined."""
    if value == UNDEFINED:
        return True
    if value == "-inf":
        return not facts & {Fact.NONNEGATIVE, Fact.POSITIVE, Fact.FINITE}
    number = int(value)
    return not (number < 0 and facts & {Fact.NONNEGATIVE, Fact.POSITIVE}) and not (
        number == 0 and Fact.POSITIVE in facts
    )


def _free(pattern: Pattern, values: Mapping[str, tuple[tuple[str, ...], object]]) -> set[str]:
    match pattern:
        case Variable(name):
            return set(values[name][0])
        case Term(op, args, attr):
            inner = set[str]().union(*(_free(a, values) for a in args))
            if isinstance(attr, AxisVariable):
                if op in REDUCTIONS:
                    inner -= {attr.name}
                elif op is Op.INDEX:
                    inner |= {attr.name}
            return inner
        case _:
            raise TypeError(f"not a pattern: {pattern!r}")
