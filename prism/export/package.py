"""Writing exported operations as an installable package that needs only torch and triton.

Kernel files are the bytes that passed the checks. What surrounds them (dispatch, registration, tests) is written from
templates that know nothing of any operation. Every file is listed in ``manifest.json`` with its SHA-256.
"""

from __future__ import annotations

import ast
import keyword
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism.export.manifest import Artifact, Manifest
from prism.export.operations import Instance, Operation
from prism.export.reference import in_float64, of_any_extent, unfused
from prism.interpreted import small_config, small_sizes
from sgraph.axis import Axis, Size
from sgraph.border import parameters, pinned
from sgraph.errors import InputError
from sgraph.printer import python
from sgraph.program import Output, Program, Tensor
from verify.certificate import versions

if TYPE_CHECKING:
    import jinja2

RESERVED: Final = frozenset({"torch", "triton", "numpy", "prism", "sgraph", "rewrites", "verify", "autotune", "tests"})
"""Names that a package must not take."""
PACKAGE_VERSION: Final = "0.1.0"
"""Version of a freshly exported package."""


@dataclass(frozen=True, slots=True)
class Files:
    """What an export writes: text by path, relative to the output folder."""

    texts: Mapping[str, str]
    """Text by path, with forward slashes."""
    manifest: Manifest
    """What they are."""


def check_package_name(name: str) -> str:
    """The name, if a package can have it.

    Raises:
        InputError: it is no identifier, or shadows a module.
    """
    taken = name in RESERVED or name in sys.stdlib_module_names
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_") or name != name.lower() or taken:
        why = "is the name of another module" if taken else "is no lower-case Python identifier"
        raise InputError(f"{name!r} {why}", where="--name", do="a name such as my_kernels")
    return name


def package_files(
    operations: Sequence[Operation], name: str, license_name: str = "", namespace: str | None = None
) -> Files:
    """The installable package.

    Args:
        operations: What to ship.
        name: The package.
        license_name: SPDX identifier that the user gives the generated code; empty for none stated.
        namespace: Of its torch operations; None for the package's name.

    Raises:
        InputError: the name cannot be a package's.
        UnsupportedOperator: a program calls a function torch has no name for.
    """
    check_package_name(name)
    described = [_Described(op).fields() for op in operations]
    common: dict[str, object] = {
        "package": name,
        "namespace": namespace or name,
        "version": versions().get("prism", "(not installed)"),
        "package_version": PACKAGE_VERSION,
        "license": license_name,
        "operations": described,
        "modelled": any(i.run.report.timing == "modelled" for op in operations for i in op.instances),
        "provenance": _provenance(operations, license_name),
    }
    texts = {
        "pyproject.toml": _render("pyproject.toml", common),
        "README.md": _render("README.md", common),
        f"{name}/__init__.py": _render("init.py", common),
        f"{name}/_dispatch.py": _render("dispatch.py", common),
        "tests/conftest.py": _render("conftest.py", common),
        "tests/cases.py": _render("cases.py", common),
        "tests/reference.py": _render("reference.py", common),
        "tests/test_kernels.py": _render("test_kernels.py", common),
    }
    artifacts: list[Artifact] = []
    for op, fields in zip(operations, described, strict=True):
        texts[f"{name}/{op.name}.py"] = _render("operation.py", {**common, "op": fields})
        artifacts += [_ship(texts, name, op, instance) for instance in op.instances]
    manifest = Manifest.of(name, texts, artifacts)
    return Files({**texts, f"{name}/manifest.json": manifest.to_json()}, manifest)


def _ship(texts: dict[str, str], package: str, op: Operation, instance: Instance) -> Artifact:
    """Put one kernel and its evidence among the texts."""
    module = module_name(op, instance)
    run = instance.run
    assert run.graph is not None and run.certificate is not None
    kernel = f"{package}/{module}.py"
    evidence = f"{package}/evidence/{module}"
    texts[kernel] = instance.source
    texts[f"{evidence}.sgraph.txt"] = python(run.graph)
    texts[f"{evidence}.certificate.json"] = run.certificate.to_json()
    texts[f"{evidence}.report.json"] = run.report.model_dump_json(indent=2) + "\n"
    return Artifact(
        operation=op.name,
        target=instance.target.name,
        kernel=kernel,
        sgraph=f"{evidence}.sgraph.txt",
        certificate=f"{evidence}.certificate.json",
    )


def module_name(op: Operation, instance: Instance) -> str:
    """Module of one kernel: the operation, its target and, where there are several of those, the sizes."""
    alike = [i for i in op.instances if i.target == instance.target]
    sizes = "".join(f"_{axis}{size}" for axis, size in instance.symbolic.items()) if len(alike) > 1 else ""
    return f"{op.name}_{instance.target.name}{sizes}"


