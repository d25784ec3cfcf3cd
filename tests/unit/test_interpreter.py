"""The repaired interpreter: what it computes, what it refuses, and that it leaves Triton as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from autotune.interpreter import bf16_bits, bf16_values, interpreted
from autotune.module import load_source, prepare_triton
from sgraph.errors import KernelCheckFailed, SettingsError

KERNELS = Path(__file__).parent / "kernels"


def load(name: str) -> ModuleType:
    return load_source((KERNELS / f"{name}.py").read_text(), name)


@pytest.fixture(scope="module")
def matmul() -> ModuleType:
    return load("matmul")


@pytest.fixture(scope="module")
def kernels() -> Any:  # attributes are Triton kernels, launched by subscript
    return load("arithmetic")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal as bit patterns, except that any NaN is as good as another."""
    both_nan = left.isnan() & right.isnan()
    kind = {2: torch.int16, 4: torch.int32}[left.element_size()]
    return bool(((left.view(kind) == right.view(kind)) | both_nan).all())


# --------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("sizes", [(37, 72, 50), (1, 32, 32), (16, 100, 33)])
def test_bf16_matmul_rounds_the_float32_product_once(matmul: ModuleType, sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    # Small integers: every partial sum is exact in float32, so the order of summation cannot matter.
    x = (random(m, k) * 8).round().bfloat16()
    w = (random(k, n, seed=1) * 8).round().bfloat16()
    with interpreted():
        y = matmul.launch(x, w)
    assert same_bits(y, (x.float() @ w.float()).bfloat16())
    assert not same_bits(y.float(), x.float() @ w.float())  # or the rounding was not seen at work


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 8e-3)])
def test_matmul_is_near_float64_on_ragged_shapes(matmul: ModuleType, dtype: torch.dtype, tolerance: float) -> None:
    x, w = random(19, 71).to(dtype), random(71, 45, seed=1).to(dtype)
    with interpreted():
        y = matmul.launch(x, w, config={"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 16, "num_warps": 8, "num_stages": 1})
    reference = x.double() @ w.double()
    assert (y.double() - reference).norm() / reference.norm() < tolerance


def test_cast_to_bf16_rounds_like_torch(kernels: Any) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint64).astype(np.uint32)
    specials = [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x00000001]
    bits[: len(specials)] = specials
    x = torch.from_numpy(bits.view(np.float32).copy())
    y = torch.empty(4096, dtype=torch.bfloat16)
    with interpreted():
        kernels.cast[(1,)](x, y, 4096)
    assert same_bits(y, x.bfloat16())


def test_every_bf16_number_widens_and_narrows_to_itself() -> None:
    bits = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    values = bf16_values(bits)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float()
    assert same_bits(torch.from_numpy(values), expected)
    back = torch.from_numpy(bf16_bits(values).view(np.int16)).view(torch.bfloat16)
    assert same_bits(back, expected.bfloat16())


def test_bf16_arithmetic_rounds_after_each_operation_like_torch(kernels: Any) -> None:
    x, y = random(256).bfloat16(), random(256, seed=1).bfloat16()
    z = torch.empty_like(x)
    with interpreted():
        kernels.mixed[(1,)](x, y, z, 1.5, 256)
    value = (x + x) * y - x * (y * y + 1.0)
    assert same_bits(z, torch.where(x > y, value, x) * 1.5)


def test_bf16_sum_is_refused_where_strict_and_rounded_once_where_not(kernels: Any) -> None:
    x, y = (random(64).abs() + 1).bfloat16(), torch.empty(1)
    with interpreted(), pytest.raises(KernelCheckFailed, match="accumulates in bfloat16") as failure:
        kernels.row_sum[(1,)](x, y, 64)
    assert "kernel row_sum, program (0, 0, 0), line " in failure.value.where
    assert "cast to float32" in failure.value.do
    with interpreted(strict=False):
        kernels.row_sum[(1,)](x, y, 64)
    assert y.item() == pytest.approx(x.double().sum().item(), rel=2**-8)


def test_tf32_drops_operand_bits_only_where_asked(kernels: Any) -> None:
    x, w, exact, rounded = (random(16, 16, seed=i) for i in range(4))
    with interpreted():
        kernels.dot_tf32[(1,)](x, w, exact, 16)
    with interpreted(round_tf32=True):
        kernels.dot_tf32[(1,)](x, w, rounded, 16)
    reference = x.double() @ w.double()
    assert (exact - reference).abs().max() < 1e-5
    assert 1e-5 < (rounded - reference).abs().max() < 2e-2


def test_run_time_loop_bounds_and_wide_offsets(kernels: Any) -> None:
    x, y, copied = random(100), torch.empty(1), torch.zeros(64)
    with interpreted():
        kernels.loop_sum[(1,)](x, y, 100, 16)
        kernels.wide_offsets[(1,)](x, copied, 64, 16)
    assert y.item() == pytest.approx(x.sum().item(), abs=1e-5)
    assert torch.equal(copied, x[:64])


def test_a_run_time_float_is_a_float32(kernels: Any) -> None:
    y = torch.ones(1)
    with interpreted():
        kernels.absorb[(1,)](y, 0.1)
    assert y.item() == 0.0


def test_a_scalar_condition_in_a_mask(kernels: Any) -> None:
    y = torch.full((8,), -1.0)
    with interpreted():
        kernels.first_program_only[(2,)](y, 8)
    assert y.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0]


