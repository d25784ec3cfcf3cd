"""What verification answers: proved, refuted with a counterexample, or unknown with a reason. Never a bool."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from sgraph.expr import Expr


class Status(StrEnum):
    """The three answers. Only ``proved`` is ever accepted."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Obligation:
    """One equation that a proof rests on."""

    subject: str
    """What the equation is about: ``y of kernel k0: what it computes``."""
    spec: Expr
    """What has to be computed."""
    candidate: Expr
    """What is computed: defined and equal wherever the spec is defined."""
    status: Status
    """How it was decided."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a proof attempt."""

    status: Status
    """The answer."""
    reason: str
    """Why: one line, in words that name the kernel, the tensor, the axis."""
    facts: tuple[str, ...] = ()
    """Facts that the proof used (a sign, a non-zero extent), in words."""
    counterexample: str | None = None
    """Of a refutation: values at which the two sides were evaluated and differ."""
    seconds: float = 0.0
    """Wall time of the attempt."""
    obligations: tuple[Obligation, ...] = ()
    """The equations, in the order they were put; the last one is what failed where something failed."""

    def __bool__(self) -> NoReturn:
        """Refused: an unknown verdict is neither true nor false."""
        raise TypeError("a verdict has three values; compare verdict.status with Status.PROVED, REFUTED or UNKNOWN")

    def __str__(self) -> str:
        lines = [f"{self.status.value}: {self.reason}"]
        lines += [f"  fact: {fact}" for fact in self.facts]
        if self.counterexample:
            lines.append(f"  counterexample: {self.counterexample}")
        return "\n".join(lines)
