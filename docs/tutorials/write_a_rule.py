# %% [markdown]
# # Write a rule
#
# The search knows what may be rewritten into what from rules, which are data (`docs/rules.md` lists them). A rule of
# your own goes through the same door as ours: it is evaluated in fifty digits, proved for all values and extents, and
# each of its conditions must be needed. A wrong one is refused with numbers that show it.

# %%
from rewrites.check import check_rule
from rewrites.rules import RULES, AxisVariable, Rule, Variable, nonempty, reduce_over, unary
from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.errors import SaturationFailed
from sgraph.expr import Op, exp, leaf, max_over

a, b, k = Variable("a"), Variable("b"), AxisVariable("k")

# %% [markdown]
# The largest exponential is the exponential of the largest, of at least one number.

# %%
largest = Rule(
    "max-exp",
    reduce_over(Op.MAX, k, unary(Op.EXP, a)),
    unary(Op.EXP, reduce_over(Op.MAX, k, a)),
    (nonempty(k),),
)
print(check_rule(largest))

# %% [markdown]
# With it, saturation puts both into one class of equal values.

# %%
row = Axis("k", 16)
x, y = leaf("x", [row]), leaf("y", [row])
table = saturate([max_over(row, exp(x))], rules=[*RULES, largest])
assert table.lookup(exp(max_over(row, x))) == table.roots[0]

# %% [markdown]
# A slip of the pen does not get in.

# %%
try:
    saturate([x + y], rules=[*RULES, Rule("slip", a + b, a * b)])
except SaturationFailed as refused:
    print(refused)
else:
    raise AssertionError("a wrong rule was taken")
