"""From an exported program to plain data.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from types import BuiltinFunctionType, FunctionType
from typing import Protocol, SupportsInt, cast

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from prism.frontend.arguments import Symbol, dtype_name
from prism.frontend.trace import SIZE, Meta, Node, Placeholder, Product, Ref
from sgraph.axis import Size
from sgraph.errors import UnsupportedProgram

RMS_NORM = "aten.rms_norm.default"
LINE_ANNOTATION = "prism_source_line"
"""Key under which the source line of an operator is kept in its node."""


class Reader:
    """Reads nodes of one exported program."""

    def __init__(self, exported: ExportedProgram, symbols: Sequence[Sequence[Symbol | None]], where: str) -> None:
        self._exported = exported
        self._where = where
        self._nodes = {node.name: node for node in exported.graph.nodes}
        self._sizes: dict[object, Size] = {}
        users = [s.arg.name for s in exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
        for name, row in zip(users, symbols, strict=True):
            for dimension, symbol in enumerate(row):
                if symbol is not None:
                    size = cast("torch.Tensor", self._nodes[name].meta["val"]).shape[dimension]
                    # A size of 16 * s is traced as the symbol s.
                    _, (torch_symbol,) = _factors(size)
                    self._sizes[torch_symbol] = symbol.size

    def node(self, node: torch.fx.Node) -> Node:
        """One operator call."""
        schema = _schema(node)
        if schema is not None:
            names = [a.name for a in schema.arguments]
            defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
            given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
            operator = str(node.target)
        else:
            defaults, given = {}, {str(i): a for i, a in enumerate(node.args)}
            kind = "python" if isinstance(node.target, FunctionType | BuiltinFunctionType) else "torch"
            operator = f"{kind}.{getattr(node.target, '__name__', node.target)}"
        arguments = {name: self.argument(a) for name, a in {**defaults, **given}.items()}
        if operator == RMS_NORM and arguments["eps"] is None:
            arguments["eps"] = default_eps(cast("torch.Tensor", cast("torch.fx.Node", node.args[0]).meta["val"]).dtype)
        return Node(
            node.name, operator, arguments, self._results(node.meta.get("val")), source_line(node) or self._where
        )

    def argument(self, argument: object) -> object:
        """An argument with nodes as references and lists as tuples."""
        match argument:
            case torch.fx.Node():
                return Ref(argument.name)
            case list() | tuple():
                return tuple(self.argument(a) for a in cast("Sequence[object]", argument))
            case torch.dtype():
                return dtype_name(argument)
            case _:
                return argument

    def placeholders(
        self, parameters: Sequence[str], constant: Collection[str], masks: Collection[str], label: str
    ) -> tuple[Placeholder, ...]:
        """The inputs in the function's order, then module parameters, then tensor literals."""
        users: list[Placeholder] = []
        others: list[Placeholder] = []
        names = set(parameters)
        for spec in self._exported.graph_signature.input_specs:
            meta = self._meta(cast("torch.Tensor", self._nodes[spec.arg.name].meta["val"]))
            match spec.kind:
                case InputKind.USER_INPUT:
                    parameter = parameters[len(users)]
                    finite = parameter not in masks
                    users.append(Placeholder(spec.arg.name, parameter, meta, parameter in constant, finite))
                case InputKind.PARAMETER | InputKind.BUFFER:
                    parameter = attribute_name(spec.target or "", names)
                    names.add(parameter)
                    others.append(Placeholder(spec.arg.name, parameter, meta, constant=True))
                case _:
                    value = self._literal(spec, label)
                    others.append(Placeholder(spec.arg.name, "", meta, constant=True, literal=value))
        return (*users, *others)

    def _literal(self, spec: InputSpec, label: str) -> Fraction:
        """The value of ``torch.tensor(2.0)`` in the function; other tensors must be passed."""
        value = self._exported.constants.get(spec.target or "")
        uses = list(self._nodes[spec.arg.name].users)
        literal = all(str(u.target) in ("aten.lift_fresh_copy.default", "aten.clone.default") for u in uses)
        if isinstance(value, torch.Tensor) and value.numel() == 1 and literal:
            number = value.item()
            # A float32 holds its shortest decimal, not the binary fraction.
            return Fraction(str(value.numpy()) if value.dtype is torch.float32 else str(number))
        raise UnsupportedProgram(
            f"{label} reads a tensor that is not one of its inputs",
            where=(source_line(uses[0]) if uses else "") or self._where,
            do="pass the tensor as an argument; numbers may be written as Python floats",
        )

    def _results(self, value: object) -> tuple[Meta | None, ...]:
        if isinstance(value, list | tuple):
            return tuple(self._results(v)[0] for v in cast("Sequence[object]", value))
        if isinstance(value, torch.Tensor):
            return (self._meta(value),)
        return (Meta((), SIZE),) if isinstance(value, torch.SymInt | torch.SymFloat) else (None,)

    def _meta(self, value: torch.Tensor) -> Meta:
        shape = tuple(self._size(n) for n in cast("Sequence[int | torch.SymInt]", value.shape))
        return Meta(shape, dtype_name(value.dtype))

    def _size(self, size: int | torch.SymInt) -> Product | str:
        if isinstance(size, int):
            return Product(size)
        number, symbols = _factors(size)
        if not all(symbol in self._sizes for symbol in symbols):
            return str(size)
        sizes = [self._sizes[symbol] for symbol in symbols]
        steps = math.prod(s.divisor for s in sizes)
        return Product.of([number // steps, *sizes]) if number % steps == 0 else str(size)


def _factors(size: object) -> tuple[int, tuple[object, ...]]:
    """The number and the other factors of a symbolic size: ``6*s0`` gives 6 and s0."""
    expression = cast("_Expression", size.node.expr)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    number, others = expression.as_coeff_mul()
    return int(number), others


def default_eps(dtype: torch.dtype) -> float:
    """What ``rms_norm`` adds if no ``eps`` is given.

    Torch documents the machine epsilon, in some versions of the element type and in some of the type it accumulates
    in. Which one the installed version takes is measured on one small element.
    """
    candidates = [torch.finfo(kind).eps for kind in (dtype, torch.promote_types(dtype, torch.float32))]
    x = torch.full((1,), 2.0**-12, dtype=dtype, device="cpu")
    seen = torch.nn.functional.rms_norm(x, (1,)).item()
    return min(candidates, key=lambda eps: abs(x.item() / math.sqrt(x.item() ** 2 + eps) - seen))


class _Expression(Protocol):
    """What is used of a sympy expression."""

    def as_coeff_mul(self) -> tuple[SupportsInt, tuple[object, ...]]: ...


def source_line(node: torch.fx.Node) -> str:
    """The user's source line of a node, ``file:line: code``; empty if it is not known."""
    custom = cast("Mapping[str, str]", node.meta.get("custom") or {})
    return custom.get(LINE_ANNOTATION, "")


def mutates(node: torch.fx.Node) -> bool:
    """Whether a node changes one of its operands."""
    schema = _schema(node)
    # Torch puts detach_ behind every tensor literal; it changes no element.
    return schema is not None and schema.is_mutable and schema.name != "aten::detach_"


def _schema(node: torch.fx.Node) -> torch.FunctionSchema | None:
    """The signature of an ATen operator; Python functions have none."""
    return cast("torch.FunctionSchema | None", getattr(node.target, "_schema", None))


def attribute_name(path: str, taken: Collection[str]) -> str:
    """The input name of a module's parameter: its path in the module, dots as underscores."""
    name = path.removeprefix("function.").replace(".", "_")
    name = name if name.isidentifier() else f"p_{name}"
    while name in taken:
        name += "_"
    return name
