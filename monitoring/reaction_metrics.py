"""Instruments of what the trainer does by itself about drift."""

from __future__ import annotations

from monitoring.instruments import Maker
from monitoring.reactions import REACTIONS


class ReactionMetrics:
    """Reactions to drift signals."""

    def __init__(self, make: Maker) -> None:
        self.done = make.counter(
            "monitoring_reactions_total", "Reactions to drift signals.", reaction=REACTIONS
        )
        self.on = make.gauge(
            "monitoring_reaction_on",
            "1 while a reaction that lasts is in force.",
            reaction=REACTIONS,
        )
