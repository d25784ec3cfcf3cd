"""``docs/rules.md``, rendered from the rule records."""

from __future__ import annotations

from collections.abc import Sequence

from rewrites.rules import RULES, Rule

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


def render(rules: Sequence[Rule] = RULES) -> str:
    """The page, as Markdown that ends in a newline."""
    rows = [("rule", "before -> after", "when", "reference"), ("----",) * 4]
    for rule in rules:
        arrow = "<->" if rule.both_ways else "->"
        economy = [f"one factor: `{', '.join(map(str, rule.single))}`"] if rule.single else []
        conditions = "; ".join([*(f"`{c}`" for c in rule.when), *economy]) or "always"
        rows.append((rule.name, f"`{rule.left} {arrow} {rule.right}`", conditions, rule.reference))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines: list[str] = []
    for position, row in enumerate(rows):
        fill = "-" if position == 1 else " "
        lines.append("| " + " | ".join(cell.ljust(width, fill) for cell, width in zip(row, widths, strict=True)) + " |")
    return _INTRODUCTION + "\n" + "\n".join(lines) + "\n"
