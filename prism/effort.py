"""Effort: one word for how long a search may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from sgraph.errors import InputError
from sgraph.generate import SearchLimits
from sgraph.plans import PlanLimits

EffortName = Literal["quick", "default", "max"]


@dataclass(frozen=True, slots=True)
class Effort:
    """What a search may spend."""

    name: str
    """``quick``, ``default`` or ``max``."""
    limits: SearchLimits = field(repr=False)
    """Limits of the generator."""
    seeds: int
    """Alternative forms of the program that the rewrite table starts from."""
    proved: int
    """Families proved, best estimate first: several times what is tuned, since some end as limits or print alike."""
    tuned: int
    """Families lowered and tuned."""
    trials: int
    """Parameter assignments tried per kernel."""
    compiled: int
    """Of those, assignments compiled per family."""
    measure_s: float
    """Seconds of measuring on the device, CPU or GPU."""


EFFORTS: Final[Mapping[str, Effort]] = {
    "quick": Effort(
        "quick",
        SearchLimits(
            PlanLimits(stored=1, bodies=40, per_cut_set=4), families=60, plan_count=24, per_plan=8, per_kernel=24
        ),
        seeds=2,
        proved=16,
        tuned=3,
        trials=40,
        compiled=2,
        measure_s=8.0,
    ),
    "default": Effort(
        "default",
        SearchLimits(PlanLimits(bodies=100, per_cut_set=8), families=240, plan_count=80, per_plan=12, per_kernel=64),
        seeds=4,
        proved=64,
        tuned=8,
        trials=60,
        compiled=3,
        measure_s=24.0,
    ),
    "max": Effort(
        "max",
        SearchLimits(PlanLimits(stored=3, cut_sets=3000, bodies=3000), families=20_000, plan_count=5000),
        seeds=12,
        proved=4000,
        tuned=24,
        trials=400,
        compiled=6,
        measure_s=180.0,
    ),
}


def effort(name: str) -> Effort:
    """The effort of that name.

    Raises:
        InputError: there is none.
    """
    if name not in EFFORTS:
        raise InputError(f"effort {name!r} does not exist", do=f"use one of {', '.join(EFFORTS)}")
    return EFFORTS[name]
