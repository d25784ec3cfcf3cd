"""Refuses programs that compute with minus infinity what the language leaves undefined.

Of an undefined specification anything is a correct implementation, so that it must not be captured.
"""

from __future__ import annotations

from prism.frontend.trace import Node
from prism.frontend.values import Joined, Tensorial
from sgraph.errors import UnsupportedProgram
from sgraph.expr import CONDITIONS, Expr, Op

NAMES = {
    Op.MUL: "multiplies",
    Op.RECIP: "divides by",
    Op.SUM: "sums",
    Op.MIN: "takes the minimum of",
    Op.MIN2: "takes the minimum of",
    Op.SQRT: "takes the root of",
    Op.LOG: "takes the logarithm of",
    Op.CALL: "takes a function of",
    **dict.fromkeys(CONDITIONS, "compares"),
}


FINITE_THERE = frozenset({Op.RECIP, Op.MIN2, Op.CALL, *CONDITIONS})
"""Operators that torch gives a number for minus infinity, and the language nothing."""


class Masked:
    """Which expressions may be minus infinity where their tensors are used as meant."""

    def __init__(self) -> None:
        self._may_be: dict[Expr, bool] = {}
        self._hidden: dict[Expr, bool] = {}
        """Whether it may be minus infinity where a maximum sees masked elements alone. That is no use as meant: it may
        be subtracted, as a softmax does, which is undefined in torch too, and must not become a number."""

    def check(self, node: Node, value: Tensorial | None) -> None:
        """Look at what an operator has made.

        Raises:
            UnsupportedProgram: it uses an element that may be minus infinity where only finite ones are defined.
        """
        if value is None:
            return
        stack = [part.expr for part in (value.parts if isinstance(value, Joined) else (value,))]
        while stack:
            e = stack[-1]
            missing = [a for a in e.args if a not in self._may_be]
            if e not in self._may_be and missing:
                stack.extend(missing)
                continue
            stack.pop()
            if e not in self._may_be:
                self._may_be[e] = self._of(node, e)
                self._hidden[e] = self._may_be[e] or self._hides(node, e)

    def _of(self, node: Node, e: Expr) -> bool:
        masked = [self._may_be[a] for a in e.args]
        match e.op:
            case Op.LEAF | Op.NEG_INF:
                return not e.finite
            case Op.WHERE:
                return any(masked[1:])
            case Op.ADD:  # minus infinity absorbs, itself included
                return any(masked)
            case Op.EXP | Op.MAX:
                return False
            case Op.MAX2:
                return all(masked)
            case _ if any(masked):
                return _refuse(node, f"{NAMES[e.op]} a value that may be minus infinity")
            case _:
                return False

    def _hides(self, node: Node, e: Expr) -> bool:
        hidden = [self._hidden[a] for a in e.args]
        match e.op:
            case Op.MAX | Op.ADD:
                return any(hidden)
            case Op.WHERE:
                return any(hidden[1:])
            case Op.MAX2:
                return all(hidden)
            case op if op in FINITE_THERE and any(hidden):
                return _refuse(node, f"{NAMES[op]} a maximum of values that may all be minus infinity")
            case Op.MUL if any(hidden):
                factors = [a for a, h in zip(e.args, hidden, strict=True) if not h]
                if not any(f.op is Op.CONST and f.value < 0 for f in factors):
                    return _refuse(node, "multiplies a maximum of values that may all be minus infinity")
                return False
            case _:
                return False


def _refuse(node: Node, seen: str) -> bool:
    raise UnsupportedProgram(
        f"{node.operator} {seen}",
        where=node.line,
        do="scale before masking: what may be minus infinity can be added to, exponentiated, and compared by maximum",
    )
