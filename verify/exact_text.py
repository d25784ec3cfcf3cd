"""Reading an emitted text: its syntax tree walked statement by statement, never compiled or executed.

Only the Python that emitted files are written in has a meaning. Everything else is refused with the line it is on,
so that a text which was not understood can never pass. Recursion follows the nesting of the text, which is shallow.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Final

import numpy as np

from sgraph.errors import KernelCheckFailed, UnsupportedOperator
from verify.exact_host import (
    CONSTANTS,
    ERRORS,
    HOST_FUNCTIONS,
    LauncherError,
    Method,
    grid_of,
    host_attribute,
    integer_operator,
    raise_error,
)
from verify.exact_memory import Fault, Memory, Pointer, Program
from verify.exact_tiles import DTypeName, Numbers, Tiles, is_integer

MOST_PROGRAMS: Final = 20_000
"""Of all launches of one evaluation: more are a mistake in the grid."""
LAUNCH_OPTIONS: Final = frozenset({"num_warps", "num_stages", "num_ctas"})
"""Arguments of a launch that the kernel does not see."""
MODULES: Final = {"torch": "torch", "triton": "triton", "triton.language": "tl"}
"""What a text may import, and how it has to call it."""
OPERATORS: Final[Mapping[type[ast.operator], str]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
}
COMPARISONS: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


@dataclass(frozen=True, slots=True)
class Name:
    """A dotted name of an imported module, such as ``tl.load``."""

    dotted: str


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of the text."""

    node: ast.FunctionDef
    is_kernel: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with its grid, to be called."""

    kernel: Function
    grid: tuple[int, ...]


class _Returned(Exception):
    """A function's result."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(slots=True)
class Frame:
    """The names that one call of a function knows."""

    names: dict[str, Any]
    in_kernel: bool


