"""Export: tuned kernels as a library that other people can install, read and check without Prism."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from prism.export.operations import Operation, gather
from prism.export.package import check_package_name, package_files
from prism.result import ensure_writable
from prism.saved import MANIFEST, read_run
from sgraph.errors import InputError, OutputNotWritable

__all__ = ["export_runs", "find_runs"]


def _package(operations: Sequence[Operation], name: str, license_name: str) -> Mapping[str, str]:
    return package_files(operations, name, license_name).texts


def _flashinfer(operations: Sequence[Operation], name: str, license_name: str) -> Mapping[str, str]:
    from prism.export.flashinfer import flashinfer_files

    return flashinfer_files(operations, name)


def _hf_kernels(operations: Sequence[Operation], name: str, license_name: str) -> Mapping[str, str]:
    from prism.export.hf_kernels import hf_kernels_files

    return hf_kernels_files(operations, name, license_name)


FORMATS: Final[Mapping[str, Callable[[Sequence[Operation], str, str], Mapping[str, str]]]] = {
    "package": _package,
    "flashinfer": _flashinfer,
    "hf-kernels": _hf_kernels,
}


def export_runs(
    runs: Sequence[Path], out: Path, name: str, *, form: str = "package", license_name: str = ""
) -> Mapping[str, str]:
    """Write saved runs as a library; returns the text of each file by its path.

    Args:
        runs: Run folders, or folders that hold some.
        out: Where to write; it must not exist, or be empty.
        name: Package, and namespace of its torch operations.
        form: ``package``: installable, with tests and evidence; ``flashinfer``: definitions and solutions of the
            FlashInfer trace schema; ``hf-kernels``: a build folder for the ``kernels`` package.
        license_name: SPDX identifier that the user gives the generated code.

    Raises:
        InputError: a name or folder cannot be used; nothing was written.
        NothingToExport: a run has no kernel that passed its checks; nothing was written.
        OutputNotWritable: the folder cannot be written.
    """
    if form not in FORMATS:
        raise InputError(f"no format {form!r}", where="--format", do=f"one of {', '.join(FORMATS)}")
    check_package_name(name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("it holds something already", where=str(out), do="name a new folder with --out")
    operations = gather([read_run(folder) for given in runs for folder in find_runs(given)])
    texts = FORMATS[form](operations, name, license_name)
    ensure_writable(out)
    try:
        for path, text in texts.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputNotWritable(f"cannot write to {out}: {error.strerror or error}", do="name another folder") from None
    return texts


def find_runs(folder: Path) -> tuple[Path, ...]:
    """The folder itself if it is a run, else the runs in it.

    Raises:
        InputError: there are none.
    """
    if (folder / MANIFEST).is_file():
        return (folder,)
    found = tuple(sorted(p.parent for p in folder.glob(f"*/{MANIFEST}")))
    if not found:
        raise InputError("no run here", where=str(folder), do="a folder that prism optimize --out wrote")
    return found
