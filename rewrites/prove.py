"""Proofs of rewrite rules for all values and all extents, by z3.

A value is a triple: is it defined, is it minus infinity, which real number. Rules without a reduction are one
query. A reduction is an accumulator that starts at its unit and takes one element per index (a minimum, which is
undefined over no index, starts at the first), so a rule over one axis is proved by induction on the extent.
Interchanging two like reductions is induction on both extents: with ``R`` the inner reduction and ``+`` its step,
``R(c + a) = R(c) + R(a)`` and ``R(unit) = unit`` are lemmas over one axis, and give the step and the base of the
outer induction.

Imports z3; import this module at first use only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import z3

from rewrites.rules import (
    AxisVariable,
    Fact,
    Pattern,
    Rule,
    Term,
    Variable,
    axis_variables,
    constant,
    reduce_over,
    subpatterns,
    variables,
)
from sgraph.expr import REDUCTIONS, Op

TIMEOUT_MS: Final = 5000
"""Time for one query."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of an attempt."""

    proved: bool
    """Whether the rule holds for all values and extents."""
    how: str
    """The method, or the reason why there is no proof."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A partial real number or minus infinity."""

    defined: z3.BoolRef
    low: z3.BoolRef
    real: z3.ArithRef


class _NoMeaning(Exception):
    """The rule uses something the prover has no encoding for."""


def prove(rule: Rule) -> Proof:
    """Tries to prove a rule for all values and extents."""
    axes = axis_variables(rule.left, rule.right)
    try:
        if not axes:
            return _prove_scalar(rule)
        if len(axes) == 1:
            return _prove_by_induction(rule, axes[0])
        return _prove_interchange(rule)
    except _NoMeaning as missing:
        return Proof(False, str(missing))


@dataclass(slots=True)
class _Encoder:
    """Turns patterns into triples and collects what is known of square roots, exponentials and logarithms."""

    outside: Mapping[Variable, _Value]
    """Value of each metavariable outside of every reduction."""
    inside: Mapping[Variable, _Value]
    """Value of each metavariable at the index a reduction has reached."""
    extent: z3.ArithRef
    """Extent of the rule's axis so far."""
    accumulators: dict[Term, _Value]
    """Value of each reduction so far."""
    axioms: list[z3.BoolRef] = field(default_factory=list[z3.BoolRef])
    exponents: list[z3.ArithRef] = field(default_factory=list[z3.ArithRef])
    arguments: list[z3.ArithRef] = field(default_factory=list[z3.ArithRef])
    """Of logarithms."""

    def value(self, pattern: Pattern, *, at_index: bool = False) -> _Value:
        """The triple of a pattern, outside of the reduction or at one of its indices."""
        match pattern:
            case Variable():
                return (self.inside if at_index else self.outside)[pattern]
            case Term(op, _, AxisVariable()) if op in REDUCTIONS and not at_index:
                return self.accumulators[pattern]
            case Term(Op.EXTENT, _, _):
                return _real(self.extent)
            case Term(op, args, attr) if op not in REDUCTIONS:
                return self.applied(op, [self.value(a, at_index=at_index) for a in args], attr)
            case _:
                raise _NoMeaning(f"no encoding for {pattern}")

    def applied(self, op: Op, args: Sequence[_Value], attr: object) -> _Value:
        """The triple of an operator on triples."""
        match op, args:
            case Op.CONST, _:
                return _real(z3.RealVal(str(attr)))
            case Op.NEG_INF, _:
                return _Value(z3.BoolVal(True), z3.BoolVal(True), z3.RealVal(0))
            case Op.ADD, (a, b):
                return _Value(_bool(z3.And(a.defined, b.defined)), _bool(z3.Or(a.low, b.low)), _arith(a.real + b.real))
            case Op.MAX2, (a, b):
                return _larger(a, b)
            case Op.EXP, (a,):
                return _Value(a.defined, z3.BoolVal(False), _arith(z3.If(a.low, z3.RealVal(0), self.exp(a.real))))
            case Op.MUL, (a, b):
                return _strict(args, _arith(a.real * b.real))
            case Op.MIN2, (a, b):
                return _strict(args, _arith(z3.If(a.real <= b.real, a.real, b.real)))
            case Op.RECIP, (a,):
                return _strict(args, _arith(1 / a.real), a.real != 0)
            case Op.SQRT, (a,):
                return _strict(args, self.sqrt(a.real), a.real >= 0)
            case Op.LOG, (a,):
                return _strict(args, self.log(a.real), a.real > 0)
            case _:
                raise _NoMeaning(f"no encoding for {op.value}")

    def exp(self, exponent: z3.ArithRef) -> z3.ArithRef:
        """A positive, strictly increasing homomorphism from addition to multiplication."""
        for other in self.exponents:
            self.axioms.append(_bool(_EXP(exponent + other) == _exp(exponent) * _exp(other)))
            self.axioms.append(_bool((exponent < other) == (_exp(exponent) < _exp(other))))
        self.exponents.append(exponent)
        self.axioms += [_bool(_exp(exponent) > 0), _bool(_exp(exponent) * _exp(_arith(-exponent)) == 1)]
        self.axioms.append(_bool(_EXP(z3.RealVal(0)) == 1))
        return _exp(exponent)

    def sqrt(self, square: z3.ArithRef) -> z3.ArithRef:
        """The nonnegative solution of y * y = x; unique, which is stated for each pair."""
        root = _arith(_SQRT(square))
        self.axioms.append(_bool(z3.Implies(square >= 0, z3.And(root >= 0, root * root == square))))
        return root

    def log(self, argument: z3.ArithRef) -> z3.ArithRef:
        """The inverse of the exponential, a homomorphism from products of positive numbers to sums."""
        result = _arith(_LOG(argument))
        for exponent in self.exponents:
            self.axioms.append(_bool(z3.Implies(argument == _exp(exponent), result == exponent)))
        self.arguments.append(argument)
        for x, y, z in itertools.product(self.arguments, repeat=3):
            whole = z3.And(y > 0, z > 0, x == y * z)
            self.axioms.append(_bool(z3.Implies(whole, _LOG(x) == _arith(_LOG(y)) + _arith(_LOG(z)))))
        for x, y in itertools.product(self.arguments, repeat=2):
            self.axioms.append(_bool(z3.Implies(z3.And(x > 0, x * y == 1), _LOG(x) == -_arith(_LOG(y)))))
        return result


