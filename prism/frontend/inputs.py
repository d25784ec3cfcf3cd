"""Example inputs from the command line: ``x=bf16[M:1..64,4096]``.

Grammar::

    input ::= NAME "=" dtype "[" (size ("," size)*)? "]"
    size  ::= NUMBER | SYMBOL ":" NUMBER ".." NUMBER (":" DIVISOR)?
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from sgraph.axis import Extent, Size
from sgraph.errors import InputSpecError
from sgraph.program import DType

if TYPE_CHECKING:
    import torch

    from prism.frontend.files import LoadedFunction

REPRESENTATIVE_SIZE = 16
"""A symbolic size is this long in an example, if its range allows."""

SHAPE_OF_A_SPEC = "write NAME=dtype[size,...], such as x=bf16[8,4096] or x=bf16[M:1..64,4096]"

DTYPES = {
    name: dtype
    for dtype in DType
    for name in (dtype.short, dtype.value, dtype.short.replace("fp", "f"), dtype.short.replace("fp", "float"))
}
"""Element types by every name they are known under: ``fp32``, ``f32``, ``float32``."""

_SIZE = re.compile(r"(?:(?P<number>\d+)|(?P<symbol>[A-Za-z_]\w*):(?P<low>\d+)\.\.(?P<high>\d+)(?::(?P<divisor>\d+))?)")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What one input of a program looks like."""

    name: str
    """Name of the parameter."""
    dtype: DType
    """Element type."""
    sizes: tuple[Extent, ...]
    """Size of each dimension."""

    def __str__(self) -> str:
        return f"{self.name}={self.dtype.short}[{','.join(_size_text(s) for s in self.sizes)}]"


def _size_text(size: Extent) -> str:
    if isinstance(size, int):
        return str(size)
    return f"{size.name}:{size.low}..{size.high}" + (f":{size.divisor}" if size.divisor > 1 else "")


def parse_input_spec(text: str) -> InputSpec:
    """Read ``NAME=dtype[size,...]``.

    A size is a number or ``SYMBOL:LOW..HIGH``, optionally with a divisor behind a second colon.

    Raises:
        InputSpecError: the text does not follow the grammar; says at which character.
    """
    compact = text.strip()
    name, equals, rest = compact.partition("=")
    name = name.strip()
    if not equals:
        _refuse(text, len(compact), "there is no `=`")
    if not name.isidentifier() or keyword.iskeyword(name):
        _refuse(text, 0, f"`{name}` is no parameter name")
    start = compact.index("=") + 1
    dtype_text, bracket, inside = rest.partition("[")
    dtype = DTYPES.get(dtype_text.strip())
    if dtype is None:
        known = ", ".join(d.short for d in DType)
        _refuse(text, start, f"`{dtype_text.strip()}` is no element type", f"use one of: {known}")
    start += len(dtype_text) + 1
    if not bracket or not inside.endswith("]"):
        _refuse(text, len(compact), "the sizes are not in `[` and `]`")
    return InputSpec(name, dtype, tuple(_sizes(text, inside[:-1], start)))


def _sizes(text: str, inside: str, start: int) -> Iterator[Extent]:
    if not inside.strip():
        return
    seen: dict[str, Size] = {}
    for part in inside.split(","):
        match = _SIZE.fullmatch(part.strip())
        if match is None:
            _refuse(text, start, f"`{part.strip()}` is no size", "write a number or a range such as M:1..64")
        size = _size(text, match, start)
        if isinstance(size, Size) and seen.setdefault(size.name, size) != size:
            _refuse(text, start, f"{size.name} has two ranges", "give one symbol one range")
        yield size
        start += len(part) + 1


def _size(text: str, match: re.Match[str], start: int) -> Extent:
    if match["number"] is not None:
        number = int(match["number"])
        if number < 1:
            _refuse(text, start, "the size is 0", "write a size of at least 1")
        return number
    low, high, divisor = int(match["low"]), int(match["high"]), int(match["divisor"] or 1)
    if divisor < 1:
        _refuse(text, start, "the divisor is 0", "write a divisor of at least 1")
    if not 1 <= low <= high:
        _refuse(text, start, f"the range {low}..{high} is empty or starts below 1", "write LOW..HIGH, 1 <= LOW <= HIGH")
    if high // divisor * divisor < low:
        _refuse(text, start, f"no multiple of {divisor} lies in {low}..{high}", "widen the range or drop the divisor")
    return Size(match["symbol"], low, high, divisor)


def _refuse(text: str, position: int, seen: str, do: str = SHAPE_OF_A_SPEC) -> NoReturn:
    raise InputSpecError(f"cannot read `{text}`: {seen}", where=f"character {position + 1}", do=do)


def representative(size: Extent) -> int:
    """The value that a size takes in an example: 16 if possible, else the nearest value that it can take."""
    if isinstance(size, int):
        return size
    lowest = -(-size.low // size.divisor) * size.divisor
    highest = size.high // size.divisor * size.divisor
    return min(max(REPRESENTATIVE_SIZE // size.divisor * size.divisor, lowest), highest)


def example_tensor(spec: InputSpec, seed: int) -> torch.Tensor:
    """A tensor as described, normally distributed; integers are drawn from 0..15 and Booleans evenly."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = tuple(representative(s) for s in spec.sizes)
    dtype: torch.dtype = getattr(torch, spec.dtype.value)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=dtype)
    high = 2 if spec.dtype is DType.BOOL else 16
    return torch.randint(0, high, shape, generator=generator).to(dtype)


def override_inputs(
    loaded: LoadedFunction, specs: Sequence[InputSpec]
) -> tuple[tuple[torch.Tensor, ...], dict[str, tuple[Extent, ...]]]:
    """The example inputs with some replaced by name, and the sizes of those that have symbolic ones.

    A symbolic size holds for every input: where an input that is not overridden must follow, override it too.

    Raises:
        InputSpecError: a name is no parameter of the function, or is given twice, or one symbol has two ranges.
    """
    parameters = loaded.parameters
    inputs = list(loaded.inputs)
    sizes: dict[str, tuple[Extent, ...]] = {}
    symbols: dict[str, Size] = {}
    seen: set[str] = set()
    for number, spec in enumerate(specs):
        if spec.name not in parameters:
            raise InputSpecError(
                f"{loaded.name} has no parameter `{spec.name}`",
                where=f"--input {spec}",
                do=f"use one of: {', '.join(parameters)}",
            )
        if spec.name in seen:
            raise InputSpecError(f"`{spec.name}` is given twice", where=f"--input {spec}", do="give it once")
        seen.add(spec.name)
        for size in spec.sizes:
            if isinstance(size, Size) and symbols.setdefault(size.name, size) != size:
                raise InputSpecError(
                    f"{size.name} has two ranges", where=f"--input {spec}", do="give one symbol one range"
                )
        inputs[parameters.index(spec.name)] = example_tensor(spec, seed=number)
        if any(isinstance(s, Size) for s in spec.sizes):
            sizes[spec.name] = spec.sizes
    return tuple(inputs), sizes
