"""The CPU target: printed plans, eager and through Inductor, measured against what torch does by itself.

Everything that is timed is timed in one interleaved run, on inputs rotated over several sets so that weights are
read cold. The fastest of our programs and the baselines wins; ours only by more than the noise of the run. CPU
times say nothing about GPU tiles: this is a target of its own, never a stand-in.

This module imports torch at the top: import it at first use.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import torch

from autotune import cpu_baselines
from autotune.cpu_baselines import Baseline, CpuEnvironment, Function, environment, reason
from autotune.timing import CpuComparison, compare
from autotune.torch_printer import load_torch, print_torch
from sgraph.errors import PrismError
from sgraph.ir import SGraph

Mode = Literal["eager", "inductor"]

FORM: Final = "inductor, other forms"
"""How a plan is labelled whose unary functions are computed their other way (``autotune.torch_forms``)."""

FINALISTS: Final = 4
"""How many plans go through Inductor and into the final comparison."""
INPUT_SETS: Final = 3
"""Sets of inputs that calls rotate over, where memory allows."""
INPUT_BYTES: Final = 1 << 30
"""Memory for those sets."""
RANKING_SHARE: Final = 0.15
"""Part of the budget for the first round, which ranks many plans run eagerly."""
FINAL_SHARE: Final = 0.3
"""Part of the budget that compilation leaves to the final comparison."""
FORMS_S: Final = 0.3
"""Seconds to find out which forms of its functions make a compiled plan faster."""
SMALLEST_CLAIM_PERCENT: Final = 10.0
"""Below this, nothing is claimed where memory bounds the time or the timing protocol was not kept."""

log = logging.getLogger("prism.cpu")


@dataclass(frozen=True, slots=True)
class CpuCandidate:
    """A printed plan in one mode, ready to call."""

    name: str
    """Name of the plan and mode: ``fused (inductor)``."""
    source: str
    """The printed torch source."""
    function: Function
    """What is called."""
    mode: Mode
    """How it runs."""


@dataclass(frozen=True, slots=True)
class CpuRow:
    """One line of the comparison."""

    name: str
    """Candidate or baseline."""
    kind: Literal["candidate", "baseline"]
    """Whose it is."""
    mode: Mode
    """How it runs."""
    median_us: float | None = None
    """Time per call in microseconds; None if it has none."""
    spread_percent: float | None = None
    """Range of the faster half of its samples."""
    ratio: float | None = None
    """Its time over that of the fastest baseline, same run."""
    failure: str = ""
    """Why it has no time in the final comparison."""
    source: str = ""
    """Of a candidate: the printed torch source."""


@dataclass(frozen=True, slots=True)
class CpuMeasurement:
    """What was measured on this machine, and what follows."""

    rows: tuple[CpuRow, ...]
    """Baselines, then candidates."""
    winner: str
    """The row to run. A baseline unless one of ours is faster by more than ``threshold_percent``."""
    why: str
    """The decision in one sentence."""
    speedup: float | None
    """Fastest baseline over the winner, same run; 1 if a baseline won, None if nothing was timed."""
    noise_percent: float
    """How far repeated measurements of one program lay apart in this run (A-A)."""
    threshold_percent: float
    """The gain that counts: twice the noise, and at least 10 % where memory bounds the time."""
    environment: CpuEnvironment
    """The machine."""
    input_sets: int
    """Sets of inputs the calls rotated over."""
    complete: bool = True
    """False if the person interrupted the measurement."""
    fallback: str = ""
    """Why the timing protocol was not kept; empty if it was."""

    def row(self, name: str) -> CpuRow:
        """The row of this name.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)


