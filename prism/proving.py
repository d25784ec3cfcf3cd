"""Whether two torch functions compute the same: decided by the normal form, result by result.

Different functions are refuted with numbers that hold at the sizes of the example inputs. This module imports numpy
and is itself imported at first use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from prism.pairs import Pair, Sizes, side_by_side
from rewrites.normal_form import Comparison, compare
from sgraph.arithmetic import Array
from sgraph.axis import Axis, Extent, ordered
from sgraph.errors import UnsupportedOperator
from sgraph.evaluate import constants, evaluate, numerically_equal
from sgraph.expr import (
    REDUCTIONS,
    Expr,
    Op,
    add,
    const,
    factors,
    leaf,
    leaves,
    make,
    product,
    sum_over,
    walk,
)
from verify.verdict import Obligation, Status, Verdict

if TYPE_CHECKING:
    import torch

TRIALS: Final = 8
"""Draws at the sizes of the example inputs."""
SLICES: Final = 4
"""How many indices of an axis differ in those draws; the last is repeated."""
REPEATED: Final = "repeated "
"""Before the name of an axis: how often each of its slices occurs. No tensor has a space in its name."""
FEW_CELLS: Final = 2**16
"""The largest tensor that is formed to see at once whether there is anything to prove."""
MOST_CELLS: Final = 2**23
"""The largest tensor that is formed to confirm a difference at the sizes of the example inputs."""
TOLERANCE: Final = 1e-7
"""A relative difference at the sizes of the example inputs counts above this."""
SMALL: Final = 3
"""Static extents up to this one are never drawn smaller when numbers are looked for."""


def prove(
    first: Callable[..., object],
    second: Callable[..., object],
    inputs: Sequence[torch.Tensor],
    *,
    sizes: Sizes | None = None,
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
) -> Verdict:
    """Whether ``second`` is defined and equal wherever ``first``, the specification, is defined.

    See ``prism.prove``. The seconds are those of the decision; capturing the functions comes before.
    """
    pairs = side_by_side(first, second, inputs, sizes=sizes, constant=constant, may_hold_minus_inf=may_hold_minus_inf)
    start = time.perf_counter()
    verdict = _together([decide(pair, pairs.sizes) for pair in pairs.results], pairs.facts)
    if pairs.overlapping and verdict.status is Status.REFUTED:
        # The numbers that tell them apart need not be those of one input: the functions themselves are asked.
        seen = _called(first, second, inputs)
        reason = (
            "the functions differ" if seen else "the functions were not proved equal, and agree where they were run"
        )
        verdict = replace(
            verdict, status=Status.REFUTED if seen else Status.UNKNOWN, reason=reason, counterexample=seen
        )
    return replace(verdict, seconds=time.perf_counter() - start)


def _called(first: Callable[..., object], second: Callable[..., object], inputs: Sequence[torch.Tensor]) -> str | None:
    """Where two functions differ, run in float64 on fresh inputs of the example's sizes; None if nowhere."""
    import torch

    held = any(isinstance(f, torch.nn.Module) for f in (first, second))
    if held or any(t.is_meta or t.numel() > MOST_CELLS for t in inputs):
        return None
    for seed in range(TRIALS):
        random = torch.Generator().manual_seed(seed)
        drawn = [_like(t, random) for t in inputs]
        with torch.no_grad():
            sides = [f(*(t.clone() for t in drawn)) for f in (first, second)]
        pairs = zip(*(s if isinstance(s, tuple | list) else (s,) for s in sides), strict=True)
        for number, (a, b) in enumerate(pairs):
            if not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                return f"# result {number} differs for normal inputs of seed {seed}, in float64"
    return None


