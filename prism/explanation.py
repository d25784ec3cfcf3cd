"""What Prism would do with a function, before any search: what it captures, what it leaves to torch, and why."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from prism.regions import Cut, Partition
from sgraph.axis import Extent
from sgraph.errors import InputError, PrismError, UnsupportedOperator, UnsupportedProgram
from sgraph.program import Program

if TYPE_CHECKING:
    import torch

    from prism.partition import Divided

TABLE_SECONDS: Final = 5.0
"""The longest that the rewrite table of one region is built for an estimate."""


@dataclass(frozen=True, slots=True)
class Cost:
    """How much a search would have to look at."""

    classes: int
    """Classes of equal values in the rewrite table."""
    nodes: int
    """Ways to compute them."""
    complete: bool
    """False where the table was cut off: a search sees more."""
    seconds: float
    """How long the table took, in seconds; a search builds a larger one."""

    def __str__(self) -> str:
        more = "" if self.complete else " or more"
        return f"a rewrite table of {self.classes} classes and {self.nodes} nodes{more}, built in {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Explained:
    """One region."""

    name: str
    """Unique in its graph; the function's own name where all of it was captured."""
    graph: int
    """Which of Dynamo's graphs it is in."""
    operators: tuple[str, ...]
    """What it consists of; empty where all of the function was captured."""
    lines: tuple[str, ...]
    """Where it comes from."""
    equations: str
    """What it computes."""
    same_as: str
    """An earlier region whose search also answers this one; empty if there is none."""
    cost: Cost | None
    """None for a region that an earlier one answers."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was captured and what was not."""

    function: str
    """Its name."""
    reason: str
    """Why not all of it was captured as one program; empty if it was."""
    regions: tuple[Explained, ...]
    """What a search would optimise."""
    cuts: tuple[Cut, ...]
    """Operators left to torch."""
    notes: tuple[str, ...]
    """Graphs left to torch as a whole, and regions not worth a search."""
    operators: int
    """Operators in all graphs; 0 where all of the function was captured as one program."""
    graphs: int
    """Graphs that Dynamo traced; 0 where it was not needed."""

    @property
    def whole(self) -> bool:
        """Whether the function is one program."""
        return not self.reason

    @property
    def text(self) -> str:
        """For people."""
        lines = [self._headline()]
        if self.reason:
            lines.append(f"not captured as one program: {self.reason}")
        for region in self.regions:
            lines += self._region(region)
        for cut in self.cuts:
            lines += [f"left to torch: {cut.operator}, because it {_because(cut.reason)}"]
            lines += [f"  at {cut.line}"] if cut.line else []
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _headline(self) -> str:
        if self.whole:
            return f"{self.function}: captured as one program"
        inside = sum(len(r.operators) for r in self.regions)
        distinct = sum(1 for r in self.regions if not r.same_as)
        graphs = f" in {self.graphs} graphs" if self.graphs > 1 else ""
        return (
            f"{self.function}: {inside} of {self.operators} operators{graphs} in {len(self.regions)} regions, "
            f"{distinct} to search"
        )

    def _region(self, region: Explained) -> list[str]:
        head = f"region {region.name}" + (f": {', '.join(region.operators)}" if region.operators else "")
        if region.same_as:
            return [f"{head}\n  the same as {region.same_as}"]
        lines = [head, *(f"  from {line}" for line in region.lines)]
        lines += [f"  {line}" for line in region.equations.splitlines()]
        return [*lines, f"  search: {region.cost}"] if region.cost is not None else lines

    def to_json(self) -> str:
        """Everything as JSON."""
        return json.dumps({"whole": self.whole, **asdict(self)}, indent=2)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"


def _because(reason: str) -> str:
    """A reason behind the word ``it``."""
    refused = reason.startswith(("the ", "result ", "dimension "))
    return f"was refused: {reason}" if refused else reason


def explain(
    function: Callable[..., object],
    inputs: Sequence[object],
    *,
    sizes: Mapping[str, Sequence[Extent]] | None = None,
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
) -> Explanation:
    """See ``prism.explain``."""
    import torch

    from prism.frontend import capture
    from prism.frontend.arguments import function_name

    name = function_name(function)
    if all(isinstance(x, torch.Tensor) for x in inputs):
        try:
            program = capture(
                function,
                tensors_of(inputs),
                sizes=sizes,
                constant=constant,
                may_hold_minus_inf=may_hold_minus_inf,
            )
        except (UnsupportedOperator, UnsupportedProgram) as problem:
            reason = problem.seen
        else:
            notes = _gradient_notes(function, inputs)
            region = Explained(name, 0, (), (program.source,), str(program), "", cost_of(program))
            return Explanation(name, "", (region,), (), notes, 0, 0)
    else:
        reason = "not all of its inputs are tensors"
    from prism.dynamo import Looked, compiled_for, copies, run_once
    from prism.options import ranges_of

    looked = Looked()
    run_once(compiled_for(function, looked), copies(inputs, ranges_of(function, inputs, sizes)), function)
    return of_graphs(name, looked.found, reason)


def tensors_of(inputs: Sequence[object]) -> tuple[torch.Tensor, ...]:
    """The inputs, all of them tensors."""
    import torch

    found = tuple(x for x in inputs if isinstance(x, torch.Tensor))
    assert len(found) == len(inputs)
    return found


def _gradient_notes(function: Callable[..., object], inputs: Sequence[object]) -> tuple[str, ...]:
    import torch

    from prism.modules import state_of

    tensors = (*tensors_of(inputs), *state_of(function).values())
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return ("an input or parameter requires a gradient: calls outside torch.no_grad() run the original function",)
    return ()


def of_graphs(name: str, graphs: Sequence[Divided], reason: str) -> Explanation:
    """An explanation of graphs that were divided."""
    regions: list[Explained] = []
    seen: dict[str, str] = {}
    notes: list[str] = []
    for number, divided in enumerate(graphs):
        partition = divided.partition
        notes += _notes(partition, number, len(graphs))
        for region in partition.regions:
            label = region.name if len(graphs) == 1 else f"{number}.{region.name}"
            same = seen.get(region.key, "")
            seen.setdefault(region.key, label)
            cost = None if same else cost_of(region.program)
            regions.append(Explained(label, number, region.operators, region.lines, str(region.program), same, cost))
    return Explanation(
        name,
        reason or "only parts of it were",
        tuple(regions),
        tuple(cut for g in graphs for cut in g.partition.cuts),
        tuple(notes),
        sum(g.partition.operators for g in graphs),
        len(graphs),
    )


def _notes(partition: Partition, number: int, graphs: int) -> list[str]:
    which = f"graph {number}" if graphs > 1 else "the graph"
    notes = [f"{which} is left to torch: {partition.reason}"] if partition.reason else []
    return [*notes, *(f"not searched: {', '.join(s.operators)}: {s.reason}" for s in partition.skipped)]


def cost_of(program: Program) -> Cost:
    """An estimate of what a search would look at.

    Raises:
        InputError: the rewrite engine gave no table.
    """
    from rewrites.saturate import Limits, saturate

    try:
        table = saturate([o.value for o in program.outputs], limits=Limits(seconds=TABLE_SECONDS))
    except PrismError as problem:
        raise InputError(f"no estimate for {program.name}: {problem.seen}") from problem
    return Cost(table.classes, table.e_nodes, not table.truncated, round(table.seconds, 3))
