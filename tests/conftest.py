"""What every test shares: one torch thread, repeatable property tests, log lines as in use."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import HealthCheck, settings

from monitoring.log_setup import OURS, TextFormatter

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

_LEVEL = logging.getLogger().level


@pytest.fixture(autouse=True)
def _logging_as_at_the_start() -> None:
    """Undo what commands of earlier tests did: they set logging up for their process, this one."""
    root = logging.getLogger()
    root.setLevel(_LEVEL)
    root.handlers[:] = [one for one in root.handlers if not isinstance(one, OURS)]


@pytest.fixture(autouse=True)
def _log_lines_as_written(caplog: pytest.LogCaptureFixture) -> None:
    """Let `caplog.text` read like the log of a process, fields included."""
    caplog.handler.setFormatter(TextFormatter())
