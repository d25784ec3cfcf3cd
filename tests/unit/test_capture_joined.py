"""Tensors joined by ``cat`` and ``stack``, and parts of tensors: they mean what torch computes, or are refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from capturing import Function, assert_same, captured, check, draw, inputs_of
from torch import Tensor

from sgraph.axis import Size
from sgraph.errors import PrismError, UnsupportedOperator, UnsupportedProgram
from sgraph.expr import Op, walk
from sgraph.program import Program

INF = float("inf")


def extents(program: Program) -> list[list[object]]:
    return [[None if a is None else a.extent for a in t.axes] for t in program.inputs]


def attention_with_a_new_token(q: Tensor, cache_k: Tensor, k: Tensor, cache_v: Tensor, v: Tensor) -> Tensor:
    keys, values = torch.cat([cache_k, k], 1), torch.cat([cache_v, v], 1)
    return torch.softmax(q @ keys.mT * 0.5, -1) @ values


def causal_with_a_cache(q: Tensor, cache_k: Tensor, k: Tensor, cache_v: Tensor, v: Tensor) -> Tensor:
    keys, values = torch.cat([cache_k, k], 1), torch.cat([cache_v, v], 1)
    places = torch.arange(keys.shape[1])
    seen = places[None, :] <= places[-q.shape[1] :, None]
    return torch.softmax((q @ keys.mT).masked_fill(~seen, -INF), -1) @ values


def one_product_for_two_weights(x: Tensor, wg: Tensor, wu: Tensor) -> Tensor:
    gate, up = (x @ torch.cat([wg, wu], dim=1)).chunk(2, dim=-1)
    return F.silu(gate) * up


def unequal_parts(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    both = F.linear(x, torch.cat([a, b]))
    left, right = both.split([a.shape[0], b.shape[0]], dim=-1)
    return left.sum(-1, keepdim=True) * right


def rotary(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate half, with the halves of a head in a dimension of their own, and the product of two heads."""

    def rotate(halves: Tensor) -> Tensor:
        a, b = halves.unbind(-2)
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-2).flatten(-2)

    return rotate(x) @ rotate(y).mT


JOINED: dict[str, tuple[Function, list[tuple[int, ...]]]] = {
    "sum": (lambda x, y: torch.cat([x, y], -1).sum(-1), [(3, 4), (3, 5)]),
    "mean and maximum": (
        lambda x, y: torch.cat([x, y], 1).mean(1) + torch.cat([x, y], 1).amax(1) + torch.cat([y, x], 1).amin(1),
        [(3, 4), (3, 5)],
    ),
    "the same part twice": (lambda x: torch.cat([x, x * 2, x], -1).logsumexp(-1), [(3, 4)]),
    "scaled before a sum": (lambda x, y, z: (torch.cat([x, y], -1) * z[:, None]).exp().sum(-1), [(3, 4), (3, 5), (3,)]),
    "both sides joined": (
        lambda x, y, a, b: torch.cat([x, y], 1) @ torch.cat([a, b]),
        [(3, 4), (3, 5), (4, 2), (5, 2)],
    ),
    "norm": (lambda x, y: F.rms_norm(torch.cat([x, y], -1), (9,), eps=1e-5)[:, :4], [(3, 4), (3, 5)]),
    "softmax and one part": (lambda x, y: torch.softmax(torch.cat([x, y], -1), -1)[:, 4:], [(3, 4), (3, 5)]),
    "two of three parts": (lambda x, y, z: torch.cat([x, y, z])[3:].square().sum(0), [(3, 4), (5, 4), (2, 4)]),
    "joined, transposed, viewed": (
        lambda x, y: torch.cat([x, y], 1).transpose(0, 1)[None].view(1, 9, 3).sum(1),
        [(3, 4), (3, 5)],
    ),
    "viewed beside the joined dimension": (
        lambda x, y: torch.cat([x, y], 1).flatten(2).view(2, 9, 2, 3).sum(1),
        [(2, 4, 2, 3), (2, 5, 2, 3)],
    ),
    "joined and joined again": (lambda x, y: torch.cat([torch.cat([x, y]), x]).sum(0), [(3, 4), (5, 4)]),
    "a cache and a new token": (attention_with_a_new_token, [(2, 1, 4), (2, 5, 4), (2, 1, 4), (2, 5, 3), (2, 1, 3)]),
    "a causal mask over a cache": (causal_with_a_cache, [(2, 2, 4), (2, 5, 4), (2, 2, 4), (2, 5, 3), (2, 2, 3)]),
    "one product for two weights": (one_product_for_two_weights, [(3, 4), (4, 5), (4, 5)]),
    "unequal parts": (unequal_parts, [(3, 4), (5, 4), (2, 4)]),
    "stack": (lambda x, y: torch.stack([x, y], 1) * 2, [(3, 4), (3, 4)]),
    "stack against a whole axis": (lambda x, y, w: torch.stack([x, y], -1) @ w, [(3, 4), (3, 4), (2, 5)]),
    "stack of three, one selected": (
        lambda x, y: torch.stack([x, y, x * y])[1] + torch.stack([x, y]).sum(0),
        [(3, 4)] * 2,
    ),
    "stack of one": (lambda x: torch.stack([x], 1) * 2, [(3, 4)]),
    "conditions": (lambda x, y: torch.cat([x > 0, y > 0], 1).sum(1) * x[:, :].sum(1), [(3, 4), (3, 5)]),
    "beside a whole input": (lambda x, y, w: torch.cat([x, y], 1) @ w, [(3, 4), (3, 5), (9, 2)]),
    "chunk of a projection": (lambda x, w: F.silu((x @ w).chunk(2, -1)[0]), [(3, 4), (4, 6)]),
    "part of a part": (lambda x, y: torch.cat([x, y], 1)[:, 2:].sum(1), [(3, 4), (3, 5)]),
    "returned": (lambda x, y: torch.cat([x, y], 1) * 2, [(3, 4), (3, 4)]),
    "two dimensions of equal parts": (lambda x: torch.cat([torch.cat([x, -x]), torch.cat([x, x])], 1), [(3, 4)]),
    "a part": (lambda x: x[:, 1:] * 2 + x[:, :-1], [(3, 4)]),
    "one index": (lambda x: x[1] * x[-1] + x[:, :3].sum(), [(3, 4)]),
    "part of a merged dimension": (lambda x: (x.flatten() * 2)[4:12] + x.flatten()[5:6], [(3, 4)]),
    "parts of parts": (lambda x: x.chunk(2, 1)[1].chunk(2, 1)[0] * x[:, 4:6], [(3, 8)]),
    "parts, then a split of the whole": (
        lambda x: x.chunk(2, 1)[0] + x.view(3, 2, 4)[:, 1] + x.view(3, 4, 2).flatten(1).chunk(2, 1)[1],
        [(3, 8)],
    ),
    "expanded": (lambda x, y: torch.cat([x, y], 1).expand(3, 9).logsumexp(1), [(1, 4), (1, 5)]),
}


