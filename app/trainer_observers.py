"""Who watches a trainer's loop; a replay of its journal needs the same ones."""

from __future__ import annotations

from app.evaluation import FrozenComparison
from app.learner_gauges import LearnerGauges
from app.learners import Learners
from app.settings import Settings
from domain.clock import Clock
from domain.features import FeatureSchema
from monitoring.metrics import Metrics
from stream.live_quality import LiveQuality
from stream.observer import LoopObserver


def build_observers(
    settings: Settings, schema: FeatureSchema, learners: Learners, clock: Clock, metrics: Metrics
) -> tuple[list[LoopObserver], FrozenComparison | None]:
    """Return all observers, and the one of them that writes a report when it was asked for.

    Their states are part of a snapshot, so who watches is decided by the settings alone.
    """
    observers: list[LoopObserver] = [
        LiveQuality(
            schema,
            settings.prequential_quality,
            settings.prequential_ranks,
            settings.drift,
            metrics,
        ),
        LearnerGauges(schema, learners, clock, metrics),
    ]
    if not settings.evaluation.freeze_at_ms:
        return observers, None
    comparison = FrozenComparison(settings.evaluation, learners.ranking)
    return [*observers, comparison.observer], comparison
