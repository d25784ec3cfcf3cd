"""``docs/rules.md``, rendered from the rule records."""

from __future__ import annotations

from collections.abc import Sequence

from rewrites.rules import RULES, Rule
from rewrites.scaled_lemma import STATEMENTS

_INTRODUCTION = """\
# Rewrite rules

Rendered from `rewrites/rules.py` by `rewrites.rules_doc.render`; do not edit.

A rule adds its right side to the class of its left side wherever the side conditions are known to hold; `<->`
goes both ways. `a`, `b`, `c` stand for any expression, `j`, `k` for any complete axis. Every rule keeps the
multiset of factors and reductions of a term, so that saturation ends; cancellation, distributivity and constant
folding are the business of the normal form.

*One factor* marks variables that match a single factor and never a product. The rule is right without; products then
stand in the table as one factor times the rest, with every factor in front: n * 2^n nodes instead of 3^n, and the same
classes.

Every rule is checked by `rewrites.check.check_rule` on every test run: evaluation in 50 digits with undefined
values and minus infinity, on extents 0 to 3; a proof for all values and extents; and for each side condition a
counterexample without it.
"""


_LEMMA = """\
## Scaled values

Not rules of the table, but checked like them (`rewrites/scaled_lemma.py`): a sum of exponentials is accumulated, merged
over tiles and over cells as pairs of a scale and a total, and proved as the plain sum. `x`, `y`, `z` are pairs, `x + y`
merges them, `[x]` is the number that `x` stands for; the unit is what an empty or fully masked tile gives. Each
statement is evaluated in 50 digits and proved by z3 over the reals on every path through its comparisons.
"""


_YOUR_OWN = """\
## A rule of your own

`rewrites.saturate.saturate` takes rules. One that is not listed above is checked first, and runs only if it is proved
and needs each of its conditions; otherwise `SaturationFailed` says what is wrong. For a wrong rule it shows a
counterexample that can be pasted into Python: `evaluate` gives both sides.

```python
from rewrites.rules import RULES, Rule, Term, Variable
from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.errors import SaturationFailed
from sgraph.expr import Op, leaf, maximum


def larger(first, second):
    return Term(Op.MAX2, (first, second))


a, b, c = Variable("a"), Variable("b"), Variable("c")
regrouped = Rule("max2-assoc", larger(a, larger(b, c)), larger(larger(a, b), c))
x, y, z = (leaf(name, [Axis("m", 16)]) for name in "xyz")
table = saturate([maximum(x, maximum(y, z))], rules=[*RULES, regrouped])
assert table.lookup(maximum(maximum(x, y), z)) == table.roots[0]

try:
    saturate([x + y], rules=[*RULES, Rule("slip", a + b, a * b)])
except SaturationFailed as refused:
    print(refused)
```

A rule can also be checked alone: `rewrites.check.check_rule(rule)` gives the verdict, the reason, the counterexample
and the conditions that it does not need.
"""


def render(rules: Sequence[Rule] = RULES) -> str:
    """The page, as Markdown that ends in a newline."""
    rows = [("rule", "before -> after", "when", "reference")]
    for rule in rules:
        arrow = "<->" if rule.both_ways else "->"
        economy = [f"one factor: `{', '.join(map(str, rule.single))}`"] if rule.single else []
        conditions = "; ".join([*(f"`{c}`" for c in rule.when), *economy]) or "always"
        rows.append((rule.name, f"`{rule.left} {arrow} {rule.right}`", conditions, rule.reference))
    lemma = [("statement", "for all pairs"), *((s.name, f"`{s.says}`") for s in STATEMENTS)]
    return "\n".join([_INTRODUCTION, _table(rows), _LEMMA, _table(lemma), _YOUR_OWN])


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the titles, as a Markdown table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    padded.insert(1, ["-" * width for width in widths])
    return "".join("| " + " | ".join(row) + " |\n" for row in padded)
