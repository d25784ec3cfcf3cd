"""Saved runs: a search's result as a folder of plain files, read back as data.

A folder holds ``run.json`` (this manifest: what the files are and their hashes), ``report.json``, ``program.py`` (the
captured program), ``sgraph.py`` (the best family), ``certificate.json``, ``torch_form.py`` and, for a CUDA target,
``kernel.py``. Reading executes nothing: JSON is validated, printed Python is parsed by ``sgraph.reader``, sources stay
text. Every file must be a plain file of a known name whose SHA-256 the manifest has. ``prism.restored`` makes a
callable of what was read here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prism.report import Report
from sgraph.axis import Axis, Extent, Size, smallest
from sgraph.border import parameters
from sgraph.errors import ForeignRun, InputError, RunNotFound, UnreadableRun
from sgraph.ir import SGraph
from sgraph.program import DType, Program, Tensor

if TYPE_CHECKING:
    from verify.certificate import Certificate

FORMAT: Final = 1
"""Version of the folder's layout and of its manifest."""
MANIFEST: Final = "run.json"
LARGEST_BYTES: Final = 32 << 20
"""A file beyond this size is refused before it is read."""
LARGEST_PRINTED_BYTES: Final = 2 << 20
"""The same for printed programs and sGraphs, which are parsed."""
FILES: Final = ("report.json", "program.py", "sgraph.py", "certificate.json", "torch_form.py", "kernel.py")
"""Every name that a manifest may list; no other file is opened."""
NEEDED: Final = frozenset({"report.json", "program.py"})
SOURCES: Final = frozenset({"kernel.py", "torch_form.py"})
"""Files that are printed from the others; a store keeps their hashes alone."""

Mode = Literal["triton", "eager", "inductor", "original"]
"""How the best runs: as Triton, as its printed torch form (through Inductor or not), or as the function was written
(through Inductor or not, where a baseline of that name won)."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SizeRecord(_Record):
    """A symbolic size, as ``sgraph.axis.Size``."""

    name: Annotated[str, Field(max_length=200)]
    """Name of the symbol."""
    low: Annotated[int, Field(ge=0)]
    """Smallest value."""
    high: Annotated[int, Field(ge=0)]
    """Largest value."""
    divisor: Annotated[int, Field(ge=1)]
    """It is a multiple of this number."""


class InputRecord(_Record):
    """One example input: what is known of it, without its contents."""

    name: str
    """Name of the parameter."""
    dtype: DType
    """Element type."""
    shape: tuple[int, ...]
    """Extents of the example, those that the run was tuned for."""
    sizes: tuple[int | SizeRecord, ...]
    """Size of each dimension, symbolic where it is known only at call time."""
    constant: bool
    """Whether its contents stay the same between calls."""
    finite: bool
    """False for an additive mask that may hold minus infinity."""

    @classmethod
    def of(cls, tensor: Tensor, shape: tuple[int, ...]) -> InputRecord:
        """The record of a parameter at an example's shape."""
        sizes = tuple(_size(1 if axis is None else axis.extent) for axis in tensor.axes)
        return cls(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=shape,
            sizes=sizes,
            constant=tensor.constant,
            finite=tensor.finite,
        )

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Size of each dimension, as the arguments ``sizes`` of captures take it."""
        return tuple(s if isinstance(s, int) else Size(s.name, s.low, s.high, s.divisor) for s in self.sizes)


def _size(extent: Extent) -> int | SizeRecord:
    if isinstance(extent, int):
        return extent
    return SizeRecord(name=extent.name, low=extent.low, high=extent.high, divisor=extent.divisor)


class Manifest(_Record):
    """``run.json``: what the run is, and what its files must be."""

    format: Literal[1] = FORMAT
    """Version of this record and of the folder."""
    program: str
    """Name of the function."""
    target: str
    """Device name."""
    mode: Mode
    """How the best runs."""
    inputs: tuple[InputRecord, ...]
    """Inputs of the program, in order: the function's own, then a module's state."""
    own_inputs: Annotated[int, Field(ge=0)]
    """How many of them a caller gives; the others are the parameters and buffers of a module."""
    parameters: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Tiles, splits, warps and stages of the emitted kernels: ``{"kernel_0": {"tile_m": 16, ...}}``."""
    header: dict[str, str] = Field(default_factory=dict)
    """What the emitted file says of its checks."""
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """SHA-256 of every file beside this one."""
    versions: dict[str, str]
    """Python and packages that the run was made with."""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as it was read: data and text, nothing that runs."""

    folder: Path
    """Where it was read from; of a run in a store, the store's file."""
    manifest: Manifest
    """What the run is, with the hashes of its files."""
    report: Report
    """Everything that was found."""
    program: Program
    """What is computed."""
    graph: SGraph | None
    """The best family; None where a baseline won."""
    certificate: Certificate | None
    """What was proved and checked."""
    source: str = field(repr=False)
    """Text of ``kernel.py``; empty where there is none. Never executed from here."""
    torch_source: str = field(repr=False)
    """Text of ``torch_form.py``; empty where there is none. Never executed from here."""

    @property
    def inputs(self) -> tuple[InputRecord, ...]:
        """Names, types, shapes and symbolic sizes of the inputs."""
        return self.manifest.inputs

    @property
    def sizes(self) -> dict[Axis, int]:
        """Extents that the run was tuned for; the smallest ones of axes that no input has."""
        found = {axis: smallest(axis.extent) for axis in self.program.axes}
        for tensor, record in zip(parameters(self.program), self.inputs, strict=True):
            found |= {a.base: n for a, n in zip(tensor.axes, record.shape, strict=True) if a is not None}
        return found

    @property
    def parameters(self) -> Mapping[str, Mapping[str, int]]:
        """Parameters of the emitted kernels."""
        return self.manifest.parameters


