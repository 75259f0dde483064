"""How the trainer reads its log, and what it does when the log is away or has lost something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from domain.errors import ConfigError
from stream.gaps import OnGap

_POSITIVE = (
    "max_records",
    "poll_timeout_s",
    "queue_events",
    "queue_bytes",
    "retry_s",
    "unready_after_s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How the trainer reads its log.

    Attributes:
        max_records: most records taken from the log at once.
        poll_timeout_s: longest wait for the first record of a read.
        queue_events: decoded events that may wait for the learner; a full queue pauses reading. A
            record that holds more waits alone.
        queue_bytes: the same in bytes, as they were in the log.
        retry_s: wait before reading again while the log is unavailable; doubles up to 10 s.
        unready_after_s: silence of the log after which `/readyz` says no.
        on_gap: what to do when records that were still to be read are gone.
    """

    max_records: int = 2_000
    poll_timeout_s: float = 0.2
    queue_events: int = 20_000
    queue_bytes: int = 16 * 2**20
    retry_s: float = 0.2
    unready_after_s: float = 5.0
    on_gap: OnGap = "fail"

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigError(f"trainer.{name} must be positive, got {getattr(self, name)}")
        if self.on_gap not in get_args(OnGap):
            raise ConfigError(f"trainer.on_gap must be fail or skip, got {self.on_gap!r}")
