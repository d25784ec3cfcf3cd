"""Mistakes that a printer of kernels could make, one at a time, as changes of an emitted text's syntax tree."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

NOTHING: Final = ast.Expr(ast.Constant(""))
"""In place of a statement that is left out."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """An emitted text with one mistake."""

    mutation: str
    """Which mistake."""
    line: int
    """Where, in the original."""
    before: str
    """What stood there."""
    after: str
    """What stands there now."""
    text: str
    """All of it."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a mutation may know besides the node it changes."""

    names: Mapping[str, tuple[str, ...]]
    """Names of the same function by their kind, such as ``offs_``."""


Mutation = Callable[[ast.AST, Around], Iterator[ast.AST]]
"""The mutants of one node."""


def _tl(name: str) -> ast.expr:
    return ast.Attribute(ast.Name("tl", ast.Load()), name, ast.Load())


def _is_call(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


# ------------------------------------------------------------------------------------------------- memory


def dropped_mask(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A load or store of all lanes."""
    del around
    if isinstance(node, ast.Call) and any(k.arg == "mask" for k in node.keywords):
        yield ast.Call(node.func, node.args, [])


def half_mask(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """One of two masks."""
    del around
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        yield node.left
        yield node.right


def neutral_element(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """Another value in padded lanes, or an accumulator that starts elsewhere."""
    del around
    match node:
        case ast.keyword(arg="other", value=ast.Constant()):
            yield ast.keyword("other", ast.Constant(1.0))
        case ast.keyword(arg="other"):
            yield ast.keyword("other", ast.Constant(0.0))
        case ast.Call(func=ast.Attribute(attr="zeros"), args=[shape, dtype]):
            yield ast.Call(_tl("full"), [shape, ast.Constant(1.0), dtype], [])
        case ast.Call(func=ast.Attribute(attr="full"), args=[shape, _, dtype]):
            yield ast.Call(_tl("zeros"), [shape, dtype], [])
        case ast.Call(func=ast.Attribute(attr="where"), args=[mask, tile, ast.Constant()]):
            yield tile
            yield ast.Call(node.func, [mask, tile, ast.Constant(1.0)], [])
        case _:
            pass


def bound_off_by_one(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A comparison or a loop that goes one further, or one less far, or begins one later."""
    del around
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Lt):
        yield ast.Compare(node.left, [ast.LtE()], node.comparators)
        yield ast.Compare(node.left, [ast.Lt()], [_less(node.comparators[0])])
    if _is_call(node, "tl.range") and isinstance(node, ast.Call) and len(node.args) > 1:
        first, last, *step = node.args
        yield ast.Call(node.func, [first, _less(last), *step], node.keywords)
        yield ast.Call(node.func, [ast.BinOp(first, ast.Add(), step[0] if step else ast.Constant(1)), last, *step], [])


def _less(value: ast.expr) -> ast.expr:
    return ast.BinOp(value, ast.Sub(), ast.Constant(1))


def swapped_axes(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A row for a column, another stride, another dimension, a product the other way round."""
    del around
    match node:
        case ast.Tuple(elts=[ast.Slice() as a, ast.Constant(value=None) as b]):
            yield ast.Tuple([b, a], ast.Load())
        case ast.Tuple(elts=[ast.Constant(value=None) as a, ast.Slice() as b]):
            yield ast.Tuple([b, a], ast.Load())
        case ast.keyword(arg="axis", value=ast.Constant(value=int() as axis)):
            yield ast.keyword("axis", ast.Constant(1 - axis if axis < 2 else 0))
        case ast.Call(func=ast.Attribute(attr="stride") as func, args=[ast.Constant(value=int() as at)]):
            yield ast.Call(func, [ast.Constant(1 - at if at < 2 else at - 1)], [])
        case ast.Call(func=ast.Attribute(attr="dot"), args=[a, b, c]):
            yield ast.Call(node.func, [b, a, c], node.keywords)
        case ast.Call(func=ast.Attribute(attr="trans"), args=[tile]):
            yield tile
        case _:
            pass


def program_mapping(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """Another place in the grid: quotient for remainder, another axis's coordinate or dimension of the grid."""
    match node:
        case ast.BinOp(left=left, op=ast.Mod(), right=ast.Name() as right):
            yield ast.BinOp(left, ast.FloorDiv(), right)
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            yield ast.BinOp(left, ast.Mod(), right)
        case ast.Call(func=ast.Attribute(attr="program_id"), args=[ast.Constant(value=int() as axis)]):
            yield ast.Call(node.func, [ast.Constant(1 - axis)], [])
        case ast.Name(id=name, ctx=ast.Load()) if name.startswith(("pid_", "tiles_")):
            yield from (ast.Name(n, ast.Load()) for n in around.names[f"{name.split('_', 1)[0]}_"] if n != name)
        case _:
            pass


# ---------------------------------------------------------------------------------------------- arithmetic


def lost_accumulation(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A step that replaces what was summed before it."""
    del around
    match node:
        case ast.AugAssign(target=target, value=value):
            yield ast.Assign([target], value)
        case ast.Call(func=ast.Attribute(attr="dot"), args=[a, b, _]):
            yield ast.Call(node.func, [a, b], node.keywords)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[ast.Name(id=first), other])) if name == first:
            yield ast.Assign([ast.Name(name, ast.Store())], other)
        case _:
            pass


def lost_operand(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A factor, divisor or summand left out: a scale or an operand of the epilogue, an epsilon, an offset."""
    del around
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.Add | ast.Sub):
        yield node.left
        if isinstance(node.op, ast.Mult | ast.Add):
            yield node.right


def wrong_divisor(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A division the other way round, by a tile instead of a size, or a multiplication in its place."""
    del around
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield ast.BinOp(node.right, ast.Div(), node.left)
        yield ast.BinOp(node.left, ast.Mult(), node.right)
        if isinstance(node.right, ast.Name) and node.right.id.isupper():
            yield ast.BinOp(node.left, ast.Div(), ast.Name(f"BLOCK_{node.right.id}", ast.Load()))


def wrong_function(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A minimum for a maximum, a maximum for a sum, a difference for a sum, a number doubled."""
    del around
    others = {"maximum": "minimum", "minimum": "maximum", "max": "sum", "sum": "max", "rsqrt": "sqrt", "exp": "abs"}
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="tl"), attr=attr)) if attr in others:
            yield ast.Call(_tl(others[attr]), node.args, node.keywords)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield ast.BinOp(left, ast.Sub(), right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            yield ast.BinOp(left, ast.Add(), right)
        case ast.Constant(value=float() as value) if value:
            yield ast.Constant(2 * value)
        case _:
            pass


def stale_scale(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A running maximum that is not renewed, sums that are not rescaled to it, or to the wrong one."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=raised)) if raised.startswith("raised"):
            yield NOTHING
        case ast.Name(id=name, ctx=ast.Load()) if name.startswith(("decay", "share")):
            yield ast.Constant(1.0)
        case ast.Name(id=name, ctx=ast.Load()) if name.startswith("raised"):
            yield from (ast.Name(n, ast.Load()) for n in around.names["max_"])
        case _:
            pass


def accumulator_type(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """Sums that are kept in bfloat16, by what is added or by where they lie between kernels."""
    del around
    match node:
        case ast.Call(func=ast.Attribute(attr="zeros"), args=[shape, ast.Attribute(attr="float32")]):
            yield ast.Call(node.func, [shape, _tl("bfloat16")], [])
        case ast.AugAssign(target=target, op=op, value=value):
            narrow = ast.Call(ast.Attribute(value, "to", ast.Load()), [_tl("bfloat16")], [])
            yield ast.AugAssign(target, op, ast.Call(ast.Attribute(narrow, "to", ast.Load()), [_tl("float32")], []))
        case ast.Call(func=ast.Attribute(attr="empty"), keywords=[ast.keyword("dtype", dtype), device]):
            if ast.unparse(dtype) == "torch.float32":
                narrow_dtype = ast.Attribute(ast.Name("torch", ast.Load()), "bfloat16", ast.Load())
                yield ast.Call(node.func, node.args, [ast.keyword("dtype", narrow_dtype), device])
        case _:
            pass


# -------------------------------------------------------------------------------------- names and statements


def wrong_name(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """Another axis's offsets, mask, tile, stride or size; another loaded tensor."""
    if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
        return
    for kind, names in around.names.items():
        if kind not in {"pid_", "tiles_", "max_"} and node.id in names:
            at = names.index(node.id)
            yield from (ast.Name(n, ast.Load()) for n in (names[at - 1], names[(at + 1) % len(names)]) if n != node.id)


def missing_cell(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A launch or a merge with one cell less."""
    del around
    if isinstance(node, ast.Name | ast.Subscript) and ast.unparse(node) in {"SPLIT", "tuned['split']"}:
        yield _less(node)


def missing_statement(node: ast.AST, around: Around) -> Iterator[ast.AST]:
    """A launch, such as that of a combine kernel, or a store left out."""
    del around
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _is_check(node.value):
        yield NOTHING


def _is_check(call: ast.Call) -> bool:
    """Whether a call only refuses inputs."""
    return isinstance(call.func, ast.Name) and call.func.id.startswith("_")


MUTATIONS: Final[tuple[Mutation, ...]] = (
    dropped_mask,
    half_mask,
    neutral_element,
    bound_off_by_one,
    swapped_axes,
    program_mapping,
    lost_accumulation,
    lost_operand,
    wrong_divisor,
    wrong_function,
    stale_scale,
    accumulator_type,
    wrong_name,
    missing_cell,
    missing_statement,
)
"""Every kind of mistake."""

KINDS: Final = ("offs_", "mask_", "pid_", "tiles_", "BLOCK_", "stride_", "max_")


def _around(function: ast.FunctionDef) -> Around:
    found = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} | {a.arg for a in function.args.args}
    names = {kind: tuple(sorted(n for n in found if n.startswith(kind))) for kind in KINDS}
    sizes = sorted(n for n in found if n.isupper() and not n.startswith("BLOCK_") and len(n) <= 2)
    pointers = sorted(n for n in found if n.endswith("_ptr"))
    return Around({**names, "size": tuple(sizes), "pointer": tuple(pointers)})


def places(tree: ast.Module) -> list[tuple[ast.AST, str, ast.AST]]:
    """Every node of the kernels and the launcher that a mutation replaces, the mutation, and the new node."""
    bodies = [f for f in tree.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
    found: list[tuple[ast.AST, str, ast.AST]] = []
    for function in bodies:
        around = _around(function)
        nodes = [n for statement in function.body for n in ast.walk(statement)]
        found += [(n, m.__name__, new) for n in nodes for m in MUTATIONS for new in m(n, around)]
    return found


def mutants(source: str, seed: int) -> Iterator[Mutant]:
    """Every mutant of a text in a random order in which the mutations take turns."""
    tree = ast.parse(source)
    lines = source.splitlines()
    by_mutation: dict[str, list[tuple[ast.AST, str, ast.AST]]] = {}
    for place in places(tree):
        by_mutation.setdefault(place[1], []).append(place)
    draw = random.Random(seed)
    for found in by_mutation.values():
        draw.shuffle(found)
    while by_mutation:
        for mutation in list(by_mutation):
            node, _, new = by_mutation[mutation].pop()
            if not by_mutation[mutation]:
                del by_mutation[mutation]
            line: int = getattr(node, "lineno", 0)
            changed = copy.deepcopy(tree, {id(node): copy.deepcopy(new)})
            text = ast.unparse(ast.fix_missing_locations(changed))
            yield Mutant(mutation, line, lines[line - 1].strip() if line else "", _written(new), text)


def _written(node: ast.AST) -> str:
    if isinstance(node, ast.keyword):
        return f"{node.arg}={ast.unparse(node.value)}"
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))
