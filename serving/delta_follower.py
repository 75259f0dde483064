"""Deltas to live models: what the trainer learned a second ago, without loading anything.

The follower goes on from where the live bundle stands in its trainer's chain. Each delta is checked
by every learner first, outside of all locks; then requests wait for the moment in which it is
applied. Whatever keeps it from going on (a gap, a damaged or unfit delta) ends following, is said
once, and is mended by the next full snapshot: the watcher loads it, because nothing has led the
models there.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass

from domain.clock import Clock
from domain.deltas import Delta, DeltaLearner, DeltaPoint, DeltaSource
from domain.errors import ConfigError, DeltaGapError, SnapshotDamagedError, SnapshotError
from domain.requests import RetrievalRequest
from monitoring.freshness_metrics import FreshnessMetrics
from serving.live_models import LiveModels, LiveModelSlot, standing
from serving.stages import read_asker, warm_up

_logger = logging.getLogger(__name__)

_PROBE_ITEMS = 10
"""Items ranked after deltas, to find weights that answer nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaFollowerConfig:
    """How deltas are followed.

    Attributes:
        enabled: whether to follow at all; if not, only full snapshots are served.
        poll_ms: time between two looks for the next delta.
        batch: most deltas read at once.
        patience_ms: how long a delta looks for a moment without running rankings before new ones
            have to wait behind it.
        target_ms: how soon after an event the models should have learned of it; what takes longer
            is counted, and an alert looks at the share of it.
    """

    enabled: bool = True
    poll_ms: int = 50
    batch: int = 16
    patience_ms: int = 200
    target_ms: int = 5_000

    def __post_init__(self) -> None:
        for name in ("poll_ms", "batch", "patience_ms", "target_ms"):
            least = 0 if name == "patience_ms" else 1
            if getattr(self, name) < least:
                raise ConfigError(
                    f"delta_follower.{name} must be at least {least}, got {getattr(self, name)}"
                )


