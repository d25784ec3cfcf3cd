"""Captured programs compute what torch computes, and what cannot be captured is refused with a useful message."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import overload

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from reference import results
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from prism.frontend import capture, load_function
from sgraph.axis import Axis, Size
from sgraph.border import returned, viewed
from sgraph.errors import InputError, PrismError, UnsupportedOperator, UnsupportedProgram
from sgraph.expr import Op, add, const, exp, extent, leaf, mul, recip, sqrt, sum_over, walk
from sgraph.program import DType, Program

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = Path(__file__).name

Function = Callable[..., object]
Unary = Callable[[Tensor], object]
Binary = Callable[[Tensor, Tensor], object]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(program: Program, function: Function, inputs: tuple[Tensor, ...], **sizes: int) -> None:
    """The program's equations agree with torch in float64."""
    taken = viewed(program, [x.detach().numpy() for x in inputs])
    tensors = {t.name: x for t, x in zip(program.inputs, taken, strict=True)}
    expected = function(*inputs)
    for found, wanted in zip(
        returned(program, results(program, tensors, sizes)),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    ):
        assert isinstance(wanted, Tensor)
        assert found.shape == tuple(wanted.shape)
        torch.testing.assert_close(torch.from_numpy(found.copy()), wanted.detach(), rtol=1e-9, atol=1e-10)


@overload
def check(function: Unary, a: Tensor, /) -> Program: ...
@overload
def check(function: Binary, a: Tensor, b: Tensor, /) -> Program: ...
@overload
def check(function: Function, /, *inputs: Tensor) -> Program: ...
def check(function: Function, *inputs: Tensor) -> Program:
    program = capture(function, inputs)
    assert_same(program, function, inputs)
    return program


def of_one(function: Unary, x: Tensor, *sizes: int | Size) -> Program:
    return capture(function, (x,), sizes={"x": sizes} if sizes else {})


def of_two(function: Binary, x: Tensor, y: Tensor, /, **sizes: tuple[int | Size, ...]) -> Program:
    return capture(function, (x, y), sizes=sizes)


# ------------------------------------------------------------------------------------------------- examples


SMALL_SHAPES: dict[str, list[tuple[int, ...]]] = {
    "add_rmsnorm": [(3, 5), (3, 5), (5,)],
    "attention": [(2, 3, 2, 5), (2, 4, 3, 5), (2, 4, 3, 6)],
    "gated_mlp": [(3, 5), (5, 7), (5, 7)],
    "layernorm_linear": [(3, 5), (5,), (5,), (5, 7)],
    "linear": [(3, 5), (5, 7)],
    "lora": [(3, 5), (5, 7), (5, 2), (2, 7)],
    "ngpt_residual": [(3, 5), (3, 5), (5,)],
    "qknorm_attention": [(2, 3, 2, 5), (2, 4, 3, 5), (2, 4, 3, 6), (5,), (5,)],
    "rmsnorm_linear": [(3, 5), (5,), (5, 7)],
    "softmax": [(3, 5)],
}


def test_every_example_is_tested() -> None:
    assert sorted(p.stem for p in EXAMPLES.glob("*.py") if "def inputs()" in p.read_text()) == sorted(SMALL_SHAPES)


@pytest.mark.parametrize("name", sorted(SMALL_SHAPES))
def test_examples_denote_what_torch_computes(name: str) -> None:
    with FakeTensorMode():  # real weights would take seconds to draw
        loaded = load_function(f"{EXAMPLES / name}.py")
    assert all(x.dtype is torch.bfloat16 for x in loaded.inputs)
    check(loaded.function, *(draw(*shape, seed=i) for i, shape in enumerate(SMALL_SHAPES[name])))

    program = capture(loaded.function, loaded.inputs)
    assert program.name == name
    assert program.source.startswith(f"{name}.py:")
    assert {t.dtype for t in program.inputs} == {DType.BF16}


