"""The key of a stored result: everything that decides what a search finds, field by field.

Fields are texts that a person can compare, so that a miss can be explained; the key is the hash of all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

from sgraph.axis import Axis
from sgraph.program import Program
from sgraph.target import Target

FIELDS: Final = ("spec", "trace", "facts", "sizes", "target", "device", "effort", "seed", "rules", "code", "versions")
"""Names of the fields, in the order in which they are compared and shown."""
PACKAGES: Final = ("sgraph", "rewrites", "verify", "autotune", "prism")
_DEPENDENCIES: Final = ("torch", "triton", "egglog", "optuna", "z3-solver", "sympy", "prism-superoptimizer")


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that decides what a search finds."""

    name: str
    """One of ``FIELDS``."""
    text: str
    """What it is, in full."""

    @property
    def short(self) -> str:
        """The text for a table: itself, or its beginning and a hash."""
        lines = [text for text in self.text.splitlines() if not text.startswith("from ")]
        line = " ".join(" ".join(lines).split())
        return line if len(line) <= 60 else f"{line[:44]}... #{_hash(self.text)[:8]}"


@dataclass(frozen=True, slots=True)
class Key:
    """What a result is stored under."""

    program: str
    """Name of the function, for people; it is part of the specification too."""
    fields: tuple[Field, ...]
    """In the order of ``FIELDS``."""

    @property
    def digest(self) -> str:
        """Hash of every field, hexadecimal."""
        return _hash("\0".join(f"{f.name}\0{f.text}" for f in self.fields))

    def text(self, name: str) -> str:
        """The text of a field."""
        return next(f.text for f in self.fields if f.name == name)


def key_of(program: Program, sizes: Mapping[Axis, int], target: Target, device: str, effort: str, seed: int) -> Key:
    """The key of a search.

    Args:
        program: what is computed; where it was captured from does not matter.
        sizes: extents that are tuned for.
        target: the device's figures.
        device: what is measured on, or that nothing is measured (``device_of``).
        effort: preset.
        seed: of every random choice.
    """
    from sgraph.printer import python

    texts = {
        "spec": python(replace(program, source="", facts=())),
        "trace": program.trace or "none",
        "facts": "; ".join(program.facts) or "none",
        "sizes": ", ".join(f"{a} = {n}" for a, n in sorted(sizes.items())),
        "target": json.dumps(asdict(target), sort_keys=True),
        "device": device,
        "effort": effort,
        "seed": str(seed),
        "rules": rule_set(),
        "code": code(),
        "versions": ", ".join(f"{name} {version}" for name, version in _versions().items()),
    }
    return Key(program.name, tuple(Field(name, texts[name]) for name in FIELDS))


def device_of(target: Target) -> str:
    """What times on this target are of: a device of this machine, or the model."""
    import torch

    if target.kind == "cpu":
        from autotune.cpu_baselines import environment

        machine = environment()
        return f"{machine.model}, {machine.threads} threads, compiler {machine.compiler or 'none'}"
    if torch.cuda.is_available():
        from prism.on_device import present

        if present(target):
            return torch.cuda.get_device_name()
    return "modelled"


@cache
def rule_set() -> str:
    """Hash of the rewrite rules."""
    from rewrites.rules import RULES

    return _hash("\n".join(map(repr, RULES)))[:16]


@cache
def code() -> str:
    """Hash of Prism's own sources: what another version would find is not what this one finds."""
    home = Path(__file__).resolve().parents[2]
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((home / package).rglob("*.py*")):
            if path.suffix in {".py", ".jinja"}:
                found.update(f"{path.relative_to(home)}\0".encode())
                found.update(path.read_bytes())
    return found.hexdigest()[:16]


@cache
def _versions() -> Mapping[str, str]:
    import platform

    found = {"python": platform.python_version()}
    for name in _DEPENDENCIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def fields_from(texts: Sequence[tuple[str, str]]) -> tuple[Field, ...]:
    """Fields as they were stored."""
    return tuple(Field(name, text) for name, text in texts)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