@pytest.mark.parametrize("name", list(JOINED))
def test_joined_tensors_mean_what_torch_computes(name: str) -> None:
    function, shapes = JOINED[name]
    check(function, *inputs_of(*shapes))


def test_one_product_for_two_weights_is_two_products() -> None:
    program = check(one_product_for_two_weights, *inputs_of((3, 4), (4, 5), (4, 5)))
    assert extents(program) == [[3, 4], [4, 5], [4, 5]]
    reads = {n.name for n in walk([program.outputs[0].value]) if n.op is Op.LEAF}
    assert reads == {"x", "wg", "wu"}


def test_a_cache_of_symbolic_length() -> None:
    length = Size("L", 1, 64)
    inputs = inputs_of((2, 1, 4), (2, 5, 4), (2, 1, 4), (2, 5, 3), (2, 1, 3))
    program = captured(attention_with_a_new_token, *inputs, cache_k=(2, length, 4), cache_v=(2, length, 3))
    longer = inputs_of((2, 1, 4), (2, 9, 4), (2, 1, 4), (2, 9, 3), (2, 1, 3))
    assert_same(program, attention_with_a_new_token, longer, L=9)


def test_rotary_embedding_with_halves_in_a_dimension_of_their_own() -> None:
    check(rotary, *inputs_of((3, 2, 4), (5, 2, 4), (4,), (4,)))

    def from_halves(xa: Tensor, xb: Tensor, ya: Tensor, yb: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        def rotate(a: Tensor, b: Tensor) -> Tensor:
            x = torch.cat([a, b], -1)
            turned = torch.cat([-x[..., 4:], x[..., :4]], -1)
            return x * torch.cat([cos, cos], -1) + turned * torch.cat([sin, sin], -1)

        return rotate(xa, xb) @ rotate(ya, yb).mT

    check(from_halves, *inputs_of((3, 4), (3, 4), (5, 4), (5, 4), (3, 4), (3, 4))[:4], draw(4), draw(4, seed=1))


REFUSED: dict[str, tuple[Function, list[tuple[int, ...]], type[PrismError], str]] = {
    "returned": (
        lambda x, y: torch.cat([x, y], 1) * 2,
        [(3, 4), (3, 5)],
        UnsupportedProgram,
        r"joined from parts of 4 and 5 is used as one whole[\s\S]*f\(a\) and f\(b\) in place of f\(cat\(a, b\)\)",
    ),
    "other parts": (
        lambda x, y: (torch.cat([x, y], 1) * torch.cat([y, x], 1)).sum(1),
        [(3, 4), (3, 5)],
        UnsupportedProgram,
        "parts of 4 and 5 meet a tensor that is joined from other parts",
    ),
    "two dimensions": (
        lambda x, y: (torch.cat([x, y]) @ torch.cat([x, y]).T).sum(),
        [(3, 4), (5, 4)],
        UnsupportedProgram,
        "joined from parts of 3 and 5 is used as one whole",
    ),
    "a row and a half": (
        lambda x: (x.flatten() * 2)[2:6].sum() + x.sum(1).sum(),
        [(3, 4)],
        UnsupportedProgram,
        "along which `x` is read, and which part depends on symbolic sizes or is no block",
    ),
    "every second": (lambda x: x[:, ::2] * 2, [(3, 4)], UnsupportedOperator, "every few indices"),
    "fraction as integer": (
        lambda x: x * torch.full((4,), 2.5, dtype=torch.int64),
        [(3, 4)],
        UnsupportedProgram,
        "turns real numbers into int64",
    ),
    "nothing": (lambda x: x[:, 4:].sum() + x, [(3, 4)], UnsupportedOperator, "no index at all"),
    "triangle": (lambda x: torch.cat([x, x]).tril().sum(0), [(4, 4)], UnsupportedProgram, "of a joined tensor"),
    "repeats by tensor": (
        lambda x: x.repeat_interleave(2).sum(),
        [(3, 4)],
        UnsupportedOperator,
        "a number of repeats along one dimension",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_meaning_is_refused_with_a_reason(name: str) -> None:
    function, shapes, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        captured(function, *inputs_of(*shapes))
    assert type(caught.value) is error
    assert "test_capture_joined.py" in caught.value.where
    assert caught.value.do
