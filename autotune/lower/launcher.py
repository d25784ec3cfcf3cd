"""The launcher of an emitted file: sizes, buffers and one launch per kernel function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.layout import Layout
from autotune.lower.arguments import Partials
from autotune.lower.kernel import EmittedFunction
from autotune.lower.names import FileNames, identifier
from autotune.lower.tiles import MOST_CELLS, is_wide
from sgraph.axis import Axis, Size
from sgraph.border import merge_text, pinned, view_text
from sgraph.errors import LoweringLimit
from sgraph.expr import Expr
from sgraph.ir import Kernel, SGraph
from sgraph.program import Program, Tensor


@dataclass(frozen=True, slots=True)
class EmittedKernel:
    """The functions of one kernel."""

    kernel: Kernel
    """What they were printed from."""
    layout: Layout
    """Its tile dimensions."""
    functions: tuple[EmittedFunction, ...]
    """One per phase."""
    partials: Partials
    """Its workspaces, if it has a split axis."""


def launcher_lines(graph: SGraph, kernels: Sequence[EmittedKernel], names: FileNames) -> list[str]:
    """The body of ``launch``, without indentation.

    Raises:
        LoweringLimit: the program has no input, or an axis of unknown size that no input has.
    """
    program = graph.program
    if not program.inputs:
        raise LoweringLimit(f"program {program.name} has no input tensor", do="give it one")
    called = [(i, k) for i, k in enumerate(kernels) if not k.kernel.fold]
    lines = [f"sizes = _sizes({_table(program.inputs, names)})"]
    if graph.folded:
        given = ", ".join(names.tensor[t.name] for t in folded_inputs(graph))
        lines.append(f"{variables(graph.folded, names)} = _folded({given}, config=config)")
    lines += _size_lines(program.inputs, [k for _, k in called], names)
    lines += _run_lines(called, program.inputs[0], names)
    results = ", ".join(names.tensor[o.tensor.name] for o in program.outputs)
    return [*lines, f"return {results}"]


def folded_inputs(graph: SGraph) -> tuple[Tensor, ...]:
    """The constant inputs that the folds of a graph read."""
    read = {name for k in graph.kernels if k.fold for name in k.reads}
    return tuple(t for t in graph.program.inputs if t.name in read)


def fold_lines(graph: SGraph, kernels: Sequence[EmittedKernel], names: FileNames) -> list[str]:
    """The body of ``fold``, without indentation; nothing if no kernel is a fold.

    Raises:
        LoweringLimit: a fold has an axis of unknown size that no constant input has.
    """
    folds = [(i, k) for i, k in enumerate(kernels) if k.kernel.fold]
    if not folds:
        return []
    inputs = folded_inputs(graph)
    if not inputs:
        raise LoweringLimit("a fold reads no input", do="report this family")
    lines = [f"sizes = _sizes({_table(inputs, names)})"]
    lines += _size_lines(inputs, [k for _, k in folds], names)
    return [*lines, *_run_lines(folds, inputs[0], names), f"return {variables(graph.folded, names)}"]


def _run_lines(kernels: Sequence[tuple[int, EmittedKernel]], first: Tensor, names: FileNames) -> list[str]:
    """Allocate what some kernels store, and launch them on the device of a tensor."""
    lines = ["config = _configuration(config)", f"device = {names.tensor[first.name]}.device"]
    stored = [s.tensor for _, k in kernels for s in k.kernel.stores]
    lines += [_allocation(t, names) for t in stored]
    launches: list[str] = []
    for number, kernel in kernels:
        launches += _launch_lines(number, kernel, names)
    narrow = [t for t in stored if not is_wide(t.named_axes)]
    lines += [f'_check_span("{names.tensor[t.name]}", {names.tensor[t.name]})' for t in narrow]
    guard = f"with torch.cuda.device_of({names.tensor[first.name]}):  # does nothing for other devices"
    return [*lines, guard, *(f"    {line}" for line in launches)]


def variables(tensors: Sequence[Tensor], names: FileNames) -> str:
    """The tuple of what holds some tensors."""
    return _tuple([names.tensor[t.name] for t in tensors])


def take_lines(program: Program) -> list[str]:
    """The table of what ``launch`` takes where the program's inputs are views of it; else nothing."""
    if program.border is None:
        return []
    fixed = pinned(program)
    lines: list[str] = []
    for tensor in program.border.parameters:
        dims = ["1" if a is None else str(a.extent) if a.name in fixed else f'"{a}"' for a in tensor.axes]
        lines.append(f'"{identifier(tensor.name)}": {_tuple(dims) if dims else "()"},')
    return lines