def test_host_descriptors_read_zero_outside(kernels: Any) -> None:
    x, y = random(12, 12), torch.empty(12, 12)
    with interpreted():
        kernels.copy_tile[(1,)](TensorDescriptor.from_tensor(x, [16, 16]), y, 12, 16)
    assert torch.equal(x, y)


# ------------------------------------------------------------------------------------------------ strictness


def test_masked_out_lanes_without_other_read_nan(kernels: Any) -> None:
    x, y = random(8), torch.zeros(8)
    with interpreted():
        kernels.masked_copy[(1,)](x, y, 5, 8)
    assert torch.equal(y[:5], x[:5])
    assert y[5:].isnan().all()
    with interpreted():
        kernels.masked_copy[(1,)](x.bfloat16(), low := torch.zeros(8).bfloat16(), 5, 8)
        kernels.masked_copy[(1,)](x.int(), whole := torch.zeros(8, dtype=torch.int32), 5, 8)
    assert low[5:].isnan().all()
    assert (whole[5:] == 2**31 - 1).all()
    with interpreted(strict=False):
        kernels.masked_copy[(1,)](x, y, 5, 8)
    assert (y[5:] == 0).all()


def test_maxima_do_not_hide_undefined_lanes(kernels: Any) -> None:
    y = torch.zeros(1)
    with interpreted():
        kernels.row_max[(1,)](random(8), y, 5, 8)
        assert y.isnan().all()
        kernels.row_max[(1,)](random(8), y, 8, 8)
        assert y.item() == random(8).max().item()


def test_allocations_are_poisoned_inside_only(kernels: Any) -> None:
    del kernels
    allocate = torch.empty
    with interpreted():
        assert torch.empty(3).isnan().all()
        assert torch.empty_like(torch.zeros(3, dtype=torch.bfloat16)).isnan().all()
        assert (torch.zeros(1).new_empty((3,), dtype=torch.int32) == 2**31 - 1).all()
    assert torch.empty is allocate
    assert "new_empty" not in vars(torch.Tensor)


Launch = Callable[[Any], None]

