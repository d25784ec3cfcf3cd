"""Identifiers of an emitted file: one for each axis and tensor, unique ones for values."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from typing import Final

from sgraph.axis import Axis
from sgraph.expr import Expr, Op, factors, reduction
from sgraph.ir import SGraph

RESERVED: Final = frozenset(
    {*dir(builtins), "torch", "triton", "tl", "launch", "launch_views", "fold", "config", "sizes", "device", "tuned"}
    | {"pid", "cell", "steps", "band", "rows", "tile", "SPLIT", "GROUP", "STAGES", "PRECISION"}
    | {
        "CONFIG",
        "DTYPES",
        "SHAPES",
        "SYMBOLS",
        "WIDE",
        "TAKES",
        "_sizes",
        "_check_taken",
        "_check_span",
        "_configuration",
    }
)
"""Names that the emitted text uses for itself."""
HINTS: Final = {
    Op.ADD: "total",
    Op.RECIP: "inv",
    Op.SQRT: "root",
    Op.EXP: "exp",
    Op.LOG: "log",
    Op.MAX2: "larger",
    Op.MIN2: "smaller",
    Op.LT: "below",
    Op.LE: "below",
    Op.EQ: "same",
    Op.WHERE: "picked",
}
"""What a computed value is called, before its axes."""
MAX_HINT: Final = 24
"""Longest name that is put together from the names of tensors."""


def identifier(text: str) -> str:
    """``text`` as a Python identifier."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    if not name or name[0].isdigit():
        name = f"v{name}"
    return f"{name}_" if keyword.iskeyword(name) or keyword.issoftkeyword(name) else name


class Names:
    """Hands out identifiers, each once."""

    def __init__(self, taken: Iterable[str] = RESERVED) -> None:
        self._taken = set(taken)

    def fresh(self, wanted: str) -> str:
        """``wanted`` as an identifier, with a number behind it if it is taken."""
        base = name = identifier(wanted)
        number = 2
        while name in self._taken:
            name = f"{base}_{number}"
            number += 1
        self._taken.add(name)
        return name

    def copy(self) -> Names:
        """The same names taken, independently from here on."""
        return Names(self._taken)


class FileNames:
    """The names that all functions of one file share."""

    def __init__(self, graph: SGraph) -> None:
        self.names = Names()
        found = {a.base for k in graph.kernels for a in k.axes} | {a for k in graph.kernels for a in k.axes}
        tensors = (*graph.program.inputs, *(o.tensor for o in graph.program.outputs), *graph.intermediates)
        found |= {a for t in tensors for a in t.named_axes}
        stored = {s.tensor.name for k in graph.kernels for s in k.stores}
        self.token: dict[Axis, str] = {}
        self.size: dict[Axis, str] = {}
        self.tensor: dict[str, str] = {}
        tokens = Names(())
        for axis in sorted(found):
            token = tokens.fresh(str(axis).lower())
            self.token[axis] = token
            if axis == axis.base:
                self.size[axis] = self.names.fresh(token.upper())
            for part in ("offs", "mask", "pid", "tiles", "wide", "first", "last"):
                self.names.fresh(f"{part}_{token}")
            self.names.fresh(f"{token}0")
            self.names.fresh(f"BLOCK_{token.upper()}")
        for name in dict.fromkeys((*(t.name for t in tensors), *sorted(stored))):
            self.tensor[name] = self.names.fresh(name)

    def size_of(self, axis: Axis) -> str:
        """The variable that holds an axis's extent: ``K``."""
        return self.size[axis.base]

    def block(self, axis: Axis) -> str:
        """The constant that holds an axis's tile: ``BLOCK_K``."""
        return f"BLOCK_{self.token[axis].upper()}"

    def offsets(self, axis: Axis) -> str:
        """Positions along an axis of this tile: ``offs_k``."""
        return f"offs_{self.token[axis]}"

    def mask(self, axis: Axis) -> str:
        """Which of them exist: ``mask_k``."""
        return f"mask_{self.token[axis]}"

    def suffix(self, axes: Iterable[Axis]) -> str:
        """How a value's axes appear in its name: ``mk``, ``batch_head``."""
        tokens = [self.token[a] for a in axes]
        return ("" if all(len(t) == 1 for t in tokens) else "_").join(tokens)

    def value(self, value: Expr, dims: Iterable[Axis], *, dot: bool = False) -> str:
        """What to call a value: by its tensor if it is loaded, by its operator otherwise."""
        suffix = self.suffix(dims)
        return f"{self._stem(value, dot=dot)}_{suffix}" if suffix else self._stem(value, dot=dot)

    def _stem(self, value: Expr, *, dot: bool) -> str:
        match value.op:
            case Op.LEAF:
                return self.tensor[value.name]
            case Op.CALL:
                return value.name
            case Op.RECIP if value.args[0].op is Op.SQRT:
                return "rsqrt"
            case Op.SUM:
                read = [self.tensor[f.name] for f in factors(reduction(value)[1]) if f.op is Op.LEAF]
                stem = "_".join(["acc", *read[-1:]] if dot else ["sum", *read])
                return stem if len(stem) <= MAX_HINT else stem.split("_", 1)[0]
            case Op.MAX | Op.MIN:
                return value.op.value
            case _:
                return HINTS[value.op]
