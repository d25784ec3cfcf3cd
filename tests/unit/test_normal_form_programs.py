"""The normal form on real programs: their rewritings are proved, and wrong programs are refused."""

from __future__ import annotations

import time

import pytest

from rewrites.normal_form import compare
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


def _square(e: Expr) -> Expr:
    return e * e


# ------------------------------------------------------------------------------------------- workloads


def rms(x: Expr, k: Axis, eps: Expr = EPS) -> Expr:
    return rsqrt(mean_over(k, x * x) + eps)


def softmax(e: Expr, j: Axis) -> Expr:
    return exp(e) * recip(sum_over(j, exp(e)))


def layernorm(x: Expr, k: Axis) -> Expr:
    centred = x - mean_over(k, x)
    return centred * rsqrt(mean_over(k, centred * centred) + EPS)


RMS_LINEAR = sum_over(K, X * rms(X, K) * G * W)


@pytest.mark.parametrize(
    "right",
    [
        rms(X, K) * sum_over(K, X * (G * W)),
        sum_over(K, W * X * G) * recip(sqrt(recip(extent(K)) * sum_over(K2, _square(leaf("x", [M, K2]))) + EPS)),
        sqrt(extent(K)) * sum_over(K, X * G * W) * rsqrt(sum_over(K, X * X) + extent(K) * EPS),
    ],
)
def test_rmsnorm_linear(right: Expr) -> None:
    assert proved(RMS_LINEAR, right)
    assert proved(right, RMS_LINEAR)


@pytest.mark.parametrize(
    "wrong",
    [
        sum_over(K, X * G * W) * rms(X, K, const(0)),
        sum_over(K, X * G * W) * rsqrt(sum_over(K, X * X) + EPS),
        sum_over(K, X * G * W) * rms(X, M),
        sum_over(K, X * W) * rms(X, K) * G,
        sum_over(K, X * W) * sum_over(K, G) * rms(X, K),
        sum_over(K, X * G * W) * recip(rms(X, K)),
        sum_over(K, X * G * rms(X, K)) * sum_over(K, W),
        RMS_LINEAR + const(0) * recip(A),
        extent(K) * RMS_LINEAR,
        sum_over(K, X * G * leaf("V", [K, N])) * rms(X, K),
    ],
)
def test_wrong_rmsnorm_linear(wrong: Expr) -> None:
    assert not proved(RMS_LINEAR, wrong)


def test_gated_mlp() -> None:
    gate, up = sum_over(K, X * leaf("Wg", [K, N])), sum_over(K, X * leaf("Wu", [K, N]))
    spec = call("silu", gate) * up
    assert proved(spec, up * (gate * call("sigmoid", gate)))
    both = sum_over([K, K2], X * leaf("Wg", [K, N]) * leaf("x", [M, K2]) * leaf("Wu", [K2, N]))
    assert proved(spec, call("sigmoid", gate) * both)
    assert not proved(spec, call("silu", up) * gate)
    assert not proved(spec, gate * up)
    assert not proved(spec, call("silu", gate) + up)
    assert not proved(spec, sum_over(K, call("silu", X * leaf("Wg", [K, N])) * X * leaf("Wu", [K, N])))


def test_softmax() -> None:
    spec = softmax(S, J)
    peak = max_over(J, S)
    safe = exp(S - peak) * recip(sum_over(J, exp(S - peak)))
    assert proved(spec, safe)
    assert proved(safe, spec)
    assert proved(spec, exp(S - log(sum_over(J, exp(S)))))
    assert proved(spec, exp(S - peak - log(sum_over(J, exp(S - peak)))))
    assert proved(softmax(S + A, J), spec)
    assert not proved(spec, exp(S - peak) * recip(sum_over(J, exp(S))))
    assert not proved(spec, exp(S) * recip(sum_over(M, exp(S))))
    assert not proved(spec, softmax(S * const(2), J))
    assert not proved(spec, exp(S))
    # Any shift that does not vary over j cancels: a wrong maximum is an accuracy bug, found by numbers.
    assert proved(spec, exp(S - max_over(J, T)) * recip(sum_over(J, exp(S - max_over(J, T)))))


def test_add_rmsnorm() -> None:
    r = leaf("r", [M, K])
    h = X + r
    spec = h * rms(h, K) * G
    squares = sum_over(K, X * X) + const(2) * sum_over(K, X * r) + sum_over(K, r * r)
    assert proved(spec, (X * G + r * G) * rsqrt(squares * recip(extent(K)) + EPS))
    assert not proved(spec, X * rms(h, K) * G)
    assert not proved(spec, (X * G + r * G) * rsqrt((squares - sum_over(K, X * r)) * recip(extent(K)) + EPS))