class _Described:
    """One operation in the words of the templates."""

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.program = op.program
        self.takes = parameters(op.program)
        self.outputs = tuple(o.tensor for o in op.program.outputs)
        self.reference = body(unfused(op.program, "unfused"))

    def fields(self) -> dict[str, object]:
        """Everything a template may ask of the operation."""
        cpu = next((i for i in self.op.instances if i.target.kind == "cpu"), None)
        instances = [self._instance(i) for i in self.op.instances]
        names = [t.name for t in self.takes]
        many = len(self.outputs) > 1
        on_cpu = body(cpu.source).replace("def run(", "def found_on_cpu(", 1) if cpu is not None else ""
        return {
            "name": self.op.name,
            "equations": str(self.program),
            "summary": f"`{self._summary()}`",
            "instances": instances,
            "cuda": [i for i in instances if i["capability"]],
            "unfused": self.reference,
            "found_on_cpu": on_cpu,
            "compiled_on_cpu": cpu is not None and cpu.run.manifest.mode == "inductor",
            "uses_functional": "F." in self.reference + on_cpu,
            "inputs": {t.name: _dims(t) for t in self.takes},
            "outputs": {o.tensor.name: result_dims(self.program, o) for o in self.program.outputs},
            "dtypes": [(t.name, t.dtype.value) for t in (*self.takes, *self.outputs)],
            "fixed": {a.name: a.extent for a in self._outer() if not isinstance(a.extent, Size)},
            "symbols": {
                a.name: (a.extent.low, a.extent.high, a.extent.divisor)
                for a in self._outer()
                if isinstance(a.extent, Size)
            },
            "parameters": ", ".join(f"{n}: torch.Tensor" for n in names),
            "arguments": ", ".join(names),
            "result": f"tuple[{', '.join(['torch.Tensor'] * len(self.outputs))}]" if many else "torch.Tensor",
            "result_names": ", ".join(t.name for t in self.outputs),
            "signature_text": f"{self._summary()}; {', '.join(_tensor_text(t) for t in self.takes)}.",
            "truth": body(unfused(in_float64(of_any_extent(self.program)), self.op.name)),
            "call_sizes": self._call_sizes(),
        }

    def _instance(self, instance: Instance) -> dict[str, object]:
        run, target = instance.run, instance.target
        assert run.graph is not None
        cuda = target.kind == "cuda"
        held = pinned(self.program)
        small = small_sizes(instance.sizes) | {a.name: n for a, n in instance.sizes.items() if a.name in held}
        sizes_text = ", ".join(f"{a}={n}" for a, n in instance.symbolic.items())
        return {
            "module": module_name(self.op, instance),
            "target": target.name,
            "capability": divmod(target.architecture, 10) if cuda else (),
            "sizes": instance.symbolic,
            "sizes_text": sizes_text,
            "label": f"{target.name}{f' ({sizes_text})' if sizes_text else ''}",
            "checked": f"{run.report.timing}; proved, exact evaluation and numerical contract passed"
            if cuda
            else f"{run.report.timing}; proved, numerical contract passed",
            "all_sizes": {a.name: n for a, n in sorted(instance.sizes.items())},
            "small_sizes": small,
            "small_config": small_config(run.graph, small) if cuda else {},
        }

    def _outer(self) -> list[Axis]:
        return sorted({a for t in (*self.takes, *self.outputs) for a in t.named_axes})

    def _call_sizes(self) -> dict[str, int]:
        """Small extents for calls in tests: the constants of the program, and little of what varies."""
        small = small_sizes({a: a.extent.high if isinstance(a.extent, Size) else a.extent for a in self._outer()})
        return {a.name: small[a.name] if isinstance(a.extent, Size) else a.extent for a in self._outer()}

    def _summary(self) -> str:
        names = ", ".join(t.name for t in self.takes)
        return f"{', '.join(t.name for t in self.outputs)} = {self.op.name}({names})"


def _dims(tensor: Tensor) -> tuple[str | int, ...]:
    """Each dimension's axis by name, or 1 where it has none."""
    return tuple(1 if a is None else a.name for a in tensor.axes)


def result_dims(program: Program, output: Output) -> tuple[str | int | tuple[str | int, ...], ...]:
    """Each dimension of what is returned for an output: its axis, or the axes that it merges."""
    dims = iter(_dims(output.tensor))
    if program.border is None:
        return tuple(dims)
    merges = program.border.merges[program.outputs.index(output)]
    groups = [tuple(next(dims) for _ in range(count)) for count in merges]
    return tuple(group[0] if len(group) == 1 else group for group in groups)


def _tensor_text(tensor: Tensor) -> str:
    return f"{tensor.name}[{', '.join(str(d) for d in _dims(tensor))}] {tensor.dtype.short}"


def body(source: str) -> str:
    """A printed torch program's function alone: no docstring, no imports."""
    tree = ast.parse(source)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    return "\n".join(source.splitlines()[function.lineno - 1 : function.end_lineno])


def _provenance(operations: Sequence[Operation], license_name: str) -> str:
    from datetime import UTC, datetime

    found = versions()
    made = ", ".join(f"{n} {v}" for n, v in found.items())
    targets = sorted({i.target.name for op in operations for i in op.instances})
    owner = f"Licensed under {license_name} by its owner." if license_name else "The generated code is its owner's."
    return f"Exported {datetime.now(UTC).date()} with {made}; kernels for {', '.join(targets)}. {owner}"


def _render(template: str, fields: Mapping[str, object]) -> str:
    return _environment().get_template(f"{template}.jinja").render(fields).rstrip("\n") + "\n"


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
    )
    environment.filters["literal"] = _literal
    return environment


def _literal(value: object) -> str:
    """Numbers, names and containers of them as Python writes them, with double quotes."""
    return repr(value).replace("'", '"')