def test_rmsnorm_linear_is_the_textbook_equation() -> None:
    with FakeTensorMode():
        function = load_function(f"{EXAMPLES / 'rmsnorm_linear.py'}").function
    program = capture(function, (draw(3, 5), draw(5), draw(5, 7)))
    m, k, n = Axis("m", 3), Axis("k", 5), Axis("n", 7)
    x, g, w = leaf("x", (m, k)), leaf("g", (k,)), leaf("W", (k, n))
    square = mul(sum_over(k, mul(x, x)), recip(extent(k)))
    scale = recip(sqrt(add(square, const(Fraction(1, 10**6)))))
    assert program.outputs[0].value is sum_over(k, mul(mul(mul(x, scale), g), w))
    assert program.outputs[0].tensor.axes == (m, n)
    assert [t.axes for t in program.inputs] == [(m, k), (k,), (k, n)]


def test_softmax_denotes_no_maximum() -> None:
    program = of_one(lambda x: torch.softmax(x, -1), draw(3, 5))
    m, k = Axis("m", 3), Axis("k", 5)
    x = leaf("x", (m, k))
    assert program.outputs[0].value is mul(exp(x), recip(sum_over(k, exp(x))))


# ------------------------------------------------------------------------------------------------ operators


def positive(x: Tensor) -> Tensor:
    return x * x + 0.5


def norms(x: Tensor, y: Tensor) -> Tensor:
    return x.norm(dim=-1) + torch.linalg.norm(y, 2, dim=-1) + torch.linalg.vector_norm(x) + torch.linalg.norm(y)


def norm_of_order_three(x: Tensor) -> Tensor:
    return x.norm(p=3, dim=-1)


def norm_of_matrix(x: Tensor) -> Tensor:
    return torch.linalg.norm(x, 2)


