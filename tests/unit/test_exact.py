"""Exact evaluation: emitted texts agree with their programs, and every broken rule is found and named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import permutations

import numpy as np
import pytest

from autotune.lower import lower
from autotune.parameters import default_parameters
from sgraph.axis import Axis, Size
from sgraph.errors import KernelCheckFailed
from sgraph.expr import (
    Expr,
    Op,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    make,
    max_over,
    mean_over,
    recip,
    rsqrt,
    sum_over,
    where,
)
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.program import DType, Output, Program, Tensor
from sgraph.stages import derive
from verify.exact import Case, ExactReport, check_exactly, evaluate_exactly, small_cases
from verify.exact_fields import BOTTOM, Fields, FieldStatus, NotApplicable, agreement, element
from verify.exact_literals import meaning

LOOP, WHOLE, SPLIT, GRID = Role.LOOP, Role.WHOLE, Role.SPLIT, Role.GRID
M, K, N, L = Axis("m", Size("M", 1, 64)), Axis("k", 4096), Axis("n", 6144), Axis("l", Size("L", 1, 9000))
x, g, w, up = leaf("x", (M, K)), leaf("g", (K,)), leaf("W", (K, N)), leaf("U", (K, N))
q, keys, v = leaf("q", (M, K)), leaf("keys", (L, K)), leaf("v", (L, N))
r, mask = leaf("r", (M, K)), leaf("mask", (M, K), finite=False)


def graph(inputs: tuple[Expr, ...], roles: Mapping[Axis, Role], **outputs: tuple[tuple[Axis, ...], Expr]) -> SGraph:
    """One kernel over bfloat16 tensors."""
    tensors = tuple(Tensor(i.name, i.axes, DType.BF16, finite=i.finite) for i in inputs)
    stores = tuple(Store(Tensor(n, axes, DType.BF16), e, e) for n, (axes, e) in outputs.items())
    program = Program("case", tensors, tuple(Output(s.tensor, s.value) for s in stores))
    return SGraph(program, (Kernel("case", stores, tuple(sorted(roles.items()))),))


def text(g: SGraph) -> str:
    sizes = {"m": 16, "k": 4096, "n": 6144, "l": 8192, "h": 32}
    return lower(g, [derive(k) for k in g.kernels], default_parameters(g, sizes))


def softmax(role: Role, values: Expr = x) -> SGraph:
    y = exp(values) * recip(sum_over(K, exp(values)))
    return graph((values,), {M: GRID, K: role}, y=((M, K), y))


def attention(role: Role) -> SGraph:
    weight = exp(const("1/8") * sum_over(K, q * keys))
    y = sum_over(L, weight * v) * recip(sum_over(L, weight))
    return graph((q, keys, v), {M: GRID, N: GRID, K: WHOLE, L: role}, y=((M, N), y))


def normed(value: Expr, eps: str = "1/1000000") -> Expr:
    return value * rsqrt(mean_over(K, value * value) + const(eps))


def hoisted(role: Role) -> SGraph:
    """The normalised linear layer with the scale applied to the finished sum."""
    scale = rsqrt(mean_over(K, x * x) + const("1/1000000"))
    return graph((x, g, w), {M: GRID, N: GRID, K: role}, y=((M, N), sum_over(K, x * g * w) * scale))


def batched() -> SGraph:
    """A product of three-dimensional tensors; the batch axis is held as one index."""
    h = Axis("h", 32)
    many, weights = leaf("x", (h, M, K)), leaf("w", (h, K, N))
    y = sum_over(K, many * weights)
    return graph((many, weights), {h: GRID, M: GRID, N: GRID, K: LOOP}, y=((h, M, N), y))


GRAPHS: Mapping[str, Callable[[], SGraph]] = {
    "linear": lambda: graph((x, w), {M: GRID, N: GRID, K: LOOP}, y=((M, N), sum_over(K, x * w))),
    "gated_mlp": lambda: graph(
        (x, w, up), {M: GRID, N: GRID, K: LOOP}, y=((M, N), call("silu", sum_over(K, x * w)) * sum_over(K, x * up))
    ),
    "add_rmsnorm": lambda: graph((x, r, g), {M: GRID, K: LOOP}, h=((M, K), x + r), y=((M, K), normed(x + r) * g)),
    "rmsnorm_linear loop": lambda: hoisted(LOOP),
    "rmsnorm_linear split": lambda: hoisted(SPLIT),
    "rmsnorm_linear two passes": lambda: graph(
        (x, g, w), {M: GRID, N: GRID, K: LOOP}, y=((M, N), sum_over(K, normed(x) * g * w))
    ),
    "gelu linear": lambda: graph(
        (x, w), {M: GRID, N: GRID, K: LOOP}, y=((M, N), call("gelu", sum_over(K, x * w) * const("1/16")))
    ),
    "a third and a long constant": lambda: graph(
        (x,), {M: GRID, K: WHOLE}, y=((M, K), const("1/3") * normed(x, "0.0123456789012345678901"))
    ),
    "softmax loop": lambda: softmax(LOOP),
    "softmax whole": lambda: softmax(WHOLE),
    "softmax of a mask": lambda: softmax(LOOP, mask),
    "causal softmax": lambda: graph(
        (x,),
        {M: GRID, K: WHOLE},
        y=((M, K), max_over(K, where(make(Op.LE, (index(K), index(M))), x, const(-9))) + extent(K) * x),
    ),
    "attention split": lambda: attention(SPLIT),
    "attention loop": lambda: attention(LOOP),
}


@cache
def emitted(name: str) -> tuple[Program, str]:
    made = GRAPHS[name]()
    return made.program, text(made)


@cache
def report(name: str) -> ExactReport:
    return check_exactly(*emitted(name), seed=3)


@pytest.mark.parametrize("name", GRAPHS)
def test_emitted_texts_agree_to_fifty_digits(name: str) -> None:
    found = report(name)
    assert found.passed, found
    assert found.evaluations == 6
    assert found.elements > 20


def test_of_any_two_axes_each_is_ragged_where_the_other_is_not() -> None:
    program, source = emitted("rmsnorm_linear split")
    sparse, short, *cases = small_cases(program, source)
    for a, b in permutations("kmn", 2):
        assert any(remainder(c, a) and not remainder(c, b) and c.sizes[b] < c.sizes[a] for c in cases)
    assert any(all(remainder(c, a) for a in "kmn") for c in cases)
    entries = sparse.config["kernel_0"]
    assert sparse.sizes["k"] <= entries["tile_k"] * (entries["split"] - 1), "the last cell is empty"
    assert all(short.sizes[a] < short.config["kernel_0"][f"tile_{a}"] for a in "kmn"), "one tile, not filled"


def test_a_split_kernel_is_evaluated_with_several_cells_whatever_its_table_says() -> None:
    program, source = emitted("rmsnorm_linear split")
    alone = re.sub(r'"split": \d+', '"split": 1', source)
    assert alone != source
    assert [c.config for c in small_cases(program, alone)] == [c.config for c in small_cases(program, source)]
    assert all(c.config["kernel_0"]["split"] > 1 for c in small_cases(program, alone))


def test_axes_without_a_tile_are_short() -> None:
    """Each of their indices is a program of its own; no other axis pays for them."""
    made = batched()
    program, source = made.program, text(made)
    assert '"tile_h": 1' in source
    assert all(c.sizes["h"] <= 5 for c in small_cases(program, source))
    assert {c.sizes["h"] > 1 for c in small_cases(program, source)} == {True}
    assert check_exactly(program, source).passed
    swapped = source.replace("pid_h * stride_x_h", "pid_h * stride_x_h + pid_h")
    assert swapped != source
    assert not check_exactly(program, swapped).passed


def remainder(case: Case, axis: str) -> int:
    return case.sizes[axis] % case.config["kernel_0"][f"tile_{axis}"]


# ------------------------------------------------------------------------------------------- broken rules


def refusal(name: str, old: str, new: str) -> str:
    """Why a text is refused in which a piece was replaced."""
    program, source = emitted(name)
    assert old in source
    failure = check_exactly(program, source.replace(old, new)).failure
    assert failure is not None, f"{new} passed"
    return failure.reason


@pytest.mark.parametrize(
    ("name", "old", "new", "why"),
    [
        ("softmax loop", "offs_m < M\n", "offs_m < M + 1\n", "outside of its shape"),
        ("softmax whole", "pid_m * BLOCK_M + ", "", "another program of the same launch"),
        ("softmax loop", 'other=float("-inf"),\n        ).to', ").to", "is NaN"),
        ("softmax loop", "decay_m + ", "1.0 + ", "the program says"),
        ("rmsnorm_linear split", "for cell in tl.range(0, SPLIT)", "for cell in tl.range(0, SPLIT + 1)", "outside"),
        ("rmsnorm_linear split", "if pid_n == 0:", "if pid_n >= 0:", "which another program of the same launch writes"),
        ("rmsnorm_linear split", "last_k = tl.minimum(", "last_k = tl.maximum(", "the program says"),
        ("rmsnorm_linear loop", "pid_n = pid % band // rows", "pid_n = pid % band // rows // 2", "another program"),
        ("linear", "tl.range(0, K, BLOCK_K", "tl.range(0, K - 1, BLOCK_K", "the program says"),
        ("gated_mlp", "stride_U_k=U.stride(0)", "stride_U_k=W.stride(0)", "outside of its shape"),
        ("rmsnorm_linear loop", "1e-06", "1e-05", "the program says"),
        ("rmsnorm_linear loop", "(K % BLOCK_K == 0)", "(K // BLOCK_K == 0)", "outside of its shape"),
        ("rmsnorm_linear loop", "stride_W_k=W.stride(0)", "stride_W_k=W.stride(1)", "outside of its shape"),
    ],
)
def test_a_broken_rule_is_named_with_its_line(name: str, old: str, new: str, why: str) -> None:
    assert why in refusal(name, old, new)


def test_a_missing_store_leaves_elements_unwritten() -> None:
    reason = refusal("softmax whole", '(triton.cdiv(M, tuned["tile_m"]),)', "(1,)")
    assert "is never written" in reason


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("tl.rsqrt(", "tl.sin(", "tl.sin has no meaning"),
        ("tl.rsqrt(", "open(", "the name open is not defined"),
        ("import torch\n", "import torch\nimport os\n", "import os has no meaning"),
        ("    # epilogue\n", "    while pid_m > 0:\n        pid_m = 0\n", "While has no meaning"),
        ("    # epilogue\n", "    sum_x_x_m = sum_x_x_m[0]\n", "the index 0 has no meaning"),
        ("    # epilogue\n", "    pid_m = pid_m ^ 1\n", "the operator BitXor has no meaning"),
        ("    return y\n", "    return y.clone()\n", "Memory.clone has no meaning"),
        ("@triton.jit", "@triton.autotune", "the decorator triton.autotune has no meaning"),
        ("tl.arange(0, BLOCK_M)", "tl.arange(0, BLOCK_M * 3)", "not a power of two"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_line(old: str, new: str, why: str) -> None:
    reason = refusal("rmsnorm_linear loop", old, new)
    assert why in reason
    assert "line " in reason


def test_a_launcher_that_refuses_its_inputs_is_heard() -> None:
    program, source = emitted("linear")
    inputs = [(t, np.ones((2, 3))) for t in program.inputs]
    with pytest.raises(KernelCheckFailed, match="the launcher refuses its inputs: ValueError: W: axis k has extent 2"):
        evaluate_exactly(source, inputs)


def test_results_are_exact_numbers() -> None:
    program, source = emitted("linear")
    random = np.random.default_rng(5)
    left, right = random.integers(-9, 9, (3, 5)) / 8, random.integers(-9, 9, (5, 2)) / 8
    (result,) = evaluate_exactly(source, list(zip(program.inputs, (left, right), strict=True)))
    assert isinstance(result[0, 0], Decimal)
    assert (result.astype(float) == left @ right).all()


# -------------------------------------------------------------------------------------- literals and fields


def test_a_literal_stands_for_what_it_rounds() -> None:
    odd = Fraction("0.0123456789012345678901")
    assert meaning(float(odd), [odd]) == odd
    assert meaning(0.7071067811865476) == "sqrt(1/2)"
    assert meaning(1 / 3) == Fraction(1, 3)
    assert meaning(1e-06) == Fraction(1, 1_000_000)
    assert meaning(0.0123456789) == Fraction("0.0123456789")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmsnorm_linear split", {"p": "agree", "q": "agree"}),
        ("softmax loop", {"p": "agree", "q": "not applicable"}),
        ("attention split", {"p": "agree", "q": "not applicable"}),
        ("gelu linear", {"p": "agree", "q": "agree"}),
        ("causal softmax", {"p": "not applicable", "q": "not applicable"}),
    ],
)
def test_fields_agree_where_they_have_a_meaning(name: str, expected: dict[str, str]) -> None:
    assert report(name).fields == expected


def test_fields_obey_the_laws_that_rewrites_use() -> None:
    numbers = Fields(seed=1, selection=2)
    a, b, c = (numbers.oracle(name) for name in "abc")
    assert numbers.exp(a + b) == numbers.exp(a) * numbers.exp(b) != numbers.exp(a)
    assert (a + b) * c / c == b + a
    assert numbers.sqrt(a * b) == numbers.sqrt(a) * numbers.sqrt(b)
    square = numbers.sqrt(a * a)
    assert square * square == a * a
    assert numbers.maximum(a, numbers.maximum(b, c)) == numbers.maximum(numbers.maximum(c, a), b)
    assert numbers.maximum(a, BOTTOM) == a
    assert numbers.exp(BOTTOM - a) == element(0)
    assert (a / element(0)).undefined
    with pytest.raises(NotApplicable):
        numbers.exp(numbers.exp(a))


def test_fields_refute_what_differs() -> None:
    numbers = Fields()
    wanted, got = np.array([numbers.oracle("a")]), np.array([numbers.oracle("b")])
    assert set(agreement(numbers, got, wanted).values()) == {FieldStatus.DIFFER}
    assert set(agreement(numbers, wanted, wanted).values()) == {FieldStatus.AGREE}
