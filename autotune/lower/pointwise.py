"""Elementwise operators as emitted text, each in a form that neither overflows nor loses what it need not.

Only functions that behave alike in Triton 3.6 to 3.9 and in its interpreter are used. ``exp`` is ``tl.exp``,
which the compiler turns into ``exp2`` of a scaled argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from autotune.lower.code import Code, Kind, Level, Order, as_real, call, infix, negated, product, reciprocal
from sgraph.errors import LoweringLimit
from sgraph.expr import Expr, Op, factors

CALLS: Final = {
    "sigmoid": "1.0 / (1.0 + tl.exp(-{x}))",
    "silu": "{x} / (1.0 + tl.exp(-{x}))",
    "tanh": "2.0 / (1.0 + tl.exp(-2.0 * {x})) - 1.0",
    "gelu": "0.5 * {x} * (1.0 + tl.erf({x} * 0.7071067811865476))",
    "gelu_tanh": "{x} / (1.0 + tl.exp(-1.5957691216057308 * ({x} + 0.044715 * {x} * {x} * {x})))",
    "relu": "tl.maximum({x}, 0.0)",
    "softplus": "tl.maximum({x}, 0.0) + tl.log(1.0 + tl.exp(-tl.abs({x})))",
    "erf": "tl.erf({x})",
    "abs": "tl.abs({x})",
}
"""Functions that the algebra keeps whole; the argument is a name, so that repeating it costs nothing."""
LEVELS: Final = {"tanh": Level.SUM, "softplus": Level.SUM, "relu": Level.ATOM, "erf": Level.ATOM, "abs": Level.ATOM}
"""Precedence of those that are no products."""
COMPARISONS: Final = {Op.LT: "<", Op.LE: "<=", Op.EQ: "=="}

Operand = Callable[[Expr], Code]
"""The text of an available value."""


class Pointwise:
    """Prints one elementwise operator applied to available values."""

    def __init__(self, operand: Operand, named: Callable[[Code, str], Code], order: Order) -> None:
        self.operand = operand
        self.named = named
        """Gives an expression a variable of its own, called after the hint."""
        self.order = order

    def product(self, value: Expr) -> tuple[bool, Code]:
        """Sign and magnitude of a product of available values."""
        return product([self.operand(f) for f in factors(value)], self.order)

    def signed(self, value: Expr) -> Code:
        """A product of available values."""
        negative, magnitude = self.product(value)
        return negated(as_real(magnitude)) if negative else magnitude

    def compute(self, value: Expr) -> Code:
        """The text of an operator's result.

        Raises:
            LoweringLimit: no text is known for it.
        """
        match value.op:
            case Op.ADD:
                return self._add(value)
            case Op.RECIP:
                return self._reciprocal(value.args[0])
            case Op.SQRT | Op.EXP | Op.LOG:
                return self._function(value)
            case Op.CALL:
                return self._call(value)
            case Op.MAX2 | Op.MIN2:
                name = "tl.maximum" if value.op is Op.MAX2 else "tl.minimum"
                return call(name, [self.signed(a) for a in value.args], self.order)
            case Op.LT | Op.LE | Op.EQ:
                left, right = (self.signed(a) for a in value.args)
                return infix(COMPARISONS[value.op], left, right, Level.COMPARE, self.order)
            case Op.WHERE:
                return call("tl.where", [self.signed(a) for a in value.args], self.order)
            case _:
                raise LoweringLimit(f"operator {value.op.value} has no elementwise form", do="report this family")

    def _add(self, value: Expr) -> Code:
        (negative_left, left), (negative_right, right) = (self.product(a) for a in value.args)
        if negative_left and not negative_right:
            return infix("-", right, left, Level.SUM, self.order)
        if negative_left:
            left = negated(as_real(left))
        return infix("-" if negative_right else "+", left, right, Level.SUM, self.order)

    def _reciprocal(self, inner: Expr) -> Code:
        if inner.op is Op.SQRT:
            root = self.operand(inner)
            if not root.is_name:  # it is used nowhere else
                return self._rooted(self.signed(inner.args[0]), "tl.rsqrt", "**-0.5")
        return reciprocal(self.signed(inner))

    def _function(self, value: Expr) -> Code:
        inner = self.signed(value.args[0])
        if value.op is Op.SQRT:
            return self._rooted(inner, "tl.sqrt", "**0.5")
        return call(f"tl.{value.op.value}", [as_tensor(inner)], self.order)

    def _rooted(self, inner: Code, function: str, power: str) -> Code:
        if inner.static:
            return Code(f"{inner.within(Level.ATOM)}{power}", (), Level.SIGN, static=True)
        return call(function, [as_tensor(inner)], self.order)

    def _call(self, value: Expr) -> Code:
        if value.name not in CALLS:
            raise LoweringLimit(
                f"function {value.name} has no Triton form", do=f"supported: {', '.join(sorted(CALLS))}"
            )
        inner = as_tensor(self.signed(value.args[0]))
        if not inner.is_name and CALLS[value.name].count("{x}") > 1:
            inner = self.named(inner, "arg")
        text = CALLS[value.name].format(x=inner.within(Level.ATOM))
        return Code(text, inner.dims, LEVELS.get(value.name, Level.PRODUCT))


def as_tensor(code: Code) -> Code:
    """What reductions and unary functions take: float32, and no compile-time number."""
    if code.static or (code.kind is Kind.INT and not code.dims):
        return Code(f"tl.full([], {code.text}, tl.float32)")
    if code.kind is Kind.INT:
        return replace(code, text=f"{code.within(Level.ATOM)}.to(tl.float32)", level=Level.ATOM, kind=Kind.FLOAT)
    return code
