"""Everything one answer is made from: one snapshot's models, swapped whole or led on by deltas.

A request takes one reference to `LiveModels` and uses nothing else, so an answer never mixes two
snapshots however many swaps happen while it is made. Deltas change models where they are: each in
one moment in which nobody reads, so that no stage of an answer sees half of one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.deltas import DeltaLearner, DeltaPoint
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
from serving.items_ahead import ItemsAhead
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

    def popular(self, request: RetrievalRequest) -> Candidates:
        """Return popular and recent items; fewer only when fewer are eligible."""

    def item_vectors(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of items as they are now, float32 (N, D); NaN for unknown items."""

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
    """One snapshot, ready to answer, and how far deltas have led it on.

    The feature store and the retriever's catalog follow the log; whoever reads these two holds
    `lock.read()`, the tail holds `lock.write()`. Weights, counters and memory change by deltas
    only; whoever predicts or compensates holds `weights_lock.read()`. A delta changes everything,
    so its follower holds both for writing, `weights_lock` first.

    Attributes:
        snapshot_id: what answers and impressions name: the snapshot's id and, when deltas have led
            it on, "+" and the number of the last one.
        event_time_ms: event time of the newest event the models have learned from.
        positions: where the snapshot's own reading of the log ended.
        deduplicator: event ids seen since then, or the snapshot's own: a repeated event changes
            nothing.
        unsettled: set while the catalog has changes that no search has taken in.
        base_id: the snapshot's id on disk, "" when it is `snapshot_id`.
        base_point: where in its trainer's chain of deltas that snapshot stands; None: in no chain.
        point: where the models stand now.
        following: whether deltas are to be applied.
        spoiled: whether a delta failed half-way; only loading a snapshot mends that.
        ahead: what the log said of items that no delta has covered yet.
        delta_learners: what deltas change, by the names that deltas have for it.
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
    weights_lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    unsettled: threading.Event = field(default_factory=threading.Event)
    base_id: str = ""
    base_point: DeltaPoint | None = None
    point: DeltaPoint | None = None
    following: bool = False
    spoiled: bool = False
    ahead: ItemsAhead = field(default_factory=ItemsAhead)
    delta_learners: Mapping[str, DeltaLearner] = field(default_factory=dict)

    @property
    def on_disk_id(self) -> str:
        """Return the id of the snapshot on disk that these models were, or contain."""
        return self.base_id or self.snapshot_id


def standing(base_id: str, base: DeltaPoint, point: DeltaPoint) -> dict[str, Any]:
    """Return the attributes of models that stand at `point` and contain a snapshot on disk.

    >>> standing("000-ab", DeltaPoint("c", 7), DeltaPoint("c", 9))["snapshot_id"]
    '000-ab+9'
    """
    name = base_id if point == base else f"{base_id}+{point.number}"
    return {"snapshot_id": name, "base_id": base_id, "base_point": base, "point": point}


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

    @property
    def live(self) -> LiveModels | None:
        """Return the live bundle, None before the first."""
        return self._models

    def restate(self, models: LiveModels, **changes: Any) -> LiveModels | None:
        """Say anew where the live bundle stands; None when another bundle is live by now.

        Its models stay the same objects; requests that have begun keep what they were told.
        """
        with self._lock:
            live = self._models
            if live is None or live.lock is not models.lock:
                return None
            self._models = restated = replace(live, **changes)
            return restated

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
