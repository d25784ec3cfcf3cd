"""The docstring of an emitted file apart from its code: what was found out about a text is added after the checks.

Gates run on a text before anything can be said of them in it. ``with_header`` then changes the docstring alone, so
that the code which is returned is, character by character, the code that was checked (``code_of``).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Final

QUOTES: Final = '"""'
WIDTH: Final = 110
"""Longest line of what is added."""


def with_header(source: str, header: Mapping[str, str]) -> str:
    """An emitted file with lines added at the end of its docstring: title and text.

    Args:
        source: from ``lower``.
        header: what was found, such as ``{"exact evaluation": "agreed in 6 evaluations"}``.

    Raises:
        ValueError: the text does not begin with a docstring.
    """
    docstring, code = _parts(source)
    added: list[str] = []
    for title, text in header.items():
        added += ["", *textwrap.wrap(f"{title}: {text}", WIDTH)]
    lines = "\n".join(line.rstrip() for line in quotable("\n".join(added)).split("\n"))
    return f"{QUOTES}{docstring.rstrip()}\n{lines}\n{QUOTES}{code}" if added else source


def code_of(source: str) -> str:
    """Everything behind the docstring of an emitted file: what is executed.

    Raises:
        ValueError: the text does not begin with a docstring.
    """
    return _parts(source)[1]


def quotable(text: str) -> str:
    """A text that can stand in a docstring without ending or escaping from it."""
    return text.replace("\\", "\\\\").replace(QUOTES, "'''")


def _parts(source: str) -> tuple[str, str]:
    before, docstring, code = source.split(QUOTES, 2) if source.count(QUOTES) > 1 else (source, "", "")
    if before or not docstring:
        raise ValueError("an emitted file begins with its docstring")
    return docstring, code
