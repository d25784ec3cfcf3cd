"""Polynomials of the normal form as text that a person reads, for certificates and reasons."""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

from rewrites.atoms import (
    Applied,
    Atom,
    Base,
    Choice,
    Element,
    Exponential,
    Highest,
    Infinity,
    Larger,
    Length,
    Logarithm,
    Monomial,
    Number,
    Polynomial,
    Position,
    Prime,
    Total,
    term,
)
from sgraph.expr import Op


def text(p: Polynomial) -> str:
    """A polynomial in the notation of ``docs/language.md``, terms in canonical order."""
    if not p:
        return "0"
    out = ""
    for m, c in p.ordered:
        written = _term(m, abs(c))
        out += f" {'-' if c < 0 else '+'} {written}" if out else f"-{written}" if c < 0 else written
    return out


def _term(m: Monomial, c: Number) -> str:
    parts = [] if c == 1 and m else [str(c) if c.denominator == 1 or not m else f"({c})"]
    return "*".join([*parts, *(_factor(a, e) for a, e in m)])


def _factor(a: Atom, e: Number) -> str:
    if isinstance(a.form, Exponential):
        return f"exp({text(term(a.form.argument, e))})"
    written = _atom(a)
    if e == 1:
        return written
    return f"{written}^{e}" if e.denominator == 1 and e > 0 else f"{written}^({e})"


@lru_cache(maxsize=4096)
def _atom(a: Atom) -> str:
    form = a.form
    match form:
        case Element(read):
            return f"{read.tensor}[{','.join(map(str, read.axes))}]" if read.axes else read.tensor
        case Length(axis):
            return f"extent({axis})"
        case Position(axis):
            return f"index({axis})"
        case Infinity():
            return "-inf"
        case Prime(number):
            return str(number)
        case Exponential(argument):
            return f"exp({text(term(argument))})"
        case Logarithm(argument):
            return f"log({text(argument)})"
        case Applied(function, argument):
            return f"{function}({text(argument)})"
        case Total(bound, body):
            return f"sum({','.join(map(str, bound))}; {text(term(body))})"
        case Highest(bound, body):
            return f"max({','.join(map(str, bound))}; {text(body)})"
        case Larger(operands):
            return f"max({', '.join(map(text, operands))})"
        case Choice(condition, then, otherwise):
            sign = {Op.LT: "<", Op.LE: "<="}.get(condition.op, "=")
            compared = f"{text(condition.left)} {sign} {text(condition.right)}"
            return f"where({compared}, {text(then)}, {text(otherwise)})"
        case Base(p):
            return f"({text(p)})"
        case _:
            assert_never(form)
