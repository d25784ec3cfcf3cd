"""Seeds: forms of a program's values that saturation alone does not reach, each proved equal.

The rules that saturate never cancel and never distribute, because that does not end. Forms that need it (one-pass
moments, a mean folded out of a product, merged weights, interpolations) are proposed here by a few named
transformations of expressions, applied to the parts of a value and composed a few times. A seed is a part and another
form of that part which the normal form has proved equal; saturation makes one class of the two, so that seeds of
different parts combine by themselves. What is not proved is counted and forgotten. Design section 5.2.

Concatenated operands (``x @ [W1 | W2]`` for two products) are no seed: a joined axis has parts, and axes have no
sub-ranges, so that neither the joined tensor nor a product's part of the result is an expression. Two products with a
common operand are accumulated in one loop instead, which reads and computes the same.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from rewrites import seeding_forms as forms
from rewrites.language import collapse
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
"""A form has at most this many times the distinct nodes of its part, plus ``ALLOWANCE``."""
ALLOWANCE: Final = 12
"""Distinct nodes a form may have more, so that small parts can grow too."""
LARGEST_TOTAL: Final = 400
"""Distinct nodes that all seeds add to the values."""
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
    """A part of what is saturated, and a proved form of it."""

    part: Expr
    """A part of a value with its scalars gathered (``rewrites.language.collapse``), or of an earlier seed's form."""
    value: Expr
    """What equals the part, and is defined where it is."""
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
    """Forms by one transformation, then by compositions."""
    refused: Mapping[str, Mapping[str, int]]
    """For each name as in ``Seed.transformation``, how many forms were refused for which reason."""
    seconds: float
    """Wall time."""
    stopped: str = ""
    """The limit that ended the search; empty if it came to its end."""

    @property
    def pairs(self) -> tuple[tuple[Expr, Expr], ...]:
        """The seeds as ``rewrites.saturate.saturate`` takes them."""
        return tuple((seed.part, seed.value) for seed in self.seeds)


