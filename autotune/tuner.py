"""Tuning one family: parameters of every kernel by a study over the cost model, then compiled, best first.

Kernels, not families, are tuned: a plan is the sum of its kernels' best, and families share few kernels.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from autotune.compile_pool import CompileJob, CompilePool
from autotune.cost import Cost, kernel_cost
from autotune.lower import lower
from autotune.offline import CompileFailure, Meta, Resources
from autotune.parameters import KernelParameters, Parameters, candidates, default_parameters
from autotune.resources import violated
from autotune.study import Dimension, Rejected, minimise
from sgraph import border
from sgraph.axis import Axis
from sgraph.generate import Family
from sgraph.ir import Kernel, SGraph
from sgraph.schedule import Schedule
from sgraph.target import Target

log = logging.getLogger("prism.tune")

SEEDS: Final = 16
"""Points a study looks at first: the model's best of each structural variant."""
SAMPLED: Final = 400
"""Points the model looks at to find them."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One kernel at one parameter assignment, with its modelled cost."""

    parameters: KernelParameters
    """Tiles, split, warps, stages, program order."""
    cost: Cost
    """By the model."""


@dataclass(frozen=True, slots=True)
class Option:
    """Parameters of a whole family, and what the model says of them."""

    parameters: Parameters
    """Of every kernel."""
    modelled_s: float
    """Sum over its kernels of the modelled time."""
    costs: tuple[Cost, ...] = ()
    """Of every kernel, term by term."""


@dataclass(frozen=True, slots=True)
class Built:
    """A family as source code with the parameters that were chosen for it."""

    family: Family
    """What it computes, and how."""
    parameters: Parameters
    """Of every kernel."""
    source: str
    """The emitted file."""
    modelled_s: float
    """Sum over its kernels of the modelled time."""
    resources: tuple[Resources, ...]
    """What the compiler reports per device kernel."""


@dataclass(frozen=True, slots=True)
class NotBuilt:
    """A family that could not be built for the target."""

    status: str
    """``infeasible`` or ``compile failed``."""
    reason: str
    """The violated constraint, or the compiler's word."""


