"""Whether example inputs fit a function, under which names they arrive, and which of their sizes are symbolic.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import Dim

from prism.frontend.trace import EXACT, REAL
from sgraph.axis import Extent, Size
from sgraph.errors import InputError, UnsupportedProgram


def location(function: Callable[..., object]) -> str:
    """``file:line`` of a function or of a module's forward."""
    target = function.forward if isinstance(function, torch.nn.Module) else inspect.unwrap(function)
    code = getattr(target, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def function_name(function: Callable[..., object]) -> str:
    """The program's name if none is given."""
    name = str(getattr(function, "__name__", type(function).__name__))
    return name if name.isidentifier() else "function"


def parameter_names(function: Callable[..., object], inputs: Sequence[object], label: str, where: str) -> list[str]:
    """The names under which the inputs arrive; parameters beyond them must have defaults."""
    target = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        signature = inspect.signature(target)
    except ValueError:  # functions of torch that are written in C++ have none
        return [f"x{i}" for i in range(len(inputs))]
    names: list[str] = []
    required = 0
    open_ended = ""
    for parameter in signature.parameters.values():
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                open_ended = parameter.name
            case inspect.Parameter.VAR_KEYWORD:
                pass
            case inspect.Parameter.KEYWORD_ONLY:
                if parameter.default is inspect.Parameter.empty:
                    raise UnsupportedProgram(
                        f"{label} needs the keyword-only argument `{parameter.name}`",
                        where=where,
                        do="give it a default, or wrap the function in one without it",
                    )
            case _:
                names.append(parameter.name)
                required += parameter.default is inspect.Parameter.empty
    if open_ended:
        names += [f"{open_ended}{i}" for i in range(len(inputs) - len(names))]
    if not required <= len(inputs) <= len(names):
        takes = f"{required}" if required == len(names) else f"{required} to {len(names)}"
        raise InputError(
            f"{label} takes {takes} inputs ({', '.join(names)}), {len(inputs)} were given",
            where=where,
            do="give one example tensor per parameter, in order",
        )
    return names[: len(inputs)]


def check_names(parameters: Sequence[str], given: Mapping[str, Collection[str]], label: str, where: str) -> None:
    """Refuse options that name a parameter which does not exist.

    Raises:
        InputError: there is one.
    """
    for argument, names in given.items():
        for name in names:
            if name not in parameters:
                raise InputError(
                    f"`{argument}` names `{name}`, which is no input of {label}",
                    where=where,
                    do=f"use one of: {', '.join(parameters)}",
                )


def check_input(parameter: str, value: object, label: str, where: str) -> torch.Tensor:
    """The example without its gradient.

    Raises:
        InputError: it is no tensor that the language has a meaning for.
    """
    if not isinstance(value, torch.Tensor):
        raise InputError(
            f"the input `{parameter}` of {label} is of type {type(value).__name__}, not a tensor",
            where=where,
            do="pass tensors only; fix other arguments with a default or functools.partial",
        )
    dtype = dtype_name(value.dtype)
    if dtype not in REAL | EXACT:
        raise InputError(
            f"the input `{parameter}` of {label} holds {dtype}; Prism computes with real numbers",
            where=where,
            do=f"pass one of {', '.join(sorted(REAL | EXACT))}",
        )
    if value.layout is not torch.strided:
        raise InputError(f"the input `{parameter}` of {label} is not a dense tensor", where=where, do="use .to_dense()")
    if 0 in value.shape:
        raise InputError(
            f"the input `{parameter}` of {label} is empty: {list(value.shape)}", where=where, do="give it elements"
        )
    return value.detach()


# ----------------------------------------------------------------------------------------- symbolic sizes


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbolic size while it is traced."""

    size: Size
    hint: int
    dim: object


def symbolic_sizes(
    parameters: Sequence[str],
    examples: Sequence[torch.Tensor],
    sizes: Mapping[str, Sequence[Extent]],
    where: str,
) -> list[tuple[Symbol | None, ...]]:
    """Per input and dimension the symbol, if its size is symbolic."""
    seen: dict[str, tuple[Size, int]] = {}
    table: list[tuple[Symbol | None, ...]] = []
    symbols: dict[str, Symbol] = {}
    for parameter, example in zip(parameters, examples, strict=True):
        declared = tuple(sizes.get(parameter, tuple(example.shape)))
        if len(declared) != example.dim():
            raise InputError(
                f"`{parameter}` has {example.dim()} dimensions, its declared sizes are {_sizes_text(declared)}",
                where=where,
                do=f"declare {example.dim()} sizes",
            )
        row: list[Symbol | None] = []
        for extent, actual in zip(declared, example.shape, strict=True):
            if isinstance(extent, Size):
                _check_size(extent, actual, seen, parameter, where)
                if extent.low < extent.high:
                    row.append(symbols.setdefault(extent.name, _symbol(extent, actual)))
                    continue
            elif extent != actual:
                raise InputError(
                    f"`{parameter}` has sizes {list(example.shape)}, declared were {_sizes_text(declared)}",
                    where=where,
                    do="make the example and the declaration agree",
                )
            row.append(None)
        table.append(tuple(row))
    return table


def _check_size(size: Size, actual: int, seen: dict[str, tuple[Size, int]], parameter: str, where: str) -> None:
    if not size.low <= actual <= size.high or actual % size.divisor:
        multiple = f", a multiple of {size.divisor}" if size.divisor > 1 else ""
        raise InputError(
            f"`{parameter}` has size {actual} where {size.name} is {size.low}..{size.high}{multiple}",
            where=where,
            do="give an example inside the range",
        )
    if seen.setdefault(size.name, (size, actual)) != (size, actual):
        raise InputError(
            f"the size {size.name} is declared twice, with different ranges or different examples",
            where=f"{where} ({parameter})",
            do="use one range and one example size for one name",
        )


def _symbol(size: Size, actual: int) -> Symbol:
    """The symbol that torch traces with. Torch gives sizes 0 and 1 a meaning of their own, so 1 is never traced."""
    step = size.divisor
    low, high = -(-max(size.low, 1) // step), size.high // step
    hint = actual if actual > 1 else step * min(max(low, 2), high)
    if step == 1:
        return Symbol(size, hint, Dim(size.name, min=low, max=high))
    return Symbol(size, hint, step * Dim(f"_{size.name}", min=low, max=high))


def stand_in(example: torch.Tensor, row: Sequence[Symbol | None]) -> torch.Tensor:
    """The tensor to trace with: the example, or an unwritten one where a symbolic size needs another value."""
    shape = tuple(n if s is None else s.hint for n, s in zip(example.shape, row, strict=True))
    return example if shape == tuple(example.shape) else torch.empty(shape, dtype=example.dtype, device=example.device)


def _sizes_text(sizes: Sequence[Extent]) -> str:
    return f"[{', '.join(map(str, sizes))}]"


def dtype_name(dtype: torch.dtype) -> str:
    """Torch's name for an element type, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")
