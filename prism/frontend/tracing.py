"""From a Python function to a plain list of operators: everything that touches ``torch.export``.

``torch.export`` is run non-strict: it executes the function on fake tensors, which needs no bytecode analysis and
is about ten times faster than strict mode (0.04 s against 0.6 s for a matrix product behind a norm). It gives
pre-dispatch ATen: composites such as ``softmax``, ``linear`` and ``layer_norm`` stay whole. What non-strict mode
lacks, the source line of each operator, is recorded by a ``TorchFunctionMode`` while the function runs, as a node
annotation (``torch.fx.traceback``, torch 2.11 and later). No tensor arithmetic is done.

This module imports torch and is itself imported at first use.
"""

from __future__ import annotations

import linecache
import logging
import re
import sys
import warnings
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import cast

import torch
from torch.export import ExportedProgram
from torch.fx import config
from torch.fx.traceback import annotate, preserve_node_meta
from torch.overrides import TorchFunctionMode

from prism.frontend.arguments import (
    Symbol,
    check_input,
    check_names,
    function_name,
    location,
    parameter_names,
    stand_in,
    symbolic_sizes,
)
from prism.frontend.reading import LINE_ANNOTATION, Reader, mutates, source_line
from prism.frontend.trace import Ref, Trace
from sgraph.axis import Extent
from sgraph.errors import InputError, PrismError, UnsupportedProgram

_TORCH_FOLDER = str(Path(torch.overrides.__file__).parent)
_STACK_TRACE_SWITCH = "do_not_emit_stack_traces"
_NOISY_LOGGERS = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "torch.export")


def trace(
    function: Callable[..., object],
    inputs: Sequence[object],
    *,
    name: str | None,
    sizes: Mapping[str, Sequence[Extent]],
    constant: Collection[str],
    masks: Collection[str],
) -> Trace:
    """Run ``function`` once on fake tensors and list the operators it calls.

    Raises:
        InputError: the inputs do not fit the function.
        UnsupportedProgram: control flow depends on data or on a symbolic size, inputs are modified, or the result
            is not one tensor or several.
    """
    where = location(function)
    label = name or function_name(function)
    parameters = parameter_names(function, inputs, label, where)
    check_names(parameters, {"sizes": sizes, "constant": constant, "may_hold_minus_inf": masks}, label, where)
    examples = [check_input(p, x, label, where) for p, x in zip(parameters, inputs, strict=True)]
    symbols = symbolic_sizes(parameters, examples, sizes, where)
    exported = _export(function, parameters, examples, symbols, label, where)
    reader = Reader(exported, symbols, where)
    nodes = tuple(reader.node(node) for node in exported.graph.nodes if node.op == "call_function")
    output = next(node for node in exported.graph.nodes if node.op == "output")
    outputs = cast("tuple[Ref, ...]", reader.argument(output.args[0]))
    return Trace(label, where, reader.placeholders(parameters, constant, masks, label), nodes, outputs)


class _SourceLines(TorchFunctionMode):
    """Annotates every operator with the user's source line."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call the operator under the annotation."""
        with annotate({LINE_ANNOTATION: _calling_line(sys._getframe(1))}):  # pyright: ignore[reportPrivateUsage]
            return func(*args, **(kwargs or {}))


def _is_users(filename: str) -> bool:
    generated = ("<frozen", "<eval_with_key", "<string>")
    return not filename.startswith((_TORCH_FOLDER, *generated)) and filename != __file__


