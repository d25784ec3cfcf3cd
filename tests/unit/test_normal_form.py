"""The normal form: definedness, reductions, numbers, limits, what it tells."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest

from rewrites.normal_form import NormalForm, compare
from sgraph.axis import Axis, Size
from sgraph.expr import (
    Expr,
    Op,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    log,
    make,
    max_over,
    maximum,
    mean_over,
    min_over,
    minimum,
    neg_inf,
    recip,
    rsqrt,
    sqrt,
    sum_over,
    where,
)

M, K, N, R, D, J, H = (Axis(a, e) for a, e in zip("mknrdjh", (8, 4096, 6144, 16, 128, 512, 3), strict=True))
C, L = Axis("kc", 4), Axis("kl", 1024)
J2, D2, K2 = J.renamed(1), D.renamed(1), K.renamed(1)
EMPTY = Axis("z", Size("Z", 0, 64))
EPS = const("1/1000000")
X, G, W = leaf("x", [M, K]), leaf("g", [K]), leaf("W", [K, N])
A, B, S, T = leaf("a", [M]), leaf("b", [M]), leaf("s", [M, J]), leaf("t", [M, J])


def proved(left: Expr, right: Expr) -> bool:
    started = time.process_time()
    found = compare(left, right)
    assert found.decided, found.reason
    assert found.reason
    assert time.process_time() - started < 0.5
    return found.equal


def _product(parts: Iterable[Expr]) -> Expr:
    out = const(1)
    for part in parts:
        out = out * part
    return out


def _sum(parts: list[Expr]) -> Expr:
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out


def atoms(axis: Axis) -> tuple[Axis, Axis, Axis]:
    return axis.atom("cell"), axis.atom("step"), axis.atom("lane")


def rms(x: Expr, k: Axis, eps: Expr = EPS) -> Expr:
    return rsqrt(mean_over(k, x * x) + eps)


RMS_LINEAR = sum_over(K, X * rms(X, K) * G * W)


# ---------------------------------------------------------------------------------------------- definedness


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (A * recip(A), const(1)),
        (A - A + B, B),
        (sqrt(A) * sqrt(A), A),
        (recip(recip(A)), A),
        (recip(A * B), recip(A) * recip(B)),
        (recip(A) * recip(B), recip(A * B)),
        (sqrt(A) * sqrt(B), sqrt(A * B)),
        (const(0) * recip(A), const(0)),
        (const(0) * recip(A), const(0) * recip(A) * recip(A)),
        (log(A) + log(B), log(A * B)),
        (exp(log(A)), A),
        (recip(A + B * recip(A)), A * recip(A * A + B)),
        (log(exp(A)), A),
        (exp(const("1/2") * log(A)), sqrt(A)),
        (exp(A) * recip(exp(A)), const(1)),
        (const(1), exp(A) * recip(exp(A))),
        (A, recip(exp(B)) * A * exp(B)),
        (A, sqrt(exp(B)) * sqrt(exp(B)) * A * exp(-B)),
        (A, A * (B * B + const(1)) * recip(B * B + const(1))),
        (sqrt(A * A), call("abs", A)),
        (sqrt(A * A) * sqrt(A * A), A * A),
        (sqrt(A) * sqrt(sqrt(A * A)), A),
        (exp(const("1/2") * log(A * A)), call("abs", A)),
        (sqrt(A + B) * sqrt(A + B), sqrt((A + B) * (A + B))),
        (log(recip(A * A + B * B) * recip(A * A + B * B)), const(-2) * log(A * A + B * B)),
        (sum_over(J, S * recip(A)), recip(A) * sum_over(J, S)),
    ],
)
def test_defined_wherever_the_left_side_is(left: Expr, right: Expr) -> None:
    assert proved(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (const(1), A * recip(A)),
        (A, sqrt(A) * sqrt(A)),
        (A, recip(recip(A))),
        (A, exp(log(A))),
        (const(0), const(0) * recip(A)),
        (const(0), (A - A) * log(B)),
        (sqrt(A * A), A),
        (sqrt(A * B), sqrt(A) * sqrt(B)),
        (log(A * B), log(A) + log(B)),
        (log(A * A), const(2) * log(A)),
        (recip(A), recip(A) * B * recip(B)),
        (A * recip(A + B), (A * B) * recip((A + B) * B)),
        (A, A + const(0) * call("unheard_of", B)),
        (sqrt(A * A) * A, A * A),
        (sqrt((A + B) * (A + B)), A + B),
        (exp(const("1/2") * log(A * A)), A),
        (log(recip((A + B) * (A + B))), const(-2) * log(A + B)),
    ],
)
def test_not_defined_everywhere_or_of_another_sign(left: Expr, right: Expr) -> None:
    assert not proved(left, right)


def test_what_is_not_negative_here_may_be_elsewhere() -> None:
    here = const(0) * sqrt(leaf("u", [J]))
    u = leaf("u", [J2])
    assert not proved(here + sum_over(J2, sqrt(u * u)), here + sum_over(J2, u))
    assert not proved(here + sum_over(J2, const(0) * recip(u)), here + const(0) * recip(leaf("u", [J])))


def test_an_axis_that_may_be_empty() -> None:
    x = leaf("x", [EMPTY])
    total = sum_over(EMPTY, x)
    # Over an empty axis a sum is 0 and what it divides by need not be defined.
    assert not proved(sum_over(EMPTY, x * recip(total)), const(1))
    assert proved(sum_over(J, S * recip(sum_over(J, S))), const(1))
    assert not proved(sum_over(EMPTY, recip(extent(EMPTY))), const(1))
    assert proved(total * recip(total), const(1))
    assert proved(x * total * recip(total), x)
    found = compare(sum_over(EMPTY, x * recip(total)), const(1))
    assert "if z is empty" in found.reason
    split = leaf("x", atoms(EMPTY))
    assert not compare(sum_over(atoms(EMPTY), split), sum_over(atoms(EMPTY), split + split)).decided


def test_an_obligation_at_every_index_is_not_one_at_this_index() -> None:
    everywhere = sum_over(J, const(0) * recip(S))
    assert proved(everywhere, sum_over(J2, const(0) * recip(leaf("s", [M, J2]))))
    assert not proved(everywhere, sum_over(J, const(0) * recip(T)))
    assert not proved(sum_over(J, S), everywhere + sum_over(J, S))


def test_branches_need_their_operands_only_where_taken() -> None:
    later = make(Op.LE, (index(J), index(M)))
    lazy = where(later, recip(S), const(0))
    assert proved(lazy, where(later, S * recip(S * S), const(0)))
    assert not proved(lazy, lazy * S * recip(S))
    assert not proved(where(later, S, const(0)), lazy * S * S)
    assert proved(lazy, lazy + T - T)
    # An axis of the condition is not the one that the branch binds.
    bound = where(make(Op.EQ, (index(J), index(M))), const(0), max_over(J, recip(S)))
    assert proved(bound, where(make(Op.EQ, (index(J), index(M))), const(0), max_over(J2, recip(leaf("s", [M, J2])))))
    pointwise = where(make(Op.EQ, (index(J), index(M))), const(0), const(0) * recip(S))
    assert not proved(sum_over(J, pointwise), sum_over(J, bound * const(0)))
    assert proved(where(later, S, S), S)
    assert proved(where(make(Op.LT, (A, A)), S, T), T)
    assert proved(where(make(Op.LT, (A + A, B + A)), S, T), where(make(Op.LT, (A, B)), S, T))
    assert not proved(where(later, S, T), where(later, T, S))
    assert not proved(where(make(Op.LT, (A, B)), S, T), where(make(Op.LT, (B, A)), S, T))
    assert not proved(where(make(Op.LT, (A, B)), S, T), where(make(Op.LE, (A, B)), S, T))


def test_a_left_side_that_is_defined_nowhere_proves_nothing() -> None:
    for nowhere in (recip(A - A), sqrt(const(-1)), log(const(0))):
        found = compare(nowhere, A)
        assert not found.equal
    found = compare(const(0) * recip(A - A), const(0))
    assert not found.equal
    assert not found.decided
    assert "nowhere" in found.reason


def test_minus_infinity() -> None:
    mask = leaf("mask", [M, J], finite=False)
    assert proved(exp(S + mask), exp(S) * exp(mask))
    assert not proved(exp(S) * exp(mask), exp(S) * recip(exp(-mask)))
    assert not proved(S, S + mask - mask)
    assert proved(S + mask - mask, S)
    assert not proved(const(1), exp(mask) * recip(exp(mask)))
    assert proved(exp(neg_inf()), const(0))
    assert proved(maximum(A, neg_inf()), A)
    other = leaf("other", [M, J], finite=False)
    assert proved(exp(mask + other), exp(mask) * exp(other))
    assert not proved(const(0), const(0) * recip(sum_over(J, exp(mask))))
    assert not proved(max_over(J, exp(leaf("row", [M], finite=False)) * S), exp(leaf("row", [M], finite=False)))
    # A row that is not masked entirely says nothing of other rows.
    row = const(0) * recip(sum_over(J, exp(mask)))
    assert proved(row, row + const(0) * max_over(J, mask))
    assert not proved(row, row + sum_over(M, const(0) * max_over(J, mask)))
    assert proved(exp(mask) * exp(other), exp(mask + other))  # -inf + -inf is -inf
    assert not proved(sum_over(J, exp(mask)), exp(max_over(J, mask)) * sum_over(J, exp(mask - max_over(J, mask))))


# ----------------------------------------------------------------------------------------------- reductions


def test_sums_and_constants() -> None:
    assert proved(sum_over(J, A), extent(J) * A)
    assert proved(sum_over(EMPTY, A), extent(EMPTY) * A)
    assert proved(mean_over(J, A), A)
    assert not proved(A, mean_over(EMPTY, A))
    assert not proved(sum_over(J, A), A)
    assert not proved(sum_over(J, A), const(J.extent if isinstance(J.extent, int) else 0) * B)
    assert proved(sum_over(J, S) * sum_over(J, T), sum_over([J, J2], S * leaf("t", [M, J2])))
    assert not proved(sum_over(J, S) * sum_over(J, T), sum_over(J, S * T))
    assert proved(sum_over(J, S + T), sum_over(J, S) + sum_over(J, T))
    # Of an empty axis nothing needs to be defined.
    x = leaf("x", [EMPTY])
    assert not proved(sum_over(EMPTY, x * recip(A)), recip(A) * sum_over(EMPTY, x))
    assert proved(recip(A) * sum_over(EMPTY, x), sum_over(EMPTY, x * recip(A)))


def test_maxima() -> None:
    assert proved(max_over(J, A + S), A + max_over(J, S))
    assert proved(max_over(J, A), A)
    assert proved(max_over(J, exp(A) * S), exp(A) * max_over(J, S))
    assert proved(max_over(J, const(2) * S), const(2) * max_over(J, S))
    assert proved(max_over(J, maximum(S, T)), maximum(max_over(J, T), max_over(J, S)))
    assert proved(max_over([J, M], S), max_over([M, J], S))
    assert proved(min_over(J, S), -max_over(J, -S))
    assert proved(max_over([J, K], S + X), max_over(J, S) + max_over(K, X))
    assert not proved(max_over(J, A * S), A * max_over(J, S))
    assert not proved(max_over(J, -S), -max_over(J, S))
    assert not proved(max_over(J, S + T), max_over(J, S) + max_over(J, T))
    assert not proved(A, max_over(EMPTY, A))
    assert not proved(exp(A), exp(max_over(EMPTY, A)))


def test_the_larger_of_two() -> None:
    assert proved(maximum(A, maximum(B, A)), maximum(maximum(A, A), B))
    assert proved(maximum(A + B, B + const(1)), B + maximum(A, const(1)))
    assert proved(maximum(const(2) * A, const(2) * B), const(2) * maximum(A, B))
    assert proved(call("relu", exp(B) * A), exp(B) * maximum(const(0), A))
    assert proved(minimum(A, B), -maximum(-A, -B))
    assert proved(maximum(A * A, const(0)), A * A)
    assert proved(maximum(const(3), const(5)), const(5))
    assert not proved(maximum(B * A, B), B * maximum(A, const(1)))
    assert not proved(maximum(A, B), A)


def test_bound_axes_are_renamed() -> None:
    y = leaf("y", [J, J2])
    assert proved(sum_over([J, J2], y), sum_over([J2, J], leaf("y", [J2, J])))
    turned = leaf("u", [J2]) * leaf("y", [J2, J]) * leaf("y", [J2, J])
    assert proved(sum_over([J, J2], y * y * leaf("u", [J])), sum_over([J, J2], turned))
    assert not proved(sum_over([J, J2], y * leaf("u", [J])), sum_over([J, J2], y * leaf("u", [J2])))
    assert proved(leaf("u", [J]) * sum_over(J, S), leaf("u", [J]) * sum_over(J2, leaf("s", [M, J2])))
    assert not proved(leaf("u", [J]) * sum_over(J, S), sum_over(J, leaf("u", [J]) * S))
    assert proved(exp(sum_over(J, max_over(J2, y))), exp(sum_over(J2, max_over(J, leaf("y", [J2, J])))))


def test_many_symmetric_copies() -> None:
    """Copies that trade places are one choice; a ring of them needs trying, and stays quick."""
    copies = [J.renamed(i) for i in range(6)]
    star = sum_over([M, *copies], A * _product(leaf("s", [M, c]) * leaf("u", [c]) for c in copies))
    assert proved(star, sum_over(M, A * _product([sum_over(J, S * leaf("u", [J]))] * 6)))
    ring = sum_over(copies, _product(leaf("y", [copies[i], copies[(i + 1) % 6]]) for i in range(6)))
    order = [copies[i] for i in (3, 0, 5, 1, 4, 2)]
    other = sum_over(order, _product(leaf("y", [order[i], order[(i + 1) % 6]]) for i in range(6)))
    assert proved(ring, other)
    two = sum_over(order, _product(leaf("y", [order[i], order[(i + 1) % 3 + 3 * (i // 3)]]) for i in range(6)))
    assert not proved(ring, two)


# ----------------------------------------------------------------------------------------- numbers, fractions


def test_numbers() -> None:
    assert proved(sqrt(const(2)) * sqrt(const(3)), sqrt(const(6)))
    assert proved(rsqrt(const(128)), const("1/8") * rsqrt(const(2)))
    assert proved(sqrt(const(Fraction(9, 4))), const("3/2"))
    assert proved(log(const(6)), log(const(2)) + log(const(3)))
    assert not proved(sqrt(const(2)), const("1.4142135"))
    assert not proved(exp(const(1)), const("2.718281828"))
    assert proved(exp(const(1)) * exp(const(-1)), const(1))


def test_fractions() -> None:
    y = leaf("y", [M])
    total = A + B
    assert proved(A * recip(total) + B * recip(total), total * recip(total))
    assert proved(exp(A * recip(total) + B * recip(total)), exp(const(1)) * total * recip(total))
    assert proved(recip(A - B) - recip(A + B), const(2) * B * recip((A - B) * (A + B)))
    assert proved(recip(A * A - B * B), recip(A - B) * recip(A + B))
    assert proved(recip(A - B) * recip(A + B), recip(A * A - B * B))
    assert not proved(recip(A - B), (A + B) * recip(A * A - B * B))
    assert proved((A * A - B * B) * recip(A - B), A + B)
    assert proved(recip(const(1) + recip(total)) * recip(total), recip(total) * total * recip(total + const(1)))
    assert not proved(recip(total), recip(A) + recip(B))
    assert not proved(A * recip(total) + B * recip(total + y), const(1))
    assert proved(sqrt(total) * recip(total), rsqrt(total))
    assert proved(recip(A - B), const(-1) * recip(B - A))


# ------------------------------------------------------------------------------- limits, facts, determinism


def test_limits_end_in_no_decision() -> None:
    many = [leaf(f"x{i}", [M]) for i in range(12)]
    total = _sum(many)
    power = total
    for _ in range(3):
        power = power * power
    huge = compare(power, power * total)
    assert not huge.equal
    assert not huge.decided
    assert "gave up" in huge.reason
    number = const(3)
    for _ in range(40):
        number = number * number
    assert not compare(number, const(1)).decided
    nested = A
    for _ in range(2000):
        nested = exp(nested)
    assert not compare(nested, exp(A)).decided
    copies = [J.renamed(i) for i in range(12)]
    pairs = [(i, (i * i + 3) % 12) for i in range(12)]
    regular = sum_over(copies, _product(leaf("y", [copies[i], copies[j]]) for i, j in pairs if i != j))
    started = time.process_time()
    compare(regular, regular * const(2))
    assert time.process_time() - started < 5


def test_long_chains() -> None:
    terms = [leaf(f"x{i}", [M]) * const(i + 1) for i in range(300)]
    assert compare(_sum(terms), _sum(terms[::-1])).equal
    assert not compare(_sum(terms), _sum(terms[1:])).equal
    factors = [leaf(f"x{i}", [M]) for i in range(300)]
    assert compare(_product(factors), _product(factors[::-1])).equal


def test_facts_name_what_the_proof_rests_on() -> None:
    found = compare(A * recip(A) * B, B)
    assert found.facts == ("a[m] is not 0, wherever the left side is defined",)
    found = compare(RMS_LINEAR, rms(X, K) * sum_over(K, X * G * W))
    assert any("is not 0, by its sign" in f for f in found.facts)
    assert "j is not empty" in compare(max_over(J, A), A).facts
    assert compare(A + B, B + A).facts == ()


def test_reasons_name_what_differs() -> None:
    assert "normal forms differ by a[m] - b[m]" in compare(A, B).reason
    assert "a[m] is not 0" in compare(const(1), A * recip(A)).reason


def test_forms_are_equal_across_contexts_and_print() -> None:
    first, second = NormalForm(), NormalForm()
    assert first.of(A * (B + A)) == second.of(A * A + B * A)
    assert hash(first.of(RMS_LINEAR)) == hash(second.of(RMS_LINEAR))
    text = first.text(first.of(A * (const("1/2") * B + exp(A) * recip(A + B))))
    assert "(1/2)*" in text
    assert "exp(a[m])" in text
    assert first.text(first.of(const(0))) == "0"


SCRIPT = """
from rewrites.normal_form import NormalForm, compare
from sgraph.axis import Axis
from sgraph.expr import *
J, K = Axis("j", 4), Axis("k", 5)
x = leaf("x", [J, K])
a = exp(x - max_over(K, x)) * recip(sum_over([J, K, J.renamed(1)], x * leaf("y", [J, J.renamed(1)]) + const(1)))
b = a * rsqrt(sum_over(J, x * x) + x * leaf("z", [K])) * call("silu", x + leaf("u", [J]))
form = NormalForm()
print(form.text(form.of(a)), form.text(form.of(b)), compare(a, b).reason, compare(b, b).facts)
"""


def test_the_same_in_every_process() -> None:
    root = Path(__file__).parents[2]

    def printed(seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        return subprocess.run(
            [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True
        ).stdout

    assert printed("1") == printed("2") != ""
