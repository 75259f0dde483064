"""A new snapshot to live models: load aside, catch up with the log, warm up, swap.

A snapshot that deltas have led the live models to, or past, is not loaded at all. Whatever goes
wrong with a snapshot happens before the swap, so the old one keeps answering.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from domain.clock import Clock
from domain.deltas import DeltaPoint
from domain.errors import (
    ConfigError,
    HeadraceError,
    LogPositionError,
    LogUnavailableError,
    SchemaError,
    SnapshotDamagedError,
    SnapshotError,
)
from domain.event_log import EventLog, Positions
from domain.features import FeatureSchema
from monitoring.metrics import ServingMetrics
from serving.live_models import LiveModels, LiveModelSlot, standing
from serving.stages import warm_up
from serving.tail import LogTail, catch_up

_logger = logging.getLogger(__name__)

_REMEMBERED_REFUSALS = 256
"""Refused ids kept: snapshots come every few minutes and few are ever current again."""


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """Where a snapshot stands.

    Attributes:
        point: in its trainer's chain of deltas, None when it is in none.
        newest: whether no other snapshot goes on from it. One that is current all the same was
            made so by an operator.
    """

    point: DeltaPoint | None
    newest: bool


class SnapshotSource(Protocol):
    """Where snapshots come from; the composition root knows how to build models from one."""

    def current_id(self) -> str | None:
        """Return the id of the snapshot to serve, None when there is none."""

    def earlier_ids(self, snapshot_id: str) -> Sequence[str]:
        """Return the ids of the snapshots before one, newest first."""

    def place_of(self, snapshot_id: str) -> SnapshotPlace:
        """Return where a snapshot stands; reads no models."""

    def load_models(self, snapshot_id: str) -> LiveModels:
        """Build models of their own from a verified snapshot; nothing is shared with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherConfig:
    """How new snapshots are taken into service.

    Attributes:
        poll_ms: time between two looks at the snapshot store.
        patience_ms: how long deltas may take to lead the live models to a new snapshot, before it
            is loaded; also how long the store must say that an operator went back to the snapshot
            that deltas have led on from.
        warm_up_candidates: items ranked by each warm-up request; as many as a real one ranks.
        max_records: most records read at once while a new bundle catches up.
    """

    poll_ms: int = 500
    patience_ms: int = 3_000
    warm_up_candidates: int = 200
    max_records: int = 2_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(f"watcher.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherParts:
    """What the watcher works with; `log` is used by its thread alone."""

    source: SnapshotSource
    schema: FeatureSchema
    slot: LiveModelSlot
    tail: LogTail
    log: EventLog


class SnapshotWatcher:
    """Takes every new current snapshot into service, and remembers which ones it refused."""

    def __init__(
        self, parts: WatcherParts, clock: Clock, config: WatcherConfig, metrics: ServingMetrics
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._config = config
        self._metrics = metrics
        self._refused: dict[str, bool] = {}  # whether it is the files that are damaged
        self._last_complaint = ""
        self._waiting: tuple[str, float] = ("", 0.0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot-watcher", daemon=True)

    @property
    def refused_ids(self) -> tuple[str, ...]:
        """Return the ids of snapshots that will not be tried again, oldest first."""
        return tuple(self._refused)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching and wait for the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look_once(self) -> bool:
        """Take the current snapshot into service unless it is live or refused; say whether.

        A snapshot that cannot be loaded, belongs to another schema or cannot answer is refused for
        good. A log that cannot be read is not the snapshot's fault: it is tried again. When the
        current snapshot is damaged and none is live, the newest whole one before it stands in.
        """
        try:
            snapshot_id = self._next_id()
        except (HeadraceError, OSError) as error:
            self._complain("snapshots cannot be listed", error)
            return False
        if snapshot_id is None:
            return False
        try:
            self._take_into_service(snapshot_id)
        except LogUnavailableError as error:
            self._complain(f"snapshot {snapshot_id} waits for the log", error)
            return False
        except HeadraceError as error:
            self._refuse(snapshot_id, damaged=isinstance(error, SnapshotDamagedError))
            _logger.error("snapshot refused", extra={"snapshot": snapshot_id, "error": str(error)})
            return False
        except Exception:
            # Models built from a poisoned file may raise anything at all.
            self._refuse(snapshot_id)
            _logger.exception("snapshot refused", extra={"snapshot": snapshot_id})
            return False
        self._last_complaint = ""
        return True

    def _next_id(self) -> str | None:
        """Return the id of the snapshot to load now, None when there is none."""
        source, live = self._parts.source, self._parts.slot.live
        current = source.current_id()
        if current is None:
            return None
        if live is not None and live.spoiled:
            live = None  # it answers, but nothing may be built on it
        if live is not None and live.point is not None and current not in self._refused:
            return current if self._must_load(live, live.point, current) else None
        if live is not None and current == live.on_disk_id:
            return None
        if current not in self._refused:
            return current
        if live is not None or not self._refused[current]:
            return None
        for earlier in source.earlier_ids(current):
            if earlier not in self._refused:
                _logger.warning(
                    "snapshot stands in", extra={"snapshot": earlier, "instead_of": current}
                )
                return earlier
        return None

    def _must_load(self, live: LiveModels, point: DeltaPoint, current: str) -> bool:
        """Say whether `current` must be loaded, or live models that deltas lead on contain it.

        - The trainer's newest, already passed: noted, not loaded.
        - The trainer's newest, still ahead: deltas may lead there, for `patience_ms`.
        - Not the trainer's newest: an operator chose it. It is loaded, and not led on.
        """
        try:
            place = self._parts.source.place_of(current)
        except SnapshotError:
            return True  # loading it says what is wrong, and remembers it
        if current == live.on_disk_id:
            led_on = live.following or point != live.base_point
            return self._for_long(current, not place.newest and led_on)
        if not place.newest or place.point is None or place.point.chain != point.chain:
            return True
        is_ahead = place.point.number > point.number
        if is_ahead:
            return not live.following or self._for_long(current, True)
        self._parts.slot.restate(live, **standing(current, place.point, point))
        _logger.info("snapshot contained", extra={"snapshot": current, "delta": point.number})
        return self._for_long(current, False)

    def _for_long(self, snapshot_id: str, holds: bool) -> bool:
        """Return whether something has held of a snapshot for `patience_ms` on end."""
        waiting_for, since_s = self._waiting
        now_s = self._clock.stopwatch_s()
        if not holds or waiting_for != snapshot_id:
            self._waiting = (snapshot_id if holds else "", now_s)
            return False
        return now_s - since_s >= self._config.patience_ms / 1_000

    def _take_into_service(self, snapshot_id: str) -> None:
        """Make one snapshot live.

        1. Load it aside; check that it belongs to our schema and our log.
        2. Catch up with the log as it ends now.
        3. Warm up: unknown and lately active users, so lazy parts are built, and errors come here.
        4. Let the tail close the last gap and swap.
        """
        parts, started_s = self._parts, self._clock.stopwatch_s()
        models = parts.source.load_models(snapshot_id)
        if models.point is not None:
            models = replace(models, following=parts.source.place_of(snapshot_id).newest)
        if models.schema.hash != parts.schema.hash:
            raise SchemaError(
                f"snapshot {snapshot_id} was trained on schema {models.schema.hash}, "
                f"this server was configured with schema {parts.schema.hash}"
            )
        target = parts.log.end_positions()
        _check_same_log(models, target)
        batch = self._config.max_records
        reached = catch_up(models, models.positions, target, parts.log, max_records=batch)
        users = ("", *reached.users)
        warm_up(models, users, self._clock.now_ms(), self._config.warm_up_candidates)
        parts.tail.take_over(models, reached.positions, parts.log)
        self._metrics.snapshot_swaps.inc()
        _logger.info(
            "snapshot live",
            extra={
                "snapshot": snapshot_id,
                "took_s": round(self._clock.stopwatch_s() - started_s, 2),
            },
        )

    def _refuse(self, snapshot_id: str, *, damaged: bool = False) -> None:
        self._metrics.snapshot_refused.inc()
        self._refused[snapshot_id] = damaged
        while len(self._refused) > _REMEMBERED_REFUSALS:
            del self._refused[next(iter(self._refused))]

    def _complain(self, what: str, error: Exception) -> None:
        """Log a lasting condition once, not at every look."""
        complaint = f"{what}: {error}"
        if complaint != self._last_complaint:
            self._last_complaint = complaint
            _logger.warning(what, extra={"error": str(error)})

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look_once()
            self._stopping.wait(self._config.poll_ms / 1_000)


def _check_same_log(models: LiveModels, ends: Positions) -> None:
    for partition, position in models.positions.items():
        end = ends.get(partition, 0)
        if position > end:
            raise LogPositionError(
                f"snapshot {models.snapshot_id} has read {partition} up to {position}, but the log "
                f"ends at {end}: it is another log"
            )
