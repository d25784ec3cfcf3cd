"""Views that split and merge dimensions, masks, and joined tensors: they mean what torch computes, or are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from capturing import Function, assert_same, captured, check, draw, inputs_of
from reference import results
from torch import Tensor

from sgraph.axis import Axis, Size
from sgraph.errors import InputError, UnsupportedOperator, UnsupportedProgram
from sgraph.expr import (
    Op,
    add,
    const,
    equal,
    exp,
    extent,
    index,
    leaf,
    less,
    less_equal,
    max_over,
    mul,
    neg_inf,
    recip,
    rename,
    sum_over,
    walk,
    where,
)
from sgraph.program import DType, Split, View

INF = float("inf")


# ---------------------------------------------------------------------------------------------------- views


def grouped(q: Tensor, k: Tensor) -> Tensor:
    heads = q.flatten(1, 2)
    keys = k.repeat_interleave(4, dim=2)
    return torch.einsum("bhd,blhd->bhl", heads, keys).view(2, 2, 4, 3)


def tokens_in_one_row(x: Tensor, w: Tensor) -> Tensor:
    rows, features = w.shape
    return (x.view(-1, rows) @ w).view(*x.shape[:-1], features)


def heads_through_a_projection(x: Tensor, w: Tensor) -> Tensor:
    # [B, H, D] -> [B, S=1, H*D] @ [H*D, N], with the weight's rows given as heads and features.
    return x.flatten(1) @ w.flatten(0, 1)


VIEWS: dict[str, tuple[Function, list[tuple[int, ...]]]] = {
    "groups of repeated heads": (grouped, [(2, 2, 4, 5), (2, 3, 2, 5)]),
    "batch and tokens as rows": (tokens_in_one_row, [(2, 3, 5), (5, 7)]),
    "heads merged before a projection": (heads_through_a_projection, [(2, 3, 4), (3, 4, 5)]),
    "merged and split back": (lambda x: (x.flatten(1) * 2).view(2, 3, 4), [(2, 3, 4)]),
    "merged and split elsewhere": (
        lambda x, y: (x.flatten(1) * y.flatten(1)).view(2, 2, 3, 2, 2),
        [(2, 2, 3, 2, 2), (2, 2, 3, 2, 2)],
    ),
    "all elements in a row": (lambda x: x.reshape(-1).softmax(0).view(2, 3, 4), [(2, 3, 4)]),
    "mean of a merged dimension": (lambda x: x.flatten(1).mean(-1) + x.flatten(1).var(-1), [(2, 3, 4)]),
    "norm of a merged dimension": (
        lambda x, g: F.layer_norm(x.flatten(1), (12,), g.flatten(), None, 1e-5).view(2, 3, 4),
        [(2, 3, 4), (3, 4)],
    ),
    "transposed and merged": (
        lambda x, w: x.transpose(1, 2).reshape(2, 5, 12) @ w.view(12, 6),
        [(2, 3, 5, 4), (3, 4, 6)],
    ),
    "expand and merge": (
        lambda q, k: (q.flatten(1, 2) * k[:, :, None].expand(2, 3, 4, 5).reshape(2, 12, 5)).view(2, 3, 4, 5),
        [(2, 3, 4, 5), (2, 3, 5)],
    ),
    "repeat": (lambda x, y: (x.repeat(1, 3) * y.flatten(1)).view(2, 3, 4), [(2, 4), (2, 3, 4)]),
    "tile of a new dimension": (lambda x, y: x.repeat(3, 1) + y, [(4,), (3, 4)]),
    "groups of a group norm": (
        lambda x: ((x - x.flatten(2).mean(-1)[..., None, None]) * 2).flatten(1, 2).view(2, 3, 4, 5),
        [(2, 3, 4, 5)],
    ),
    "einsum with an ellipsis": (lambda x, w: torch.einsum("...k,kn->...n", x, w), [(2, 3, 4), (4, 5)]),
    "einsum with broadcast batches": (lambda x, y: torch.einsum("...mk,...kn->...nm", x, y), [(2, 1, 3, 4), (5, 4, 2)]),
}


@pytest.mark.parametrize("name", list(VIEWS))
def test_views_mean_what_torch_computes(name: str) -> None:
    function, shapes = VIEWS[name]
    check(function, *inputs_of(*shapes))


def test_a_split_concerns_the_whole_class_of_an_axis() -> None:
    # The bias runs along the merged dimension, so it is read with both axes.
    program = check(lambda x, b: (x.flatten(1) + b).view(2, 3, 4), *inputs_of((2, 3, 4), (12,)))
    assert [a.extent if a else 1 for a in program.inputs[1].axes] == [3, 4]
    assert program.border is not None and program.border.views[1] == View("b", (Split(0, (3, 4)),))
    check(lambda x, b: (x.flatten(1) + b.flatten()).view(2, 3, 4), *inputs_of((2, 3, 4), (3, 4)))


def test_two_ways_to_split_are_reconciled_by_their_common_refinement() -> None:
    program = check(lambda x, y: (x.flatten() + y.flatten()).view(4, 2, 4), *inputs_of((4, 8), (8, 4)))
    assert program.inputs[0].axes == program.inputs[1].axes
    check(lambda x, y: (x.flatten() + y.flatten()).view(4, 2, 4), *inputs_of((4, 2, 4), (4, 2, 4)))
    with pytest.raises(UnsupportedProgram, match=r"a dimension of 2 x 3 runs beside one of 3 x 2") as caught:
        captured(lambda x, y: x.flatten() + y.flatten(), *inputs_of((2, 3), (3, 2)))
    assert "x.flatten() + y.flatten()" in caught.value.where


def test_copies_of_a_split_axis_are_split_alike() -> None:
    def function(x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        weights = torch.softmax(rows @ rows.T, -1)
        return (weights @ rows).view(2, 3, 5)

    program = check(function, draw(2, 3, 5))
    copies = {a.copy for node in walk([program.outputs[0].value]) if node.op is Op.LEAF for a in node.axes}
    assert copies == {0, 1}


def test_heads_of_an_input_are_a_view_of_it() -> None:
    program = check(
        lambda q, k: torch.einsum("bhgd,blhd->bhgl", q.view(2, 2, 4, 5), k), draw(2, 8, 5), draw(2, 3, 2, 5, seed=1)
    )
    assert program.border is not None
    assert program.border.views == (View("q", (Split(1, (2, 4)),)), View("k"))
    program = check(lambda x, w: (x @ w).view(3, 2, 4), *inputs_of((3, 5), (5, 8)))
    assert program.border is not None and program.border.views[1] == View("w", (Split(1, (2, 4)),))


def test_results_may_merge_dimensions() -> None:
    program = check(lambda x: (x * 2).flatten(0, 1), draw(2, 4, 5))
    assert program.border is not None and program.border.merges == ((2, 1),)


def test_merged_dimensions_of_symbolic_size() -> None:
    rows = Size("M", 1, 64)

    def function(x: Tensor, w: Tensor) -> Tensor:
        return (x.flatten(0, 1) @ w).view(x.shape[0], 3, 7)

    w = draw(5, 7, seed=1)
    program = captured(function, draw(4, 3, 5), w, x=(rows, 3, 5))
    assert program.inputs[0].axes[0] == Axis("m", rows)
    for number in (1, 6):
        assert_same(program, function, (draw(number, 3, 5), w), M=number)

    length = Size("L", 16, 64, 16)
    program = captured(lambda x: (x.flatten() * 2).view(-1, 5), draw(32, 5), x=(length, 5))
    assert_same(program, lambda x: x * 2, (draw(48, 5),), L=48)
    with pytest.raises(UnsupportedProgram, match="makes a dimension of size"):
        captured(lambda x: (x * 2).view(-1, 16, 5), draw(32, 5), x=(length, 5))


# ------------------------------------------------------------------------------------------------- attention

HEADS = [(2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 6)]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def test_causal_attention_compares_positions() -> None:
    program = check(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), *inputs_of(*HEADS))
    conditions = [n for n in walk([program.outputs[0].value]) if n.op is Op.LE]
    assert len(conditions) == 1 and all(a.op is Op.INDEX for a in conditions[0].args)

    def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(-2, -1)) * 8**-0.5
        allowed = torch.arange(5) <= torch.arange(4)[:, None]
        return torch.softmax(scores.masked_fill(~allowed, -INF), -1) @ v

    check(by_hand, *inputs_of(*HEADS))


def test_causal_self_attention_of_one_input() -> None:
    check(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.5), draw(2, 4, 8))


def test_causal_attention_of_one_query_and_of_merged_queries() -> None:
    check(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        *inputs_of((2, 1, 8), (2, 5, 8), (2, 5, 6)),
    )

    def merged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q.flatten(1, 2), k, v, is_causal=True).view(2, 2, 3, 6)

    check(merged, *inputs_of((2, 2, 3, 8), (2, 7, 8), (2, 7, 6)))


def additive_mask(*shape: int) -> Tensor:
    mask = draw(*shape, seed=9)
    mask[mask < -0.5] = -INF
    mask[..., 0] = 0.0
    return mask


def test_additive_masks_are_added_behind_the_scale() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=0.25)

    program = check(function, *inputs_of(*HEADS), additive_mask(4, 5), masks=("mask",))
    assert [t.finite for t in program.inputs] == [True, True, True, False]
    check(function, *inputs_of(*HEADS), additive_mask(2, 1, 1, 5), masks=("mask",))

    def by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scores = q @ k.mT * 0.25 + mask
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        return (weights / weights.sum(-1, keepdim=True)) @ v

    check(by_hand, *inputs_of(*HEADS), additive_mask(4, 5), masks=("mask",))
    check(lambda x, mask: F.log_softmax(x + mask, -1).exp(), draw(4, 5), additive_mask(4, 5), masks=("mask",))


def test_a_mask_that_is_not_declared_to_hold_minus_infinity_is_finite() -> None:
    program = captured(lambda x, mask: torch.softmax(x + mask, -1), draw(4, 5), draw(4, 5))
    assert all(t.finite for t in program.inputs)
    with pytest.raises(InputError, match="`may_hold_minus_inf` names `m`"):
        captured(lambda x: x * 2, draw(4, 5), masks=("m",))


def test_boolean_masks_are_inputs_too() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, keep)

    keep = draw(4, 5, seed=7) > -0.3
    keep[:, 0] = True
    program = check(function, *inputs_of(*HEADS), keep)
    assert program.inputs[3].dtype is DType.BOOL
    check(lambda x, drop: x.masked_fill(drop, 0.0) + (~drop).sum(-1, keepdim=True), draw(4, 5), keep)


def test_lengths_are_integer_inputs() -> None:
    def function(x: Tensor, lengths: Tensor) -> Tensor:
        valid = torch.arange(x.shape[1])[None, :] < lengths[:, None]
        return torch.softmax(torch.where(valid, x, -INF), -1)

    program = check(function, draw(3, 5), torch.tensor([1, 5, 3], dtype=torch.int32))
    assert program.inputs[1].dtype is DType.INT32
    m, k = Axis("m", 3), Axis("k", 5)
    masked = where(less(index(k), leaf("lengths", (m,))), leaf("x", (m, k)), neg_inf())
    assert program.outputs[0].value is mul(exp(masked), recip(sum_over(k, exp(masked))))


def test_grouped_heads_in_one_operator() -> None:
    q, k, v = inputs_of((2, 6, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8))
    program = check(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), q, k, v)
    assert [a.extent if a else 1 for a in program.inputs[0].axes] == [2, 3, 2, 4, 8]

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = q.flatten(1, 2)
        out = F.scaled_dot_product_attention(heads, k, v, enable_gqa=True, is_causal=True)
        return out.unflatten(1, (3, 2))

    check(function, q.unflatten(1, (3, 2)), k, v)


def test_attention_refuses_what_it_cannot_mean() -> None:
    q = draw(2, 4, 8)
    with pytest.raises(UnsupportedOperator, match="dropout_p"):
        captured(lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5), q)


def alibi(x: Tensor, slope: Tensor) -> Tensor:
    places = torch.arange(5)
    distance = (places[None, :] - places[:, None]).to(x.dtype)
    return torch.softmax(x + slope * distance, -1)


def sliding_window(x: Tensor) -> Tensor:
    places = torch.arange(5)
    distance = places[:, None] - places[None, :]
    return torch.softmax(x.masked_fill(~((distance >= 0) & (distance < 3)), -INF), -1)


def mask_of_ones(x: Tensor) -> Tensor:
    keep = torch.tril(torch.ones(5, 5, dtype=torch.bool))
    return torch.softmax(x.masked_fill(keep.logical_not(), -INF), -1)


def additive_triangle(x: Tensor) -> Tensor:
    return torch.softmax(x + torch.triu(torch.full((5, 5), -INF, dtype=x.dtype), diagonal=1), -1)


def quarter_of_a_mask(x: Tensor) -> Tensor:
    bias = torch.ones(8, 8, dtype=torch.bool).tril().view(1, 8, 8)
    return torch.softmax(torch.where(bias[0, 3:8, 3:8], x, -INF), -1)


MASKS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "and": lambda x, y: torch.where((x > 0) & (y > 0), x, y),
    "or": lambda x, y: torch.where((x > 0) | (y > 0), x, 2 * y),
    "exclusive or": lambda x, y: torch.where((x > 0) ^ (y > 0), x, 2 * y),
    "not": lambda x, y: torch.where(~((x > 0) & ~(y > 0)), x, 2 * y),
    "logical": lambda x, y: torch.where(torch.logical_or(x > 0, torch.logical_and(y > 0, x > y)), x, 2 * y),
    "three conditions": lambda x, y: torch.where((x > 0) & (y > 0) | (x < y), x, 3 * y),
    "choice between conditions": lambda x, y: torch.where(torch.where(x > 0, y > 0, y < -1), x, 2 * y),
    "product of conditions": lambda x, y: torch.where((x > 0) * (y > 0), x, 2 * y),
    "condition as number": lambda x, y: ((x > 0) | (y > 0)).double() * x + (y > 0).to(torch.int64).sum(),
    "number as condition": lambda x, y: torch.where(((x > 0).double() * y).bool(), x, 1.0),
    "any and all": lambda x, y: torch.where((x > y).any(-1, keepdim=True), x, torch.where((x > -9).all(), y, 0.0)),
    "expanded condition": lambda x, y: torch.where((x > y).any(0).expand(5, 5), x, y),
    "arange": lambda x, y: x * torch.arange(5) + torch.arange(1, 11, 2).to(x.dtype)[:, None],
    "arange of floats": lambda x, y: x + torch.arange(0.0, 1.0, 0.2, dtype=x.dtype),
    "triangles": lambda x, y: torch.tril(x) + torch.triu(y) + x.tril(-1) + x.triu(2) + y.tril(1),
    "mask of ones": lambda x, y: mask_of_ones(x),
    "additive triangle": lambda x, y: additive_triangle(x),
    "sliding window": lambda x, y: sliding_window(x),
    "alibi": lambda x, y: alibi(x, y[0:5].mean()),
    "part of a mask": lambda x, y: quarter_of_a_mask(x),
    "last of a mask": lambda x, y: x * torch.arange(9)[-5:] + torch.arange(9)[-1] + torch.arange(9)[2],
}


@pytest.mark.parametrize("name", list(MASKS))
def test_masks_mean_what_torch_computes(name: str) -> None:
    check(MASKS[name], draw(5, 5), draw(5, 5, seed=1))


UNDEFINED: dict[str, tuple[Function, str]] = {
    "scale behind the mask": (lambda x, mask: (x + mask) * 0.5, "multiplies a value that may be minus infinity"),
    "sum": (lambda x, mask: (x + mask).sum(-1), "sums a value that may be"),
    "function": (lambda x, mask: torch.tanh(mask) + x, "takes a function of a value that may be"),
    "comparison": (lambda x, mask: torch.where(mask < 0, x, 0.0), "compares a value that may be"),
    "minimum": (lambda x, mask: x - torch.minimum(x, mask), "takes the minimum of a value"),
}


@pytest.mark.parametrize("name", list(UNDEFINED))
def test_undefined_uses_of_minus_infinity_are_refused(name: str) -> None:
    function, message = UNDEFINED[name]
    with pytest.raises(UnsupportedProgram, match=message) as caught:
        captured(function, draw(4, 5), additive_mask(4, 5), masks=("mask",))
    assert "test_views.py" in caught.value.where
    assert "scale before masking" in caught.value.do


# ---------------------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_default_eps_of_rms_norm_is_that_of_the_installed_torch(dtype: torch.dtype) -> None:
    # Small elements: eps decides the result.
    x = torch.full((2, 4), 2.0**-12, dtype=dtype)
    program = captured(lambda x: F.rms_norm(x, (4,)), x)
    found = results(program, {"x": x.double().numpy()})[0]
    torch.testing.assert_close(
        torch.from_numpy(found.copy()),
        F.rms_norm(x, (4,)).double(),
        rtol=1e-2 if dtype is torch.bfloat16 else 1e-3,
        atol=0,
    )


# ------------------------------------------------------------------------------------------------ expressions


def test_conditions_have_constructors() -> None:
    a, b = index(Axis("k", 4)), const(2)
    assert [less(a, b).op, less_equal(a, b).op, equal(a, b).op] == [Op.LT, Op.LE, Op.EQ]


def test_renaming_needs_no_recursion_and_captures_nothing() -> None:
    m, k, n = Axis("m", 3), Axis("k", 5), Axis("n", 7)
    e = leaf("x", (m, k))
    for _ in range(3 * sys.getrecursionlimit()):
        e = add(e, sum_over(k, mul(e, leaf("w", (k,)))))
    renamed = rename(e, {m: k, k: n})
    assert renamed.free == {k, n}
    # Sums over k below the new free axis k have moved out of its way.
    assert {node.axis for node in walk([renamed]) if node.op is Op.SUM} == {k.renamed(1)}
    assert rename(max_over(k, e), {k: n}) is max_over(k, e)
    assert extent(k) is extent(k.renamed(1))


def test_masks_combine() -> None:
    x, mask = draw(4, 5), additive_mask(4, 5)
    check(lambda x, mask: ((x + mask).masked_fill(x > 0, -INF) + mask + 1).exp(), x, mask, masks=("mask",))
