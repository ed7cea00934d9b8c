"""docs/cli.md and the commands say the same, both ways; every --help has an example."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from adaptd.daemon.cli import app

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"
ROW = re.compile(r"^\| `adaptd ([a-z ]+)`", re.MULTILINE)


def commands(group: Any = None, path: str = "") -> Iterator[str]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_every_command_is_documented_and_every_documented_one_exists() -> None:
    assert set(ROW.findall(PAGE.read_text())) == set(commands())


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_help_has_an_example_that_is_this_command(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert f"Example: adaptd {command}" in " ".join(shown.output.split())


def test_no_command_prints_the_help_and_is_misuse() -> None:
    assert CliRunner().invoke(app, []).exit_code == 2
    assert CliRunner().invoke(app, ["no-such-command"]).exit_code == 2
