"""What element-by-element operators mean: arithmetic, unary functions, comparisons, casts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

from prism.frontend.axes import Value, elementwise
from prism.frontend.call import Call, Meaning, meaning
from prism.frontend.trace import Ref
from sgraph.expr import Expr, Op, const, exp, log, make, maximum, minimum, mul, negate, product, recip, rsqrt, sqrt
from sgraph.expr import call as named

LARGEST_POWER: Final = 16
"""Integer powers up to this one are written out as products."""

UNARY: Final[Mapping[str, Callable[[Expr], Expr]]] = {
    **{
        name: lambda x, name=name: named(name, x)
        for name in ("abs", "cos", "erf", "relu", "sigmoid", "silu", "sin", "tanh")
    },
    "exp": exp,
    "expm1": lambda x: exp(x) - 1,
    "log": log,
    "log1p": lambda x: log(1 + x),
    "neg": negate,
    "reciprocal": recip,
    "rsqrt": rsqrt,
    "sqrt": sqrt,
    "square": lambda x: mul(x, x),
}
"""Functions of one element; those called by name stay whole."""

IDENTITY: Final = (
    *("alias", "clone", "contiguous", "detach", "detach_", "lift_fresh_copy", "to", "type_as", "_to_copy", "positive"),
)
"""Copies, and casts between floats: rounding is the numerical contract's concern, not the denotation's."""


def _unary(function: Callable[[Expr], Expr], operand: str = "self") -> Meaning:
    def denote(call: Call) -> Value:
        value = call.tensor(operand)
        return Value(value.dims, function(value.expr))

    return denote


for _name, _function in UNARY.items():
    meaning(_name)(_unary(_function))
meaning("python.neg")(_unary(negate, "0"))
meaning("python.sym_sqrt")(_unary(sqrt, "0"))
meaning("python.sym_float")(_unary(lambda x: x, "0"))


@meaning(*IDENTITY)
def _identity(call: Call) -> Value:
    argument = call.node.arguments["self"]
    assert isinstance(argument, Ref)
    value = call.reference(argument)
    return value if call.boolean else value.numeric()


@meaning("dropout")
def _dropout(call: Call) -> Value:
    if call.flag("train"):
        call.refuse("it draws random numbers in training mode")
    return call.tensor("input")


@meaning("gelu")
def _gelu(call: Call) -> Value:
    name = "gelu_tanh" if call.node.arguments["approximate"] == "tanh" else "gelu"
    return elementwise(call.axes, lambda x: named(name, x), call.tensor("self"))


@meaning("softplus")
def _softplus(call: Call) -> Value:
    # Torch replaces softplus by x itself above the threshold; at 20 that is below a float32's rounding.
    if call.rational("threshold") < 20:
        call.refuse("its threshold is below 20")
    beta = call.rational("beta")
    if beta == 1:
        return elementwise(call.axes, lambda x: named("softplus", x), call.tensor("self"))
    return elementwise(call.axes, lambda x: named("softplus", const(beta) * x) * const(1 / beta), call.tensor("self"))


@meaning("leaky_relu")
def _leaky_relu(call: Call) -> Value:
    slope = call.number("negative_slope")
    return elementwise(
        call.axes, lambda x: make(Op.WHERE, (make(Op.LT, (const(0), x)), x, mul(x, slope))), call.tensor("self")
    )


# ------------------------------------------------------------------------------------- two and three operands


def _scaled(factor: Expr, x: Expr) -> Expr:
    return x if factor is const(1) else mul(factor, x)


@meaning("add")
def _add(call: Call) -> Value:
    alpha = call.number("alpha") if "alpha" in call.node.arguments else const(1)
    return elementwise(call.axes, lambda a, b: a + _scaled(alpha, b), call.tensor("self"), call.tensor("other"))


@meaning("sub")
def _sub(call: Call) -> Value:
    alpha = call.number("alpha") if "alpha" in call.node.arguments else const(1)
    return elementwise(call.axes, lambda a, b: a - _scaled(alpha, b), call.tensor("self"), call.tensor("other"))


@meaning("rsub")
def _rsub(call: Call) -> Value:
    alpha = call.number("alpha")
    return elementwise(call.axes, lambda a, b: b - _scaled(alpha, a), call.tensor("self"), call.tensor("other"))


@meaning("mul")
def _mul(call: Call) -> Value:
    return elementwise(call.axes, mul, call.tensor("self"), call.tensor("other"))


@meaning("div", "true_divide")
def _div(call: Call) -> Value:
    if call.has("rounding_mode"):
        call.refuse("it rounds")
    return elementwise(call.axes, quotient, call.tensor("self"), call.tensor("other"))


def quotient(a: Expr, b: Expr) -> Expr:
    """``a / b``, a division by a constant as a multiplication."""
    return a * const(1 / b.value) if b.op is Op.CONST and b.value else a / b


@meaning("addcmul")
def _addcmul(call: Call) -> Value:
    value = call.number("value")
    operands = (call.tensor("self"), call.tensor("tensor1"), call.tensor("tensor2"))
    return elementwise(call.axes, lambda x, a, b: x + _scaled(value, a * b), *operands)


@meaning("addcdiv")
def _addcdiv(call: Call) -> Value:
    value = call.number("value")
    operands = (call.tensor("self"), call.tensor("tensor1"), call.tensor("tensor2"))
    return elementwise(call.axes, lambda x, a, b: x + _scaled(value, a / b), *operands)


@meaning("lerp")
def _lerp(call: Call) -> Value:
    operands = (call.tensor("self"), call.tensor("end"), call.tensor("weight"))
    return elementwise(call.axes, lambda a, b, w: a + w * (b - a), *operands)


@meaning("maximum")
def _maximum(call: Call) -> Value:
    return elementwise(call.axes, maximum, call.tensor("self"), call.tensor("other"))


@meaning("minimum")
def _minimum(call: Call) -> Value:
    return elementwise(call.axes, minimum, call.tensor("self"), call.tensor("other"))


@meaning("clamp", "clip", "clamp_min", "clamp_max", "hardtanh")
def _clamp(call: Call) -> Value:
    value = call.tensor("self")
    for names, bound in ((("min", "min_val"), maximum), (("max", "max_val"), minimum)):
        for name in names:
            if call.has(name):
                value = elementwise(call.axes, bound, value, call.tensor(name))
    return value


@meaning("pow")
def _pow(call: Call) -> Value:
    exponent = call.rational("exponent")
    if exponent.denominator > 2 or abs(exponent) > LARGEST_POWER:
        call.refuse(f"the exponent is {exponent}; integers and halves up to {LARGEST_POWER} are understood")
    return elementwise(call.axes, lambda x: power(x, exponent), call.tensor("self"))


@meaning("python.pow")
def _size_pow(call: Call) -> Value:
    exponent = call.rational("1")
    if exponent.denominator > 2 or abs(exponent) > LARGEST_POWER:
        call.refuse(f"the exponent is {exponent}")
    return elementwise(call.axes, lambda x: power(x, exponent), call.tensor("0"))


def power(x: Expr, exponent: Fraction) -> Expr:
    """``x`` to an integer or half-integer power, as products, a square root and a reciprocal."""
    whole, half = divmod(abs(exponent), 1)
    factors = [x] * int(whole) + ([sqrt(x)] if half else [])
    result = product(factors)
    return recip(result) if exponent < 0 else result


def _size_arithmetic(function: Callable[[Expr, Expr], Expr]) -> Meaning:
    return lambda call: elementwise(call.axes, function, call.tensor("0"), call.tensor("1"))


meaning("python.add")(_size_arithmetic(lambda a, b: a + b))
meaning("python.sub")(_size_arithmetic(lambda a, b: a - b))
meaning("python.mul")(_size_arithmetic(mul))
meaning("python.truediv")(_size_arithmetic(quotient))


# --------------------------------------------------------------------------------------------- conditions


def _comparison(op: Op, *, swapped: bool = False, negated: bool = False) -> Meaning:
    def denote(call: Call) -> Value:
        operands = (call.tensor("self"), call.tensor("other"))
        result = elementwise(call.axes, lambda a, b: make(op, (b, a) if swapped else (a, b)), *operands)
        return Value(result.dims, result.expr, condition=True, negated=negated)

    return denote


meaning("lt", "less")(_comparison(Op.LT))
meaning("le", "less_equal")(_comparison(Op.LE))
meaning("gt", "greater")(_comparison(Op.LT, swapped=True))
meaning("ge", "greater_equal")(_comparison(Op.LE, swapped=True))
meaning("eq")(_comparison(Op.EQ))
meaning("ne", "not_equal")(_comparison(Op.EQ, negated=True))


@meaning("logical_not", "bitwise_not")
def _not(call: Call) -> Value:
    value = call.condition("self")
    return Value(value.dims, value.expr, condition=True, negated=not value.negated)


def _choose(call: Call, condition: Value, then: Value, otherwise: Value) -> Value:
    def branch(c: Expr, a: Expr, b: Expr) -> Expr:
        return Value((), c, condition=True, negated=condition.negated).choose(a, b)

    return elementwise(call.axes, branch, condition, then, otherwise)


@meaning("where")
def _where(call: Call) -> Value:
    if not call.has("self"):
        call.refuse("the form with one operand lists indices")
    then, otherwise = (call.tensor(n, may_be_infinite=True) for n in ("self", "other"))
    return _choose(call, call.condition("condition"), then, otherwise)


@meaning("masked_fill")
def _masked_fill(call: Call) -> Value:
    return _choose(call, call.condition("mask"), call.tensor("value", may_be_infinite=True), call.tensor("self"))
