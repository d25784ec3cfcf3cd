"""The frontend: an ordinary torch function becomes a ``Program``.

``capture`` traces and denotes; ``load_function`` reads ``FILE::function``; ``parse_input_spec`` and
``override_inputs`` read ``--input NAME=dtype[sizes]``. Importing this package does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from prism.frontend.files import LoadedFunction, load_function
from prism.frontend.inputs import InputSpec, example_tensor, override_inputs, parse_input_spec

if TYPE_CHECKING:
    import torch

    from sgraph.axis import Size
    from sgraph.program import Program

__all__ = [
    "InputSpec",
    "LoadedFunction",
    "capture",
    "example_tensor",
    "load_function",
    "override_inputs",
    "parse_input_spec",
]


def capture(
    function: Callable[..., object],
    inputs: Sequence[torch.Tensor],
    *,
    name: str | None = None,
    sizes: Mapping[str, Sequence[int | Size]] | None = None,
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
) -> Program:
    """The program that a torch function or module computes.

    The function runs once on fake tensors of the examples' shapes and types; no tensor arithmetic is done. The
    parameters and buffers of an ``nn.Module`` become further inputs behind its own, constant between calls and
    named by their path with dots as underscores.

    Args:
        function: an ordinary function of tensors, or an ``nn.Module``.
        inputs: one example tensor per parameter; parameters beyond them keep their defaults.
        name: name of the program; the function's own if not given.
        sizes: for a parameter, the size of each of its dimensions, a ``Size`` where it is known only at call time.
            The example must have a size in the range. Dimensions with one ``Size`` name are equally long.
        constant: names of parameters whose contents stay the same between calls.
        may_hold_minus_inf: names of parameters that are additive masks. Others are finite: a call with minus infinity
            in them is outside the program.

    Raises:
        InputError: the examples do not fit the function.
        UnsupportedOperator: an operator has no meaning in the language; names the operator and the source line.
        UnsupportedProgram: what is computed, returned, or decided lies outside the language.
    """
    from prism.frontend.denotation import denote
    from prism.frontend.tracing import trace

    return denote(trace(function, inputs, name=name, sizes=sizes or {}, constant=constant, masks=may_hold_minus_inf))