OPERATORS: dict[str, Binary] = {
    # element by element
    "add": lambda x, y: x + y,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=0.5),
    "subtract": lambda x, y: x - y - 1,
    "subtract_from": lambda x, y: 3 - torch.sub(x, y, alpha=2),
    "multiply": lambda x, y: x * y * 2,
    "divide": lambda x, y: x / positive(y) / 4,
    "divide_into": lambda x, y: 3 / positive(x),
    "negate": lambda x, y: -x,
    "square": lambda x, y: torch.square(x),
    "cube": lambda x, y: x**3,
    "power_0": lambda x, y: x**0 + y,
    "power_minus_2": lambda x, y: positive(x) ** -2,
    "power_half": lambda x, y: positive(x) ** 0.5,
    "power_minus_three_halves": lambda x, y: positive(x) ** -1.5,
    "sqrt": lambda x, y: torch.sqrt(positive(x)),
    "rsqrt": lambda x, y: torch.rsqrt(positive(x)),
    "reciprocal": lambda x, y: torch.reciprocal(positive(x)),
    "exp_log": lambda x, y: torch.exp(x) + torch.log(positive(y)),
    "expm1_log1p": lambda x, y: torch.expm1(x) + torch.log1p(positive(y)),
    "sin_cos": lambda x, y: torch.sin(x) + torch.cos(y),
    "abs": lambda x, y: x.abs(),
    "tanh_sigmoid": lambda x, y: torch.tanh(x) * torch.sigmoid(y),
    "silu": lambda x, y: F.silu(x),
    "gelu": lambda x, y: F.gelu(x),
    "gelu_tanh": lambda x, y: F.gelu(x, approximate="tanh"),
    "relu": lambda x, y: F.relu(x),
    "leaky_relu": lambda x, y: F.leaky_relu(x, 0.2),
    "erf": lambda x, y: torch.erf(x),
    "softplus": lambda x, y: F.softplus(x) + F.softplus(y, beta=2),
    "maximum": lambda x, y: torch.maximum(x, y) + torch.max(x, 2 * y),
    "minimum": lambda x, y: torch.minimum(x, y) + torch.min(x, 2 * y),
    "clamp": lambda x, y: x.clamp(-0.5, 0.5) + y.clamp(min=0.1) + y.clamp_max(0.3) + x.clamp(min=y),
    "lerp": lambda x, y: torch.lerp(x, y, 0.25) + torch.lerp(x, y, y),
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=2) + torch.addcdiv(x, y, positive(x)),
    "copies": lambda x, y: x.to(torch.float64).type_as(y).contiguous().clone().detach() * 2,
    "dropout_off": lambda x, y: F.dropout(x, 0.5, training=False) * 2,
    # conditions
    "where": lambda x, y: torch.where(x > y, x, 0.0),
    "where_not_equal": lambda x, y: torch.where(x.ne(y), x, y),
    "where_not": lambda x, y: torch.where(~(x >= 0), x, -y),
    "less": lambda x, y: torch.where(x < 0, x, torch.where(x <= 0.5, 2 * x, 3 * x)),
    "equal": lambda x, y: torch.where(x == y, x, y),
    "masked_fill": lambda x, y: torch.softmax(x.masked_fill(y < -0.5, float("-inf")), -1),
    "mask_as_number": lambda x, y: x * (y > 0) + (x > 0).double(),
    # reductions
    "sum": lambda x, y: x.sum(-1) + y.sum(dim=(1,)),
    "sum_all": lambda x, y: x.sum() * y,
    "sum_two": lambda x, y: x.sum((0, 1)) + y,
    "mean": lambda x, y: x.mean(0, keepdim=True) + y.mean(),
    "amax": lambda x, y: x.amax(-1, keepdim=True) - y.amin(0),
    "max_values": lambda x, y: x.max(-1).values + y.min(dim=1, keepdim=True)[0][:, 0],
    "max_all": lambda x, y: x.max() + y.min() * x,
    "variance": lambda x, y: x.var(-1) + y.var(-1, correction=0) + x.std(-1, unbiased=False),
    "var_mean": lambda x, y: torch.var_mean(x, -1)[0] + torch.var_mean(y, -1)[1],
    "norm": norms,
    "normalize": lambda x, y: F.normalize(x, dim=-1),
    "softmax": lambda x, y: torch.softmax(x, 0) + F.softmax(y, dim=-1),
    "softmax_by_hand": lambda x, y: torch.exp(x - x.amax(-1, keepdim=True)),
    "log_softmax": lambda x, y: F.log_softmax(x, dim=-1),
    "logsumexp": lambda x, y: torch.logsumexp(x, -1),
    "rms_norm": lambda x, y: F.rms_norm(x, (5,), y.mean(0), 1e-3),
    "layer_norm": lambda x, y: F.layer_norm(x, (5,), y.mean(0), y.sum(0), 1e-5),
    "layer_norm_two": lambda x, y: F.layer_norm(x, (3, 5), y),
    # layout
    "transpose": lambda x, y: x.T + y.transpose(0, 1) + x.permute(1, 0) + y.t() + x.mT + y.movedim(0, 1),
    "unsqueeze": lambda x, y: (x.unsqueeze(1) + y[:, None]).squeeze(1) + x[None].squeeze(),
    "views": lambda x, y: x.view(3, 1, 5).reshape(3, 5) + torch.unflatten(y, 1, (1, 5)).flatten(1, 2),
    "expand": lambda x, y: x.unsqueeze(0).expand(4, 3, 5) * 2,
    "expand_as": lambda x, y: x.mean(0).expand_as(y) * y,
    "constants": lambda x, y: x + torch.ones_like(y) * 2 + torch.zeros(5, dtype=torch.float64) + x.new_full((5,), 3.0),
    "literal_tensor": lambda x, y: x * torch.tensor(0.1, dtype=torch.float64),
    "full_slice": lambda x, y: x[:, :] * y[0:3],
    # products
    "linear": lambda x, y: F.linear(x, y, y.sum(-1)),
    "einsum": lambda x, y: torch.einsum("ab,cb->ca", x, y),
    "einsum_implicit": lambda x, y: torch.einsum("ab,ab", x, y) * x,
    "addmm": lambda x, y: torch.addmm(x.sum(-1), x, y.T, beta=0.5, alpha=2),
    "mm": lambda x, y: torch.mm(x, y.T),
    "vectors": lambda x, y: torch.dot(x.sum(0), y.sum(0)) * torch.outer(x.sum(1), y.sum(0)),
    "matrix_vector": lambda x, y: x @ y.sum(0) + torch.mv(x, y.sum(0)) + x.sum(1) @ (x @ y.T),
}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_operator_denotes_what_torch_computes(name: str) -> None:
    check(OPERATORS[name], draw(3, 5), draw(3, 5, seed=1))


