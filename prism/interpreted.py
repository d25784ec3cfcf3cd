"""Gates 2 and 3 on the emitted text: exact evaluation, and Triton's interpreter on small ragged inputs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch

from autotune.interpreter import interpreted
from autotune.module import load_source
from autotune.twin import sizes_to_keep, small_config, small_sizes
from prism.pipeline import Found
from prism.report import Exact
from sgraph.border import pinned
from sgraph.errors import KernelCheckFailed
from sgraph.generate import Family
from sgraph.program import Program
from verify.exact import check_exactly
from verify.numerics import NumericsReport, check_numerics
from verify.resizing import computes


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
    sizes = twin_sizes(function, found, family)
    config = small_config(family.graph, sizes)
    module = load_source(source, program.name)

    def run(*inputs: torch.Tensor) -> object:
        with interpreted(), _element_types(module, inputs):
            return module.launch(*inputs, config=config)

    exact = check_numerics(program, run, function, sizes=sizes, rounds=2, seed=seed, hostile=False, mode="float32")
    own = check_numerics(program, run, function, sizes=sizes, rounds=1, seed=seed + 100)
    return exact, own


def twin_sizes(function: Callable[..., object], found: Found, family: Family) -> dict[str, int]:
    """Extents for the interpreter, small where the function still computes the program there.

    Raises:
        KernelCheckFailed: it does not, even at its own extents.
    """
    fixed = pinned(found.program)
    viewed = tuple(a for a in found.sizes if a.name in fixed)
    for kept in sizes_to_keep(found.sizes):
        sizes = small_sizes(found.sizes, family.graph, (*viewed, *kept))
        if computes(found.program, function, sizes):
            return sizes
    raise KernelCheckFailed("the function does not compute its program in float64", where=found.program.name)


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
