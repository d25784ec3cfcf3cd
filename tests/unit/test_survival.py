"""Softmax and attention families on what breaks well-meant kernels: huge logits, masked rows, lengths of one.

Wherever eager has a number the kernel has one, within the numerical contract, in every element type.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import pytest
import torch

from autotune.interpreter import interpreted
from autotune.lower import lower
from autotune.module import load_source
from autotune.targets import find_target
from autotune.twin import small_config
from benchmarks.families import Searched, search_families, structures
from benchmarks.workloads import WORKLOADS
from sgraph.generate import Family
from verify.inputs import make_inputs
from verify.numerics import Prepared

HUGE_LOGIT: Final = 1e4
TYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
QUICK: Final = ("softmax", "gqa_decode", "masked_attention")
SLOW: Final = ("causal_attention", "softmax_chain", "entropy_chain", "paper_attention", "qknorm_attention")
EXTENTS: Final = (2, 19, 2, 5, 3, 3, 2)


@cache
def searched(name: str, kind: str) -> Searched:
    return search_families(WORKLOADS[name], find_target("h200"), dtype=TYPES[kind])


def small(found: Searched, *, shortest: bool) -> dict[str, int]:
    """Small extents; ``shortest`` makes every extent that varies from call to call one.

    Constants of the model keep their own size: attention divides by the root of one.
    """
    symbols: dict[object, int] = {}
    sizes: dict[str, int] = {}
    for i, (axis, real) in enumerate(sorted(found.found.sizes.items())):
        wanted = 1 if shortest else EXTENTS[i % len(EXTENTS)]
        if isinstance(axis.extent, int):
            sizes[axis.name] = _constant(real)
        else:
            sizes[axis.name] = symbols.setdefault(axis.extent, min(wanted, axis.extent.high))
    return sizes


def _constant(real: int) -> int:
    """Model widths stay, counts of heads shrink, the long rows of plain functions shrink."""
    return real if 16 < real <= 128 else min(real, 21 if real > 128 else 2)


def survives(found: Searched, family: Family, sizes: dict[str, int], inputs: tuple[torch.Tensor, ...]) -> None:
    program = found.found.program
    source = lower(family.graph, family.schedules)
    module = load_source(source, program.name)
    config = small_config(family.graph, sizes)

    def run(*given: torch.Tensor) -> object:
        with interpreted():
            return module.launch(*given, config=config)

    prepared = Prepared.of(program, found.workload.function, inputs)
    defined = [e.isfinite() & x.isfinite() for e, x in zip(prepared.eager, prepared.exact, strict=True)]
    assert any(d.any() for d in defined), "nothing is checked"
    report = prepared.check(run)
    assert report.worst_ratio <= NEARLY, report


def hostile(found: Searched, sizes: dict[str, int], what: str) -> tuple[torch.Tensor, ...]:
    program = found.found.program
    inputs = list(make_inputs(program, sizes, seed=3))
    signs = torch.sign(inputs[0].float()).to(inputs[0].dtype)
    match what:
        case "huge logits":
            inputs[0] = signs * _largest(found, inputs[0].dtype)
        case "all far below zero":
            inputs[0] = inputs[0] * 64 - _largest(found, inputs[0].dtype)
        case "masked rows":
            mask = next(i for i, t in enumerate(program.inputs) if not t.finite)
            inputs[mask][0] = float("-inf")
            inputs[mask][-1, 1:] = float("-inf")
        case _:
            assert what == "length one"
    return tuple(inputs)


def _largest(found: Searched, dtype: torch.dtype) -> float:
    """What makes logits of 1e4: the input itself, or a factor of a product; eager's own products stay finite."""
    if not found.workload.name.endswith(("attention", "decode")):
        return HUGE_LOGIT
    return HUGE_LOGIT / (128 if dtype is torch.float16 else 8)


def check(name: str, kind: str, what: str) -> None:
    found = searched(name, kind)
    sizes = small(found, shortest=what == "length one")
    inputs = hostile(found, sizes, what)
    for _, family in structures(found.families).values():
        survives(found, family, sizes, inputs)


NEARLY = 2.0
"""How far beyond the contract's bound an error may be: this is about numbers that explode, not about last digits."""
CASES = ("huge logits", "all far below zero", "length one")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("what", CASES)
def test_softmax(kind: str, what: str) -> None:
    check("softmax", kind, what)


@pytest.mark.parametrize(("kind", "what"), [("bf16", "huge logits"), ("fp32", "length one")])
def test_decode(kind: str, what: str) -> None:
    check("gqa_decode", kind, what)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("what", [*CASES, "masked rows"])
def test_masked_attention(kind: str, what: str) -> None:
    check("masked_attention", kind, what)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("what", CASES)
@pytest.mark.parametrize("name", ["gqa_decode", *SLOW])
def test_others(name: str, kind: str, what: str) -> None:
    check(name, kind, what)
