"""The numerical contract: what it accepts, what it refuses, and on which inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sgraph.axis import Axis, Size
from sgraph.errors import InputError
from sgraph.expr import add, const, mean_over, mul, rsqrt, sum_over
from sgraph.program import DType, Output, Program, Tensor
from verify.inputs import Distribution, make_inputs, resolve_sizes, shape_of
from verify.numerics import FLUSHED, Mode, NumericsReport, Prepared, check_numerics, row_bounds, ulp

ROWS = Axis("m", Size("M", 1, 512))
HIDDEN = Axis("k", 48)
OUT = Axis("n", 40)


def rmsnorm_linear(dtype: DType) -> Program:
    x = Tensor("x", (ROWS, HIDDEN), dtype)
    g = Tensor("g", (HIDDEN,), dtype, constant=True)
    w = Tensor("w", (HIDDEN, OUT), dtype, constant=True)
    scale = rsqrt(add(mean_over(HIDDEN, mul(x.read(), x.read())), const("0.000001")))
    value = sum_over(HIDDEN, mul(mul(mul(x.read(), scale), g.read()), w.read()))
    return Program("rmsnorm_linear", (x, g, w), (Output(Tensor("y", (ROWS, OUT), dtype), value),))


def eager(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g) @ w


def fused(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """As a kernel computes it: float32 inside, the scale after the product, one rounding at the end."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return (((wide * g.float()) @ w.float()) * scale).to(x.dtype)


def softmax_program(dtype: DType, *, masked: bool = False) -> Program:
    x = Tensor("x", (ROWS, HIDDEN), dtype)
    y = Tensor("y", (ROWS, HIDDEN), dtype)
    mask = (Tensor("mask", (ROWS, HIDDEN), dtype, finite=False),) if masked else ()
    return Program("softmax", (x, *mask), (Output(y, x.read()),))


def check(
    program: Program,
    run: Callable[..., object],
    reference: Callable[..., object] = eager,
    *,
    mode: Mode = "contract",
    rounds: int = 2,
) -> NumericsReport:
    return check_numerics(program, run, reference, rounds=rounds, seed=7, mode=mode)


def softmax(x: torch.Tensor) -> torch.Tensor:
    return x.softmax(-1)


def failures(report: NumericsReport) -> set[str]:
    return {r.name for r in report.rounds if r.failure is not None}


@pytest.mark.parametrize("dtype", [DType.BF16, DType.FP16, DType.FP32])
def test_a_kernel_that_accumulates_in_float32_keeps_the_contract_on_every_input(dtype: DType) -> None:
    report = check(rmsnorm_linear(dtype), fused)
    assert report.passed, str(report)
    names = [r.name for r in report.rounds]
    assert names[:2] == ["normal", "normal"]
    assert {"large offset", "huge", "tiny", "negative", "zero rows", "denormal", "normal, odd sizes"} <= set(names)
    assert "masked rows" not in names
    assert report.rounds[-1].sizes["m"] % 2 == 1


def test_eager_itself_keeps_the_contract() -> None:
    assert check(rmsnorm_linear(DType.BF16), eager).worst_ratio <= 0.5