class Text:
    """An emitted text whose functions can be run."""

    def __init__(self, source: str, numbers: Numbers) -> None:
        self.lines = source.splitlines()
        self.numbers = numbers
        self.tiles = Tiles(numbers)
        self.globals: dict[str, Any] = {}
        self.programs = 0
        """How many programs ran."""
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            raise KernelCheckFailed(f"the text is no Python: {error.msg}", where=f"line {error.lineno}") from None
        for statement in tree.body:
            self._module_statement(statement)

    def launch(self, arguments: Sequence[Any], config: Any) -> tuple[Any, ...]:
        """Call ``launch``, or ``launch_views`` where inputs are views of what ``launch`` takes.

        Raises:
            KernelCheckFailed: the launcher refuses, or the text breaks a rule while it runs.
            UnsupportedOperator: the text uses what has no meaning here.
        """
        function = self.globals.get("launch_views", self.globals.get("launch"))
        if not isinstance(function, Function) or function.is_kernel:
            raise KernelCheckFailed("the text has no function called launch")
        result = self._call(function, arguments, {"config": config}, function.node)
        return result if isinstance(result, tuple) else (result,)

    def strings(self) -> frozenset[str]:
        """Every string in the functions that are no kernels: the entries of tables that they read."""
        hosts = (f.node for f in self.globals.values() if isinstance(f, Function) and not f.is_kernel)
        nodes = (node for host in hosts for node in ast.walk(host))
        return frozenset(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))

    # --------------------------------------------------------------------------------------------------- errors

    def _unsupported(self, node: ast.AST, what: str = "") -> UnsupportedOperator:
        named = what or type(node).__name__
        return UnsupportedOperator(f"{named} has no meaning in exact evaluation", where=self._place(node))

    def _place(self, node: ast.AST) -> str:
        line: int = getattr(node, "lineno", 0)
        text = self.lines[line - 1].strip() if line else ""
        return f"line {line}: {text}"

    def _guarded(self, node: ast.AST, call: Callable[[], Any]) -> Any:
        """The result of a call, its failures as failures of the text."""
        try:
            return call()
        except LauncherError as error:
            raise KernelCheckFailed(f"the launcher refuses its inputs: {error}", where=self._place(node)) from None
        except (Fault, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise KernelCheckFailed(f"{error}", where=self._place(node)) from error

    # ----------------------------------------------------------------------------------------------- statements

    def _module_statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    called = MODULES.get(alias.name)
                    if called is None or (alias.asname or alias.name) != called:
                        raise self._unsupported(node, f"import {alias.name}")
                    self.globals[called] = Name(called)
            case ast.FunctionDef(name=name, decorator_list=decorators):
                written = [ast.unparse(d) for d in decorators]
                if written not in ([], ["triton.jit"]):
                    raise self._unsupported(node, f"the decorator {written[0]}")
                self.globals[name] = Function(node, is_kernel=bool(written))
            case _:
                self._statement(node, Frame(self.globals, in_kernel=False))

    def _statements(self, body: Sequence[ast.stmt], frame: Frame) -> None:
        for node in body:
            self._statement(node, frame)

    def _statement(self, node: ast.stmt, frame: Frame) -> None:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Expr(value=value):
                self._value(value, frame)
            case ast.Assign(targets=[target], value=value):
                self._assign(target, self._value(value, frame), frame)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, self._value(value, frame), frame)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                current = self._name(node, name, frame)
                frame.names[name] = self._binary(node, op, current, self._value(value, frame), frame)
            case ast.If(test=test, body=body, orelse=orelse):
                self._statements(body if self._truth(test, frame) else orelse, frame)
            case ast.For(target=target, iter=iterable, body=body, orelse=[]):
                for item in self._items(iterable, frame):
                    self._assign(target, item, frame)
                    self._statements(body, frame)
            case ast.With(items=[ast.withitem(context_expr=ast.Call(func=function), optional_vars=None)], body=body):
                if frame.in_kernel or ast.unparse(function) != "torch.cuda.device_of":
                    raise self._unsupported(node, f"with {ast.unparse(function)}")
                self._statements(body, frame)
            case ast.Return(value=ast.expr() as value) if not frame.in_kernel:
                raise _Returned(self._value(value, frame))
            case ast.Raise(exc=ast.expr() as raised) if not frame.in_kernel:
                error = self._value(raised, frame)
                self._guarded(node, lambda: raise_error(error))
            case _:
                raise self._unsupported(node)

    def _assign(self, target: ast.expr, value: Any, frame: Frame) -> None:
        match target:
            case ast.Name(id=name):
                frame.names[name] = value
                if isinstance(value, Memory) and not value.name:
                    value.name = name
            case ast.Tuple(elts=elements):
                items = self._guarded(target, lambda: list(value))
                if len(items) != len(elements):
                    raise KernelCheckFailed(f"{len(items)} values for {len(elements)} names", where=self._place(target))
                for element, item in zip(elements, items, strict=True):
                    self._assign(element, item, frame)
            case ast.Subscript(value=table, slice=index) if not frame.in_kernel:
                entries = self._value(table, frame)
                if not isinstance(entries, dict):
                    raise self._unsupported(target, f"assignment to {ast.unparse(target)}")
                entries[self._value(index, frame)] = value
            case _:
                raise self._unsupported(target, f"assignment to {ast.unparse(target)}")

    def _items(self, iterable: ast.expr, frame: Frame) -> Iterator[Any]:
        value = self._value(iterable, frame)
        if frame.in_kernel and not isinstance(value, range):
            raise self._unsupported(iterable, "a loop over something else than tl.range")
        yield from self._guarded(iterable, lambda: list(value))

    def _truth(self, node: ast.expr, frame: Frame) -> bool:
        value = self._value(node, frame)
        if isinstance(value, np.ndarray) or (frame.in_kernel and not isinstance(value, bool)):
            raise KernelCheckFailed("a condition that is not one truth value", where=self._place(node))
        return bool(value)

    # ---------------------------------------------------------------------------------------------- expressions

    def _value(self, node: ast.expr, frame: Frame) -> Any:
        match node:
            case ast.Constant(value=value):
                return self._constant(node, value, frame)
            case ast.Name(id=name):
                return self._name(node, name, frame)
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(node, op, self._value(left, frame), self._value(right, frame), frame)
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(node, op, operand, frame)
            case ast.Compare():
                return self._compare(node, frame)
            case ast.Call():
                return self._evaluate_call(node, frame)
            case ast.Subscript(value=value, slice=index):
                return self._subscript(node, self._value(value, frame), index, frame)
            case ast.Attribute(value=value, attr=name):
                return self._attribute(node, self._value(value, frame), name, frame)
            case ast.Tuple(elts=elements):
                return tuple(self._value(e, frame) for e in elements)
            case ast.List(elts=elements):
                return [self._value(e, frame) for e in elements]
            case _ if not frame.in_kernel:
                return self._host_value(node, frame)
            case _:
                raise self._unsupported(node)

    def _host_value(self, node: ast.expr, frame: Frame) -> Any:
        """Expressions that only the launcher may use."""
        match node:
            case ast.Set(elts=elements):
                return {self._value(e, frame) for e in elements}
            case ast.Dict(keys=keys, values=values):
                table: dict[Any, Any] = {}
                for key, value in zip(keys, values, strict=True):
                    item = self._value(value, frame)
                    table |= item if key is None else {self._value(key, frame): item}
                return table
            case ast.BoolOp(op=op, values=values):
                value: Any = None
                for operand in values:
                    value = self._value(operand, frame)
                    if bool(value) is isinstance(op, ast.Or):
                        break
                return value
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._value(body if self._truth(test, frame) else orelse, frame)
            case (
                ast.ListComp(elt=element, generators=generators) | ast.GeneratorExp(elt=element, generators=generators)
            ):
                return [self._value(element, inner) for inner in self._comprehension(generators, frame)]
            case ast.DictComp(key=key, value=value, generators=generators):
                inner_frames = self._comprehension(generators, frame)
                return {self._value(key, inner): self._value(value, inner) for inner in inner_frames}
            case ast.JoinedStr(values=values):
                return "".join(str(self._value(v, frame)) for v in values)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return str(self._value(value, frame))
            case _:
                raise self._unsupported(node)

    def _comprehension(self, generators: Sequence[ast.comprehension], frame: Frame) -> Iterator[Frame]:
        inner = Frame(dict(frame.names), frame.in_kernel)
        if not generators:
            yield inner
            return
        first, *rest = generators
        for item in self._items(first.iter, inner):
            self._assign(first.target, item, inner)
            if all(self._truth(test, inner) for test in first.ifs):
                yield from self._comprehension(rest, inner)

    def _constant(self, node: ast.expr, value: Any, frame: Frame) -> Any:
        if isinstance(value, float):
            return self.numbers.literal(value)
        if isinstance(value, (int, str)) or value is None:
            return value
        raise self._unsupported(node, repr(value))

    def _name(self, node: ast.AST, name: str, frame: Frame) -> Any:
        if name in frame.names:
            return frame.names[name]
        if name in self.globals:
            return self.globals[name]
        if name == "float" or (not frame.in_kernel and (name in HOST_FUNCTIONS or name in ERRORS)):
            return Name(name)
        raise KernelCheckFailed(f"the name {name} is not defined", where=self._place(node))

    def _binary(self, node: ast.AST, op: ast.operator, a: Any, b: Any, frame: Frame) -> Any:
        symbol = OPERATORS.get(type(op))
        if symbol is None:
            raise self._unsupported(node, f"the operator {type(op).__name__}")
        if frame.in_kernel:
            return self._guarded(node, lambda: self.tiles.binary(symbol, a, b))
        if symbol == "+" and isinstance(a, list) and isinstance(b, list):
            return [*a, *b]
        if not (isinstance(a, int) and isinstance(b, int)):
            raise self._unsupported(node, f"{symbol} in the launcher")
        return self._guarded(node, lambda: integer_operator(symbol, a, b))

    def _unary(self, node: ast.expr, op: ast.unaryop, operand: ast.expr, frame: Frame) -> Any:
        if isinstance(op, ast.Not):
            return not self._truth(operand, frame)
        value = self._value(operand, frame)
        match op:
            case ast.USub():
                return self._guarded(node, lambda: self.tiles.negative(value))
            case ast.Invert() if frame.in_kernel:
                return self._guarded(node, lambda: self.tiles.inverted(value))
            case _:
                raise self._unsupported(node, type(op).__name__)

    def _compare(self, node: ast.Compare, frame: Frame) -> Any:
        left = self._value(node.left, frame)
        result: Any = True
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self._value(right_node, frame)
            result = self._compared(node, op, left, right, frame)
            if len(node.ops) > 1 and not (isinstance(result, bool) and result):
                if not isinstance(result, bool):
                    raise self._unsupported(node, "a chain of comparisons of tiles")
                return False
            left = right
        return result

    def _compared(self, node: ast.AST, op: ast.cmpop, left: Any, right: Any, frame: Frame) -> Any:
        symbol = COMPARISONS.get(type(op))
        if frame.in_kernel:
            if symbol is None:
                raise self._unsupported(node, type(op).__name__)
            return self._guarded(node, lambda: self.tiles.compare(symbol, left, right))
        match op:
            case ast.Is():
                return left is right
            case ast.IsNot():
                return left is not right
            case ast.In():
                return left in right
            case ast.NotIn():
                return left not in right
            case ast.Eq() | ast.NotEq():
                return (left == right) is isinstance(op, ast.Eq)
            case _ if symbol is not None and isinstance(left, int) and isinstance(right, int):
                return self.tiles.compare(symbol, left, right)
            case _:
                raise self._unsupported(node, type(op).__name__)

    def _subscript(self, node: ast.Subscript, value: Any, index: ast.expr, frame: Frame) -> Any:
        if isinstance(value, Function) and value.is_kernel and not frame.in_kernel:
            return Launch(value, self._guarded(node, lambda: grid_of(self._value(index, frame))))
        if frame.in_kernel:
            parts = index.elts if isinstance(index, ast.Tuple) else [index]
            keys = tuple(self._tile_index(part) for part in parts)
            if not isinstance(value, np.ndarray):
                raise KernelCheckFailed("an index of something that is no tile", where=self._place(node))
            if keys.count(slice(None)) != value.ndim:
                raise KernelCheckFailed(f"an index that does not fit shape {value.shape}", where=self._place(node))
            return value[keys]
        if not isinstance(value, (dict, tuple, list)):
            raise self._unsupported(node, f"an index of {type(value).__name__}")
        table: Any = value
        return self._guarded(node, lambda: table[self._value(index, frame)])

    def _tile_index(self, node: ast.expr) -> Any:
        match node:
            case ast.Slice(lower=None, upper=None, step=None):
                return slice(None)
            case ast.Constant(value=None):
                return None
            case _:
                raise self._unsupported(node, f"the index {ast.unparse(node)}")

    def _attribute(self, node: ast.AST, value: Any, name: str, frame: Frame) -> Any:
        if isinstance(value, Name):
            dotted = f"{value.dotted}.{name}"
            return CONSTANTS.get(dotted, Name(dotted))
        if frame.in_kernel:
            return self._tile_attribute(node, value, name)
        found = host_attribute(value, name)
        if found is None:
            raise self._unsupported(node, f"{type(value).__name__}.{name}")
        return found if isinstance(found, Method) else found.value

    def _tile_attribute(self, node: ast.AST, value: Any, name: str) -> Any:
        match name:
            case "dtype":
                return DTypeName("int64" if is_integer(value) else "float32")
            case "to":
                return Method(partial(self.tiles.cast, value))
            case _:
                raise self._unsupported(node, f".{name}")

    # ---------------------------------------------------------------------------------------------------- calls

    def _evaluate_call(self, node: ast.Call, frame: Frame) -> Any:
        function = self._value(node.func, frame)
        arguments = [self._value(a, frame) for a in node.args]
        options: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self._unsupported(node, "**")
            options[keyword.arg] = self._value(keyword.value, frame)
        match function:
            case Function(is_kernel=False) if not frame.in_kernel:
                return self._call(function, arguments, options, node)
            case Launch(kernel=kernel, grid=grid):
                return self._launch(node, kernel, grid, arguments, options)
            case Method(call=call):
                return self._guarded(node, lambda: call(*arguments, **options))
            case Name(dotted="float"):
                return self._float(node, arguments)
            case Name(dotted=dotted):
                call = self._library(dotted, frame)
                if call is None:
                    raise self._unsupported(node, dotted)
                return self._guarded(node, lambda: call(*arguments, **options))
            case _:
                raise self._unsupported(node, f"a call of {ast.unparse(node.func)}")

    def _library(self, dotted: str, frame: Frame) -> Callable[..., Any] | None:
        if frame.in_kernel:
            return self.tiles.functions.get(dotted.removeprefix("tl.")) if dotted.startswith("tl.") else None
        return HOST_FUNCTIONS.get(dotted) or ERRORS.get(dotted)

    def _float(self, node: ast.AST, arguments: Sequence[Any]) -> Any:
        match arguments:
            case ["-inf"]:
                return self.numbers.bottom
            case ["inf"]:
                return self.numbers.top
            case _:
                raise self._unsupported(node, "float of something else than an infinity")

    def _call(self, function: Function, arguments: Sequence[Any], options: Mapping[str, Any], node: ast.AST) -> Any:
        names = self._bound(function, arguments, options, node)
        try:
            self._statements(function.node.body, Frame(names, function.is_kernel))
        except _Returned as returned:
            return returned.value
        return None

    def _bound(
        self, function: Function, arguments: Sequence[Any], options: Mapping[str, Any], node: ast.AST
    ) -> dict[str, Any]:
        """The parameters of a function with their values."""
        given = function.node.args
        if given.vararg or given.kwarg or given.posonlyargs or given.defaults:
            raise self._unsupported(function.node, "a parameter list with stars or defaults")
        positional = [a.arg for a in given.args]
        names = dict(zip(positional, arguments, strict=False))
        defaults = {
            a.arg: self._value(d, Frame({}, in_kernel=False))
            for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)
            if d is not None
        }
        expected = {*positional, *(a.arg for a in given.kwonlyargs)}
        wrong = sorted((expected - names.keys() - options.keys() - defaults.keys()) | (options.keys() - expected))
        if wrong or len(arguments) > len(positional) or names.keys() & options.keys():
            seen = f"the arguments do not fit {function.node.name}: {', '.join(wrong) or 'one is given twice'}"
            raise KernelCheckFailed(seen, where=self._place(node))
        return {**defaults, **names, **options}

    def _launch(
        self,
        node: ast.AST,
        kernel: Function,
        grid: tuple[int, ...],
        arguments: Sequence[Any],
        options: Mapping[str, Any],
    ) -> None:
        passed = {k: v for k, v in options.items() if k not in LAUNCH_OPTIONS}
        names = self._bound(kernel, arguments, passed, node)
        names = {k: Pointer(v, 0) if isinstance(v, Memory) else v for k, v in names.items()}
        wrong = [k for k, v in names.items() if not isinstance(v, (Pointer, int, str))]
        if wrong:
            raise self._unsupported(node, f"a kernel argument of another type ({wrong[0]})")
        first = self.programs
        for ids in product(*(range(n) for n in grid)):
            if self.programs > MOST_PROGRAMS:
                raise KernelCheckFailed(f"more than {MOST_PROGRAMS} programs", where=self._place(node))
            self.tiles.program = Program(ids, grid, self.programs, first)
            self.programs += 1
            self._statements(kernel.node.body, Frame(dict(names), in_kernel=True))
        self.tiles.program = None
