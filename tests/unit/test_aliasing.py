"""Results that share memory are refused; results that merely come from one tensor are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from prism.frontend import capture
from sgraph.errors import UnsupportedProgram

Results = tuple[torch.Tensor, ...]


def run(function: Callable[[torch.Tensor], Results]) -> None:
    capture(function, (torch.randn(4, 6),))


def shares(function: Callable[[torch.Tensor], Results]) -> bool:
    """What torch itself does: whether writing to one result changes another."""
    results = function(torch.randn(4, 6))
    for i, one in enumerate(results):
        before = [r.clone() for j, r in enumerate(results) if j != i]
        one.fill_(float(100 + i))
        if any(
            not torch.equal(a, b) for a, b in zip(before, [r for j, r in enumerate(results) if j != i], strict=True)
        ):
            return True
    return False


def whole_and_transposed(x: torch.Tensor) -> Results:
    v = x * 2
    return v.t(), v


def part_and_whole(x: torch.Tensor) -> Results:
    v = x * 2
    return v[:, :2], v


def parts_that_overlap(x: torch.Tensor) -> Results:
    v = x * 2
    return v[:, :3], v[:, 2:]


def row_and_rows(x: torch.Tensor) -> Results:
    v = x * 2
    return v.select(0, 1), v.narrow(0, 1, 2)


def two_reshapes(x: torch.Tensor) -> Results:
    v = x * 2
    return v.reshape(-1), v.view(2, 12)


def parts_on_different_axes(x: torch.Tensor) -> Results:
    v = x * 2
    return v[:2], v[:, :2]


def halves(x: torch.Tensor) -> Results:
    a, b = (x * 2).chunk(2, -1)
    return a, b


def slices(x: torch.Tensor) -> Results:
    v = x * 2
    return v[:, :2], v[:, 2:4], v[:, 4:]


def rows(x: torch.Tensor) -> Results:
    return tuple((x * 2).unbind(0))


def halves_transposed(x: torch.Tensor) -> Results:
    a, b = (x * 2).view(4, 2, 3).chunk(2, 1)
    return a.squeeze(1).t(), b.squeeze(1)


def copies(x: torch.Tensor) -> Results:
    v = x * 2
    return v, v.clone() + 1, (v * 3).to(torch.float64)


@pytest.mark.parametrize(
    "function",
    [whole_and_transposed, part_and_whole, parts_that_overlap, row_and_rows, two_reshapes, parts_on_different_axes],
    ids=lambda f: f.__name__,
)
def test_results_that_share_memory_are_refused(function: Callable[[torch.Tensor], Results]) -> None:
    assert shares(function)
    with pytest.raises(UnsupportedProgram, match="share memory"):
        run(function)


@pytest.mark.parametrize("function", [halves, slices, rows, halves_transposed, copies], ids=lambda f: f.__name__)
def test_results_that_are_apart_are_captured(function: Callable[[torch.Tensor], Results]) -> None:
    assert not shares(function)
    run(function)
