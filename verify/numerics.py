"""Gate 3, the numerical contract: a kernel may round differently from eager, not worse.

The reference is the original torch function evaluated in float64; the same function in its own types gives
eager's error. Per row of an output (its last dimension)::

    max |y - ref|  <=  max(2 * eager's error, 2 ulp of the output's type at the row's max |ref|)

and no NaN or infinity where neither the reference nor eager has one. Eager's error on a row is the larger of two:
what it made of this row, and what its worst row says a row can suffer. The second is needed because the error of a
single row is often zero by luck. It is the worst relative error times this row's max |ref|, but never more than
the worst absolute error: so neither a row of large numbers nor a row that cancels to almost nothing loosens the
bound of the others. Errors below the smallest normal float32 count as none: arithmetic units may flush there.

``float32`` mode is for exact arithmetic (an interpreter, TF32 off): inputs in float32, tolerance 1e-5 of the row's
max |ref| in place of the ulps. Mixed types hide real faults behind their own rounding; this mode does not.

Imports torch at once: import this module at first use only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch

from sgraph.border import parameters, result_shape, viewed
from sgraph.program import DType, Program, Tensor
from verify.inputs import HOSTILE, Distribution, is_float, make_inputs, resolve_sizes, size_at, torch_dtype

Mode = Literal["contract", "float32"]
EAGER_FACTOR: Final = 2.0
ULPS: Final = 2.0
FLOAT32_TOLERANCE: Final = 1e-5
FLUSHED: Final = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Failure:
    """The first element of an output that breaks the contract."""

    output: str
    """Name of the output."""
    reason: str
    """What is wrong, with the figures."""
    index: tuple[int, ...] = ()
    """Where, empty if the output as a whole is wrong."""
    got: float = 0.0
    """The kernel's element."""
    expected: float = 0.0
    """The float64 reference's."""
    bound: float = 0.0
    """How far the two may lie apart."""


@dataclass(frozen=True, slots=True)
class Round:
    """One set of inputs."""

    name: str
    """The distribution they were drawn from, and ``odd sizes``."""
    seed: int
    """Of the inputs."""
    sizes: Mapping[str, int]
    """Extent of each axis."""
    worst_ratio: float
    """Largest error over its bound; up to 1 is kept. Infinite where an output is wrong as a whole."""
    failure: Failure | None
    """None if the contract was kept."""


@dataclass(frozen=True, slots=True)
class NumericsReport:
    """What the numerical contract found."""

    mode: Mode
    """Which bound was applied."""
    rounds: tuple[Round, ...]
    """In order of running."""

    @property
    def passed(self) -> bool:
        """Whether every round kept the contract."""
        return all(r.failure is None for r in self.rounds)

    @property
    def worst_ratio(self) -> float:
        """Largest error over its bound in any round."""
        return max((r.worst_ratio for r in self.rounds), default=0.0)

    def __str__(self) -> str:
        lines = [
            f"{'kept' if self.passed else 'broken'} ({self.mode}): worst error {self.worst_ratio:.3g} of its bound"
        ]
        lines += [f"  {r.name}, seed {r.seed}: {r.failure.reason}" for r in self.rounds if r.failure]
        return "\n".join(lines)


def check_numerics(  # noqa: PLR0913 - keyword arguments of one call, each with a default
    program: Program,
    run: Callable[..., object],
    reference: Callable[..., object],
    *,
    sizes: Mapping[str, int] | None = None,
    dtype: DType | None = None,
    rounds: int = 3,
    seed: int = 0,
    hostile: bool = True,
    mode: Mode = "contract",
    device: str = "cpu",
) -> NumericsReport:
    """Run a kernel on fresh inputs and hold it to the contract.

    Args:
        program: What is computed: inputs, outputs and their types.
        run: The kernel: tensors in the order of the program's inputs to a tensor or a sequence of them.
        reference: The original torch function, called the same way.
        sizes: Extents by axis name where they differ from the program's.
        dtype: Element type in place of the float inputs' and outputs' own.
        rounds: How many rounds with normal inputs, each with its own seed.
        seed: Of the first round; the others follow.
        hostile: Whether one round of every hostile distribution is added, and one of odd sizes.
        mode: Which bound.
        device: Where the inputs lie and the outputs must.

    Raises:
        InputError: ``sizes`` does not fit the program.
    """
    kind = DType.FP32 if mode == "float32" else dtype
    plans = [(Distribution.NORMAL, False)] * rounds
    if hostile:
        masked = any(not t.finite for t in program.inputs)
        plans += [(d, False) for d in HOSTILE if masked or d is not Distribution.MASKED_ROWS]
        if resolve_sizes(program, sizes, odd=True) != resolve_sizes(program, sizes):
            plans.append((Distribution.NORMAL, True))
    done: list[Round] = []
    for offset, (distribution, odd) in enumerate(plans):
        extents = resolve_sizes(program, sizes, odd=odd)
        inputs = make_inputs(program, extents, seed=seed + offset, distribution=distribution, dtype=kind, device=device)
        ratio, failure = Prepared.of(program, reference, inputs, dtype=kind, mode=mode).check_once(run)
        name = f"{distribution.value}, odd sizes" if odd else distribution.value
        done.append(Round(name, seed + offset, extents, ratio, failure))
    return NumericsReport(mode, tuple(done))