_EXP: Final = z3.Function("exp", z3.RealSort(), z3.RealSort())
_SQRT: Final = z3.Function("sqrt", z3.RealSort(), z3.RealSort())
_LOG: Final = z3.Function("log", z3.RealSort(), z3.RealSort())


def _exp(x: z3.ArithRef) -> z3.ArithRef:
    return _arith(_EXP(x))


def _bool(x: object) -> z3.BoolRef:
    return cast(z3.BoolRef, x)


def _arith(x: object) -> z3.ArithRef:
    return cast(z3.ArithRef, x)


def _real(x: z3.ArithRef) -> _Value:
    return _Value(z3.BoolVal(True), z3.BoolVal(False), x)


def _strict(args: Sequence[_Value], real: z3.ArithRef, domain: object = True) -> _Value:
    """The result of an operator that takes real numbers only."""
    defined = z3.And(*(a.defined for a in args), *(z3.Not(a.low) for a in args), domain)
    return _Value(_bool(defined), z3.BoolVal(False), real)


def _larger(a: _Value, b: _Value) -> _Value:
    real = z3.If(a.low, b.real, z3.If(b.low, a.real, z3.If(a.real >= b.real, a.real, b.real)))
    return _Value(_bool(z3.And(a.defined, b.defined)), _bool(z3.And(a.low, b.low)), _arith(real))


def _equal(a: _Value, b: _Value) -> z3.BoolRef:
    """Defined together, and then the same."""
    same = z3.And(a.low == b.low, z3.Or(a.low, a.real == b.real))
    return _bool(z3.And(a.defined == b.defined, z3.Implies(a.defined, same)))


def _fresh(name: str) -> _Value:
    return _Value(z3.Bool(f"{name} is defined"), z3.Bool(f"{name} is low"), z3.Real(name))


def _assumed(rule: Rule, values: Mapping[Variable, _Value]) -> list[z3.BoolRef]:
    """What the side conditions say of these values; they say nothing where a value is undefined."""
    out: list[z3.BoolRef] = []
    for condition in rule.when:
        if condition.variable is None or condition.fact is Fact.NOT_FREE:
            continue
        value = values[condition.variable]
        known: list[object] = [z3.Not(value.low)]
        if condition.fact is Fact.NONNEGATIVE:
            known.append(value.real >= 0)
        elif condition.fact is Fact.POSITIVE:
            known.append(value.real > 0)
        out.append(_bool(z3.Implies(value.defined, z3.And(*known))))
    return out


def _follows(assumptions: Sequence[z3.BoolRef], goal: z3.BoolRef) -> bool:
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT_MS)
    solver.add(*assumptions, z3.Not(goal))
    return solver.check() == z3.unsat


# ------------------------------------------------------------------------------------------------- methods


def _prove_scalar(rule: Rule) -> Proof:
    values = {v: _fresh(v.name) for v in variables(rule.left, rule.right)}
    encoder = _Encoder(values, values, z3.RealVal(0), {})
    goal = _equal(encoder.value(rule.left), encoder.value(rule.right))
    proved = _follows([*_assumed(rule, values), *encoder.axioms], goal)
    return Proof(proved, "z3 over the reals" if proved else "z3 found no proof over the reals")


