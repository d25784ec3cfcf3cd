"""A captured function as straight-line code: plain data, without torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from sgraph.axis import Extent, Size
from sgraph.program import DType

REAL = frozenset({DType.BF16, DType.FP16, DType.FP32, DType.FP64})
"""Element types of outputs and of most inputs."""

EXACT = frozenset({DType.INT32, DType.INT64, DType.BOOL})
"""Element types of lengths, positions and masks among the inputs: exact numbers, which nothing rounds."""

SIZE = "size"
"""The element type of a number computed from sizes."""


@dataclass(frozen=True, slots=True)
class Product:
    """The size of a dimension: a product of extents, as views make it when they merge dimensions."""

    number: int
    """Product of the numbers."""
    sizes: tuple[Size, ...] = ()
    """Symbolic factors, by name."""

    @staticmethod
    def of(extents: Iterable[Extent]) -> Product:
        """The product of some extents."""
        number, sizes = 1, list[Size]()
        for extent in extents:
            if isinstance(extent, int):
                number *= extent
            else:
                sizes.append(extent)
        return Product(number, tuple(sorted(sizes, key=lambda size: size.name)))

    def over(self, extent: Extent) -> Product | None:
        """This size divided by an extent; None where that leaves no product of extents."""
        if isinstance(extent, int):
            return Product(self.number // extent, self.sizes) if self.number % extent == 0 else None
        if extent not in self.sizes:
            return None
        place = self.sizes.index(extent)
        return Product(self.number, self.sizes[:place] + self.sizes[place + 1 :])

    @property
    def extent(self) -> Extent | None:
        """The size as one extent; None for a product of several."""
        if not self.sizes:
            return self.number
        return self.sizes[0] if self.number == 1 and len(self.sizes) == 1 else None

    @property
    def smallest(self) -> int:
        """The smallest value it can take."""
        return self.number * math.prod(size.low for size in self.sizes)

    def __str__(self) -> str:
        numbers = [str(self.number)] if self.number != 1 or not self.sizes else []
        return "*".join([*numbers, *(size.name for size in self.sizes)])


ONE = Product(1)
"""The size of a dimension without an axis."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of an earlier node, or a placeholder."""

    name: str


@dataclass(frozen=True, slots=True)
class Meta:
    """What torch says a result looks like."""

    shape: tuple[Product | str, ...]
    """Sizes; text where one is not a product of symbolic sizes, such as ``M + 1``."""
    dtype: str
    """Torch's name for the element type; ``size`` for a number computed from sizes."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call."""

    name: str
    operator: str
    """``aten.softmax.int``, or ``python.mul`` for arithmetic on sizes."""
    arguments: Mapping[str, object]
    """By the names of the operator's schema, defaults filled in; positions for Python functions."""
    results: tuple[Meta | None, ...]
    """One for each tensor it returns."""
    line: str
    """The user's source line, ``file:line: code``."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A tensor that comes from outside."""

    name: str
    parameter: str
    meta: Meta
    constant: bool
    finite: bool = True
    """False where it may hold minus infinity."""
    literal: Fraction | None = None
    """The value of a tensor literal such as ``torch.tensor(2.0)``; it is no input."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A function as straight-line code."""

    name: str
    source: str
    placeholders: tuple[Placeholder, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Ref, ...]


def fingerprint(trace: Trace) -> str:
    """A hash of the operators and their types; not of where they stand, and not of the contents of tensors."""
    text = hashlib.blake2b(digest_size=16)
    for p in trace.placeholders:
        text.update(repr((p.parameter, p.meta, p.constant, p.finite, p.literal)).encode())
    for node in trace.nodes:
        text.update(repr((node.name, node.operator, sorted(node.arguments.items()), node.results)).encode())
    text.update(repr(trace.outputs).encode())
    return text.hexdigest()
