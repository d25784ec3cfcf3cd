"""Named axes: what every tensor value, role and loop in Prism is indexed by.

An axis is a name and an extent. Two axes are the same because data flows between them, never because
their extents happen to be equal. A value may be read under several copies of one axis (``h[i]`` and ``h[j]``
in self-attention): copies share name and extent and differ in ``copy``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["", "cell", "step", "lane"]
"""The atoms of a tile split: ``cell`` (which program), ``step`` (which iteration), ``lane`` (inside a tile)."""


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """An extent that is known only at call time, with what is known about it before."""

    name: str
    """Name of the symbol, such as ``M``."""
    low: int = 1
    """Smallest value it can take."""
    high: int = 2**31 - 1
    """Largest value it can take."""
    divisor: int = 1
    """It is a multiple of this number."""

    def __post_init__(self) -> None:
        assert 0 <= self.low <= self.high and self.divisor >= 1

    def __str__(self) -> str:
        return self.name


Extent = int | Size


def divides(number: int, extent: Extent) -> bool:
    """Whether ``number`` is known to divide ``extent``."""
    return (extent if isinstance(extent, int) else extent.divisor) % number == 0


def smallest(extent: Extent) -> int:
    """The smallest value an extent can take."""
    return extent if isinstance(extent, int) else extent.low


def largest(extent: Extent) -> int:
    """The largest value an extent can take."""
    return extent if isinstance(extent, int) else extent.high


@dataclass(frozen=True, slots=True)
class Axis:
    """A named index set ``0 .. extent-1``."""

    name: str
    """The axis's identity; one name has one extent in a program."""
    extent: Extent
    """How many indices it has."""
    copy: int = 0
    """Which renaming of the axis this is; 0 is the axis itself."""
    level: Level = ""
    """Empty for a complete axis, else the atom of its tile split (used by the verifier only)."""

    @property
    def base(self) -> Axis:
        """The complete axis, copy 0: what decides the extent and, in lowering, the loop or grid level."""
        return self if not self.copy and not self.level else Axis(self.name, self.extent)

    @property
    def key(self) -> tuple[str, int, str]:
        """Sort key; axis order is never taken from hashing."""
        return (self.name, self.copy, self.level)

    def renamed(self, copy: int) -> Axis:
        """The same axis under another copy number."""
        return replace(self, copy=copy)

    def atom(self, level: Level) -> Axis:
        """One atom of the axis's tile split."""
        return replace(self, level=level)

    def __str__(self) -> str:
        name = self.name if not self.copy else f"{self.name}#{self.copy}"
        return f"{name}.{self.level}" if self.level else name

    def __lt__(self, other: Axis) -> bool:
        return self.key < other.key


def ordered(axes: frozenset[Axis] | set[Axis]) -> tuple[Axis, ...]:
    """The axes of a set in their canonical order."""
    return tuple(sorted(axes))
