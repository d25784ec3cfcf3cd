"""Which axes the dimensions of a program have: found by dataflow, never by comparing extents.

Capture runs the operators twice over one ``Axes``. In the first run every dimension that appears (of an input,
or made by an operator such as ``expand``) gets an axis of its own; operators that put two dimensions side by side
unify their axes, and views split them. ``settle`` then names the classes, and in the second run dimensions appear
in the same order and get their final axes.

A dimension is a row-major tuple of axes: none for static extent 1, several where a view merges dimensions or
splits the axis class that the dimension belongs to. A split is exact and concerns the whole class: every dimension
of it, in every tensor, then has the finer axes. Two ways to split one class are reconciled by their common
refinement (8 x 4 and 4 x 8 by 4 x 2 x 4); where there is none (2 x 3 and 3 x 2), capture refuses.

Some indices of a dimension (a slice, a chunk) are a dimension of their own; the same indices of two dimensions of one
class are of one class too, so that the halves of what is read side by side run side by side.
"""

from __future__ import annotations

import keyword
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count

from prism.frontend.sources import Sources
from prism.frontend.trace import ONE, Product
from sgraph.axis import Axis, Extent, Size
from sgraph.errors import UnsupportedProgram
from sgraph.expr import unused_copy

Dim = tuple[Axis, ...]
"""The axes of one dimension, the slowest first."""

FREE_NAMES = ("n", "r", "s", "t", "j", "i", "h", "d", "b")
"""Names for axes that the first matrix among the inputs does not have, in the order they are given out."""


def size_of(dim: Dim) -> Product:
    """How many indices a dimension has."""
    return Product.of(a.extent for a in dim)


def times(dim: Dim) -> str:
    """The extents of a dimension's axes in words: ``32 x 128``."""
    return " x ".join(str(a.extent) for a in dim) or "1"


def shape_text(dims: Iterable[Dim]) -> str:
    """The sizes of some dimensions: ``[3, 1, 4*M]``."""
    return f"[{', '.join(str(size_of(dim)) for dim in dims)}]"


def flat(dims: Iterable[Dim]) -> Dim:
    """The axes of some dimensions in one row."""
    return tuple(axis for dim in dims for axis in dim)


def distinct(dim: Iterable[Axis], taken: Collection[Axis]) -> Dim:
    """The axes in copies that differ from each other and from those that are taken."""
    out: list[Axis] = []
    for axis in dim:
        out.append(unused_copy(axis, [*taken, *out]))
    return tuple(out)


