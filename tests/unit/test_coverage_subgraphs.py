"""Every ordinary subgraph ends as ``docs/coverage.md`` says; a third of them in a normal run, all with ``-m slow``."""

from __future__ import annotations

import pytest

from tests.coverage_page import HEAD, PAGE, SUBGRAPHS_HEAD, operators_text, outcome, row
from tests.coverage_subgraphs import SUBGRAPHS

EVERY = 3
"""Of so many subgraphs one is tried in a normal run."""

CASES = [
    name if number % EVERY == 0 else pytest.param(name, marks=pytest.mark.slow) for number, name in enumerate(SUBGRAPHS)
]


@pytest.mark.parametrize("name", CASES)
def test_a_subgraph_ends_as_the_page_says(name: str) -> None:
    subgraph = SUBGRAPHS[name]
    captured, proved, numbers = outcome(subgraph)
    if subgraph.refused:
        assert subgraph.refused in captured
    else:
        assert (captured, numbers) == ("yes", "kept")
        assert set(proved.split(", ")) == {"proved"}
    assert row(name, (captured, proved, numbers)) in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_lists_the_tables() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(f"{HEAD}{operators_text()}{SUBGRAPHS_HEAD}")
    rows = text.removeprefix(f"{HEAD}{operators_text()}{SUBGRAPHS_HEAD}").strip().splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == list(SUBGRAPHS)


def test_there_are_enough_subgraphs() -> None:
    assert sum(not s.refused for s in SUBGRAPHS.values()) >= 60
