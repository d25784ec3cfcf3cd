"""The rule records: their text, their page, and what becomes of them in the engine."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rewrites.language import preamble, rule_lines
from rewrites.rules import (
    RULES,
    AxisVariable,
    Pattern,
    Rule,
    Term,
    Variable,
    axis_variables,
    constant,
    extent_of,
    nonempty,
    not_free,
    reduce_over,
    unary,
    variables,
)
from rewrites.rules_doc import render
from rewrites.scaled_lemma import STATEMENTS
from sgraph.errors import SaturationFailed
from sgraph.expr import Op

a, b, c = Variable("a"), Variable("b"), Variable("c")
k = AxisVariable("k")


def rule_named(name: str) -> Rule:
    return next(r for r in RULES if r.name == name)


def test_names_are_unique_and_every_rule_has_a_reference() -> None:
    assert len({r.name for r in RULES}) == len(RULES)
    assert all(r.reference for r in RULES)


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        (a * (b + c), "a * (b + c)"),
        (a * b + c, "a * b + c"),
        (a + (b + c), "a + (b + c)"),
        (a * b * c, "a * b * c"),
        (unary(Op.RECIP, a * b), "1/(a * b)"),
        (unary(Op.RECIP, unary(Op.RECIP, a)), "1/(1/a)"),
        (constant(-1) * a, "(-1) * a"),
        (reduce_over(Op.SUM, k, unary(Op.EXP, a)), "sum(k, exp(a))"),
        (extent_of(k), "extent(k)"),
        (Term(Op.NEG_INF), "-inf"),
    ],
)
def test_patterns_print_as_a_person_writes_them(pattern: Term, shown: str) -> None:
    assert str(pattern) == shown


def test_a_rule_prints_before_after_and_conditions() -> None:
    assert str(rule_named("sum-factor")) == (
        "sum(k, a * b)  <->  a * sum(k, b)  when k is not free in a, k is not empty"
    )
    assert str(rule_named("recip-recip")) == "1/(1/a)  ->  a  when a > 0"


def test_variables_come_in_order_of_appearance() -> None:
    pattern = reduce_over(Op.SUM, k, b * (a + b))
    assert variables(pattern) == (b, a)
    assert axis_variables(pattern) == (k,)


def test_a_rule_becomes_guarded_rewrites_one_per_direction() -> None:
    out, back = rule_lines(rule_named("sum-factor"))
    guard = ":when ((= 0 (& axis_k (free of_a))) (Nonempty axis_k) (Factor of_a)) :ruleset rewriting)"
    assert out == f"(rewrite (Sum axis_k (Mul of_a of_b)) (Mul of_a (Sum axis_k of_b)) {guard}"
    assert back == f"(rewrite (Mul of_a (Sum axis_k of_b)) (Sum axis_k (Mul of_a of_b)) {guard}"


def occurrences(pattern: Pattern) -> Counter[Variable]:
    match pattern:
        case Variable():
            return Counter([pattern])
        case Term(_, args, _):
            return sum((occurrences(x) for x in args), Counter[Variable]())
        case _:
            raise AssertionError(pattern)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_every_rule_keeps_the_multiset_of_its_variables(rule: Rule) -> None:
    # x * (1/x), a - a, sqrt(a) * sqrt(a), a * (b + c): next to commutativity each of them never ends.
    assert occurrences(rule.left) == occurrences(rule.right)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (Rule("unbound", a * b, a * c), "does not bind c"),
        (Rule("unbound-back", constant(0) * a, constant(0), both_ways=True), "does not bind a"),
        (Rule("everything", a, constant(1) * a), "matches everything"),
        (Rule("axis", a + b, b + a, (nonempty(k),)), "does not bind k"),
        (Rule("unbound-axis", reduce_over(Op.SUM, k, a), extent_of(AxisVariable("j")) * a), "does not bind j"),
        (Rule("fold", constant(2) * a, a + a), "const with 2"),
    ],
)
def test_a_rule_the_engine_cannot_run_is_refused(wrong: Rule, complaint: str) -> None:
    with pytest.raises(SaturationFailed, match=complaint):
        preamble([wrong])


def test_the_page_lists_every_rule_with_its_conditions() -> None:
    page = render()
    for rule in RULES:
        (line,) = [x for x in page.splitlines() if x.startswith(f"| {rule.name} ")]
        assert str(rule.left) in line
        assert str(rule.right) in line
        assert rule.reference in line
        assert all(str(condition) in line for condition in rule.when)


def test_the_page_is_the_one_that_is_kept() -> None:
    assert (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8") == render()


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, example, _ = re.split(r"```(?:python)?\n", render())
    exec(example, {})
    refusal = capsys.readouterr().out
    assert "rule slip is wrong" in refusal
    pasted = refusal[refusal.index("from rewrites.check") :].splitlines()[:3]
    rule = Rule("slip", a + b, a * b)
    names: dict[str, object] = {"rule": rule}
    exec("\n".join(pasted[:2]), names)
    left, right = eval(pasted[2], names)
    assert left != right, "what the message shows is a counterexample"


def test_the_page_states_the_lemma_about_scaled_values() -> None:
    assert all(f"`{statement.says}`" in render() for statement in STATEMENTS)


def test_the_page_follows_the_records() -> None:
    changed = replace(rule_named("sum-constant"), when=(not_free(k, a),))
    assert render([changed]) != render([rule_named("sum-constant")])