class Axes:
    """The axis classes of one program."""

    def __init__(self) -> None:
        self.line = ""
        """Source line of the operator that is being denoted: where a split comes from."""
        self.settled = False
        """Whether the axes are final."""
        self.sources = Sources()
        """What the program reads: the tensors that come in, and views of them."""
        self._parent: list[int] = []
        self._extent: list[Extent] = []
        self._parts: dict[int, tuple[int, int]] = {}
        self._ranges: dict[int, dict[tuple[int, int], int]] = {}
        self._of_parts: list[int] = []
        self._names: dict[int, str] = {}
        self._of_name: dict[str, int] = {}
        self._appeared: list[int] = []
        self._next = 0

    def fresh(self, extent: Extent) -> Dim:
        """The axes of the next dimension that appears, with copy 0."""
        if extent == 1:
            return ()
        if self.settled:
            number = self._appeared[self._next]
            self._next += 1
            return self._expanded(number)
        number = self._new(extent)
        self._appeared.append(number)
        return (self._axis(number),)

    def dimensions(self, shape: Sequence[Extent]) -> tuple[Dim, ...]:
        """Axes for the dimensions of one tensor: none for extent 1, copies where a class repeats."""
        out: list[Dim] = []
        for extent in shape:
            out.append(distinct(self.fresh(extent), flat(out)))
        return tuple(out)

    def unify(self, a: Dim, b: Dim) -> None:
        """Note that two dimensions of one size run side by side.

        Raises:
            UnsupportedProgram: their axes have no common refinement.
        """
        if self.settled:
            assert [x.name for x in a] == [y.name for y in b], f"the second run unified {a} and {b}, the first did not"
            return
        left, right = deque(a), deque(b)
        while left and right:
            if self._expand(left) or self._expand(right):
                continue
            x, y = left[0], right[0]
            if x.extent == y.extent:
                self._link(left.popleft(), right.popleft())
            elif not self._split(x, y.extent) and not self._split(y, x.extent):
                raise UnsupportedProgram(
                    f"a dimension of {times(a)} runs beside one of {times(b)}, which are split differently",
                    where=self.line,
                    do="merge and split dimensions in one order, or pass tensors that already have these dimensions",
                )
        assert not left and not right, f"{a} against {b}"

    def regroup(self, axes: Dim, shape: Sequence[Product]) -> tuple[Dim, ...] | None:
        """The axes in order, as dimensions of these sizes, split where needed; None if that is impossible."""
        rest = deque(axes)
        out: list[Dim] = []
        for size in shape:
            dim: list[Axis] = []
            missing = size
            while missing != ONE:
                if not rest:
                    return None
                if self._expand(rest):
                    continue
                remaining = missing.over(rest[0].extent)
                if remaining is not None:
                    dim.append(rest.popleft())
                    missing = remaining
                elif missing.extent is None or not self._split(rest[0], missing.extent):
                    return None
            out.append(tuple(dim))
        return tuple(out) if not rest else None

    def cut(self, dim: Dim, start: int, length: int) -> list[tuple[Axis, tuple[int, int] | None]] | None:
        """Which indices of each axis of a dimension a part of it takes; None in place of all of them.

        Nothing if the part is no block of the dimension's axes (a row and a half of a merged dimension).
        """
        rest = self.resolve(dim)
        out: list[tuple[Axis, tuple[int, int] | None]] = []
        while rest:
            axis, *others = rest
            if isinstance(axis.extent, Size) or not others:
                out.append((axis, (start, length)))
                return out if not others else None
            if not all(isinstance(a.extent, int) for a in others):
                return None
            inner = size_of(tuple(others)).number
            if start % inner == 0 and length % inner == 0:
                out.append((axis, (start // inner, length // inner)))
                return [*out, *((a, None) for a in others)]
            if start // inner != (start + length - 1) // inner:
                return None
            out.append((axis, (start // inner, 1)))
            start, rest = start % inner, tuple(others)
        return out

    def part(self, axis: Axis, start: int, length: int) -> Dim:
        """The axes of some indices of an axis: the same for every dimension of its class."""
        if length == 1:
            return ()
        if axis.extent == length:
            return (axis,)
        root = self._of_name[axis.name] if self.settled else self._root(int(axis.name))
        known = self._ranges.setdefault(root, {})
        if (start, length) not in known:
            assert not self.settled, f"the second run takes {start}, {length} of {axis}, the first did not"
            known[start, length] = self._new(length)
            self._of_parts.append(known[start, length])
        return self._expanded(known[start, length])

    def settle(self, inputs: Sequence[Sequence[Dim]], taken: Collection[str]) -> None:
        """Name the classes and start over.

        Symbolic sizes lend their own name in lower case. The last two axes of the first input that has two are
        ``m`` and ``k``; the rest follow in order of appearance. No axis takes a name in ``taken``.
        """
        used = {name.lower() for name in taken}
        matrix = next((flat(dims) for dims in inputs if len(flat(dims)) >= 2), ())
        preferred = dict(zip((self._root(int(a.name)) for a in matrix[-2:]), ("m", "k"), strict=False))
        appeared = [*self._appeared, *self._of_parts]
        roots = list(dict.fromkeys(self._root(int(a.name)) for n in appeared for a in self._expanded(n)))
        for symbolic in (True, False):
            for root in roots:
                extent = self._extent[root]
                if isinstance(extent, Size) is symbolic:
                    wish = (extent.name.lower(),) if isinstance(extent, Size) else (preferred.get(root, ""),)
                    self._names[root] = _free_name(wish, used)
                    used.add(self._names[root])
        self._of_name = {name: root for root, name in self._names.items()}
        self.settled, self._next = True, 0

    def resolve(self, dim: Dim) -> Dim:
        """A dimension of the first run with the splits that have come since."""
        return dim if self.settled else flat(self._expanded(int(a.name)) for a in dim)

    def _new(self, extent: Extent) -> int:
        self._parent.append(len(self._parent))
        self._extent.append(extent)
        return len(self._parent) - 1

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            number = self._parent[number]
        return number

    def _axis(self, number: int) -> Axis:
        root = self._root(number)
        return Axis(self._names[root] if self.settled else str(number), self._extent[root])

    def _expanded(self, number: int) -> Dim:
        """The finest axes of a class, in row-major order."""
        out: list[Axis] = []
        stack = [number]
        while stack:
            top = stack.pop()
            parts = self._parts.get(self._root(top))
            if parts is None:
                out.append(self._axis(top))
            else:
                stack.extend(reversed(parts))
        return tuple(out)

    def _expand(self, axes: deque[Axis]) -> bool:
        """Replace the first axis by its parts; whether it has any."""
        parts = self.resolve((axes[0],))
        if len(parts) == 1:
            return False
        axes.popleft()
        axes.extendleft(reversed(parts))
        return True

    def _split(self, axis: Axis, outer: Extent) -> bool:
        """Split a class into ``outer`` blocks of equal extent; whether that is possible."""
        inner = axis.extent
        if self.settled or not isinstance(inner, int) or not isinstance(outer, int) or inner % outer:
            return False
        root = self._root(int(axis.name))
        ranges = self._ranges.get(root, {})
        width = inner // outer
        if any(start % width + length > width and (start % width or length % width) for start, length in ranges):
            return False
        self._parts[root] = (self._new(outer), self._new(width))
        for (start, length), number in list(ranges.items()):
            finer = self.cut((axis,), start, length)
            assert finer is not None
            self.unify(
                self._expanded(number),
                flat((a,) if taken is None else self.part(a, *taken) for a, taken in finer),
            )
        return True

    def _link(self, a: Axis, b: Axis) -> None:
        first, second = sorted((self._root(int(a.name)), self._root(int(b.name))))
        if first == second:
            return
        self._parent[second] = first
        known = self._ranges.setdefault(first, {})
        for taken, number in self._ranges.pop(second, {}).items():
            if taken in known:
                self.unify(self._expanded(known[taken]), self._expanded(number))
            known.setdefault(taken, number)


def _free_name(wishes: Iterable[str], used: Collection[str]) -> str:
    def candidates() -> Iterator[str]:
        yield from (w for w in wishes if w)
        yield from FREE_NAMES
        yield from (f"a{i}" for i in count())

    return next(n for n in candidates() if n not in used and n.isidentifier() and not keyword.iskeyword(n))
