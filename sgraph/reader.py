"""Reading printed Python back, without executing it.

The source is parsed with ``ast`` and interpreted here: assignments to names, calls of the constructors in
``sgraph.rebuilding``, tuples, literals, and ``+ - * /`` between expressions. Anything else is refused, so text from a
file, a store or a stranger can build an object and do nothing else.
"""

from __future__ import annotations

import ast
import inspect
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Final, Literal

from sgraph.axis import Axis, Extent, Level
from sgraph.errors import PrismError
from sgraph.expr import CONDITIONS, Attr, Expr, Op, const, make
from sgraph.ir import SGraph
from sgraph.program import Program
from sgraph.rebuilding import CONSTRUCTORS

Value = object
"""What an interpreted expression is: an ``Expr``, an axis, a program, a tuple, a literal."""

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Expr, Expr], Expr]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_RATIONAL: Final = re.compile(r"-?[0-9]{1,1000}(/[0-9]{1,1000})?")


class UnreadableText(PrismError):
    """The text is not what ``sgraph.printer.python`` prints."""


class _Refused(Exception):
    """What is wrong with one node of the text."""


def read(source: str) -> Expr | Program | SGraph:
    """The object that printed Python describes: the one its last line binds to a name.

    Raises:
        UnreadableText: the source holds anything but assignments built of Prism's constructors.
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise _unreadable(f"the text is no Python: {problem}", getattr(problem, "lineno", None)) from problem
    names: dict[str, Value] = {}
    last: Value = None
    for statement in statements:
        try:
            last = _statement(statement, names)
        except _Refused as problem:
            raise _unreadable(str(problem), statement.lineno) from problem
        except RecursionError as problem:
            raise _unreadable("the line nests too deep", statement.lineno) from problem
    if not isinstance(last, Expr | Program | SGraph):
        raise _unreadable("the last line builds no expression, program or sGraph", None)
    return last


def _unreadable(seen: str, line: int | None) -> UnreadableText:
    where = "" if line is None else f"line {line}"
    return UnreadableText(seen, where=where, do="print the object again with sgraph.printer.python")


def _statement(statement: ast.stmt, names: dict[str, Value]) -> Value:
    match statement:
        case ast.ImportFrom(module=str() as module, names=imported, level=0):
            for alias in imported:
                if alias.name not in CONSTRUCTORS.get(module, ()) or alias.asname is not None:
                    raise _Refused(f"{alias.name} of {module} is not one of the constructors")
            return None
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            if name in _constructors() or name in names:
                raise _Refused(f"{name} is bound already")
            names[name] = _value(value, names)
            return names[name]
        case _:
            raise _Refused(f"a {type(statement).__name__} statement; only imports and assignments are read")


def _value(node: ast.expr, names: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=bool() | int() | str() | None as literal):
            return literal
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)) if not isinstance(number, bool):
            return -number
        case ast.Tuple(elts=elements):
            return tuple(_value(e, names) for e in elements)
        case ast.Name(id=name):
            if name not in names:
                raise _Refused(f"the name {name} is not bound by an earlier line")
            return names[name]
        case ast.Attribute(value=ast.Name(id=name), attr=member):
            return _member(name, member)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b = _value(left, names), _value(right, names)
            if not isinstance(a, Expr) or not isinstance(b, Expr):
                raise _Refused("arithmetic between something else than expressions")
            return _OPERATORS[type(op)](a, b)
        case ast.Call(func=ast.Name(id=name), args=positional, keywords=keywords):
            arguments = [_value(a, names) for a in positional]
            flags = {k.arg: _value(k.value, names) for k in keywords if k.arg is not None}
            if len(flags) < len(keywords):
                raise _Refused("a call with ** or a repeated keyword")
            return _call(name, arguments, flags)
        case _:
            raise _Refused(f"a {type(node).__name__} in {ast.unparse(node)[:80]}, which no printed object has")


# --------------------------------------------------------------------------------------------- constructors


@dataclass(frozen=True, slots=True)
class _Constructor:
    """Something that the text may call, and the type of each of its arguments."""

    build: Callable[..., Value]
    signature: inspect.Signature
    hints: Mapping[str, object]


@cache
def _constructors() -> Mapping[str, _Constructor | type[Enum]]:
    found: dict[str, _Constructor | type[Enum]] = {}
    for module, listed in CONSTRUCTORS.items():
        for name in listed:
            build = _STRICTER.get(name) or getattr(import_module(module), name)
            if isinstance(build, type) and issubclass(build, Enum):
                found[name] = build
            else:
                found[name] = _Constructor(build, inspect.signature(build), _hints(build))
    return found


def _hints(build: Callable[..., Value]) -> dict[str, object]:
    return typing.get_type_hints(build.__init__ if isinstance(build, type) else build)


def _rational(value: int | str) -> Expr:
    """``const`` for what the printer writes, which keeps a text like 1e999999999 from filling the memory."""
    if isinstance(value, str) and not _RATIONAL.fullmatch(value):
        raise _Refused(f"the constant {value[:40]!r} is not written as an integer or a fraction")
    try:
        return const(value)
    except ZeroDivisionError:
        raise _Refused("a constant is divided by zero") from None


def _node(op: Op, args: tuple[Expr, ...], attr: Attr = None) -> Expr:
    """``make`` for the nodes that have no constructor of their own: conditions and extents of atoms."""
    condition = op in CONDITIONS and len(args) == 2 and attr is None
    size = op is Op.EXTENT and not args and attr is not None
    if not condition and not size:
        raise _Refused(f"make({op}) where a constructor is there for it")
    return make(op, args, attr)


def _axis(name: str, extent: Extent, copy: int = 0, level: Level = "") -> Axis:
    """``Axis`` with the sizes that an axis can have."""
    if copy < 0 or (isinstance(extent, int) and extent < 0):
        raise _Refused(f"axis {name} has a negative extent or copy")
    return Axis(name, extent, copy, level)


_STRICTER: Final[Mapping[str, Callable[..., Value]]] = {"const": _rational, "make": _node, "Axis": _axis}


def _member(name: str, member: str) -> Enum:
    enumeration = _constructors().get(name)
    if not isinstance(enumeration, type) or member not in enumeration.__members__:
        raise _Refused(f"{name}.{member} is nothing that the text may name")
    return enumeration[member]


def _call(name: str, positional: list[Value], keywords: dict[str, Value]) -> Value:
    constructor = _constructors().get(name)
    if not isinstance(constructor, _Constructor):
        raise _Refused(f"{name} is not one of the constructors")
    try:
        bound = constructor.signature.bind(*positional, **keywords)
    except TypeError as problem:
        raise _Refused(f"{name}: {problem}") from None
    for parameter, argument in bound.arguments.items():
        if not _fits(argument, constructor.hints[parameter]):
            raise _Refused(f"{name}: {parameter} cannot be a {type(argument).__name__} here")
    try:
        return constructor.build(*bound.args, **bound.kwargs)
    except AssertionError as problem:
        raise _Refused(f"{name}: these arguments do not go together {problem}".rstrip()) from problem


def _fits(value: Value, hint: object) -> bool:
    """Whether a value has the type of a parameter or field."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple and parts[1:] != (...,):
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin in (tuple, Iterable):
        return isinstance(value, tuple) and all(_fits(v, parts[0]) for v in value)
    if hint is int:
        return type(value) is int
    return isinstance(value, hint if isinstance(hint, type) else type(None))