def taking_lines(program: Program) -> list[str]:
    """The body of ``launch`` where the program's inputs are views of what it takes; else nothing."""
    if program.border is None:
        return []
    names = [identifier(t.name) for t in program.border.parameters]
    views = [view_text(v, identifier(v.parameter)) for v in program.border.views]
    results = [f"result_{i}" for i in range(len(program.outputs))] if len(program.outputs) > 1 else ["result"]
    merged = [merge_text(r, m) for r, m in zip(results, program.border.merges, strict=True)]
    return [
        f"_check_taken({{{', '.join(f'{chr(34)}{n}{chr(34)}: {n}' for n in names)}}})",
        f"{', '.join(results)} = launch_views(",
        *(f"    {view}," for view in views),
        "    config=config,",
        ")",
        f"return {', '.join(merged)}",
    ]


def _table(tensors: Sequence[Tensor], names: FileNames) -> str:
    return "{" + ", ".join(f'"{names.tensor[t.name]}": {names.tensor[t.name]}' for t in tensors) + "}"


def _size_lines(inputs: Sequence[Tensor], kernels: Sequence[EmittedKernel], names: FileNames) -> list[str]:
    """One variable per axis, from the shapes of some inputs."""
    known = {a.base for t in inputs for a in t.named_axes}
    lines = [f'{names.size_of(a)} = sizes["{a.name}"]' for a in sorted(known)]
    used = {a.base for k in kernels for a in k.kernel.axes}
    used |= {a.base for k in kernels for s in k.kernel.stores for a in s.tensor.named_axes}
    for axis in sorted(used - known):
        if not isinstance(axis.extent, int):
            raise LoweringLimit(f"no input has axis {axis}, and its extent {axis.extent} is not a number")
        lines.append(f"{names.size_of(axis)} = {axis.extent}")
    return lines


def _allocation(tensor: Tensor, names: FileNames) -> str:
    shape = _tuple(["1" if a is None else names.size_of(a) for a in tensor.axes])
    variable = names.tensor[tensor.name]
    return f'{variable} = torch.empty({shape}, dtype=DTYPES["{variable}"], device=device)'


def _launch_lines(number: int, kernel: EmittedKernel, names: FileNames) -> list[str]:
    lines = [f'tuned = config["kernel_{number}"]']
    for value, variable in kernel.partials.by_value.items():
        lines.append(_workspace(value, variable, kernel.layout, names))
        if not is_wide(value.free, MOST_CELLS):
            lines.append(f'_check_span("{variable}", {variable})')
    for function in kernel.functions:
        lines += [f"{function.name}[{_grid(function, kernel.layout, names)}]("]
        lines += [f"    {a.name}={a.passed}," for a in function.arguments]
        lines += ['    num_warps=tuned["warps"],', '    num_stages=tuned["stages"],', ")"]
    grid = {a for f in kernel.functions for a in f.phase.grid}
    possibly_empty = [a for a in sorted(grid) if isinstance(a.extent, Size) and a.extent.low == 0]
    if possibly_empty:
        condition = " and ".join(f"{names.size_of(a)} > 0" for a in possibly_empty)
        lines = [f"if {condition}:", *(f"    {line}" for line in lines)]
    return lines


def _workspace(value: Expr, variable: str, layout: Layout, names: FileNames) -> str:
    dims = layout.dims(value.free)
    axes: tuple[Axis, ...] = (*sorted(value.free - set(dims)), *dims)
    shape = _tuple(['tuned["split"]', *(names.size_of(a) for a in axes)])
    return f"{variable} = torch.empty({shape}, dtype=torch.float32, device=device)"


def _grid(function: EmittedFunction, layout: Layout, names: FileNames) -> str:
    counts = [
        names.size_of(a) if a in layout.scalar else f'triton.cdiv({names.size_of(a)}, tuned["tile_{a}"])'
        for a in function.phase.grid
    ]
    tiles = " * ".join(counts) or "1"
    cells = function.phase.split is not None and function.phase.name == "main"
    return _tuple([tiles, 'tuned["split"]'] if cells else [tiles])


def _tuple(items: Sequence[str]) -> str:
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
