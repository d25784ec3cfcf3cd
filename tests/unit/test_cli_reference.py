"""The command line reference names every command and option there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism.cli import app

REFERENCE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
AGAIN = "write it again: COLUMNS=100 python -m typer prism.cli utils docs --name prism > docs/cli.md"


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def help_of(*command: str) -> str:
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0, shown.output
    return shown.output


def commands() -> list[tuple[str, ...]]:
    found = [tuple(name.split()) for name in re.findall(r"^#+ `prism ([\w -]+)`", REFERENCE, re.MULTILINE)]
    assert found
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_is_described_as_it_is(command: tuple[str, ...]) -> None:
    title = f"`prism {' '.join(command)}`"
    _, _, rest = REFERENCE.partition(f"{title}\n")
    section = re.split(r"^#+ `prism ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    described = options(section.split("**Options**")[-1])
    usage = options(help_of(*command).split("Options:")[-1])
    assert described == usage, AGAIN


def test_every_command_is_described() -> None:
    listed = set(re.findall(r"^  ([a-z][\w-]*) ", help_of().split("Commands:")[-1], re.MULTILINE))
    assert listed == {command[0] for command in commands()}, AGAIN
