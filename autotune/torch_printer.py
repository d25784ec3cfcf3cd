"""The second printer: a plan printed as a readable torch function.

It prints the kernels and stores of an sGraph; roles mean nothing here. Every value goes through
``sgraph.scaled.stabilise`` first, so that exponentials are shifted by their maximum. Sums of products become
matrix products (``x @ W``, ``torch.einsum``), associated so that cheap ones are formed first; other sums are
formed in float32 (float64 where an input has it) and values are cast where they are stored.

Products run in the type of their operands, as torch does, with two exceptions: float16 products are formed in
float32, because a product that the spec would have normalised first may exceed 65504; and a matrix-vector
product in bfloat16 that the program itself does not contain (a statistic such as ``sum(k, g[k] * W[k, n])``) is
summed in float32.

The text is made in two steps: expressions become ``Node`` (interned torch expressions that know nothing of axes,
so that equal torch code is computed once) labelled with axes as ``Value``; then nodes become lines.
"""

from __future__ import annotations

import hashlib
import linecache
import textwrap
from collections.abc import Callable

from autotune.torch_forms import FORMS
from autotune.torch_lowering import Lowering
from autotune.torch_nodes import LINE, Writer, count_uses
from sgraph import border
from sgraph.errors import CompilationFailed
from sgraph.ir import Kernel, SGraph
from sgraph.program import Tensor


def print_torch(graph: SGraph, function: str = "run", *, forms: bool = False) -> str:
    """A Python source whose last function takes the program's inputs and returns its outputs.

    With ``forms``, the functions of ``autotune.torch_forms`` are computed their other way.

    The function has the program's input order, output types and dimension order, dimensions of extent 1
    included; several outputs are returned as a tuple. The text is the same for the same graph.

    Raises:
        UnsupportedOperator: the graph calls a function torch has no name for here.
        UnsupportedProgram: a symbolic extent is the size of no input.
    """
    lowering = Lowering(graph, forms=forms)
    blocks = [[(s.tensor.name, lowering.store(s.tensor, s.value)) for s in k.stores] for k in graph.kernels]
    tensors = (*graph.program.inputs, *graph.intermediates, *(o.tensor for o in graph.program.outputs))
    uses = count_uses([root for block in blocks for _, root in block])
    helpers = [FORMS[name] for name in lowering.used]
    writer = Writer(lowering.nodes.dims, [function, *(h.name for h in helpers), *(t.name for t in tensors)], uses)
    body = [f"    {t.name} = {view}" for t, view in _views(graph)]
    body += [""] if body else []
    for kernel, block in zip(graph.kernels, blocks, strict=True):
        body += [*_wrapped(_purpose(graph, kernel), "    # "), *writer.block(block), ""]
    body.append(f"    return {', '.join(_results(graph))}")
    text = "\n".join(body)
    imports = "import torch\nimport torch.nn.functional as F" if "F." in text else "import torch"
    defined = "".join(f"{h.source}\n\n" for h in helpers)
    return f"{_header(graph)}\n\n{imports}\n\n\n{defined}{_signature(graph, function)}\n{text}\n"


def load_torch(source: str, *, library: bool = False) -> Callable[..., object]:
    """The function that a printed source defines, as a new function object each time.

    With ``library`` it calls torch's own functions in the place of the forms that the source defines: the program
    that gate 1 captures.

    Raises:
        CompilationFailed: the text is not Python, or defines no function.
    """
    name = f"<prism torch {hashlib.blake2b(source.encode(), digest_size=6).hexdigest()}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, object] = {"__name__": "prism_torch"}
    try:
        exec(compile(source, name, "exec"), namespace)
    except SyntaxError as error:
        raise CompilationFailed(f"the printed torch source is not Python: {error}", where=name) from error
    defined = [v for v in namespace.values() if callable(v) and getattr(v, "__module__", "") == "prism_torch"]
    if not defined:
        raise CompilationFailed("the torch source defines no function", where=name)
    if library:
        namespace.update({f.name: f.library() for f in FORMS.values() if f.name in namespace})
    return defined[-1]


# ----------------------------------------------------------------------------------------------- frame


def _header(graph: SGraph) -> str:
    """The docstring: the program as captured, and each stored tensor as it is computed here."""
    program = graph.program
    lines = [f"{program.name}, rewritten by Prism and printed as torch."]
    if program.source:
        lines += ["", *_wrapped(f"Captured from {program.source}", "")]
    lines += ["", "The program:", ""]
    for output in program.outputs:
        lines += _wrapped(f"{_signed(output.tensor)} = {output.value}", "    ")
    lines += ["", "Computed as:", ""]
    for kernel in graph.kernels:
        for store in kernel.stores:
            lines += _wrapped(f"{kernel.name}: {_signed(store.tensor)} = {store.value}", "    ")
    text = "\n".join(lines).replace("\\", "/").replace(chr(34) * 3, chr(39) * 3)
    return f'"""{text}\n"""'


def _signed(tensor: Tensor) -> str:
    return f"{tensor.name}[{', '.join('1' if a is None else str(a) for a in tensor.axes)}]"


def _purpose(graph: SGraph, kernel: Kernel) -> str:
    stores = ", ".join(f"{_signed(s.tensor)} as {s.tensor.dtype.value}" for s in kernel.stores)
    reads = ", ".join(_signed(graph.tensor(name)) for name in kernel.reads)
    return f"{kernel.name}: {reads or 'nothing'} -> {stores}"


def _views(graph: SGraph) -> list[tuple[Tensor, str]]:
    """Inputs that are views of what the function takes; one that keeps its name comes last, for it hides the whole."""
    if graph.program.border is None:
        return []
    pairs = zip(graph.program.inputs, graph.program.border.views, strict=True)
    found = [(t, v) for t, v in pairs if v.steps]
    return [(t, border.view_text(v)) for t, v in sorted(found, key=lambda pair: pair[0].name == pair[1].parameter)]


def _results(graph: SGraph) -> list[str]:
    """What the function returns, as text."""
    names = [o.tensor.name for o in graph.program.outputs]
    if graph.program.border is None:
        return names
    return [border.merge_text(n, m) for n, m in zip(names, graph.program.border.merges, strict=True)]


def _signature(graph: SGraph, function: str) -> str:
    parameters = [f"{tensor.name}: torch.Tensor" for tensor in border.parameters(graph.program)]
    count = len(graph.program.outputs)
    result = "torch.Tensor" if count == 1 else f"tuple[{', '.join(['torch.Tensor'] * count)}]"
    line = f"def {function}({', '.join(parameters)}) -> {result}:"
    if len(line) <= LINE:
        return line
    return "\n".join([f"def {function}(", *(f"    {p}," for p in parameters), f") -> {result}:"])


def _wrapped(text: str, prefix: str) -> list[str]:
    wrapped = textwrap.wrap(text, LINE - len(prefix) - 4, break_on_hyphens=False)
    return [prefix + ("    " if n else "") + line for n, line in enumerate(wrapped)]
