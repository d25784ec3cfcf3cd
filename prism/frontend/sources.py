"""What a program reads: each tensor that the function takes, whole or in views of it.

In a program an axis is read whole. Where a function takes some indices of a tensor, those are an input of their own,
a view of what the function takes. Two views are different tensors to the algebra, also where they overlap: what is
proved of them holds for all contents, and so for contents that agree.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from sgraph.axis import Axis
from sgraph.expr import Expr, Op, Read, make, unused_copy
from sgraph.program import Narrow, Split

_Dim = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor that the program reads."""

    parameter: str
    """The tensor that the function takes."""
    dims: tuple[_Dim, ...]
    """Axes of each dimension that the steps leave."""
    steps: tuple[Narrow | Split, ...] = ()
    """From the tensor that the function takes to this one."""

    @property
    def whole_steps(self) -> tuple[Narrow | Split, ...]:
        """The steps to a tensor with one axis per dimension."""
        split = [(i, dim) for i, dim in enumerate(self.dims) if len(dim) > 1]
        # From the right, so that the numbers of the dimensions to the left stay.
        return (*self.steps, *(Split(i, _sizes(dim)) for i, dim in reversed(split)))

    @property
    def axes(self) -> tuple[Axis | None, ...]:
        """One per dimension behind ``whole_steps``; None where the extent is 1."""
        return tuple(axis for dim in self.dims for axis in (dim or (None,)))


def _sizes(dim: _Dim) -> tuple[int, ...]:
    sizes = tuple(a.extent for a in dim if isinstance(a.extent, int))
    assert len(sizes) == len(dim), "a symbolic dimension is not split"
    return sizes


class Sources:
    """The tensors that a program reads, by name."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._taken: set[str] = set()
        self.fixed: set[Axis] = set()
        """Axes of which a single index is read somewhere."""

    def declare(self, parameter: str, dims: tuple[_Dim, ...], taken: Collection[str]) -> None:
        """Add a tensor that the function takes; views get no name in ``taken``."""
        self._sources[parameter] = Source(parameter, dims)
        self._taken |= {*taken, parameter}

    def __getitem__(self, name: str) -> Source:
        return self._sources[name]

    def views_of(self, parameter: str) -> list[str]:
        """Names of a parameter and its views, in the order in which they were made."""
        return [name for name, source in self._sources.items() if source.parameter == parameter]

    def narrowed(self, read: Expr, axis: Axis, start: int, length: int, part: _Dim, axes: _Dim) -> Expr:
        """The element that ``read`` reads, of a view with some indices of one of its axes.

        Args:
            read: a leaf.
            axis: one of its axes.
            start: the first index taken; a negative one counts from the end.
            length: how many.
            part: the axes that the view has for them.
            axes: those by which it is read, in place of ``axis``.
        """
        assert read.op is Op.LEAF and isinstance(read.attr, Read)
        place = read.axes.index(axis)
        source = self._sources[read.name]
        steps, dims, inside = source.steps, list(source.dims), place
        number = 0
        while inside >= len(dims[number]):
            inside -= len(dims[number])
            number += 1
        if len(dims[number]) > 1:
            steps = (*steps, Split(number, _sizes(dims[number])))
            dims[number : number + 1] = [(a,) for a in dims[number]]
            number += inside
        dims[number] = ()
        own: list[Axis] = []
        for a in part:
            own.append(unused_copy(a.renamed(0), [*own, *(x for dim in dims for x in dim)]))
        dims[number] = tuple(own)
        made = replace(source, dims=tuple(dims), steps=(*steps, Narrow(number, start, length)))
        name = self._name_of(made)
        reading = (*read.axes[:place], *axes, *read.axes[place + 1 :])
        return make(Op.LEAF, (), Read(name, reading, read.attr.finite))

    def _name_of(self, made: Source) -> str:
        for name, known in self._sources.items():
            if (known.parameter, known.steps) == (made.parameter, made.steps):
                return name
        count = 0
        while (name := f"{made.parameter}_{count}") in self._taken:
            count += 1
        self._taken.add(name)
        self._sources[name] = made
        return name
