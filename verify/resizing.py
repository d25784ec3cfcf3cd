"""Whether a function computes its program at other extents than it was captured with.

Imports torch at once: import this module at first use only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch

from sgraph.border import parameters
from sgraph.evaluate import evaluate_program
from sgraph.program import DType, Program
from verify.inputs import make_inputs, resolve_sizes

RELATIVE: Final = 1e-7
ABSOLUTE: Final = 1e-9
"""How far two float64 evaluations of ordinary inputs may lie apart."""


def computes(
    program: Program, reference: Callable[..., object], sizes: Mapping[str, int] | None = None, *, seed: int = 0
) -> bool:
    """Whether a function computes a program at these extents, seen on one draw in float64.

    It need not where it depends on an extent: ``q.shape[-1] ** -0.5`` is a constant of the program.

    Raises:
        InputError: ``sizes`` does not fit the program.
    """
    inputs = make_inputs(program, resolve_sizes(program, sizes), seed=seed, dtype=DType.FP64)
    with torch.no_grad():
        result = reference(*(t.clone() for t in inputs))
    results: list[object] = list(result) if isinstance(result, tuple | list) else [result]
    with np.errstate(all="ignore"):
        said = evaluate_program(program, {t.name: i.numpy() for t, i in zip(parameters(program), inputs, strict=True)})
    if len(results) != len(said):
        return False
    for got, wanted in zip(results, said.values(), strict=True):
        if not isinstance(got, torch.Tensor) or got.numel() != wanted.size:
            return False
        expected = torch.from_numpy(np.ascontiguousarray(wanted).astype(np.float64)).reshape(got.shape)
        if not torch.allclose(got.double(), expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True):
            return False
    return True
