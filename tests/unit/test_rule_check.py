"""Every rule is checked; wrong ones are refuted, unnecessary conditions are found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rewrites.check import Case, Verdict, check_rule, evaluate, find_counterexample, require
from rewrites.prove import prove
from rewrites.rules import (
    RULES,
    AxisVariable,
    Condition,
    Pattern,
    Rule,
    Term,
    Variable,
    constant,
    finite,
    nonempty,
    nonnegative,
    not_free,
    positive,
    reduce_over,
    unary,
)
from sgraph.errors import SaturationFailed
from sgraph.expr import Op

a, b = Variable("a"), Variable("b")
j, k = AxisVariable("j"), AxisVariable("k")


def total(axis: AxisVariable, x: Pattern) -> Term:
    return reduce_over(Op.SUM, axis, x)


def largest(axis: AxisVariable, x: Pattern) -> Term:
    return reduce_over(Op.MAX, axis, x)


def smallest(axis: AxisVariable, x: Pattern) -> Term:
    return reduce_over(Op.MIN, axis, x)


def recip(x: Pattern) -> Term:
    return unary(Op.RECIP, x)


def exp(x: Pattern) -> Term:
    return unary(Op.EXP, x)


def sqrt(x: Pattern) -> Term:
    return unary(Op.SQRT, x)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_every_rule_is_proved_and_needs_each_condition(rule: Rule) -> None:
    report = check_rule(rule)
    assert report.verdict is Verdict.PROVED, f"{report.reason}\n{report.counterexample}"
    assert report.unnecessary == ()
    assert report.passed


WRONG = (
    Rule("exp-of-sum", exp(total(k, a)), total(k, exp(a))),
    Rule("root-of-square", sqrt(a * a), a),
    Rule("square-of-root", sqrt(a) * sqrt(a), a),
    Rule("sum-of-product", total(k, a * b), total(k, a) * total(k, b)),
    Rule("sum-constant-without-extent", total(k, a), a, (not_free(k, a), nonempty(k))),
    Rule("max-of-sum", largest(k, total(j, a)), total(j, largest(k, a))),
    Rule("recip-of-sum", recip(a + b), recip(a) + recip(b)),
    Rule("cancel-zero", a * recip(a), constant(1)),
    Rule("zero-times", constant(0) * a, constant(0)),
    Rule("sum-over-wrong-axis", total(k, total(j, a)), total(k, total(k, a))),
    Rule("exp-negate-twice", exp(constant(-1) * a), constant(-1) * exp(a)),
    Rule("max-of-negated", largest(k, constant(-1) * a), constant(-1) * largest(k, a), (nonempty(k), finite(a))),
)


@pytest.mark.parametrize("rule", WRONG, ids=lambda r: r.name)
def test_a_wrong_rule_is_refuted_and_not_proved(rule: Rule) -> None:
    report = check_rule(rule)
    assert report.verdict is Verdict.REFUTED
    assert not report.passed
    assert not prove(rule).proved


@pytest.mark.parametrize(
    ("rule", "condition"),
    [(r, c) for r in RULES for c in r.when],
    ids=lambda x: x.name if isinstance(x, Rule) else str(x),
)
def test_without_one_of_its_conditions_a_rule_is_refuted_and_not_proved(rule: Rule, condition: Condition) -> None:
    mutant = replace(rule, when=tuple(c for c in rule.when if c != condition))
    assert find_counterexample(mutant) is not None
    assert not prove(mutant).proved


def test_a_counterexample_can_be_pasted() -> None:
    rule = WRONG[3]
    counterexample = check_rule(rule).counterexample
    assert counterexample is not None
    *setup, sides = [line for line in str(counterexample).splitlines() if not line.startswith("#")]
    names: dict[str, object] = {"rule": rule}
    exec("\n".join(setup), names)
    left, right = eval(sides, names)
    assert left is None or right is None or abs(left - right) > 1e-9


def test_a_condition_too_many_is_reported() -> None:
    rule = Rule("cautious", a * b, b * a, (positive(b),))
    report = check_rule(rule)
    assert report.verdict is Verdict.PROVED
    assert report.unnecessary == (positive(b),)
    with pytest.raises(SaturationFailed, match=r"does not need: b > 0"):
        require(rule)


def test_a_true_rule_without_a_proof_is_unknown_and_refused() -> None:
    rule = Rule("two-axes", total(j, total(k, a + b)), total(k, total(j, a)) + total(j, total(k, b)))
    assert check_rule(rule).verdict is Verdict.UNKNOWN
    with pytest.raises(SaturationFailed, match="is not proved: two axes"):
        require(rule)


def test_a_wrong_rule_is_refused_with_its_counterexample() -> None:
    with pytest.raises(SaturationFailed, match=r"rule sum-of-product is wrong") as caught:
        require(WRONG[3])
    assert "evaluate(rule.left, case)" in str(caught.value)


def test_a_rule_with_a_function_is_refused() -> None:
    with pytest.raises(SaturationFailed, match="contains call"):
        check_rule(Rule("odd", Term(Op.CALL, (a,), "tanh"), a))


def test_a_good_rule_of_a_user_passes() -> None:
    require(Rule("max2-comm", Term(Op.MAX2, (a, b)), Term(Op.MAX2, (b, a))))
    require(Rule("root-of-root", sqrt(a * a), a, (nonnegative(a),)))
    require(Rule("min-swap", smallest(j, smallest(k, a)), smallest(k, smallest(j, a))))


def test_a_minimum_is_undefined_over_nothing_and_with_minus_infinity() -> None:
    wrong = (
        Rule("min-constant", smallest(k, a), a, (not_free(k, a),)),
        Rule("min-constant", smallest(k, a), a, (not_free(k, a), nonempty(k))),
        Rule("min-add", smallest(k, a + b), a + smallest(k, b), (not_free(k, a),)),
        Rule("min-is-max", smallest(j, largest(k, a)), largest(k, smallest(j, a)), (nonempty(j), nonempty(k))),
    )
    for rule in wrong:
        assert check_rule(rule).verdict is Verdict.REFUTED
        assert not prove(rule).proved


@pytest.mark.parametrize(
    ("pattern", "values", "expected"),
    [
        (a + b, ("-inf", "1"), "-inf"),
        (a + b, ("-inf", "-inf"), "-inf"),
        (a * b, ("0", "-inf"), None),
        (exp(a), ("-inf", "0"), "0.0"),
        (recip(a), ("0", "0"), None),
        (sqrt(a), ("-1", "0"), None),
        (Term(Op.MAX2, (a, b)), ("-inf", "2"), "2.0"),
        (a + b, ("undefined", "1"), None),
        (total(k, a), ("1", "0"), "0.0"),
        (largest(k, a), ("1", "0"), "-inf"),
        (reduce_over(Op.MIN, k, a), ("1", "0"), None),
    ],
)
def test_evaluation_knows_undefined_and_minus_infinity(
    pattern: Pattern, values: tuple[str, str], expected: str | None
) -> None:
    scalars = {name: ((), {(): value}) for name, value in zip("ab", values, strict=True)}
    value = evaluate(pattern, Case(extents={"k": 0}, values=scalars))
    assert (None if value is None else str(value)) == expected


def test_the_same_seed_finds_the_same_counterexample() -> None:
    assert str(find_counterexample(WRONG[0], 3)) == str(find_counterexample(WRONG[0], 3))
