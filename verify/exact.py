"""Gate 2, exact evaluation: the emitted text computes its program, number by number.

The text of a kernel, launcher included, is read and run program by program in exact arithmetic at small extents, and
compared with the program's own expressions at fifty digits. Nothing is shared with the code that wrote the text.
While it runs, accesses outside of tensors, reads of memory that nobody wrote, undefined lanes in results, programs
of one launch that use the same element, and elements that stay unwritten are found too.

What it cannot see is rounding: conversions between floating-point types change nothing here, and neither do the
last digits of a literal. That is the numerical contract's part.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from typing import Any, Final

import numpy as np

from sgraph.arithmetic import Arithmetic, Indecisive, precise
from sgraph.axis import Size
from sgraph.errors import KernelCheckFailed, PrismError
from sgraph.evaluate import evaluate, squeeze
from sgraph.expr import Op, walk
from sgraph.program import DType, Output, Program, Tensor
from verify.exact_fields import LARGEST_INPUT, Fields, FieldStatus, NotApplicable, agreement
from verify.exact_memory import Array, Fault, Memory, contiguous, scattered
from verify.exact_reals import Reals, from_mpmath
from verify.exact_text import Text
from verify.exact_tiles import Numbers

Config = Mapping[str, Mapping[str, int]]
"""Entries of an emitted text's ``CONFIG`` that are replaced."""
TOLERANCE: Final = 1e-35
"""Of an element, relative to the output's largest."""
ATTEMPTS: Final = 3
"""Draws before fifty digits are given up as too few."""


@dataclass(frozen=True, slots=True)
class Case:
    """One evaluation's parameters."""

    config: Config
    """Tiles and cells."""
    sizes: Mapping[str, int]
    """Extent of every axis by name."""


@dataclass(frozen=True, slots=True)
class ExactFailure:
    """Why a text is refused."""

    reason: str
    """What is wrong: a broken rule with its line, or the first wrong element."""
    case: Case
    """With which parameters."""
    output: str = ""
    """Name of the wrong output; empty if the text broke a rule."""
    index: tuple[int, ...] = ()
    """The first wrong element."""
    got: str = ""
    """What the text computes there."""
    expected: str = ""
    """What the program says."""


