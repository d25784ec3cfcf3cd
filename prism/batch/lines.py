"""At which line of a TOML file a value stands; for messages only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*(\[{1,2})\s*([A-Za-z0-9_.\- ]+?)\s*\]{1,2}")
_KEY = re.compile(r"""^\s*["']?([A-Za-z0-9_-]+)["']?\s*=""")


def line_of(text: str, place: Sequence[int | str]) -> int:
    """The line of the value at a place such as ``("subgraph", 2, "shapes", 0, "x")``.

    Where the value itself stands on no line of its own (it is missing, or inside another value), the line of what it
    is in: its key, its table, at last the first line.
    """
    lines = _lines(text)
    for length in range(len(place), 0, -1):
        if tuple(place[:length]) in lines:
            return lines[tuple(place[:length])]
    return 1


def _lines(text: str) -> dict[tuple[int | str, ...], int]:
    """Line of every table and key, by place."""
    found: dict[tuple[int | str, ...], int] = {}
    table: tuple[int | str, ...] = ()
    count: Counter[tuple[int | str, ...]] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            table = _table(header[2].split("."), header[1] == "[[", count)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
        elif key is not None:
            found.setdefault((*table, key[1]), number)
    return found


def _table(names: list[str], repeated: bool, count: Counter[tuple[int | str, ...]]) -> tuple[int | str, ...]:
    """The place that a header opens, given how often each repeated table was opened before."""
    place: tuple[int | str, ...] = ()
    for i, name in enumerate(names):
        place = (*place, name.strip())
        if i == len(names) - 1 and repeated:
            count[place] += 1
        if count[place]:
            place = (*place, count[place] - 1)
    return place
