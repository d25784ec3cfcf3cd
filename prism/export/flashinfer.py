"""Operations as definitions and solutions of the FlashInfer trace schema.

Layout and fields are those that the package ``flashinfer-bench`` (0.1) reads: ``definitions/<op_type>/<name>.json`` and
``solutions/<op_type>/<name>/<solution>.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from prism.export.operations import Instance, Operation
from prism.export.package import body, module_name, result_dims
from prism.export.reference import unfused
from sgraph.axis import Axis, Size
from sgraph.border import parameters
from sgraph.program import DType, Program
from verify.certificate import versions

OP_TYPE = "prism"
"""The general category of every definition: programs are arbitrary, so there is no finer one."""


def flashinfer_files(operations: Sequence[Operation], author: str) -> Mapping[str, str]:
    """One definition per operation and one solution per CUDA kernel, as JSON by path.

    Axes that are constants of the program become constant axes, the others variable ones.
    """
    texts: dict[str, str] = {}
    for op in operations:
        texts[f"definitions/{OP_TYPE}/{op.name}.json"] = _json(_definition(op))
        for instance in op.instances:
            if instance.target.kind == "cuda":
                name = module_name(op, instance)
                texts[f"solutions/{OP_TYPE}/{op.name}/{name}.json"] = _json(_solution(op, instance, author))
    return texts


def _definition(op: Operation) -> dict[str, object]:
    program = op.program
    reference = body(unfused(program))
    imports = "import torch\nimport torch.nn.functional as F\n" if "F." in reference else "import torch\n"
    takes = parameters(program)
    outer = sorted({a for t in (*takes, *(o.tensor for o in program.outputs)) for a in t.named_axes})
    results = {o.tensor.name: result_dims(program, o) for o in program.outputs}
    return {
        "name": op.name,
        "op_type": OP_TYPE,
        "description": str(program),
        "axes": {
            "one": {"type": "const", "value": 1},
            **{a.name: _axis(a) for a in outer},
            **{_name(d): _merged(d, program) for dims in results.values() for d in dims if isinstance(d, tuple)},
        },
        "inputs": {t.name: _tensor(t.dtype, ["one" if a is None else a.name for a in t.axes]) for t in takes},
        "outputs": {
            o.tensor.name: _tensor(o.tensor.dtype, [_name(d) for d in results[o.tensor.name]]) for o in program.outputs
        },
        "constraints": _constraints(outer),
        "reference": f"{imports}\n\n{reference}\n",
        "tags": ["generated:prism"],
    }


def _axis(axis: Axis) -> dict[str, object]:
    if isinstance(axis.extent, Size):
        return {"type": "var", "description": f"{axis.extent.low} to {axis.extent.high}"}
    return {"type": "const", "value": axis.extent}


def _constraints(axes: Sequence[Axis]) -> list[str]:
    sizes = [(a.name, a.extent) for a in axes if isinstance(a.extent, Size)]
    bounds = [f"{size.low} <= {name} <= {size.high}" for name, size in sizes]
    return bounds + [f"{name} % {size.divisor} == 0" for name, size in sizes if size.divisor > 1]


def _name(dim: str | int | tuple[str | int, ...]) -> str:
    """Name of a dimension's axis; several that are merged get one of their own."""
    if isinstance(dim, tuple):
        return "_".join(map(_name, dim))
    return dim if isinstance(dim, str) else "one"


def _merged(dim: tuple[str | int, ...], program: Program) -> dict[str, object]:
    extents = {a.name: a.extent for a in program.axes}
    sizes = [extents[d] if isinstance(d, str) else d for d in dim]
    if any(isinstance(size, Size) for size in sizes):
        return {"type": "var", "description": " * ".join(map(str, dim))}
    return {"type": "const", "value": math.prod(size for size in sizes if isinstance(size, int))}


def _tensor(dtype: DType, shape: Sequence[str]) -> dict[str, object]:
    return {"shape": list(shape), "dtype": dtype.value}


def _solution(op: Operation, instance: Instance, author: str) -> dict[str, object]:
    module = module_name(op, instance)
    report = instance.run.report
    return {
        "name": module,
        "definition": op.name,
        "author": author,
        "description": f"Found, proved and tuned for {instance.target.name} ({report.timing}) by Prism "
        f"{versions().get('prism', '')}".rstrip(),
        "spec": {
            "language": "triton",
            "target_hardware": [instance.target.name],
            "entry_point": f"{module}.py::launch",
            "dependencies": [],
            "destination_passing_style": False,
        },
        "sources": [{"path": f"{module}.py", "content": instance.source}],
    }


def _json(record: Mapping[str, object]) -> str:
    return json.dumps(record, indent=2) + "\n"
