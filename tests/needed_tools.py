"""What some tests need from outside: found, or the test is skipped; under CI it fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest


def need(program: str) -> str:
    """Return the path of a program; without it the test is skipped, under CI=true it fails."""
    path = shutil.which(program)
    if path is None:
        _is_missing(f"{program} is missing; deploy/test_tools.sh says how to get it")
    return path


def need_module(name: str) -> None:
    """Go on only where a package is installed that not every platform has."""
    if importlib.util.find_spec(name) is None:
        _is_missing(f"{name} is not installed")


def _is_missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
