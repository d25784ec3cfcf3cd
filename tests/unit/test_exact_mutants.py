"""Emitted texts with one mistake each: those that no longer compute the program are refused by exact evaluation.

Whether a mutant still computes its program is decided by other means: it is run in Triton's interpreter in float32
and compared with double precision. Only mutants that are seen to be wrong there have to be refused here.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import pytest
import torch

from autotune.interpreter import interpreted
from autotune.module import load_source
from sgraph.evaluate import evaluate_program
from sgraph.program import Program
from tests.unit.test_exact import emitted
from verify.exact import Case, check_exactly, small_cases

SAMPLE = 8
"""Mutants of every text."""
SEED = 20

Mutation = Callable[[ast.AST], Iterator[ast.AST]]
"""The mutants of one node."""


# ------------------------------------------------------------------------------------------------ mutations


def _call_of(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def dropped_mask(node: ast.AST) -> Iterator[ast.AST]:
    """A load or store of all lanes."""
    if isinstance(node, ast.Call) and any(k.arg == "mask" for k in node.keywords):
        yield ast.Call(node.func, node.args, [])


def half_mask(node: ast.AST) -> Iterator[ast.AST]:
    """One of two masks."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        yield node.left
        yield node.right


def neutral_element(node: ast.AST) -> Iterator[ast.AST]:
    """Another value in padded lanes, or an accumulator that starts elsewhere."""
    match node:
        case ast.keyword(arg="other", value=ast.Constant()):
            yield ast.keyword("other", ast.Constant(1.0))
        case ast.keyword(arg="other"):
            yield ast.keyword("other", ast.Constant(0.0))
        case ast.Call(func=ast.Attribute(attr="zeros"), args=[shape, dtype]):
            full = ast.Attribute(ast.Name("tl", ast.Load()), "full", ast.Load())
            yield ast.Call(full, [shape, ast.Constant(1.0), dtype], [])
        case ast.Call(func=ast.Attribute(attr="full"), args=[shape, _, dtype]):
            zeros = ast.Attribute(ast.Name("tl", ast.Load()), "zeros", ast.Load())
            yield ast.Call(zeros, [shape, dtype], [])
        case _:
            pass


def bound_off_by_one(node: ast.AST) -> Iterator[ast.AST]:
    """A comparison or a loop that goes one further, or one less far."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Lt):
        yield ast.Compare(node.left, [ast.LtE()], node.comparators)
        fewer = ast.BinOp(node.comparators[0], ast.Sub(), ast.Constant(1))
        yield ast.Compare(node.left, [ast.Lt()], [fewer])
    if _call_of(node, "tl.range") and isinstance(node, ast.Call):
        last = len(node.args) - 1 if len(node.args) < 3 else 1
        shorter = ast.BinOp(node.args[last], ast.Sub(), ast.Constant(1))
        yield ast.Call(node.func, [*node.args[:last], shorter, *node.args[last + 1 :]], node.keywords)


def swapped_axes(node: ast.AST) -> Iterator[ast.AST]:
    """A row for a column, another stride, another dimension, a product the other way round."""
    match node:
        case ast.Tuple(elts=[ast.Slice() as a, ast.Constant(value=None) as b]):
            yield ast.Tuple([b, a], ast.Load())
        case ast.keyword(arg="axis", value=ast.Constant(value=int() as axis)):
            yield ast.keyword("axis", ast.Constant(1 - axis))
        case ast.Call(func=ast.Attribute(attr="stride") as func, args=[ast.Constant(value=int() as at)]):
            yield ast.Call(func, [ast.Constant(1 - at)], [])
        case ast.Call(func=ast.Attribute(attr="dot"), args=[a, b, c]):
            yield ast.Call(node.func, [b, a, c], node.keywords)
        case _:
            pass


def lost_accumulation(node: ast.AST) -> Iterator[ast.AST]:
    """A step that replaces what was summed before it."""
    match node:
        case ast.AugAssign(target=target, value=value):
            yield ast.Assign([target], value)
        case ast.Call(func=ast.Attribute(attr="dot"), args=[a, b, _]):
            yield ast.Call(node.func, [a, b], node.keywords)
        case _:
            pass


def lost_operand(node: ast.AST) -> Iterator[ast.AST]:
    """A factor, divisor or summand left out: a rescale, a scale of the epilogue, an epsilon, an offset."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.Add | ast.Sub):
        yield node.left
        if isinstance(node.op, ast.Mult | ast.Add):
            yield node.right


