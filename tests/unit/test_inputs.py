"""Reading ``--input NAME=dtype[sizes]``, and using it in place of a file's own inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prism.frontend import InputSpec, LoadedFunction, example_tensor, override_inputs, parse_input_spec
from prism.frontend.inputs import representative
from sgraph.axis import Size
from sgraph.errors import InputSpecError
from sgraph.program import DType


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("x=bf16[8,4096]", InputSpec("x", DType.BF16, (8, 4096))),
        ("W=fp32[M:1..64, 4096]", InputSpec("W", DType.FP32, (Size("M", 1, 64), 4096))),
        ("kv=f16[L:16..8192:16]", InputSpec("kv", DType.FP16, (Size("L", 16, 8192, 16),))),
        (" ids = i64[ 3 ] ", InputSpec("ids", DType.INT64, (3,))),
        ("s=float64[]", InputSpec("s", DType.FP64, ())),
        ("a=bool[2,M:1..4,M:1..4]", InputSpec("a", DType.BOOL, (2, Size("M", 1, 4), Size("M", 1, 4)))),
        ("b=bfloat16[1]", InputSpec("b", DType.BF16, (1,))),
    ],
)
def test_specs_are_read_and_printed(text: str, spec: InputSpec) -> None:
    assert parse_input_spec(text) == spec
    assert parse_input_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "seen", "character"),
    [
        ("x", "there is no `=`", 2),
        ("=bf16[8]", "`` is no parameter name", 1),
        ("2x=bf16[8]", "`2x` is no parameter name", 1),
        ("class=bf16[8]", "`class` is no parameter name", 1),
        ("x=bf17[8]", "`bf17` is no element type", 3),
        ("x=bf16", "not in `[` and `]`", 7),
        ("x=bf16[8", "not in `[` and `]`", 9),
        ("x=bf16[8,y]", "`y` is no size", 10),
        ("x=bf16[8,,2]", "`` is no size", 10),
        ("x=bf16[8,-2]", "`-2` is no size", 10),
        ("x=bf16[0]", "the size is 0", 8),
        ("x=bf16[8,M:4..2]", "the range 4..2 is empty", 10),
        ("x=bf16[M:0..2]", "starts below 1", 8),
        ("x=bf16[M:1..64:0]", "the divisor is 0", 8),
        ("x=bf16[M:3..7:8]", "no multiple of 8 lies in 3..7", 8),
        ("x=bf16[M:1..8,M:1..9]", "M has two ranges", 15),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(text: str, seen: str, character: int) -> None:
    with pytest.raises(InputSpecError) as caught:
        parse_input_spec(text)
    assert seen in caught.value.seen
    assert text in caught.value.seen
    assert caught.value.where == f"character {character}"
    assert caught.value.do


def test_an_unknown_element_type_lists_the_known_ones() -> None:
    with pytest.raises(InputSpecError, match="use one of: bf16, fp16, fp32, fp64, i32, i64, bool"):
        parse_input_spec("x=int4[8]")


@pytest.mark.parametrize(
    ("size", "value"),
    [
        (7, 7),
        (Size("M", 1, 64), 16),
        (Size("M", 1, 4), 4),
        (Size("M", 100, 200), 100),
        (Size("L", 1, 8192, 16), 16),
        (Size("L", 1, 8192, 24), 24),
        (Size("L", 17, 100, 12), 24),
        (Size("L", 1, 13, 6), 12),
    ],
)
def test_a_symbolic_size_is_represented_by_one_of_its_values(size: int | Size, value: int) -> None:
    assert representative(size) == value


def test_examples_are_normal_reproducible_and_of_the_type_asked_for() -> None:
    spec = parse_input_spec("x=bf16[M:1..64,4096]")
    first, second, third = (example_tensor(spec, seed) for seed in (1, 1, 2))
    assert first.shape == (16, 4096)
    assert first.dtype is torch.bfloat16
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert abs(first.float().mean().item()) < 0.02
    assert abs(first.float().std().item() - 1) < 0.02
    assert set(example_tensor(parse_input_spec("b=bool[64]"), 0).tolist()) == {True, False}
    assert example_tensor(parse_input_spec("i=i32[64]"), 0).dtype is torch.int32


def function(x: torch.Tensor, W: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:  # noqa: N803
    return x @ W + eps


@pytest.fixture
def loaded() -> LoadedFunction:
    return LoadedFunction(function, (torch.zeros(2, 3), torch.zeros(3, 4)), Path("file.py"), "function")


def test_overrides_replace_inputs_by_name(loaded: LoadedFunction) -> None:
    specs = [parse_input_spec("W=fp32[3,8]"), parse_input_spec("x=fp32[M:1..64,3]")]
    inputs, sizes = override_inputs(loaded, specs)
    assert [tuple(x.shape) for x in inputs] == [(16, 3), (3, 8)]
    assert sizes == {"x": (Size("M", 1, 64), 3)}
    assert [tuple(x.shape) for x in loaded.inputs] == [(2, 3), (3, 4)]


def test_no_overrides_change_nothing(loaded: LoadedFunction) -> None:
    inputs, sizes = override_inputs(loaded, [])
    assert all(a is b for a, b in zip(inputs, loaded.inputs, strict=True))
    assert sizes == {}


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["y=fp32[3]"], r"function has no parameter `y`[\s\S]*--input y=fp32\[3\][\s\S]*use one of: x, W"),
        (["eps=fp32[3]"], "has no parameter `eps`"),
        (["x=fp32[3]", "x=fp32[4]"], "`x` is given twice"),
        (["x=fp32[M:1..4]", "W=fp32[M:1..5]"], "M has two ranges"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(loaded: LoadedFunction, specs: list[str], message: str) -> None:
    with pytest.raises(InputSpecError, match=message):
        override_inputs(loaded, [parse_input_spec(s) for s in specs])