def test_lora() -> None:
    a, b, scale = leaf("A", [K, R]), leaf("B", [R, N]), const("1/4")
    spec = sum_over(K, X * W) + scale * sum_over(R, sum_over(K, X * a) * b)
    assert proved(spec, sum_over(K, X * (W + scale * sum_over(R, a * b))))
    assert proved(spec, sum_over(K, X * W) + sum_over(K, X * sum_over(R, a * scale * b)))
    assert not proved(spec, sum_over(K, X * W) + sum_over(R, sum_over(K, X * a) * b))
    assert not proved(spec, sum_over(K, X * W) + scale * sum_over(R, sum_over(K, X * leaf("A", [R, K])) * b))
    assert not proved(spec, sum_over(K, X * W) + scale * sum_over(R, sum_over(K, X * a)) * sum_over(R, b))


def attention(scores: Expr, values: Expr) -> Expr:
    return sum_over(J, softmax(scores, J) * values)


Q, KEY, V = leaf("q", [H, D]), leaf("k", [J, D]), leaf("v", [J, N])
SCALE = rsqrt(const(128))


def test_attention() -> None:
    scores = SCALE * sum_over(D, Q * KEY)
    spec = attention(scores, V)
    peak = max_over(J, scores)
    shifted = sum_over(J, exp(scores - peak) * V) * recip(sum_over(J, exp(scores - peak)))
    assert proved(spec, shifted)
    assert proved(spec, sum_over(J, exp(sum_over(D, (Q * SCALE) * KEY)) * V) * recip(sum_over(J, exp(scores))))
    assert proved(spec, attention(sum_over(D, Q * KEY) * const("1/8") * rsqrt(const(2)), V))
    assert not proved(spec, attention(sum_over(D, Q * KEY), V))
    assert not proved(spec, sum_over(J, exp(scores - peak) * V) * recip(sum_over(J, exp(scores))))
    assert not proved(spec, sum_over(J, exp(scores)) * sum_over(J, V) * recip(sum_over(J, exp(scores))))
    assert not proved(spec, attention(SCALE * sum_over(D, Q * leaf("k", [D, J])), V))


def test_online_and_split_attention_over_a_view_split() -> None:
    """The denotation of running and per-chunk maxima: rescaled partial sums."""
    scores = sum_over(D, Q * leaf("k", [C, L, D]))
    v = leaf("v", [C, L, N])
    both = (C, L)
    spec = sum_over(both, exp(scores) * v) * recip(sum_over(both, exp(scores)))
    local = max_over(L, scores)
    peak = max_over(C, local)

    def merged(value: Expr) -> Expr:
        return sum_over(C, exp(local - peak) * sum_over(L, exp(scores - local) * value))

    assert proved(spec, merged(v) * recip(merged(const(1))))
    assert proved(max_over(both, scores), peak)
    unscaled = sum_over(C, sum_over(L, exp(scores - local) * v))
    assert not proved(spec, unscaled * recip(merged(const(1))))
    assert not proved(spec, sum_over(L, exp(scores - local) * v) * recip(sum_over(L, exp(scores - local))))


def test_qknorm_attention() -> None:
    gq, gk = leaf("gq", [D]), leaf("gk", [D])
    normed = sum_over(D, (Q * rms(Q, D) * gq) * (KEY * rms(KEY, D) * gk))
    spec = attention(SCALE * normed, V)
    moved = SCALE * rms(Q, D) * rms(KEY, D) * sum_over(D, Q * KEY * (gq * gk))
    shifted = exp(moved - max_over(J, moved))
    assert proved(spec, sum_over(J, shifted * V) * recip(sum_over(J, shifted)))
    wrong = SCALE * rms(Q, D) * sum_over(D, Q * KEY * (gq * gk))
    assert not proved(spec, attention(wrong, V))


def test_masked_attention() -> None:
    scores = sum_over(D, Q * KEY)
    mask = leaf("mask", [H, J], finite=False)
    for masked in (scores + mask, where(make(Op.LE, (index(J), index(H))), scores, neg_inf())):
        spec = attention(masked, V)
        peak = max_over(J, masked)
        shifted = exp(masked - peak)
        assert proved(spec, sum_over(J, shifted * V) * recip(sum_over(J, shifted)))
        # A row that is masked entirely has no maximum, and the unshifted sum is defined there.
        assert not proved(sum_over(J, exp(masked) * V), exp(peak) * sum_over(J, shifted * V))


def test_ngpt_moments() -> None:
    h, a = leaf("h", [M, K]), leaf("alpha", [K])
    first = h + a * (X * rsqrt(sum_over(K, X * X)) - h)
    spec = first * rsqrt(sum_over(K, first * first))
    r = rsqrt(sum_over(K, X * X))
    keep = const(1) - a
    squares = (
        sum_over(K, h * h * keep * keep)
        + const(2) * r * sum_over(K, h * keep * a * X)
        + r * r * sum_over(K, a * a * X * X)
    )
    assert proved(spec, (h * keep + a * X * r) * rsqrt(squares))
    assert not proved(spec, (h * keep + a * X * r) * rsqrt(squares - r * sum_over(K, h * keep * a * X)))