def wrong_name(node: ast.AST) -> Iterator[ast.AST]:
    """Another program id, size or tile."""
    swaps = {"pid_m": "pid_n", "pid_n": "pid_m", "BLOCK_M": "BLOCK_K", "BLOCK_N": "BLOCK_K", "M": "K", "N": "K"}
    swaps |= {"K": "BLOCK_K", "cell": "pid", "max_m": "raised_m", "raised_m": "max_m"}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in swaps:
        yield ast.Name(swaps[node.id], ast.Load())


def missing_cell(node: ast.AST) -> Iterator[ast.AST]:
    """A launch or a merge with one cell less."""
    if ast.unparse(node) in {"SPLIT", "tuned['split']"} and isinstance(node, ast.Name | ast.Subscript):
        yield ast.BinOp(node, ast.Sub(), ast.Constant(1))


TEXTS: Final = (
    "linear",
    "rmsnorm_linear loop",
    "rmsnorm_linear split",
    "softmax whole",
    "softmax loop",
    "gated_mlp",
    "add_rmsnorm",
)
MUTATIONS: tuple[Mutation, ...] = (
    dropped_mask,
    half_mask,
    neutral_element,
    bound_off_by_one,
    swapped_axes,
    lost_accumulation,
    lost_operand,
    wrong_name,
    missing_cell,
)


def places(tree: ast.Module) -> list[tuple[ast.AST, str, ast.AST]]:
    """Every node of the kernels and the launcher that a mutation replaces, the mutation, and the new node."""
    bodies = [f for f in tree.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
    nodes = [n for f in bodies for statement in f.body for n in ast.walk(statement)]
    return [(n, m.__name__, new) for n in nodes for m in MUTATIONS for new in m(n)]


def mutants(source: str, count: int, seed: int = SEED) -> Iterator[tuple[str, str]]:
    """So many mutants of a text at random, with the name of their mutation."""
    tree = ast.parse(source)
    found = places(tree)
    random.Random(seed).shuffle(found)
    for node, mutation, new in found[:count]:
        line: int = getattr(node, "lineno", 0)
        changed = copy.deepcopy(tree, {id(node): copy.deepcopy(new)})
        yield f"{mutation} in line {line}", ast.unparse(ast.fix_missing_locations(changed))


# -------------------------------------------------------------------------------------------------- verdicts


def judged_at(program: Program, source: str) -> list[Case]:
    """Larger than the cases of exact evaluation: tiles of 16, ragged on each axis and divisible on each."""
    found: list[Case] = []
    for extents in ((35, 18, 32), (48, 1, 20), (16, 40, 18)):
        sizes = {a.name: n for a, n in zip(program.axes, extents, strict=False)}
        config = small_cases(program, source)[0].config
        tiles = {k: {n: 16 if n.startswith("tile_") else e for n, e in v.items()} for k, v in config.items()}
        found.append(Case(tiles, sizes))
    return found


def is_wrong(program: Program, source: str) -> bool:
    """Whether Triton's interpreter sees a stray access, or a result that is not the program's."""
    for seed, case in enumerate(judged_at(program, source)):
        generator = np.random.default_rng(seed)
        shapes = {t.name: [case.sizes[a.name] for a in t.named_axes] for t in program.inputs}
        inputs = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
        expected = evaluate_program(program, inputs)
        given = [torch.tensor(inputs[t.name], dtype=torch.float32) for t in program.inputs]
        try:
            module = load_source(source, program.name)
            vars(module)["DTYPES"] = dict.fromkeys(module.DTYPES, torch.float32)
            with interpreted():
                results = module.launch(*given, config={k: dict(v) for k, v in case.config.items()})
        except Exception:  # whatever a mutant raises, it does not compute its program
            return True
        got = results if isinstance(results, tuple) else (results,)
        for result, wanted in zip(got, expected.values(), strict=True):
            if result.shape != wanted.shape or not np.allclose(result.numpy(), wanted, rtol=1e-3, atol=1e-4):
                return True
    return False


@pytest.mark.parametrize("name", TEXTS)
def test_a_mutant_that_exact_evaluation_accepts_is_none(name: str) -> None:
    program, source = emitted(name)
    refused = 0
    for what, text in mutants(source, SAMPLE):
        if check_exactly(program, text, fields=False).passed:
            assert not is_wrong(program, text), what
        else:
            refused += 1
    assert refused > SAMPLE // 2, "most mistakes matter"


def test_the_judge_tells_right_from_wrong() -> None:
    program, source = emitted("linear")
    assert not is_wrong(program, source)
    assert is_wrong(program, source.replace("offs_m < M", "offs_m < M - 1"))


def test_every_mutation_occurs() -> None:
    names = {name for _, name, _ in places(ast.parse(emitted("rmsnorm_linear split")[1]))}
    assert names == {m.__name__ for m in MUTATIONS}
