"""The lemma about scaled values: accumulating relative to a running maximum is the plain sum, in any order.

A scaled value is a pair of a scale and a total and stands for ``total * exp(scale)``; the scale may be -inf, and then
the total is 0. One element ``a * exp(e)`` is the pair ``(e, a)``; merging rescales both totals to the larger scale
(Milakov and Gimelshein, Online normalizer calculation for softmax, 2018, section 3). Kernels accumulate elements, tiles
and the cells of a split axis by this one operation, and the proof of a kernel takes them for the plain sum
(``verify.denote``, ``sgraph.scaled``). That this may be done, with empty and fully masked tiles among them, is what is
checked here.

Every statement is a function over any arithmetic. In 50-digit numbers it is evaluated; in z3 terms, on every path
through its comparisons, it is proved over the reals with ``exp`` as a positive homomorphism from sums to products.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import mpmath

from rewrites.check import DIGITS, Verdict

if TYPE_CHECKING:
    import z3

Number = Any
"""A number of one arithmetic: of 50 digits, or a term of z3."""


class Arithmetic:
    """What statements need of numbers besides ``+``, ``-`` and ``*``."""

    def exp(self, x: Number) -> Number:
        """The exponential."""
        raise NotImplementedError

    def at_least(self, x: Number, y: Number) -> bool:
        """Whether ``x >= y``."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Scaled:
    """``total * exp(scale)``."""

    scale: Number | None
    """None for -inf: nothing but -inf has been seen, and the total is 0."""
    total: Number
    """The sum relative to the scale."""


UNIT: Final = Scaled(None, 0)
"""What an empty or fully masked tile gives, and what every accumulator starts from."""

Merge = Callable[[Scaled, Scaled, Arithmetic], Scaled]


def element(exponent: Number | None, factor: Number) -> Scaled:
    """``factor * exp(exponent)``; the exponent is None where it is -inf."""
    return Scaled(exponent, factor) if exponent is not None else UNIT


def plain(x: Scaled, by: Arithmetic) -> Number:
    """The number that a scaled value stands for."""
    return x.total * by.exp(x.scale) if x.scale is not None else 0


def merge(x: Scaled, y: Scaled, by: Arithmetic) -> Scaled:
    """The scaled value of a sum: both totals relative to the larger scale."""
    scale = _larger(x.scale, y.scale, by)
    return Scaled(scale, _rescaled(x, scale, by) + _rescaled(y, scale, by))


def _rescaled(x: Scaled, scale: Number | None, by: Arithmetic) -> Number:
    """The total relative to another scale: ``exp(-inf - scale)`` is 0, also where that is -inf itself."""
    return 0 if x.scale is None or scale is None else x.total * by.exp(x.scale - scale)


@dataclass(frozen=True, slots=True)
class Statement:
    """An equation that holds for all scaled values."""

    name: str
    """Lower case with hyphens."""
    says: str
    """As a person writes it; ``x, y, z`` are scaled values, ``+`` merges them, ``[x]`` is the number it stands for."""
    arity: int
    """Over how many scaled values."""
    sides: Callable[[Merge, Arithmetic, Sequence[Scaled]], tuple[Scaled | Number, Scaled | Number]]
    """Left and right side."""


STATEMENTS: Final[tuple[Statement, ...]] = (
    Statement("unit", "unit + x = x", 1, lambda plus, by, v: (plus(UNIT, v[0], by), v[0])),
    Statement("commutative", "x + y = y + x", 2, lambda plus, by, v: (plus(v[0], v[1], by), plus(v[1], v[0], by))),
    Statement(
        "associative",
        "(x + y) + z = x + (y + z)",
        3,
        lambda plus, by, v: (plus(plus(v[0], v[1], by), v[2], by), plus(v[0], plus(v[1], v[2], by), by)),
    ),
    Statement("unit-is-zero", "[unit] = 0", 0, lambda _, by, v: (plain(UNIT, by), 0)),
    Statement(
        "homomorphism",
        "[x + y] = [x] + [y]",
        2,
        lambda plus, by, v: (plain(plus(v[0], v[1], by), by), plain(v[0], by) + plain(v[1], by)),
    ),
    Statement(
        "step",
        "[x + (e, a)] = [x] + a * exp(e), and [x] where e = -inf",
        2,
        lambda plus, by, v: (
            plain(plus(v[0], element(v[1].scale, v[1].total), by), by),
            plain(v[0], by) + (v[1].total * by.exp(v[1].scale) if v[1].scale is not None else 0),
        ),
    ),
    Statement(
        "scale-is-the-maximum",
        "scale of x + y = max(scale of x, scale of y)",
        2,
        lambda plus, by, v: (Scaled(plus(v[0], v[1], by).scale, 0), Scaled(_larger(v[0].scale, v[1].scale, by), 0)),
    ),
)
"""Together: a fold over elements, tiles and cells in any grouping and order is ``(max e, sum(a * exp(e - max e)))``.

By induction on the number of elements, with ``unit-is-zero`` and ``step``, it stands for the plain sum; by
``associative``, ``commutative`` and ``unit``, tiles and cells may come in any grouping and order, empty ones included;
its scale is the maximum of the exponents, so that no exponential above 1 is ever taken.
"""


def _larger(x: Number | None, y: Number | None, by: Arithmetic) -> Number | None:
    if x is None or y is None:
        return y if x is None else x
    return x if by.at_least(x, y) else y


@dataclass(frozen=True, slots=True)
class StatementReport:
    """What the check of one statement found."""

    statement: Statement
    """The statement."""
    verdict: Verdict
    """Whether it holds."""
    reason: str
    """How it was proved, where it fails, or why there is no proof."""


