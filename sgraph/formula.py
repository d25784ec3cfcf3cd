"""The lower bound on a family's time as a formula: what it depends on, for every size at once.

The numeric bound (``sgraph.bounds``) is what the search uses; this one is made on demand. It has one symbol per extent,
one per tile of a grid axis and one per figure of the target. With tiles as large as their axes it is the numeric bound;
smaller tiles add the arithmetic that programs repeat because it does not vary over an axis of the grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sgraph.axis import Axis
from sgraph.bounds import dot_dtype, fastest_dot_rate, launches, operations
from sgraph.dags import is_dot
from sgraph.ir import Kernel, Role, SGraph
from sgraph.program import DType, Tensor
from sgraph.scaled import stabilise
from sgraph.target import Target

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True, slots=True)
class Formula:
    """A time in seconds."""

    expression: Any
    """As a sympy expression."""
    meanings: Mapping[str, str]
    """What every symbol stands for."""
    _sizes: Mapping[str, Axis] = field(repr=False)
    _tiles: Mapping[str, Axis] = field(repr=False)
    _rates: Mapping[str, DType] = field(repr=False)

    def at(self, target: Target, sizes: Mapping[Axis, int], tiles: Mapping[Axis, int] | None = None) -> float:
        """Its value for one target, with these extents and tiles; a tile that is not given covers its axis."""
        given = tiles or {}
        values: dict[str, float] = {name: sizes[axis] for name, axis in self._sizes.items()}
        values |= {name: given.get(axis, sizes[axis.base]) for name, axis in self._tiles.items()}
        values |= {name: fastest_dot_rate(dtype, target) for name, dtype in self._rates.items()}
        values |= {
            "target_bandwidth": target.dram_bytes_per_s,
            "target_cache": target.l2_bytes,
            "target_pointwise": target.pointwise_flops_per_s,
            "target_launch": target.launch_s,
        }
        return float(self.expression.subs({s: values[s.name] for s in self.expression.free_symbols}))

    def __str__(self) -> str:
        return str(self.expression)


def lower_bound_formula(graph: SGraph) -> Formula:
    """No instance of the family with these tiles is faster; ``sgraph.bounds.lower_bound`` for the largest tiles."""
    return _Writer(graph).formula()


class _Writer:
    """Writes the formula of one family."""

    def __init__(self, graph: SGraph) -> None:
        import sympy

        self.graph = graph
        self.sympy = sympy
        self.sizes: dict[str, Axis] = {}
        self.tiles: dict[str, Axis] = {}
        self.rates: dict[str, DType] = {}
        self.meanings: dict[str, str] = {}

    def formula(self) -> Formula:
        touched: set[str] = set()
        total: sympy.Expr = launches(self.graph) * self.figure("target_launch", "seconds of one more launch")
        for kernel in self.graph.kernels:
            if not kernel.fold:
                dot_s, other_s = self.arithmetic(kernel)
                total += self.sympy.Max(self.traffic(kernel, touched), dot_s, other_s)
                touched.update(kernel.reads, (s.tensor.name for s in kernel.stores))
        return Formula(total, self.meanings, self.sizes, self.tiles, self.rates)

    def traffic(self, kernel: Kernel, touched: set[str]) -> sympy.Expr:
        """Seconds of what must cross the memory bus: of what was touched before, what the cache cannot hold."""
        outputs = {o.tensor.name for o in self.graph.program.outputs}
        moved: sympy.Expr = self.sympy.Integer(0)
        for name in kernel.reads:
            moved += self.beyond_cache(self.bytes(self.graph.tensor(name)), full=name not in touched)
        for store in kernel.stores:
            moved += self.beyond_cache(self.bytes(store.tensor), full=store.tensor.name in outputs)
        return moved / self.figure("target_bandwidth", "bytes per second of device memory")

    def beyond_cache(self, size: sympy.Expr, *, full: bool) -> sympy.Expr:
        if full:
            return size
        return self.sympy.Max(0, size - self.figure("target_cache", "bytes of the last-level cache"))

    def arithmetic(self, kernel: Kernel) -> tuple[sympy.Expr, sympy.Expr]:
        """Seconds of dot products and of other arithmetic, what programs repeat included."""
        dot: sympy.Expr = self.sympy.Integer(0)
        other: sympy.Expr = self.sympy.Integer(0)
        for value, space in operations(tuple(stabilise(s.value) for s in kernel.stores)):
            count = self.elements(space) * self.repeats(kernel, space)
            if is_dot(value):
                dot += 2 * count
            else:
                other += count
        dtype = dot_dtype(kernel, self.graph)
        name = f"target_dot_{dtype.short}"
        self.rates[name] = dtype
        rate = self.figure(name, f"operations per second of {dtype.short} dot products")
        return dot / rate, other / self.figure("target_pointwise", "operations per second outside dot products")

    def repeats(self, kernel: Kernel, space: frozenset[Axis]) -> sympy.Expr:
        """How many programs do work that does not vary over some of the grid's axes."""
        tiles: sympy.Expr = self.sympy.Integer(1)
        for axis in kernel.with_role(Role.GRID):
            if axis not in space:
                name = f"tile_{kernel.name}_{_identifier(axis)}"
                self.tiles[name] = axis
                tile = self.figure(name, f"tile of {axis} in kernel {kernel.name}")
                tiles *= self.sympy.ceiling(self.size(axis) / tile)
        return tiles

    def bytes(self, tensor: Tensor) -> sympy.Expr:
        return tensor.dtype.bytes * self.elements(tensor.named_axes)

    def elements(self, axes: Iterable[Axis]) -> sympy.Expr:
        count: sympy.Expr = self.sympy.Integer(1)
        for axis in axes:
            count *= self.size(axis)
        return count

    def size(self, axis: Axis) -> sympy.Expr:
        # A prefix of their own keeps an axis named like a figure of the target, or like a function, apart from it.
        name = f"extent_{axis.name}"
        self.sizes[name] = axis.base
        return self.figure(name, f"extent of {axis.base}")

    def figure(self, name: str, meaning: str) -> sympy.Expr:
        self.meanings[name] = meaning
        return self.sympy.Symbol(name, positive=True)


def _identifier(axis: Axis) -> str:
    return axis.name if not axis.copy else f"{axis.name}_{axis.copy}"