@dataclass(frozen=True, slots=True)
class Prepared:
    """One set of inputs with its references worked out, to hold several kernels to."""

    program: Program
    """What is computed."""
    inputs: tuple[torch.Tensor, ...]
    """In the order of the program's inputs."""
    sizes: Mapping[str, int]
    """Extent of each axis."""
    exact: tuple[torch.Tensor, ...]
    """The reference's outputs in float64."""
    eager: tuple[torch.Tensor, ...]
    """The reference's outputs in its own types."""
    dtype: DType | None
    """Element type in place of the float outputs' own."""
    mode: Mode
    """Which bound."""

    @classmethod
    def of(
        cls,
        program: Program,
        reference: Callable[..., object],
        inputs: Sequence[torch.Tensor],
        *,
        dtype: DType | None = None,
        mode: Mode = "contract",
    ) -> Prepared:
        """Evaluate the reference on these inputs, in float64 and in its own types."""
        sizes = {
            axis.name: int(size)
            for tensors, all_given in ((parameters(program), inputs), (program.inputs, viewed(program, inputs)))
            for tensor, given in zip(tensors, all_given, strict=True)
            for axis, size in zip(tensor.axes, given.shape, strict=True)
            if axis is not None
        }
        with torch.no_grad(), _exact_products():
            exact = _outputs(reference(*(t.double() if t.is_floating_point() else t.clone() for t in inputs)))
            eager = _outputs(reference(*(t.clone() for t in inputs)))
        return cls(program, tuple(inputs), sizes, tuple(exact), tuple(eager), dtype, mode)

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """The shape of each result."""
        return [result_shape(self.program, o, lambda a: size_at(a, self.sizes)) for o in self.program.outputs]

    def check_once(self, run: Callable[..., object]) -> tuple[float, Failure | None]:
        """The worst error of one run over its bound, and the first failure."""
        tensors = [o.tensor for o in self.program.outputs]
        kinds = [self.dtype if self.dtype is not None and is_float(t.dtype) else t.dtype for t in tensors]
        with torch.no_grad(), _exact_products():
            given = [t.clone() for t in self.inputs]
            _poison(self._shapes, kinds, self.inputs)
            got = _outputs(run(*given))
        wrong = _changed(self.program, self.inputs, given) or _misshapen(tensors, kinds, got, self._shapes, self.inputs)
        if wrong is not None:
            return float("inf"), wrong
        worst, first = 0.0, None
        for tensor, result, ref, own in zip(tensors, got, self.exact, self.eager, strict=True):
            ratio, failure = _compare(tensor.name, result, ref, own, self.mode)
            worst, first = max(worst, ratio), first or failure
        return worst, first

    def check(self, run: Callable[..., object]) -> NumericsReport:
        """One round as a report."""
        ratio, failure = self.check_once(run)
        return NumericsReport(self.mode, (Round("the example inputs", 0, self.sizes, ratio, failure),))


def _outputs(result: object) -> list[torch.Tensor]:
    """What a function returned, as a list of tensors; anything else is kept out."""
    items: list[object] = list(result) if isinstance(result, tuple | list) else [result]
    return [x for x in items if isinstance(x, torch.Tensor)]


def _poison(shapes: Sequence[tuple[int, ...]], kinds: Sequence[DType], inputs: Sequence[torch.Tensor]) -> None:
    """Leave NaN in the memory that the allocator hands out next, so that what is never written shows."""
    device = inputs[0].device if inputs else torch.device("cpu")
    floats = [(s, k) for s, k in zip(shapes, kinds, strict=True) if is_float(k)]
    blocks = [torch.full(s, torch.nan, dtype=torch_dtype(k), device=device) for s, k in floats]
    del blocks


