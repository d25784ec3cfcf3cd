"""The families that the generator lists for a workload, for benchmarks and tests that lower or check them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from autotune.layout import layout_of
from autotune.parameters import KernelParameters, Parameters, candidates, default_parameters
from autotune.resources import violated
from benchmarks.workloads import Sizes, Workload
from prism.effort import effort
from prism.frontend import capture
from prism.pipeline import Found, concrete_sizes
from rewrites.saturate import Limits, saturate, warm_up
from rewrites.seeds import find_seeds
from sgraph.axis import Size
from sgraph.border import parameters
from sgraph.generate import Family, generate
from sgraph.ir import Kernel, Role, SGraph
from sgraph.schedule import Schedule
from sgraph.target import Target

SYMBOLIC: Final = frozenset({"M", "B", "L", "S"})
"""Extents that vary from call to call; all others are constants of the model."""
MASKS: Final = frozenset({"mask"})
"""Parameters that are additive masks, which may hold minus infinity."""
DRAWS: Final = 400
"""Random assignments of one kernel that are tried before none is called feasible."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A workload, captured with symbolic extents, and its families."""

    workload: Workload
    """What was searched."""
    found: Found
    """Program, families in the generator's order, and the extents they were ordered for."""

    @property
    def families(self) -> tuple[Family, ...]:
        """In the generator's order."""
        return self.found.search.families

    def sizes(self, point: Sizes) -> dict[str, int]:
        """The extent of every axis, by its name, where the symbolic ones are as at a point."""
        shapes = self.workload.extents(point)
        sizes = {a.name: n for a, n in self.found.sizes.items()}
        for tensor, shape in zip(parameters(self.found.program), shapes.values(), strict=True):
            sizes |= {a.name: n for a, n in zip(tensor.axes, shape, strict=True) if a is not None}
        return sizes

    @property
    def points(self) -> tuple[Sizes, ...]:
        """The reported points whose constants of the model are those of the first."""
        first = _constants(self.workload.points[0])
        return tuple(p for p in self.workload.points if _constants(p) == first)


def _constants(point: Sizes) -> dict[str, int]:
    return {name: n for name, n in point.items() if name not in SYMBOLIC}


def search_families(
    workload: Workload, target: Target, *, dtype: torch.dtype = torch.bfloat16, level: str = "quick"
) -> Searched:
    """Capture a workload with symbolic rows, sequences and lengths, and list its families.

    Args:
        workload: which.
        target: what the families are ordered for.
        dtype: element type of every input.
        level: effort of the search.

    Raises:
        PrismError: it cannot be captured.
    """
    warm_up()
    spent = effort(level)
    point = workload.points[0]
    inputs = workload.inputs(point, dtype=dtype, device="meta")
    program = capture(
        workload.function,
        inputs,
        name=workload.name,
        sizes=symbolic_sizes(workload),
        may_hold_minus_inf=[name for name in workload.shapes if name in MASKS],
    )
    seeds = find_seeds([o.value for o in program.outputs], limit=spent.seeds)
    table = saturate(seeds.values, seeds.pairs, limits=Limits())
    sizes = concrete_sizes(program, inputs)
    return Searched(workload, Found(program, generate(program, table, target, sizes, spent.limits), (), {}, sizes))


def symbolic_sizes(workload: Workload) -> dict[str, tuple[int | Size, ...]]:
    """The shapes as ``capture`` takes them: a range from 1 to the largest that is reported for symbolic extents."""
    known = {**workload.model, **_constants(workload.points[0])}
    points = (*workload.points, *workload.ragged)
    largest = {n: max(p.get(n, 1) for p in points) for n in SYMBOLIC}
    return {
        name: tuple(
            s if isinstance(s, int) else known[s] if s in known else Size(s, 1, max(2, largest[s])) for s in shape
        )
        for name, shape in workload.shapes.items()
    }


def sample(families: Sequence[Family], first: int, others: int, seed: int) -> list[tuple[int, Family]]:
    """The first families of a list and some of the others at random, with their places from 1."""
    numbered = list(enumerate(families, 1))
    rest = numbered[first:]
    drawn = random.Random(seed).sample(rest, min(others, len(rest)))
    return [*numbered[:first], *sorted(drawn, key=lambda pair: pair[0])]


def structures(families: Sequence[Family]) -> dict[str, tuple[int, Family]]:
    """The first family of every structure, with its place from 1, each family once.

    ``first`` is the generator's first, ``split`` has a split axis, ``several`` several kernels, ``resident`` a resident
    axis, ``loop`` one kernel with neither.
    """
    wanted: Mapping[str, Callable[[Family], bool]] = {
        "first": lambda _: True,
        "split": lambda family: any(k.with_role(Role.SPLIT) for k in family.graph.kernels),
        "several": lambda family: len(family.graph.kernels) > 1,
        "resident": lambda family: any(k.with_role(Role.WHOLE) for k in family.graph.kernels),
        "loop": lambda family: len(family.graph.kernels) == 1 and _only_loops(family.graph.kernels[0]),
    }
    found: dict[str, tuple[int, Family]] = {}
    for name, fits in wanted.items():
        first = next(((n, f) for n, f in enumerate(families, 1) if fits(f)), None)
        if first is not None and first[0] not in {n for n, _ in found.values()}:
            found[name] = first
    return found


def _only_loops(kernel: Kernel) -> bool:
    return bool(kernel.with_role(Role.LOOP)) and not kernel.with_role(Role.SPLIT) + kernel.with_role(Role.WHOLE)


def random_parameters(
    family: Family, sizes: Mapping[str, int], targets: Sequence[Target], draw: random.Random
) -> Parameters | None:
    """A random assignment that the resource model calls feasible on every target; None if none was found."""
    chosen = [_random_kernel(family.graph, s, sizes, targets, draw) for s in family.schedules]
    return Parameters(tuple(c for c in chosen if c is not None)) if None not in chosen else None


def _random_kernel(
    graph: SGraph, schedule: Schedule, sizes: Mapping[str, int], targets: Sequence[Target], draw: random.Random
) -> KernelParameters | None:
    space = candidates(schedule.kernel, sizes, targets[0])
    place = graph.kernels.index(schedule.kernel)
    for attempt in range(DRAWS):
        drawn = KernelParameters.from_config({name: draw.choice(choices) for name, choices in space.items()})
        parameters = drawn if attempt < DRAWS - 1 else default_parameters(graph, sizes).kernels[place]
        if not any(violated(graph, schedule, parameters, sizes, t) for t in targets):
            return parameters
    return None


def small_parameters(graph: SGraph, parameters: Parameters) -> Parameters:
    """The same parameters with tiles that an interpreter can afford, neither long nor many."""
    small = [_small_kernel(k, p) for k, p in zip(graph.kernels, parameters.kernels, strict=True)]
    return Parameters(tuple(small))


def _small_kernel(kernel: Kernel, parameters: KernelParameters) -> KernelParameters:
    indexed = {str(a) for a in layout_of(kernel).scalar}
    tiles = tuple((name, 1 if name in indexed else max(8, min(tile, 32))) for name, tile in parameters.tiles)
    split = min(parameters.split, 5) if kernel.with_role(Role.SPLIT) else 1
    return replace(parameters, tiles=tiles, split=split)
