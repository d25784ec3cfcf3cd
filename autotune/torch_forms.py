"""Other ways to compute the unary functions of a printed torch program: a choice of the CPU instance.

A vectorised library may have a fast ``exp`` and a slow ``tanh``; which is faster depends on the compiler and the
machine, so it is measured. A form is printed as a small function of its own above the program, and the program
calls it where it would call torch's. Proofs do not look inside: the printed program is proved with torch's own
functions in the place of its forms (``load_torch(source, library=True)``), and each form is data that the tests hold
against its function in fifty digits, and in float32 over the whole range of magnitudes: like a library's own, it is
accurate to a few units of float32's last place, and programs in float64 have no forms. Where it is used, the numerical
contract decides, on hostile inputs too. (A form of tanh with ``expm1`` fails it: Inductor compiles ``expm1`` to a
difference.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Form:
    """One function, written with others."""

    function: str
    """Name of the function in the language: ``tanh``."""
    name: str
    """Name of the helper that is printed."""
    source: str
    """The helper: one tensor of floats in and out."""

    def library(self) -> Callable[..., object]:
        """Torch's own function, for which the helper stands."""
        from functools import partial

        import torch
        from torch.nn import functional

        if self.function == "gelu_tanh":
            return partial(functional.gelu, approximate="tanh")
        found: Callable[..., object] = getattr(torch, self.function)
        return found


_TANH = '''def tanh_by_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """tanh(x) to a few units of float32's last place; a series near zero, where a difference has no digits."""
    square = x * x
    series = x - x * square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * (62 / 2835))))
    return torch.where(square < 0.0625, series, 2.0 * torch.sigmoid(2.0 * x) - 1.0)
'''

_GELU_TANH = '''def gelu_by_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """gelu(x) by its tanh formula: (1 + tanh(u)) / 2 is sigmoid(2 u)."""
    return x * torch.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
'''

_EXP = '''def exp_by_exp2(x: torch.Tensor) -> torch.Tensor:
    """exp(x): reducing the argument of exp2 costs less."""
    return torch.exp2(1.4426950408889634 * x)
'''

FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        f.function: f
        for f in (
            Form("tanh", "tanh_by_sigmoid", _TANH),
            Form("gelu_tanh", "gelu_by_sigmoid", _GELU_TANH),
            Form("exp", "exp_by_exp2", _EXP),
        )
    }
)
"""By the function they compute."""