def test_fresh_inputs_every_round() -> None:
    seen: list[torch.Tensor] = []

    def spy(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return fused(x, g, w)

    report = check_numerics(rmsnorm_linear(DType.FP32), spy, eager, rounds=3, hostile=False)
    assert len({r.seed for r in report.rounds}) == 3
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_half_precision_accumulation_is_refused() -> None:
    def low(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(x.shape[0], w.shape[1], dtype=x.dtype)
        scaled = eager(x, g, torch.eye(x.shape[1], dtype=x.dtype))
        for k in range(x.shape[1]):
            total += scaled[:, k : k + 1] * w[k]
        return total

    report = check(rmsnorm_linear(DType.BF16), low)
    assert "normal" in failures(report)


def test_the_first_failing_element_is_named() -> None:
    def wrong(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = fused(x, g, w)
        y[3, 5] += 1.0
        return y

    found = check(rmsnorm_linear(DType.FP32), wrong).rounds[0].failure
    assert found is not None
    assert found.index == (3, 5)
    assert found.output == "y"
    assert found.got == pytest.approx(found.expected + 1.0, rel=1e-4)
    assert 0 < found.bound < 1e-3
    assert "y[3, 5] is" in found.reason


def test_dropped_eps_shows_on_tiny_inputs_only() -> None:
    def no_eps(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (((wide * g.float()) @ w.float()) * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True))).to(x.dtype)

    found = failures(check(rmsnorm_linear(DType.BF16), no_eps))
    assert "normal" not in found
    assert {"tiny", "zero rows"} <= found


def test_nan_where_eager_has_none_is_refused() -> None:
    def hole(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = fused(x, g, w)
        y[0, 0] = torch.nan
        return y

    report = check(rmsnorm_linear(DType.FP32), hole)
    assert len(failures(report)) == len({r.name for r in report.rounds})
    assert report.worst_ratio == float("inf")


def test_an_output_that_is_not_written_shows() -> None:
    def forgets(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = torch.full((x.shape[0], w.shape[1]), torch.nan, dtype=x.dtype)
        y[:-1] = fused(x, g, w)[:-1]
        return y

    assert not check(rmsnorm_linear(DType.FP32), forgets).passed


def test_elements_that_eager_cannot_compute_either_do_not_count() -> None:
    # exp of 100 and more: infinity over infinity in float32, finite in float64.
    def unsafe(x: torch.Tensor) -> torch.Tensor:
        return x.exp() / x.exp().sum(-1, keepdim=True)

    report = check(softmax_program(DType.FP32), unsafe, unsafe)
    assert report.passed, str(report)


def test_unsafe_softmax_is_refused_where_eager_is_safe() -> None:
    def unsafe(x: torch.Tensor) -> torch.Tensor:
        return x.exp() / x.exp().sum(-1, keepdim=True)

    found = failures(check(softmax_program(DType.FP32), unsafe, softmax))
    assert "normal" not in found
    assert {"large offset", "huge"} <= found


def test_maximum_that_starts_from_zero_is_refused_by_inputs_below_zero() -> None:
    def from_zero(x: torch.Tensor) -> torch.Tensor:
        shifted = (x - x.amax(-1, keepdim=True).clamp_min(0.0) - 100.0).exp()
        return shifted / shifted.sum(-1, keepdim=True)

    assert "negative" in failures(check(softmax_program(DType.FP32), from_zero, softmax))


def test_masks_hold_minus_infinity_and_leave_something_in_every_row() -> None:
    program = softmax_program(DType.FP32, masked=True)
    sizes = resolve_sizes(program)
    _, mask = make_inputs(program, sizes, seed=1)
    assert bool(mask.isinf().any())
    assert not bool(mask.isinf().all(-1).any())
    _, full = make_inputs(program, sizes, seed=1, distribution=Distribution.MASKED_ROWS)
    assert bool(full[0].isinf().all())
    assert not bool(full[1:].isinf().all(-1).any())

    def masked(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (x + mask).softmax(-1)

    report = check(program, masked, masked)
    assert report.passed, str(report)
    assert "masked rows" in [r.name for r in report.rounds]


def test_one_pass_variance_is_refused_by_a_large_offset() -> None:
    def normed(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def one_pass(x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / ((x * x).mean(-1, keepdim=True) - mean * mean + 1e-5).sqrt()

    assert "large offset" in failures(check(softmax_program(DType.FP32), one_pass, normed))


@pytest.mark.parametrize("mode", ["contract", "float32"])
def test_float32_mode_sees_what_rounding_to_bf16_hides(mode: Mode) -> None:
    def slightly_off(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (fused(x, g, w).float() * 1.0001).to(x.dtype)

    report = check(rmsnorm_linear(DType.BF16), slightly_off, mode=mode)
    assert report.passed == (mode == "contract"), str(report)


def test_float32_mode_runs_in_float32() -> None:
    def spy(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        assert {x.dtype, g.dtype, w.dtype} == {torch.float32}
        return fused(x, g, w)

    report = check(rmsnorm_linear(DType.BF16), spy, mode="float32")
    assert report.passed, str(report)
    assert report.worst_ratio < 0.5


def transposed(y: torch.Tensor) -> object:
    return y.T.contiguous()


def widened(y: torch.Tensor) -> object:
    return y.float()


def twice(y: torch.Tensor) -> object:
    return y, y


def nothing(_: torch.Tensor) -> object:
    return None


def elsewhere(y: torch.Tensor) -> object:
    return y.to("meta")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (transposed, "has shape"),
        (widened, "is torch.float32"),
        (twice, "2 tensors returned, 1 expected"),
        (nothing, "0 tensors returned, 1 expected"),
        (elsewhere, "lies on meta"),
    ],
)
def test_outputs_of_the_wrong_form_are_refused(spoil: Callable[[torch.Tensor], object], words: str) -> None:
    def run(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> object:
        return spoil(fused(x, g, w))

    report = check(rmsnorm_linear(DType.BF16), run, rounds=1)
    found = report.rounds[0].failure
    assert found is not None
    assert words in found.reason
    assert not report.passed
    assert words in str(report)


def test_a_kernel_that_changes_its_inputs_is_refused() -> None:
    def spoils(x: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = fused(x, g, w)
        x.zero_()
        return y

    found = check(rmsnorm_linear(DType.FP32), spoils).rounds[0].failure
    assert found is not None
    assert "changed its input x" in found.reason


def add_and_scale(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x + 1, x * 2


def two_outputs() -> Program:
    x = Tensor("x", (ROWS, HIDDEN), DType.FP32)
    outputs = (("a", add(x.read(), const(1))), ("b", mul(x.read(), const(2))))
    return Program("two", (x,), tuple(Output(Tensor(n, (ROWS, HIDDEN), DType.FP32), e) for n, e in outputs))


@pytest.mark.parametrize("wrong", [0, 1])
def test_every_output_is_held_to_the_contract(wrong: int) -> None:
    def run(x: torch.Tensor) -> list[torch.Tensor]:
        result = list(add_and_scale(x))
        result[wrong] = result[wrong] * 1.01
        return result

    assert check(two_outputs(), add_and_scale, add_and_scale).passed
    found = check(two_outputs(), run, add_and_scale).rounds[0].failure
    assert found is not None
    assert found.output == "ab"[wrong]


def test_references_are_worked_out_once_for_several_kernels() -> None:
    calls: list[torch.dtype] = []

    def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(x.dtype)
        return add_and_scale(x)

    def swapped(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x + 1

    x = torch.randn(5, 48)
    x[0, 0] = torch.nan
    prepared = Prepared.of(two_outputs(), reference, [x])
    assert prepared.sizes == {"m": 5, "k": 48}
    assert prepared.check(add_and_scale).passed
    assert not prepared.check(swapped).passed
    assert calls == [torch.float64, torch.float32]


def test_ulp_is_the_spacing_of_the_type() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        values = torch.tensor([1.0, 1.5, 2.0, 100.0, 0.001], dtype=dtype)
        spacing = torch.nextafter(values, torch.full_like(values, torch.inf)).double() - values.double()
        assert torch.equal(ulp(values.double(), dtype), spacing)
    assert float(ulp(torch.tensor(0.0, dtype=torch.float64), torch.float16)) == 2.0**-24


def test_neither_a_large_nor_a_cancelling_row_loosens_the_others() -> None:
    exact = torch.tensor([[1.0, 1.0], [1e6, 1e6], [1e-9, 1e-9]], dtype=torch.float64)
    error = torch.tensor([[0.0], [100.0], [1e-9]], dtype=torch.float64)
    defined = torch.ones_like(exact, dtype=torch.bool)
    huge_row = row_bounds(exact[:2], exact[:2] + error[:2], defined[:2], torch.float32, "contract")
    assert float(huge_row[0]) == pytest.approx(2e-4)
    cancelling = row_bounds(exact[::2], exact[::2] + error[::2], defined[::2], torch.float32, "contract")
    assert float(cancelling[0]) == pytest.approx(2 * 2.0**-23)
    assert float(row_bounds(0 * exact, 0 * exact, defined, torch.float32, "contract").min()) == pytest.approx(
        2.0**-148, abs=FLUSHED
    )


def test_sizes_are_checked_against_what_the_program_declares() -> None:
    program = rmsnorm_linear(DType.FP32)
    assert resolve_sizes(program, {"m": 3, "k": 7}) == {"m": 3, "k": 7, "n": 40}
    with pytest.raises(InputError, match="axis 'q'"):
        resolve_sizes(program, {"q": 3})
    with pytest.raises(InputError, match="multiple of 1 from 1 to 512"):
        resolve_sizes(program, {"m": 1000})
    rows = Axis("a", Size("L", 16, 64, 16))
    columns = Axis("b", Size("L", 16, 64, 16))
    square = Program("f", (Tensor("x", (rows, None, columns), DType.FP32),), ())
    assert resolve_sizes(square, odd=True) == {"a": 64, "b": 64}
    assert resolve_sizes(square, {"a": 48}) == {"a": 48, "b": 48}
    assert shape_of(square.inputs[0], {"a": 48, "b": 32}) == (48, 1, 32)
    with pytest.raises(InputError, match="48 and 32"):
        resolve_sizes(square, {"a": 48, "b": 32})


def test_the_same_seed_gives_the_same_inputs_and_another_does_not() -> None:
    program = rmsnorm_linear(DType.BF16)
    sizes = resolve_sizes(program)
    first, again, other = (make_inputs(program, sizes, seed=s)[0] for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [DType.BF16, DType.FP16, DType.FP32, DType.FP64])
def test_hostile_inputs_are_what_their_names_say(dtype: DType) -> None:
    program = rmsnorm_linear(dtype)
    sizes = resolve_sizes(program)

    def x(distribution: Distribution) -> torch.Tensor:
        made = make_inputs(program, sizes, seed=3, distribution=distribution)
        assert made[0].dtype == made[1].dtype == getattr(torch, dtype.value)
        assert bool(made[0].isfinite().all())
        assert float(made[1].abs().max()) < 10.0
        return made[0].double()

    smallest = torch.finfo(getattr(torch, dtype.value)).tiny
    denormal = x(Distribution.DENORMAL)
    assert 0 < float(denormal.abs().median()) < smallest
    assert float(x(Distribution.NEGATIVE).max()) < -30
    assert float(x(Distribution.HUGE).abs().max()) > 100
    assert float(x(Distribution.TINY).abs().max()) < 1e-2
    assert float(x(Distribution.LARGE_OFFSET).min()) > 50
    zero = x(Distribution.ZERO_ROWS)
    assert not bool(zero[0].any())
    assert bool(zero[1:].any())


def test_integers_are_compared_exactly() -> None:
    kind = Tensor("y", (ROWS,), DType.INT64)
    program = Program("count", (Tensor("x", (ROWS,), DType.INT64),), (Output(kind, kind.read()),))

    def one_more(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    def two_more(x: torch.Tensor) -> torch.Tensor:
        return x + 2

    assert check(program, one_more, one_more).passed
    assert not check(program, two_more, one_more).passed
