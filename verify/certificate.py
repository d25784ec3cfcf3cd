"""Certificates: why a kernel is believed to compute its program, as JSON that is kept with it.

A certificate records what was proved (each equation as text, with content hashes of both sides), on which facts,
how the kernel did numerically, and in which environment. It is a record, not an authority: checking it again
means proving and running again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rewrites.normal_form import GaveUp, NormalForm
from sgraph.errors import InputError
from sgraph.expr import Expr
from sgraph.program import Program
from verify.verdict import Obligation, Status, Verdict

if TYPE_CHECKING:
    # The numerical contract imports torch; a certificate needs only the shape of its report.
    from verify.numerics import NumericsReport, Round

FORMAT: Final = 1
LONGEST_TEXT: Final = 2000
"""Characters of a normal form that is written out; of a longer one its hash is kept."""
_PACKAGES: Final = {"torch": "torch", "triton": "triton", "egglog": "egglog", "prism": "prism-superoptimizer"}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="strings")


class Equation(_Record):
    """One equation of the proof."""

    subject: str
    """What it is about."""
    spec: str
    """What has to be computed."""
    candidate: str
    """What is computed."""
    spec_digest: str
    """Content hash of the specification's expression, hexadecimal."""
    candidate_digest: str
    """Content hash of the candidate's expression, hexadecimal."""
    normal_forms: tuple[str, str]
    """Normal form of each side as text, a hash of the text where it is long, or why there is none."""
    status: Status
    """How it was decided."""


class RoundFigures(_Record):
    """One round of the numerical contract."""

    name: str
    """How the inputs were drawn."""
    seed: int
    """Of the inputs."""
    sizes: dict[str, int]
    """Extent of each axis."""
    worst_ratio: float
    """Largest error over its bound; up to 1 is kept."""
    failure: str | None
    """What broke the contract, or None."""


class NumericsFigures(_Record):
    """The numerical contract on one device or interpreter."""

    mode: str
    """Which bound."""
    passed: bool
    """Whether it was kept."""
    rounds: tuple[RoundFigures, ...]
    """Its rounds."""


class ExactFigures(_Record):
    """Exact evaluation of the emitted text: what it says in fifty-digit reals and two finite fields."""

    evaluations: int
    """Launches that were evaluated; every element agreed."""
    fields: dict[str, str]
    """Finite fields: ``agree``, or ``not applicable`` where the reals alone decide."""


class Certificate(_Record):
    """The evidence for one kernel."""

    format: Literal[1] = FORMAT
    """Version of this record."""
    program: str
    """Name of the program."""
    program_text: str
    """The program's equations."""
    status: Status
    """The proof's verdict."""
    reason: str
    """The verdict in words."""
    counterexample: str | None
    """Of a refutation."""
    equations: tuple[Equation, ...]
    """What was decided, in order."""
    facts: tuple[str, ...]
    """Facts that the program declares or its capture assumed, and those that the proof used."""
    rule_set: str | None
    """Hash of the rewrite rules that the family was found with."""
    exact: ExactFigures | None = None
    """Exact evaluation of the emitted text; None where the text is proved instead, or none was emitted."""
    numerics: tuple[NumericsFigures, ...]
    """Figures of the numerical contract, one per run of it."""
    versions: dict[str, str]
    """Python and packages; a package that is not installed is left out."""
    seed: int
    """Of the search."""

    @classmethod
    def of(
        cls,
        program: Program,
        verdict: Verdict,
        *,
        numerics: Sequence[NumericsReport] = (),
        rule_set: str | None = None,
        seed: int = 0,
    ) -> Certificate:
        """The certificate of a verdict and of what the numerical contract found."""
        return cls(
            program=program.name,
            program_text=str(program),
            status=verdict.status,
            reason=verdict.reason,
            counterexample=verdict.counterexample,
            equations=tuple(_equation(o) for o in verdict.obligations),
            facts=tuple(dict.fromkeys((*program.facts, *verdict.facts))),
            rule_set=rule_set,
            numerics=tuple(_figures(r) for r in numerics),
            versions=versions(),
            seed=seed,
        )

    def to_json(self) -> str:
        """The certificate as indented JSON."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "a certificate") -> Certificate:
        """Read what ``to_json`` wrote.

        Args:
            text: The JSON.
            where: The file it came from, for messages.

        Raises:
            InputError: it is no certificate, or one of another format.
        """
        try:
            data: object = json.loads(text)
        except ValueError as problem:
            raise InputError(f"not JSON: {problem}", where=where, do="the certificate.json of a run") from None
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise InputError(
                f"format {found!r} where {FORMAT} is read", where=where, do="verify the run again with this version"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as problem:
            first = problem.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{field}: {first['msg']}", where=where, do="verify the run again; the file was changed or cut off"
            ) from None


def versions() -> dict[str, str]:
    """Python's version and those of the packages that a result depends on, without importing them."""
    found = {"python": platform.python_version()}
    for name, distribution in _PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _equation(obligation: Obligation) -> Equation:
    return Equation(
        subject=obligation.subject,
        spec=str(obligation.spec),
        candidate=str(obligation.candidate),
        spec_digest=obligation.spec.digest.hex(),
        candidate_digest=obligation.candidate.digest.hex(),
        normal_forms=(_normal_form(obligation.spec), _normal_form(obligation.candidate)),
        status=obligation.status,
    )


def _normal_form(value: Expr) -> str:
    forms = NormalForm()
    try:
        text = forms.text(forms.of(value))
    except GaveUp as limit:
        return f"none: {limit}"
    if len(text) <= LONGEST_TEXT:
        return text
    return f"blake2b:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _figures(report: NumericsReport) -> NumericsFigures:
    return NumericsFigures(mode=report.mode, passed=report.passed, rounds=tuple(_round(r) for r in report.rounds))


def _round(figures: Round) -> RoundFigures:
    return RoundFigures(
        name=figures.name,
        seed=figures.seed,
        sizes=dict(figures.sizes),
        worst_ratio=figures.worst_ratio,
        failure=None if figures.failure is None else figures.failure.reason,
    )