def read_run(path: str | Path) -> SavedRun:
    """Read a saved run without executing anything of it.

    Args:
        path: the folder that ``Result.save`` wrote.

    Raises:
        RunNotFound: there is no such folder, or it has no ``run.json``.
        UnreadableRun: a file is missing, cut off, changed, too large, no plain file, or not what its name says.
        ForeignRun: the run is of a format that this version does not read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunNotFound(f"there is no run folder {folder}", do="the folder that --out or Result.save named")
    if not (folder / MANIFEST).exists():
        raise RunNotFound(f"{folder} has no {MANIFEST}", do="a folder that --out or Result.save wrote")
    manifest = parse_manifest(_read(folder / MANIFEST, LARGEST_PRINTED_BYTES), str(folder / MANIFEST))
    texts = {name: _read(folder / name, largest(name)) for name in manifest.files}
    return run_of(manifest, texts, folder)


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest from its JSON.

    Raises:
        UnreadableRun: it is no manifest.
        ForeignRun: it is one of another format.
    """
    found = _parsed_format(data, where)
    if found != FORMAT:
        raise ForeignRun(
            f"the run has format {found!r}, this version reads {FORMAT}",
            where=where,
            do="search again with this version, or read it with the version that wrote it",
        )
    manifest = _validated(Manifest, data, where)
    unknown = sorted(set(manifest.files) - set(FILES))
    if unknown:
        raise UnreadableRun(f"{unknown[0][:200]!r} is no file of a run", where=where, do=_AGAIN)
    missing = sorted(NEEDED - set(manifest.files))
    if missing:
        raise UnreadableRun(f"the manifest does not list {missing[0]}", where=where, do=_AGAIN)
    return manifest


def run_of(manifest: Manifest, texts: Mapping[str, bytes], where: Path) -> SavedRun:
    """The run of a manifest and the contents of its files; sources may be left out.

    Raises:
        UnreadableRun: a file is not the one that was saved, or not what its name says.
    """
    for name, data in texts.items():
        if hashlib.sha256(data).hexdigest() != manifest.files[name]:
            raise UnreadableRun(f"{name} is not the file that was saved: its hash differs", where=str(where), do=_AGAIN)
    text = {name: _text(data, where / name) for name, data in texts.items()}
    program = _printed(text["program.py"], Program, where / "program.py")
    graph = _printed(text["sgraph.py"], SGraph, where / "sgraph.py") if "sgraph.py" in text else None
    report = _validated(Report, texts["report.json"], str(where / "report.json"))
    certificate = _certificate(text["certificate.json"], where) if "certificate.json" in text else None
    _fit_together(manifest, program, graph, report, where)
    sources = text.get("kernel.py", ""), text.get("torch_form.py", "")
    return SavedRun(where, manifest, report, program, graph, certificate, *sources)


