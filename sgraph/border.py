"""Between what a function takes and returns and what its program reads and computes.

In a program every dimension of a tensor is one axis, read whole. A function may look at its tensors otherwise: as
heads (``x.view(B, L, H, D)`` of ``[B, L, H*D]``), or in parts (the halves of a rotary embedding, the three projections
in one weight). Then the program's inputs are views of the tensors that the function takes, which cost nothing, and
its outputs have dimensions that the function's results merge. Everything inside Prism looks at the program's tensors;
this module is what stands between them and a caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeGuard, TypeVar

from sgraph.axis import Axis
from sgraph.errors import InputError
from sgraph.program import Narrow, Output, Program, Split, Tensor, View


class _Array(Protocol):
    """What is used here of a numpy array or a torch tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def reshape(self, shape: Any, /) -> Any: ...


Some = TypeVar("Some", bound=_Array)


def parameters(program: Program) -> tuple[Tensor, ...]:
    """What the function takes, in order."""
    return program.inputs if program.border is None else program.border.parameters


def viewed(program: Program, given: Sequence[Some]) -> tuple[Some, ...]:
    """The program's inputs, as views of the arrays or tensors that the function takes.

    Raises:
        InputError: one does not have the dimensions that are viewed.
    """
    if program.border is None:
        return tuple(given)
    by_name = {p.name: x for p, x in zip(program.border.parameters, given, strict=True)}
    return tuple(_view(by_name[view.parameter], view) for view in program.border.views)


def _view(array: Some, view: View) -> Some:
    result: Some = array
    for step in view.steps:
        shape = tuple(result.shape)
        fits = step.dim < len(shape)
        if fits and isinstance(step, Split):
            fits = shape[step.dim] == math.prod(step.sizes)
        elif fits and isinstance(step, Narrow):
            fits = 0 <= _first(step, shape[step.dim]) <= shape[step.dim] - step.length
        if not fits:
            raise InputError(
                f"{view.parameter} has shape {tuple(array.shape)}, which does not fit {view_text(view)}",
                where=view.parameter,
            )
        if isinstance(step, Split):
            result = result.reshape((*shape[: step.dim], *step.sizes, *shape[step.dim + 1 :]))
        else:
            start = _first(step, shape[step.dim])
            result = result[(slice(None),) * step.dim + (slice(start, start + step.length),)]
    return result


def _first(step: Narrow, size: int) -> int:
    return step.start if step.start >= 0 else size + step.start


def returned(program: Program, outputs: Sequence[Some]) -> tuple[Some, ...]:
    """What the function returns, made of the program's outputs."""
    if program.border is None:
        return tuple(outputs)
    return tuple(
        x.reshape(merged(tuple(x.shape), merge)) for x, merge in zip(outputs, program.border.merges, strict=True)
    )


def merged(sizes: Sequence[int], merge: Sequence[int]) -> tuple[int, ...]:
    """The sizes of a result's dimensions, each the product of as many sizes as ``merge`` says."""
    rest = iter(sizes)
    return tuple(math.prod(next(rest) for _ in range(count)) for count in merge)


def result_shape(program: Program, output: Output, size: Callable[[Axis], int]) -> tuple[int, ...]:
    """The shape of what the function returns for an output, from the sizes of axes."""
    sizes = [1 if a is None else size(a) for a in output.tensor.axes]
    if program.border is None:
        return tuple(sizes)
    return merged(sizes, program.border.merges[program.outputs.index(output)])


def overlapping(program: Program) -> bool:
    """Whether two inputs may be views of the same elements, so that they cannot have contents of their own each."""
    if program.border is None:
        return False
    views = program.border.views
    return any(a.parameter == b.parameter and not _disjoint(a, b) for i, a in enumerate(views) for b in views[:i])


def _disjoint(a: View, b: View) -> bool:
    """Whether the first steps that differ take different indices of one dimension."""
    for one, other in zip(a.steps, b.steps, strict=False):
        if one == other:
            continue
        if not isinstance(one, Narrow) or not isinstance(other, Narrow) or one.dim != other.dim:
            return False
        first, second = sorted((one, other), key=lambda step: step.start)
        return first.start >= 0 and first.start + first.length <= second.start
    return False


def pinned(program: Program) -> frozenset[str]:
    """Names of the axes that cannot have other extents than their own, because views are written with these numbers."""
    if program.border is None:
        return frozenset()
    found: set[str] = set()
    takes = {p.name: p for p in program.border.parameters}
    for tensor, view in zip(program.inputs, program.border.views, strict=True):
        origin = list(range(len(takes[view.parameter].axes)))
        touched: set[int] = set()
        for step in view.steps:
            if isinstance(step, Split):
                touched.add(origin[step.dim])
                origin[step.dim : step.dim + 1] = [origin[step.dim]] * len(step.sizes)
            elif step.length > 1 or step.start not in (0, -1):
                touched.add(origin[step.dim])
        found |= {a.name for i, a in enumerate(takes[view.parameter].axes) if i in touched and _is_fixed(a)}
        found |= {a.name for i, a in zip(origin, tensor.axes, strict=True) if i in touched and _is_fixed(a)}
    return frozenset(found)


def _is_fixed(axis: Axis | None) -> TypeGuard[Axis]:
    """Whether a dimension has a fixed extent; of a symbolic one the range says that the view is there."""
    return axis is not None and isinstance(axis.extent, int)


# ----------------------------------------------------------------------------------------------- as torch


def view_text(view: View, name: str = "") -> str:
    """The view as torch code: ``x.narrow(2, 0, 64).unflatten(1, (32, 128))``."""
    return (name or view.parameter) + "".join(map(_step_text, view.steps))


def _step_text(step: Narrow | Split) -> str:
    if isinstance(step, Narrow):
        return f".narrow({step.dim}, {step.start}, {step.length})"
    return f".unflatten({step.dim}, ({', '.join(map(str, step.sizes))}))"


def merge_text(name: str, merge: Iterable[int]) -> str:
    """A result as torch code: ``out.flatten(2, 3)``."""
    text, first = "", 0
    for count in merge:
        # Flattened from the right, so that the numbers of the dimensions to the left stay.
        text = f".flatten({first}, {first + count - 1}){text}" if count > 1 else text
        first += count
    return name + text
