"""Seeds: forms of a program's values that saturation alone does not reach, each proved equal.

The rules that saturate never cancel and never distribute, because that does not end. Forms that need it (one-pass
moments, a mean folded out of a product, merged weights, interpolations) are proposed here by a few named
transformations of expressions, applied everywhere in a value and composed a few times. What the normal form proves
equal to the value is given to saturation; what it does not prove is counted and forgotten. Design section 5.2.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rewrites import seeding_forms as forms
from rewrites.normal_form import NormalForm
from rewrites.saturate import LARGEST_SUM
from rewrites.seeding_terms import canonical
from sgraph.expr import Expr, Op, leaves, make, rebuild, walk

log = logging.getLogger("prism.rewrites.seeds")

LONGEST_COMPOSITION: Final = 4
"""Transformations applied one after the other at most."""
FORMS_PER_NODE: Final = 4
"""Forms of one node that one transformation may propose."""
JOINED: Final = " + "
"""Between the names of composed transformations."""
LARGEST_GROWTH: Final = 3
"""A seed has at most this many times the distinct nodes of its value, plus ``ALLOWANCE``."""
ALLOWANCE: Final = 12
"""Distinct nodes a seed may have more, so that small values can grow too."""
LARGEST_TOTAL: Final = 400
"""Distinct nodes of all seeds, counted for each by itself. Each brings a copy of its value's table: an attention block
with LayerNorms grows from 1.9k nodes to about 10k within this limit, and to more than 60k with twelve seeds."""
LARGEST_PRODUCT: Final = 8
"""Factors of one product, those under its sums included, unless the value has more: n of them cost about 3^n nodes."""


@dataclass(frozen=True, slots=True)
class Transformation:
    """A way to make other forms of expressions."""

    name: str
    """Unique, lower case with hyphens."""
    before_after: str
    """An example, ``before -> after``."""
    apply: Callable[[Expr], Iterable[Expr]]
    """Other forms of one node, which need not be right."""
    reference: str = "elementary"
    """Where it is from."""
    replaces: bool = False
    """Whether its forms stand in for a value instead of beside it, see ``SeedReport.values``."""


TRANSFORMATIONS: Final[tuple[Transformation, ...]] = (
    Transformation(
        "folded-mean",
        "sum(k, (x - mean)*w) -> sum(k, x*w) - mean*sum(k, w)",
        forms.folded_mean,
        "Ashkboos et al., SliceGPT, ICLR 2024, section 3.1",
    ),
    Transformation(
        "one-pass-moments",
        "sum(k, (x - mean)^2) -> sum(k, x^2) - sum(k, x)^2/|k|",
        forms.one_pass_moments,
        "Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983, section 1",
    ),
    Transformation(
        "merged-weights",
        "sum(k, x*w) + sum(r, sum(k, x*a)*b) -> sum(k, x*(w + sum(r, a*b)))",
        forms.merged_weights,
        "Hu et al., LoRA, ICLR 2022, section 4.1",
    ),
    Transformation(
        "interpolation",
        "h + a*(n - h) <-> (1 - a)*h + a*n",
        forms.interpolation,
        "Loshchilov et al., nGPT, ICLR 2025, section 2.2",
    ),
    Transformation(
        "unshifted-exponentials",
        "exp(x - max)/sum(k, exp(x - max)) -> exp(x)/sum(k, exp(x))",
        forms.unshifted_exponentials,
        "Milakov and Gimelshein, Online normalizer calculation for softmax, 2018, section 2",
        replaces=True,
    ),
    Transformation(
        "collected-factors",
        "a*b + a*c -> a*(b + c)",
        forms.collected_factors,
    ),
    Transformation(
        "one-level-expansion",
        "sum(k, (a + b)*c) -> sum(k, a*c) + sum(k, b*c)",
        forms.one_level_expansion,
    ),
)
"""In the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A proved form of a value."""

    output: int
    """Position of the value."""
    value: Expr
    """What equals it wherever it is defined."""
    transformation: str
    """Names of the transformations that made it, in order of application, joined by `` + ``."""


@dataclass(frozen=True, slots=True)
class SeedReport:
    """What was found, and what was not admitted."""

    values: tuple[Expr, ...]
    """What to saturate: the given values, or proved forms of them in which factors have cancelled.

    A value and its form without those factors never saturate side by side: where ``y = y * a * 1/a``, there are
    infinitely many products.
    """
    seeds: tuple[Seed, ...]
    """One transformation applied everywhere, then one applied at one place, then compositions."""
    refused: Mapping[str, Mapping[str, int]]
    """For each name as in ``Seed.transformation``, how many forms were refused for which reason."""
    seconds: float
    """Wall time."""
    stopped: str = ""
    """The limit that ended the search; empty if it came to its end."""

    @property
    def pairs(self) -> tuple[tuple[int, Expr], ...]:
        """The seeds as ``rewrites.saturate.saturate`` takes them."""
        return tuple((seed.output, seed.value) for seed in self.seeds)


def find_seeds(
    values: Sequence[Expr],
    transformations: Sequence[Transformation] = TRANSFORMATIONS,
    limit: int = 12,
    seconds: float = 2.0,
) -> SeedReport:
    """Forms of the values that cancellation and distributivity give, each proved by the normal form.

    The order, and with it the choice under ``limit``, depends on the values alone. ``seconds`` is looked at between
    proofs; a run that it cuts short says so.

    Args:
        values: such as a program's outputs.
        transformations: what to try, in this order.
        limit: seeds in all.
        seconds: wall time after which no further form is tried.
    """
    begin = time.monotonic()
    search = _Search(tuple(values), limit, begin + seconds)
    beside = [t for t in transformations if not t.replaces]
    for transformation in transformations:
        if transformation.replaces:
            search.replace(transformation)
    plain = [Seed(i, value, "") for i, value in enumerate(search.current)]
    level = search.admit_all(s for seed in plain for t in beside for s in _everywhere(seed, t))
    search.admit_all(s for seed in plain for t in beside for s in _one_by_one(seed, t))
    for _ in range(1, LONGEST_COMPOSITION):
        level = search.admit_all(
            s for seed in level for t in beside if _may_follow(t, seed) for s in _everywhere(seed, t)
        )
    took = time.monotonic() - begin
    log.debug("%d seeds in %.3f s%s", len(search.admitted), took, search.stopped and f", stopped: {search.stopped}")
    refused = {name: dict(sorted(reasons.items())) for name, reasons in search.refused.items()}
    return SeedReport(tuple(search.current), tuple(search.admitted), refused, took, search.stopped)


# ------------------------------------------------------------------------------------------------- admission


@dataclass(slots=True)
class _Search:
    """The seeds admitted so far, and what decides on the next one."""

    values: tuple[Expr, ...]
    limit: int
    deadline: float
    admitted: list[Seed] = field(default_factory=list[Seed])
    refused: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    stopped: str = ""
    current: list[Expr] = field(init=False)
    """What to saturate."""
    _seen: set[tuple[int, Expr]] = field(init=False)
    _proofs: list[NormalForm] = field(init=False)
    _nodes: int = 0

    def __post_init__(self) -> None:
        self.current = list(self.values)
        self._seen = {(i, canonical(value)) for i, value in enumerate(self.values)}
        self._proofs = [NormalForm() for _ in self.values]

    def replace(self, transformation: Transformation) -> None:
        """Exchanges each value for a proved form, made everywhere if that can be proved, else at the first place."""
        for i in range(len(self.values)):
            before = Seed(i, self.current[i], "")
            for seed in itertools.chain(_everywhere(before, transformation), _one_by_one(before, transformation)):
                if self._may_replace(seed) and self._proved(seed):
                    self.current[i] = seed.value
                    self._seen.add((i, canonical(seed.value)))
                    break

    def _may_replace(self, seed: Seed) -> bool:
        """Whether saturation still holds every tensor of the value, and no two values become one."""
        others = {v for i, v in enumerate(self.current) if i != seed.output}
        return seed.value not in others and set(leaves([seed.value])) == set(leaves([self.current[seed.output]]))

    def admit_all(self, seeds: Iterable[Seed]) -> list[Seed]:
        """Those of the seeds that are admitted."""
        return [seed for seed in seeds if self._admit(seed)]

    def _admit(self, seed: Seed) -> bool:
        """Admits the seed if it is new, small enough and proved.

        New means: different beyond order, factoring and cancelled factors. The first two saturation finds by itself,
        with the third it would not end.
        """
        key = (seed.output, canonical(seed.value))
        if self.stopped or key in self._seen:
            return False
        nodes = _Size.of(seed.value).nodes
        if len(self.admitted) >= self.limit:
            self.stopped = f"{self.limit} seeds"
        elif self.admitted and self._nodes + nodes > LARGEST_TOTAL:
            self.stopped = f"{LARGEST_TOTAL} nodes in seeds"
        self._seen.add(key)
        if not self._proved(seed):
            return False
        self.admitted.append(seed)
        self._nodes += nodes
        return True

    def _proved(self, seed: Seed) -> bool:
        """Whether a form is proved; a refusal is counted."""
        if not self.stopped and time.monotonic() > self.deadline:
            self.stopped = "time"
        if self.stopped:
            return False
        reason = self._reason_against(seed)
        if reason:
            log.debug("%s refused, %s: %s", seed.transformation, reason, seed.value)
            self.refused.setdefault(seed.transformation, Counter())[reason] += 1
        return not reason

    def _reason_against(self, seed: Seed) -> str:
        if not _Size.of(seed.value).within(_Size.of(self.values[seed.output])):
            return "too large"
        verdict = self._proofs[seed.output].compare(self.values[seed.output], seed.value)
        if verdict.equal:
            return ""
        return "not equal" if verdict.decided else "undecided"


@dataclass(frozen=True, slots=True)
class _Size:
    """What decides how large a value's table gets."""

    nodes: int
    """Distinct nodes."""
    terms: int
    """Terms of the longest addition."""
    factors: int
    """Factors of the longest product, those under its sums included."""

    @classmethod
    def of(cls, value: Expr) -> _Size:
        terms: dict[Expr, int] = {}
        factors: dict[Expr, int] = {}
        for node in walk([value]):
            terms[node] = sum(terms[a] for a in node.args) if node.op is Op.ADD else 1
            joins = node.op in {Op.MUL, Op.SUM, Op.RECIP}
            factors[node] = sum(factors[a] for a in node.args) if joins else int(bool(node.free))
        return cls(len(terms), max(terms.values()), max(factors.values()))

    def within(self, value: _Size) -> bool:
        """Whether a form of this size may stand beside a value of that size."""
        return (
            self.nodes <= LARGEST_GROWTH * value.nodes + ALLOWANCE
            and self.terms <= max(LARGEST_SUM, value.terms)
            and self.factors <= max(LARGEST_PRODUCT, value.factors)
        )


