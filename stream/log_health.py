"""Whether the event log answers: said once per change, and what `/readyz` is asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Event as StopSignal
from typing import Literal

from domain.clock import Clock
from domain.errors import LogUnavailableError
from monitoring.metrics import Metrics
from stream.trainer_config import TrainerConfig

logger = logging.getLogger(__name__)

Verb = Literal["read", "write"]
"""A log may take no dead letters and yet be readable, so each is followed on its own."""

_LONGEST_RETRY_S = 10.0


@dataclass(slots=True)
class _Side:
    """What is known of one verb.

    Attributes:
        asked_s: when the oldest question not answered yet was asked; None when there is none.
        reason: of the last failure; "" while the log answers.
        retry_s: how long to wait after the next failure.
    """

    asked_s: float | None
    reason: str
    retry_s: float


class LogHealth:
    """Follows the log through failures; `readiness` may be called from any thread."""

    def __init__(self, config: TrainerConfig, clock: Clock, metrics: Metrics) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics.stream
        self._sides: dict[Verb, _Side] = {
            "read": _Side(None, "", config.retry_s),
            "write": _Side(None, "", config.retry_s),
        }
        self._ever_answered = False

    def asks(self, verb: Verb) -> None:
        """Note that the log is being asked."""
        side = self._sides[verb]
        if side.asked_s is None:
            side.asked_s = self._clock.stopwatch_s()

    def answered(self, verb: Verb) -> None:
        """Note that the log answered; says so when it had not for a while."""
        side = self._sides[verb]
        if side.reason and side.asked_s is not None:
            away_s = self._clock.stopwatch_s() - side.asked_s
            logger.info("log available again", extra={"verb": verb, "away_s": round(away_s, 1)})
        side.asked_s, side.reason, side.retry_s = None, "", self._config.retry_s
        self._ever_answered = True

    def failed(self, verb: Verb, error: LogUnavailableError, stop: StopSignal) -> None:
        """Note that the log did not answer, and wait before it is asked again, or for `stop`."""
        side = self._sides[verb]
        self._metrics.log_failures.inc()
        self._metrics.observe_error("log_unavailable", self._clock.now_ms())
        if not side.reason:
            logger.warning(
                "log unavailable, trying until it is back",
                extra={"verb": verb, "error": str(error)},
            )
        side.reason = str(error)
        stop.wait(side.retry_s)
        side.retry_s = min(2 * side.retry_s, _LONGEST_RETRY_S)

    def readiness(self) -> str:
        """Return "" when the log answers, else since when it does not and why."""
        for verb, side in self._sides.items():
            asked_s = side.asked_s  # another thread may clear it meanwhile
            silent_s = 0.0 if asked_s is None else self._clock.stopwatch_s() - asked_s
            if silent_s > self._config.unready_after_s:
                because = f": {side.reason}" if side.reason else ""
                return f"the event log has not answered a {verb} for {silent_s:.0f} s{because}"
        return "" if self._ever_answered else "the event log has not answered yet"
