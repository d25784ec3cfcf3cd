"""Device memory for exact evaluation: tensors that record every access and refuse the forbidden ones.

Programs of one launch run in no order. So within a launch no program may read or write an element that another
program writes, not even to write the same value. A tensor's storage may be larger than its elements; what lies
between them belongs to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
NOBODY: Final = -1


class Fault(Exception):
    """A rule that the running text breaks; whoever knows the line adds it."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program of a launch."""

    ids: tuple[int, ...]
    """Its index along every dimension of the grid."""
    grid: tuple[int, ...]
    """Programs along every dimension."""
    number: int
    """Its number among all programs of all launches; later launches have larger numbers."""
    first: int
    """The number of the launch's first program."""


class Memory:
    """A tensor: what the launcher sees of it, and its elements in storage order."""

    def __init__(
        self, name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, *, writable: bool = True
    ) -> None:
        self.name = name
        self.shape = shape
        self.strides = strides
        """In elements."""
        self.dtype = dtype
        """By its torch name."""
        self.writable = writable
        """Whether kernels may write to it."""
        self.places: Array = np.zeros(shape, dtype=np.int64)
        """Storage index of every element."""
        for dimension, (size, stride) in enumerate(zip(shape, strides, strict=True)):
            across = [1] * len(shape)
            across[dimension] = size
            self.places = self.places + (np.arange(size) * stride).reshape(across)
        length = int(self.places.max()) + 1 if self.places.size else 0
        self.cells: Array = np.full(length, None, dtype=object)
        self._inside = np.zeros(length, dtype=bool)
        self._inside[self.places] = True
        self._written = np.zeros(length, dtype=bool)
        self._writer = np.full(length, NOBODY, dtype=np.int64)
        self._first_reader = np.full(length, NOBODY, dtype=np.int64)
        self._last_reader = np.full(length, NOBODY, dtype=np.int64)

    @property
    def is_float(self) -> bool:
        """Whether elements are real numbers, rather than integers or truth values."""
        return "float" in self.dtype

    def stride(self, dimension: int | None = None) -> int | tuple[int, ...]:
        """The stride of one dimension, or of all of them."""
        return self.strides if dimension is None else self.strides[dimension]

    def fill(self, values: Array) -> None:
        """Give every element a value, from outside of any kernel."""
        self.cells[self.places] = values
        self._written[self.places] = True

    def contents(self) -> Array:
        """Every element.

        Raises:
            Fault: one was never written.
        """
        missing = np.argwhere(~self._written[self.places])
        if len(missing):  # also where it has no dimension, and its index no number
            raise Fault(f"{self.name}{_index(missing[0])} is never written")
        return self.cells[self.places, ...]

    def read(self, at: Array, program: Program) -> Array:
        """The elements at storage indices.

        Raises:
            Fault: one lies outside, was never written, or is written by another program of the same launch.
        """
        self._check_inside(at, "reads")
        self._refuse(at, ~self._written[at], "reads", "which was never written")
        other = (self._writer[at] >= program.first) & (self._writer[at] != program.number)
        self._refuse(at, other, "reads", "which another program of the same launch writes")
        first = self._first_reader[at]
        self._first_reader[at] = np.where(first < program.first, program.number, first)
        self._last_reader[at] = program.number
        return self.cells[at]

    def write(self, at: Array, values: Array, program: Program) -> None:
        """Change the elements at distinct storage indices.

        Raises:
            Fault: one lies outside, is given twice, belongs to an input, or is used by another program of the launch.
        """
        self._check_inside(at, "writes")
        if not self.writable:
            raise Fault(f"writes to {self.name}, which is an input")
        places, counts = np.unique(at, return_counts=True)
        self._refuse(places, counts > 1, "writes", "in two lanes at once")
        for users, what in (
            (self._writer, "writes too"),
            (self._first_reader, "reads"),
            (self._last_reader, "reads"),
        ):
            other = (users[at] >= program.first) & (users[at] != program.number)
            self._refuse(at, other, "writes", f"which another program of the same launch {what}")
        self.cells[at] = values
        self._written[at] = True
        self._writer[at] = program.number

    def _check_inside(self, at: Array, verb: str) -> None:
        outside = (at < 0) | (at >= self.cells.size)
        if not outside.any():
            outside = ~self._inside[at]
        if outside.any():
            found = int(at[outside][0])
            raise Fault(f"{verb} {self.name} at offset {found}, outside of its shape {self.shape}")

    def _refuse(self, at: Array, wrong: Array, verb: str, why: str) -> None:
        if wrong.any():
            found = np.argwhere(self.places == at[wrong][0])[0]
            raise Fault(f"{verb} {self.name}{_index(found)}, {why}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """Addresses in one tensor: one, or a tile of them."""

    memory: Memory
    """The tensor."""
    offset: int | Array
    """Storage indices, in elements."""


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides without gaps, the last dimension fastest."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides)) if shape else ()


def scattered(shape: tuple[int, ...], first: int = 2) -> tuple[int, ...]:
    """Strides with the first dimension fastest and of this stride, and a gap in every dimension."""
    strides = [first]
    for size, _ in pairwise(shape):
        strides.append(strides[-1] * size + 1)
    return tuple(strides) if shape else ()


def _index(position: Array) -> str:
    return f"[{', '.join(str(i) for i in position)}]"
