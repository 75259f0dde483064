"""The end of the log to the live feature store: what happened anywhere is in the next answers.

What this server itself has stored is there already (see `landing`). The tail owns the reading
position of the live bundle, so it is also where a new bundle is taken over: the last gap between
the two is closed and the slot swapped in one critical section.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from domain.clock import Clock
from domain.errors import ConfigError, LogError, LogPositionError
from domain.event_log import EventLog, Positions, advance
from monitoring.metrics import ServingMetrics
from serving.apply_events import apply_records
from serving.landing import Landing
from serving.live_models import LiveModels, LiveModelSlot

_logger = logging.getLogger(__name__)

_CATCH_UP_TIMEOUT_S = 1.0
"""A broker answers within this; a log that has nothing in that time has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TailConfig:
    """How the end of the log is followed.

    Attributes:
        max_records: most records read at once.
        poll_timeout_ms: longest wait for the first of them.
        retry_ms: pause after a failed read.
        report_ms: time between two reports of lag and model age.
        target_ms: how soon after it happened an event should be in histories and catalog; what
            takes longer is counted, and an alert looks at the share of it.
    """

    max_records: int = 1_000
    poll_timeout_ms: int = 50
    retry_ms: int = 500
    report_ms: int = 1_000
    target_ms: int = 500

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(f"tail.{name} must be at least 1, got {getattr(self, name)}")


class LogTail:
    """Follows the log from where the live bundle stands. `log` is used by this thread alone."""

    def __init__(
        self,
        log: EventLog,
        slot: LiveModelSlot,
        clock: Clock,
        config: TailConfig,
        metrics: ServingMetrics,
    ) -> None:
        self._log = log
        self._landing = Landing(slot, clock, config.target_ms / 1_000, metrics.freshness)
        self._slot = slot
        self._clock = clock
        self._config = config
        self._metrics = metrics
        self._lock = threading.Lock()
        self._positions: Positions = {}
        self._takeovers = 0
        self._skipped = 0
        self._newest_ms = 0
        self._caught_up = False
        self._last_report_s = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-tail", daemon=True)

    @property
    def positions(self) -> Positions:
        """Return where the live feature store stands in the log."""
        with self._lock:
            return dict(self._positions)

    @property
    def landing(self) -> Landing:
        """Return the way in for events that this server has stored itself."""
        return self._landing

    @property
    def skipped_records(self) -> int:
        """Return how many records changed nothing since the start."""
        with self._lock:
            return self._skipped

    @property
    def caught_up(self) -> bool:
        """Return whether the last read found nothing new."""
        return self._caught_up

    def start(self) -> None:
        """Start following; nothing happens before the first `take_over`."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following and wait for the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def take_over(self, models: LiveModels, positions: Positions, log: EventLog) -> None:
        """Make `models`, which stand at `positions`, the live bundle.

        1. Hold the tail still and close the gap to where it stands (`log` belongs to the caller).
        2. Take in what this server stored and the tail has not read yet.
        3. Swap the slot: the next request uses `models`.
        4. Go on from where `models` stand now.

        Raises:
            LogError: the gap could not be read; the old bundle stays live.
        """
        with self._lock:
            batch = self._config.max_records
            reached = catch_up(models, positions, self._positions, log, max_records=batch)
            self._landing.hand_over(models, lambda: self._slot.swap(models))
            self._positions = reached.positions
            self._takeovers += 1
            self._caught_up = False

    def follow_once(self) -> int:
        """Read and apply what is new; return how many records there were.

        Raises:
            LogError: the log cannot be read now, or no longer holds the position.
        """
        with self._lock:
            positions, takeovers = dict(self._positions), self._takeovers
        if not takeovers:
            self._stopping.wait(self._config.poll_timeout_ms / 1_000)
            return 0
        records = self._log.read(
            positions,
            max_records=self._config.max_records,
            timeout_s=self._config.poll_timeout_ms / 1_000,
        )
        with self._lock:
            if takeovers != self._takeovers:
                return 0  # these records start where the bundle before stood
            applied = apply_records(self._slot.current(), records)
            self._landing.passed(applied.event_ids)
            self._landing.show(applied)
            self._positions = advance(positions, records)
            self._skipped += applied.skipped
            self._newest_ms = max(self._newest_ms, applied.newest_ms)
            self._caught_up = not records
        return len(records)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.follow_once()
            except LogPositionError as error:
                self._skip_lost_records(error)
            except LogError as error:
                _logger.warning("tail cannot read", extra={"error": str(error)})
                self._stopping.wait(self._config.retry_ms / 1_000)
            except Exception:
                # Whatever a log's client raises, histories must go on once it has recovered.
                _logger.exception("tail failed")
                self._stopping.wait(self._config.retry_ms / 1_000)
            self._report()

    def _skip_lost_records(self, error: LogPositionError) -> None:
        """Go on at the log's beginning where it no longer holds our position."""
        try:
            beginning = self._log.beginning_positions()
        except LogError as second:
            _logger.warning("tail cannot read", extra={"error": str(second)})
            beginning = {}
        with self._lock:
            lost = {
                partition: offset - self._positions.get(partition, 0)
                for partition, offset in beginning.items()
                if offset > self._positions.get(partition, 0)
            }
            self._positions |= {partition: beginning[partition] for partition in lost}
            self._skipped += sum(lost.values())
        _logger.error(
            "tail lost records", extra={"records": sum(lost.values()), "error": str(error)}
        )
        if not lost:  # a position past the end: only a new snapshot can help
            self._stopping.wait(self._config.retry_ms / 1_000)

    def _report(self) -> None:
        now_s = self._clock.stopwatch_s()
        if now_s - self._last_report_s < self._config.report_ms / 1_000 or not self._takeovers:
            return
        self._last_report_s = now_s
        now_ms = self._clock.now_ms()
        lag_ms = 0 if self._caught_up else max(now_ms - self._newest_ms, 0)
        self._metrics.tail_lag_seconds.set(lag_ms / 1_000)
        age_ms = max(now_ms - self._slot.current().event_time_ms, 0)
        self._metrics.model_age_seconds.set(age_ms / 1_000)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Where a bundle stands after catching up, and a few users met on the way."""

    positions: Positions
    users: tuple[str, ...]


def catch_up(
    models: LiveModels,
    positions: Positions,
    target: Positions,
    log: EventLog,
    *,
    max_records: int,
) -> CaughtUp:
    """Apply the log from `positions` on until `target` is reached, or the log has no more.

    Raises:
        LogPositionError: the log no longer holds `positions`.
        LogUnavailableError: the log cannot be read now.
    """
    at: Positions = dict(positions)
    users: tuple[str, ...] = ()
    while any(at.get(partition, 0) < offset for partition, offset in target.items()):
        records = log.read(at, max_records=max_records, timeout_s=_CATCH_UP_TIMEOUT_S)
        if not records:
            break  # offsets may end in gaps that no record will ever fill
        users = apply_records(models, records).last_users or users
        at = advance(at, records)
    return CaughtUp(positions=at, users=users)