# ----------------------------------------------------------------------------------------------- application


def _everywhere(seed: Seed, transformation: Transformation) -> Iterator[Seed]:
    """The form with each node in its first other form, operands first; none if no node has one."""
    tops = _tops(seed.value)
    done: dict[Expr, Expr] = {}
    for node in walk([seed.value]):
        rebuilt = make(node.op, tuple(done[a] for a in node.args), node.attr) if node.args else node
        done[node] = next(_forms(rebuilt, transformation), rebuilt) if node in tops else rebuilt
    if done[seed.value] is not seed.value:
        yield _made(seed, done[seed.value], transformation)


def _one_by_one(seed: Seed, transformation: Transformation) -> Iterator[Seed]:
    """The forms with one node in one of its other forms."""
    tops = _tops(seed.value)
    for node in walk([seed.value]):
        if node in tops:
            for form in _forms(node, transformation):
                yield _made(seed, rebuild(seed.value, {node: form}), transformation)


def _forms(node: Expr, transformation: Transformation) -> Iterator[Expr]:
    return itertools.islice((f for f in transformation.apply(node) if f is not node), FORMS_PER_NODE)


def _may_follow(transformation: Transformation, seed: Seed) -> bool:
    """Whether to compose: a transformation is repeated directly or not at all, lest it undoes what it did before."""
    *earlier, last = seed.transformation.split(JOINED)
    return transformation.name == last or transformation.name not in earlier


def _made(seed: Seed, value: Expr, transformation: Transformation) -> Seed:
    name = f"{seed.transformation}{JOINED}{transformation.name}" if seed.transformation else transformation.name
    return Seed(seed.output, value, name)


def _tops(value: Expr) -> frozenset[Expr]:
    """Nodes that some other operator uses, or none: the heads of additions, products and chains of reductions."""
    found = {value}
    for node in walk([value]):
        found.update(a for a in node.args if a.op is not node.op)
    return frozenset(found)
