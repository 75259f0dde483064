"""The client's clock. It runs in other people's processes, where there is no clock to be given."""

from __future__ import annotations

import time


def now_s() -> float:
    """Return seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Block the calling thread."""
    time.sleep(seconds)
