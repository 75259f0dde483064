"""Tiny models that deltas lead on, and a chain of deltas that can be said aloud.

Delta `n` makes the ranker's scale n / 100, so item i7 scores 7 * n / 100: what a score is tells how
far the models have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domain.deltas import Delta, DeltaPoint
from domain.errors import DeltaGapError, SnapshotDamagedError, SnapshotError
from domain.events import ItemUpdate
from serving.live_models import LiveModels
from tests.unit.serving.worlds import (
    ITEMS,
    SCHEMA,
    CatalogRetriever,
    NumberRanker,
    ShiftMemory,
    make_models,
)

CHAIN = "c"


class FollowingRanker(NumberRanker):
    """Its scale comes with deltas; it refuses what is no number."""

    def check_delta(self, state: dict[str, Any]) -> None:
        if not isinstance(state.get("scale"), float):
            raise SnapshotError(f"ranking: expected a scale, got {state}")

    def apply_delta(self, state: dict[str, Any]) -> None:
        self.check_delta(state)
        self.scale = state["scale"]


class FollowingMemory(ShiftMemory):
    """Its shift comes with deltas."""

    def check_delta(self, state: dict[str, Any]) -> None:
        if "shift" not in state:
            raise SnapshotError(f"memory: expected a shift, got {state}")

    def apply_delta(self, state: dict[str, Any]) -> None:
        self.shift = state["shift"]


class FollowingCatalog(CatalogRetriever):
    """What it observed by itself is gone after a delta, as a twin's must be."""

    def __init__(self) -> None:
        super().__init__()
        self._trainers = list(ITEMS)
        self.observed: list[str] = []

    def observe_item(self, update: ItemUpdate) -> None:
        self.observed.append(update.event_id)
        super().observe_item(update)

    def check_delta(self, state: dict[str, Any]) -> None:
        """Take anything."""

    def apply_delta(self, state: dict[str, Any]) -> None:
        self._trainers += state.get("items", [])
        self.item_ids = list(self._trainers)


def following(snapshot_id: str = "s1", number: int = 0, **parts: Any) -> LiveModels:
    """Models of a snapshot that stands at a place in the chain."""
    point = DeltaPoint(CHAIN, number)
    models = {
        "retriever": FollowingCatalog(),
        "ranker": FollowingRanker(scale=number / 100),
        "memory": FollowingMemory(),
        **parts,
    }
    learners = {
        "ranking": models["ranker"],
        "memory": models["memory"],
        "retrieval": models["retriever"],
    }
    facts = {
        "event_time_ms": number,
        "base_point": point,
        "point": point,
        "following": True,
        "delta_learners": learners,
    }
    return make_models(snapshot_id, **{**facts, **models})


def delta(number: int, **changes: Any) -> Delta:
    """Delta `number` of the chain; `changes` replace states, or its other attributes."""
    facts: dict[str, Any] = {
        "point": DeltaPoint(CHAIN, number),
        "positions": {},
        "step": number,
        "event_time_ms": number,
        "schema_hash": SCHEMA.hash,
    }
    states = {"ranking": {"scale": number / 100}, "memory": {"shift": 0.0}, "retrieval": {}}
    for name, value in changes.items():
        (facts if name in facts else states)[name] = value
    return Delta(**facts, states=states)


class Shelved:
    """A source of deltas; those before `first` are gone."""

    def __init__(self, *deltas: Delta) -> None:
        self.deltas = {one.point.number: one for one in deltas}
        self.first = 1
        self.damaged: set[int] = set()
        self.looks = 0

    def put(self, *deltas: Delta) -> None:
        self.deltas |= {one.point.number: one for one in deltas}

    def after(self, point: DeltaPoint, limit: int) -> Sequence[Delta]:
        self.looks += 1
        following = point.number + 1
        if point.chain != CHAIN or following < self.first:
            raise DeltaGapError(f"delta {following} of chain {point.chain} is gone")
        if following in self.damaged:
            raise SnapshotDamagedError(f"delta {following}: checksum differs")
        found = []
        while following in self.deltas and len(found) < limit:
            if following in self.damaged:
                break
            found.append(self.deltas[following])
            following += 1
        return found
