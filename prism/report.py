"""What a search reports: the same record as JSON, as a table in the terminal, and in a notebook."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Families(_Record):
    """The funnel: every family ends in exactly one place."""

    enumerated: int
    """Families the generator listed."""
    proved: int
    """Of those, proved equal to the program."""
    dropped: dict[str, int]
    """Everything set aside, by reason; counts plans, kernels or families as the reason says."""
    statuses: dict[str, int]
    """Listed families by the status they ended in."""


class Row(_Record):
    """One family (or baseline) in the final table."""

    name: str
    """``family 3``, or the baseline's name."""
    kind: Literal["family", "baseline"]
    """Ours, or something to compare with."""
    family: int | None = None
    """The family's place in the generator's order, from 1; None for baselines."""
    status: str
    """``measured``, ``modelled``, ``deferred``, ``inaccurate``, ``compile failed``, ..."""
    detail: str = ""
    """The reason behind the status, where there is one."""
    kernels: int = 0
    """Device kernels, combine kernels included."""
    roles: list[dict[str, str]] = Field(default_factory=list)
    """Role of each axis, per kernel."""
    bound_us: float | None = None
    """No instance of the family is faster on this target."""
    modelled_us: float | None = None
    """Time by the analytical model; no measurement."""
    measured_us: float | None = None
    """Median time on the device."""
    spread_percent: float | None = None
    """Spread of the measurements."""
    speed_of_light_percent: float | None = None
    """Share of the hardware limit that the modelled or measured time reaches."""
    flops: float | None = None
    """Floating-point operations of the plan."""
    traffic_bytes: float | None = None
    """Bytes its kernels read and write, each tensor once per kernel."""
    tuning_us: list[float] = Field(default_factory=list)
    """Best time after each point that the tuner looked at."""
    parameters: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Chosen parameters, per kernel."""
    resources: list[dict[str, int | str]] = Field(default_factory=list)
    """What the compiler says, per device kernel."""
    verdict: str = ""
    """``proved`` for families, empty for baselines."""


class Accuracy(_Record):
    """Gate 3: the numerical contract."""

    passed: bool
    """Whether every round kept the contract."""
    where: str
    """``interpreted``, ``cpu`` or ``cuda``."""
    rounds: int
    """Rounds of fresh inputs."""
    worst: float
    """Largest error as a multiple of its bound."""
    detail: str = ""
    """The first violation."""


class Exact(_Record):
    """Gate 2: the emitted text, launcher included, evaluated in exact arithmetic on small ragged sizes."""

    passed: bool
    """Whether every element agreed with the program."""
    evaluations: int
    """Launches that were evaluated."""
    fields: dict[str, str]
    """Finite fields: ``agree``, or ``not applicable`` where the fifty-digit reals alone decide."""
    seconds: float
    """Wall time."""


class VerdictRecord(_Record):
    """Gate 1: the proof."""

    status: Literal["proved", "refuted", "unknown"]
    """Three values, never a bool."""
    reason: str
    """Why."""
    facts: list[str] = Field(default_factory=list)
    """Facts that cancellations used."""


class Report(_Record):
    """One search, start to end."""

    schema_version: int = 1
    """Version of this record."""
    program: str
    """Name of the function."""
    equations: str
    """What it computes, as text."""
    target: str
    """Device name."""
    timing: Literal["measured", "modelled"]
    """Whether times are of a device or of the model."""
    effort: str
    """Preset."""
    seed: int
    """Seed of every random choice."""
    families: Families
    """The funnel."""
    best: Row | None
    """What the result runs: a family, or a baseline that nothing beat."""
    ranking: list[Row]
    """Best first, baselines included."""
    verdict: VerdictRecord | None
    """Proof of the best family."""
    exact: Exact | None
    """Exact evaluation of the best family's emitted text; None for the CPU target, whose text is proved instead."""
    accuracy: Accuracy | None
    """Numerical contract of the best family."""
    speedup: float | None
    """Fastest baseline's time over the best's; None where nothing was timed."""
    source_path: str | None
    """Where the source of the best was written."""
    seconds: dict[str, float]
    """Wall time by stage."""
    versions: dict[str, str]
    """Versions of what took part."""
    notes: list[str] = Field(default_factory=list)
    """What a reader should know: facts assumed, an interruption, a baseline that won."""
