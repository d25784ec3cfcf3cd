"""The border of a captured program: which inputs are views of what the function takes, which outputs are merged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain, count
from math import prod

from prism.frontend.sources import Source, Sources
from sgraph.axis import Axis
from sgraph.expr import leaves
from sgraph.program import Border, Output, Tensor, View


def crossed(
    takes: Sequence[Tensor], outputs: Sequence[Output], merges: tuple[tuple[int, ...], ...], sources: Sources
) -> tuple[tuple[Tensor, ...], Border | None]:
    """The program's inputs and its border; None where the function takes and returns just what the program does.

    Args:
        takes: what the function takes: names, types and flags; without axes.
        outputs: the program's.
        merges: how many dimensions of each output each dimension of the function's result merges.
        sources: what the outputs read.
    """
    read = {x.name for x in leaves(o.value for o in outputs)}
    inputs: list[Tensor] = []
    views: list[View] = []
    for tensor in takes:
        names = [n for n in sources.views_of(tensor.name) if n in read] or [tensor.name]
        for name in names:
            source = sources[name]
            inputs.append(replace(tensor, name=name, axes=source.axes))
            views.append(View(tensor.name, source.whole_steps))
    if not any(view.steps for view in views) and all(set(merge) <= {1} for merge in merges):
        return tuple(inputs), None
    used = {a.name for t in (*inputs, *(o.tensor for o in outputs)) for a in t.named_axes}
    used |= {a.name for o in outputs for x in leaves([o.value]) for a in x.axes}
    parameters = tuple(replace(t, axes=_own_axes(sources[t.name], used)) for t in takes)
    return tuple(inputs), Border(parameters, tuple(views), merges)


def _own_axes(source: Source, used: Collection[str]) -> tuple[Axis | None, ...]:
    """One axis per dimension of what the function takes; a split one has an axis of its own."""
    axes: list[Axis | None] = []
    for dim in source.dims:
        if len(dim) > 1:
            wish = "_".join(a.name for a in dim)
            name = next(n for n in chain([wish], (f"{wish}_{i}" for i in count(1))) if n not in used)
            axes.append(Axis(name, prod(a.extent for a in dim if isinstance(a.extent, int))))
        else:
            axes.append(dim[0] if dim else None)
    return tuple(axes)
