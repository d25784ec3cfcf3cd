"""Why a kernel fits no tiles: the constraints that contradict one another, as an unsatisfiable core.

The search decides feasibility by arithmetic (``sgraph.feasibility``); this says which requirements clash, on demand and
by other means: tiles as integers, memory as sums of products of them, and z3. Every name a solver sees has a prefix of
its own, since an axis may be called like anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sgraph.axis import Axis, largest
from sgraph.feasibility import LOADED_BYTES, on_chip_bytes
from sgraph.ir import Role
from sgraph.schedule import Compute, Load, Loop, Reduce, Schedule, Statement
from sgraph.target import Target

TIME_LIMIT_MS = 5_000
"""After this long the solver's answer is unknown."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that instances of a kernel must satisfy."""

    subject: str
    """``tile`` or ``on-chip memory``."""
    text: str
    """What is required, in words."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


@dataclass(frozen=True, slots=True)
class _Moment:
    """What is live at one statement at the least: bytes per element and the axes of each tile."""

    where: str
    tiles: tuple[tuple[int, frozenset[Axis]], ...]


def unsatisfiable_core(schedule: Schedule, target: Target) -> tuple[Requirement, ...] | None:
    """Requirements no tiles satisfy together, none of them superfluous; None if some tiles satisfy all.

    Raises:
        TimeoutError: the solver did not decide in time.
    """
    import z3

    solver = z3.Solver()
    solver.set("timeout", TIME_LIMIT_MS)
    solver.set("core.minimize", True)
    requirements: dict[str, Requirement] = {}

    def require(constraint: Any, requirement: Requirement) -> None:
        name = f"requirement:{len(requirements)}"
        requirements[name] = requirement
        solver.assert_and_track(constraint, name)

    tiles: dict[Axis, Any] = {}
    for i, (axis, role) in enumerate(schedule.kernel.roles):
        tiles[axis] = z3.Int(f"tile:{i}:{axis}")
        if role is Role.WHOLE:
            padded = 1 << max(largest(axis.extent) - 1, 0).bit_length()
            require(tiles[axis] == padded, Requirement("tile", f"{axis} is held, {padded} with padding"))
        else:
            require(tiles[axis] >= 1, Requirement("tile", f"{axis} has at least one index"))
    fits = on_chip_bytes(target)
    for phase in schedule.phases:
        for moment in _moments(phase.body, ()):
            live: Any = z3.Sum([bytes_each * _product(z3.IntVal(1), axes, tiles) for bytes_each, axes in moment.tiles])
            text = f"{phase.name} phase, {moment.where}: at most {fits} B of registers and shared memory"
            require(live <= fits, Requirement("on-chip memory", text))
    match solver.check():
        case z3.sat:
            return None
        case z3.unsat:
            return tuple(requirements[str(name)] for name in solver.unsat_core())
        case _:
            raise TimeoutError(f"undecided after {TIME_LIMIT_MS} ms: {solver.reason_unknown()}")


def _product(one: Any, axes: frozenset[Axis], tiles: Mapping[Axis, Any]) -> Any:
    product = one
    for axis in sorted(axes):
        product *= tiles[axis]
    return product


def _moments(body: tuple[Statement, ...], live: tuple[tuple[int, frozenset[Axis]], ...]) -> Iterator[_Moment]:
    """Every statement with the accumulators of the loops around it and the tile that it makes."""
    for statement in body:
        match statement:
            case Loop():
                started = tuple((4, v.free) for v in statement.start)
                if started:
                    yield _Moment(f"accumulators of the loop over {statement.axis}", (*live, *started))
                yield from _moments(statement.body, (*live, *started))
            case Load():
                yield _Moment(f"the tile of {statement.value.name}", (*live, (LOADED_BYTES, statement.value.free)))
            case Compute() | Reduce():
                what = statement.value.op.value
                yield _Moment(f"the tile of one {what}", (*live, (4, statement.value.free)))
            case _:
                pass