def test_layernorm_linear_with_the_mean_folded() -> None:
    bias = leaf("bias", [K])
    spec = sum_over(K, (layernorm(X, K) * G + bias) * W)
    mean = mean_over(K, X)
    scale = rsqrt(mean_over(K, X * X) - mean * mean + EPS)
    folded = scale * (sum_over(K, X * G * W) - mean * sum_over(K, G * W)) + sum_over(K, bias * W)
    assert proved(spec, folded)
    assert proved(folded, spec)
    assert not proved(spec, scale * sum_over(K, X * G * W) + sum_over(K, bias * W))
    assert not proved(spec, scale * (sum_over(K, X * G * W) - mean * sum_over(K, W)) + sum_over(K, bias * W))


def test_variances_of_parts_combine() -> None:
    """Chan, Golub and LeVeque 1979: M2 = sum of M2 of parts + weighted squares of their means' distances."""
    x = leaf("x", [C, L])
    total = extent(C) * extent(L)
    mean = sum_over([C, L], x) * recip(total)
    spec = sum_over([C, L], (x - mean) * (x - mean)) * recip(total)
    part = mean_over(L, x)
    within = sum_over(L, (x - part) * (x - part))
    between = extent(L) * (part - mean) * (part - mean)
    assert proved(spec, sum_over(C, within + between) * recip(total))
    assert proved(spec, sum_over([C, L], x * x) * recip(total) - mean * mean)
    assert not proved(spec, sum_over(C, within) * recip(total))
    assert not proved(spec, sum_over(C, within + (part - mean) * (part - mean)) * recip(total))


# -------------------------------------------------------------------------------------- known wrong accepts


def test_wrong_accepts_of_others() -> None:
    """The list of design 12: rules without side conditions prove these."""
    scale = leaf("s", [K])
    assert not proved(sum_over(K, X * recip(scale) * W), sum_over(K, X * W) * recip(scale))
    assert not proved(X * recip(A), A * recip(X))
    # sum_k f(A_k (BC)_k) = sum_k f((AB)_k C_k)
    a, b, c = leaf("A", [M, R]), leaf("B", [R, K]), leaf("C", [K, N])
    assert not proved(
        sum_over(K, exp(sum_over(R, a * b) * c)), sum_over(K, exp(sum_over(R, a * b))) * sum_over(K, exp(c))
    )
    # A replicated operand summed once per chunk; a split with the other operand replicated.
    x, w, whole = leaf("x", [C, L]), leaf("w", [C, L]), leaf("w", [L])
    assert not proved(sum_over([C, L], x * w), sum_over([C, L], x * w + A))
    assert not proved(sum_over([C, L], x * w), sum_over([C, L], x * whole))
    assert not proved(sum_over([C, L], x), sum_over(L, x))
    # A statistic of one iteration used for all.
    assert not proved(sum_over([C, L], x * sum_over([C, L], x)), sum_over([C, L], x * sum_over(L, x)))
    # Clamp bounds lost.
    assert not proved(minimum(maximum(A, const(-1)), const(1)), A)
    assert not proved(minimum(maximum(A, const(-1)), const(1)), maximum(A, const(-1)))
    # (ab)^1/2 on negative bases.
    assert not proved(sqrt(A * B), sqrt(A) * sqrt(B))
    # A permutation of weights of one shape.
    one, two = leaf("W1", [K, N]), leaf("W2", [K, N])
    first, second = sum_over(K, X * one), sum_over(K, X * two)
    assert not proved(call("silu", first) * second, call("silu", second) * first)


# ---------------------------------------------------------------------------------------------- tile splits


def atoms(axis: Axis) -> tuple[Axis, Axis, Axis]:
    return axis.atom("cell"), axis.atom("step"), axis.atom("lane")


def valid(axis: Axis) -> Expr:
    return leaf(f"valid:{axis.name}", atoms(axis))


def test_a_split_contraction() -> None:
    cell, step, lane = atoms(K)
    x, w, mask = leaf("x", [M, *atoms(K)]), leaf("W", [*atoms(K), N]), valid(K)
    spec = sum_over(atoms(K), mask * x * w)
    assert proved(spec, sum_over(cell, sum_over(step, sum_over(lane, mask * (x * w)))))
    assert proved(spec, sum_over(lane, sum_over(cell, sum_over(step, mask * x * mask * w))))
    assert not proved(spec, sum_over([step, lane], mask * x * w))
    assert not proved(spec, sum_over([cell, lane], mask * x * w))
    assert not proved(spec, sum_over(atoms(K), x * w))
    assert not proved(spec, sum_over(cell, spec))
    assert not proved(spec, sum_over(step, sum_over(lane, mask * x) * sum_over([cell, lane], w)))


