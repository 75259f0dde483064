"""Programs from outside that some tests need: found, or the test is skipped; under CI it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> str:
    """Return the path of a program; without it the test is skipped, under CI=true it fails."""
    path = shutil.which(program)
    if path is not None:
        return path
    reason = f"{program} is missing; deploy/test_tools.sh says how to get it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