def find_seeds(
    values: Sequence[Expr],
    transformations: Sequence[Transformation] = TRANSFORMATIONS,
    limit: int = 24,
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
    plain = [_Context(collapse(value)) for value in search.current]
    search.known.update(walk(context.value for context in plain))
    level = [made for context in plain for t in beside if (made := search.everywhere(context, t))]
    for context in plain:
        for t in beside:
            search.one_by_one(context, t)
    for _ in range(1, LONGEST_COMPOSITION):
        level = [
            made for context in level for t in beside if context.allows(t) and (made := search.everywhere(context, t))
        ]
    took = time.monotonic() - begin
    log.debug("%d seeds in %.3f s%s", len(search.admitted), took, search.stopped and f", stopped: {search.stopped}")
    refused = {name: dict(sorted(reasons.items())) for name, reasons in search.refused.items()}
    return SeedReport(tuple(search.current), tuple(search.admitted), refused, took, search.stopped)


# ------------------------------------------------------------------------------------------------ the search


@dataclass(frozen=True, slots=True)
class _Context:
    """A value with some of its parts in other forms: where compositions find what to transform next."""

    value: Expr
    """Such as the value itself."""
    names: tuple[str, ...] = ()
    """Transformations applied so far."""
    origin: Mapping[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    """What the parts that have changed were before any transformation."""

    def allows(self, transformation: Transformation) -> bool:
        """Whether to go on with it: directly repeated or not yet used, lest it undoes what it did before."""
        return transformation.name == self.names[-1] or transformation.name not in self.names

    def before(self, form: Expr) -> Expr:
        """A form in which changed parts that it holds whole are as they were: saturation knows that those are equal."""
        kept = {now: was for now, was in self.origin.items() if now.free == was.free and now is not form}
        return rebuild(form, kept)


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
    known: set[Expr] = field(default_factory=set[Expr])
    """Every part of what is saturated, seeds included."""
    _holds: dict[tuple[Expr, Expr], bool] = field(default_factory=dict[tuple[Expr, Expr], bool])
    """For each part and form in its canonical writing, whether it was admitted."""
    _proofs: NormalForm = field(default_factory=NormalForm)
    _added: int = 0

    def __post_init__(self) -> None:
        self.current = list(self.values)

    def replace(self, transformation: Transformation) -> None:
        """Exchanges each value for a proved form, made everywhere if that can be proved, else at the first place."""
        for i, value in enumerate(self.values):
            now = self.current[i]
            for form in itertools.chain(_replaced(now, transformation), _one_by_one(now, transformation)):
                seed = Seed(value, form, transformation.name)
                if self._may_replace(i, form) and self._proved(seed):
                    self.current[i] = form
                    break

    def _may_replace(self, position: int, form: Expr) -> bool:
        """Whether saturation still holds every tensor of the value, and no two values become one."""
        others = {v for i, v in enumerate(self.current) if i != position}
        return form not in others and set(leaves([form])) == set(leaves([self.current[position]]))

    def everywhere(self, context: _Context, transformation: Transformation) -> _Context | None:
        """Admits the first other form of each part, operands first; the value in these forms, None without any."""
        tops = _tops(context.value)
        names = (*context.names, transformation.name)
        done: dict[Expr, Expr] = {}
        after = _Context(context.value, names, origin := {})
        for node in walk([context.value]):
            part = context.origin.get(node, node)
            now = make(node.op, tuple(done[a] for a in node.args), node.attr) if node.args else node
            form = next(_forms(now, transformation), None) if node in tops else None
            if form is not None and self._admit(Seed(part, collapse(after.before(form)), JOINED.join(names))):
                now = collapse(form)
            done[node] = now
            if now is not part:
                origin[now] = part
        value = done[context.value]
        return replace(after, value=value) if value is not context.value else None

    def one_by_one(self, context: _Context, transformation: Transformation) -> None:
        """Admits every other form of each part."""
        tops = _tops(context.value)
        for node in walk([context.value]):
            if node in tops:
                for form in _forms(node, transformation):
                    self._admit(Seed(node, collapse(form), transformation.name))

    def _admit(self, seed: Seed) -> bool:
        """Whether the seed is among those admitted: it is if it is new, small enough and proved.

        New means: different beyond order, factoring and cancelled factors. The first two saturation finds by itself,
        with the third it would not end.
        """
        written = canonical(seed.value)
        key = (seed.part, written)
        if key in self._holds:
            return self._holds[key]
        if self.stopped or written is canonical(seed.part):
            return False
        added = sum(node not in self.known for node in walk([seed.value]))
        if len(self.admitted) >= self.limit:
            self.stopped = f"{self.limit} seeds"
        elif self.admitted and self._added + added > LARGEST_TOTAL:
            self.stopped = f"{LARGEST_TOTAL} nodes in seeds"
        self._holds[key] = self._proved(seed) and self._interchangeable(seed)
        if self._holds[key]:
            self.admitted.append(seed)
            self.known.update(walk([seed.value]))
            self._added += added
        return self._holds[key]

    def _proved(self, seed: Seed) -> bool:
        """Whether a form is proved; a refusal is counted."""
        if not self.stopped and time.monotonic() > self.deadline:
            self.stopped = "time"
        if self.stopped:
            return False
        reason = self._reason_against(seed)
        if reason:
            self._refuse(seed, reason)
        return not reason

    def _interchangeable(self, seed: Seed) -> bool:
        """Whether a proved form is defined nowhere else: in one class, either may take the other's place."""
        if self._proofs.compare(seed.value, seed.part).equal:
            return True
        self._refuse(seed, "defined where the part is not")
        return False

    def _refuse(self, seed: Seed, reason: str) -> None:
        log.debug("%s refused, %s: %s", seed.transformation, reason, seed.value)
        self.refused.setdefault(seed.transformation, Counter())[reason] += 1

    def _reason_against(self, seed: Seed) -> str:
        if not _Size.of(seed.value).within(_Size.of(seed.part)):
            return "too large"
        verdict = self._proofs.compare(seed.part, seed.value)
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


def _replaced(value: Expr, transformation: Transformation) -> Iterator[Expr]:
    """The value with each part in its first other form, operands first; none if no part has one."""
    tops = _tops(value)
    done: dict[Expr, Expr] = {}
    for node in walk([value]):
        now = make(node.op, tuple(done[a] for a in node.args), node.attr) if node.args else node
        done[node] = next(_forms(now, transformation), now) if node in tops else now
    if done[value] is not value:
        yield done[value]


def _one_by_one(value: Expr, transformation: Transformation) -> Iterator[Expr]:
    """The values with one part in one of its other forms."""
    tops = _tops(value)
    for node in walk([value]):
        if node in tops:
            for form in _forms(node, transformation):
                yield rebuild(value, {node: form})


def _forms(node: Expr, transformation: Transformation) -> Iterator[Expr]:
    return itertools.islice((f for f in transformation.apply(node) if f is not node), FORMS_PER_NODE)


def _tops(value: Expr) -> frozenset[Expr]:
    """Nodes that some other operator uses, or none: the heads of additions, products and chains of reductions."""
    found = {value}
    for node in walk([value]):
        found.update(a for a in node.args if a.op is not node.op)
    return frozenset(found)
