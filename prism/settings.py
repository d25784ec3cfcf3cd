"""Everything Prism reads from the environment, in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sgraph.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process should behave. Each field is one environment variable."""

    cache_dir: Path
    """``PRISM_CACHE_DIR``: where compiled resources and measurements are kept."""
    log: str
    """``PRISM_LOG``: parts to log, such as ``search,+verify`` (``+`` for debug level, ``all`` for everything)."""
    workers: int
    """``PRISM_WORKERS``: processes that compile at the same time."""
    memory_gib: float
    """``PRISM_MEMORY_GIB``: memory cap of the rewrite engine's process."""
    store: bool = True
    """``PRISM_STORE``: whether results are kept, and taken from what was kept; ``on`` or ``off``."""


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this environment.

    Raises:
        SettingsError: a variable holds something that is not a number, or not a positive one.
    """
    variables = os.environ if environment is None else environment
    given = variables.get("PRISM_CACHE_DIR")
    return Settings(
        cache_dir=Path(given) if given else _default_cache(),
        log=variables.get("PRISM_LOG", ""),
        workers=int(_number(variables, "PRISM_WORKERS", max(1, min(8, os.cpu_count() or 1)), least=1)),
        memory_gib=_number(variables, "PRISM_MEMORY_GIB", 4.0, least=0.5),
        store=_switch(variables, "PRISM_STORE", default=True),
    )


def _default_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("prism-superoptimizer"))


def _number(variables: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = variables.get(name)
    if text is None or not text.strip():
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value >= least:
        raise SettingsError(f"{name}={text!r} is not a number of at least {least:g}", do=f"unset {name}, or fix it")
    return value


def _switch(variables: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = variables.get(name, "").strip().lower()
    if text in {"", "on", "off", "1", "0", "true", "false", "yes", "no"}:
        return text in {"on", "1", "true", "yes"} if text else default
    raise SettingsError(f"{name}={text!r} is neither on nor off", do=f"unset {name}, or fix it")