def measure_cpu(
    function: Function,
    graphs: Sequence[tuple[str, SGraph]],
    inputs: Sequence[torch.Tensor],
    *,
    seconds: float,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
    check: Callable[[Function], str | None] | None = None,
) -> tuple[CpuMeasurement, dict[str, Function]]:
    """Print the plans, and measure them eagerly and through Inductor against the baselines of ``function``.

    Args:
        function: the program as its author wrote it; called with ``inputs``.
        graphs: named plans, the most promising first; equal times keep this order.
        inputs: one example call. Compiled programs belong to these shapes.
        seconds: budget, compilation of the plans included; a compile that would overrun it is ended. Compiling the
            baselines comes on top, as long again for each at most.
        seed: fixes the order of the rounds.
        on_progress: told in words what is being done.
        check: a numerical gate: says what is wrong with a callable, or None. It must call with the shapes of
            ``inputs``, others compile again. A candidate that it refuses is not timed.

    Returns:
        The measurement, and everything that can be called, by row name; the winner is always among it.

    A plan that cannot be printed, compiled or run is a row with its reason, and so is a baseline other than
    eager. ``KeyboardInterrupt`` ends the measurement and keeps what there is.
    """
    assert len({name for name, _ in graphs}) == len(graphs), "plan names repeat"
    run = _Run(function, inputs, time.perf_counter() + seconds, seconds, seed, on_progress, check)
    try:
        run.load(graphs)
        run.rank()
        run.compile()
        run.final()
    except KeyboardInterrupt:
        run.complete = False
    return run.result(), run.callables