@contextlib.contextmanager
def _exact_products() -> Generator[None]:
    """Float32 products in float32 (TF32 off) inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _changed(program: Program, before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Failure | None:
    for tensor, old, new in zip(parameters(program), before, after, strict=True):
        if not bool(((old == new) | (old.isnan() & new.isnan())).all()):
            return Failure(tensor.name, f"the kernel changed its input {tensor.name}")
    return None


def _misshapen(
    tensors: Sequence[Tensor],
    kinds: Sequence[DType],
    got: Sequence[torch.Tensor],
    shapes: Sequence[tuple[int, ...]],
    inputs: Sequence[torch.Tensor],
) -> Failure | None:
    if len(got) != len(tensors):
        return Failure("", f"{len(got)} tensors returned, {len(tensors)} expected")
    for tensor, kind, result, shape in zip(tensors, kinds, got, shapes, strict=True):
        dtype = torch_dtype(kind)
        if tuple(result.shape) != shape:
            return Failure(tensor.name, f"{tensor.name} has shape {tuple(result.shape)}, {shape} expected")
        if result.dtype != dtype:
            return Failure(tensor.name, f"{tensor.name} is {result.dtype}, {dtype} expected")
        if inputs and result.device != inputs[0].device:
            return Failure(tensor.name, f"{tensor.name} lies on {result.device}, {inputs[0].device} expected")
    return None


def _compare(
    name: str, got: torch.Tensor, exact: torch.Tensor, eager: torch.Tensor, mode: Mode
) -> tuple[float, Failure | None]:
    """Largest error over its bound, and the first element beyond it."""
    if not got.is_floating_point():
        return _compare_exactly(name, got, eager)
    if not got.numel():
        return 0.0, None
    value, ref, own = (_rows(t) for t in (got, exact, eager))
    defined = ref.isfinite() & own.isfinite()
    bound = row_bounds(ref, own, defined, got.dtype, mode)
    error = torch.where(defined, (value - ref).abs(), 0.0)
    # Written so that a NaN is beyond every bound; 0 against a bound of 0 is within it.
    within = error <= bound
    ratio = torch.where(within, error / bound.clamp_min(FLUSHED), torch.where(error > bound, error / bound, torch.inf))
    worst = float(ratio.max())
    if bool(within.all()):
        return worst, None
    flat = int((~within).flatten().int().argmax())
    row, column = divmod(flat, value.shape[1])
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), got.shape)) if got.ndim else ()
    seen, wanted, allowed = float(value[row, column]), float(ref[row, column]), float(bound[row, 0])
    place = f"{name}[{', '.join(map(str, index))}]"
    reason = f"{place} is {seen:.9g}, {wanted:.9g} expected within {allowed:.3g}"
    return worst, Failure(name, reason, index, seen, wanted, allowed)


def row_bounds(
    exact: torch.Tensor, eager: torch.Tensor, defined: torch.Tensor, dtype: torch.dtype, mode: Mode
) -> torch.Tensor:
    """How far each row ``[rows, 1]`` may lie from the reference ``[rows, columns]``, all in float64.

    Args:
        exact: The reference in float64.
        eager: The reference in its own types.
        defined: Elements that count.
        dtype: The output's type.
        mode: Which bound.
    """
    largest = torch.where(defined, exact.abs(), 0.0).amax(1, keepdim=True)
    error = torch.where(defined, (eager - exact).abs(), 0.0).amax(1, keepdim=True)
    relative = torch.where(largest > 0, error / largest.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    usual = torch.minimum(relative.max() * largest, error.max())
    by_eager = EAGER_FACTOR * torch.maximum(error, usual)
    allowed = FLOAT32_TOLERANCE * largest if mode == "float32" else ULPS * ulp(largest, dtype)
    return torch.maximum(by_eager, allowed).clamp_min(FLUSHED)


def ulp(magnitude: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The spacing of a type's numbers at float64 magnitudes; at and below its normal range, that of subnormals."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(magnitude.clamp_min(info.tiny)).exponent - 1
    return torch.ldexp(torch.full_like(magnitude, info.eps), exponent)


def _compare_exactly(name: str, got: torch.Tensor, expected: torch.Tensor) -> tuple[float, Failure | None]:
    different = (got != expected).flatten()
    if not bool(different.any()):
        return 0.0, None
    flat = int(different.int().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), got.shape)) if got.ndim else ()
    seen, wanted = float(got.flatten()[flat]), float(expected.flatten()[flat])
    return float("inf"), Failure(name, f"{name}{list(index)} is {seen:g}, {wanted:g} expected", index, seen, wanted)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as float64 ``[rows, columns]``; one row if it has less than two dimensions."""
    columns = tensor.shape[-1] if tensor.ndim else 1
    return tensor.double().reshape(-1, columns)
