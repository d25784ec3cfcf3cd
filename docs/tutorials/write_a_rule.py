# %% [markdown]
# # Write a rule
#
# The search knows what may be rewritten into what from rules, which are data (`docs/rules.md` lists them). A rule of
# your own goes through the same door as ours: it is evaluated in fifty digits, proved for all values and extents, and
# each of its conditions must be needed. A wrong one is refused with numbers that show it.

# %%
from rewrites.check import check_rule
from rewrites.rules import RULES, Rule, Term, Variable
from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.errors import SaturationFailed
from sgraph.expr import Op, leaf, maximum


def larger(first: Variable | Term, second: Variable | Term) -> Term:
    """The larger of two."""
    return Term(Op.MAX2, (first, second))


a, b, c = Variable("a"), Variable("b"), Variable("c")
regrouped = Rule("max2-assoc", larger(a, larger(b, c)), larger(larger(a, b), c))
report = check_rule(regrouped)
print(regrouped, report.verdict, report.reason, sep="\n")

# %% [markdown]
# With it, saturation puts both writings into one class of equal values.

# %%
x, y, z = (leaf(name, [Axis("m", 16)]) for name in "xyz")
table = saturate([maximum(x, maximum(y, z))], rules=[*RULES, regrouped])
assert table.lookup(maximum(maximum(x, y), z)) == table.roots[0]

# %% [markdown]
# A slip of the pen does not get in.

# %%
try:
    saturate([x + y], rules=[*RULES, Rule("slip", a + b, a * b)])
except SaturationFailed as refused:
    print(refused)
else:
    raise AssertionError("a wrong rule was taken")
