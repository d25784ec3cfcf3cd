"""Views of inputs and merged outputs: every place where a caller's tensors meet the program's."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from capturing import check, inputs_of
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from autotune.interpreter import interpreted
from autotune.lower import lower
from autotune.module import load_source
from autotune.torch_printer import load_torch, print_torch
from prism.frontend import capture
from prism.guard import Guarded, misfit
from prism.pipeline import concrete_sizes
from prism.proving import prove
from rewrites.saturate import saturate
from sgraph.axis import Size
from sgraph.border import merge_text, overlapping, parameters, pinned, returned, view_text, viewed
from sgraph.errors import InputError
from sgraph.evaluate import evaluate_program, evaluate_sgraph
from sgraph.execute import execute
from sgraph.generate import Family, SearchLimits, generate
from sgraph.printer import program_text, python
from sgraph.program import Narrow, Program, Split, View
from sgraph.reader import read
from tests.programs import H200
from verify.equivalence import prove as prove_family
from verify.exact import check_exactly
from verify.inputs import make_inputs, resolve_sizes
from verify.numerics import Prepared, check_numerics
from verify.verdict import Status


def heads(x: Tensor, w: Tensor) -> Tensor:
    """A projection viewed as heads, normalised per head, merged again."""
    h = (x @ w).view(x.shape[0], 4, 8)
    return torch.softmax(h, -1).flatten(1)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding by halves."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


SHAPES: dict[str, list[tuple[int, ...]]] = {"heads": [(6, 16), (16, 32)], "rotated": [(6, 16), (6, 16), (6, 16)]}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {"heads": heads, "rotated": rotated}


def inputs(name: str) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs_of(*SHAPES[name]))


def program_of(name: str) -> Program:
    return capture(FUNCTIONS[name], inputs(name))


def family_of(name: str) -> Family:
    program = program_of(name)
    table = saturate([o.value for o in program.outputs])
    return generate(program, table, H200, concrete_sizes(program, inputs(name)), SearchLimits()).families[0]


@pytest.fixture(scope="module", params=["heads", "rotated"])
def case(request: pytest.FixtureRequest) -> tuple[str, Program, Family]:
    name = cast(str, request.param)
    family = family_of(name)
    return name, family.graph.program, family


Case = tuple[str, Program, Family]


def test_the_border_says_how_inputs_are_viewed() -> None:
    program = program_of("heads")
    assert program.border is not None
    assert [t.name for t in program.inputs] == ["x", "w"]
    assert program.border.views == (View("x"), View("w", (Split(1, (4, 8)),)))
    assert program.border.merges == ((1, 2),)
    text = program_text(program)
    assert "w.unflatten(1, (4, 8))" in text and "returns out.flatten(1, 2)" in text


def test_parts_are_inputs_of_their_own() -> None:
    program = program_of("rotated")
    assert program.border is not None
    assert program.border.views[:2] == (View("x", (Narrow(1, 0, 8),)), View("x", (Narrow(1, 8, 8),)))
    assert [t.name for t in parameters(program)] == ["x", "cos", "sin"]
    # Halves of tensors that are read side by side run along one axis.
    assert len({t.axes for t in program.inputs}) == 1


def test_programs_without_views_have_no_border() -> None:
    assert capture(torch.nn.Softmax(-1), (torch.ones(3, 4),)).border is None


def test_views_and_results_of_numpy_and_torch(case: Case) -> None:
    name, program, _ = case
    given = inputs(name)
    for a, b in zip(viewed(program, given), viewed(program, [x.numpy() for x in given]), strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
        assert a.untyped_storage().data_ptr() in {x.untyped_storage().data_ptr() for x in given}  # never a copy
    with pytest.raises(InputError, match="does not fit"):
        viewed(program, [x[:, :-1] for x in given])


def test_texts_of_views() -> None:
    assert view_text(View("x", (Narrow(2, 0, 4), Split(1, (2, 3))))) == "x.narrow(2, 0, 4).unflatten(1, (2, 3))"
    assert merge_text("y", (2, 1, 3)) == "y.flatten(3, 5).flatten(0, 1)"
    x = torch.randn(2, 3, 4, 5, 6, 7)
    assert eval(merge_text("x", (2, 1, 3)), {"x": x}).shape == (6, 4, 210)


def test_the_evaluators_take_what_the_function_takes(case: Case) -> None:
    name, program, family = case
    given = [x.double() for x in inputs(name)]
    expected = FUNCTIONS[name](*given).numpy()
    arrays = {t.name: x.numpy() for t, x in zip(parameters(program), given, strict=True)}
    np.testing.assert_allclose(evaluate_program(program, arrays)["out"], expected)
    np.testing.assert_allclose(evaluate_sgraph(family.graph, arrays)["out"], expected)
    with pytest.raises(InputError):
        evaluate_program(program, {n: x[:, :-1] for n, x in arrays.items()})


def test_the_executor_runs_schedules_on_views(case: Case) -> None:
    name, program, family = case
    given = viewed(program, [x.double().numpy() for x in inputs(name)])
    tensors = {t.name: x for t, x in zip(program.inputs, given, strict=True)}
    sizes = {a.name: a.extent for a in program.axes if isinstance(a.extent, int)}
    for schedule in family.schedules:
        tensors |= execute(schedule, tensors, sizes, dict.fromkeys(sizes, 3), 2)
    outputs = returned(program, [tensors["out"]])
    np.testing.assert_allclose(outputs[0], FUNCTIONS[name](*(x.double() for x in inputs(name))).numpy())


def test_printed_programs_are_read_back(case: Case) -> None:
    _, program, family = case
    assert read(python(program)) == program
    assert read(python(family.graph)) == family.graph


def test_families_are_proved(case: Case) -> None:
    _, _, family = case
    assert prove_family(family.graph, family.schedules).status is Status.PROVED


def test_the_torch_text_takes_and_returns_what_the_function_does(case: Case) -> None:
    name, program, family = case
    run = load_torch(print_torch(family.graph))
    assert Prepared.of(program, FUNCTIONS[name], inputs(name)).check(run).passed
    assert prove(FUNCTIONS[name], run, inputs(name)).status is Status.PROVED


def test_the_emitted_launcher_views_and_merges(case: Case) -> None:
    name, program, family = case
    source = lower(family.graph, family.schedules)
    module = load_source(source, name)

    def run(*given: Tensor) -> object:
        with interpreted():
            return module.launch(*given)

    report = check_numerics(program, run, FUNCTIONS[name], rounds=1, hostile=False)
    assert report.passed, str(report)
    with interpreted(), pytest.raises(ValueError, match="expected shape"):
        module.launch(*(x[:, :-1] for x in inputs(name)))
    with interpreted(), pytest.raises(ValueError, match="expected shape"):
        module.launch(*viewed(program, inputs(name))[: len(parameters(program))])
    with interpreted(), pytest.raises(TypeError, match="expected a tensor, got list"):
        module.launch([1.0], *inputs(name)[1:])


def test_the_emitted_text_is_exact_at_small_extents(case: Case) -> None:
    _, program, family = case
    report = check_exactly(program, lower(family.graph, family.schedules), seed=3)
    assert report.passed, str(report)
    assert report.elements > 0


def test_the_guard_looks_at_what_the_function_takes(case: Case) -> None:
    name, program, _ = case
    given = inputs(name)
    assert misfit(program, given) is None
    assert "has shape (6, 17)" in str(misfit(program, (torch.randn(6, 17), *given[1:])))
    assert "dimensions" in str(misfit(program, (torch.randn(6, 4, 8), *given[1:])))
    assert "expected" in str(misfit(program, given[1:]))
    calls: list[int] = []
    guarded = Guarded(program, lambda *x: calls.append(1), FUNCTIONS[name])
    guarded(*given)
    guarded(*(x.double() for x in given))
    assert calls == [1] and guarded.fallbacks == 1


def test_drawn_inputs_are_what_the_function_takes(case: Case) -> None:
    name, program, _ = case
    drawn = make_inputs(program, resolve_sizes(program), seed=0)
    assert [tuple(x.shape) for x in drawn] == SHAPES[name]
    assert set(pinned(program)) <= set(resolve_sizes(program))
    fixed = min(pinned(program))
    with pytest.raises(InputError, match="is written in a view of an input"):
        resolve_sizes(program, {fixed: 3})


def test_a_wrong_rotation_is_refuted() -> None:
    def wrong(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((second, first), -1) * sin

    assert prove(rotated, wrong, inputs("rotated")).status is Status.REFUTED


def test_symbolic_sizes_beside_views() -> None:
    rows = Size("M", 1, 64)
    program = capture(heads, inputs("heads"), sizes={"x": (rows, 16)})
    assert program.inputs[0].axes[0] is not None and program.inputs[0].axes[0].extent == rows
    given = [torch.randn(11, 16, dtype=torch.float64), torch.randn(16, 32, dtype=torch.float64)]
    arrays = {t.name: x.numpy() for t, x in zip(parameters(program), given, strict=True)}
    np.testing.assert_allclose(evaluate_program(program, arrays)["out"], heads(*given).numpy())


def test_the_last_index_of_a_symbolic_axis() -> None:
    length = Size("L", 1, 64)

    def last(x: Tensor) -> Tensor:
        return F.silu(x[-1]) * x.sum(0)

    program = capture(last, (torch.randn(5, 8),), sizes={"x": (length, 8)})
    given = torch.randn(9, 8, dtype=torch.float64)
    np.testing.assert_allclose(evaluate_program(program, {"x": given.numpy()})["out"], last(given).numpy())
    check(last, torch.randn(5, 8, dtype=torch.float64))


def test_parts_of_a_symbolic_axis() -> None:
    length = Size("L", 4, 64)

    def first_rows(x: Tensor) -> Tensor:
        return F.silu(x[:3]) + x.mean(0)

    program = capture(first_rows, (torch.randn(5, 8),), sizes={"x": (length, 8)})
    assert pinned(program) == {a.name for a in program.inputs[1].named_axes if a.extent == 3}
    given = torch.randn(9, 8, dtype=torch.float64)
    np.testing.assert_allclose(evaluate_program(program, {"x": given.numpy()})["out"], first_rows(given).numpy())


def test_functions_of_overlapping_views_are_refuted_by_running_them() -> None:
    def whole_and_first(x: Tensor) -> Tensor:
        return x.sum(0) * x[0]

    def whole_and_second(x: Tensor) -> Tensor:
        return x.sum(0) * x[1]

    def parts(x: Tensor) -> Tensor:
        return (x[:2].sum(0) + x[2:].sum(0)) * x[0]

    x = torch.randn(7, 3)
    assert overlapping(capture(whole_and_first, (x,)))
    assert prove(whole_and_first, whole_and_second, (x,)).status is Status.REFUTED
    # The sum over an axis and the sums over its parts are different tensors to the algebra: no proof, no refutation.
    assert prove(whole_and_first, parts, (x,)).status is Status.UNKNOWN
    assert not overlapping(program_of("rotated"))


def test_pairs_read_one_by_one_and_together_are_proved_equal() -> None:
    def turned(x: Tensor) -> Tensor:
        pairs = x.unflatten(-1, (-1, 2))
        return (pairs * torch.stack((-pairs[..., 1], pairs[..., 0]), -1)).sum((-1, -2))

    def written_out(x: Tensor) -> Tensor:
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return (b * a - a * b).sum(-1)

    assert prove(turned, written_out, (torch.randn(3, 8),)).status is Status.PROVED


def test_kernels_of_boolean_masks_are_exact() -> None:
    def masked(x: Tensor, keep: Tensor) -> Tensor:
        return torch.where(keep, x, 0.0).sum(-1)

    given = (torch.randn(5, 7), torch.rand(5, 7) > 0.5)
    program = capture(masked, given)
    table = saturate([o.value for o in program.outputs])
    family = generate(program, table, H200, concrete_sizes(program, given), SearchLimits()).families[0]
    source = lower(family.graph, family.schedules)
    assert check_exactly(program, source, seed=1).passed
    # Truth values become 1 and 0, nothing else.
    twice = source.replace(".to(tl.float32)", ".to(tl.float32) * 2.0")
    assert twice != source and not check_exactly(program, twice, seed=1).passed
