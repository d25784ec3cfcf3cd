"""What a launcher may use: the few functions of Python, torch and triton that emitted launchers are written with.

Tensors are ``exact_memory.Memory``: shapes, strides and element types as torch has them, contents as exact numbers.
``torch.empty`` makes memory that nobody has written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sgraph.program import DType
from verify.exact_memory import Fault, Memory, contiguous
from verify.exact_tiles import DTypeName

DEVICE: Final = "exact"
"""The one device that tensors are on."""


class LauncherError(Exception):
    """What the launcher raises; the text starts with the name of its exception."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """The value of an attribute."""

    value: Any


@dataclass(frozen=True, slots=True)
class Method:
    """An attribute that is called."""

    call: Callable[..., Any]


def _dtypes() -> dict[str, DTypeName]:
    names = [d.value for d in DType]
    return {f"{module}.{name}": DTypeName(name) for module in ("torch", "tl") for name in names}


CONSTANTS: Final[Mapping[str, Any]] = {**_dtypes(), "torch.Tensor": Memory}
"""Names that stand for a value."""


def host_attribute(value: Any, name: str) -> Attribute | Method | None:
    """An attribute of a value that launchers handle; None if it has no meaning."""
    match value, name:
        case Memory(), "shape":
            return Attribute(value.shape)
        case Memory(), "dtype":
            return Attribute(DTypeName(value.dtype))
        case Memory(), "device":
            return Attribute(DEVICE)
        case Memory(), "is_meta" | "_version":
            return Attribute(0)
        case Memory(), "is_inference":
            return Method(lambda: False)
        case Memory(), "data_ptr":
            return Method(lambda: id(value))
        case Memory(), "dim":
            return Method(lambda: len(value.shape))
        case Memory(), "stride":
            return Method(value.stride)
        case dict(), "items":
            return Method(value.items)
        case dict(), "get":
            return Method(value.get)
        case dict(), "setdefault":
            return Method(value.setdefault)
        case dict(), "clear":
            return Method(value.clear)
        case str(), "join":
            return Method(value.join)
        case type(), "__name__":
            return Attribute(value.__name__)
        case _:
            return None


def _empty(shape: Any, *, dtype: DTypeName, device: str) -> Memory:
    if device != DEVICE:
        raise Fault(f"torch.empty on {device}")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise Fault(f"torch.empty of shape {shape}")
    return Memory("", tuple(shape), contiguous(tuple(shape)), dtype.name)


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length() if n > 0 else 0


def _zip(*sequences: Any) -> list[tuple[Any, ...]]:
    return list(zip(*sequences, strict=False))


def _error(name: str) -> Callable[..., LauncherError]:
    return lambda *words: LauncherError(": ".join([name, *map(str, words)]))


def grid_of(value: Any) -> tuple[int, ...]:
    """A grid as it is written in a launch.

    Raises:
        Fault: it is no tuple of one to three positive numbers.
    """
    if not isinstance(value, tuple) or not 1 <= len(value) <= 3:
        raise Fault("a grid that is no tuple of one to three numbers")
    if not all(isinstance(n, int) and n > 0 for n in value):
        raise Fault(f"a grid of {value}")
    return value


def raise_error(error: object) -> None:
    """What ``raise`` does in a launcher."""
    if not isinstance(error, LauncherError):
        raise Fault("raises something that is no error")
    raise error


def integer_operator(symbol: str, a: int, b: int) -> int:
    """Arithmetic of sizes in the launcher."""
    match symbol:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b
        case "%":
            return a % b
        case "**" if b >= 0:
            return a**b
        case _:
            raise Fault(f"{symbol} in the launcher")


HOST_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "torch.empty": _empty,
    "triton.cdiv": _cdiv,
    "triton.next_power_of_2": _next_power_of_2,
    "any": any,
    "isinstance": isinstance,
    "len": len,
    "max": max,
    "min": min,
    "set": set,
    "sum": sum,
    "tuple": tuple,
    "type": type,
    "zip": _zip,
}
"""Functions by their name in the text."""
ERRORS: Final[Mapping[str, Callable[..., LauncherError]]] = {n: _error(n) for n in ("TypeError", "ValueError")}
"""Exceptions that launchers raise."""
