"""Refit the cost model on measurements: one factor per term, by least squares on logarithms.

A modelled time is the largest of several terms. Each measurement speaks of the term that dominated its model: the
factor of a term is the geometric mean of measured over modelled among those, drawn towards 1 where there are few.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from autotune.cost import Cost

TERMS: Final = ("dram_s", "l2_s", "dot_s", "pointwise_s", "chain_s")
"""Terms of a cost that overlap."""
DOUBT: Final = 4.0
"""Measurements that the belief in a factor of 1 is worth."""


@dataclass(frozen=True, slots=True)
class Factors:
    """What each term of the model is multiplied with; 1 where nothing is known."""

    terms: Mapping[str, float] = field(default_factory=dict[str, float])
    """By term."""
    measurements: int = 0
    """That they were fitted on."""
    rank_before: float = 0.0
    """Spearman's rank correlation of modelled and measured times before the fit."""
    rank_after: float = 0.0
    """And after."""

    def apply(self, cost: Cost) -> Cost:
        """The cost with its terms corrected."""
        return replace(cost, **{t: getattr(cost, t) * f for t, f in self.terms.items()})


def fit(observed: Sequence[tuple[Cost, float]]) -> Factors:
    """Factors from modelled costs and measured seconds."""
    residuals: dict[str, list[float]] = {}
    for cost, seconds in observed:
        main = max(TERMS, key=lambda t: getattr(cost, t))
        body = seconds - cost.launch_s - cost.combine_s
        if body > 0:
            residuals.setdefault(main, []).append(math.log(body / getattr(cost, main)))
    terms = {t: math.exp(sum(r) / (len(r) + DOUBT)) for t, r in residuals.items()}
    factors = Factors(terms, len(observed))
    measured = [s for _, s in observed]
    before = spearman([c.total_s for c, _ in observed], measured)
    after = spearman([factors.apply(c).total_s for c, _ in observed], measured)
    return replace(factors, rank_before=before, rank_after=after)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation: 1 where both order alike, 0 where neither says anything of the other."""
    if len(a) < 2:
        return 0.0
    x, y = _ranks(a), _ranks(b)
    mean = (len(a) - 1) / 2
    top = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    bottom = math.sqrt(sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y))
    return top / bottom if bottom else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 0; equal values share their mean rank."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [sum(places[v]) / len(places[v]) for v in values]


def keep_factors(factors: Factors, path: Path) -> None:
    """Write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(factors), indent=1) + "\n", encoding="utf-8")


def read_factors(path: Path) -> Factors:
    """Factors that were kept; none where there is no file, or it is no such file."""
    try:
        return Factors(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return Factors()
