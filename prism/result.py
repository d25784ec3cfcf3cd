"""The result of a search: a callable with its evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prism.report import Report, VerdictRecord
from sgraph.errors import OutputNotWritable
from sgraph.ir import SGraph

if TYPE_CHECKING:
    from verify.certificate import Certificate


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

    def __call__(self, *inputs: object) -> object:
        """Run the best found on these inputs, in the parameters' order of the original function."""
        return self.run(*inputs)

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

    def save(self, folder: str | Path) -> Path:
        """Write the run to a folder: report, source, torch form, sGraph and certificate.

        Raises:
            OutputNotWritable: the folder cannot be made or written.
        """
        from sgraph.printer import python

        path = ensure_writable(Path(folder))
        files = {"report.json": self.to_json(), "torch_form.py": self.torch_source}
        if self.source:
            files["kernel.py"] = self.source
        if self.graph is not None:
            files["sgraph.py"] = python(self.graph)
        if self.certificate is not None:
            files["certificate.json"] = self.certificate.to_json()
        try:
            for name, text in files.items():
                (path / name).write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
        except OSError as error:
            raise _not_writable(path, error) from error
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
