"""``docs/coverage.md``, made of the tables and of what came of every subgraph: ``python -m tests.coverage_page``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor

from autotune.torch_printer import load_torch, print_torch
from prism.frontend import capture
from prism.proving import prove
from sgraph.border import parameters
from sgraph.errors import PrismError
from sgraph.evaluate import evaluate_program
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import Program
from tests.coverage_operators import GROUPS, REFUSED, shapes_of
from tests.coverage_subgraphs import SUBGRAPHS, Subgraph
from verify.numerics import Prepared

PAGE: Final = Path(__file__).parents[1] / "docs" / "coverage.md"

Any_ = Callable[..., object]


def drawn(subgraph: Subgraph) -> tuple[Tensor, ...]:
    """Inputs in float32 from a normal distribution."""
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=random) for shape in shapes_of(subgraph.shapes))


def as_printed(program: Program) -> Any_:
    """The program as one torch function, as the torch printer writes it."""
    stores = tuple(Store(o.tensor, o.value, o.value) for o in program.outputs)
    return load_torch(print_torch(SGraph(program, (Kernel(program.name, stores),))))


def outcome(subgraph: Subgraph) -> tuple[str, str, str]:
    """What came of a subgraph: captured or why not, how it was proved, whether the printed form keeps its bounds."""
    function = cast(Any_, subgraph.function)
    inputs = drawn(subgraph)
    try:
        program = capture(function, inputs)
    except PrismError as error:
        return f"no: {error.seen.split(';')[0]}", "", ""
    double = capture(function, [x.double() for x in inputs])
    arrays = {t.name: x.double().numpy() for t, x in zip(parameters(double), inputs, strict=True)}
    expected = function(*(x.double() for x in inputs))
    wanted = cast("tuple[Tensor, ...]", expected if isinstance(expected, tuple) else (expected,))
    for found, value in zip(evaluate_program(double, arrays).values(), wanted, strict=True):
        np.testing.assert_allclose(found, value.numpy(), rtol=1e-6, atol=1e-9)
    printed = as_printed(program)
    verdicts = [prove(function, printed, inputs).status.value]
    if subgraph.other is not None:
        verdicts.append(prove(function, cast(Any_, subgraph.other), inputs).status.value)
    report = Prepared.of(program, function, inputs, mode="float32").check(printed)
    return "yes", ", ".join(verdicts), "kept" if report.passed else f"broken: {report.worst_ratio:.2g} of the bound"


def row(name: str, found: Sequence[str]) -> str:
    """One line of the table of subgraphs."""
    return f"| {name} | {SUBGRAPHS[name].group} | {' | '.join(found)} |"


def operators_text() -> str:
    """What is covered and what is not."""
    lines = [f"- **{group}**: {', '.join(names)}." for group, names in GROUPS.items()]
    refused = [f"| {name.replace('|', '/')} | {message} |" for name, (_, _, message) in REFUSED.items()]
    table = ["| not covered | the message says |", "| --- | --- |", *refused]
    return "\n".join([*lines, "", *table])


HEAD: Final = """# What can be captured

Made by `python -m tests.coverage_page`; a test keeps it up to date. Anything else is refused with the operator and
the source line.

## Operators

Each name is one test that captures a function and compares its equations with torch in float64
(`tests/coverage_operators.py`).

"""

SUBGRAPHS_HEAD: Final = """

Casts between floats denote the identity. An input may be viewed in any way that needs no copy: split (heads), in
halves or other fixed parts (rotary embeddings, fused projections), at one index; results may merge dimensions. Parts
of different sizes that `cat` has joined can be reduced, combined and taken apart, but not returned as one tensor.
`scaled_dot_product_attention` gives 0 for a query that every key is hidden from, as torch does on its math and flash
back ends. Views of one input that overlap are tensors of their own to a proof: it may then end as *unknown*.

## Subgraphs

Plain torch functions (`tests/coverage_subgraphs.py`). *Proved*: against the torch form that is printed of it, and
against a second writing where there is one. *Numbers*: the printed form at small sizes in float32, within 1e-5 of
float64 or twice eager's own error.

| subgraph | group | captured | proved | numbers |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page; runs every subgraph."""
    rows = [row(name, outcome(subgraph)) for name, subgraph in SUBGRAPHS.items()]
    return "".join([HEAD, operators_text(), SUBGRAPHS_HEAD, "\n".join(rows), "\n"])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
