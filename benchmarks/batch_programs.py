"""Twenty small subgraphs of one signature, for ``benchmarks.batch``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu


def inputs() -> tuple[Tensor, ...]:
    """``x[8, 32]``, ``g[32]``, ``w[32, 48]``."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in ((8, 32), (32,), (32, 48)))


def p01(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A gain before a product."""
    return (x * g) @ w


def p02(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Relu before a product."""
    return torch.relu(x + g) @ w


def p03(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Silu before a product."""
    return silu(x * g) @ w


def p04(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A sigmoid behind a product."""
    return torch.sigmoid((x + g) @ w)


def p05(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Root mean square norm and product."""
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g) @ w


def p06(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Sum norm and product."""
    return (x * g / (x * x).sum(-1, keepdim=True)) @ w


def p07(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Euclidean norm and product."""
    return (x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1.0) * g) @ w


def p08(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A product scaled by a row's mean square."""
    return ((x + g) @ w) * (x * x).mean(-1, keepdim=True)


def p09(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A product scaled by a dot product."""
    return (x @ w) * (x * g).sum(-1, keepdim=True)


def p10(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Exponentials before a product."""
    return torch.exp(-(x * x) * g) @ w


def p11(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A row softmax with a gain."""
    return torch.softmax(x * g, -1) @ w


def p12(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Row maxima of a product."""
    return ((x * g) @ w).amax(-1)


def p13(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Row sums of a product."""
    return ((x + g) @ w).sum(-1)


def p14(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A squared product."""
    return ((x * g) @ w).pow(2)


def p15(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A product and its residual dot product."""
    return (x @ w) + (x * g).sum(-1, keepdim=True)


def p16(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Relu behind a product."""
    return torch.relu((x * g) @ w)


def p17(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Tanh before a product."""
    return torch.tanh(x * g) @ w


def p18(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """A product over a norm."""
    return ((x * g) @ w) / torch.sqrt((x * x).sum(-1, keepdim=True) + 1.0)


def p19(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Two scales around a product."""
    return 0.5 * (((2.0 * x) * g) @ w)


def p20(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """The largest entry's share before a product."""
    return (torch.exp(x - x.amax(-1, keepdim=True)) * g) @ w