REFUSED: dict[str, tuple[Launch, str]] = {
    "below": (lambda k: k.copy_at[(1,)](torch.zeros(8), torch.zeros(8), -1, 8), "1 of 8 lanes leave x_ptr.* -1 of 8"),
    "above": (lambda k: k.copy_at[(1,)](torch.zeros(8), torch.zeros(8), 1, 8), "1 of 8 lanes leave x_ptr.* 8 of 8"),
    "far": (lambda k: k.copy_at[(1,)](torch.zeros(8), torch.zeros(8), 2**28, 8), "load outside every argument"),
    "gap of a view": (lambda k: k.copy_at[(1,)](torch.zeros(4, 16)[:, :8], torch.zeros(8), 8, 8), "8 of 8 lanes"),
    "store": (lambda k: k.shifted_store[(3,)](torch.zeros(20), 8, 8), "store outside.*4 of 8 lanes leave y_ptr"),
    "overlap": (lambda k: k.shifted_store[(3,)](torch.zeros(24), 7, 8), "two programs store to one address of y_ptr"),
    "lanes": (lambda k: k.colliding_lanes[(1,)](torch.zeros(8), 8), "two lanes store different values"),
    "order": (lambda k: k.pass_on[(3,)](torch.zeros(24), 8), "of what another program of the same launch stores"),
    "condition": (
        lambda k: k.branch_on_block[(1,)](torch.zeros(8), torch.zeros(8), 8),
        "is used as a condition",
    ),
    "block size": (lambda k: k.odd_block[(1,)](torch.zeros(24), 24), "while interpreting: .*power of 2"),
    "device": (lambda k: k.row_sum[(1,)](torch.zeros(8, device="meta"), torch.zeros(1), 8), "x_ptr is on device meta"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(kernels: Any, case: str) -> None:
    launch, message = REFUSED[case]
    with interpreted(), pytest.raises(KernelCheckFailed, match=message) as failure:
        launch(kernels)
    assert failure.value.where.startswith("kernel ")


def test_allowed_neighbours_of_what_is_refused(kernels: Any) -> None:
    y, count = torch.zeros(24), torch.zeros(8)
    with interpreted():
        kernels.shifted_store[(3,)](y, 8, 8)
        kernels.shifted_store[(3,)](y, 8, 8)  # another launch may store there again
        kernels.atomic_count[(3,)](count, 8)
        kernels.copy_at[(1,)](torch.ones(4, 16)[:, :8], y, 0, 8)
    assert (count == 3).all()
    assert y.tolist() == [1.0] * 8 + [1.0] * 8 + [2.0] * 8


def test_an_argument_cannot_be_reached_through_another(kernels: Any) -> None:
    # Two arguments in one allocation: the address is valid, the pointer it came from was not meant for it.
    both = torch.zeros(16)
    with interpreted(), pytest.raises(KernelCheckFailed, match="leave x_ptr"):
        kernels.copy_at[(1,)](both[:8], both[8:], 8, 8)


def test_unknown_launch_options_are_refused(kernels: Any) -> None:
    x, y = random(8), torch.zeros(8)
    with interpreted():
        kernels.masked_copy[(1,)](x, y, 8, 8, num_warps=8, num_stages=7, maxnreg=64, enable_fp_fusion=False)
        with pytest.raises(KeyError, match="BLOK"):
            kernels.masked_copy[(1,)](x, y, 8, 8, BLOK=3)
    assert torch.equal(x, y)


# ------------------------------------------------------------------------------------------------ patching


def snapshot() -> dict[tuple[str, str], object]:
    owners: list[Any] = [
        triton_interpreter.InterpreterBuilder,
        triton_interpreter.ReduceOps,
        triton_interpreter.ScanOps,
        JITFunction,
        tl,
        tl.core,
        tl.math,
        tl.tensor,
        torch,
        torch.Tensor,
    ]
    return {(str(owner), name): getattr(owner, name) for owner in owners for name in dir(owner) if name != "__dict__"}


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(kernels: Any, fails: bool) -> None:
    with interpreted():  # what Triton restores of inherited attributes, it leaves as its own: let it, once
        pass
    before, names = snapshot(), set(vars(kernels))
    with pytest.raises(KernelCheckFailed) if fails else interpreted():
        if fails:
            with interpreted():
                kernels.colliding_lanes[(1,)](torch.zeros(8), 8)
        else:
            kernels.atomic_count[(1,)](torch.zeros(8), 8)
    after = snapshot()
    assert [key for key in before if before[key] is not after.get(key) and before[key] != after.get(key)] == []
    assert before.keys() == after.keys()
    assert set(vars(kernels)) == names


def test_nesting_is_refused_and_threads_take_turns(kernels: Any) -> None:
    entered, results = threading.Event(), list[float]()

    def other() -> None:
        entered.set()
        y = torch.zeros(1)
        with interpreted():
            kernels.row_sum[(1,)](torch.ones(8), y, 8)
        results.append(y.item())

    thread = threading.Thread(target=other)
    with interpreted():
        with pytest.raises(RuntimeError, match=r"interpreted\(\) inside interpreted\(\)"), interpreted():
            pass
        thread.start()
        assert entered.wait(10)
        thread.join(0.2)
        assert not results
    thread.join(20)
    assert results == [8.0]


def test_triton_in_its_own_interpreter_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_triton.cache_clear()
    monkeypatch.setattr(tl, "sum", object())
    with pytest.raises(SettingsError, match="TRITON_INTERPRET") as failure, interpreted():
        pass
    assert "unset TRITON_INTERPRET" in failure.value.do
    prepare_triton.cache_clear()
