"""What element-by-element operators on numbers mean: arithmetic, unary functions, casts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

from prism.frontend.call import Call, Meaning, meaning
from prism.frontend.combine import elementwise
from prism.frontend.trace import Ref
from prism.frontend.values import FALSE, TRUE, Tensorial, conjunction, disjunction
from sgraph.expr import (
    Expr,
    Op,
    const,
    equal,
    exp,
    less,
    log,
    maximum,
    minimum,
    mul,
    negate,
    product,
    recip,
    rsqrt,
    sqrt,
    where,
)
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
    def denote(call: Call) -> Tensorial:
        return elementwise(call.axes, function, call.tensor(operand))

    return denote


for _name, _function in UNARY.items():
    meaning(_name)(_unary(_function))
meaning("python.neg")(_unary(negate, "0"))
meaning("python.sym_sqrt")(_unary(sqrt, "0"))
meaning("python.sym_float")(_unary(lambda x: x, "0"))


@meaning(*IDENTITY)
def _identity(call: Call) -> Tensorial:
    value = call.stored("self")
    if call.boolean and not value.boolean:
        return elementwise(call.axes, lambda x: where(equal(x, const(0)), FALSE, TRUE), value, boolean=True)
    return value if call.boolean else value.numeric()


@meaning("dropout")
def _dropout(call: Call) -> Tensorial:
    if call.flag("train"):
        call.refuse("it draws random numbers in training mode")
    return call.tensor("input")


@meaning("gelu")
def _gelu(call: Call) -> Tensorial:
    name = "gelu_tanh" if call.node.arguments["approximate"] == "tanh" else "gelu"
    return elementwise(call.axes, lambda x: named(name, x), call.tensor("self"))


@meaning("softplus")
def _softplus(call: Call) -> Tensorial:
    # Torch replaces softplus by x itself above the threshold; at 20 that is below a float32's rounding.
    if call.rational("threshold") < 20:
        call.refuse("its threshold is below 20")
    beta = call.rational("beta")
    if beta == 1:
        return elementwise(call.axes, lambda x: named("softplus", x), call.tensor("self"))
    return elementwise(call.axes, lambda x: named("softplus", const(beta) * x) * const(1 / beta), call.tensor("self"))


@meaning("leaky_relu")
def _leaky_relu(call: Call) -> Tensorial:
    slope = call.number("negative_slope")
    return elementwise(call.axes, lambda x: where(less(const(0), x), x, mul(x, slope)), call.tensor("self"))


# ------------------------------------------------------------------------------------- two and three operands


def _scaled(factor: Expr, x: Expr) -> Expr:
    return x if factor is const(1) else mul(factor, x)


@meaning("add")
def _add(call: Call) -> Tensorial:
    if call.boolean:
        return elementwise(call.axes, disjunction, call.condition("self"), call.condition("other"), boolean=True)
    alpha = call.number("alpha") if "alpha" in call.node.arguments else const(1)
    return elementwise(call.axes, lambda a, b: a + _scaled(alpha, b), call.tensor("self"), call.tensor("other"))


@meaning("sub")
def _sub(call: Call) -> Tensorial:
    alpha = call.number("alpha") if "alpha" in call.node.arguments else const(1)
    return elementwise(call.axes, lambda a, b: a - _scaled(alpha, b), call.tensor("self"), call.tensor("other"))


@meaning("rsub")
def _rsub(call: Call) -> Tensorial:
    alpha = call.number("alpha")
    return elementwise(call.axes, lambda a, b: b - _scaled(alpha, a), call.tensor("self"), call.tensor("other"))


@meaning("mul", "multiply")
def _mul(call: Call) -> Tensorial:
    if call.boolean:
        return elementwise(call.axes, conjunction, call.condition("self"), call.condition("other"), boolean=True)
    return elementwise(call.axes, mul, call.tensor("self"), call.tensor("other"))


@meaning("div", "true_divide")
def _div(call: Call) -> Tensorial:
    if call.has("rounding_mode"):
        call.refuse("it rounds")
    return elementwise(call.axes, quotient, call.tensor("self"), call.tensor("other"))


def quotient(a: Expr, b: Expr) -> Expr:
    """``a / b``, a division by a constant as a multiplication."""
    return a * const(1 / b.value) if b.op is Op.CONST and b.value else a / b


@meaning("addcmul")
def _addcmul(call: Call) -> Tensorial:
    value = call.number("value")
    operands = (call.tensor("self"), call.tensor("tensor1"), call.tensor("tensor2"))
    return elementwise(call.axes, lambda x, a, b: x + _scaled(value, a * b), *operands)


@meaning("addcdiv")
def _addcdiv(call: Call) -> Tensorial:
    value = call.number("value")
    operands = (call.tensor("self"), call.tensor("tensor1"), call.tensor("tensor2"))
    return elementwise(call.axes, lambda x, a, b: x + _scaled(value, a / b), *operands)


@meaning("lerp")
def _lerp(call: Call) -> Tensorial:
    operands = (call.tensor("self"), call.tensor("end"), call.tensor("weight"))
    return elementwise(call.axes, lambda a, b, w: a + w * (b - a), *operands)


@meaning("maximum", "fmax")
def _maximum(call: Call) -> Tensorial:
    return elementwise(call.axes, maximum, call.tensor("self"), call.tensor("other"))


@meaning("minimum", "fmin")
def _minimum(call: Call) -> Tensorial:
    return elementwise(call.axes, minimum, call.tensor("self"), call.tensor("other"))


@meaning("clamp", "clip", "clamp_min", "clamp_max", "hardtanh")
def _clamp(call: Call) -> Tensorial:
    value = call.tensor("self")
    for names, bound in ((("min", "min_val"), maximum), (("max", "max_val"), minimum)):
        for name in names:
            if call.has(name):
                value = elementwise(call.axes, bound, value, call.tensor(name))
    return value


@meaning("pow")
def _pow(call: Call) -> Tensorial:
    if not isinstance(call.node.arguments["self"], Ref):
        base = call.rational("self")
        if base <= 0:
            call.refuse(f"the base is {base}")
        return elementwise(call.axes, lambda x: exp(x * log(const(base))), call.tensor("exponent"))
    if isinstance(call.node.arguments["exponent"], Ref):
        call.refuse("its exponent is a tensor")
    exponent = call.rational("exponent")
    if exponent.denominator > 2 or abs(exponent) > LARGEST_POWER:
        call.refuse(f"the exponent is {exponent}; integers and halves up to {LARGEST_POWER} are understood")
    return elementwise(call.axes, lambda x: power(x, exponent), call.tensor("self"))


@meaning("python.pow")
def _size_pow(call: Call) -> Tensorial:
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