def test_matmul_broadcasts_its_batch_dimensions() -> None:
    check(lambda a, b: a @ b, draw(2, 1, 3, 5), draw(4, 5, 6, seed=1))
    check(torch.bmm, draw(2, 3, 5), draw(2, 5, 6, seed=1))
    check(lambda a, b: a @ b, draw(2, 3, 5), draw(5, seed=1))
    check(F.linear, draw(2, 3, 5), draw(6, 5, seed=1))


def test_attention_by_hand_and_as_one_operator_agree() -> None:
    def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(-2, -1) * 8**-0.5, -1) @ v

    inputs = (draw(2, 3, 4, 8), draw(2, 3, 5, 8, seed=1), draw(2, 3, 5, 6, seed=2))
    assert capture(by_hand, inputs).facts == (f"{8**-0.5!r} is read as 1/sqrt(8)",)
    check(by_hand, *inputs)
    check(F.scaled_dot_product_attention, *inputs)


def test_dimensions_of_extent_one_have_no_axis() -> None:
    program = check(lambda x, y: x * y + x.sum(1, keepdim=True), draw(1, 5, 1), draw(3, 1, 4, seed=1))
    assert [None if a is None else a.extent for a in program.inputs[0].axes] == [None, 5, None]
    assert [a and a.extent for a in program.outputs[0].tensor.axes] == [3, 5, 4]


def test_in_place_operators_on_intermediates_are_understood() -> None:
    def function(x: Tensor) -> Tensor:
        y = x * 2
        y += x
        y.transpose(0, 1).mul_(3)
        return y.relu_()

    check(function, draw(3, 5))


# ------------------------------------------------------------------------------------------------------ axes


def test_axes_are_never_identified_by_extent() -> None:
    program = check(lambda x, w: x @ w, draw(4, 4), draw(4, 4, seed=1))
    assert [[a and a.name for a in t.axes] for t in program.inputs] == [["m", "k"], ["k", "n"]]
    assert [a and a.name for a in program.outputs[0].tensor.axes] == ["m", "n"]


def test_a_matrix_plus_its_transpose_swaps_both_axes_at_once() -> None:
    program = check(lambda a: a + a.T, draw(4, 4))
    first, second = program.inputs[0].named_axes
    assert (first.name, first.copy, second.copy) == (second.name, 0, 1)
    assert program.outputs[0].value is add(leaf("a", (first, second)), leaf("a", (second, first)))


def test_a_gram_matrix_reads_its_rows_under_two_copies() -> None:
    program = check(lambda x: x @ x.T, draw(3, 5))
    m, k = program.inputs[0].named_axes
    other = m.renamed(1)
    assert program.outputs[0].tensor.axes == (m, other)
    assert program.outputs[0].value is sum_over(k, mul(leaf("x", (m, k)), leaf("x", (other, k))))


CHAINS: list[Unary] = [
    lambda a: (a + a.T).sum(0) * a.sum(1),
    lambda a: (a @ a) @ a.T + a,
    lambda a: torch.softmax(a @ a.T, -1) @ a,
    lambda a: torch.softmax(torch.softmax(a, -1).T, -1) @ a,
    lambda a: ((a + a.T).sum(0, keepdim=True) - a).T.softmax(0),
    lambda a: a.T * 2 + (a.sum(1) * a.sum(0) * a).T,
    lambda a: torch.einsum("ij,jk,kl->li", a, a.T, a) + a,
]


@pytest.mark.parametrize("function", CHAINS)
def test_copies_survive_long_chains(function: Unary) -> None:
    check(function, draw(4, 4))


def test_reductions_over_one_dimension_share_its_axis() -> None:
    program = check(lambda x, w: (x @ w) * x.sum(-1, keepdim=True), draw(3, 5), draw(5, 7, seed=1))
    assert {n.axis.name for n in walk([program.outputs[0].value]) if n.op is Op.SUM} == {"k"}


def test_axis_names_avoid_the_names_of_tensors() -> None:
    program = check(lambda k, m: k @ m, draw(3, 5), draw(5, 7, seed=1))
    assert {a.name for a in program.axes} == {"n", "r", "s"}


def test_capture_is_deterministic() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return torch.softmax(x @ y.T, -1) @ y

    inputs = draw(3, 5), draw(4, 5)
    first, second = capture(function, inputs), capture(function, inputs)
    assert first == second
    assert [o.value for o in first.outputs] == [o.value for o in second.outputs]


