"""From straight-line code to equations over named axes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import cast

from prism.frontend import attention, layout, pointwise, products, reductions
from prism.frontend.axes import Axes, Value, canonical
from prism.frontend.call import MEANINGS, Call, Results, find
from prism.frontend.trace import REAL, SIZE, Meta, Node, Placeholder, Ref, Trace
from sgraph.axis import Extent
from sgraph.errors import UnsupportedOperator, UnsupportedProgram
from sgraph.expr import Op, const, leaf, leaves
from sgraph.program import DType, Output, Program, Tensor

FAMILIES = (attention, layout, pointwise, products, reductions)
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
    _run(trace, needed, axes, inputs, {})
    axes.settle([inputs[p.name] for p in trace.placeholders if p.literal is None], names)

    facts: dict[str, None] = {}
    inputs = _inputs(trace.placeholders, axes)
    values = _run(trace, needed, axes, inputs, facts)
    tensors = tuple(
        Tensor(p.parameter, inputs[p.name].dims, DType(p.meta.dtype), p.constant)
        for p in trace.placeholders
        if p.literal is None
    )
    outputs = _outputs(trace, values, names[len(tensors) :])
    return Program(trace.name, tensors, outputs, trace.source, tuple(facts))


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
            values[placeholder.name] = Value((None,) * len(placeholder.meta.shape), const(placeholder.literal))
            continue
        # Symbolic extents of inputs are declared ones, never expressions of others.
        dims = axes.dimensions(cast("tuple[Extent, ...]", placeholder.meta.shape))
        values[placeholder.name] = Value(dims, leaf(placeholder.parameter, [a for a in dims if a is not None]))
    return values


def _run(
    trace: Trace, needed: Collection[str], axes: Axes, inputs: dict[str, Value], facts: dict[str, None]
) -> dict[str, Results]:
    """The value of every needed node, in order."""
    values: dict[str, Results] = {name: (value,) for name, value in inputs.items()}
    dtypes = {p.name: p.meta.dtype for p in trace.placeholders if p.literal is None}
    for node in trace.nodes:
        if node.name not in needed:
            continue
        _refuse_rounding(node, dtypes)
        try:
            result = find(node)(Call(node, axes, values, facts))
        except UnsupportedOperator:
            if not node.operator.startswith("python.") or node.results != (Meta((), SIZE),):
                raise
            # Arithmetic on sizes usually only feeds a reshape, which looks at the result's shape.
            result = (None,)
        results = result if isinstance(result, tuple) else (result,)
        _check_shapes(node, results)
        values[node.name] = results
        if node.results[0] is not None:
            dtypes[node.name] = node.results[0].dtype
    return values


def _refuse_rounding(node: Node, dtypes: dict[str, str]) -> None:
    """Integers made from real numbers are rounded; integers made from comparisons and sizes are exact."""
    made = node.results[0].dtype if node.results[0] is not None else SIZE
    if made in (*REAL, DType.BOOL, SIZE):
        return
    if any(dtypes.get(ref.name) in REAL for ref in _references(node.arguments.values())):
        raise UnsupportedProgram(
            f"{node.operator} turns real numbers into {made}",
            where=node.line,
            do="leave rounding and indices outside the captured function",
        )


def _check_shapes(node: Node, results: Results) -> None:
    for value, meta in zip(results, node.results, strict=False):
        if value is not None and meta is not None and meta.dtype != SIZE:
            found = tuple(1 if a is None else a.extent for a in value.dims)
            assert found == meta.shape, f"{node.operator}: dimensions {found}, torch says {meta.shape}"


def _outputs(trace: Trace, values: dict[str, Results], names: Sequence[str]) -> tuple[Output, ...]:
    outputs: list[Output] = []
    metas = {item.name: item.results[0] for item in trace.nodes} | {p.name: p.meta for p in trace.placeholders}
    for number, (name, ref) in enumerate(zip(names, trace.outputs, strict=True)):
        which = f"result {number} of {trace.name}" if len(names) > 1 else f"the result of {trace.name}"
        meta, value = metas[ref.name], values[ref.name][0]
        if value is None or meta is None or meta.dtype not in REAL:
            raise UnsupportedProgram(
                f"{which} holds {meta.dtype if meta else 'nothing'}, not real numbers",
                where=trace.source,
                do="return bfloat16, float16, float32 or float64 tensors",
            )
        value = canonical(value)
        if value.expr.op is Op.LEAF:
            raise UnsupportedProgram(
                f"{which} is the input `{value.expr.name}` itself, an alias or copy of it: nothing is computed",
                where=trace.source,
                do="return computed tensors only, and use the input directly where it is needed",
            )
        if not leaves([value.expr]):
            raise UnsupportedProgram(
                f"{which} depends on no input", where=trace.source, do="make constant tensors outside the function"
            )
        tensor = Tensor(name, value.dims, DType(meta.dtype))
        for earlier in outputs:
            if earlier.value is value.expr and earlier.tensor.axes == value.dims:
                raise UnsupportedProgram(
                    f"{which} is the same as {earlier.tensor.name}", where=trace.source, do="return it once"
                )
        outputs.append(Output(tensor, value.expr))
    return tuple(outputs)
