"""Two torch functions as pairs of expressions over the same axes.

Both functions are traced in one program over the same inputs, so that an axis which either of them joins or splits
is joined or split for both, and no axes have to be matched afterwards. To trace them as one, each pair of results is
returned as ``maximum(first + tag, second + tag)``; the tags, scalar inputs of their own, keep equal results apart and
tell the sides when the pair is taken apart again. A maximum and a sum are what minus infinity may meet.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from prism.frontend import capture
from prism.modules import state_of, with_state
from sgraph.axis import Axis, Extent, Size, ordered
from sgraph.border import overlapping
from sgraph.errors import InputError
from sgraph.expr import Expr, Op, rebuild, walk
from sgraph.program import Program

if TYPE_CHECKING:
    import torch

TAGS: Final = ("first_", "second_")
"""Names of the scalar inputs that mark whose result is whose, lengthened until no parameter has them."""

Sizes = Mapping[str, Sequence[Extent]]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same result of two functions, over the axes of one program."""

    name: str
    """Which result."""
    first: Expr
    """What the specification computes."""
    second: Expr
    """What is to be proved equal to it."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two functions captured side by side."""

    results: tuple[Pair, ...]
    """In the order in which the functions return them."""
    sizes: Mapping[str, int]
    """The extent of every axis by name in the example inputs."""
    facts: tuple[str, ...]
    """What capture assumed."""
    overlapping: bool = False
    """Whether the expressions read views of one input that overlap: as tensors of their own they may differ."""


def side_by_side(
    first: Callable[..., object],
    second: Callable[..., object],
    inputs: Sequence[torch.Tensor],
    *,
    sizes: Sizes | None = None,
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
) -> Pairs:
    """Two functions of the same inputs as expressions over the same axes.

    A module is a function of its inputs and then of its parameters and buffers, matched by position.

    Raises:
        InputError: one of them does not take the inputs, or their results differ in number, size or type.
        UnsupportedOperator: an operator has no meaning in the language.
        UnsupportedProgram: what is computed, returned, or decided lies outside the language.
    """
    import torch

    names, tensors = _parameters(first, second, inputs)
    tags = tuple(_unused(tag, names) for tag in TAGS)
    label = f"{_name(first)} and {_name(second)}"
    both = _both(with_state(first), with_state(second), (_name(first), _name(second)))
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(n, kind) for n in (*names, *tags)])
    setattr(both, "__signature__", signature)  # noqa: B010 (functions have no such attribute by their type)
    device = tensors[0].device if tensors else torch.device("cpu")
    scalars = (torch.zeros((), device=device), torch.zeros((), device=device))
    program = capture(
        both,
        (*tensors, *scalars),
        name=label,
        sizes=sizes,
        constant=constant,
        may_hold_minus_inf=may_hold_minus_inf,
    )
    results = tuple(
        Pair(f"result {number}" if len(program.outputs) > 1 else "the result", *_taken_apart(output.value, tags))
        for number, output in enumerate(program.outputs)
    )
    extents = _example_sizes(program, dict(zip(names, tensors, strict=True)), sizes or {})
    return Pairs(results, extents, program.facts, overlapping(program))


def _parameters(
    first: Callable[..., object], second: Callable[..., object], inputs: Sequence[torch.Tensor]
) -> tuple[list[str], tuple[torch.Tensor, ...]]:
    """Names, by the specification, and example tensors of everything that both functions take."""
    from prism.frontend.arguments import location, parameter_names

    states = (state_of(first), state_of(second))
    shapes = [[(tuple(t.shape), t.dtype) for t in state.values()] for state in states]
    if all(states) and shapes[0] != shapes[1]:
        raise InputError(
            f"the parameters and buffers of {_name(first)} and {_name(second)} differ in number, size or type",
            where=f"{location(first)}, {location(second)}",
            do="compare modules whose parameters match one by one, in order",
        )
    state = states[0] or states[1]
    tensors = (*inputs, *(t.detach() for t in state.values()))
    own = [inputs if held else tensors for held in states]
    names = parameter_names(first, own[0], _name(first), location(first))
    parameter_names(second, own[1], _name(second), location(second))
    for path in state if states[0] else ():
        wish = path.replace(".", "_")
        names.append(_unused(wish if wish.isidentifier() else f"state_{wish}", names))
    return names, tensors


def _unused(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _name(function: Callable[..., object]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _both(
    first: Callable[..., object], second: Callable[..., object], names: tuple[str, str]
) -> Callable[..., tuple[torch.Tensor, ...]]:
    """One function of the inputs and the two tags that returns the pairs of results."""
    import torch

    def both(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *inputs, left, right = values
        sides = [_results(f(*inputs), name) for f, name in zip((first, second), names, strict=True)]
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"{names[0]} returns {len(sides[0])} tensors, {names[1]} returns {len(sides[1])}",
                do="compare functions with the same results, in the same order",
            )
        for number, (a, b) in enumerate(zip(*sides, strict=True)):
            if tuple(a.shape) != tuple(b.shape) or a.dtype != b.dtype:
                raise InputError(
                    f"result {number} is {_described(a)} in {names[0]} and {_described(b)} in {names[1]}",
                    do="compare functions whose results have the same size and element type",
                )
        return tuple(torch.maximum(a + left, b + right) for a, b in zip(*sides, strict=True))

    return both


def _results(result: object, name: str) -> tuple[torch.Tensor, ...]:
    import torch

    found = tuple(cast("Sequence[object]", result)) if isinstance(result, tuple | list) else (result,)
    for value in found:
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            what = str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
            raise InputError(
                f"{name} returns {what}, which holds no real numbers", do="return floating-point tensors only"
            )
    return cast("tuple[torch.Tensor, ...]", found)


def _described(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}[{','.join(map(str, tensor.shape))}]"


def _taken_apart(value: Expr, tags: tuple[str, ...]) -> tuple[Expr, Expr]:
    """The two sides of ``maximum(first + tag, second + tag)``, which may stand in each branch of a choice."""
    pairs = [node for node in walk([value]) if _is_pair(node, tags)]
    assert pairs, f"{value} is no pair"
    left, right = (rebuild(value, {pair: pair.args[side].args[0] for pair in pairs}) for side in (0, 1))
    return left, right


def _is_pair(node: Expr, tags: tuple[str, ...]) -> bool:
    return node.op is Op.MAX2 and all(
        side.op is Op.ADD and side.args[1].op is Op.LEAF and side.args[1].name == tag
        for side, tag in zip(node.args, tags, strict=True)
    )


def _example_sizes(program: Program, examples: Mapping[str, torch.Tensor], sizes: Sizes) -> dict[str, int]:
    """The extent of every axis in the example: its own, or that of the dimension that a symbol was declared for."""
    symbols: dict[str, int] = {}
    for name, declared in sizes.items():
        for extent, actual in zip(declared, examples[name].shape, strict=True):
            if isinstance(extent, Size):
                symbols[extent.name] = int(actual)
    return {a.name: a.extent if isinstance(a.extent, int) else symbols[a.extent.name] for a in _axes(program)}


def _axes(program: Program) -> tuple[Axis, ...]:
    """Every axis that an input or an expression mentions."""
    found = {a.base for t in program.inputs for a in t.read().free}
    for node in walk(o.value for o in program.outputs):
        found |= {node.axis.base} if isinstance(node.attr, Axis) else {a.base for a in node.free}
    return ordered(found)
