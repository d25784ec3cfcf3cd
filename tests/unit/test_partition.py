"""A graph is divided without changing what it does: order of effects, aliases, layouts and random draws stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from prism.backend import Backend, Options, Searches
from prism.regions import Partition, Region
from prism.sections import MOST_PRODUCTS
from prism.stitching import Observed

Function = Callable[..., object]


@dataclass
class Found:
    """In place of a search's result: the region as it was written, so that results are equal to the last bit.

    As a kernel does, it returns new, contiguous tensors.
    """

    written: Function

    def run(self, *inputs: Tensor) -> object:
        result = self.written(*inputs)
        results = cast("tuple[Tensor, ...]", result if isinstance(result, tuple) else (result,))
        fresh = tuple(t.clone(memory_format=torch.contiguous_format) for t in results)
        return fresh if isinstance(result, tuple) else fresh[0]


class Unsearched(Searches):
    """Finds nothing better than what is there, and remembers how often it was asked."""

    def find(self, region: Region, seen: Observed, function: Function, options: Options) -> Found:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        if (region.key,) not in self.results:
            self.done += 1
            self.results[(region.key,)] = Found(function)  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        return Found(function)


def through(function: Function, *inputs: object) -> tuple[Backend, list[object]]:
    """A function compiled with regions that are not changed, called twice: watched, then stitched."""
    torch.compiler.reset()
    backend = Backend(Options(fallback="eager"), Unsearched())
    compiled = torch.compile(function, backend=backend, dynamic=False)
    answers: list[object] = []
    with torch.no_grad():
        for _ in range(2):
            torch.manual_seed(0)
            answers.append(compiled(*[x.clone() if isinstance(x, Tensor) else x for x in inputs]))
    return backend, answers


def partitions(backend: Backend) -> list[Partition]:
    return [graph.partition for graph in backend.graphs]


X, W = torch.randn(8, 16), torch.randn(16, 16)


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def unsupported_between(x: Tensor, w: Tensor) -> Tensor:
    return norm(torch.cumsum(norm(x) @ w, 0)) @ w


def changed_between(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    first = norm(x) @ w
    x.mul_(3.0)
    second = norm(x) @ w
    return first, second


def changed_through_a_view(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    row = x[2]
    before = (x @ w).softmax(-1)
    row.fill_(1.0)
    return before, (x @ w).softmax(-1)


def read_on_both_sides(x: Tensor, w: Tensor) -> Tensor:
    """Connected by data, and yet no region: the last sum reads what was changed in between."""
    h = norm(x) @ w
    x.mul_(3.0)
    return (h.softmax(-1) + x).softmax(-1)


def intermediate_changed(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    h = x @ w
    s = h.softmax(-1)
    h += 1.0
    return s, h.softmax(-1) @ w


def views_returned(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = norm(x) @ w
    return h, h.t(), x.view(4, 32)


def chunks_returned(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    return (norm(x) @ w).chunk(4, -1)


def odd_layout(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    h = (norm(x) @ w).t() * 2.0
    return h, torch.cumsum(h, 0)


def random_draws(x: Tensor, w: Tensor) -> Tensor:
    a = torch.rand(8, 16) * norm(x)
    b = F.dropout(a @ w, 0.5)
    return norm(b) + torch.randn(8, 16)


def two_ways(x: Tensor, w: Tensor) -> Tensor:
    """An unsupported operator beside the path: what is before and behind it cannot be one region."""
    h = norm(x) @ w
    return (h * 2.0).softmax(-1) + torch.cumsum(h, 0).softmax(-1)


def lengths(x: Tensor, w: Tensor) -> Tensor:
    keep = torch.arange(16) < 12
    return (norm(x) @ w).masked_fill(~keep, float("-inf")).softmax(-1)


WRITTEN: dict[str, Function] = {
    f.__name__: f
    for f in (
        unsupported_between,
        changed_between,
        changed_through_a_view,
        read_on_both_sides,
        intermediate_changed,
        views_returned,
        chunks_returned,
        odd_layout,
        random_draws,
        two_ways,
        lengths,
    )
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_divided_function_computes_the_same_to_the_last_bit(name: str) -> None:
    function = WRITTEN[name]
    backend, answers = through(function, X, W)
    assert any(p.regions for p in partitions(backend)), "nothing was divided"
    torch.manual_seed(0)
    expected = function(X.clone(), W.clone())
    for answer in answers:
        torch.testing.assert_close(answer, expected, rtol=0, atol=0, check_stride=True)


def test_inputs_are_changed_as_the_function_changes_them() -> None:
    torch.compiler.reset()
    backend = Backend(Options(fallback="eager"), Unsearched())
    compiled = torch.compile(changed_through_a_view, backend=backend, dynamic=False)
    with torch.no_grad():
        compiled(X.clone(), W)
        given = X.clone()
        compiled(given, W)
    assert bool((given[2] == 1.0).all())
    torch.testing.assert_close(given[3], X[3])


def test_results_that_are_views_stay_views_of_each_other() -> None:
    _, answers = through(views_returned, X, W)
    for answer in answers:
        h, t, _ = answer  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
        assert h.data_ptr() == t.data_ptr()
        assert t.stride() == (1, 16)


def test_no_region_reaches_across_an_effect() -> None:
    backend, _ = through(changed_between, X, W)
    (found,) = partitions(backend)
    assert len(found.regions) == 2
    assert found.regions[0].outputs != found.regions[1].outputs
    assert [c.reason for c in found.cuts] == ["changes a tensor in place"]


def test_a_cut_names_the_operator_the_line_and_the_reason() -> None:
    backend, _ = through(unsupported_between, X, W)
    (found,) = partitions(backend)
    (cut,) = found.cuts
    assert cut.operator == "cumsum"
    assert "test_partition.py" in cut.line
    assert "torch.cumsum(norm(x) @ w, 0)" in cut.line
    assert "not supported" in cut.reason
    assert len(found.regions) == 2
    assert found.covered + 1 == found.operators


def test_a_lone_operator_is_not_searched_and_that_is_said() -> None:
    def lone(x: Tensor) -> Tensor:
        return torch.cumsum(x + 1.0, 0)

    backend, _ = through(lone, X)
    (found,) = partitions(backend)
    assert not found.regions
    assert "add" in found.skipped[0].operators[0]
    assert "nothing to optimise" in found.skipped[0].reason


def test_random_operators_are_left_to_torch() -> None:
    backend, _ = through(random_draws, X, W)
    reasons = {c.operator: c.reason for p in partitions(backend) for c in p.cuts}
    assert reasons["dropout"] == reasons["rand"] == "draws random numbers"


def test_what_may_hold_minus_infinity_is_declared_so() -> None:
    def scores(x: Tensor, mask: Tensor) -> Tensor:
        return (torch.cumsum(x, 0) + mask).softmax(-1)

    backend, _ = through(scores, X, torch.zeros(8, 16))
    (region,) = partitions(backend)[0].regions
    assert len(region.masks) == 2
    assert not any(t.finite for t in region.program.inputs)


def test_gradients_leave_the_graph_to_torch() -> None:
    torch.compiler.reset()
    backend = Backend(Options(fallback="eager"), Unsearched())
    w = W.clone().requires_grad_()

    def weighted(x: Tensor) -> Tensor:
        return norm(x) @ w

    compiled = torch.compile(weighted, backend=backend, dynamic=False)
    compiled(X).sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, norm(X).sum(0)[:, None].expand(16, 16))
    assert "gradient" in partitions(backend)[0].reason


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(16)
        self.qkv, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)
        self.up, self.down = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.silu(self.up(self.norm(x))))


def test_the_layers_of_a_model_are_the_same_regions() -> None:
    model = torch.nn.Sequential(Layer(), Layer(), Layer()).eval()
    backend, answers = through(model, torch.randn(2, 5, 16))
    (found,) = partitions(backend)
    keys = [r.key for r in found.regions]
    assert found.covered == found.operators
    assert len(keys) == 3 * len(set(keys))
    assert backend.searches.done == len(set(keys))
    assert MOST_PRODUCTS < 7, "attention and MLP of this layer would be one region"
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


def test_an_open_size_stays_open_in_its_regions() -> None:
    torch.compiler.reset()
    backend = Backend(Options(fallback="eager"), Unsearched())
    compiled = torch.compile(unsupported_between, backend=backend)
    x = torch.randn(8, 16)
    torch._dynamo.mark_dynamic(x, 0, min=2, max=64)  # pyright: ignore[reportPrivateUsage]
    with torch.no_grad():
        compiled(x, W)
        for rows in (2, 11, 64):
            given = torch.randn(rows, 16)
            torch.testing.assert_close(compiled(given, W), unsupported_between(given, W))
    assert len(backend.graphs) == 1
    extents = {str(a.extent) for r in partitions(backend)[0].regions for t in r.program.inputs for a in t.named_axes}
    assert any("s" in e for e in extents), extents
