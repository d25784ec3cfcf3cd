"""What a graph was divided into: regions that are optimised, and what is left to torch, with the reasons.

Plain data without torch; ``prism.partition`` makes it and ``prism.explanation`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sgraph.axis import Extent
from sgraph.program import Program


@dataclass(frozen=True, slots=True)
class Cut:
    """One operator that is left to torch although it computes something."""

    operator: str
    """Torch's name for it."""
    node: str
    """Its node in the graph."""
    line: str
    """The user's source line, ``file:line: code``; empty if torch does not know it."""
    reason: str
    """Why it is left to torch."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a graph that is searched as one program."""

    name: str
    """Unique in its graph."""
    nodes: tuple[str, ...]
    """Its operators, in order."""
    operators: tuple[str, ...]
    """Torch's names for them."""
    lines: tuple[str, ...]
    """The user's source lines, each once, in order."""
    inputs: tuple[str, ...]
    """Nodes whose tensors it reads, in the order of the program's parameters."""
    outputs: tuple[str, ...]
    """Its nodes whose tensors are used elsewhere, in the order of the program's results."""
    sizes: Mapping[str, tuple[Extent, ...]]
    """Of inputs with sizes that are open, by the program's names: the size of each dimension."""
    masks: tuple[str, ...]
    """Inputs, by the program's name, that may hold minus infinity."""
    program: Program
    """What it computes."""
    key: str
    """Regions with one key are the same program at the same sizes and types, written with the same operators."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A region that could be captured and is not searched."""

    operators: tuple[str, ...]
    """Torch's names for its operators."""
    lines: tuple[str, ...]
    """The user's source lines."""
    reason: str
    """Why not."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One graph divided into regions and the rest."""

    regions: tuple[Region, ...]
    """What is searched, in order."""
    cuts: tuple[Cut, ...]
    """Operators left to torch."""
    skipped: tuple[Skipped, ...]
    """Regions not worth a search."""
    operators: int
    """Operators in the graph."""
    reason: str = ""
    """Why the graph as a whole is left to torch; empty if it is not."""

    @property
    def covered(self) -> int:
        """Operators inside regions."""
        return sum(len(region.nodes) for region in self.regions)
