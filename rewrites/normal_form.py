"""The normal form of expressions, and the one decision whether two of them are equal.

A sum of products over named axes in the style of SPORES (Wang et al., VLDB 2020), with rational exponents, ``exp``
as a homomorphism and canonical bound axes. It is the only home of cancellation, distributivity, constants and
renaming of bound axes. *Equal* is directional: wherever the left side (the specification) is defined, the right
side is defined and has the same value. Minus infinity may meet ``+``, where it absorbs what is added, ``max`` and
``exp`` only.

It proves and never guesses: equal normal forms and implied definedness are a proof. Different normal forms are no
disproof, for it does not factor polynomials, brings fractions over a common denominator only where they stand
outermost, and takes no function of a maximum by cases. ``docs/proving.md`` lists what remains open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Final

from rewrites.atoms import (
    ONE,
    Element,
    Infinity,
    Length,
    Polynomial,
    Position,
    atom,
    constant,
    exact,
    power_of,
    sign_of,
)
from rewrites.conditions import MAX_CONDITIONS
from rewrites.definedness import (
    Domain,
    Need,
    Obligation,
    Obligations,
    at_every_index,
    by_condition,
    finite,
    nonnegative,
    nonzero,
)
from rewrites.emptiness import cases, possibly_empty, splits_possibly_empty
from rewrites.polynomial import GaveUp, Note
from rewrites.polynomial_text import text
from rewrites.reductions import Reducer
from sgraph.axis import Axis
from sgraph.expr import Expr, Op, Read, Sign, bound_axes, walk

__all__ = ["Comparison", "GaveUp", "NormalForm", "Polynomial", "compare"]

TOTAL_CALLS: Final = frozenset(
    {"sigmoid", "silu", "relu", "abs", "tanh", "erf", "softplus", "gelu", "gelu_tanh", "sin", "cos", "floor", "round"}
)
"""Functions with a value at every real number; of any other the candidate may use no more than the specification."""
MAX_EMPTY: Final = 4
"""Axes that may be empty of which every combination is compared."""
REMEMBERED: Final = 64
"""Specifications whose normal forms are kept from one comparison to the next."""
SHOWN: Final = 400
"""Characters of a polynomial that facts and reasons show."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found out about two expressions."""

    equal: bool
    """Proved: the right side is defined and equal wherever the left side is defined."""
    decided: bool
    """False where a limit was reached; the reason says which."""
    reason: str
    """Why, in a sentence."""
    facts: tuple[str, ...] = ()
    """Every fact on signs, zeros and emptiness that the proof rests on."""


@dataclass(frozen=True, slots=True)
class _Normal:
    """An expression's normal form, where it is defined, and which sign facts its normalisation used."""

    polynomial: Polynomial
    obligations: Obligations = frozenset()
    notes: frozenset[Note] = frozenset()