# ------------------------------------------------------------------------------------------- symbolic sizes


ROWS = Size("M", 1, 64)


def test_one_program_serves_every_value_of_a_symbolic_size() -> None:
    def function(x: Tensor, g: Tensor, w: Tensor) -> Tensor:
        h = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * g
        return h @ w / x.shape[0] ** 0.5

    weights = (draw(5, seed=1), draw(5, 7, seed=2))
    program = capture(function, (draw(6, 5), *weights), sizes={"x": (ROWS, 5)}, constant=["g", "w"])
    assert program.inputs[0].axes == (Axis("m", ROWS), Axis("k", 5))
    assert [t.constant for t in program.inputs] == [False, True, True]
    for rows in (1, 3, 64):
        assert_same(program, function, (draw(rows, 5), *weights), M=rows)


def test_an_example_of_length_one_still_gives_the_general_program() -> None:
    def function(x: Tensor) -> Tensor:
        return x.softmax(0) * x.shape[0]

    program = of_one(function, draw(1, 5), ROWS, 5)
    assert_same(program, function, (draw(7, 5),), M=7)


def test_a_divisor_is_kept() -> None:
    length = Size("L", 16, 8192, 16)
    program = of_one(lambda x: (x * 2).view(x.shape[0], 1, 5), draw(32, 5), length, 5)
    assert program.outputs[0].tensor.axes == (Axis("l", length), None, Axis("k", 5))


def test_a_size_of_one_value_is_a_number() -> None:
    program = of_one(lambda x: x * 2, draw(4, 5), Size("M", 4, 4), 5)
    assert program.inputs[0].axes[0] == Axis("m", 4)


def test_two_names_for_one_size_are_refused() -> None:
    inputs = draw(4, 5), draw(4, 5)
    with pytest.raises(UnsupportedProgram, match=r"must always be equal[\s\S]*give equal sizes one name"):
        of_two(lambda x, y: x + y, *inputs, x=(ROWS, 5), y=(Size("N", 1, 64), 5))


def test_a_size_that_the_function_fixes_is_refused() -> None:
    with pytest.raises(UnsupportedProgram, match="it needs M = 4"):
        of_two(lambda x, y: x + y, draw(4, 5), draw(4, 5), x=(ROWS, 5))


def test_a_branch_on_a_symbolic_size_is_refused() -> None:
    with pytest.raises(UnsupportedProgram, match=r"does not treat all sizes alike[\s\S]*x\.shape\[0\] <= 8"):
        of_one(lambda x: x if x.shape[0] > 8 else x * 2, draw(4, 5), ROWS, 5)


def test_squeezing_a_size_that_may_be_one_is_refused() -> None:
    with pytest.raises(UnsupportedProgram, match="drops the dimension M where it is 1"):
        of_one(lambda x: (x * 2).squeeze(), draw(4, 5), ROWS, 5)


def test_declared_sizes_must_fit_the_example() -> None:
    def sized(*sizes: int | Size) -> Program:
        return of_one(lambda x: x * 2, draw(4, 5), *sizes)

    with pytest.raises(InputError, match=r"`x` has sizes \[4, 5\], declared were \[4, 6\]"):
        sized(4, 6)
    with pytest.raises(InputError, match="`x` has 2 dimensions"):
        sized(4)
    with pytest.raises(InputError, match=r"size 4 where L is 8\.\.64"):
        sized(Size("L", 8, 64), 5)
    with pytest.raises(InputError, match="a multiple of 3"):
        sized(Size("L", 3, 64, 3), 5)
    with pytest.raises(InputError, match="M is declared twice"):
        sized(Size("M", 1, 64), Size("M", 1, 32))
    with pytest.raises(InputError, match=r"`sizes` names `z`[\s\S]*use one of: input"):
        capture(torch.nn.ReLU(), (draw(4, 5),), sizes={"z": (4, 5)})


# ----------------------------------------------------------------------------------------------- literals