def largest(name: str) -> int:
    """The most bytes that a file of this name may have."""
    return LARGEST_PRINTED_BYTES if name in {"program.py", "sgraph.py"} else LARGEST_BYTES


# ------------------------------------------------------------------------------------------------- one file

_AGAIN: Final = "search again; a run's files belong together and are not edited"


def _read(path: Path, limit: int) -> bytes:
    """The bytes of a plain file."""
    try:
        # Links could lead out of the folder, and opening a pipe could wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableRun("it is no plain file", where=str(path), do=_AGAIN)
            if found.st_size > limit:
                raise UnreadableRun(f"{found.st_size} bytes where at most {limit} are read", where=str(path), do=_AGAIN)
            return file.read(limit)
    except OSError as error:
        seen = "it is a symbolic link" if path.is_symlink() else f"it cannot be read: {error.strerror or error}"
        raise UnreadableRun(seen, where=str(path), do=_AGAIN) from error


def _text(data: bytes, where: Path) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableRun("it is no text", where=str(where), do=_AGAIN) from None
    if "\0" in text:
        raise UnreadableRun("it is no text", where=str(where), do=_AGAIN)
    return text


class _Versioned(BaseModel):
    format: int


_Model = TypeVar("_Model", bound=BaseModel)
_Kind = TypeVar("_Kind", Program, SGraph)


def _parsed_format(data: bytes, where: str) -> int:
    return _validated(_Versioned, data, where).format


def _validated(model: type[_Model], data: bytes, where: str) -> _Model:
    try:
        return model.model_validate_json(data)
    except ValidationError as problem:
        first = problem.errors()[0]
        field_name = ".".join(map(str, first["loc"]))[:200]
        seen = f"{field_name}: {first['msg']}" if field_name else first["msg"]
        raise UnreadableRun(seen[:400], where=where, do=_AGAIN) from None


def _printed(text: str, kind: type[_Kind], where: Path) -> _Kind:
    found = _reading(text, where)
    if not isinstance(found, kind):
        raise UnreadableRun(f"it holds no {kind.__name__}", where=str(where), do=_AGAIN)
    return found


def _reading(text: str, where: Path) -> object:
    from sgraph.reader import UnreadableText, read

    try:
        return read(text)
    except UnreadableText as problem:
        raise UnreadableRun(problem.seen[:400], where=f"{where} {problem.where}".strip(), do=_AGAIN) from problem


def _certificate(text: str, where: Path) -> Certificate:
    from verify.certificate import Certificate

    try:
        return Certificate.from_json(text, where=str(where / "certificate.json"))
    except InputError as problem:
        raise UnreadableRun(problem.seen[:400], where=problem.where, do=_AGAIN) from problem


def _fit_together(manifest: Manifest, program: Program, graph: SGraph | None, report: Report, where: Path) -> None:
    """Refuse files that are each in order and not of one run."""
    shapes = [(r.name, r.dtype, r.extents, r.constant, r.finite) for r in manifest.inputs]
    declared = [
        (t.name, t.dtype, tuple(1 if a is None else a.extent for a in t.axes), t.constant, t.finite)
        for t in parameters(program)
    ]
    wrong = None
    if graph is not None and graph.program != program:
        wrong = "sgraph.py is of another program than program.py"
    elif shapes != declared or manifest.own_inputs > len(shapes):
        wrong = "the inputs of the manifest are not those of the program"
    elif (manifest.program, manifest.target) != (report.program, report.target):
        wrong = "report.json is of another program or target"
    elif (graph is None) != (manifest.mode == "original"):
        wrong = f"a run whose best runs as {manifest.mode} {'needs' if graph is None else 'has no'} sgraph.py"
    elif (manifest.mode == "triton") != ("kernel.py" in manifest.files):
        needs = "needs" if manifest.mode == "triton" else "has no"
        wrong = f"a run whose best runs as {manifest.mode} {needs} kernel.py"
    elif graph is not None and "torch_form.py" not in manifest.files:
        wrong = "the manifest does not list torch_form.py"
    if wrong is not None:
        raise UnreadableRun(wrong, where=str(where), do=_AGAIN)