class Tuner:
    """Tunes families of one program for one target; kernels shared between families are tuned once."""

    def __init__(
        self,
        target: Target,
        sizes: Mapping[Axis, int],
        *,
        trials: int,
        seed: int,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.target = target
        self.sizes = sizes
        self.trials = trials
        self.seed = seed
        self.stop = stop
        self._named = {a.name: n for a, n in sizes.items()}
        self._done: dict[Kernel, tuple[list[Instance], str]] = {}
        self._curves: dict[Kernel, tuple[float, ...]] = {}

    def instances(self, graph: SGraph, schedule: Schedule) -> tuple[list[Instance], str]:
        """Parameter assignments of one kernel that fit the target, fastest by the model first.

        The text says why nothing fits, where nothing does.
        """
        anonymous = replace(schedule.kernel, name="")
        if anonymous not in self._done:
            self._done[anonymous] = self._study(graph, schedule)
        return self._done[anonymous]

    def _study(self, graph: SGraph, schedule: Schedule) -> tuple[list[Instance], str]:
        space = candidates(schedule.kernel, self._named, self.target)
        dimensions = [Dimension(name, choices) for name, choices in space.items()]
        found: dict[tuple[int, ...], Instance] = {}

        def evaluate(point: tuple[int, ...]) -> float | Rejected:
            parameters = KernelParameters.from_config(dict(zip(space, point, strict=True)))
            broken = violated(graph, schedule, parameters, self._named, self.target)
            if broken is not None:
                return Rejected(broken)
            cost = kernel_cost(graph, schedule, parameters, self.target, self.sizes)
            found[point] = Instance(parameters, cost)
            return cost.total_s

        seeds = self._seeds(dimensions, evaluate, graph, schedule)
        looked = minimise(
            dimensions,
            evaluate,
            trials=self.trials,
            seed=self.seed,
            seeds=seeds,
            # A stopped search still finishes the kernel in hand, with one assignment that fits.
            stop=lambda: self.stop() and bool(found),
        )
        anonymous = replace(schedule.kernel, name="")
        self._curves[anonymous] = tuple(itertools.accumulate((i.cost.total_s for i in found.values()), min))
        reason = looked[0].reason if looked else "stopped before any assignment was tried"
        fastest = sorted(found.items(), key=lambda item: (item[1].cost.total_s, item[0]))
        return [instance for _, instance in fastest], reason

    def _seeds(
        self,
        dimensions: Sequence[Dimension],
        evaluate: Callable[[tuple[int, ...]], float | Rejected],
        graph: SGraph,
        schedule: Schedule,
    ) -> list[tuple[int, ...]]:
        """The defaults, and the model's best of each (split, warps) among random points."""
        draw = random.Random(self.seed)
        names = [d.name for d in dimensions]
        position = graph.kernels.index(schedule.kernel)
        default = default_parameters(graph, self._named).kernels[position].to_config()
        points = [
            tuple(
                default[n] if default[n] in d.choices else d.choices[0] for n, d in zip(names, dimensions, strict=True)
            )
        ]
        points += [tuple(draw.choice(d.choices) for d in dimensions) for _ in range(SAMPLED)]
        split, warps = names.index("split"), names.index("warps")
        best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for point in dict.fromkeys(points):
            seconds = evaluate(point)
            if not isinstance(seconds, Rejected):
                variant = (point[split], point[warps])
                best[variant] = min(best.get(variant, (seconds, point)), (seconds, point))
        return [point for _, point in sorted(best.values())[:SEEDS]]

    def curve(self, family: Family) -> tuple[float, ...]:
        """The family's best modelled seconds after each point that fitted and was looked at, folds left out."""
        kernels = [replace(k, name="") for k in family.graph.kernels if not k.fold]
        curves = [self._curves.get(k, ()) for k in kernels]
        if not all(curves):
            return ()
        return tuple(sum(c[min(i, len(c) - 1)] for c in curves) for i in range(max(map(len, curves))))

    def options(self, family: Family, count: int) -> list[Option] | NotBuilt:
        """The family's fastest parameters by the model, the best of every kernel together first.

        Args:
            family: the family.
            count: how many at most.
        """
        chosen: list[list[Instance]] = []
        for schedule in family.schedules:
            instances, reason = self.instances(family.graph, schedule)
            if not instances:
                return NotBuilt("infeasible", f"kernel {schedule.kernel.name}: {reason}")
            chosen.append(instances)
        return [
            Option(
                Parameters(tuple(i.parameters for i in together)),
                # A fold runs once, not at every call: its parameters matter little, its time not at all.
                sum(i.cost.total_s for i, s in zip(together, family.schedules, strict=True) if not s.kernel.fold),
                tuple(i.cost for i in together),
            )
            for together in _best_together(chosen, count)
        ]

    def build(
        self, family: Family, options: Sequence[Option], pool: CompilePool, header: Mapping[str, str]
    ) -> Built | NotBuilt:
        """The family's source with the first parameters that compile without spilling; may run in a thread.

        Args:
            family: the family.
            options: from ``options``, not empty.
            pool: compiles.
            header: what the emitted file says of its checks.
        """
        last: NotBuilt | None = None
        spilling: Built | None = None
        for option in options:
            source = lower(family.graph, family.schedules, option.parameters, header)
            outcome = pool.submit(self.job(family, source, option.parameters)).result()
            if isinstance(outcome, CompileFailure):
                last = NotBuilt("compile failed", f"{outcome.reason}: {outcome.detail.strip().splitlines()[-1]}")
                continue
            built = Built(family, option.parameters, source, option.modelled_s, tuple(outcome))
            if not any(r.spills for r in outcome):
                return built
            spilling = spilling or built
        if spilling is not None:
            return spilling
        assert last is not None
        return last

    def _size(self, axis: Axis) -> int:
        """The extent of an axis; its own where the program does not read it whole."""
        if axis.base not in self.sizes and isinstance(axis.extent, int):
            return axis.extent
        return self.sizes[axis.base]

    def job(self, family: Family, source: str, parameters: Parameters) -> CompileJob:
        """What the compile pool is given for one assignment."""
        program = family.graph.program
        arguments = tuple(
            Meta(tuple(1 if a is None else self._size(a) for a in t.axes), t.dtype.value)
            for t in border.parameters(program)
        )
        return CompileJob(source, self.target.architecture, arguments, parameters.to_config(), program.name)


def _best_together(chosen: Sequence[Sequence[Instance]], count: int) -> Iterator[tuple[Instance, ...]]:
    """The best of every kernel together, then the next best of each, so that one bad kernel does not block."""
    for rank in range(count):
        if rank and all(rank >= len(c) for c in chosen):
            return
        yield tuple(c[min(rank, len(c) - 1)] for c in chosen)
