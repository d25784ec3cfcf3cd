"""Gates 2 and 3 on the emitted text: exact evaluation, and Triton's interpreter on small ragged inputs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import torch

from autotune.interpreter import interpreted
from autotune.module import load_source
from autotune.parameters import KernelParameters, Parameters, candidates
from autotune.targets import find_target
from prism.pipeline import Found
from prism.report import Exact
from sgraph.axis import Axis
from sgraph.errors import KernelCheckFailed
from sgraph.generate import Family
from sgraph.ir import Kernel, Role, SGraph
from sgraph.program import Program
from verify.exact import check_exactly
from verify.numerics import NumericsReport, check_numerics

TILE: Final = 16
"""Tile of every axis: small, so that ragged extents still take several tiles."""
EXTENTS: Final = (37, 21, 19, 35, 18, 23, 33)
"""Extents by axis: none a multiple of the tile, two or three tiles each."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What gates 2 and 3 found of one emitted text."""

    exact: Exact
    """Gate 2; it passed."""
    reports: tuple[NumericsReport, ...]
    """Gate 3, exact float32 first."""

    @property
    def broken(self) -> NumericsReport | None:
        """The first report of a broken contract."""
        return next((r for r in self.reports if not r.passed), None)


def check(function: Callable[..., object], found: Found, family: Family, source: str, seed: int) -> Checked:
    """Gates 2 and 3 on a family's text.

    Raises:
        KernelCheckFailed: an element differs in exact arithmetic, or the text does something it must not.
    """
    return Checked(exactly(found.program, source, seed), interpret(function, found, family, source, seed))


def exactly(program: Program, source: str, seed: int) -> Exact:
    """Gate 2: the emitted text in exact arithmetic.

    Raises:
        KernelCheckFailed: an element differs, or the text does something it must not.
    """
    report = check_exactly(program, source, seed=seed)
    if not report.passed:
        raise KernelCheckFailed(f"exact evaluation: {report}", where=program.name)
    return Exact(
        passed=True, evaluations=report.evaluations, fields=dict(report.fields), seconds=round(report.seconds, 3)
    )


def interpret(
    function: Callable[..., object], found: Found, family: Family, source: str, seed: int
) -> tuple[NumericsReport, NumericsReport]:
    """Gate 3 in the interpreter: exact float32, then the program's own types with hostile inputs.

    The text is the one that is launched; tiles and extents are small and ragged.

    Raises:
        KernelCheckFailed: the kernel reads or writes where it must not.
    """
    program = found.program
    sizes = small_sizes(found.sizes)
    config = small_config(family.graph, sizes)
    module = load_source(source, program.name)

    def run(*inputs: torch.Tensor) -> object:
        with interpreted(), _element_types(module, inputs):
            return module.launch(*inputs, config=config)

    exact = check_numerics(program, run, function, sizes=sizes, rounds=2, seed=seed, hostile=False, mode="float32")
    own = check_numerics(program, run, function, sizes=sizes, rounds=1, seed=seed + 100)
    return exact, own


@contextmanager
def _element_types(module: ModuleType, inputs: Sequence[torch.Tensor]) -> Generator[None]:
    """The source's table of element types in float32 where the inputs are: its kernels name no type."""
    tables: dict[str, object] = vars(module)
    stated: dict[str, torch.dtype] = module.DTYPES
    exact = all(t.dtype is torch.float32 for t in inputs if t.is_floating_point())
    if exact:
        tables["DTYPES"] = {n: torch.float32 if d.is_floating_point else d for n, d in stated.items()}
    try:
        yield
    finally:
        tables["DTYPES"] = stated


def small_sizes(sizes: Mapping[Axis, int]) -> dict[str, int]:
    """Ragged extents small enough to interpret, different for every axis and within declared ranges."""
    small: dict[str, int] = {}
    for i, axis in enumerate(sorted(sizes)):
        wanted = EXTENTS[i % len(EXTENTS)]
        extent = axis.extent
        if not isinstance(extent, int):
            wanted = min(max(wanted // extent.divisor, 1) * extent.divisor, extent.high)
            wanted = max(wanted, extent.low)
        small[axis.name] = min(wanted, sizes[axis]) if isinstance(extent, int) else wanted
    return small


def small_config(graph: SGraph, sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Small tiles for every kernel, as the ``config`` of the emitted ``launch``."""
    return Parameters(tuple(_small_parameters(k, sizes) for k in graph.kernels)).to_config()


def _small_parameters(kernel: Kernel, sizes: Mapping[str, int]) -> KernelParameters:
    space = candidates(kernel, sizes, find_target("a100"))
    config = {name: min(choices, key=lambda c: abs(c - TILE)) for name, choices in space.items()}
    split = 3 if kernel.with_role(Role.SPLIT) else 1
    return KernelParameters.from_config({**config, "split": split, "warps": 4, "stages": 2, "group": 1})
