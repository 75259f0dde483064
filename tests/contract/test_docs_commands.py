"""Every `headrace ...` line of the documentation is a command line that Headrace understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from app.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELLS = ("", "sh")
_TARGETS = re.compile(r"^([a-z-]+):", re.MULTILINE)


def command_lines(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks, continuation lines joined."""
    lines: list[str] = []
    for language, block in _FENCE.findall(page.read_text()):
        if language not in _SHELLS:
            continue
        lines += block.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines]


HEADRACE = [
    pytest.param(line, id=f"{page.name}: {line[:60]}")
    for page in PAGES
    for line in command_lines(page)
    if line.startswith(("headrace ", ".venv/bin/headrace "))
]


def parse(arguments: list[str]) -> None:
    """Let every command on the way parse its share; nothing runs."""
    command = typer.main.get_command(app)
    context = None
    while True:
        context = command.make_context(command.name, list(arguments), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        arguments = [*context._protected_args, *context.args]
        _, command, arguments = command.resolve_command(context, arguments)


@pytest.mark.parametrize("line", HEADRACE)
def test_command_line_of_a_page_is_understood(line):
    arguments = shlex.split(line, comments=True)[1:]
    parse(arguments)


def test_pages_show_commands_at_all():
    assert len(HEADRACE) >= 8


def test_an_unknown_flag_would_be_noticed():
    with pytest.raises(Exception, match="--no-such-flag"):
        parse(["replay", "--no-such-flag"])
    assert CliRunner().invoke(app, ["replay", "--no-such-flag"]).exit_code == 2


def test_make_targets_of_the_readme_exist():
    wanted = {line.split()[1] for line in command_lines(ROOT / "README.md") if "make " in line}
    assert wanted
    assert wanted <= set(_TARGETS.findall((ROOT / "Makefile").read_text()))
