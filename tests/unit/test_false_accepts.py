# pyright: reportUnknownLambdaType=false
"""Kernels that other systems are known to accept wrongly, none of which is accepted here, each with its right sibling;
and rewritings that they cannot prove, which are proved here.

The wrong ones stand at the end of the design: missing side conditions of rewrite rules, maps that lose which operand
is replicated, schedules that use a statistic before its loop has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as fn
from torch import Tensor

import prism
from sgraph.axis import Axis, Size
from sgraph.expr import Expr, call, const, exp, extent, leaf, maximum, mul, recip, rsqrt, sqrt, sum_over
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.program import DType, Output, Program
from sgraph.program import Tensor as Stored
from sgraph.schedule import Accumulate, Loop, Merge, Schedule, Statement
from sgraph.stages import derive
from verify.equivalence import prove, prove_equal
from verify.verdict import Status

Function = Callable[..., object]


@dataclass(frozen=True)
class Case:
    """A function with a wrong rewriting and a right one."""

    spec: Function
    wrong: Function
    right: Function
    shapes: Sequence[tuple[int, ...]]


def rms(x: Tensor) -> Tensor:
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


# ------------------------------------------------------------------------------------- as torch functions

FUNCTIONS = {
    "a scale per channel moved behind the product": Case(
        lambda x, s, w: (x / s) @ w,
        lambda x, s, w: (x @ w) / s,
        lambda x, s, w: x @ (w / s[:, None]),
        ((8, 64), (64,), (64, 64)),
    ),
    "a scale per row moved behind the product": Case(
        lambda x, s, w: (x / s[:, None]) @ w,
        lambda x, s, w: (x @ w) / s,
        lambda x, s, w: (x @ w) / s[:, None],
        ((64, 64), (64,), (64, 64)),
    ),
    "swapped operands of a division": Case(
        lambda x, y: (x / y).sum(-1), lambda x, y: (y / x).sum(-1), lambda x, y: (x * (1 / y)).sum(-1), ((8, 64),) * 2
    ),
    "a power of a sum as the sum of powers": Case(
        lambda x: x.sum(-1) ** 3,
        lambda x: (x**3).sum(-1),
        lambda x: x.sum(-1) * x.sum(-1).square(),
        ((8, 64),),
    ),
    "the root mean square without 1/D": Case(
        lambda x: x * rms(x),
        lambda x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6),
        lambda x: x * 64**0.5 * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 64e-6),
        ((8, 64),),
    ),
    "a replicated operand added once per iteration": Case(
        lambda x, w, b: x @ w + b,
        lambda x, w, b: (x[:, :, None] * w + b).sum(1),
        lambda x, w, b: (x[:, :, None] * w + b / 64).sum(1),
        ((8, 64), (64, 48), (48,)),
    ),
    "a residual added before every part of the product": Case(
        lambda x, w, r: r + x @ w,
        lambda x, w, r: (x[:, :, None] * w).sum(1) + 64 * r,
        lambda x, w, r: torch.addmm(r, x, w),
        ((8, 64), (64, 48), (8, 48)),
    ),
    "an activation of partial sums": Case(
        lambda x, w: fn.silu(x @ w),
        lambda x, w: fn.silu(x[:, :, None] * w).sum(1),
        lambda x, w: torch.sigmoid(x @ w) * (x @ w),
        ((8, 64), (64, 48)),
    ),
    "a contraction split with the other operand replicated": Case(
        lambda x, w: torch.einsum("mik,ikn->mn", x, w),
        lambda x, w: torch.einsum("mik,jkn->mn", x, w),
        lambda x, w: torch.einsum("mik,ikn->imn", x, w).sum(0),
        ((8, 4, 16), (4, 16, 48)),
    ),
    "a maximum of a tile applied to the next": Case(
        lambda x: (x - x.amax((1, 2), keepdim=True)).exp().sum((1, 2)),
        lambda x: (x - x.amax(2, keepdim=True)).exp().sum((1, 2)),
        lambda x: (x - x.amax(2, keepdim=True).amax(1, keepdim=True)).exp().sum(2).sum(1),
        ((8, 4, 16),),
    ),
    "a small tile applied again to each chunk": Case(
        lambda x, g: (x * g).sum(-1),
        lambda x, g: x.sum(-1) * g.sum(),
        lambda x, g: g @ x.T,
        ((8, 64), (64,)),
    ),
    "an unary function between the factors of a chain": Case(
        lambda a, b, c: (a * torch.tanh((b @ c).T)).sum(-1),
        lambda a, b, c: (torch.tanh(a.T @ b.T) * c.T).sum(-1),
        lambda a, b, c: torch.einsum("ik,ik->i", a, torch.tanh(c.T @ b.T)),
        ((64, 64),) * 3,
    ),
    "bounds of a clamp lost": Case(
        lambda x: x.clamp(-1, 1) * 2, lambda x: x * 2, lambda x: (2 * x).clamp(-2, 2), ((8, 64),)
    ),
    "one bound of a clamp lost": Case(
        lambda x: x.clamp(-1, 6), lambda x: x.clamp(max=6), lambda x: x.clamp(min=-1).clamp(max=6), ((8, 64),)
    ),
    "other bounds of a clamp": Case(
        lambda x: x.clamp(-1, 1),
        lambda x: x.clamp(-1, 0.5),
        lambda x: torch.minimum(x.clamp(min=-1), x * 0 + 1),
        ((8, 64),),
    ),
    "the root of a product as a product of roots": Case(
        lambda a, b: (a * b).sqrt(),
        lambda a, b: a.sqrt() * b.sqrt(),
        lambda a, b: a.square().sqrt() * 0 + (b * a).sqrt(),
        ((8, 64),) * 2,
    ),
    "a permutation of weights of the same shape": Case(
        lambda x, g, u: fn.silu(x @ g) * (x @ u),
        lambda x, g, u: fn.silu(x @ u) * (x @ g),
        lambda x, g, u: (x @ u) * fn.silu(x @ g),
        ((8, 64), (64, 64), (64, 64)),
    ),
    "queries and keys exchanged": Case(
        lambda q, k, v: (q @ k.T).softmax(-1) @ v,
        lambda q, k, v: (k @ q.T).softmax(-1) @ v,
        lambda q, k, v: (k @ q.T).softmax(0).T @ v,
        ((64, 32), (64, 32), (64, 32)),
    ),
    "weights of two layers exchanged": Case(
        lambda x, a, b: x @ a @ b, lambda x, a, b: x @ b @ a, lambda x, a, b: x @ (a @ b), ((8, 64), (64, 64), (64, 64))
    ),
    "a transposed weight of square shape": Case(
        lambda x, w: x @ w, lambda x, w: x @ w.T, lambda x, w: (w.T @ x.T).T, ((8, 64), (64, 64))
    ),
}


def verdict_on(case: Case, candidate: Function) -> Status:
    return prism.prove(case.spec, candidate, *(torch.empty(s) for s in case.shapes)).status


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_wrong_function_is_not_accepted(name: str) -> None:
    assert verdict_on(FUNCTIONS[name], FUNCTIONS[name].wrong) is Status.REFUTED


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_right_function_is(name: str) -> None:
    assert verdict_on(FUNCTIONS[name], FUNCTIONS[name].right) is Status.PROVED


# ---------------------------------------------------------------------------------------- as expressions

M, K, N = Axis("m", Size("M")), Axis("k", 4096), Axis("n", 64)
A, B, X, W = leaf("a", [M]), leaf("b", [M]), leaf("x", [M, K]), leaf("w", [K, N])
SQUARES = sum_over(K, X * X)
Z = Axis("z", Size("Z", 0, 64))
MASK = leaf("mask", [M], finite=False)


def power(base: Expr, exponent: int) -> Expr:
    return base if exponent == 1 else mul(base, power(base, exponent - 1))


EXPRESSIONS: dict[str, tuple[Expr, Expr, Expr]] = {
    "roots of negative factors": (sqrt(A * B), sqrt(A) * sqrt(B), sqrt(B * A)),
    "roots of positive factors": (sqrt(exp(A) * B), sqrt(A) * sqrt(B), sqrt(exp(A)) * sqrt(B)),
    "the root of a square": (sqrt(A * A), A, call("abs", A)),
    "a factor cancelled that may be zero": (A * recip(sum_over(K, X)) * sum_over(K, X), A * B * recip(B), A),
    "zero times what may be undefined": (const(0) * A, const(0) * recip(A), const(0) * B),
    "the exponential of a mask is not positive": (A + const(0) * exp(MASK), A * exp(MASK) * recip(exp(MASK)), A),
    "the mean over an axis that may be empty": (A, sum_over(Z, A) * recip(extent(Z)), A + const(0) * extent(Z)),
    "swapped operands of a power": (
        exp(B * call("softplus", A)),
        exp(A * call("softplus", B)),
        exp(call("softplus", A) * B),
    ),
    "the larger of two lost": (maximum(A, const(0)), A, call("relu", A)),
    "a product in a power": (power(A * B, 3), A * power(B, 3), power(A, 3) * power(B, 3)),
    "a reduction applied twice": (
        sum_over(K, X),
        sum_over(K, sum_over(K, X)),
        recip(extent(K)) * sum_over(K, sum_over(K, X)),
    ),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_wrong_expression_is_not_accepted(name: str) -> None:
    spec, wrong, right = EXPRESSIONS[name]
    assert prove_equal(spec, wrong).status is Status.REFUTED
    assert prove_equal(spec, right).status is Status.PROVED


# ------------------------------------------------------------------------------------------- as schedules

RMS = rsqrt(SQUARES * recip(extent(K)) + const("1/1000000"))
SPEC = sum_over(K, X * RMS * W)
INPUTS = (Stored("x", (M, K), DType.BF16), Stored("w", (K, N), DType.BF16))
OUT = Stored("y", (M, N), DType.BF16)
PROGRAM = Program("rmsnorm_linear", INPUTS, (Output(OUT, SPEC),))


def graph(value: Expr, k: Role) -> SGraph:
    roles = ((K, k), (M, Role.GRID), (N, Role.GRID))
    return SGraph(PROGRAM, (Kernel("k0", (Store(OUT, value, SPEC),), roles),))


FUSED = mul(sum_over(K, X * W), RMS)


def verdict_on_schedule(value: Expr, role: Role, change: Callable[[Schedule], Schedule]) -> Status:
    found = graph(value, role)
    return prove(found, [change(derive(found.kernels[0]))]).status


def body_of_loop(schedule: Schedule, change: Callable[[Loop], Sequence[Statement]]) -> Schedule:
    """The schedule with the loops of its first phase, and what follows them, changed."""
    main, *rest = schedule.phases
    body = [y for x in main.body for y in (change(x) if isinstance(x, Loop) else (x,))]
    return replace(schedule, phases=(replace(main, body=tuple(body)), *rest))


def statistic_inside_its_loop(schedule: Schedule) -> Schedule:
    main, *rest = schedule.phases
    place = next(i for i, x in enumerate(main.body) if isinstance(x, Loop))
    loop = main.body[place]
    assert isinstance(loop, Loop)
    moved = replace(loop, body=(*loop.body, *main.body[place + 1 :]))
    return replace(schedule, phases=(replace(main, body=(*main.body[:place], moved)), *rest))


def accumulated_twice(schedule: Schedule) -> Schedule:
    def twice(loop: Loop) -> Sequence[Statement]:
        body = [y for x in loop.body for y in ((x, x) if isinstance(x, Accumulate) else (x,))]
        return (replace(loop, body=tuple(body)),)

    return body_of_loop(schedule, twice)


def loop_twice(schedule: Schedule) -> Schedule:
    return body_of_loop(schedule, lambda loop: (loop, replace(loop, start=())))


def never_merged(schedule: Schedule) -> Schedule:
    phases = tuple(replace(p, body=tuple(x for x in p.body if not isinstance(x, Merge))) for p in schedule.phases)
    return replace(schedule, phases=phases)


SCHEDULES: dict[str, tuple[Role, Callable[[Schedule], Schedule]]] = {
    "a statistic captured inside its loop": (Role.LOOP, statistic_inside_its_loop),
    "an operand added twice per iteration": (Role.LOOP, accumulated_twice),
    "a small tile applied again to each chunk": (Role.LOOP, loop_twice),
    "a contraction split and not summed again": (Role.SPLIT, never_merged),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_wrong_schedule_is_not_accepted(name: str) -> None:
    role, change = SCHEDULES[name]
    assert verdict_on_schedule(FUSED, role, lambda s: s) is Status.PROVED
    assert verdict_on_schedule(FUSED, role, change) is not Status.PROVED


@pytest.mark.parametrize("role", [Role.LOOP, Role.SPLIT, Role.WHOLE])
def test_wrong_algebra_is_refuted_under_every_role(role: Role) -> None:
    def same(schedule: Schedule) -> Schedule:
        return schedule

    assert verdict_on_schedule(FUSED, role, same) is Status.PROVED
    without_mean = mul(sum_over(K, X * W), rsqrt(SQUARES + const("1/1000000")))
    assert verdict_on_schedule(without_mean, role, same) is Status.REFUTED


# ---------------------------------------------------------------------- what the public code cannot prove


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k.T * 32**-0.5 + mask).softmax(-1) @ v


def attention_unnormalised(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q * 32**-0.5 @ k.T + mask
    weight = (scores - scores.amax(-1, keepdim=True)).exp()
    return (weight @ v) / weight.sum(-1, keepdim=True)


def online(scores: Tensor, v: Tensor) -> Tensor:
    """Two chunks, each with its own maximum, merged."""
    peak = scores.amax(2)
    weight = (scores - peak[:, :, None]).exp()
    top = peak.amax(1, keepdim=True)
    scale = (peak - top).exp()
    total = (weight.sum(2) * scale).sum(1)
    return (torch.einsum("mcj,cjd->mcd", weight, v) * scale[:, :, None]).sum(1) / total[:, None]


PROVED: dict[str, tuple[Function, Function, Sequence[tuple[int, ...]]]] = {
    "norm gain": (
        lambda x, g, w: (x * rms(x) * g) @ w,
        lambda x, g, w: (x @ (g[:, None] * w)) * rms(x),
        ((8, 64), (64,), (64, 48)),
    ),
    "softmax scale": (
        lambda q, k: (q @ k.T * 0.125).softmax(-1),
        lambda q, k: (q * 0.125 @ k.T).exp() / (q @ (k * 0.125).T).exp().sum(-1, keepdim=True),
        ((8, 64), (48, 64)),
    ),
    "additive mask": (attention, attention_unnormalised, ((8, 32), (64, 32), (64, 32), (8, 64))),
    "bias with a loop over K": (
        lambda x, w, b: fn.linear(x, w, b) * 2,
        lambda x, w, b: (x[:, None] * (2 * w)).sum(-1) + (b + b),
        ((8, 64), (48, 64), (48,)),
    ),
    "residual with a loop over K": (
        lambda x, w, r: r + fn.rms_norm(x, (64,), None, 1e-6) @ w,
        lambda x, w, r: torch.addmm(r, x, w) * rms(x) + r * (1 - rms(x)),
        ((8, 64), (64, 48), (8, 48)),
    ),
    "x * x and x ** 2": (lambda x: x * x, lambda x: x**2, ((8, 64),)),
    "(a / b) / c and a / (b c)": (lambda a, b, c: (a / b) / c, lambda a, b, c: a / (b * c), ((8, 64),) * 3),
    "a / (b c) and (a / b) / c": (lambda a, b, c: a / (b * c), lambda a, b, c: (a / b) / c, ((8, 64),) * 3),
    "the sum of row sums": (lambda x: x.sum(), lambda x: x.sum(1).sum(0), ((8, 64),)),
    "the sum of row sums of a product": (
        lambda x, w: (x @ w).sum(),
        lambda x, w: (x.sum(0) * w.sum(1)).sum(),
        ((8, 64), (64, 48)),
    ),
    "an online softmax over chunks": (
        lambda s, v: torch.einsum("mcj,cjd->md", s.exp() / s.exp().sum((1, 2), keepdim=True), v),
        online,
        ((8, 2, 32), (2, 32, 16)),
    ),
}


@pytest.mark.parametrize("name", PROVED)
def test_what_other_systems_cannot_prove(name: str) -> None:
    spec, candidate, shapes = PROVED[name]
    masks = ["mask"] if "mask" in name else []
    verdict = prism.prove(spec, candidate, *(torch.empty(s) for s in shapes), may_hold_minus_inf=masks)
    assert verdict.status is Status.PROVED, str(verdict)