class NormalForm:
    """Normal forms of expressions, remembered. Deterministic: nothing depends on the process or on what was asked."""

    def __init__(self, nonnegative: frozenset[Polynomial] = frozenset()) -> None:
        self._algebra = Reducer(nonnegative)
        self._memory: dict[Expr, _Normal] = {}

    def copy(self) -> NormalForm:
        """One with the same memory, to which what comes later does not get back."""
        made = NormalForm()
        made._algebra, made._memory = self._algebra.copy(), dict(self._memory)
        return made

    def of(self, e: Expr) -> Polynomial:
        """The normal form; expressions with equal ones are equal wherever both are defined and no axis is empty.

        Raises:
            GaveUp: it is larger than the limits of ``rewrites.polynomial``.
        """
        self._algebra.restart()
        return self._guarded(e).polynomial

    def text(self, p: Polynomial) -> str:
        """A normal form as a person reads it."""
        return text(p)

    def compare(self, left: Expr, right: Expr) -> Comparison:
        """Whether ``right`` is defined and equal wherever ``left`` is defined."""
        self._algebra.restart()
        return _compared(left, right, self.decide)

    def decide(self, left: Expr, right: Expr) -> Comparison | None:
        """The comparison where no axis is empty; None if the left side is undefined."""
        found = self._decide_once(left, right)
        if found is None or found.equal:
            return found
        # Where the left side is defined what it takes roots of is not negative: look again, knowing that.
        roots = self._roots(left, right)
        return _prepared(left, roots).copy()._decide_once(left, right) if roots else found

    def _decide_once(self, left: Expr, right: Expr) -> Comparison | None:
        spec, candidate = self._guarded(left), self._guarded(right)
        if any(_impossible(o) for o in spec.obligations):
            return None
        difference = self._algebra.subtract(spec.polynomial, candidate.polynomial)
        if difference and self._algebra.cleared(difference) and not self._algebra.same_largest(difference):
            return Comparison(False, True, f"the normal forms differ by {_short(difference)}")
        domain = Domain(self._algebra, spec.obligations)
        for o in _in_order(candidate.obligations):
            if not domain.implies(o):
                reason = f"the right side needs that {_phrase(o)}, which does not follow from the left side"
                return Comparison(False, True, reason)
        notes = {n for node in walk([left, right]) for n in self._memory[node].notes}
        return Comparison(True, True, "the normal forms are equal", _facts(spec, candidate, domain, notes))

    def _roots(self, left: Expr, right: Expr) -> frozenset[Polynomial]:
        """What is of unknown sign and yet not negative wherever ``left`` is defined: atoms, and sums.

        Only those over axes that are bound nowhere: at other indices of an axis they may be negative.
        """
        bound = {a.name for a in bound_axes([left, right])}
        return frozenset(
            o.subject
            for o in self._memory[left].obligations
            if o.need is Need.NONNEGATIVE
            and sign_of(o.subject) is Sign.ANY
            and not (o.bound or o.under)
            and (len(o.subject) > 1 or o.subject in map(power_of, o.subject.atoms))
            and not bound & {x.name for x in o.subject.free}
        )

    def _guarded(self, e: Expr) -> _Normal:
        try:
            for node in walk([e]):
                if node not in self._memory:
                    self._algebra.notes = set()
                    self._memory[node] = self._normal(node)
        except RecursionError as cause:
            raise GaveUp("the expression is nested too deeply") from cause
        return self._memory[e]

    def _normal(self, node: Expr) -> _Normal:
        operands = [self._memory[a] for a in node.args]
        polynomials = [o.polynomial for o in operands]
        value = self._value(node, polynomials)
        needs = self._needs(node, polynomials)
        if node.op is Op.WHERE:
            needs |= operands[0].obligations
            for o, holds in zip(operands[1:], (True, False), strict=True):
                needs |= self._taken(o.obligations, polynomials[0], holds)
        else:
            needs = needs.union(*(o.obligations for o in operands))
        if node.op in (Op.SUM, Op.MAX, Op.MIN):
            needs = at_every_index(needs, node.axis)
        return _Normal(value, needs, frozenset(self._algebra.notes))

    def _value(self, node: Expr, operands: list[Polynomial]) -> Polynomial:
        algebra = self._algebra
        match node.op, operands:
            case Op.LEAF, _:
                assert isinstance(node.attr, Read)
                return power_of(atom(Element(node.attr)))
            case Op.CONST, _:
                return constant(exact(node.value))
            case Op.NEG_INF, _:
                return power_of(atom(Infinity()))
            case Op.EXTENT, _:
                return power_of(atom(Length(node.axis.base)))
            case Op.INDEX, _:
                return power_of(atom(Position(node.axis)))
            case Op.ADD, (p, q):
                return algebra.plus(p, q)
            case Op.MUL, (p, q):
                return algebra.times(p, q)
            case Op.RECIP, (p,):
                return algebra.power(p, -1)
            case Op.SQRT, (p,):
                return algebra.power(p, Fraction(1, 2))
            case Op.EXP, (p,):
                return algebra.exp(p)
            case Op.LOG, (p,):
                return algebra.log(p)
            case Op.CALL, (p,):
                return algebra.call(node.name, p)
            case Op.MAX2, (p, q):
                return algebra.larger([p, q])
            case Op.MIN2, (p, q):
                return algebra.scale(algebra.larger([algebra.scale(p, -1), algebra.scale(q, -1)]), -1)
            case ((Op.LT | Op.LE | Op.EQ), _):
                p, q = operands
                return algebra.compared(node.op, p, q)
            case Op.WHERE, (test, p, q):
                return algebra.where(test, p, q)
            case Op.SUM, (p,):
                return algebra.sum_over([node.axis], p)
            case Op.MAX, (p,):
                return algebra.max_over([node.axis], p)
            case Op.MIN, (p,):
                return algebra.scale(algebra.max_over([node.axis], algebra.scale(p, -1)), -1)
            case _:
                raise AssertionError(f"{node.op} with {len(operands)} operands")

    def _taken(self, obligations: Obligations, test: Polynomial, holds: bool) -> Obligations:
        """The obligations of a branch of ``where`` that is taken where ``test`` is 1, or where it is 0."""
        if not obligations or not test.conditions:
            return obligations if holds is (test == ONE) else frozenset()
        return by_condition(self._algebra, test, lambda case: self._taken(obligations, case, holds))

    def _needs_by_cases(self, node: Expr, operands: list[Polynomial]) -> Obligations:
        """What the node needs of each case of an operand that depends on conditions."""
        if len({c for p in operands for c in p.conditions}) > MAX_CONDITIONS:
            raise GaveUp(f"more than {MAX_CONDITIONS} conditions of one value")
        place = next(i for i, p in enumerate(operands) if p.conditions)

        def needed(case: Polynomial) -> Obligations:
            return self._needs(node, [*operands[:place], case, *operands[place + 1 :]])

        return by_condition(self._algebra, operands[place], needed)

    def _needs(self, node: Expr, operands: list[Polynomial]) -> Obligations:
        """What the node itself needs of its operands to be defined."""
        algebra, signs = self._algebra, [a.sign for a in node.args]
        if any(p.conditions for p in operands) and _is_partial(node):
            return self._needs_by_cases(node, operands)
        match node.op:
            case Op.RECIP:
                known = nonnegative(algebra, operands[0], known=True) if signs[0] is not Sign.ANY else frozenset()
                needs = nonzero(algebra, operands[0], known=signs[0] is Sign.POSITIVE) | known
            case Op.SQRT:
                needs = nonnegative(algebra, operands[0], known=signs[0] is not Sign.ANY)
            case Op.LOG:
                needs = nonzero(algebra, operands[0], known=signs[0] is Sign.POSITIVE)
                needs |= nonnegative(algebra, operands[0], known=signs[0] is not Sign.ANY)
            case Op.CALL if node.name not in TOTAL_CALLS:
                value = algebra.call(node.name, operands[0])
                needs = frozenset({Obligation(Need.IN_DOMAIN, value)})
            case Op.MUL | Op.CALL | Op.SUM | Op.MIN | Op.MIN2 | Op.LT | Op.LE | Op.EQ:
                needs = frozenset[Obligation]()
            case _:
                return frozenset()
        return needs.union(*(finite(p) for a, p in zip(node.args, operands, strict=True) if not a.finite))


