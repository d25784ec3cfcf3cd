"""What activation functions and further functions of one or two elements mean, in terms of simpler ones.

Exponentials are taken of what is at most 0 wherever torch's own function does not overflow either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

from prism.frontend.call import Call, Meaning, meaning
from prism.frontend.combine import elementwise
from prism.frontend.combine import position as places
from prism.frontend.layout import taken
from prism.frontend.trace import Product
from prism.frontend.values import FALSE, TRUE, Tensorial, Value
from sgraph.expr import Expr, const, equal, exp, less, log, maximum, minimum, mul, negate, recip, sqrt, where
from sgraph.expr import call as named

SELU_ALPHA: Final = Fraction("1.6732632423543772848170429916717")
SELU_SCALE: Final = Fraction("1.0507009873554804934193349852946")
"""The constants of ``selu``, which torch writes with these digits."""


def positive(x: Expr) -> Expr:
    """The condition ``x > 0``."""
    return less(const(0), x)


def sign(x: Expr) -> Expr:
    """1, 0 or -1."""
    return where(positive(x), const(1), where(less(x, const(0)), const(-1), const(0)))


def clamped(x: Expr, low: int, high: int) -> Expr:
    """``x`` kept between two numbers."""
    return minimum(maximum(x, const(low)), const(high))


def elu(x: Expr, alpha: Expr, scale: Expr, input_scale: Expr) -> Expr:
    """``scale * x`` above 0, ``scale * alpha * (exp(input_scale * x) - 1)`` below."""
    below = exp(mul(minimum(x, const(0)), input_scale)) - 1
    return mul(scale, where(positive(x), x, mul(alpha, below)))


UNARY: Final[Mapping[str, Callable[[Expr], Expr]]] = {
    "relu6": lambda x: clamped(x, 0, 6),
    "hardsigmoid": lambda x: clamped(x + 3, 0, 6) * const(Fraction(1, 6)),
    "hardswish": lambda x: x * clamped(x + 3, 0, 6) * const(Fraction(1, 6)),
    "mish": lambda x: x * named("tanh", named("softplus", x)),
    "selu": lambda x: elu(x, const(SELU_ALPHA), const(SELU_SCALE), const(1)),
    "log_sigmoid": lambda x: negate(named("softplus", negate(x))),
    "sign": sign,
    "sgn": sign,
    "exp2": lambda x: exp(x * log(const(2))),
    "log2": lambda x: log(x) * recip(log(const(2))),
    "log10": lambda x: log(x) * recip(log(const(10))),
    "sinh": lambda x: (exp(x) - exp(negate(x))) * const(Fraction(1, 2)),
    "cosh": lambda x: (exp(x) + exp(negate(x))) * const(Fraction(1, 2)),
    "tan": lambda x: named("sin", x) * recip(named("cos", x)),
    "erfc": lambda x: 1 - named("erf", x),
}
"""Functions of one element without further arguments, by operator."""


def _unary(function: Callable[[Expr], Expr]) -> Meaning:
    return lambda call: elementwise(call.axes, function, call.tensor("self"))


for _name, _function in UNARY.items():
    meaning(_name)(_unary(_function))


@meaning("elu")
def _elu(call: Call) -> Tensorial:
    alpha, scale, inside = (call.number(n) for n in ("alpha", "scale", "input_scale"))
    return elementwise(call.axes, lambda x: elu(x, alpha, scale, inside), call.tensor("self"))


@meaning("celu")
def _celu(call: Call) -> Tensorial:
    alpha = call.number("alpha")
    return elementwise(call.axes, lambda x: elu(x, alpha, const(1), recip(alpha)), call.tensor("self"))


@meaning("threshold")
def _threshold(call: Call) -> Tensorial:
    limit, value = call.number("threshold"), call.number("value")
    return elementwise(call.axes, lambda x: where(less(limit, x), x, value), call.tensor("self"))


@meaning("softshrink")
def _softshrink(call: Call) -> Tensorial:
    limit = call.number("lambd")

    def shrunk(x: Expr) -> Expr:
        return where(less(limit, x), x - limit, where(less(x, negate(limit)), x + limit, const(0)))

    return elementwise(call.axes, shrunk, call.tensor("self"))


@meaning("hardshrink")
def _hardshrink(call: Call) -> Tensorial:
    limit = call.number("lambd")
    return elementwise(call.axes, lambda x: where(less(limit, named("abs", x)), x, const(0)), call.tensor("self"))


@meaning("prelu")
def _prelu(call: Call) -> Tensorial:
    """One slope, or one for each channel: dimension 1 of the operand."""
    value, slope = call.tensor("self"), call.tensor("weight")
    if value.rank > 1 and isinstance(slope, Value):
        slope = Value((*slope.dims, *((),) * (value.rank - 2)), slope.expr)
    return elementwise(call.axes, lambda x, a: where(positive(x), x, a * x), value, slope)


@meaning("glu")
def _glu(call: Call) -> Tensorial:
    """The first half of a dimension times the sigmoid of the second."""
    value = call.tensor("self")
    dimension = call.place("dim", value.rank)
    half: Product = call.shape()[dimension]
    if half.sizes:
        call.refuse("it halves a dimension of symbolic size")
    first, second = (taken(call, value, dimension, start, half) for start in (0, half.number))
    return elementwise(call.axes, lambda a, b: a * named("sigmoid", b), first, second)


# ------------------------------------------------------------------------------------------ two operands


@meaning("logaddexp")
def _logaddexp(call: Call) -> Tensorial:
    def together(a: Expr, b: Expr) -> Expr:
        return maximum(a, b) + named("softplus", negate(named("abs", a - b)))

    return elementwise(call.axes, together, call.tensor("self"), call.tensor("other"))


@meaning("xlogy")
def _xlogy(call: Call) -> Tensorial:
    def product(x: Expr, y: Expr) -> Expr:
        return where(equal(x, const(0)), const(0), x * log(y))

    return elementwise(call.axes, product, call.tensor("self"), call.tensor("other"))


@meaning("hypot")
def _hypot(call: Call) -> Tensorial:
    return elementwise(call.axes, lambda a, b: sqrt(a * a + b * b), call.tensor("self"), call.tensor("other"))


@meaning("heaviside")
def _heaviside(call: Call) -> Tensorial:
    def step(x: Expr, at_0: Expr) -> Expr:
        return where(equal(x, const(0)), at_0, where(positive(x), const(1), const(0)))

    return elementwise(call.axes, step, call.tensor("self"), call.tensor("values"))


# ------------------------------------------------------------------------------------- tensors of numbers


@meaning("eye")
def _eye(call: Call) -> Tensorial:
    rows, columns = (call.axes.fresh(size.extent) if size.extent is not None else () for size in call.shape())
    if any(size.extent is None for size in call.shape()):
        call.refuse("its sizes are products of symbolic sizes")
    return elementwise(
        call.axes,
        lambda i, j: where(equal(i, j), TRUE, FALSE),
        Value((rows, ()), places(rows)),
        Value((columns,), places(columns)),
        boolean=call.boolean,
    )


@meaning("linspace")
def _linspace(call: Call) -> Tensorial:
    """``steps`` numbers from ``start`` to ``end``, both included."""
    (size,) = call.shape()
    steps = size.extent
    if not isinstance(steps, int) or steps < 2:
        call.refuse("it makes a symbolic number of steps, or one")
    start, end = call.number("start"), call.number("end")
    dim = call.axes.fresh(steps)
    return Value((dim,), start + (end - start) * const(Fraction(1, steps - 1)) * places(dim))
