"""How a program is written makes no difference to the families found: names, orders, layouts, sizes, a batch axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import pytest

from rewrites.saturate import saturate
from sgraph.axis import Axis
from sgraph.bounds import is_dot
from sgraph.expr import (
    REDUCTIONS,
    Expr,
    Op,
    call,
    const,
    exp,
    make,
    mean_over,
    recip,
    rsqrt,
    sum_over,
    walk,
)
from sgraph.generate import Family, SearchLimits, generate
from sgraph.program import DType, Output, Program, Tensor
from sgraph.schedule import Loop, Statement
from tests.programs import H200, sizes_of


@dataclass(frozen=True, slots=True)
class Case:
    """A program that can be written in several ways that make no difference."""

    axes: Mapping[str, int]
    shapes: Mapping[str, str]
    """The axes of each input, one letter each."""
    out: str
    value: Callable[[Callable[[str], Expr], Callable[[str], Axis]], Expr]
    """From what reads an input and what names an axis."""


def _rms(x: Expr, k: Axis) -> Expr:
    return rsqrt(mean_over(k, x * x) + const("1/1000000"))


CASES: Mapping[str, Case] = {
    "rmsnorm_linear": Case(
        {"m": 16, "k": 512, "n": 384},
        {"x": "mk", "g": "k", "w": "kn"},
        "mn",
        lambda t, a: sum_over(a("k"), t("x") * _rms(t("x"), a("k")) * t("g") * t("w")),
    ),
    "gated_mlp": Case(
        {"m": 16, "k": 512, "n": 384},
        {"x": "mk", "u": "kn", "v": "kn"},
        "mn",
        lambda t, a: call("silu", sum_over(a("k"), t("x") * t("u"))) * sum_over(a("k"), t("x") * t("v")),
    ),
    "lora": Case(
        {"m": 16, "k": 512, "n": 384, "r": 16},
        {"x": "mk", "w": "kn", "a": "kr", "b": "rn"},
        "mn",
        lambda t, a: (
            sum_over(a("k"), t("x") * t("w")) + 2 * sum_over(a("r"), sum_over(a("k"), t("x") * t("a")) * t("b"))
        ),
    ),
    "attention": Case(
        {"m": 16, "j": 512, "d": 64, "n": 128},
        {"q": "md", "k": "jd", "v": "jn"},
        "mn",
        lambda t, a: (
            sum_over(a("j"), exp(sum_over(a("d"), t("q") * t("k"))) * t("v"))
            * recip(sum_over(a("j"), exp(sum_over(a("d"), t("q") * t("k")))))
        ),
    ),
}


def written(
    case: Case,
    *,
    names_of: Callable[[str], str] = str,
    scale: int = 1,
    reverse: bool = False,
    ones: bool = False,
    batch: int = 0,
) -> Program:
    """The program with other names, sizes, operand order, memory layouts, dimensions of one, or a batch axis."""
    axes = {a: Axis(names_of(a), size * scale) for a, size in case.axes.items()}
    batched = (Axis(names_of("b"), batch),) if batch else ()

    def laid_out(name: str, letters: str) -> Tensor:
        order = [axes[c] for c in (reversed(letters) if reverse else letters)]
        extra = batched if letters.startswith("m") else ()
        return Tensor(name, (*extra, *order, *((None,) if ones else ())), DType.BF16)

    inputs = {name: laid_out(names_of(name.upper()), letters) for name, letters in case.shapes.items()}
    value = case.value(lambda name: inputs[name].read(), lambda name: axes[name])
    if reverse:
        value = _swapped(value)
    given = tuple(inputs.values())
    out = Output(laid_out(names_of("out"), case.out), value)
    return Program("p", given[::-1] if reverse else given, (out,))


def _swapped(value: Expr) -> Expr:
    """The operands of every product and sum the other way round."""
    done: dict[Expr, Expr] = {}
    for node in walk([value]):
        args = [done[a] for a in node.args]
        swap = node.op in {Op.ADD, Op.MUL}
        done[node] = make(node.op, tuple(reversed(args) if swap else args), node.attr) if args else node
    return done[value]


def statements(body: Sequence[Statement]) -> Iterator[Statement]:
    for statement in body:
        yield statement
        if isinstance(statement, Loop):
            yield from statements(statement.body)


def signature(family: Family, batch: str = "") -> frozenset[object]:
    """A family without names, sizes and orders: per kernel its roles, what it reads and stores, and its statements."""
    kernels_of: list[tuple[object, ...]] = []
    for kernel, schedule in zip(family.graph.kernels, family.schedules, strict=True):
        of = Counter((phase.name, type(s).__name__) for phase in schedule.phases for s in statements(phase.body))
        work = Counter((n.op, is_dot(n)) for n in walk(s.value for s in kernel.stores) if n.op in REDUCTIONS)
        roles = sorted(r.value for a, r in kernel.roles if a.name != batch)
        kernels_of.append(
            (tuple(roles), len(kernel.reads), len(kernel.stores), frozenset(of.items()), frozenset(work.items()))
        )
    return frozenset(Counter(kernels_of).items())


def signatures(p: Program, batch: str = "") -> Counter[frozenset[object]]:
    table = saturate([o.value for o in p.outputs])
    listed = generate(p, table, H200, sizes_of(p), SearchLimits())
    assert not any(reason.startswith("deferred") for reason in listed.dropped), "everything is compared"
    return Counter(signature(f, batch) for f in listed.families)


class Variant(TypedDict, total=False):
    """Arguments of ``written``."""

    names_of: Callable[[str], str]
    scale: int
    reverse: bool
    ones: bool
    batch: int


VARIANTS: Mapping[str, Variant] = {
    "renamed": {"names_of": lambda name: f"z_{'zyxwvu'[len(name) % 6]}{ord(name[0]) * 7 % 31}_{name}"},
    "permuted and transposed": {"reverse": True},
    "other extents": {"scale": 2},
    "dimensions of one": {"ones": True},
    "a batch axis": {"batch": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_how_a_program_is_written_makes_no_difference(name: str, variant: str) -> None:
    case = CASES[name]
    changed = written(case, **VARIANTS[variant])
    batch = "b" if variant == "a batch axis" else ""
    plain = signatures(written(case))
    assert plain
    assert signatures(changed, batch) == plain
