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
    """Families proved, best estimate first."""
    tuned: int
    """Families lowered and tuned."""
    trials: int
    """Parameter assignments tried per kernel."""
    compiled: int
    """Of those, assignments compiled per family."""
    measure_s: float
    """Seconds of measuring on the device, CPU or GPU."""


EFFORTS: Final[Mapping[str, Effort]] = {
    "quick": Effort("quick", SearchLimits(PlanLimits(stored=1), families=300, plan_count=60), 2, 60, 3, 40, 2, 8.0),
    "default": Effort("default", SearchLimits(), 4, 300, 8, 60, 3, 24.0),
    "max": Effort(
        "max",
        SearchLimits(PlanLimits(stored=3, cut_sets=3000), families=20_000, plan_count=5000),
        12,
        4000,
        24,
        400,
        6,
        180.0,
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
