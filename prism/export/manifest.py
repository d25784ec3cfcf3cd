"""The manifest of an exported folder: every file with its hash, and which files belong to which kernel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sgraph.errors import InputError

FORMAT: Final = 1
LARGEST_BYTES: Final = 16 << 20
"""Of one exported file; more is no kernel."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Artifact(_Record):
    """One kernel and its evidence, as paths relative to the exported folder."""

    operation: str
    """Name of the operation."""
    target: str
    """Device it was tuned for."""
    kernel: str
    """Its source."""
    sgraph: str
    """The plan it was lowered from, as data."""
    certificate: str
    """What was proved and checked."""

    def moved(self, old: str, new: str) -> Artifact:
        """The same kernel where its files lie in another folder."""
        paths = {k: new + getattr(self, k).removeprefix(old) for k in ("kernel", "sgraph", "certificate")}
        return self.model_copy(update=paths)


class Manifest(_Record):
    """What an exported folder holds."""

    format: Literal[1] = FORMAT
    """Version of this record."""
    package: str
    """Name of the package."""
    files: dict[str, str]
    """SHA-256 of every file by path, this one excepted."""
    artifacts: tuple[Artifact, ...]
    """Its kernels."""

    @classmethod
    def of(cls, package: str, texts: Mapping[str, str], artifacts: Sequence[Artifact]) -> Manifest:
        """The manifest of some texts."""
        return cls(package=package, files={p: digest(t.encode()) for p, t in texts.items()}, artifacts=tuple(artifacts))

    def to_json(self) -> str:
        """The manifest as indented JSON."""
        return self.model_dump_json(indent=2) + "\n"


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def find_manifest(folder: Path) -> Path | None:
    """The manifest of an exported folder, or None: beside its package, or in it."""
    if (folder / "manifest.json").is_file():
        return folder / "manifest.json"
    found = sorted(p for p in folder.glob("*/manifest.json") if p.is_file())
    return found[0] if found else None


def read_manifest(path: Path) -> Manifest:
    """Read what ``to_json`` wrote.

    Raises:
        InputError: it is no manifest, one of another format, or names files outside of its folder.
    """
    do = "export again; the folder was changed or cut off"
    try:
        data: object = json.loads(read_text(path))
    except ValueError as problem:
        raise InputError(f"not JSON: {problem}", where=str(path), do=do) from None
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise InputError(f"format {found!r} where {FORMAT} is read", where=str(path), do=do)
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(f"{field}: {first['msg']}", where=str(path), do=do) from None
    names = {*manifest.files, *(n for a in manifest.artifacts for n in (a.kernel, a.sgraph, a.certificate))}
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
            raise InputError(f"{name!r} lies outside of the folder", where=str(path), do=do)
    unlisted = {n for a in manifest.artifacts for n in (a.kernel, a.sgraph, a.certificate)} - set(manifest.files)
    if unlisted:
        raise InputError(f"{min(unlisted)!r} has no hash", where=str(path), do=do)
    return manifest


def read_text(path: Path) -> str:
    """A text file of a folder that nobody vouches for.

    Raises:
        InputError: it is missing, a link, too large, or no UTF-8.
    """
    do = "export again, or name the folder that prism export wrote"
    if path.is_symlink():
        raise InputError("a symbolic link where a file is expected", where=str(path), do=do)
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"larger than {LARGEST_BYTES >> 20} MiB", where=str(path), do=do)
        return path.read_bytes().decode()
    except OSError as problem:
        raise InputError(f"cannot be read: {problem.strerror or problem}", where=str(path), do=do) from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8 text", where=str(path), do=do) from None
