"""Reactions to drift, as the settings have them; none when all are off."""

from __future__ import annotations

from collections.abc import Sequence

from app.learners import Learners
from app.settings import Settings
from monitoring.metrics import Metrics
from monitoring.reactions import ReactionSink
from stream.reactions import ReactionParts, Reactions


def build_reactions(
    settings: Settings,
    learners: Learners,
    metrics: Metrics,
    sinks: Sequence[ReactionSink] = (),
) -> Reactions | None:
    """Return what answers drift signals; None when nothing is to be done about any.

    Raises:
        ConfigError: a reaction is on that these learners cannot do.
    """
    config = settings.reactions
    if not any(getattr(config, name).enabled for name in config.__slots__):
        return None
    parts = ReactionParts(
        ranking=learners.ranking,
        retrieval=learners.retrieval,
        memory=learners.memory,
        metrics=metrics,
        sinks=sinks,
    )
    return Reactions(config, parts)
