"""Line breaking of emitted text, the way ruff would, without needing it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

WIDTH: Final = 120
"""Longest line."""
OPEN: Final = "([{"
CLOSE: Final = ")]}"
OPERATORS: Final = ((" | ",), (" & ",), (" == ", " < ", " <= "), (" + ", " - "), (" * ", " / "))
"""Binary operators from loose to tight; a long expression breaks before all of its loosest."""
ASSIGNMENT: Final = re.compile(r"\s*\w+ (\+)?= ")


def formatted(text: str) -> str:
    """The text with lines that are too long broken at operators, or into one item per line."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines += _broken(line)
    return "\n".join(lines)


def _broken(line: str) -> list[str]:
    """A statement as lines that fit, as far as that is possible."""
    if len(line) <= WIDTH or line.lstrip().startswith(("#", '"""')):
        return [line]
    indent = _indent(line)
    assigned = ASSIGNMENT.match(line)
    if assigned is not None:
        terms = _terms(line[assigned.end() :])
        last = _last_group(line) if len(terms) == 2 else None
        if last is not None and last <= WIDTH - 1:
            return _opened(line, last)
        if len(terms) > 1:
            return [f"{assigned.group()}(", *_terms_broken(terms, indent + "    "), f"{indent})"]
    return _group_broken(line)


def _last_group(line: str) -> int | None:
    """Where the outermost bracketed group opens that a line ends with, if it ends with one and that is no index."""
    if not line.endswith(")"):
        return None
    return max(place for place, character, depth in _depths(line) if depth == 0 and character in OPEN)


def _opened(line: str, first: int) -> list[str]:
    """A line broken inside its last group: one operand of two, so that the other stays where it is."""
    if line[first - 1].isidentifier() or line[first - 1].isdigit():
        return _split_group(line, first, len(line) - 1)
    indent = _indent(line)
    inner = indent + "    " + line[first + 1 : -1]
    body = [inner] if len(inner) <= WIDTH else _terms_broken(_terms(inner.strip()), indent + "    ")
    return [line[: first + 1], *body, f"{indent})"]


def _item_broken(item: str, indent: str) -> list[str]:
    """One item of a bracketed group, with a comma behind it."""
    line = f"{indent}{item},"
    if len(line) <= WIDTH:
        return [line]
    terms = _terms(item)
    if len(terms) == 1:
        return _group_broken(line)
    *before, last = _terms_broken(terms, indent)
    return [*before, f"{last},"]


def _terms_broken(terms: list[str], indent: str) -> list[str]:
    return [broken for term in terms for broken in _group_broken(indent + term)]


def _group_broken(line: str) -> list[str]:
    """A line with its longest bracketed group broken into items, if it does not fit."""
    found = _longest_group(line) if len(line) > WIDTH else None
    if found is None:
        return [line]
    return _split_group(line, *found)


def _split_group(line: str, first: int, last: int) -> list[str]:
    """A line with the group from ``first`` to ``last`` broken into one item per line."""
    indent = _indent(line)
    items = [x for item in _items(line[first + 1 : last]) for x in _item_broken(item, indent + "    ")]
    return [line[: first + 1], *items, indent + line[last:]]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _depths(text: str) -> Iterator[tuple[int, str, int]]:
    """Position, character and bracket depth around it, quoted characters left out."""
    depth = 0
    quoted = ""
    for place, character in enumerate(text):
        if quoted:
            quoted = "" if character == quoted else quoted
            continue
        if character in CLOSE:
            depth -= 1
        yield place, character, depth
        if character in "\"'":
            quoted = character
        elif character in OPEN:
            depth += 1


def _longest_group(line: str) -> tuple[int, int] | None:
    """Where the longest outermost bracketed group opens and closes."""
    start = 0
    groups: list[tuple[int, int]] = []
    for place, character, depth in _depths(line):
        if depth == 0 and character in OPEN:
            start = place
        elif depth == 0 and character in CLOSE:
            groups.append((start, place))
    return max(groups, key=lambda g: g[1] - g[0], default=None)


def _terms(text: str) -> list[str]:
    """An expression cut before each of its loosest operators; itself if it has none."""
    outer = {place for place, _, depth in _depths(text) if depth == 0}
    for operators in OPERATORS:
        cuts = [i for i in sorted(outer) if text.startswith(operators, i)]
        if cuts:
            edges = [0, *(i + 1 for i in cuts), len(text)]
            return [text[a:b].strip() for a, b in itertools.pairwise(edges)]
    return [text]


def _items(text: str) -> list[str]:
    """The comma-separated items of a bracketed group."""
    commas = [place for place, character, depth in _depths(text) if character == "," and depth == 0]
    edges = [-1, *commas, len(text)]
    items = [text[a + 1 : b].strip() for a, b in itertools.pairwise(edges)]
    return [i for i in items if i]
