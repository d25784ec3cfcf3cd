"""Schedules: a kernel with its stages spelled out, as lowering prints it and as verification denotes it.

A schedule follows from a kernel and its roles (``sgraph.stages``). It names values by the expressions they
carry: a statement makes the value of one expression available, one tile of it, to the statements after it in
the same loop body and in loops nested there. Products are not statements; they are formed where used.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgraph.axis import Axis
from sgraph.expr import Expr
from sgraph.ir import Kernel
from sgraph.program import Tensor


@dataclass(frozen=True, slots=True)
class Load:
    """Read one tile of a tensor."""

    value: Expr
    """The leaf."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute one tile of a pointwise value from available ones."""

    value: Expr
    """Neither leaf, product nor reduction."""


@dataclass(frozen=True, slots=True)
class Reduce:
    """Reduce a value over axes that are entirely resident."""

    value: Expr
    """A chain of ``sum``, ``max`` or ``min`` over axes with role whole."""


@dataclass(frozen=True, slots=True)
class Accumulate:
    """Reduce one tile and add it to (or take the maximum with) running values.

    Without a scale there is one value, a chain of like reductions. With a scale (a scaled value, design 4) the
    scale is a maximum ``max(S, e)``, every value is a sum over the same axes ``S`` whose operand has the factor
    ``exp(e - scale)``, and one step is: ``new = max(scale, tile max of e)``; each value becomes
    ``value * exp(scale - new) + tile sum with exp(e - new)``; ``scale = new``.
    """

    values: tuple[Expr, ...]
    """The accumulated reductions."""
    scale: Expr | None = None
    """The running maximum that the values are relative to."""

    @property
    def state(self) -> tuple[Expr, ...]:
        """Everything it carries from one step to the next."""
        return self.values if self.scale is None else (self.scale, *self.values)


@dataclass(frozen=True, slots=True)
class Loop:
    """Iterate over the tiles of an axis, in order."""

    axis: Axis
    """The axis; of a split axis, the tiles of this program's chunk."""
    start: tuple[Expr, ...]
    """Accumulators that are set to their unit before the first step: 0, or minus infinity for maxima."""
    body: tuple[Statement, ...]
    """One step."""


@dataclass(frozen=True, slots=True)
class Merge:
    """In a combine phase: finish accumulators from the partial ones of every cell of the split axis."""

    values: tuple[Expr, ...]
    """As in ``Accumulate``."""
    scale: Expr | None = None
    """As in ``Accumulate``."""

    @property
    def state(self) -> tuple[Expr, ...]:
        """Everything that is merged."""
        return self.values if self.scale is None else (self.scale, *self.values)


@dataclass(frozen=True, slots=True)
class Write:
    """Store one tile of a tensor."""

    tensor: Tensor
    """Where it goes."""
    value: Expr
    """What; a product of available values."""


@dataclass(frozen=True, slots=True)
class WritePartial:
    """In the main phase of a split kernel: store an accumulator's partial value to this cell's workspace."""

    value: Expr
    """The accumulator."""


Statement = Load | Compute | Reduce | Accumulate | Loop | Merge | Write | WritePartial


@dataclass(frozen=True, slots=True)
class Phase:
    """One device kernel."""

    name: str
    """``main`` or ``combine``."""
    grid: tuple[Axis, ...]
    """Axes with one program per tile."""
    split: Axis | None
    """The axis whose cells are a further grid dimension (main), or are merged (combine)."""
    body: tuple[Statement, ...]
    """What one program does."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A kernel's phases: one, or main and combine where an axis is split."""

    kernel: Kernel
    """Where it comes from."""
    phases: tuple[Phase, ...]
    """In order."""
