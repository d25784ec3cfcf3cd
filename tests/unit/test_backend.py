"""``torch.compile(model, backend="prism")``: same outputs, alike layers searched once, the rest where it was told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from prism import backend
from prism.effort import EFFORTS
from prism.regions import Region
from prism.result import Result
from prism.stitching import Observed
from sgraph.errors import InputError, NoFeasibleFamily


@pytest.fixture(autouse=True)
def _short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    torch.compiler.reset()
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(EFFORTS, "quick", replace(EFFORTS["quick"], measure_s=1.0, tuned=2, proved=4))  # type: ignore[index]
    backend.register()


class Mlp(torch.nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(width, eps=1e-6)
        self.up, self.down = torch.nn.Linear(width, 48), torch.nn.Linear(48, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.norm(x))))


class Attention(torch.nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        return x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def options(**others: object) -> dict[str, object]:
    return {"target": "cpu", "effort": "quick", "fallback": "eager", **others}


def compare(model: Callable[[Tensor], Tensor], x: Tensor, asked: dict[str, object]) -> list[backend.CompiledGraph]:
    """Compile by name, and hold two calls to the function's own answer."""
    before = len(backend.GRAPHS)
    compiled = torch.compile(model, backend=backend.NAME, options=asked)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    return backend.GRAPHS[before:]


def test_alike_layers_are_searched_once() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(Mlp(), Mlp()).eval()
    before = backend.SEARCHES.done
    (graph,) = compare(model, torch.randn(6, 32), options())
    assert backend.SEARCHES.done == before + 1
    assert len(graph.partition.regions) == 2
    assert graph.partition.covered == graph.partition.operators
    assert len({id(r) for r in graph.results.values()}) == 1
    (result,) = {id(r): r for r in graph.results.values()}.values()
    assert isinstance(result, Result)
    assert result.record.families.proved > 0


@pytest.mark.slow
def test_a_two_layer_transformer() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(Attention(), Mlp()) for _ in range(2)]
    model = torch.nn.Sequential(*layers).eval()
    before = backend.SEARCHES.done
    (graph,) = compare(model, torch.randn(2, 8, 32), options())
    keys = {r.key for r in graph.partition.regions}
    assert backend.SEARCHES.done == before + len(keys)
    assert 2 * len(keys) == len(graph.partition.regions)


@pytest.mark.slow
def test_the_rest_goes_through_inductor_where_that_is_told() -> None:
    def mixed(x: Tensor) -> Tensor:
        return torch.cumsum(x + 1.0, 0) * 2.0

    (graph,) = compare(mixed, torch.randn(6, 32), options(fallback="inductor"))
    assert not graph.partition.regions
    assert graph.run is not None
    assert "inductor" in repr(getattr(graph.run, "get_compiler_config", lambda: None)) or hasattr(
        graph.run, "_torchdynamo_orig_callable"
    )


def test_a_region_without_a_result_stays_torch_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(region: Region, seen: Observed, function: object, asked: backend.Options) -> Result:
        raise NoFeasibleFamily(f"{region.name} fits nothing")

    monkeypatch.setattr(backend, "_search", none)
    torch.manual_seed(1)
    model = Mlp(16).eval()
    (graph,) = compare(model, torch.randn(4, 16), options(seed=7))
    (problem,) = graph.results.values()
    assert isinstance(problem, NoFeasibleFamily)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"efort": "quick"}, "no option 'efort'"),
        ({"fallback": "jit"}, "fallback='jit'"),
        ({"effort": "much"}, "effort 'much'"),
    ],
)
def test_wrong_options_are_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        backend.Options.of(given)


def test_a_mode_is_refused() -> None:
    with pytest.raises(InputError, match="max-autotune"):
        backend.prism(torch.fx.symbolic_trace(torch.nn.Identity()), [], mode="max-autotune")
