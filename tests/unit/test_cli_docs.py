"""docs/cli.md names every command, option and exit code that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mognet.cli import failures
from mognet.cli.shell import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}".strip())


@pytest.mark.parametrize(("path", "command"), [*commands(typer.main.get_command(app))])
def test_commands_and_options(path: str, command: Any) -> None:
    if not hasattr(command, "commands"):
        assert re.search(rf"[`$ ]{path}\b", PAGE), path
    for option in [each for parameter in command.params for each in parameter.opts if each.startswith("--")]:
        assert re.search(rf"{option}\b", PAGE), option


def test_exit_codes() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert table == {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, int)}


def test_no_option_of_the_page_is_gone() -> None:
    known = {each for _, command in commands(typer.main.get_command(app)) for parameter in command.params for each in parameter.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= known | {"--help"}