def _like(tensor: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    import torch

    if not tensor.is_floating_point():
        return tensor.cpu()
    return torch.randn(tensor.shape, generator=random, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ decision


def decide(pair: Pair, sizes: Mapping[str, int]) -> Verdict:
    """The verdict on one pair of results.

    Proved for all extents where that is possible, else for the static extents of the example. Refuted with numbers,
    and only if the two differ at the extents of the example as well: what is wrong at other sizes may be right here.
    """
    sides = pair.first, pair.second
    if pair.first is pair.second:
        return _answer(pair, sides, Status.PROVED, "the functions are the same expression")
    # Numbers tell most functions apart sooner than their normal forms do; what they show is looked at below.
    alike = not _seen_to_differ(sides, sizes)
    proof = compare(*sides) if alike else Comparison(False, True, "numbers differ")
    if proof.equal:
        return _answer(pair, sides, Status.PROVED, "the functions are equal", proof.facts)
    other = _at_static_extents(pair) if alike else None
    if other is not None:
        return other
    reason = f"the functions were not proved equal: {proof.reason}"
    try:
        witness = numerically_equal(*sides)
    except UnsupportedOperator as problem:
        witness = None
        reason += f"; not evaluated: {problem}"
    if witness is not None:
        found = _at_the_example(sides, str(witness), sizes)
        if found.counterexample is not None:
            return _answer(pair, sides, Status.REFUTED, found.reason, counterexample=found.counterexample)
        reason = found.reason
    if not alike:  # rounding may have misled: ask the normal forms after all
        proof = compare(*sides)
        if proof.equal:
            return _answer(pair, sides, Status.PROVED, "the functions are equal", proof.facts)
        other = _at_static_extents(pair)
        reason = f"the functions were not proved equal: {proof.reason}; {reason}"
    return other if other is not None else _answer(pair, sides, Status.UNKNOWN, reason)


def _seen_to_differ(sides: tuple[Expr, Expr], sizes: Mapping[str, int]) -> bool:
    """Whether one draw, at extents that stand for those of the example, tells the two apart in double precision."""
    slices = _slices(sides, sizes, pointwise=1)
    if _largest(sides, slices) > FEW_CELLS:
        return False
    try:
        return _difference(sides, sizes, slices, trials=1) is not None
    except UnsupportedOperator:
        return False


def _at_static_extents(pair: Pair) -> Verdict | None:
    """A proof with the extents of the example as numbers."""
    forms = with_static_extents(pair.first), with_static_extents(pair.second)
    if forms == (pair.first, pair.second):
        return None
    proof = compare(*forms)
    if not proof.equal:
        return None
    facts = (_extents_used((pair.first, pair.second)), *proof.facts)
    return _answer(pair, forms, Status.PROVED, "the functions are equal at these extents", facts)


def _answer(
    pair: Pair,
    sides: tuple[Expr, Expr],
    status: Status,
    reason: str,
    facts: tuple[str, ...] = (),
    counterexample: str | None = None,
) -> Verdict:
    obligation = Obligation(pair.name, *sides, status)
    return Verdict(status, f"{pair.name}: {reason}", facts, counterexample, obligations=(obligation,))


def _together(parts: Sequence[Verdict], facts: tuple[str, ...]) -> Verdict:
    """The verdict on all results: one that differs speaks before one that is not known."""
    together = (*facts, *(f for p in parts for f in p.facts))
    obligations = tuple(o for p in parts for o in p.obligations)
    for status in (Status.REFUTED, Status.UNKNOWN):
        for part in parts:
            if part.status is status:
                return replace(part, facts=tuple(dict.fromkeys(together)), obligations=obligations)
    reason = parts[0].reason if len(parts) == 1 else f"all {len(parts)} results are equal"
    return Verdict(Status.PROVED, reason, tuple(dict.fromkeys(together)), obligations=obligations)


def with_static_extents(e: Expr) -> Expr:
    """The expression with static extents as numbers, those that sums of a constant stand for included.

    ``sum(k, 1)`` and ``extent(k)`` both become 4096 where that is the extent of ``k``: equal at that extent only.
    Of a sum, the factors and the terms that do not vary over its axis are taken out.
    """
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        operands = tuple(done[a] for a in node.args)
        static = node.axis.extent if isinstance(node.attr, Axis) else None
        if node.op is Op.EXTENT and isinstance(static, int):
            done[node] = const(static)
        elif node.op is Op.SUM and isinstance(static, int):
            done[node] = _summed(node.axis, static, operands[0])
        else:
            done[node] = make(node.op, operands, node.attr) if operands else node
    return done[e]


def _summed(axis: Axis, extent: int, e: Expr) -> Expr:
    """The sum over an axis of at least two indices, without what does not vary over it."""
    if axis not in e.free:
        return const(extent) * e
    if not e.finite:
        return sum_over(axis, e)
    outside = [f for f in factors(e) if axis not in f.free]
    terms = [product(f for f in factors(e) if axis in f.free)]
    while any(t.op is Op.ADD for t in terms):
        terms = [part for t in terms for part in (t.args if t.op is Op.ADD else (t,))]
    fixed = [const(extent) * t if axis not in t.free else sum_over(axis, t) for t in terms]
    return product([*outside, reduce(add, fixed)])


def _extents_used(sides: tuple[Expr, Expr]) -> str:
    axes = ordered({n.axis.base for n in walk(sides) if isinstance(n.attr, Axis) and isinstance(n.axis.extent, int)})
    return f"the extents are those of the example: {', '.join(f'{a} = {a.extent}' for a in axes)}"


# ------------------------------------------------------------------------------------- counterexamples


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of a difference at small extents."""

    reason: str
    counterexample: str | None = None
    """None where it was not seen at the extents of the example."""


def _at_the_example(sides: tuple[Expr, Expr], shown: str, sizes: Mapping[str, int]) -> _Found:
    """A refutation by small numbers, confirmed at the extents of the example where those are larger."""
    # An expression is pointwise in an axis that it neither reduces nor counts: one index refutes all extents.
    kept = {n.axis.name: n.axis.extent for n in walk(sides) if isinstance(n.attr, Axis)}
    if all(_drawn_as_it_is(extent) for extent in kept.values()):
        return _Found("the functions differ", shown)
    slices = _slices(sides, sizes)
    if _largest(sides, slices) > MOST_CELLS:
        return _Found("they differ at other extents, and those of the example are too large to look")
    difference = _difference(sides, sizes, _slices(sides, sizes, pointwise=1)) or _difference(sides, sizes, slices)
    if difference is None:
        return _Found("they differ at other extents, no difference was seen at those of the example")
    return _Found("the functions differ", f"{shown}\n{difference}")


def _drawn_as_it_is(extent: Extent) -> bool:
    """Whether the search for small numbers draws only extents that the axis can have."""
    return extent <= SMALL if isinstance(extent, int) else extent.low <= SMALL and extent.divisor == 1


def _slices(sides: tuple[Expr, Expr], sizes: Mapping[str, int], pointwise: int = SMALL) -> dict[str, int]:
    """How many indices of each axis differ: few, of which the last stands for all further ones, but where positions
    matter all of them.
    """
    reduced = {n.axis.name for n in walk(sides) if n.op in REDUCTIONS}
    positions = _positions(sides)
    slices: dict[str, int] = {}
    for name, n in sorted(sizes.items()):
        # Of an axis that is not reduced the first positions are enough: the value is pointwise in it.
        few = SLICES if name in positions | reduced else pointwise
        slices[name] = n if name in positions & reduced else min(n, few)
    return slices


def _positions(sides: tuple[Expr, Expr]) -> set[str]:
    """Names of the axes whose positions matter."""
    return {n.axis.name for n in walk(sides) if n.op is Op.INDEX}


def _largest(sides: tuple[Expr, Expr], sizes: Mapping[str, int]) -> int:
    """Elements of the largest tensor that evaluating both sides may form."""
    return max(prod(sizes[a.name] for a in node.free) for node in walk(sides))


def _weighted(e: Expr, sizes: Mapping[str, int], slices: Mapping[str, int]) -> Expr:
    """The value at extents ``sizes`` for tensors that repeat the last of few slices: sums count how often."""
    done: dict[Expr, Expr] = {}
    for node in walk([e]):
        operands = tuple(done[a] for a in node.args)
        name = node.axis.name if isinstance(node.attr, Axis) else ""
        if node.op is Op.EXTENT:
            done[node] = const(sizes[name])
        elif node.op is Op.SUM and slices[name] < sizes[name]:
            done[node] = sum_over(node.axis, leaf(f"{REPEATED}{name}", [node.axis]) * operands[0])
        else:
            done[node] = make(node.op, operands, node.attr) if operands else node
    return done[e]


def _difference(
    sides: tuple[Expr, Expr], sizes: Mapping[str, int], slices: Mapping[str, int], trials: int = TRIALS
) -> str | None:
    """Where the two differ at the extents ``sizes``, with the recipe for the numbers; None if it is not seen."""
    axes = ordered(sides[0].free | sides[1].free)
    weighted = _weighted(sides[0], sizes, slices), _weighted(sides[1], sizes, slices)
    first = _positions(sides)
    repeated = {x: [1] * (n - 1) + [1 if x in first else sizes[x] - n + 1] for x, n in slices.items()}
    counts = {f"{REPEATED}{name}": np.array(r, dtype=np.float64) for name, r in repeated.items()}
    read = {x.name: x for x in leaves(sides)}
    bounds = constants(sides)
    for trial in range(trials):
        random = np.random.default_rng([1, trial])
        scale = bounds[trial // 2 % len(bounds)] if trial % 4 == 2 else 1.0
        draws = {name: _draw(x, slices, random, whole=trial % 2 == 1) * scale for name, x in read.items()}
        left, right = np.broadcast_arrays(*(evaluate(e, draws | counts, slices).ordered(axes) for e in weighted))
        found = _different(left, right)
        if found is not None:
            a, b = float(left[found]), float(right[found])
            place = {str(x): i for x, i in zip(axes, found, strict=True)}
            lines = [f"# and at the extents of the example, left is {a!r}, right is {b!r} at {place}, for"]
            lines.append(f"#   random = numpy.random.default_rng([1, {trial}])")
            times = f"{scale!r} * " if scale != 1 else ""
            lines += [f"#   {name} = {times}{_recipe(x, draws[name], repeated, trial)}" for name, x in read.items()]
            lines += [
                f"#   and anything beyond index {slices[x] - 1} of {x}" for x in sorted(first) if slices[x] < sizes[x]
            ]
            return "\n".join(lines)
    return None


def _recipe(x: Expr, data: Array, repeated: Mapping[str, Sequence[int]], trial: int) -> str:
    text = f"random.{'integers(-2, 3, ' if trial % 2 else 'standard_normal('}{data.shape})"
    for place, axis in enumerate(x.axes):
        counts = list(repeated[axis.name])
        if any(n > 1 for n in counts):
            text += f".repeat({counts}, axis={place})"
    return text


def _draw(x: Expr, sizes: Mapping[str, int], random: np.random.Generator, *, whole: bool) -> Array:
    shape = tuple(sizes[a.name] for a in x.axes)
    return random.integers(-2, 3, shape).astype(np.float64) if whole else random.standard_normal(shape)


def _different(a: Array, b: Array) -> tuple[int, ...] | None:
    """The first index at which ``a`` is a number and ``b`` is undefined or clearly another number."""
    with np.errstate(all="ignore"):
        other = np.isnan(b) | (np.isfinite(b) & (np.abs(a - b) > TOLERANCE * (1 + np.abs(a))))
    places = np.argwhere(np.isfinite(a) & other)
    return tuple(int(i) for i in places[0]) if len(places) else None