def test_a_split_norm_in_the_epilogue() -> None:
    x, g, w, mask = leaf("x", [M, *atoms(K)]), leaf("g", atoms(K)), leaf("W", [*atoms(K), N]), valid(K)
    mean = sum_over(atoms(K), mask * x * x) * recip(extent(K))
    spec = sum_over(atoms(K), mask * x * rsqrt(mean + EPS) * g * w)
    assert proved(spec, sum_over(atoms(K), mask * x * g * w) * rsqrt(mean + EPS))
    cell, step, lane = atoms(K)
    partial = sum_over([step, lane], mask * x * x)
    assert proved(spec, sum_over(atoms(K), mask * x * g * w) * rsqrt(sum_over(cell, partial) * recip(extent(K)) + EPS))
    early = rsqrt(partial * recip(extent(K)) + EPS)
    assert not proved(spec, sum_over(cell, sum_over([step, lane], mask * x * g * w) * early))


def test_masks_and_unknown_counts() -> None:
    _, step, lane = atoms(K)
    mask = valid(K)
    assert proved(mask * mask, mask)
    assert proved(sqrt(mask), mask)
    assert proved(sum_over(atoms(K), mask), extent(K))
    assert proved(sum_over(atoms(K), mask * A), extent(K) * A)
    assert not proved(sum_over(atoms(K), A), extent(K) * A)
    assert not proved(sum_over([step, lane], mask), extent(K))
    assert not proved(sum_over([step, lane], leaf("valid:k", [step, lane])), extent(K))
    # Some index is valid; in one cell none may be.
    positive = mask * exp(leaf("s", atoms(K)))
    assert proved(const(0), const(0) * recip(sum_over(atoms(K), positive)))
    assert not proved(const(0), const(0) * recip(sum_over([step, lane], positive)))
    assert not proved(sum_over(lane, A), extent(K) * A)
    assert not proved(sum_over(lane, A), A)
    assert proved(sum_over(lane, A * mask), A * sum_over(lane, mask))
    assert not proved(max_over(lane, A), A)


def test_a_split_softmax_with_padded_maxima() -> None:
    cell, step, lane = atoms(J)
    s, v, mask = leaf("s", [M, *atoms(J)]), leaf("v", [*atoms(J), N]), valid(J)
    pad = leaf("pad:j", atoms(J), finite=False)
    spec = sum_over(atoms(J), mask * exp(s) * v) * recip(sum_over(atoms(J), mask * exp(s)))
    peak = max_over(cell, max_over([step, lane], s + pad))
    shifted = mask * exp(s - peak)
    assert proved(spec, sum_over(cell, sum_over([step, lane], shifted * v)) * recip(sum_over(atoms(J), shifted)))
    named = sum_over(atoms(J), shifted * v * recip(sum_over(atoms(J), shifted)))
    assert proved(named, spec)
    assert not proved(spec, sum_over([step, lane], shifted * v) * recip(sum_over(atoms(J), shifted)))
    # The maximum of one cell may be one of padding alone.
    local = max_over([step, lane], s + pad)
    rescaled = sum_over(cell, exp(local - peak) * sum_over([step, lane], mask * exp(s - local) * v))
    found = compare(spec, rescaled * recip(sum_over(atoms(J), shifted)))
    assert not found.equal
    assert "is finite" in found.reason
    # With a mask besides, a row may be masked entirely; the specification is undefined there.
    bias = leaf("mask", [M, *atoms(J)], finite=False)
    masked = sum_over(atoms(J), mask * exp(s + bias) * v) * recip(sum_over(atoms(J), mask * exp(s + bias)))
    top = max_over(atoms(J), s + bias + pad)
    weights = mask * exp(s + bias - top)
    stable = sum_over(atoms(J), weights * v) * recip(sum_over(atoms(J), weights))
    assert proved(stable, masked)


def test_atoms_of_copies() -> None:
    first, second = atoms(K), atoms(K2)
    x, y = leaf("x", first), leaf("x", second)
    mask, other = valid(K), leaf("valid:k", second)
    assert proved(sum_over(first, mask * x) * sum_over(second, other * y), _square(sum_over(first, mask * x)))
    gram = leaf("y", [*first, *second])
    turned = leaf("y", [*second, *first])
    assert proved(sum_over([*first, *second], mask * other * gram), sum_over([*first, *second], other * mask * turned))
    both = sum_over([*first, *second], mask * other * gram * x)
    assert not proved(both, sum_over([*first, *second], mask * other * gram * y))
