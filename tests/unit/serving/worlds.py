"""Tiny worlds for tests of serving: hand-made models whose every answer can be said aloud.

Ten items i0..i9. Retrieval prefers low numbers, the ranker high ones: so "i0 first" means that
retrieval's order answered, "i9 first" that the ranker's did.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from domain.clock import SystemClock
from domain.errors import SnapshotDamagedError
from domain.events import Feedback, ItemUpdate
from domain.features import FeatureSchema, Field, Head
from domain.requests import Candidates, CapturedRequest, RankingScores
from monitoring.metrics import Metrics, ServingMetrics
from serving.live_models import LiveModels, LiveModelSlot
from serving.watcher import SnapshotPlace
from stream.feature_store import FeatureStore, FeatureStoreConfig

ITEMS = tuple(f"i{number}" for number in range(10))

SCHEMA = FeatureSchema(
    fields=(
        Field(name="tab", entity="context", kind="categorical"),
        Field(name="hour", entity="context", kind="numeric"),
        Field(name="age", entity="user", kind="numeric"),
        Field(name="tags", entity="item", kind="multi"),
    ),
    heads=(Head(name="click", feedback_kind="click"), Head(name="like", feedback_kind="like")),
)

_numbers = itertools.count()


class CatalogRetriever:
    """A catalog in a fixed order; the earlier an item came in, the more popular it is."""

    def __init__(self, item_ids: Sequence[str] = ITEMS) -> None:
        self.item_ids = list(item_ids)
        self.requests: list = []

    def retrieve(self, request) -> Candidates:
        self.requests.append(request)
        return self._first(request)

    def popular(self, request) -> Candidates:
        return self._first(request)

    def observe_item(self, update: ItemUpdate) -> None:
        if not update.available:
            self.item_ids.remove(update.item_id)
        elif update.item_id not in self.item_ids:
            self.item_ids.append(update.item_id)

    def item_vectors(self, item_ids) -> np.ndarray:
        """Even numbers all lie in one direction, odd ones in another."""
        odd = np.array([int(item_id[-1]) % 2 for item_id in item_ids])
        return np.stack([1.0 - odd, 1.0 * odd], axis=1).astype(np.float32)

    def _first(self, request) -> Candidates:
        found = tuple(
            item
            for item in self.item_ids
            if item not in request.exclude and (request.allow is None or item in request.allow)
        )[: request.limit]
        return Candidates(item_ids=found, scores=-np.arange(1, len(found) + 1, dtype=np.float32))


class NumberRanker:
    """Scores an item by the last number in its id, for the first head; the second head is 0.5.

    An id without a number counts as 0.
    """

    def __init__(self, scale: float = 0.01) -> None:
        self.scale = scale
        self.captured: list[CapturedRequest] = []

    def capture(self, request) -> CapturedRequest:
        self.captured.append(request)
        numbers = [float(([0, *re.findall(r"[0-9]{1,9}", item)])[-1]) for item in request.item_ids]
        return CapturedRequest(
            user_id=request.user.user_id,
            item_ids=request.item_ids,
            time_ms=request.time_ms,
            arrays={"numbers": np.array(numbers, np.float32)},
        )

    def predict(self, captured) -> list[RankingScores]:
        return [self._scores(one.arrays["numbers"]) for one in captured]

    def _scores(self, numbers) -> RankingScores:
        probabilities = np.stack([numbers * self.scale, np.full_like(numbers, 0.5)], axis=1)
        return RankingScores(
            probabilities=probabilities.astype(np.float32), hidden=numbers[:, None]
        )


class ShiftMemory:
    """Adds a constant to every probability."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def compensate(self, hidden_ND, base_NH):
        return (base_NH + np.float32(self.shift)).astype(np.float32)


class Broken:
    """Stands in for any model and fails at every verb; or at those named, passing on the rest."""

    def __init__(self, model=None, *verbs: str) -> None:
        self._model = model
        self._verbs = verbs

    def __getattr__(self, verb: str):
        if self._verbs and verb not in self._verbs:
            return getattr(self._model, verb)

        def fail(*args):
            raise RuntimeError(f"{verb} is broken")

        return fail


class SlowRanker(NumberRanker):
    """A ranker that takes its time, or waits until it is told to go on."""

    def __init__(self, wait: Callable[[], object]) -> None:
        super().__init__()
        self._wait = wait

    def predict(self, captured) -> list[RankingScores]:
        self._wait()
        return super().predict(captured)


class NanRanker(NumberRanker):
    """A ranker whose weights went bad."""

    def __init__(self) -> None:
        super().__init__(scale=float("nan"))


def make_models(
    snapshot_id: str = "", *, positions=None, event_time_ms: int = 0, schema=SCHEMA, **parts
) -> LiveModels:
    """A bundle with a feature store of its own; each part can be replaced."""
    defaults = {
        "retriever": CatalogRetriever(),
        "ranker": NumberRanker(),
        "memory": ShiftMemory(),
        "feature_store": FeatureStore(schema, FeatureStoreConfig()),
    }
    return LiveModels(
        snapshot_id=snapshot_id or f"s{next(_numbers)}",
        event_time_ms=event_time_ms,
        positions=positions or {},
        schema=schema,
        **{**defaults, **parts},
    )


def live(models: LiveModels) -> LiveModelSlot:
    """A slot in which `models` answer."""
    slot = LiveModelSlot()
    slot.swap(models)
    return slot


def serving_metrics() -> ServingMetrics:
    """Real instruments in a registry of their own."""
    return Metrics().serving


def count(counter, **labels) -> float:
    """The value of a counter or gauge."""
    return (counter.labels(**labels) if labels else counter)._value.get()


def make_known(models: LiveModels, user_id: str = "ann", item_id: str = "i0") -> None:
    """Give a user a history: she clicked one item, long ago."""
    models.feature_store.observe(
        Feedback(
            event_id=f"click-{user_id}", time_ms=1, user_id=user_id, item_id=item_id, kind="click"
        )
    )


class Shelf:
    """A snapshot source: what is current, and how to make its models."""

    def __init__(self) -> None:
        self.current: str | None = None
        self.makers: dict[str, Callable[[], LiveModels]] = {}
        self.loads: list[str] = []
        self.places: dict[str, SnapshotPlace] = {}

    def place_of(self, snapshot_id: str) -> SnapshotPlace:
        return self.places.get(snapshot_id, SnapshotPlace(None, newest=True))

    def put(self, snapshot_id: str, make: Callable[[], LiveModels] | None = None) -> None:
        self.makers[snapshot_id] = make or (lambda: make_models(snapshot_id))
        self.current = snapshot_id

    def put_damaged(self, snapshot_id: str) -> None:
        def fail() -> LiveModels:
            raise SnapshotDamagedError(f"{snapshot_id}: ranking.safetensors: checksum differs")

        self.put(snapshot_id, fail)

    def current_id(self) -> str | None:
        return self.current

    def earlier_ids(self, snapshot_id: str) -> list[str]:
        ids = list(self.makers)
        return ids[: ids.index(snapshot_id)][::-1]

    def load_models(self, snapshot_id: str) -> LiveModels:
        self.loads.append(snapshot_id)
        return self.makers[snapshot_id]()


CLOCK = SystemClock()