@dataclass(frozen=True, slots=True)
class ExactReport:
    """The outcome of exact evaluation."""

    passed: bool
    """Whether every evaluation agreed with the program."""
    evaluations: int
    """How many were made."""
    elements: int
    """How many elements were compared; those that the program leaves undefined are not."""
    programs: int
    """How many programs of kernels ran."""
    seconds: float
    """Wall time."""
    failure: ExactFailure | None = None
    """What is wrong, if something is."""
    fields: Mapping[str, FieldStatus] = field(default_factory=dict[str, FieldStatus])
    """What the finite fields ``p`` and ``q`` say, if they were asked."""

    def __str__(self) -> str:
        if self.failure is None:
            return f"exact: {self.elements} elements agree in {self.evaluations} evaluations"
        return f"not exact: {self.failure.reason}"


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What one run of a text left behind."""

    outputs: tuple[Array, ...]
    programs: int


def evaluate_exactly(
    source: str,
    inputs: Sequence[tuple[Tensor, Array]],
    config: Config | None = None,
    *,
    constants: Sequence[Fraction] = (),
    gaps: bool = False,
) -> tuple[Array, ...]:
    """The results of an emitted text's ``launch``, as arrays of fifty-digit decimals.

    Args:
        source: The text.
        inputs: Each tensor and its elements, in the order of the launcher's parameters.
        config: Replaces entries of the text's ``CONFIG``.
        constants: Numbers that literals of the text may be roundings of.
        gaps: Whether inputs lie in memory with gaps and their first dimension fastest, instead of contiguous.

    Raises:
        KernelCheckFailed: the launcher refuses the inputs, or the text breaks a rule while it runs.
        UnsupportedOperator: the text uses a construct or function that has no meaning here.
    """
    return _evaluated(source, inputs, config, Reals(constants), gaps).outputs


def _evaluated(
    source: str,
    inputs: Sequence[tuple[Tensor, Array]],
    config: Config | None,
    numbers: Numbers,
    gaps: bool,
) -> _Evaluated:
    with numbers.working():
        text = Text(source, numbers)
        given = [
            _memory(tensor, np.asarray(values), numbers, place + 2 if gaps else None)
            for place, (tensor, values) in enumerate(inputs)
        ]
        tables = None if config is None else {kernel: dict(entries) for kernel, entries in config.items()}
        results = text.launch(given, tables)
        if not all(isinstance(r, Memory) for r in results):
            raise KernelCheckFailed("launch returns something that is no tensor")
        try:
            return _Evaluated(tuple(r.contents() for r in results), text.programs)
        except Fault as fault:
            raise KernelCheckFailed(str(fault), where="after the last launch") from None


def _memory(tensor: Tensor, values: Array, numbers: Numbers, gap: int | None) -> Memory:
    """A tensor in memory, contiguous or with gaps that no other input has: a stride of another one is wrong here."""
    strides = scattered(values.shape, gap) if gap is not None else contiguous(values.shape)
    memory = Memory(tensor.name, values.shape, strides, tensor.dtype.value, writable=False)
    memory.fill(_elements(values, numbers) if memory.is_float else values.astype(object))
    return memory


def _elements(values: Array, numbers: Numbers) -> Array:
    """Doubles as exact numbers."""
    out = np.empty(values.shape, dtype=object)
    for position in np.ndindex(values.shape):
        out[position] = numbers.element(float(values[position]))
    return out


# ------------------------------------------------------------------------------------------------ the check


def check_exactly(
    program: Program,
    source: str,
    configs: Sequence[Config] = (),
    sizes: Sequence[Mapping[str, int]] = (),
    seed: int = 0,
    fields: bool = True,
) -> ExactReport:
    """Whether an emitted text computes its program exactly, at fresh random inputs for every case.

    Where a finite field has a meaning for the program it has to agree too; where it has none, the reals decide.

    Args:
        program: What has to be computed.
        source: The emitted text.
        configs: Tiles and cells of every evaluation; ``small_cases`` if there are none.
        sizes: Extent of every axis by name, one for every config.
        seed: Of the inputs.
        fields: Whether to ask the finite fields too, at the last case.

    Raises:
        KernelCheckFailed: fifty digits cannot tell, or the program is undefined at all of the inputs.
    """
    start = time.perf_counter()
    try:
        cases = [Case(c, s) for c, s in zip(configs, sizes, strict=True)] or small_cases(program, source)
    except PrismError as error:
        nothing = ExactFailure(str(error), Case({}, {}))
        return ExactReport(False, 0, 0, 0, time.perf_counter() - start, nothing)
    elements = programs = 0
    for number, case in enumerate(cases):
        found = _check_case(program, source, case, (seed, number))
        elements, programs = elements + found.elements, programs + found.programs
        if found.failure is not None:
            seconds = time.perf_counter() - start
            return ExactReport(False, number + 1, elements, programs, seconds, found.failure)
    if not elements:
        raise KernelCheckFailed("nothing was compared: the program is undefined at all inputs", where=program.name)
    said = _ask_fields(program, source, cases[-1], seed) if fields else {}
    wrong = [name for name, status in said.items() if status is FieldStatus.DIFFER]
    failure = ExactFailure(f"the finite field {wrong[0]} refutes it", cases[-1]) if wrong else None
    seconds = time.perf_counter() - start
    return ExactReport(not wrong, len(cases), elements, programs, seconds, failure, said)


@dataclass(frozen=True, slots=True)
class _Checked:
    """What one case found."""

    elements: int
    programs: int
    failure: ExactFailure | None


def _check_case(program: Program, source: str, case: Case, seed: tuple[int, ...]) -> _Checked:
    inputs, expected = _drawn(program, case, seed)
    pairs = [(t, inputs[t.name]) for t in program.inputs]
    try:
        found = _evaluated(source, pairs, case.config, Reals(_constants(program)), gaps=seed[-1] % 2 == 0)
    except PrismError as error:
        return _Checked(0, 0, ExactFailure(str(error), case))
    if len(found.outputs) != len(program.outputs):
        reason = f"launch returns {len(found.outputs)} tensors, the program has {len(program.outputs)}"
        return _Checked(0, found.programs, ExactFailure(reason, case))
    elements = 0
    for output, got, wanted in zip(program.outputs, found.outputs, expected, strict=True):
        compared, failure = _compare(output, got, wanted, case)
        elements += compared
        if failure is not None:
            return _Checked(elements, found.programs, failure)
    return _Checked(elements, found.programs, None)


def _constants(program: Program) -> list[Fraction]:
    return [c.value for c in walk(o.value for o in program.outputs) if c.op is Op.CONST]


def _drawn(program: Program, case: Case, seed: tuple[int, ...]) -> tuple[dict[str, Array], list[Array]]:
    """Random inputs and what the program makes of them.

    Raises:
        KernelCheckFailed: fifty digits cannot tell what it makes of them.
    """
    for attempt in range(ATTEMPTS):
        random = np.random.default_rng([*seed, attempt])
        inputs = {t.name: _draw(t, case.sizes, random) for t in program.inputs}
        values = {t.name: squeeze(t, inputs[t.name]) for t in program.inputs}
        try:
            return inputs, [_expected(o, values, case.sizes, precise()) for o in program.outputs]
        except Indecisive:
            continue
    raise KernelCheckFailed("fifty digits cannot tell what the program computes", where=program.name)


def _draw(tensor: Tensor, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
    """Multiples of 1/256 between -2 and 2; small integers; minus infinity in some places of a mask."""
    shape = tuple(1 if a is None else sizes[a.name] for a in tensor.axes)
    if tensor.dtype in {DType.INT32, DType.INT64, DType.BOOL}:
        return random.integers(0, 2 if tensor.dtype is DType.BOOL else 8, shape)
    values = random.integers(-512, 513, shape) / 256
    return values if tensor.finite else np.where(random.random(shape) < 0.25, -np.inf, values)


def _expected(output: Output, values: Mapping[str, Array], sizes: Mapping[str, int], numbers: Arithmetic) -> Array:
    """An output as the program says it, with every dimension of its tensor."""
    found = evaluate(output.value, values, sizes, numbers).ordered(output.tensor.named_axes)
    shape = tuple(1 if a is None else sizes[a.name] for a in output.tensor.axes)
    named = tuple(sizes[a.name] for a in output.tensor.named_axes)
    return np.broadcast_to(found, named).reshape(shape)


def _ask_fields(program: Program, source: str, case: Case, seed: int) -> dict[str, FieldStatus]:
    """What the finite fields say about a text that the reals accept."""
    unable = {"p": FieldStatus.NOT_APPLICABLE, "q": FieldStatus.NOT_APPLICABLE}
    random = np.random.default_rng([seed, 1])
    inputs = {t.name: _draw(t, case.sizes, random) for t in program.inputs}
    for tensor in program.inputs:
        if "float" in tensor.dtype.value:
            large = random.integers(1, LARGEST_INPUT, inputs[tensor.name].shape).astype(np.float64)
            inputs[tensor.name] = np.where(np.isneginf(inputs[tensor.name]), -np.inf, large)
    values = {t.name: squeeze(t, inputs[t.name]) for t in program.inputs}
    pairs = [(t, inputs[t.name]) for t in program.inputs]
    seen: list[tuple[Array, Array]] = []
    for selection in (1, 2):
        numbers = Fields(_constants(program), seed=seed, selection=selection)
        try:
            expected = [_expected(o, values, case.sizes, numbers.arithmetic()) for o in program.outputs]
            got = _evaluated(source, pairs, case.config, numbers, gaps=True).outputs
        except (NotApplicable, KernelCheckFailed):
            return unable  # the reals accepted the text: what fails here is the fields' meaning, not a rule
        flat = tuple(np.concatenate([a.reshape(-1) for a in side]) for side in (got, expected))
        if seen and any((a != b).any() for a, b in zip(seen[0], flat, strict=True)):
            return unable
        seen.append((flat[0], flat[1]))
        if not numbers.selected:
            break
    return agreement(numbers, *seen[0])


def _compare(output: Output, got: Array, wanted: Array, case: Case) -> tuple[int, ExactFailure | None]:
    """How many elements were compared, and the first that is wrong."""
    name = output.tensor.name
    if got.shape != wanted.shape:
        reason = f"{name} has shape {got.shape}, the program says {wanted.shape}"
        return 0, ExactFailure(reason, case, name)
    numbers = Reals()
    with numbers.working():
        exact: Any = np.asarray(np.frompyfunc(from_mpmath, 1, 1)(wanted), dtype=object) if wanted.size else wanted
        largest = max((abs(v) for v in exact.flat if v.is_finite()), default=numbers.integer(1))
        bound = largest * numbers.literal(TOLERANCE)
        results: Any = got
        elements = 0
        for index in np.ndindex(exact.shape):
            if exact[index].is_nan():
                continue
            elements += 1
            value = results[index]
            value = numbers.integer(value) if isinstance(value, int) else value
            if value == exact[index] or abs(value - exact[index]) <= bound:
                continue
            place = f"{name}[{', '.join(map(str, index))}]"
            texts = (f"{value:.12g}", f"{exact[index]:.12g}")
            reason = f"{place} is {texts[0]}, the program says {texts[1]} (sizes {dict(case.sizes)})"
            return elements, ExactFailure(reason, case, name, index, *texts)
    return elements, None


# ----------------------------------------------------------------------------------------------- small cases


RAGGED: Final = (9, 17, 25)
"""Extents of axes whose last tile is ragged: it holds one index only, so that a loop that ends one too early loses it,
and tiles are odd in number, so that the last group of them is not full."""
RAGGED_TILE: Final = 4
DIVISIBLE: Final = 4
"""Extent of axes without a ragged tile; so much smaller that no axis can stand in for another everywhere."""
DIVISIBLE_TILE: Final = 2
INDICES: Final = (2, 3)
"""The same where a text reads no tile of an axis: each of its indices is a program or a step of its own."""
SPARSE: Final = (5, 3, 1)
"""Extents in the case with cells that have no work."""
SHORT: Final = (3, 2)
"""Extents in the case with one tile of every axis, which it does not fill."""
CODES: Final = tuple(combinations(range(4), 2))
"""In which cases each axis is ragged: for any two axes there is a case where the first is ragged and not the second."""


def small_cases(program: Program, source: str) -> list[Case]:
    """Small tiles and extents that take both sides of every branch.

    Four cases with ragged tiles on some axes and none on the others, one with tiles longer than their axes, and one
    with extents of 1 and empty cells.

    Raises:
        KernelCheckFailed: the text has no table called ``CONFIG``.
        UnsupportedOperator: the text uses a construct or function that has no meaning here.
    """
    numbers = Reals()
    with numbers.working():
        text = Text(source, numbers)
    config: Any = text.globals.get("CONFIG")
    if not isinstance(config, dict):
        raise KernelCheckFailed("the text has no table called CONFIG")
    read = text.strings()
    stated = {name for entries in config.values() for name in entries}
    wanted: list[tuple[dict[str, int], dict[str, int], int]] = []
    axes = [a.name for a in program.axes]
    indexed = {a for a in axes if f"tile_{a}" in stated - read}
    sparse = {a: SPARSE[i % len(SPARSE)] for i, a in enumerate(axes)}
    wanted.append((sparse, {a: 1 if i % 2 else RAGGED_TILE for i, a in enumerate(axes)}, 4))
    wanted.append(({a: SHORT[i % len(SHORT)] for i, a in enumerate(axes)}, dict.fromkeys(axes, RAGGED_TILE), 2))
    for case in (1, 2, 3, 0):
        ragged = {a: case in CODES[i % len(CODES)] for i, a in enumerate(axes)}
        extents = {a: RAGGED[i % len(RAGGED)] if ragged[a] else DIVISIBLE for i, a in enumerate(axes)}
        extents |= {a: INDICES[ragged[a]] for a in indexed}
        wanted.append((extents, {a: RAGGED_TILE if ragged[a] else DIVISIBLE_TILE for a in axes}, 2))
    cases: list[Case] = []
    for extents, tiles, split in wanted:
        sizes = _sizes(program, extents)
        entries = {kernel: _small_entries(values, tiles, sizes, split) for kernel, values in config.items()}
        cases.append(Case(entries, sizes))
    return cases


def _sizes(program: Program, wanted: Mapping[str, int]) -> dict[str, int]:
    """An extent for every axis; those that no input has keep their own."""
    given = {a.base for t in program.inputs for a in t.named_axes}
    symbols: dict[Size, int] = {}
    sizes: dict[str, int] = {}
    for axis in program.axes:
        extent = axis.extent
        if isinstance(extent, Size):
            sizes[axis.name] = symbols.setdefault(extent, _allowed(extent, wanted[axis.name]))
        else:
            sizes[axis.name] = wanted[axis.name] if axis in given else extent  # texts are generic in their sizes
    return sizes


def _allowed(extent: Size, wanted: int) -> int:
    """The multiple of the divisor in the declared range that is next to a number."""
    lowest, highest = -(-extent.low // extent.divisor), extent.high // extent.divisor
    return max(lowest, min(-(-wanted // extent.divisor), highest)) * extent.divisor


def _small_entries(
    values: Mapping[str, int], tiles: Mapping[str, int], sizes: Mapping[str, int], split: int
) -> dict[str, int]:
    """One kernel's parameters, with tiles that take no axis more than about five steps."""
    entries = dict(values)
    for name in entries:
        if name.startswith("tile_"):
            axis = name.removeprefix("tile_")
            extent = sizes.get(axis, 1)
            entries[name] = max(tiles.get(axis, RAGGED_TILE), (1 << (extent - 1).bit_length()) // 4)
    if "split" in entries:
        entries["split"] = split  # without a split axis nothing reads it
    if "group" in entries:
        entries["group"] = 2
    return entries
