"""Logging: standard ``logging`` under ``prism.*``, switched by one variable with one grammar.

``PRISM_LOG=search,+verify`` shows what the search says at INFO and what verification says at DEBUG;
``PRISM_LOG=all`` or ``+all`` shows everything. Nothing is configured where the variable is empty, so an
application's own logging setup stays as it is.
"""

from __future__ import annotations

import logging
from typing import Final

from sgraph.errors import SettingsError

PARTS: Final = ("capture", "rewrites", "search", "verify", "lower", "tune", "measure", "compile")
"""The parts that log, each under ``prism.<part>``."""


def configure(grammar: str) -> None:
    """Switch logging on for the parts named in a ``PRISM_LOG`` value.

    Raises:
        SettingsError: a part that does not exist.
    """
    entries = [entry.strip() for entry in grammar.split(",") if entry.strip()]
    if not entries:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger("prism")
    if not root.handlers:
        root.addHandler(handler)
        root.propagate = False
    for entry in entries:
        level = logging.DEBUG if entry.startswith("+") else logging.INFO
        part = entry.removeprefix("+")
        if part == "all":
            root.setLevel(level)
        elif part in PARTS:
            logging.getLogger(f"prism.{part}").setLevel(level)
        else:
            raise SettingsError(
                f"PRISM_LOG names {part!r}, which does not log", do=f"use some of: all, {', '.join(PARTS)}"
            )
