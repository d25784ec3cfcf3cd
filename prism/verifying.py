"""``prism verify``: saved runs and exported folders checked again, kernel by kernel, without searching.

Nothing of the folder is imported or executed: plans are read as data, and emitted text is interpreted by
``verify.exact``, which knows a small subset of Python and refuses the rest.
"""

from __future__ import annotations

import ast
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from prism.export.manifest import Artifact, Manifest, digest, find_manifest, read_manifest, read_text
from sgraph.errors import InputError, PrismError
from sgraph.ir import SGraph
from sgraph.reader import read
from verify.certificate import Certificate
from verify.recheck import Finding, Outcome, recheck

IMPORTABLE: Final = frozenset({".py", ".pyc", ".so", ".pyd", ".pth"})
"""Endings of files that Python may run when a package is imported."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that was checked."""

    name: str
    """``operation for target``, or the folder."""
    findings: tuple[Finding, ...]
    """Its checks, in order."""

    @property
    def outcome(self) -> Outcome:
        """The worst of its checks."""
        ended = {f.outcome for f in self.findings}
        return next((o for o in (Outcome.FAILED, Outcome.UNKNOWN) if o in ended), Outcome.PASSED)


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found."""

    path: Path
    """What was verified."""
    seed: int
    """Of the inputs of exact evaluation."""
    subjects: tuple[Subject, ...] = field(default=())
    """Files first, then each kernel."""

    @property
    def outcome(self) -> Outcome:
        """The worst of all."""
        ended = {s.outcome for s in self.subjects}
        return next((o for o in (Outcome.FAILED, Outcome.UNKNOWN) if o in ended), Outcome.PASSED)

    def to_record(self) -> dict[str, object]:
        """As JSON takes it."""
        return {
            "path": str(self.path),
            "seed": self.seed,
            "outcome": self.outcome.value,
            "subjects": [
                {
                    "name": s.name,
                    "outcome": s.outcome.value,
                    "findings": [
                        {"check": f.check, "outcome": f.outcome.value, "detail": f.detail, "seconds": f.seconds}
                        for f in s.findings
                    ],
                }
                for s in self.subjects
            ],
        }


def verify_path(
    path: Path, seed: int | None = None, on_finding: Callable[[str, Finding], None] = lambda subject, finding: None
) -> Verification:
    """Check a run folder, or a folder that ``prism export`` wrote, again.

    Args:
        path: The folder.
        seed: Of the inputs of exact evaluation; drawn afresh if it is None.
        on_finding: Called with each check as it ends.

    Raises:
        InputError: the folder is neither, or its manifest cannot be read.
    """
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    if not path.exists():
        raise InputError("there is nothing here", where=str(path), do="name a run or an exported folder")
    folder = path if path.is_dir() else path.parent
    manifest = find_manifest(folder)
    subjects = _exported(manifest, seed) if manifest is not None else _run(folder, seed)
    done: list[Subject] = []
    for name, findings in subjects:
        kept: list[Finding] = []
        for finding in findings:
            kept.append(finding)
            on_finding(name, finding)
        done.append(Subject(name, tuple(kept)))
    return Verification(path, seed, tuple(done))


def _run(folder: Path, seed: int) -> Iterator[tuple[str, Iterator[Finding]]]:
    from prism.saved import read_run

    run = read_run(folder)
    name = f"{run.report.program} for {run.report.target}"
    if run.graph is None or run.certificate is None:
        best = run.report.best.name if run.report.best is not None else "nothing"
        yield name, iter((Finding("kernel", Outcome.UNKNOWN, f"there is none: {best} was the fastest", 0.0),))
        return
    yield name, _kernel(run.graph, run.source, run.torch_source, run.certificate, seed)


def _exported(path: Path, seed: int) -> Iterator[tuple[str, Iterator[Finding]]]:
    manifest = read_manifest(path)
    kernels = [a.kernel for a in manifest.artifacts]
    # The manifest of a package lies in it, beside the kernels; that of a repository at the top.
    root = next((r for r in (path.parent, path.parent.parent) if all((r / k).exists() for k in kernels)), path.parent)
    yield "files", _files(root, path, manifest)
    for artifact in manifest.artifacts:
        yield f"{artifact.operation} for {artifact.target}", _artifact(root, artifact, seed)


def _files(root: Path, manifest_path: Path, manifest: Manifest) -> Iterator[Finding]:
    """Every listed file has its hash, and nothing lies among the kernels that Python would import.

    An installed package has no tests and no project file; where only some of these are missing, they are missed.
    """
    folders = {PurePosixPath(a.kernel).parts[0] for a in manifest.artifacts}
    outside = {name for name in manifest.files if PurePosixPath(name).parts[0] not in folders}
    installed = not any((root / name).exists() for name in outside)
    expected = {name: h for name, h in manifest.files.items() if not (installed and name in outside)}
    changed: list[str] = []
    for name, known in sorted(expected.items()):
        try:
            if digest(read_text(root / name).encode()) != known:
                changed.append(f"{name} was changed")
        except InputError as problem:
            changed.append(f"{name}: {problem.seen}")
    detail = "; ".join(changed) if changed else f"{len(expected)} files have their hashes"
    yield Finding("hashes", Outcome.FAILED if changed else Outcome.PASSED, detail, 0.0)
    present = {p.relative_to(root).as_posix() for f in folders for p in (root / f).rglob("*") if p.suffix in IMPORTABLE}
    known_names = {*manifest.files, manifest_path.relative_to(root).as_posix()}
    extra = sorted(p for p in present - known_names if "__pycache__" not in p)
    detail = f"not in the manifest: {', '.join(extra)}" if extra else "no file beyond the manifest can be imported"
    yield Finding("strangers", Outcome.FAILED if extra else Outcome.PASSED, detail, 0.0)


def _artifact(root: Path, artifact: Artifact, seed: int) -> Iterator[Finding]:
    try:
        text = read_text(root / artifact.sgraph)
        graph = read(text)
        if not isinstance(graph, SGraph):
            raise InputError("it describes no sGraph", where=artifact.sgraph)
        certificate = Certificate.from_json(read_text(root / artifact.certificate), where=artifact.certificate)
        source = read_text(root / artifact.kernel)
    except PrismError as problem:
        yield Finding("evidence", Outcome.FAILED, str(problem).replace("\n", ";"), 0.0)
        return
    cuda = artifact.target != "cpu"
    yield from _kernel(graph, source if cuda else "", "" if cuda else source, certificate, seed)


def _kernel(graph: SGraph, source: str, torch_source: str, certificate: Certificate, seed: int) -> Iterator[Finding]:
    yield from recheck(graph, source, certificate, seed)
    if not source:
        yield _printed(graph, torch_source)
    elif graph.program.border is not None:
        yield _views(graph, source)


def _views(graph: SGraph, source: str) -> Finding:
    """Where inputs are views of what a call gives, exact evaluation starts behind them: the text is printed again.

    Another version of Prism may print another text, so a difference is no failure; it is no pass either.
    """
    from autotune.lower import code_of, lower
    from autotune.parameters import Parameters
    from sgraph.stages import derive

    try:
        config = _table(source, "CONFIG")
        printed = lower(graph, tuple(derive(k) for k in graph.kernels), Parameters.from_config(config))
        same = code_of(source) == code_of(printed)
    except (PrismError, SyntaxError, ValueError, TypeError, KeyError, AttributeError, LookupError):
        same = False
    if same:
        return Finding("views", Outcome.PASSED, "the text is what is printed for the proved plan", 0.0)
    return Finding("views", Outcome.UNKNOWN, "this version of Prism prints another text for the proved plan", 0.0)


def _table(source: str, name: str) -> dict[str, dict[str, int]]:
    """A table of numbers that a text assigns."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return ast.literal_eval(statement.value)
    raise LookupError(name)


def _printed(graph: SGraph, torch_source: str) -> Finding:
    """A torch program is what this version prints for the proved plan, letter by letter: it is never executed."""
    from autotune.torch_printer import print_torch

    if print_torch(graph).rstrip("\n") == torch_source.rstrip("\n"):
        return Finding("torch text", Outcome.PASSED, "it is what is printed for the proved plan", 0.0)
    return Finding("torch text", Outcome.FAILED, "this version of Prism prints another text for the proved plan", 0.0)
