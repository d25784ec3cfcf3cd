"""Settings and logging are read from the environment in one place, and mistakes there are named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from prism.log import configure
from prism.settings import load
from sgraph.errors import SettingsError


def test_every_variable_has_a_default() -> None:
    settings = load({})
    assert settings.workers >= 1
    assert settings.log == ""


def test_variables_are_taken() -> None:
    settings = load({"PRISM_CACHE_DIR": "/somewhere", "PRISM_WORKERS": "3", "PRISM_MEMORY_GIB": "1.5"})
    assert settings.cache_dir == Path("/somewhere")
    assert (settings.workers, settings.memory_gib) == (3, 1.5)


@pytest.mark.parametrize("value", ["many", "0", "-2", "nan"])
def test_a_number_that_cannot_be_used_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="PRISM_WORKERS"):
        load({"PRISM_WORKERS": value})


def test_log_grammar_sets_levels_by_part() -> None:
    configure("search,+verify")
    assert logging.getLogger("prism.search").level == logging.INFO
    assert logging.getLogger("prism.verify").level == logging.DEBUG


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SettingsError, match="all, capture"):
        configure("serach")