class DeltaFollower:
    """Leads the live bundle on. `follow_once` belongs to one thread."""

    def __init__(
        self,
        source: DeltaSource,
        slot: LiveModelSlot,
        clock: Clock,
        config: DeltaFollowerConfig,
        metrics: FreshnessMetrics,
    ) -> None:
        self._source = source
        self._slot = slot
        self._clock = clock
        self._config = config
        self._metrics = metrics
        self._refused: DeltaPoint | None = None
        self._last_complaint = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delta-follower", daemon=True)

    def start(self) -> None:
        """Start following, unless it is switched off."""
        if self._config.enabled:
            self._thread.start()

    def stop(self) -> None:
        """Stop following and wait for the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def follow_once(self) -> int:
        """Apply the deltas that are there; return how many that were."""
        models = self._slot.live
        if models is None or not models.following or models.point is None:
            return 0
        try:
            deltas = self._source.after(models.point, self._config.batch)
        except DeltaGapError as error:
            self._metrics.delta_gaps.inc()
            self._give_up(models, "delta gap", error)
            return 0
        except SnapshotDamagedError as error:
            if _next(models.point) == self._refused:
                self._slot.restate(models, following=False)
            else:
                self._refuse(models, _next(models.point), error)
            return 0
        except (SnapshotError, OSError) as error:
            self._complain("deltas cannot be read", error)
            return 0
        applied = 0
        for delta in deltas:
            led_on = self._lead_on(models, delta)
            if led_on is None:
                break
            models, applied = led_on, applied + 1
        if applied:
            self._last_complaint = ""
            self._probe(models)
        return applied

    def _lead_on(self, models: LiveModels, delta: Delta) -> LiveModels | None:
        """Check a delta and apply it; None when it was not."""
        if delta.point == self._refused:
            self._slot.restate(models, following=False)  # of that was spoken before
            return None
        try:
            learners = self._learners(models, delta)
            for name, state in delta.states.items():
                learners[name].check_delta(state)
        except SnapshotError as error:
            self._refuse(models, delta.point, error)
            return None
        try:
            led_on = self._apply(models, delta, learners)
        except Exception:
            # All learners had agreed to it: what they are now is unknown, so they must go.
            _logger.exception("delta failed half-way", extra={"delta": delta.point.number})
            self._spoil(models, delta.point)
            return None
        if delta.event_time_ms > models.event_time_ms:
            age_s = max(self._clock.now_ms() - delta.event_time_ms, 0) / 1_000
            self._metrics.observe("weights", age_s, self._config.target_ms / 1_000)
        return led_on

    def _learners(self, models: LiveModels, delta: Delta) -> dict[str, DeltaLearner]:
        assert models.point is not None
        if delta.point != _next(models.point):
            raise SnapshotError(f"expected delta {_next(models.point)}, got {delta.point}")
        if delta.schema_hash != models.schema.hash:
            raise SnapshotError(
                f"delta {delta.point.number} belongs to schema {delta.schema_hash}, the models "
                f"to schema {models.schema.hash}"
            )
        learners = models.delta_learners
        unknown = sorted(set(delta.states) - set(learners))
        if unknown:
            raise SnapshotError(
                f"delta {delta.point.number} has states of {', '.join(unknown)}; expected only "
                f"{', '.join(learners)}"
            )
        return dict(learners)

    def _apply(
        self, models: LiveModels, delta: Delta, learners: dict[str, DeltaLearner]
    ) -> LiveModels | None:
        """Become what the trainer was, in one moment.

        1. Wait for a moment in which nobody ranks, then for one in which nobody searches.
        2. Apply the delta to every learner.
        3. Observe again what the log says of items beyond the delta's positions.
        4. Search once, so that no request pays for what the index has to take in.
        5. Say where the models stand now.
        """
        patience_s = self._config.patience_ms / 1_000
        asker = read_asker(models, "", delta.event_time_ms)
        search = RetrievalRequest(user=asker.view, time_ms=delta.event_time_ms, limit=1)
        assert models.base_point is not None
        with ExitStack() as held:
            held.enter_context(models.weights_lock.write(patience_s))
            held.enter_context(models.lock.write())
            started_s = self._clock.stopwatch_s()
            for name, state in delta.states.items():
                learners[name].apply_delta(state)
            for update in models.ahead.beyond(delta.positions):
                models.retriever.observe_item(update)
            models.retriever.retrieve(search)
            models.unsettled.clear()
            led_on = self._slot.restate(
                models,
                **standing(models.on_disk_id, models.base_point, delta.point),
                event_time_ms=max(delta.event_time_ms, models.event_time_ms),
            )
            held_s = self._clock.stopwatch_s() - started_s
        self._metrics.deltas_applied.inc()
        self._metrics.delta_apply_seconds.observe(held_s)
        return led_on

    def _probe(self, models: LiveModels) -> None:
        """Answer once and throw the answer away: weights may be finite and useless."""
        try:
            warm_up(models, ("",), self._clock.now_ms(), _PROBE_ITEMS)
        except Exception:
            assert models.point is not None
            _logger.exception("delta cannot answer", extra={"delta": models.point.number})
            self._spoil(models, models.point)

    def _refuse(self, models: LiveModels, point: DeltaPoint, error: Exception) -> None:
        """Leave the models as they are."""
        self._metrics.deltas_refused.inc()
        self._refused = point
        self._give_up(models, "delta refused", error)

    def _spoil(self, models: LiveModels, point: DeltaPoint) -> None:
        """Have the models replaced by those of a snapshot, which will not be led to this delta."""
        self._metrics.deltas_refused.inc()
        self._refused = point
        self._slot.restate(models, following=False, spoiled=True)

    def _give_up(self, models: LiveModels, what: str, error: Exception) -> None:
        point = models.point
        assert point is not None
        extra = {"chain": point.chain, "after": point.number, "error": str(error)}
        _logger.error(what, extra=extra)
        self._slot.restate(models, following=False)

    def _complain(self, what: str, error: Exception) -> None:
        """Log a lasting condition once, not at every look."""
        complaint = f"{what}: {error}"
        if complaint != self._last_complaint:
            self._last_complaint = complaint
            _logger.warning(what, extra={"error": str(error)})

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                applied = self.follow_once()
            except Exception:
                # Whatever the folder or a learner raises: the next snapshot leads on from there.
                _logger.exception("deltas cannot be followed")
                models, applied = self._slot.live, 0
                if models is not None:
                    self._slot.restate(models, following=False)
            if not applied:
                self._stopping.wait(self._config.poll_ms / 1_000)


def _next(point: DeltaPoint) -> DeltaPoint:
    return DeltaPoint(point.chain, point.number + 1)
