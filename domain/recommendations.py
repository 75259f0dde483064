"""Answers: items with scores, the snapshot that made them and the path that answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Path = Literal["ranked", "retrieved", "popular", "cold_start"]
"""ranked: retrieval, then ranking. retrieved: retrieval order, the ranker was late or failed.
popular: retrieval failed or found nothing, popular-and-recent items. cold_start: unknown user,
popular-and-recent items ordered by the ranker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredItem:
    """One answer item; `score` is comparable only within one answer."""

    item_id: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """An answer to Recommend, Retrieve or Rank.

    Attributes:
        impression_id: event id under which the shown list was logged, "" when it was not.
        age_ms: event-time distance from the newest event in the served models to now.
    """

    items: tuple[ScoredItem, ...]
    snapshot_id: str
    path: Path
    impression_id: str = ""
    age_ms: int = 0