@pytest.mark.parametrize(
    ("number", "expected", "fact"),
    [
        (1e-6, const(Fraction(1, 10**6)), None),
        (0.044715, const(Fraction("0.044715")), None),
        (2, const(2), None),
        (-0.5, const(Fraction(-1, 2)), None),
        (1 / 3, const(Fraction(1, 3)), "1/3"),
        (1 / math.sqrt(128), recip(sqrt(const(128))), "1/sqrt(128)"),
        (80**-0.5, recip(sqrt(const(80))), "1/sqrt(80)"),
        (math.sqrt(128), sqrt(const(128)), "sqrt(128)"),
        (-math.sqrt(2), mul(const(-1), sqrt(const(2))), "-sqrt(2)"),
        (math.sqrt(2 / 3), sqrt(const(Fraction(2, 3))), "sqrt(2/3)"),
        (math.pi, const(Fraction("3.141592653589793")), None),
    ],
)
def test_numbers_are_read_as_they_were_meant(number: float, expected: object, fact: str | None) -> None:
    program = of_one(lambda x: x + number, draw(3, 5))
    assert program.outputs[0].value.args[1] is expected
    assert program.facts == (() if fact is None else (f"{number!r} is read as {fact}",))


# ------------------------------------------------------------------------------------------------- modules


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(5, 7, dtype=torch.float64)
        self.register_buffer("scale", draw(7))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x) * self.get_buffer("scale")


def test_parameters_of_a_module_are_constant_inputs() -> None:
    block = Block()
    x = draw(3, 5)
    program = capture(block, (x,))
    assert [(t.name, t.constant) for t in program.inputs] == [
        ("x", False),
        ("proj_weight", True),
        ("proj_bias", True),
        ("scale", True),
    ]
    stored = (block.proj.weight, block.proj.bias, block.get_buffer("scale"))
    tensors = {t.name: v.detach().numpy() for t, v in zip(program.inputs, (x, *stored), strict=True)}
    torch.testing.assert_close(torch.from_numpy(results(program, tensors)[0].copy()), block(x).detach())


# ------------------------------------------------------------------------------------------------ refusals


def helper_with_cumsum(x: Tensor) -> Tensor:
    return torch.cumsum(x, -1)  # the unsupported line


def test_an_unsupported_operator_is_named_with_its_source_line() -> None:
    with pytest.raises(UnsupportedOperator) as caught:
        of_one(lambda x: helper_with_cumsum(x * 2) + 1, draw(3, 5))
    assert "aten.cumsum.default" in caught.value.seen
    line = helper_with_cumsum.__code__.co_firstlineno + 1
    assert f"{HERE}:{line}: return torch.cumsum(x, -1)  # the unsupported line" in caught.value.where
    assert caught.value.do