@dataclass(slots=True)
class _Run:
    """The state of one measurement."""

    function: Function
    inputs: Sequence[torch.Tensor]
    deadline: float
    seconds: float
    seed: int
    on_progress: Callable[[str], None] | None
    check: Callable[[Function], str | None] | None
    complete: bool = True
    callables: dict[str, Function] = field(default_factory=dict[str, Function])
    """Everything that can be called, by row name."""
    rows: dict[str, CpuRow] = field(default_factory=dict[str, CpuRow])
    plans: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Name and source of the plans still in the race, best first."""
    formed: dict[str, str] = field(default_factory=dict[str, str])
    """Source of a plan with its functions computed their other way, where it has such functions."""
    sets: list[tuple[torch.Tensor, ...]] = field(default_factory=list[tuple[torch.Tensor, ...]])
    compared: CpuComparison | None = None
    other_forms: bool = True
    """Whether the other forms were faster on the first plan."""
    quickest_compile_s: float = 0.0
    """The first compile pays for a cold start, so the quickest one says what to expect."""

    # ------------------------------------------------------------------------------------- phases

    def load(self, graphs: Sequence[tuple[str, SGraph]]) -> None:
        """Print and load every plan; the eager baseline always exists."""
        self._add_baseline(cpu_baselines.eager(self.function))
        self._rotate_inputs()
        for name, graph in graphs:
            self._say(f"printing {name}")
            label = _label(name, "eager")
            self.rows[label] = CpuRow(label, "candidate", "eager")
            try:
                source = print_torch(graph)
                function = load_torch(source)
            except PrismError as error:
                self._fail(label, reason(error))
                continue
            self.rows[label] = replace(self.rows[label], source=source)
            if self._admit(CpuCandidate(label, source, function, "eager")):
                self.plans.append((name, source))
                formed = print_torch(graph, forms=True)
                if formed != source:
                    self.formed[name] = formed

    def rank(self) -> None:
        """Where there are more plans than the final takes, keep the fastest when run eagerly."""
        if len(self.plans) <= FINALISTS:
            return
        compared = self._compare(self.callables, RANKING_SHARE * self.seconds, 5)
        self._record(compared)
        times = {r.name: r.median_us for r in compared.rows}
        self.plans.sort(key=lambda plan: times.get(_label(plan[0], "eager"), float("inf")))
        for name, _ in self.plans[FINALISTS:]:
            self.rows[_label(name, "eager")] = replace(
                self.rows[_label(name, "eager")], failure="slower than the finalists in the first round"
            )
        self.plans = self.plans[:FINALISTS]
        if not compared.complete:
            raise KeyboardInterrupt

    def compile(self) -> None:
        """Compile baselines and plans as the budget allows, in turn, so that neither side goes without.

        Of the first plan both forms of its functions are compiled, of the others only the form that was faster.
        """
        builders = (
            (cpu_baselines.DEFAULT, cpu_baselines.inductor),
            (cpu_baselines.AUTOTUNED, cpu_baselines.autotuned),
        )
        for turn in range(max(len(builders), len(self.plans))):
            for name, build in builders[turn : turn + 1]:
                self._compile_baseline(name, build)
            for name, source in self.plans[turn : turn + 1]:
                self._compile_forms(name, source, first=turn == 0)

    def final(self) -> None:
        """Everything that is left, in one interleaved run."""
        chosen = {name: f for name, f in self.callables.items() if not self.rows[name].failure}
        compared = self._compare(chosen, max(1.0, self.deadline - time.perf_counter()), 20)
        self._record(compared)
        self.complete = self.complete and compared.complete

    # ------------------------------------------------------------------------------------- pieces

    def _compile_baseline(
        self, name: str, build: Callable[[Function, Sequence[torch.Tensor], float], Baseline]
    ) -> None:
        self._say(f"compiling the baseline {name}")
        started = time.perf_counter()
        self._add_baseline(build(self.function, self.sets[0], self.seconds))
        # On top of the budget: a baseline that found no time would be a comparison we did not win.
        self.deadline += time.perf_counter() - started
        self._compiled_in(time.perf_counter() - started)

    def _compile_forms(self, name: str, source: str, *, first: bool) -> None:
        library, other = _label(name, "inductor"), f"{name} ({FORM})"
        if name not in self.formed or (not first and not self.other_forms):
            self._compile_plan(library, source)
            return
        self._compile_plan(other, self.formed[name])
        if first:
            self._compile_plan(library, source)
            both = {n: self.callables[n] for n in (library, other) if n in self.callables}
            if len(both) == 2:
                times = {r.name: r.median_us for r in self._compare(both, FORMS_S, 5).rows}
                self.other_forms = times.get(other, float("inf")) < times.get(library, float("inf"))

    def _compile_plan(self, label: str, source: str) -> None:
        self.rows[label] = CpuRow(label, "candidate", "inductor", source=source)
        late = self._too_late()
        if late:
            self._fail(label, late)
            return
        self._say(f"compiling {label}")
        started = time.perf_counter()
        try:
            function = cpu_baselines.compile_function(load_torch(source), self.sets[0], self._compile_seconds())
        except Exception as error:
            self._fail(label, reason(error))
            return
        self._compiled_in(time.perf_counter() - started)
        self._admit(CpuCandidate(label, source, function, "inductor"))

    def _compiled_in(self, seconds: float) -> None:
        self.quickest_compile_s = min(self.quickest_compile_s or seconds, seconds)

    def _too_late(self) -> str:
        """Why there is no time for one more compile; empty if there is."""
        left = self._compile_seconds()
        if left > max(0.5 * self.quickest_compile_s, 0.0):
            return ""
        return f"not compiled: the budget of {self.seconds:.0f} s was spent"

    def _compile_seconds(self) -> float:
        """Time that compilation may still take."""
        return self.deadline - time.perf_counter() - FINAL_SHARE * self.seconds

    def _admit(self, candidate: CpuCandidate) -> bool:
        """Whether the candidate runs and passes the gate."""
        try:
            candidate.function(*self.sets[0])
            wrong = self.check(candidate.function) if self.check is not None else None
        except Exception as error:
            wrong = reason(error)
        if wrong is not None:
            self._fail(candidate.name, wrong)
            return False
        self.callables[candidate.name] = candidate.function
        return True

    def _fail(self, name: str, failure: str) -> None:
        log.info("%s: %s", name, failure)
        self.rows[name] = replace(self.rows[name], failure=failure)

    def _add_baseline(self, baseline: Baseline) -> None:
        mode: Mode = "eager" if baseline.name == "eager" else "inductor"
        self.rows[baseline.name] = CpuRow(baseline.name, "baseline", mode, failure=baseline.failure)
        if baseline.function is not None:
            self.callables[baseline.name] = baseline.function

    def _rotate_inputs(self) -> None:
        """Copies of the inputs at other addresses, as many as memory allows."""
        size = max(1, _bytes(self.inputs))
        count = min(INPUT_SETS, max(1, INPUT_BYTES // size))
        self.sets = [tuple(t.detach().clone() for t in self.inputs) for _ in range(count)]

    def _compare(self, functions: Mapping[str, Function], seconds: float, samples: int) -> CpuComparison:
        calls = {name: _rotating(function, self.sets) for name, function in functions.items()}
        return compare(calls, seconds=seconds, min_samples=samples, seed=self.seed, on_progress=self.on_progress)

    def _record(self, compared: CpuComparison) -> None:
        self.compared = compared
        for name, failure in compared.failures.items():
            self._fail(name, failure)
        for timing in compared.rows:
            self.rows[timing.name] = replace(
                self.rows[timing.name], median_us=timing.median_us, spread_percent=timing.spread_percent
            )

    def _say(self, text: str) -> None:
        if self.on_progress is not None:
            self.on_progress(text)

    # ------------------------------------------------------------------------------------- decision

    def result(self) -> CpuMeasurement:
        """The rows and the winner."""
        machine = environment()
        rows = list(self.rows.values())
        noise = self.compared.noise_percent if self.compared else float("inf")
        fallback = self.compared.fallback if self.compared else "nothing was timed"
        streams = _bytes(self.inputs) * len(self.sets) > (machine.cache_bytes or 0)
        threshold = max(2 * noise, SMALLEST_CLAIM_PERCENT if streams or fallback else 0.0)
        times = {t.name: t.median_us for t in self.compared.rows} if self.compared else {}
        baseline = _fastest(r for r in rows if r.kind == "baseline" and r.name in times)
        ours = _fastest(r for r in rows if r.kind == "candidate" and r.name in times)
        if baseline is not None and baseline.median_us:
            rows = [
                replace(r, ratio=r.median_us / baseline.median_us) if r.name in times and r.median_us else r
                for r in rows
            ]
        winner, why, speedup = _decided(baseline, ours, threshold)
        untried = [r.name for r in rows if r.kind == "baseline" and r.median_us is None]
        if untried:
            why += f"; not compared with {', '.join(untried)}, which has no time"
        # Baselines first, each side in the order it entered.
        ordered = sorted(rows, key=lambda r: r.kind != "baseline")
        return CpuMeasurement(
            tuple(ordered), winner, why, speedup, noise, threshold, machine, len(self.sets), self.complete, fallback
        )


def _decided(baseline: CpuRow | None, ours: CpuRow | None, threshold: float) -> tuple[str, str, float | None]:
    """Winner, the reason in words, and its speed-up."""
    if baseline is None or not baseline.median_us:
        return "eager", "nothing was timed: the program runs as it was written", None
    if ours is None or not ours.median_us:
        return baseline.name, f"{baseline.name} is the fastest baseline, and no plan of ours was timed", 1.0
    speedup = baseline.median_us / ours.median_us
    gain = 100 * (speedup - 1)
    if gain > threshold:
        return ours.name, f"{ours.name} is {speedup:.2f}x as fast as {baseline.name}, the fastest baseline", speedup
    measured = f"{ours.name} takes {1 / speedup:.2f}x the time of {baseline.name}"
    needed = f"a gain counts above {threshold:.1f} %" if threshold < float("inf") else "the noise is unknown"
    return baseline.name, f"no plan beats {baseline.name} by more than noise: {measured}, and {needed}", 1.0


def _fastest(rows: Iterable[CpuRow]) -> CpuRow | None:
    return min((r for r in rows if r.median_us is not None), key=lambda r: r.median_us or 0.0, default=None)


def _rotating(function: Function, sets: Sequence[tuple[torch.Tensor, ...]]) -> Callable[[], object]:
    """A call without arguments that moves on to the next set of inputs each time."""
    turn = itertools.cycle(sets)
    return lambda: function(*next(turn))


def _label(plan: str, mode: Mode) -> str:
    return f"{plan} ({mode})"


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
