"""From straight-line code to equations over named axes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import cast

from prism.frontend import (
    activations,
    attention,
    conditions,
    layout,
    losses,
    normalisation,
    pointwise,
    products,
    reductions,
)
from prism.frontend.aliasing import sharing
from prism.frontend.axes import Axes, flat
from prism.frontend.borders import crossed
from prism.frontend.call import MEANINGS, Call, Results, find, unsupported
from prism.frontend.combine import whole
from prism.frontend.definedness import Masked
from prism.frontend.trace import REAL, SIZE, Meta, Node, Placeholder, Product, Ref, Trace, fingerprint
from prism.frontend.units import in_units
from prism.frontend.values import Joined, Value, canonical, holds
from sgraph.axis import Extent
from sgraph.errors import UnsupportedOperator, UnsupportedProgram
from sgraph.expr import Op, const, equal, leaf, leaves
from sgraph.program import DType, Output, Program, Tensor

FAMILIES = (activations, attention, conditions, layout, losses, normalisation, pointwise, products, reductions)
"""Importing these modules fills the table of meanings."""


def denote(trace: Trace) -> Program:
    """The equations of a traced function.

    Raises:
        UnsupportedOperator: an operator has no meaning here.
        UnsupportedProgram: a result is not a real tensor computed from the inputs.
    """
    assert MEANINGS
    needed = _needed(trace)
    axes = Axes()
    names = _names(trace)
    inputs = _inputs(trace.placeholders, axes)
    _results(trace, axes, _run(trace, needed, axes, inputs, {}))
    declared = [p for p in trace.placeholders if p.literal is None]
    axes.settle([inputs[p.name].dims for p in declared], names)

    facts: dict[str, None] = {}
    inputs = _inputs(trace.placeholders, axes)
    for p in declared:
        axes.sources.declare(p.parameter, inputs[p.name].dims, names)
    values = _run(trace, needed, axes, inputs, facts)
    outputs, merges = _outputs(trace, in_units(axes, _results(trace, axes, values)), names[len(declared) :])
    takes = [Tensor(p.parameter, (), DType(p.meta.dtype), p.constant, p.finite) for p in declared]
    tensors, border = crossed(takes, outputs, merges, axes.sources)
    # The file's name alone: a program is kept and shipped, and says nothing of the machine it was captured on.
    return Program(trace.name, tensors, outputs, Path(trace.source).name, tuple(facts), border, fingerprint(trace))


def _needed(trace: Trace) -> frozenset[str]:
    """The nodes that the outputs depend on."""
    nodes = {node.name: node for node in trace.nodes}
    found: set[str] = set()
    stack = [ref.name for ref in trace.outputs]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            if name in nodes:
                stack.extend(ref.name for ref in _references(nodes[name].arguments.values()))
    return frozenset(found)


def _references(arguments: Iterable[object]) -> list[Ref]:
    found: list[Ref] = []
    stack = list(arguments)
    while stack:
        argument = stack.pop()
        if isinstance(argument, Ref):
            found.append(argument)
        elif isinstance(argument, tuple):
            stack.extend(cast("tuple[object, ...]", argument))
    return found


def _names(trace: Trace) -> list[str]:
    """Names of the inputs, then of the outputs, all different."""
    names = [p.parameter for p in trace.placeholders if p.literal is None]
    for number in range(len(trace.outputs)):
        name = "out" if len(trace.outputs) == 1 else f"out{number}"
        while name in names:
            name += "_"
        names.append(name)
    return names


def _inputs(placeholders: Sequence[Placeholder], axes: Axes) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for placeholder in placeholders:
        if placeholder.literal is not None:
            values[placeholder.name] = Value(((),) * len(placeholder.meta.shape), const(placeholder.literal))
            continue
        # Symbolic extents of inputs are declared ones, never expressions of others.
        sizes = cast("tuple[Product, ...]", placeholder.meta.shape)
        dims = axes.dimensions([cast("Extent", size.extent) for size in sizes])
        element = leaf(placeholder.parameter, flat(dims), finite=placeholder.finite)
        boolean = placeholder.meta.dtype == DType.BOOL
        values[placeholder.name] = Value(dims, holds(equal(element, const(1))) if boolean else element, boolean)
    return values


def _run(
    trace: Trace, needed: Collection[str], axes: Axes, inputs: dict[str, Value], facts: dict[str, None]
) -> dict[str, Results]:
    """The value of every needed node, in order."""
    values: dict[str, Results] = {name: (value,) for name, value in inputs.items()}
    masked = Masked()
    dtypes = {p.name: p.meta.dtype for p in trace.placeholders if p.literal is None}
    for node in trace.nodes:
        if node.name not in needed:
            continue
        _refuse_rounding(node, dtypes)
        axes.line = node.line
        try:
            result = find(node)(Call(node, axes, values, facts))
        except UnsupportedOperator:
            if not node.operator.startswith("python.") or node.results != (Meta((), SIZE),):
                raise
            # Arithmetic on sizes usually only feeds a reshape, which looks at the result's shape.
            result = (None,)
        results = result if isinstance(result, tuple) else (result,)
        _check(node, results)
        if axes.settled:
            for value in results:
                masked.check(node, value)
        values[node.name] = results
        if node.results[0] is not None:
            dtypes[node.name] = node.results[0].dtype
    return values


def _refuse_rounding(node: Node, dtypes: dict[str, str]) -> None:
    """Integers made from real numbers are rounded; integers made from comparisons and sizes are exact."""
    made = node.results[0].dtype if node.results[0] is not None else SIZE
    if made in (*REAL, DType.BOOL, SIZE):
        return
    fractions = any(isinstance(a, float) and not a.is_integer() for a in node.arguments.values())
    if fractions or any(dtypes.get(ref.name) in REAL for ref in _references(node.arguments.values())):
        raise UnsupportedProgram(
            f"{node.operator} turns real numbers into {made}",
            where=node.line,
            do="leave rounding and indices outside the captured function",
        )


def _check(node: Node, results: Results) -> None:
    """Results have the sizes that torch says, and are Boolean where torch says so."""
    for value, meta in zip(results, node.results, strict=False):
        if value is None or meta is None or meta.dtype == SIZE:
            continue
        parts = value.parts if isinstance(value, Joined) else (value,)
        free = value.dimension if isinstance(value, Joined) else -1
        for part in parts:
            sizes = [m for i, m in enumerate(meta.shape) if i != free]
            found = [s for i, s in enumerate(part.shape) if i != free]
            assert found == sizes, f"{node.operator}: sizes {found}, torch says {sizes}"
        if meta.dtype == DType.BOOL and not value.boolean:
            raise unsupported(node, "of Boolean tensors it is not understood")


def _results(trace: Trace, axes: Axes, values: dict[str, Results]) -> list[Value | None]:
    """What the function returns, each as one element; None for what is no number."""
    lines = {node.name: node.line for node in trace.nodes}
    out: list[Value | None] = []
    for ref in trace.outputs:
        axes.line = lines.get(ref.name, trace.source)
        value = values[ref.name][0]
        out.append(None if value is None else whole(axes, value))
    return out


def _outputs(
    trace: Trace, results: Sequence[Value | None], names: Sequence[str]
) -> tuple[tuple[Output, ...], tuple[tuple[int, ...], ...]]:
    """The program's outputs, and how many of its dimensions each dimension of the function's result merges."""
    shared = sharing(trace)
    if shared is not None:
        raise UnsupportedProgram(
            f"results {shared[0]} and {shared[1]} of {trace.name} share memory",
            where=trace.source,
            do="return one of them, or a copy: clone()",
        )
    outputs: list[Output] = []
    merges: list[tuple[int, ...]] = []
    metas = {item.name: item.results[0] for item in trace.nodes} | {p.name: p.meta for p in trace.placeholders}
    for number, (name, ref, value) in enumerate(zip(names, trace.outputs, results, strict=True)):
        which = f"result {number} of {trace.name}" if len(names) > 1 else f"the result of {trace.name}"
        meta = metas[ref.name]
        if value is None or meta is None or meta.dtype not in REAL:
            raise UnsupportedProgram(
                f"{which} holds {meta.dtype if meta else 'nothing'}, not real numbers",
                where=trace.source,
                do="return bfloat16, float16, float32 or float64 tensors",
            )
        stored = canonical(value)
        if stored.expr.op is Op.LEAF:
            raise UnsupportedProgram(
                f"{which} is the input `{stored.expr.name}` itself, an alias or copy of it: nothing is computed",
                where=trace.source,
                do="return computed tensors only, and use the input directly where it is needed",
            )
        if not leaves([stored.expr]):
            raise UnsupportedProgram(
                f"{which} depends on no input", where=trace.source, do="make constant tensors outside the function"
            )
        axes = tuple(axis for dim in stored.dims for axis in (dim or (None,)))
        merge = tuple(max(1, len(dim)) for dim in stored.dims)
        tensor = Tensor(name, axes, DType(meta.dtype))
        for earlier in outputs:
            if earlier.value is stored.expr and earlier.tensor.axes == axes and merges[outputs.index(earlier)] == merge:
                raise UnsupportedProgram(
                    f"{which} is the same as {earlier.tensor.name}", where=trace.source, do="return it once"
                )
        outputs.append(Output(tensor, stored.expr))
        merges.append(merge)
    return tuple(outputs), tuple(merges)
