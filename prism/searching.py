"""The search alone: capture to proved families, what each candidate came to, and one family in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prism.effort import effort
from prism.pipeline import Found, Request, captured, search
from prism.progress import Progress
from prism.settings import Settings
from sgraph.errors import InputError
from sgraph.target import Target

if TYPE_CHECKING:
    from sgraph.generate import Family


@dataclass(frozen=True, slots=True)
class Searched:
    """Everything that a search without tuning found."""

    found: Found
    """The program, its families, and their proofs."""
    target: Target
    """What bounds and feasibility refer to."""
    effort: str
    """``quick``, ``default`` or ``max``."""
    seconds: Mapping[str, float]
    """Wall time by stage."""

    @property
    def statuses(self) -> Mapping[str, int]:
        """Every listed family under the one status it came to."""
        return {"proved": len(self.found.proved), **dict(sorted(self.found.statuses.items()))}

    def family(self, number: int) -> Family:
        """A family by its place in the order of the search, from 1.

        Raises:
            InputError: there are not so many.
        """
        listed = self.found.search.families
        if not 1 <= number <= len(listed):
            raise InputError(
                f"family {number} does not exist: {len(listed)} are listed",
                where=f"the search of {self.found.program.name} at effort {self.effort}",
                do=f"a number from 1 to {len(listed)}, or a larger --effort"
                if listed
                else "see the funnel of `search`",
            )
        return listed[number - 1]

    def status(self, number: int) -> str:
        """What became of one listed family."""
        for proved in self.found.proved:
            if proved.number == number:
                return f"proved: {proved.verdict.reason}"
        # Families are proved in their order, up to the effort.
        deferred = sum(count for status, count in self.found.statuses.items() if status.startswith("deferred"))
        tried = len(self.found.search.families) - deferred
        return "not equivalent: unknown" if number <= tried else "deferred: not proved within the effort"


def run_search(request: Request, settings: Settings, progress: Progress) -> Searched:
    """Capture to proofs, for a target that need not be present.

    Raises:
        PrismError: one of its subclasses, for everything a user can mend.
    """
    from autotune.calibration import calibrated
    from autotune.targets import detect_target, find_target

    spent = effort(request.effort)
    with progress.stage("target"):
        target = find_target(request.target) if request.target else detect_target()
        target = calibrated(target, settings.cache_dir / "calibrations")
    with progress.stage("capture"):
        program, sizes = captured(request)
    found = search(program, sizes, target, spent, settings, progress)
    return Searched(found, target, spent.name, dict(progress.seconds))


# --------------------------------------------------------------------------------------------------- text


def funnel_text(searched: Searched) -> str:
    """From sets of stored tensors to proofs, and everything that was set aside, by reason."""
    listing = searched.found.search
    lines = [
        f"{searched.found.program.name} on {searched.target.name} (effort {searched.effort}, all times modelled)",
        f"  {listing.cut_sets:>6}  sets of stored tensors looked at",
        f"  {listing.plans:>6}  plans",
        f"  {listing.kernels:>6}  kernels with roles",
        f"  {len(listing.families):>6}  families listed",
    ]
    lines += [f"  {count:>6}    {status}" for status, count in searched.statuses.items()]
    kinds: dict[str, Counter[str]] = {}
    for reason, count in listing.dropped.items():
        kind, _, detail = reason.partition(": ")
        kinds.setdefault(kind, Counter())[detail] += count
    lines.append("set aside before it was a family")
    for kind, details in sorted(kinds.items()):
        for detail, count in sorted(details.items()):
            lines.append(f"  {count:>6}  {kind}{': ' if detail else ''}{detail}")
    lines.append(gap_text(searched))
    return "\n".join(lines)


def gap_text(searched: Searched) -> str:
    """What the families that were deferred could still bring."""
    listing = searched.found.search
    if listing.next_bound_s is None:
        return "nothing was deferred: these are all families within the table and the limits above"
    best = min((f.estimate_s for f in listing.families), default=None)
    told = f"; the best listed is estimated at {_us(best)}" if best is not None else ""
    return f"nothing that was deferred can beat {_us(listing.next_bound_s)}{told}"


def families_text(searched: Searched, most: int) -> str:
    """The first families, best estimate first, one short sGraph each."""
    blocks: list[str] = []
    for number, family in enumerate(searched.found.search.families[:most], 1):
        blocks.append(f"[{number}] {_heading(family)}; {searched.status(number).split(':')[0]}\n{family.graph}")
    left = len(searched.found.search.families) - most
    if left > 0:
        blocks.append(f"... and {left} more (--top)")
    return "\n\n".join(blocks)


def family_text(searched: Searched, number: int) -> str:
    """One family in full: kernels and roles, stages, bounds, and Python that rebuilds it."""
    from sgraph.formula import lower_bound_formula
    from sgraph.printer import python, schedule_text

    family = searched.family(number)
    formula = lower_bound_formula(family.graph)
    meanings = [f"  {name}: {meaning}" for name, meaning in sorted(formula.meanings.items())]
    parts = [
        f"family {number} of {searched.found.program.name}: {_heading(family)}",
        searched.status(number),
        str(family.graph),
        *map(schedule_text, family.schedules),
        "\n".join((f"lower bound in seconds = {formula}", *meanings)),
        python(family.graph).rstrip(),
    ]
    return "\n\n".join(parts)


def _heading(family: Family) -> str:
    return f"bound {_us(family.bound_s)}, estimate {_us(family.estimate_s)} (modelled)"


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.2f} us"


# --------------------------------------------------------------------------------------------------- JSON


def search_record(searched: Searched) -> dict[str, object]:
    """The whole search as plain data."""
    listing = searched.found.search
    return {
        "program": searched.found.program.name,
        "equations": str(searched.found.program),
        "target": searched.target.name,
        "effort": searched.effort,
        "cut_sets": listing.cut_sets,
        "plans": listing.plans,
        "kernels": listing.kernels,
        "listed": len(listing.families),
        "statuses": dict(searched.statuses),
        "dropped": dict(listing.dropped),
        "next_bound_us": None if listing.next_bound_s is None else 1e6 * listing.next_bound_s,
        "families": [family_record(searched, n) for n in range(1, len(listing.families) + 1)],
        "seconds": dict(searched.seconds),
    }


def family_record(searched: Searched, number: int, *, full: bool = False) -> dict[str, object]:
    """One family as plain data; ``full`` adds its stages, the formula of its bound and the Python that rebuilds it."""
    from sgraph.bounds import launches

    family = searched.family(number)
    record: dict[str, object] = {
        "number": number,
        "status": searched.status(number),
        "bound_us": 1e6 * family.bound_s,
        "estimate_us": 1e6 * family.estimate_s,
        "launches": launches(family.graph),
        "kernels": [
            {"name": k.name, "fold": k.fold, "reads": list(k.reads), "roles": {str(a): r.value for a, r in k.roles}}
            for k in family.graph.kernels
        ],
        "text": str(family.graph),
    }
    if full:
        from sgraph.formula import lower_bound_formula
        from sgraph.printer import python, schedule_text

        formula = lower_bound_formula(family.graph)
        record["stages"] = [schedule_text(s) for s in family.schedules]
        record["lower_bound_s"] = {"formula": str(formula), "symbols": dict(formula.meanings)}
        record["python"] = python(family.graph)
    return record
