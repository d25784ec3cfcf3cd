"""One operator call as its meaning sees it, and the table from operator names to meanings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn, cast

from prism.frontend.axes import Axes
from prism.frontend.literals import literal
from prism.frontend.trace import Node, Product, Ref
from prism.frontend.values import Tensorial, Value, scalar
from sgraph.errors import UnsupportedOperator, UnsupportedProgram
from sgraph.expr import Expr, neg_inf
from sgraph.program import DType

Results = tuple[Tensorial | None, ...]
"""What an operator returns; None where the language has no meaning for a result (indices of a maximum)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operator with its operands."""

    node: Node
    axes: Axes
    values: Mapping[str, Results]
    """Results of earlier nodes."""
    facts: dict[str, None]
    """What capture assumed so far, in order."""

    def has(self, name: str) -> bool:
        """Whether an argument is given and not None."""
        return self.node.arguments.get(name) is not None

    @property
    def boolean(self) -> bool:
        """Whether the result is a Boolean tensor."""
        meta = self.node.results[0]
        return meta is not None and meta.dtype == DType.BOOL

    def tensor(self, name: str, *, may_be_infinite: bool = False) -> Tensorial:
        """An argument as numbers: a tensor, a size, or a Python number."""
        argument = self.node.arguments[name]
        if isinstance(argument, Ref):
            return self.reference(argument).numeric()
        return scalar(self.number(name, may_be_infinite=may_be_infinite))

    def stored(self, name: str) -> Tensorial:
        """An argument that is a tensor, as it is: numbers or conditions."""
        argument = self.node.arguments[name]
        assert isinstance(argument, Ref)
        return self.reference(argument)

    def stored_list(self, name: str) -> list[Tensorial]:
        """An argument that is a list of tensors, as they are."""
        return [self.reference(r) for r in cast("tuple[Ref, ...]", self.node.arguments[name])]

    def optional(self, name: str) -> Tensorial | None:
        """An argument that may be left out."""
        return self.tensor(name) if self.has(name) else None

    def condition(self, name: str) -> Tensorial:
        """An argument that is a Boolean tensor."""
        argument = self.node.arguments[name]
        value = self.reference(argument) if isinstance(argument, Ref) else None
        if value is None or not value.boolean:
            self.refuse(f"its `{name}` is no Boolean tensor")
        return value

    def reference(self, reference: Ref, position: int = 0) -> Tensorial:
        """A result of an earlier node."""
        results = self.values[reference.name]
        value = results[position] if position < len(results) else None
        if value is None:
            self.refuse("it uses indices or other results that are not numbers over axes")
        return value

    def number(self, name: str, *, may_be_infinite: bool = False) -> Expr:
        """A Python number as an exact constant."""
        value = self.node.arguments[name]
        if isinstance(value, Ref):
            found = self.reference(value).numeric()
            if not isinstance(found, Value) or found.dims:
                self.refuse(f"its `{name}` is a tensor")
            return found.expr
        if not isinstance(value, int | float):
            self.refuse(f"its `{name}` is {value!r}")
        if not math.isfinite(value):
            if may_be_infinite and value == -math.inf:
                return neg_inf()
            raise UnsupportedProgram(
                f"{self.node.operator} uses the number {value}",
                where=self.node.line,
                do="minus infinity is understood as a branch of torch.where and in masked_fill, other infinities and "
                "NaN not at all",
            )
        expr, fact = literal(value)
        if fact:
            self.facts[fact] = None
        return expr

    def rational(self, name: str) -> Fraction:
        """A Python number that must be known now, as the rational of its decimal."""
        value = self.node.arguments[name]
        if not isinstance(value, int | float) or not math.isfinite(value):
            self.refuse(f"its `{name}` is {value if not isinstance(value, Ref) else 'computed'}")
        return Fraction(str(value)) if isinstance(value, float) else Fraction(value)

    def flag(self, name: str) -> bool:
        """A Boolean argument; False if the operator has no such argument."""
        return bool(self.node.arguments.get(name, False))

    def dimensions(self, name: str, rank: int) -> tuple[int, ...]:
        """Dimension numbers, counted from the left; all of them if the argument is missing, None or empty."""
        value = self.node.arguments.get(name)
        numbers = (value,) if isinstance(value, int) else cast("tuple[int, ...]", value or tuple(range(rank)))
        return tuple(n % rank if rank else 0 for n in numbers)

    def place(self, name: str, rank: int) -> int:
        """One dimension number, counted from the left."""
        value = self.node.arguments[name]
        assert isinstance(value, int)
        return value % rank if rank else 0

    def shape(self, position: int = 0) -> tuple[Product, ...]:
        """The sizes of a result.

        Raises:
            UnsupportedProgram: one of them is no product of symbolic sizes.
        """
        meta = self.node.results[position]
        assert meta is not None
        for size in meta.shape:
            if isinstance(size, str):
                raise UnsupportedProgram(
                    f"{self.node.operator} makes a dimension of size {size}",
                    where=self.node.line,
                    do="fix the symbolic sizes in it to numbers, or split the axis outside the captured function",
                )
        return cast("tuple[Product, ...]", meta.shape)

    def refuse(self, reason: str) -> NoReturn:
        """Give up on this operator.

        Raises:
            UnsupportedOperator: always.
        """
        raise unsupported(self.node, reason)


def unsupported(node: Node, reason: str) -> UnsupportedOperator:
    """The error for an operator without a meaning here."""
    return UnsupportedOperator(
        f"the operator {node.operator} is not supported{': ' + reason if reason else ''}",
        where=node.line,
        do="write this line with other operators, or leave it outside the function that is optimised",
    )


Meaning = Callable[[Call], Tensorial | Results]

MEANINGS: dict[str, Meaning] = {}
"""By operator name without overload: ``softmax`` for ``aten.softmax.int``; ``python.mul`` for Python functions."""


def meaning(*names: str) -> Callable[[Meaning], Meaning]:
    """Register what the operators of these names mean."""

    def register(function: Meaning) -> Meaning:
        for name in names:
            assert name not in MEANINGS, f"{name} has two meanings"
            MEANINGS[name] = function
        return function

    return register


def find(node: Node) -> Meaning:
    """The meaning of a node's operator.

    Raises:
        UnsupportedOperator: it has none.
    """
    name = node.operator.split(".")[1] if node.operator.startswith("aten.") else node.operator
    if name not in MEANINGS:
        raise unsupported(node, "")
    return MEANINGS[name]
