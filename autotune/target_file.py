"""Targets that a user describes in a TOML file: a known target by name, with the fields that differ."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from sgraph.errors import InputError
from sgraph.program import DType
from sgraph.target import Target

WHOLE: Final = frozenset(
    {"architecture", "processors", "shared_memory_bytes", "shared_memory_per_processor_bytes", "registers", "l2_bytes"}
)
"""Fields that are counts."""
FIXED: Final = frozenset({"name", "kind", "dot_flops_per_s"})


def read_target(path: Path, known: Mapping[str, Target]) -> Target:
    """The target that a file describes.

    ``base = "h100"`` names the target whose figures count where the file has none; ``name`` is the file's own name
    unless given; ``[dot_flops_per_s]`` is a table by element type.

    Raises:
        InputError: the file cannot be read, is not TOML, or has a field that is unknown or no sensible figure.
    """
    where = str(path)
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read a target: {error.strerror}", where=where, do="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not TOML: {error}", where=where, do="see prism explain-cost --help") from error
    base = data.pop("base", None)
    if base not in known:
        listed = ", ".join(known)
        raise InputError(f"base = {base!r} is no known target", where=where, do=f"write base = one of {listed}")
    name = str(data.pop("name", path.stem))
    dots = _dots(data.pop("dot_flops_per_s", {}), where)
    allowed = {f.name for f in fields(Target)} - FIXED
    for key, value in data.items():
        if key not in allowed:
            alike = get_close_matches(key, allowed, n=1)
            hint = f"did you mean {alike[0]}?" if alike else f"one of {', '.join(sorted(allowed))}"
            raise InputError(f"a target has no field {key!r}", where=where, do=hint)
        _positive(key, value, where)
        if key in WHOLE and not isinstance(value, int):
            raise InputError(f"{key} = {value!r} is not a whole number", where=where, do="write it without a point")
    start = known[base]
    return replace(start, name=name, dot_flops_per_s={**start.dot_flops_per_s, **dots}, **data)


def _dots(table: Any, where: str) -> dict[DType, float]:
    if not isinstance(table, dict):
        raise InputError(
            "dot_flops_per_s is not a table", where=where, do="write [dot_flops_per_s] and a line per type"
        )
    found: dict[DType, float] = {}
    names = [d.value for d in DType]
    for key, value in dict[Any, Any](table).items():
        if key not in names:
            raise InputError(f"{key!r} is no element type", where=where, do=f"one of {', '.join(names)}")
        found[DType(key)] = _positive(f"dot_flops_per_s.{key}", value, where)
    return found


def _positive(key: str, value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise InputError(f"{key} = {value!r} is not a positive number", where=where, do="in SI units: bytes, seconds")
    return float(value)
