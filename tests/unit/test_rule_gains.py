"""What the rules for bounds, minima and logarithms are worth: each adds a program that is not found without it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rewrites.audit import audit
from rewrites.rules import RULES, Rule
from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.dags import Work, work
from sgraph.expr import Expr, const, exp, log, max_over, maximum, min_over, minimum, recip, sum_over
from sgraph.generate import SearchLimits, generate
from sgraph.plans import PlanLimits
from sgraph.program import Program
from tests.programs import H200, LARGE, program, rms, sizes_of, tensor

M, K = Axis("m", LARGE["m"]), Axis("k", LARGE["k"])
X, G, S = tensor("x", M, K), tensor("g", K), tensor("s", M)
x, g, s = X.read(), G.read(), S.read()
normed = x * rms(x, K) * g


def row(name: str, value: Expr, *axes: Axis) -> Program:
    inputs = tuple(t for t in (X, G, S) if t.name in str(value))
    return program(name, inputs, (tensor("out", *axes), value))


PROGRAMS = {
    "range of a normed row": row("range", max_over(K, normed) - min_over(K, normed), M),
    "minimum of a shifted row": row("shifted", min_over(K, x - s), M),
    "minimum of a broadcast": row("broadcast", min_over(K, s) + sum_over(K, x), M),
    "relu and max-pool of a normed row": row("relu", max_over(K, maximum(normed, const(0))), M),
    "relu6 and max-pool of a normed row": row("relu6", max_over(K, minimum(maximum(normed, const(0)), const(6))), M),
    "relu6 and min-pool of a normed row": row("low", min_over(K, minimum(maximum(normed, const(0)), const(6))), M),
    "log of a softmax": row("logits", log(exp(x) * recip(sum_over(K, exp(x)))), M, K),
    "logsumexp of a shifted row": row("lse", log(sum_over(K, exp(x + s))), M),
}
ADDED = {
    "min-constant": "minimum of a broadcast",
    "min-add": "minimum of a shifted row",
    "min-scale": "range of a normed row",
    "max2-comm": "relu and max-pool of a normed row",
    "min2-comm": "relu6 and max-pool of a normed row",
    "max-floor": "relu and max-pool of a normed row",
    "max-ceiling": "relu6 and max-pool of a normed row",
    "min-floor": "relu6 and min-pool of a normed row",
    "min-ceiling": "relu6 and min-pool of a normed row",
    "log-mul": "logsumexp of a shifted row",
    "log-recip": "log of a softmax",
    "log-exp": "log of a softmax",
}
"""For each rule a program that gains by it.

Left out for want of one: the interchange of two minima, what moves reductions, products or exponentials in or out of
``where`` or a maximum out of ``exp``, and other associations of the larger and the smaller of three.
"""


def bodies(p: Program, rules: Sequence[Rule]) -> dict[str, Expr]:
    """What the one-kernel families compute, by its text."""
    table = saturate([o.value for o in p.outputs], rules=rules)
    found = generate(p, table, H200, sizes_of(p), SearchLimits(PlanLimits(stored=0)))
    values = [store.value for f in found.families for kernel in f.graph.kernels for store in kernel.stores]
    return {str(value): value for value in values}


@pytest.mark.parametrize(("name", "title"), ADDED.items(), ids=list(ADDED))
def test_a_rule_adds_a_program(name: str, title: str) -> None:
    p = PROGRAMS[title]
    with_it, without = bodies(p, RULES), bodies(p, [r for r in RULES if r.name != name])
    added = with_it.keys() - without.keys()
    assert added, "no family is new"
    sizes = sizes_of(p)
    before = min(cost(work([v], sizes)) for v in without.values())
    assert min(cost(work([with_it[text]], sizes)) for text in added) <= before, "and it does not do more"


def cost(of: Work) -> tuple[int, int]:
    """Longest chain of waiting reductions, then element-wise work."""
    return max(of.passes.values(), default=0), of.pointwise + of.flops


def test_the_range_of_a_normed_row_takes_one_pass() -> None:
    (value,) = bodies(PROGRAMS["range of a normed row"], RULES).values()
    assert max(work([value], sizes_of(PROGRAMS["range of a normed row"])).passes.values()) == 1


def test_the_log_of_a_softmax_takes_one_logarithm_per_row() -> None:
    assert list(bodies(PROGRAMS["log of a softmax"], RULES)) == ["x[m,k] - log(sum[k](exp(x[m,k])))"]


@pytest.mark.parametrize("p", PROGRAMS.values(), ids=list(PROGRAMS))
def test_their_tables_agree_with_random_tensors(p: Program) -> None:
    report = audit(saturate([o.value for o in p.outputs]))
    assert report.passed, report.disagreements[:3]
