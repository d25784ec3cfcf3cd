"""What the generator needs of a rewrite table: the classes of equal values, read as an AND-OR graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sgraph.axis import Axis
from sgraph.expr import Attr, Expr, Op


class TableNode(Protocol):
    """One way to compute a class: an operator over operand classes."""

    @property
    def op(self) -> Op:
        """Operator."""
        ...

    @property
    def attr(self) -> Attr:
        """As in ``Expr.attr``."""
        ...

    @property
    def args(self) -> tuple[int, ...]:
        """Operand classes."""
        ...


class Table(Protocol):
    """A saturated set of classes. ``rewrites`` builds it; the generator only reads it."""

    @property
    def roots(self) -> Sequence[int]:
        """The class of each value that was saturated, in order."""
        ...

    def nodes(self, cls: int, /) -> Sequence[TableNode]:
        """Every known way to compute a class."""
        ...

    def free(self, cls: int, /) -> frozenset[Axis]:
        """The axes that the class's value depends on."""
        ...

    def representative(self, cls: int, /) -> Expr:
        """One expression of the class, the smallest."""
        ...

    def lookup(self, value: Expr, /) -> int | None:
        """The class of an expression, None if the table does not hold it."""
        ...
