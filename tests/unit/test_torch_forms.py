"""Other forms of unary functions: equal to what they stand for, in fifty digits and at every magnitude in float32."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mpmath
import pytest
import torch

from autotune.torch_forms import FORMS
from autotune.torch_printer import load_torch, print_torch
from sgraph.axis import Axis
from sgraph.expr import call
from sgraph.functions import function
from sgraph.ir import Kernel, SGraph, Store
from tests.programs import program, tensor


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def _exp2(x: Any) -> Any:
    return mpmath.mpf(2) ** x


def _where(condition: Any, then: Any, otherwise: Any) -> Any:
    return then if condition else otherwise


EXACT = SimpleNamespace(
    Tensor=object,
    where=_where,
    exp2=_exp2,
    sigmoid=_sigmoid,
)
"""What the helpers use of torch, in mpmath."""


def _helper(name: str, library: object) -> Any:
    namespace: dict[str, Any] = {"torch": library}
    exec(FORMS[name].source, namespace)
    return namespace[FORMS[name].name]


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_form_is_its_function_in_fifty_digits(name: str) -> None:
    # A literal such as 1.5957691216057308 is the rounding of the constant that the function names; the series of tanh
    # ends where float32 does.
    tolerance = mpmath.mpf("5e-9" if name == "tanh" else "1e-15")
    with mpmath.workdps(50):
        form = _helper(name, EXACT)
        for n in range(-40, 41):
            x = mpmath.mpf(n) / 9
            expected = mpmath.exp(x) if name == "exp" else function(name).mpmath(mpmath, x)
            assert abs(form(x) - expected) <= tolerance * (
                abs(expected) if name == "tanh" else max(1, abs(expected))
            ), (name, x)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_form_keeps_its_digits_at_every_magnitude(name: str) -> None:
    form, library = _helper(name, torch), FORMS[name].library()
    magnitudes = torch.logspace(-30, 1.3, 4001, dtype=torch.float32)
    x = torch.cat((magnitudes, -magnitudes, torch.tensor([0.0, -0.0])))
    exact = library(x.double())
    assert isinstance(exact, torch.Tensor)
    error = (form(x).double() - exact).abs()
    # 1 - tanh loses digits far below zero, where torch's own gelu has none left.
    scale = {"tanh": exact.abs(), "gelu_tanh": x.abs().double(), "exp": exact * (1 + x.abs())}[name]
    assert float((error / scale.clamp_min(1e-35)).max()) < 5 * torch.finfo(torch.float32).eps


def test_extremes() -> None:
    form = _helper("tanh", torch)
    assert form(torch.tensor([torch.inf, -torch.inf, 1e30, -1e30])).tolist() == [1, -1, 1, -1]
    assert bool(form(torch.tensor(torch.nan)).isnan())


def _graph() -> SGraph:
    m = Axis("m", 5)
    x = tensor("x", m)
    p = program("chain", (x,), (tensor("out", m), call("tanh", x.read()) + call("gelu_tanh", x.read())))
    return SGraph(p, (Kernel("k0", tuple(Store(o.tensor, o.value, o.value) for o in p.outputs)),))


def test_forms_are_printed_as_functions_and_swapped_for_the_proof() -> None:
    plain, formed = print_torch(_graph()), print_torch(_graph(), forms=True)
    assert "tanh_by_sigmoid(" in formed and "torch.tanh" not in formed
    assert "by_sigmoid" not in plain
    x = torch.randn(5).to(torch.bfloat16)
    torch.testing.assert_close(load_torch(formed)(x), load_torch(plain)(x))
    run = load_torch(formed, library=True)
    assert run.__globals__["tanh_by_sigmoid"] is torch.tanh  # type: ignore[attr-defined]
    assert torch.equal(run(x), load_torch(plain)(x))  # type: ignore[arg-type]


def test_a_graph_without_such_functions_has_no_forms() -> None:
    m = Axis("m", 5)
    x = tensor("x", m)
    p = program("plain", (x,), (tensor("out", m), call("sigmoid", x.read())))
    graph = SGraph(p, (Kernel("k0", tuple(Store(o.tensor, o.value, o.value) for o in p.outputs)),))
    assert print_torch(graph) == print_torch(graph, forms=True)
