"""The result of a search: a callable with its evidence."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prism.report import Report, VerdictRecord
from sgraph.border import parameters
from sgraph.errors import OutputNotWritable
from sgraph.ir import SGraph
from sgraph.program import Program

if TYPE_CHECKING:
    from prism.saved import Manifest, Mode
    from verify.certificate import Certificate


@dataclass(frozen=True, slots=True)
class Origin:
    """What a saved run has to say beside the evidence, so that the callable can be made again."""

    program: Program
    """What is computed."""
    shapes: tuple[tuple[int, ...], ...]
    """Extents of the example inputs, a module's state included."""
    own_inputs: int
    """How many inputs a caller gives; the others are a module's state."""
    mode: Mode
    """How the best runs."""
    parameters: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    """Of the emitted kernels."""
    header: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the emitted file says of its checks."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A faster equal of a torch function. Call it in place of the original."""

    run: Callable[..., object] = field(repr=False)
    """What a call executes."""
    record: Report = field(repr=False)
    """Everything that was found, as data."""
    source: str = field(repr=False)
    """Source of the best: Triton for a CUDA target, torch for the CPU, empty where a baseline won."""
    torch_source: str = field(repr=False)
    """The best family printed as a torch function: what was rewritten, for a person to read."""
    graph: SGraph | None = field(repr=False)
    """The best family."""
    certificate: Certificate | None = field(repr=False)
    """What was proved and checked, re-checkable."""
    origin: Origin = field(repr=False)
    """What was searched for, and how the best runs."""

    def __call__(self, *inputs: object, **named: object) -> object:
        """Run the best found on these inputs, in the parameters' order of the original function."""
        return self.run(*inputs, **named)

    @property
    def fallbacks(self) -> int:
        """Calls that the original function answered, because an input was not what was searched for."""
        return int(getattr(self.run, "fallbacks", 0))

    @property
    def verdict(self) -> VerdictRecord | None:
        """The proof of the best family; None where a baseline won."""
        return self.record.verdict

    @property
    def speedup(self) -> float | None:
        """Fastest baseline's time over ours; None where nothing was timed."""
        return self.record.speedup

    def report(self) -> str:
        """The search on one screen, as text."""
        from prism.render import report_text

        return report_text(self.record)

    def to_json(self) -> str:
        """The record as JSON."""
        return self.record.model_dump_json(indent=2)

    def files(self) -> dict[str, str]:
        """The run as text files by name, without the manifest."""
        from sgraph.printer import python

        files = {
            "report.json": self.to_json(),
            "program.py": python(self.origin.program),
            "sgraph.py": python(self.graph) if self.graph is not None else "",
            "certificate.json": self.certificate.to_json() if self.certificate is not None else "",
            "torch_form.py": self.torch_source,
            "kernel.py": self.source,
        }
        return {name: text if text.endswith("\n") else text + "\n" for name, text in files.items() if text}

    def manifest(self) -> Manifest:
        """What ``run.json`` says: what the run is, and the hashes of its files."""
        from prism.saved import InputRecord, Manifest

        origin = self.origin
        return Manifest(
            program=self.record.program,
            target=self.record.target,
            mode=origin.mode,
            inputs=tuple(InputRecord.of(t, s) for t, s in zip(parameters(origin.program), origin.shapes, strict=True)),
            own_inputs=origin.own_inputs,
            parameters={kernel: dict(numbers) for kernel, numbers in origin.parameters.items()},
            header=dict(origin.header),
            files={name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.files().items()},
            versions=self.record.versions,
        )

    def save(self, folder: str | Path) -> Path:
        """Write the run to a folder: report, source, torch form, program, sGraph, certificate and their manifest.

        ``prism.load`` makes the callable again. The manifest is written last: a run that was cut off has none.

        Raises:
            OutputNotWritable: the folder cannot be made or written.
        """
        from prism.saved import MANIFEST

        path = Path(folder)
        write_files(path, {**self.files(), MANIFEST: self.manifest().model_dump_json(indent=2) + "\n"})
        return path

    def __repr__(self) -> str:
        best = self.record.best
        if best is None:
            return f"<Result {self.record.program} on {self.record.target}: nothing found>"
        time = best.measured_us if best.measured_us is not None else best.modelled_us
        shown = f", {time:.1f} us {self.record.timing}" if time is not None else ""
        return f"<Result {self.record.program} on {self.record.target}: {best.name}, {best.status}{shown}>"

    def _repr_html_(self) -> str:
        from prism.render import report_html

        return report_html(self.record)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of a run, the manifest last, in the place of an earlier run's.

    Raises:
        OutputNotWritable: the folder cannot be made or written.
    """
    from prism.saved import FILES, MANIFEST

    ensure_writable(folder)
    try:
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in set(FILES) - set(files):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(files, key=lambda n: n == MANIFEST):
            _write(folder / name, files[name])
    except OSError as error:
        raise _not_writable(folder, error) from error


def _write(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it sees all of it or what was there before."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def ensure_writable(folder: Path) -> Path:
    """The folder, made if it does not exist.

    Raises:
        OutputNotWritable: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(folder, error) from error
    return folder


def _not_writable(folder: Path, error: OSError) -> OutputNotWritable:
    seen = f"cannot write to {folder}: {error.strerror or error}"
    return OutputNotWritable(seen, do="name another folder with --out")


def parse_report(text: str) -> Report:
    """A report from its JSON."""
    return Report.model_validate(json.loads(text))