def compare(left: Expr, right: Expr) -> Comparison:
    """Whether ``right`` is defined and equal wherever ``left``, the specification, is defined."""

    def decide(spec: Expr, candidate: Expr) -> Comparison | None:
        return _prepared(spec, frozenset()).copy().decide(spec, candidate)

    return _compared(left, right, decide)


def _compared(left: Expr, right: Expr, decide: Callable[[Expr, Expr], Comparison | None]) -> Comparison:
    """Every case in which axes may be empty, decided; ``decide`` answers None where the left side is undefined."""
    if splits_possibly_empty(left, right) or len(possibly_empty(left, right)) > MAX_EMPTY:
        return Comparison(False, False, "gave up: an axis that is split, or one of many, may be empty")
    facts: set[str] = set()
    somewhere = False
    for case in cases(left, right):
        try:
            found = decide(case.left, case.right)
        except GaveUp as limit:
            return Comparison(False, False, f"gave up: {limit}")
        except RecursionError:
            return Comparison(False, False, "gave up: the expressions are nested too deeply")
        if found is None:
            continue
        where = f", if {' and '.join(case.empty)} is empty" if case.empty else ""
        if not found.equal:
            return replace(found, reason=found.reason + where)
        facts |= {f"{f}{where}" for f in found.facts}
        somewhere = True
    if not somewhere:
        return Comparison(False, False, "the left side is defined nowhere")
    return Comparison(True, True, "the normal forms are equal", tuple(sorted(facts)))


@lru_cache(maxsize=REMEMBERED)
def _prepared(spec: Expr, nonnegative: frozenset[Polynomial]) -> NormalForm:
    """An algebra that knows a specification, and nothing else: what a candidate finds depends on no other candidate.

    Raises:
        GaveUp: the normal form of the specification is larger than the limits.
    """
    made = NormalForm(nonnegative)
    made.of(spec)
    return made


# ---------------------------------------------------------------------------------------------- helpers


def _impossible(o: Obligation) -> bool:
    if o.under:
        return False
    match o.need:
        case Need.NONZERO:
            return not o.subject
        case Need.NONNEGATIVE:
            return sign_of(Polynomial({m: -c for m, c in o.subject.terms.items()})) is Sign.POSITIVE
        case Need.FINITE:
            return any(isinstance(a.form, Infinity) for a in o.subject.atoms)
        case _:
            return False


def _is_partial(node: Expr) -> bool:
    """Whether an operator needs something of operands like these to be defined."""
    match node.op:
        case Op.RECIP | Op.SQRT | Op.LOG:
            return True
        case Op.CALL if node.name not in TOTAL_CALLS:
            return True
        case Op.ADD | Op.EXP | Op.MAX2 | Op.MAX | Op.WHERE:
            return False
        case _:
            return not all(a.finite for a in node.args)


def _in_order(obligations: Obligations) -> list[Obligation]:
    return sorted(obligations, key=lambda o: (o.need, o.subject.key, sorted(o.bound), len(o.under), o.known))


def _short(p: Polynomial) -> str:
    few = p if len(p) <= 6 else Polynomial(dict(p.ordered[:6]))
    written = text(few) + ("" if few is p else f" + {len(p) - 6} more terms")
    return written if len(written) <= SHOWN else f"{written[:SHOWN]} ..."


def _phrase(o: Obligation) -> str:
    index = f" for every {', '.join(map(str, sorted(o.bound)))}" if o.bound else ""
    guard = " where a condition holds" if o.under else ""
    return f"{_short(o.subject)} {o.need.value}{index}{guard}"


def _facts(spec: _Normal, candidate: _Normal, domain: Domain, notes: Iterable[Note]) -> tuple[str, ...]:
    facts: set[str] = set()
    for o in spec.obligations | candidate.obligations:
        if not o.subject.free and o.subject.terms.keys() <= {()}:
            continue  # a number shows its sign
        by_sign = o.known or domain.shows(o)
        given = "wherever the left side is defined"
        facts.add(f"{_phrase(o)}, {'by its sign' if by_sign else given}")
    facts |= {f"{x if isinstance(x, Axis) else _short(x)} {phrase}" for phrase, x in notes}
    return tuple(sorted(facts))
