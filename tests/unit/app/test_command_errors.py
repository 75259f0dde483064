"""How a command ends: an exit status, and one line for what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from app.errors import run_to_exit_code
from domain.errors import (
    ConfigError,
    DatasetError,
    HeadraceError,
    InvalidRequestError,
    LogUnavailableError,
    ProcessError,
    SchemaError,
    SnapshotNotFoundError,
)


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (SchemaError("x"), 2),
        (DatasetError("x"), 2),
        (LogUnavailableError("x"), 1),
        (SnapshotNotFoundError("x"), 1),
        (ProcessError("x"), 1),
        (HeadraceError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_exit_code_says_whose_mistake_it_was(error: BaseException, code: int) -> None:
    assert run_to_exit_code(raising(error)) == code


def test_exit_code_is_zero_when_nothing_went_wrong() -> None:
    assert run_to_exit_code(lambda: None) == 0


def test_exit_code_is_the_number_a_command_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_to_exit_code(lambda: 1) == 1
    assert run_to_exit_code(lambda: 130) == 130
    assert capsys.readouterr().err == "headrace: interrupted\n", "typer makes Ctrl-C a number"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("two\nlines \t of text"), "headrace: two lines of text"),
        (InvalidRequestError("limit", "too large"), "headrace: limit: too large"),
        (typer.BadParameter("too small."), "headrace: Invalid value: too small"),
        (KeyboardInterrupt(), "headrace: interrupted"),
    ],
    ids=repr,
)
def test_mistake_is_one_line_on_standard_error(
    error: BaseException, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_to_exit_code(raising(error))
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{line}\n")


def test_file_that_the_system_refuses_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a file"
    path.touch()
    assert run_to_exit_code(lambda: (path / "below").mkdir()) == 1
    assert capsys.readouterr().err == f"headrace: {path / 'below'}: Not a directory\n"


@pytest.mark.parametrize("error", [OSError("no file"), ValueError("a bug"), KeyError("a bug")])
def test_error_that_nobody_expected_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_to_exit_code(raising(error))
