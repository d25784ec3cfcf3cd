"""Whatever is read out of a table equals what was put in; and one unsound rule is noticed at each of three gates."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rewrites.audit import audit
from rewrites.check import Verdict, check_rule
from rewrites.rules import RULES, AxisVariable, Rule, Variable, nonempty, not_free, reduce_over, unary
from rewrites.saturate import Limits, saturate
from rewrites.table import Node, Table
from sgraph.axis import Axis
from sgraph.evaluate import numerically_equal
from sgraph.expr import Expr, Op, add, call, const, exp, leaf, make, max_over, mul, recip, sum_over

M, K, N = Axis("m", 2), Axis("k", 3), Axis("n", 2)
LEAVES = (leaf("x", [M, K]), leaf("w", [K, N]), leaf("g", [K]), leaf("v", [M]), const(2), const(-1))
LIMITS = Limits(e_nodes=4000)
DEPTH = 12
"""Nodes below which every choice is the smallest expression, so that reading ends."""


def positive(e: Expr) -> Expr:
    """A reciprocal that is defined everywhere."""
    return recip(e * e + 1)


def opaque(e: Expr) -> Expr:
    """A function that the algebra keeps whole."""
    return call("silu", e)


def grown(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    """Operators over smaller terms."""
    axes = st.sampled_from((M, K, N))
    return st.one_of(
        st.builds(mul, inner, inner),
        st.builds(mul, inner, inner),
        st.builds(add, inner, inner),
        st.builds(exp, inner),
        st.builds(positive, inner),
        st.builds(opaque, inner),
        st.builds(sum_over, axes, inner),
        st.builds(sum_over, axes, inner),
        st.builds(max_over, axes, inner),
    )


TERMS = st.recursive(st.sampled_from(LEAVES), grown, max_leaves=6)


def read_out(table: Table, cls: int, chance: random.Random) -> Expr:
    """A random expression of a class: any of its nodes down to a depth, the smallest below."""
    built: dict[tuple[int, int], Expr] = {}
    chosen: dict[tuple[int, int], Node] = {}
    stack = [(cls, 0)]
    while stack:
        current = stack[-1]
        here, depth = current
        if current not in chosen:
            nodes = table.nodes(here)
            chosen[current] = chance.choice(nodes) if depth < DEPTH else table.smallest(here)
        entry = chosen[current]
        operands = [(a, depth + 1) for a in entry.args]
        missing = [o for o in operands if o not in built]
        if missing:
            stack.extend(missing)
        else:
            built[stack.pop()] = make(entry.op, tuple(built[o] for o in operands), entry.attr)
    return built[cls, 0]


def check_readings(value: Expr, rules: Sequence[Rule] = RULES, readings: int = 3) -> None:
    """Fails unless what is read out of the value's table is defined and equal wherever the value is."""
    table = saturate([value], rules=rules, limits=LIMITS)
    for seed in range(readings):
        found = read_out(table, table.roots[0], random.Random(seed))
        witness = numerically_equal(value, found, trials=6)
        assert witness is None, f"{value}\nis not\n{found}\n{witness}"


@settings(max_examples=60, derandomize=True, deadline=None)
@given(TERMS)
def test_what_is_read_out_of_a_table_equals_the_value(value: Expr) -> None:
    check_readings(value)


# ---------------------------------------------------------------------------------- an unsound rule, injected

a, b = Variable("a"), Variable("b")
k = AxisVariable("k")
INJECTED = (
    Rule(
        "factor-anything",
        reduce_over(Op.SUM, k, a * b),
        a * reduce_over(Op.SUM, k, b),
        (nonempty(k),),
    ),
    Rule("exp-of-sum", unary(Op.EXP, reduce_over(Op.SUM, k, a)), reduce_over(Op.SUM, k, unary(Op.EXP, a))),
    Rule("max-of-product", reduce_over(Op.MAX, k, a * b), a * reduce_over(Op.MAX, k, b), (not_free(k, a), nonempty(k))),
)
"""Each is one slip away from a rule that is right."""
CARRIERS = {
    "factor-anything": sum_over(K, LEAVES[0] * LEAVES[1] * LEAVES[2]),
    "exp-of-sum": exp(sum_over(K, LEAVES[0])) * LEAVES[3],
    "max-of-product": max_over(K, LEAVES[3] * LEAVES[0]) + LEAVES[3],
}
"""For each a value on which it fires."""


def unchecked(rules: Sequence[Rule]) -> None:
    """The door that keeps wrong rules out, left open."""
    assert any(rule not in RULES for rule in rules)


@pytest.fixture(params=INJECTED, ids=lambda rule: rule.name)
def injected(request: pytest.FixtureRequest) -> Rule:
    rule = request.param
    assert isinstance(rule, Rule)
    return rule


def test_an_unsound_rule_fails_the_rule_check(injected: Rule) -> None:
    report = check_rule(injected)
    assert report.verdict is Verdict.REFUTED
    assert not report.passed
    assert report.counterexample is not None


def test_an_unsound_rule_fails_the_audit_of_the_table(injected: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    value = CARRIERS[injected.name]
    assert audit(saturate([value], limits=LIMITS)).passed
    monkeypatch.setattr("rewrites.saturate._require_checked", unchecked)
    assert not audit(saturate([value], rules=[*RULES, injected], limits=LIMITS)).passed


def test_an_unsound_rule_fails_the_property(injected: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewrites.saturate._require_checked", unchecked)

    @settings(max_examples=200, derandomize=True, deadline=None, phases=[Phase.generate])
    @given(TERMS)
    def readings_equal_the_value(value: Expr) -> None:
        check_readings(value, [*RULES, injected])

    with pytest.raises(AssertionError, match="is not"):
        readings_equal_the_value()
