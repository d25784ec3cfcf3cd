"""The unfused program as torch code: what an exported library falls back to, and what its tests compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autotune.torch_printer import print_torch
from sgraph.axis import Axis, Size
from sgraph.border import pinned
from sgraph.errors import UnsupportedProgram
from sgraph.expr import Attr, Expr, Read, make, walk
from sgraph.ir import Kernel, SGraph, Store
from sgraph.program import DType, Program, Tensor


def unfused(program: Program, function: str = "run") -> str:
    """The program as it was captured, printed as one torch function: no rewriting, no fusion.

    The text names no file of the machine it was captured on.

    Raises:
        UnsupportedOperator: the program calls a function torch has no name for.
    """
    stores = tuple(Store(o.tensor, o.value, o.value) for o in program.outputs)
    plain = replace(program, source="")
    return print_torch(SGraph(plain, (Kernel(program.name, stores),)), function)


def in_float64(program: Program) -> Program:
    """The same program with every floating-point tensor in float64."""
    return _with_tensors(program, _double, lambda axis: axis)


def of_any_extent(program: Program) -> Program:
    """The same program for any extents: every static one becomes a symbol.

    Literals stay what they were captured as: a scale of 1/sqrt(128) is that number at every head width. An extent
    that is the size of no input stays static, because a call could not tell it, and so does one that a view names.
    """
    given = {axis.name for tensor in program.inputs for axis in tensor.named_axes} - pinned(program)

    def free(axis: Axis) -> Axis:
        if isinstance(axis.extent, Size) or axis.name not in given:
            return axis
        return replace(axis, extent=Size(f"any_{axis.name}"))

    freed = _with_tensors(program, lambda tensor: tensor, free)
    try:
        unfused(freed)
    except UnsupportedProgram:
        return program
    return freed


def _double(tensor: Tensor) -> Tensor:
    floats = {DType.BF16, DType.FP16, DType.FP32}
    return replace(tensor, dtype=DType.FP64) if tensor.dtype in floats else tensor


def _with_tensors(program: Program, tensor_of: Callable[[Tensor], Tensor], axis_of: Callable[[Axis], Axis]) -> Program:
    def moved(tensor: Tensor) -> Tensor:
        return replace(tensor_of(tensor), axes=tuple(None if a is None else axis_of(a) for a in tensor.axes))

    values = _with_axes([o.value for o in program.outputs], axis_of)
    outputs = tuple(
        replace(output, tensor=moved(output.tensor), value=value)
        for output, value in zip(program.outputs, values, strict=True)
    )
    border = program.border
    if border is not None:
        border = replace(border, parameters=tuple(moved(t) for t in border.parameters))
    return replace(program, inputs=tuple(moved(t) for t in program.inputs), outputs=outputs, border=border)


def _with_axes(values: list[Expr], axis_of: Callable[[Axis], Axis]) -> list[Expr]:
    """The expressions over other axes of the same names; names decide what is bound where, so nothing is captured."""

    def moved(attr: Attr) -> Attr:
        if isinstance(attr, Axis):
            return axis_of(attr)
        if isinstance(attr, Read):
            return replace(attr, axes=tuple(axis_of(a) for a in attr.axes))
        return attr

    done: dict[Expr, Expr] = {}
    for node in walk(values):
        done[node] = make(node.op, tuple(done[a] for a in node.args), moved(node.attr))
    return [done[value] for value in values]
