"""Everything one answer is made from: one snapshot's models, swapped whole.

A request takes one reference to `LiveModels` and uses nothing else, so an answer never mixes two
snapshots however many swaps happen while it is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.errors import NotReadyError
from domain.event_log import Positions
from domain.events import ItemUpdate
from domain.features import FeatureSchema
from domain.requests import (
    Candidates,
    CapturedRequest,
    RankingRequest,
    RankingScores,
    RetrievalRequest,
)
from serving.read_write_lock import ReadWriteLock
from stream.deduplicator import Deduplicator
from stream.feature_store import FeatureStore


class Retriever(Protocol):
    """Catalog to candidates.

    Several threads search at once, and none while an item is observed. The first search after that
    runs alone, because retrievers take items into their index when it is next searched.
    """

    def retrieve(self, request: RetrievalRequest) -> Candidates:
        """Search the live index."""

    def popular(self, limit: int, exclude: frozenset[str]) -> Candidates:
        """Return popular and recent items of the catalog; fewer only when fewer are eligible."""

    def observe_item(self, update: ItemUpdate) -> None:
        """Take an item into the catalog, refresh its features, or take it out."""


class Ranker(Protocol):
    """Candidates to scores. Several threads may ask at once; nothing is changed."""

    def capture(self, request: RankingRequest) -> CapturedRequest:
        """Encode a request with all counters as they stand in the snapshot."""

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests; one result per request."""


class ErrorMemory(Protocol):
    """Scores to corrected scores. Several threads may ask at once; nothing is changed."""

    def compensate(
        self, hidden_ND: NDArray[np.float32], base_NH: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return corrected probabilities (N, H)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveModels:
    """One snapshot, ready to answer.

    Weights, counters and memory never change while they are served; the feature store and the
    retriever's catalog follow the log. Whoever reads these two holds `lock.read()`, the tail holds
    `lock.write()`.

    Attributes:
        event_time_ms: event time of the newest event the models have learned from.
        positions: where the snapshot's own reading of the log ended.
        deduplicator: event ids seen since then, or the snapshot's own: a repeated event changes
            nothing.
        unsettled: set while the catalog has changes that no search has taken in.
    """

    snapshot_id: str
    event_time_ms: int
    positions: Positions
    schema: FeatureSchema
    retriever: Retriever
    ranker: Ranker
    memory: ErrorMemory
    feature_store: FeatureStore
    deduplicator: Deduplicator = field(default_factory=Deduplicator)
    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    unsettled: threading.Event = field(default_factory=threading.Event)


class LiveModelSlot:
    """Holds the one live bundle; readers take a reference, the watcher swaps it."""

    def __init__(self) -> None:
        self._models: LiveModels | None = None
        self._listeners: list[Callable[[LiveModels], None]] = []
        self._lock = threading.Lock()

    def current(self) -> LiveModels:
        """Return the live bundle.

        Raises:
            NotReadyError: no snapshot has become live yet.
        """
        models = self._models
        if models is None:
            raise NotReadyError("no snapshot is live yet; try again in a moment")
        return models

    @property
    def snapshot_id(self) -> str:
        """Return the live snapshot's id, "" before the first."""
        models = self._models
        return "" if models is None else models.snapshot_id

    def swap(self, models: LiveModels) -> None:
        """Make `models` the bundle that the next requests use, then tell the listeners."""
        with self._lock:
            self._models = models
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(models)

    def add_listener(self, listener: Callable[[LiveModels], None]) -> None:
        """Call `listener` after every swap from now on, and at once when a bundle is live."""
        with self._lock:
            self._listeners.append(listener)
            models = self._models
        if models is not None:
            listener(models)
