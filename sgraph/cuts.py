"""Cuts: which classes of the table a plan may store between kernels, and in which order sets of them are tried.

A stored class is an intermediate, which costs a launch and traffic at every call, or a fold: a class that depends on
constant inputs alone (``g*W``, ``W + A@B``), stored once and read like an input.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sgraph.axis import Axis
from sgraph.bounds import tensor_bytes
from sgraph.dags import elements
from sgraph.expr import CONDITIONS, REDUCTIONS, leaves, walk
from sgraph.program import Program, Tensor
from sgraph.scaled import carries_scale
from sgraph.table import Table
from sgraph.target import Target
from sgraph.view import View


@dataclass(frozen=True, slots=True)
class CutSet:
    """Classes that a plan stores."""

    stored: tuple[int, ...]
    """Intermediates, in order of their numbers."""
    folds: tuple[int, ...]
    """Classes of constant inputs alone, in order of their numbers."""
    bound_s: float
    """What storing and reading the intermediates costs at least, launches included."""
    cached_s: float
    """Seconds of traffic to the last-level cache: only for order."""


class Cuts:
    """The sets of stored classes of one program, cheapest first."""

    def __init__(
        self,
        program: Program,
        view: View,
        reachable: tuple[int, ...],
        tensor_of: Callable[[int], Tensor],
        target: Target,
        sizes: Mapping[Axis, int],
    ) -> None:
        self.program = program
        self.table: Table = view.table
        self.dropped: Counter[str] = Counter()
        """Classes that a limit keeps from being stored, by reason."""
        self._view = view
        self._reachable = reachable
        self._tensor = tensor_of
        self._target = target
        self._sizes = sizes
        self._users = self._all_users()
        self._constant = frozenset(t.name for t in program.inputs if t.constant)

    def sets(
        self, stored: int, folds: int, views: Callable[[int], Mapping[int, object]]
    ) -> tuple[int, Iterator[CutSet]]:
        """How many sets there are, and the sets, cheapest first, made only as they are asked for.

        Args:
            stored: intermediates of one set at most.
            folds: folds of one set at most.
            views: the classes that are a class under copies of its axes, itself included.
        """
        found = self.candidates(views)
        kept = sorted((c for c in found if not self.folds(c)), key=lambda c: (self._costs(c), c))
        folded = [c for c in found if self.folds(c)]
        choices = [s for n in range(min(folds, len(folded)) + 1) for s in itertools.combinations(folded, n)]
        most = min(stored, len(kept))
        count = len(choices) * sum(math.comb(len(kept), n) for n in range(most + 1))
        return count, self._enumerated(kept, most, choices)

    def _enumerated(self, kept: list[int], most: int, choices: list[tuple[int, ...]]) -> Iterator[CutSet]:
        costs = [self._costs(c) for c in kept]

        def entry(chosen: tuple[int, ...]) -> tuple[float, float, tuple[int, ...]]:
            return sum(costs[i][0] for i in chosen), sum(costs[i][1] for i in chosen), chosen

        heap = [entry(())]
        while heap:
            bound_s, cached_s, chosen = heapq.heappop(heap)
            for folds in choices:
                yield CutSet(tuple(sorted(kept[i] for i in chosen)), folds, bound_s, cached_s)
            following = chosen[-1] + 1 if chosen else 0
            if following == len(kept):
                continue
            if len(chosen) < most:
                heapq.heappush(heap, entry((*chosen, following)))
            if chosen:
                heapq.heappush(heap, entry((*chosen[:-1], following)))

    def _costs(self, cls: int) -> tuple[float, float]:
        """Seconds that storing a class and reading it again costs at least; and seconds of cache traffic."""
        moved = tensor_bytes(self._tensor(cls), self._sizes)
        spilled = max(0, moved - self._target.l2_bytes)
        bound_s = self._target.launch_s + 2 * spilled / self._target.dram_bytes_per_s
        return bound_s, 2 * moved / self._target.l2_bytes_per_s

    def candidates(self, views: Callable[[int], Mapping[int, object]]) -> tuple[int, ...]:
        """Classes worth storing: folds, and reductions below the outputs; no larger than the program's tensors."""
        reasons = {cls: self._unstorable(cls) for cls in self._reachable if not self._given(cls)}
        self.dropped.update(reason for reason in reasons.values() if reason)
        found = [c for c, reason in reasons.items() if not reason and self._chain_end(c, reasons)]
        kept: dict[int, None] = {}
        copies: set[int] = set()
        # Of classes that are one tensor under copies of its axes, the one with the plainest axes is stored.
        for cls in sorted(found, key=lambda c: (sum(a.copy for a in self.table.free(c)), c)):
            if cls not in copies:
                kept[cls] = None
                copies.update(views(cls))
        return tuple(kept)

    def folds(self, cls: int) -> bool:
        """Whether a class depends on constant inputs alone: stored once, it costs nothing per call."""
        names = {x.name for x in leaves([self.table.representative(cls)])}
        return bool(names) and names <= self._constant

    def _given(self, cls: int) -> bool:
        """Whether a class is in memory in every plan: an input, a constant, an output."""
        return self._view.terminal(cls) or cls in self.table.roots

    def _unstorable(self, cls: int) -> str:
        """The limit that keeps a class from being stored; empty if there is none."""
        value = self.table.representative(cls)
        tensors = (*self.program.inputs, *(o.tensor for o in self.program.outputs))
        if not self.folds(cls) and not any(n.op in REDUCTIONS for n in walk([value])):
            return "limit: intermediate without a reduction"
        if elements(self.table.free(cls), self._sizes) > max(elements(t.named_axes, self._sizes) for t in tensors):
            return "limit: intermediate larger than every input and output"
        if value.op in CONDITIONS:
            return "limit: truth value stored between kernels"
        return "limit: scaled value stored between kernels" if carries_scale(value) else ""

    def _chain_end(self, cls: int, reasons: Mapping[int, str]) -> bool:
        """Whether storing a class is more than storing the one that all its users compute from it.

        Where its only user applies a unary operator or a constant, that one is as large, can be stored too (or is
        an output) and saves work.
        """
        users = self._users.get(cls, ())
        only = {user for user, _ in users}
        if len(only) != 1 or not all(self._view.constant(o) for _, others in users for o in others):
            return bool(only)
        (user,) = only
        same = self.table.free(user) == self.table.free(cls)
        return not same or bool(reasons.get(user, ""))

    def _all_users(self) -> Mapping[int, list[tuple[int, tuple[int, ...]]]]:
        """For each class, the classes computed from it and the other operands."""
        users: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        for user in self._reachable:
            for node in self.table.nodes(user):
                for i, argument in enumerate(node.args):
                    if argument != user:
                        others = node.args[:i] + node.args[i + 1 :]
                        users.setdefault(argument, []).append((user, others))
        return users