def check(statement: Statement, plus: Merge = merge, seed: int = 0) -> StatementReport:
    """Evaluates a statement in 50 digits, then proves it. The same seed tries the same numbers."""
    found = _counterexample(statement, plus, random.Random(f"{statement.name}/{seed}"))
    if found:
        return StatementReport(statement, Verdict.REFUTED, found)
    unproved = _unproved_path(statement, plus)
    if unproved:
        return StatementReport(statement, Verdict.UNKNOWN, unproved)
    return StatementReport(statement, Verdict.PROVED, "z3 over the reals, on every path")


# ------------------------------------------------------------------------------------------------- evaluation

_DRAWS: Final = 200


class _Digits(Arithmetic):
    """Numbers of 50 digits."""

    def exp(self, x: Number) -> Number:
        return mpmath.exp(x)

    def at_least(self, x: Number, y: Number) -> bool:
        return bool(x >= y)


def _counterexample(statement: Statement, plus: Merge, chance: random.Random) -> str:
    """Scaled values for which the sides differ, as text; empty if none was found."""
    with mpmath.workdps(DIGITS):
        for _ in range(_DRAWS):
            values = [_drawn(chance) for _ in range(statement.arity)]
            left, right = statement.sides(plus, _Digits(), values)
            if not _agree(left, right):
                return f"left = {left}, right = {right} for {values}"
    return ""


def _drawn(chance: random.Random) -> Scaled:
    """A scaled value: a quarter of them the unit, scales far apart and equal ones among them."""
    if chance.random() < 0.25:
        return UNIT
    scale = chance.choice([chance.uniform(-40, 40), float(chance.randint(-2, 2))])
    return Scaled(mpmath.mpf(scale), mpmath.mpf(chance.uniform(-3, 3)))


def _agree(left: Scaled | Number, right: Scaled | Number) -> bool:
    if isinstance(left, Scaled) and isinstance(right, Scaled):
        if left.scale is None or right.scale is None:
            return left.scale is right.scale and _agree(left.total, right.total)
        return _agree(left.scale, right.scale) and _agree(left.total, right.total)
    a, b = cast("tuple[Number, Number]", (left, right))
    return bool(abs(a - b) <= mpmath.mpf(10) ** (15 - DIGITS) * (1 + abs(a) + abs(b)))


# ------------------------------------------------------------------------------------------------------ proof


@dataclass(slots=True)
class _Path(Arithmetic):
    """Terms of z3 on one path: comparisons go as decided, and are assumed."""

    decisions: Sequence[bool]
    """How the first comparisons go; later ones go one way, which makes them known."""
    taken: list[bool] = field(default_factory=list[bool])
    assumed: list[z3.BoolRef] = field(default_factory=list["z3.BoolRef"])
    exponents: list[z3.ArithRef] = field(default_factory=list["z3.ArithRef"])

    def exp(self, x: Number) -> Number:
        self.exponents.append(_term(x))
        return _exponential(_term(x))

    def at_least(self, x: Number, y: Number) -> bool:
        x, y = _term(x), _term(y)
        position = len(self.taken)
        answer = self.decisions[position] if position < len(self.decisions) else True
        self.taken.append(answer)
        self.assumed.append(cast("z3.BoolRef", x >= y if answer else x < y))
        return answer

    def axioms(self) -> list[z3.BoolRef]:
        """A positive homomorphism, for the exponents that occur."""
        import z3

        found: list[Any] = [_exponential(z3.RealVal(0)) == 1]
        found += [_exponential(x) > 0 for x in self.exponents]
        for x, y in itertools.combinations_with_replacement(self.exponents, 2):
            found.append(_exponential(z3.simplify(x + y)) == _exponential(x) * _exponential(y))
        return cast("list[z3.BoolRef]", found)


def _term(x: Number) -> Number:
    import z3

    return z3.RealVal(0) + x


def _exponential(x: Number) -> Number:
    import z3

    return z3.Function("exp", z3.RealSort(), z3.RealSort())(x)


def _unproved_path(statement: Statement, plus: Merge) -> str:
    """The first path on which z3 finds no proof, as text; empty if all are proved."""
    import z3

    from rewrites.prove import TIMEOUT_MS

    for values, path, left, right in _paths(statement, plus):
        solver = z3.Solver()
        solver.set("timeout", TIMEOUT_MS)
        solver.add(*path.assumed, *path.axioms(), z3.Not(_equal(left, right)))
        if solver.check() != z3.unsat:
            return f"z3 found no proof for {values} where {path.assumed}"
    return ""


def _paths(
    statement: Statement, plus: Merge
) -> Iterator[tuple[Sequence[Scaled], _Path, Scaled | Number, Scaled | Number]]:
    """Both sides on every path: each value the unit or not, each comparison either way."""
    import z3

    for units in itertools.product((False, True), repeat=statement.arity):
        values = [
            UNIT if unit else Scaled(z3.Real(f"{name} scale"), z3.Real(f"{name} total"))
            for unit, name in zip(units, "xyz", strict=False)
        ]
        waiting: list[tuple[bool, ...]] = [()]
        while waiting:
            decisions = waiting.pop()
            path = _Path(decisions)
            left, right = statement.sides(plus, path, values)
            waiting += [(*path.taken[:i], False) for i in range(len(decisions), len(path.taken))]
            yield values, path, left, right


def _equal(left: Scaled | Number, right: Scaled | Number) -> Any:
    import z3

    if isinstance(left, Scaled) and isinstance(right, Scaled):
        if left.scale is None or right.scale is None:
            return z3.And(left.scale is right.scale, _equal(left.total, right.total))
        return z3.And(_equal(left.scale, right.scale), _equal(left.total, right.total))
    return _term(left) == _term(right)