def _calling_line(frame: FrameType | None) -> str:
    """The innermost line of the user between torch's operator and our call of the function; modules have none."""
    while frame is not None and frame.f_code.co_filename != __file__:
        if _is_users(frame.f_code.co_filename):
            return _line(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return ""


def _raising_line(error: BaseException) -> str:
    """The user's line in which an exception was raised."""
    found = ""
    step = error.__traceback__
    while step is not None:
        if _is_users(step.tb_frame.f_code.co_filename):
            found = _line(step.tb_frame.f_code.co_filename, step.tb_lineno)
        step = step.tb_next
    return found


def _line(filename: str, number: int) -> str:
    code = linecache.getline(filename, number).strip()
    return f"{filename}:{number}: {code}" if code else f"{filename}:{number}"


class _Captured(torch.nn.Module):
    """Wraps the function as torch.export wants it, and turns what goes wrong inside into Prism's errors."""

    def __init__(self, function: Callable[..., object], label: str, where: str) -> None:
        super().__init__()
        self.function = function
        self.label = label
        self.where = where

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the function and check its results."""
        try:
            with _SourceLines():
                result = self.function(*inputs)
        except PrismError:
            raise
        except Exception as error:
            raise _translated(error, self.label, self.where) from error
        return self._results(result)

    def _results(self, result: object) -> tuple[torch.Tensor, ...]:
        several = isinstance(result, tuple | list)
        results = cast("Sequence[object]", result) if several else (result,)
        for number, value in enumerate(results):
            if not isinstance(value, torch.Tensor):
                which = f"result {number}" if several else "the result"
                kind = "None" if value is None else f"of type {type(value).__name__}"
                raise UnsupportedProgram(
                    f"{which} of {self.label} is {kind}, not a tensor",
                    where=self.where,
                    do="return one tensor, or a tuple of tensors",
                )
        if not results:
            raise UnsupportedProgram(f"{self.label} returns nothing", where=self.where, do="return a tensor")
        return tuple(cast("Sequence[torch.Tensor]", results))


def _translated(error: Exception, label: str, where: str) -> PrismError:
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    line = _raising_line(error) or where
    if isinstance(error, GuardOnDataDependentSymNode):
        return UnsupportedProgram(
            f"{label} decides by the contents of a tensor",
            where=line,
            do="use torch.where, or take the decision outside the captured function",
        )
    reason = (str(error).strip().splitlines() or [""])[0]
    if not isinstance(error, RuntimeError):
        reason = f"{type(error).__name__}: {reason}"
    return InputError(
        f"{label} does not run on these inputs: {reason}",
        where=line,
        do="check the shapes and types of the example inputs against the function",
    )


def _export(
    function: Callable[..., object],
    parameters: Sequence[str],
    examples: Sequence[torch.Tensor],
    symbols: Sequence[Sequence[Symbol | None]],
    label: str,
    where: str,
) -> ExportedProgram:
    stand_ins = tuple(stand_in(x, row) for x, row in zip(examples, symbols, strict=True))
    dims = tuple({i: s.dim for i, s in enumerate(row) if s is not None} for row in symbols)
    try:
        with torch.no_grad(), preserve_node_meta(), _quiet():
            exported = torch.export.export(
                _Captured(function, label, where),
                stand_ins,
                dynamic_shapes=(dims,) if any(dims) else None,
                strict=False,
            )
            return _without_mutation(exported, label, where)
    except RuntimeError as error:
        # Importing the compiler takes a second; it is loaded by now if the error is one of its own.
        from torch._dynamo.exc import UserError

        if not isinstance(error, UserError):
            raise
        raise UnsupportedProgram(
            f"{label} does not treat all sizes alike: {_constraint(error, parameters)}",
            where=where,
            do="narrow the range, give equal sizes one name, or fix the size to a number",
        ) from error


def _constraint(error: Exception, parameters: Sequence[str]) -> str:
    """What torch's message says is violated, in the function's own names and without advice about torch."""
    text = str(error).strip()
    lines = [line.strip(" -") for line in text.splitlines() if line.startswith("  - ")]
    found = re.search(r"You marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)", text)
    message = f"it needs {found[1]} = {found[2]}" if found else " ".join(lines) or text.splitlines()[0]

    def readable(match: re.Match[str]) -> str:
        return f"{parameters[int(match[1])]}.shape[{match[2]}]"

    return re.sub(r"L\['inputs'\]\[(\d+)\]\.size\(\)\[(\d+)\]", readable, message)


def _without_mutation(exported: ExportedProgram, label: str, where: str) -> ExportedProgram:
    """In-place operators on intermediates as functional ones; changes to inputs are refused."""
    if not any(mutates(node) for node in exported.graph.nodes):
        return exported
    functional = exported.run_decompositions({})
    for spec in functional.graph_signature.output_specs:
        if spec.kind.name.endswith("_MUTATION"):
            line = next((source_line(n) for n in exported.graph.nodes if mutates(n)), "")
            raise UnsupportedProgram(
                f"{label} changes one of its inputs in place",
                where=line or where,
                do="compute a new tensor instead: `y = x + 1`, not `x += 1`",
            )
    return functional


@contextmanager
def _quiet() -> Generator[None]:
    """Without torch's logs about the failure it is about to raise, and without its stack traces.

    Those do not reach into plain functions, and formatting them takes longer than everything else; torch 2.11
    cannot switch them off.
    """
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    traces = getattr(config, _STACK_TRACE_SWITCH, None)
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        if traces is not None:
            setattr(config, _STACK_TRACE_SWITCH, True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if traces is not None:
            setattr(config, _STACK_TRACE_SWITCH, traces)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
