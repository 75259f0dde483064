"""What every test shares: one torch thread, repeatable property tests, log lines as in use."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from monitoring.log_setup import TextFormatter

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _log_lines_as_written(caplog: pytest.LogCaptureFixture) -> None:
    """Let `caplog.text` read like the log of a process, fields included."""
    caplog.handler.setFormatter(TextFormatter())
