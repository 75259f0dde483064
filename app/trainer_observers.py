"""Who watches a trainer's loop; a replay of its journal needs the same ones."""

from __future__ import annotations

from collections.abc import Sequence

from app.evaluation import FrozenComparison
from app.learner_gauges import LearnerGauges
from app.learner_probe import LearnerReadings
from app.learners import Learners
from app.settings import Settings
from domain.clock import Clock
from domain.features import FeatureSchema
from monitoring.drift_sinks import DriftSink
from monitoring.metrics import Metrics
from stream.drift_watch import DriftWatch, DriftWatchParts
from stream.live_quality import LiveQuality
from stream.observer import LoopObserver


def build_observers(
    settings: Settings,
    schema: FeatureSchema,
    learners: Learners,
    clock: Clock,
    metrics: Metrics,
    sinks: Sequence[DriftSink] = (),
) -> tuple[list[LoopObserver], FrozenComparison | None]:
    """Return all observers, and the one of them that writes a report when it was asked for.

    Their states are part of a snapshot, so who watches is decided by the settings alone; `sinks`
    only hear of what was found.
    """
    observers: list[LoopObserver] = [
        LiveQuality(
            schema,
            settings.prequential_quality,
            settings.prequential_ranks,
            metrics,
        ),
        drift_watch(settings, schema, learners, metrics, sinks),
        LearnerGauges(schema, learners, clock, metrics),
    ]
    if not settings.evaluation.freeze_at_ms:
        return observers, None
    comparison = FrozenComparison(settings.evaluation, learners.ranking)
    return [*observers, comparison.observer], comparison


def drift_watch(
    settings: Settings,
    schema: FeatureSchema,
    learners: Learners,
    metrics: Metrics,
    sinks: Sequence[DriftSink] = (),
) -> DriftWatch:
    """Return what watches a loop for drift, in a trainer and in a replay alike."""
    parts = DriftWatchParts(
        config=settings.drift,
        metrics=metrics,
        watermark=settings.watermark,
        sinks=sinks,
        probes={"learners": LearnerReadings(schema, learners)},
    )
    return DriftWatch(schema, parts)