def branch_on_data(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x * 2
    return x * 3


def change_input(x: Tensor) -> Tensor:
    x += 1
    return x * 2


OUTSIDE = draw(5)

REFUSED: dict[str, tuple[Unary, type[PrismError], str]] = {
    "data": (branch_on_data, UnsupportedProgram, r"decides by the contents of a tensor[\s\S]*x\.sum\(\) > 0"),
    "input changed": (change_input, UnsupportedProgram, r"changes one of its inputs in place[\s\S]*x \+= 1"),
    "item": (lambda x: x * x.sum().item(), UnsupportedOperator, r"aten\.item"),
    "input returned": (lambda x: (x * 2, x), UnsupportedProgram, r"result 1 .* is the input `x` itself, an alias"),
    "view returned": (lambda x: x.T, UnsupportedProgram, r"is the input `x` itself, an alias or copy"),
    "none": (lambda x: (x * 2, None), UnsupportedProgram, r"result 1 of function is None, not a tensor"),
    "number": (lambda x: 3, UnsupportedProgram, r"the result of function is of type int, not a tensor"),
    "dictionary": (lambda x: {"y": x * 2}, UnsupportedProgram, r"type dict"),
    "nothing": (lambda x: (), UnsupportedProgram, r"returns nothing"),
    "twice": (lambda x: (x * 2, x * 2), UnsupportedProgram, r"result 1 of function is the same as out0"),
    "constant": (lambda x: torch.ones(3), UnsupportedProgram, r"depends on no input"),
    "Boolean": (lambda x: x > 0, UnsupportedProgram, r"holds bool"),
    "indices": (lambda x: x.max(-1).indices, UnsupportedProgram, r"holds int64"),
    "argmax": (lambda x: x.argmax(-1, keepdim=True) * x, UnsupportedProgram, r"turns real numbers into int64"),
    "cast": (lambda x: x.int() * x, UnsupportedProgram, r"turns real numbers into int32"),
    "split": (
        lambda x: (x * 2).reshape(5, 3),
        UnsupportedProgram,
        r"\[3, 5\] to \[5, 3\]: .* no common refinement",
    ),
    "concatenation": (
        lambda x: torch.cat([x, x[:2]]),
        UnsupportedProgram,
        r"joined from parts of 3 and 2 is used as one",
    ),
    "infinity": (lambda x: x + float("inf"), UnsupportedProgram, r"uses the number inf"),
    "minus infinity": (lambda x: x + float("-inf"), UnsupportedProgram, r"understood as a branch of torch\.where"),
    "power": (lambda x: x**0.3, UnsupportedOperator, r"the exponent is 3/10"),
    "rounding": (lambda x: torch.div(x, 2, rounding_mode="floor"), UnsupportedOperator, r"it rounds"),
    "random": (lambda x: F.dropout(x, 0.5), UnsupportedOperator, r"random"),
    "norm": (norm_of_order_three, UnsupportedOperator, r"norm of order 3"),
    "matrix norm": (norm_of_matrix, UnsupportedOperator, r"norm of a matrix"),
    "closure": (lambda x: x * OUTSIDE, UnsupportedProgram, r"reads a tensor that is not one of its inputs"),
    "shapes": (lambda x: x @ x, InputError, r"does not run on these inputs: .*\[3, 5\]"),
    "bug": (lambda x: x * int("one"), InputError, r"ValueError: .*'one'"),
    "one element": (lambda x: x[None].var(0), UnsupportedProgram, r"divides by 1 - 1"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_captured_is_refused_with_a_reason(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        capture(function, (draw(3, 5),))
    assert type(caught.value) is error
    assert HERE in caught.value.where
    assert caught.value.do
    assert capfd.readouterr() == ("", "")


def test_examples_that_do_not_fit_the_parameters_are_refused() -> None:
    def function(x: Tensor, y: Tensor, eps: float = 1.0) -> Tensor:
        return x + y * eps

    def keyword(x: Tensor, *, eps: float) -> Tensor:
        return x * eps

    x = draw(3, 5)
    with pytest.raises(InputError, match=r"takes 2 to 3 inputs \(x, y, eps\), 1 were given"):
        capture(function, (x,))
    with pytest.raises(InputError, match="`y` of function is of type list, not a tensor"):
        capture(function, (x, [1, 2]))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"`y` of function holds complex64[\s\S]*bfloat16, bool, float16, float32"):
        capture(function, (x, torch.ones(5, dtype=torch.complex64)))
    with pytest.raises(InputError, match=r"`x` of function is empty: \[0, 5\]"):
        capture(function, (x[:0], x))
    with pytest.raises(UnsupportedProgram, match="keyword-only argument `eps`"):
        capture(keyword, (x,))


def test_a_function_of_any_number_of_tensors_names_them_by_position() -> None:
    def total(*parts: Tensor) -> Tensor:
        return parts[0] + parts[1] + parts[2]

    program = check(total, draw(3, 5), draw(5, seed=1), draw(3, 1, seed=2))
    assert [t.name for t in program.inputs] == ["parts0", "parts1", "parts2"]


def test_outputs_avoid_the_names_of_inputs() -> None:
    program = check(lambda out, out1: (out + out1, out * out1), draw(3, 5), draw(3, 5, seed=1))
    assert [o.tensor.name for o in program.outputs] == ["out0", "out1_"]


def test_an_unsupported_module_is_placed_where_it_is_defined() -> None:
    with pytest.raises(UnsupportedOperator, match=r"aten\.max_pool1d") as caught:
        capture(torch.nn.MaxPool1d(3), (draw(3, 5),))
    assert "pooling.py" in caught.value.where


def test_regions_with_their_own_rules_are_refused_by_name() -> None:
    def mixed(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x.T

    with pytest.raises(UnsupportedOperator, match="autocast"):
        capture(mixed, (draw(3, 5).float(),))