def _prove_by_induction(rule: Rule, axis: AxisVariable) -> Proof:
    """Induction on the extent of the only axis: the base, and the step from n to n + 1."""
    names = variables(rule.left, rule.right)
    fixed = {c.variable for c in rule.when if c.fact is Fact.NOT_FREE}
    outside = {v: _fresh(v.name) for v in names}
    inside = {v: outside[v] if v in fixed else _fresh(f"{v.name} at n") for v in names}
    nonempty = any(c.fact is Fact.NONEMPTY for c in rule.when)
    reductions = [p for p in subpatterns(rule.left, rule.right) if isinstance(p, Term) and p.op in REDUCTIONS]
    size = z3.Real("n")

    def sides(extent: z3.ArithRef, accumulators: dict[Term, _Value]) -> z3.BoolRef:
        encoder = _Encoder(outside, inside, extent, accumulators, axioms)
        return _equal(encoder.value(rule.left), encoder.value(rule.right))

    axioms: list[z3.BoolRef] = []
    element = {r: _Encoder(outside, inside, size, {}, axioms).value(r.args[0], at_index=True) for r in reductions}
    given = [*_assumed(rule, outside), *_assumed(rule, inside)]
    unit = {r: _unit(r.op) for r in reductions}
    first = {r: _first(r.op, unit[r], element[r]) for r in reductions}
    # A minimum starts from the first element: nothing goes on from the undefined one over no index.
    starts = {1: first} if nonempty else {0: unit}
    if any(r.op is Op.MIN for r in reductions):
        starts[1] = first
    before = {r: _fresh(f"{r} up to n") for r in reductions}
    after = {r: _accumulated(r.op, before[r], element[r]) for r in reductions}
    for r in reductions:
        if r.op in {Op.SUM, Op.MIN}:
            given.append(_bool(z3.Not(before[r].low)))
        elif nonempty and _follows([*given, *axioms], _never_low(element[r])):
            given.append(_never_low(before[r]))
    bases = {n: sides(z3.RealVal(n), values) for n, values in starts.items()}
    hypothesis, step = sides(size, before), sides(_arith(size + 1), after)
    for n, base in bases.items():
        if not _follows([*given, *axioms], base):
            return Proof(False, f"z3 found no proof for extent {n} of {axis}")
    if not _follows([*given, *axioms, _bool(size >= max(starts)), hypothesis], step):
        return Proof(False, f"z3 found no proof of the step from n to n + 1 of {axis}")
    return Proof(True, f"z3, by induction on the extent of {axis}")


def _never_low(value: _Value) -> z3.BoolRef:
    return _bool(z3.Implies(value.defined, z3.Not(value.low)))


def _first(op: Op, unit: _Value, element: _Value) -> _Value:
    """A reduction over one index; the minimum of minus infinity is undefined."""
    return _strict([element], element.real) if op is Op.MIN else _accumulated(op, unit, element)


def _unit(op: Op) -> _Value:
    """The value of an empty reduction; undefined for a minimum."""
    match op:
        case Op.SUM:
            return _real(z3.RealVal(0))
        case Op.MAX:
            return _Value(z3.BoolVal(True), z3.BoolVal(True), z3.RealVal(0))
        case Op.MIN:
            return _Value(z3.BoolVal(False), z3.BoolVal(False), z3.RealVal(0))
        case _:
            raise _NoMeaning(f"{op.value} is no reduction")


def _accumulated(op: Op, accumulator: _Value, element: _Value) -> _Value:
    if op is Op.MAX:
        return _larger(accumulator, element)
    if op is Op.MIN:
        smaller = z3.If(accumulator.real <= element.real, accumulator.real, element.real)
        return _strict([accumulator, element], _arith(smaller))
    return _strict([accumulator, element], _arith(accumulator.real + element.real))


def _prove_interchange(rule: Rule) -> Proof:
    """Two like reductions in either order, by induction on both extents."""
    match rule.left, rule.right:
        case (
            Term(outer, (Term(inner, (Variable() as body,), AxisVariable() as k),), AxisVariable() as j),
            Term(inner2, (Term(outer2, (body2,), j2),), k2),
        ) if (outer, inner, body, j, k) == (outer2, inner2, body2, j2, k2) and outer is inner and j != k:
            pass
        case _:
            return Proof(False, "two axes, and not the interchange of two like reductions")
    step, unit = _STEPS[inner]
    sofar = Variable("c" if body.name != "c" else "d")
    lemmas = (
        Rule(
            f"{rule.name}, step",
            reduce_over(inner, k, Term(step, (sofar, body))),
            Term(step, (reduce_over(inner, k, sofar), reduce_over(inner, k, body))),
        ),
        Rule(f"{rule.name}, base", reduce_over(inner, k, unit), unit),
    )
    for lemma in lemmas:
        proof = _prove_by_induction(lemma, k)
        if not proof.proved:
            return Proof(False, f"lemma {lemma}: {proof.how}")
    return Proof(True, f"z3, by induction on the extents of {j} and {k}")


_STEPS: Final = {
    Op.SUM: (Op.ADD, constant(0)),
    Op.MAX: (Op.MAX2, Term(Op.NEG_INF)),
    Op.MIN: (Op.MIN2, Term(Op.RECIP, (constant(0),))),
}
"""Per reduction the operator that takes one more element, and the value over no index.

Over no index a minimum is undefined, as ``1/0`` is, and over one it is ``min2(a, a)``, which is undefined at minus
infinity: the interchange over one index of the outer axis is the lemma of the step with both elements the same.
"""
