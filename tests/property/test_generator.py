"""The generator against brute force: on small random programs nothing better is missed and nothing wrong listed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewrites.saturate import saturate
from sgraph import dags, roles
from sgraph import generate as generating
from sgraph.axis import Axis
from sgraph.bounds import kernel_estimate, lower_bound
from sgraph.cuts import Cuts
from sgraph.evaluate import evaluate_program, evaluate_sgraph
from sgraph.execute import execute
from sgraph.expr import Expr, call, exp, leaves, make, recip, sum_over
from sgraph.feasibility import violated
from sgraph.generate import Search, SearchLimits, generate
from sgraph.ir import Kernel, SGraph, Store
from sgraph.plans import PlanLimits
from sgraph.program import Program
from sgraph.table import Table
from sgraph.view import View
from tests.programs import H200, LARGE, PROGRAMS, SMALL, program, sizes_of, tensor

SMALL_LIMITS = SearchLimits(PlanLimits(stored=1), families=400)
BRUTE_FORCE = 60
"""One-kernel DAGs that brute force lists per program at most."""

Form = tuple[str, ...]
"""A program in Polish notation, so that it can be built at any extents."""

BINARY = ("add", "mul")
UNARY = ("silu", "recip", "exp", "sum m", "sum k", "sum n")
LEAVES = ("x", "w", "g", "v")


@st.composite
def forms(draw: st.DrawFn) -> Form:
    """Random programs of at most four operators over three axes."""
    out: list[str] = []
    operators, open_operands = 4, 1
    while open_operands:
        kinds = LEAVES if not operators else (*LEAVES, *BINARY, *BINARY, *UNARY)
        symbol = draw(st.sampled_from(kinds if out else (*BINARY, *UNARY)))
        out.append(symbol)
        operators -= symbol not in LEAVES
        open_operands += (symbol in BINARY) - (symbol in LEAVES)
    return tuple(out)


def built(form: Form, extents: Mapping[str, int]) -> Program:
    m, k, n = (Axis(name, extents[name]) for name in "mkn")
    inputs = {"x": tensor("x", m, k), "w": tensor("w", k, n), "g": tensor("g", k), "v": tensor("v", m)}
    stack: list[Expr] = []
    for symbol in reversed(form):
        match symbol.split():
            case ["add"]:
                stack.append(stack.pop() + stack.pop())
            case ["mul"]:
                stack.append(stack.pop() * stack.pop())
            case ["silu"]:
                stack.append(call("silu", stack.pop()))
            case ["recip"]:
                inner = stack.pop()
                stack.append(recip(inner * inner + 1))
            case ["exp"]:
                stack.append(exp(stack.pop()))
            case ["sum", name]:
                stack.append(sum_over({"m": m, "k": k, "n": n}[name], stack.pop()))
            case _:
                stack.append(inputs[symbol].read())
    value = stack.pop()
    used = {x.name for x in leaves([value])}
    return program(
        "random", tuple(t for t in inputs.values() if t.name in used), (tensor("out", *sorted(value.free)), value)
    )


def one_kernel_values(table: Table, p: Program) -> Iterator[Expr]:
    """Every value that reading the table node by node gives: binary products, single sums, nothing merged or cut."""
    inputs = {table.lookup(x): x for x in leaves(o.value for o in p.outputs)}
    (root,) = table.roots
    stack: list[tuple[dict[int, int], tuple[int, ...]]] = [({}, (root,))]
    while stack:
        chosen, todo = stack.pop()
        todo = tuple(c for c in todo if c not in chosen and c not in inputs)
        if not todo:
            value = _value(table, root, chosen, inputs)
            if value is not None:
                yield value
            continue
        for i, node in reversed(list(enumerate(table.nodes(todo[0])))):
            stack.append(({**chosen, todo[0]: i}, (*todo[1:], *node.args)))


def _value(table: Table, cls: int, chosen: Mapping[int, int], inputs: Mapping[int | None, Expr]) -> Expr | None:
    """The value of a class by one node per class; None where a class would need itself."""
    built_values: dict[int, Expr] = {}
    stack = [(cls, False)]
    open_classes: set[int] = set()
    while stack:
        current, expanded = stack.pop()
        if current in built_values:
            continue
        if current in inputs:
            built_values[current] = inputs[current]
            continue
        node = table.nodes(current)[chosen[current]]
        if expanded:
            built_values[current] = make(node.op, tuple(built_values[a] for a in node.args), node.attr)
            open_classes.discard(current)
        elif current in open_classes:
            return None
        else:
            open_classes.add(current)
            stack.append((current, True))
            stack.extend((a, False) for a in node.args)
    return built_values[cls]


def best_by_brute_force(p: Program, table: Table) -> float:
    """Least modelled time over all roles of all one-kernel values."""
    best = math.inf
    for value in itertools.islice(one_kernel_values(table, p), BRUTE_FORCE):
        output = p.outputs[0]
        kernel = Kernel("k0", (Store(output.tensor, value, output.value),))
        graph = SGraph(p, (kernel,))
        for mapped in roles.assignments(kernel)[0]:
            if violated(mapped.schedule, H200) is None:
                best = min(best, kernel_estimate(mapped.kernel, graph, H200, sizes_of(p)))
    return best


def searched(p: Program, limits: SearchLimits = SMALL_LIMITS) -> tuple[Search, Table]:
    table = saturate([o.value for o in p.outputs])
    return generate(p, table, H200, sizes_of(p), limits), table


def drawn(p: Program, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {t.name: random.uniform(0.2, 1.0, tuple(SMALL[a.name] for a in t.named_axes)) for t in p.inputs}


def agree(found: Search, p: Program) -> None:
    """Every family computes the program, kernel by kernel as equations and tile by tile as schedules."""
    data = drawn(p)
    expected = evaluate_program(p, data)
    ran: dict[object, None] = {}
    for family in found.families:
        got = evaluate_sgraph(family.graph, data)
        for name, wanted in expected.items():
            np.testing.assert_allclose(got[name], wanted, rtol=1e-8, err_msg=str(family.graph))
        memory = dict(data)
        for schedule in family.schedules:
            for store in schedule.kernel.stores:
                assert store.tensor.name not in memory
            if schedule not in ran:
                ran[schedule] = None
            memory |= execute(schedule, memory, SMALL, dict.fromkeys(SMALL, 2))
        for name, wanted in expected.items():
            np.testing.assert_allclose(memory[name], wanted, rtol=1e-8, err_msg=str(family.graph))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(forms())
def test_brute_force_finds_no_better_kernel(form: Form) -> None:
    p = built(form, LARGE)
    found, table = searched(p)
    brute = best_by_brute_force(p, table)
    if brute < math.inf:
        assert found.families, found.dropped
        assert found.families[0].estimate_s <= max(brute, found.families[0].bound_s) * (1 + 1e-9), str(p)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(forms())
def test_families_of_random_programs_compute_them(form: Form) -> None:
    p = built(form, SMALL)
    found, _ = searched(p)
    assert found.families or found.dropped
    agree(found, p)
    for family in found.families:
        assert family.estimate_s >= family.bound_s == lower_bound(family.graph, H200, sizes_of(p))


@pytest.mark.parametrize("name", PROGRAMS)
def test_schedules_of_every_listed_family_compute_the_program(name: str) -> None:
    p = PROGRAMS[name](SMALL)
    found, _ = searched(p)
    assert found.families
    agree(found, p)


# ------------------------------------------------------------------------------------------- pruning rules

_unstorable = Cuts._unstorable  # pyright: ignore[reportPrivateUsage]


def always(answer: object) -> Callable[..., object]:
    def rule(*_: object) -> object:
        return answer

    return rule


def any_size(cuts: Cuts, cls: int) -> str:
    reason = _unstorable(cuts, cls)
    return "" if "larger than" in reason or "without a reduction" in reason else reason


def keep_all(
    found: Mapping[tuple[Expr, ...], dags.Work], sizes: Mapping[Axis, int]
) -> tuple[list[tuple[Expr, ...]], int]:
    return list(found), 0


_SEARCH = dags._Search  # pyright: ignore[reportPrivateUsage]
_LISTING = generating._Listing  # pyright: ignore[reportPrivateUsage]
Patch = tuple[object, str, Callable[..., object]]

RULES: Mapping[str, tuple[Patch, ...]] = {
    "one contraction, nothing to factor out": ((View, "_contraction", always("plain")),),
    "dominated bodies": ((dags, "_pareto", keep_all), (_SEARCH, "_given_up", always(False))),
    "bodies given up half-way": ((_SEARCH, "_given_up", always(False)),),
    "chains are stored at their end": ((Cuts, "_chain_end", always(True)),),
    "what is worth storing": ((Cuts, "_unstorable", any_size),),
    "one trip": ((roles._Facts, "one_trip", always(False)),),  # pyright: ignore[reportPrivateUsage]
    "plans whose bound is too high": ((_LISTING, "full", always("")),),
}
"""Every rule that sets something aside without a limit's name, and what takes its place when it is off."""


def best(found: Search) -> float:
    return found.families[0].estimate_s if found.families else math.inf


def best_without(rule: str, p: Program) -> tuple[float, float]:
    """The best estimate with every rule on, and with one off."""
    limits = SearchLimits(PlanLimits(stored=1), families=1)
    on, table = searched(p, limits)
    with ExitStack() as patches:
        for patch in RULES[rule]:
            patches.enter_context(mock.patch.object(*patch))
        off = generate(p, table, H200, sizes_of(p), limits)
    return best(on), best(off)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("rows", [16, 2048])
def test_no_pruning_rule_loses_the_best_family(name: str, rule: str, rows: int) -> None:
    on, off = best_without(rule, PROGRAMS[name]({**LARGE, "m": rows}))
    assert on <= off * (1 + 1e-9)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=15, derandomize=True, deadline=None)
@given(form=forms())
def test_no_pruning_rule_loses_the_best_family_of_random_programs(rule: str, form: Form) -> None:
    on, off = best_without(rule, built(form, LARGE))
    assert on <= off * (1 + 1e-9)
