"""The steps of an answer, each on one bundle of models, each raising when it fails.

`recommend` puts them in order and decides what to do when one fails; `warm_up` lets them fail, so
that a snapshot which cannot answer never becomes live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domain.errors import ModelError
from domain.events import Features
from domain.requests import (
    Candidates,
    CapturedRequest,
    RankingScores,
    RetrievalRequest,
    UserView,
)
from serving.live_models import LiveModels

_LOOK_BEYOND = 4
"""So many times as many items are looked at as are wanted: filters may leave some out."""


@dataclass(frozen=True, slots=True, eq=False)
class Asker:
    """The user a request is for, as known at its moment.

    Attributes:
        seen: items she acted on, as far back as the feature store remembers.
    """

    view: UserView
    seen: frozenset[str]

    @property
    def known(self) -> bool:
        """Return whether anything is known about her."""
        return len(self.view.history) > 0 or bool(self.seen or self.view.features)


def read_asker(models: LiveModels, user_id: str, time_ms: int) -> Asker:
    """Return what is known about a user now."""
    with models.lock.read():
        store = models.feature_store
        return Asker(view=store.user_view(user_id, time_ms), seen=store.seen(user_id))


def find_candidates(models: LiveModels, request: RetrievalRequest) -> Candidates:
    """Search the live index."""
    with models.lock.read():
        if not models.unsettled.is_set():
            return models.retriever.retrieve(request)
    with models.lock.write():
        found = models.retriever.retrieve(request)
        models.unsettled.clear()
    return found


def popular_items(models: LiveModels, request: RetrievalRequest) -> Candidates:
    """Return popular and recent items."""
    with models.lock.read():
        return models.retriever.popular(request)


def fill_up(
    models: LiveModels, found: Candidates, limit: int, request: RetrievalRequest
) -> Candidates:
    """Return `found`, and popular items behind it until there are `limit`.

    What is filled in passes the filters of `request`, as `found` does. Scores of two sources do not
    compare, so it carries the last found score.
    """
    missing = limit - len(found.item_ids)
    if missing <= 0:
        return found
    exclude = request.exclude.union(found.item_ids)
    more = popular_items(models, replace(request, limit=missing, exclude=exclude))
    last = found.scores[-1] if len(found.item_ids) else np.float32(0.0)
    return Candidates(
        item_ids=found.item_ids + more.item_ids,
        scores=np.concatenate([found.scores, np.full(len(more.item_ids), last, np.float32)]),
    )


def item_features(models: LiveModels, item_ids: Sequence[str]) -> list[Features]:
    """Return the latest features of items."""
    with models.lock.read():
        return [models.feature_store.item_features(item_id) for item_id in item_ids]


def item_vectors(models: LiveModels, item_ids: Sequence[str]) -> NDArray[np.float32]:
    """Return where items lie in retrieval's space, float32 (N, D); NaN for unknown ones."""
    with models.lock.read():
        return models.retriever.item_vectors(item_ids)


def least_shown(models: LiveModels, request: RetrievalRequest, limit: int) -> dict[str, int]:
    """Return items that pass a request's filters and were shown least, and how often."""
    with models.lock.read():
        times = dict(models.feature_store.least_shown(_LOOK_BEYOND * limit))
    allow = frozenset(times) if request.allow is None else request.allow.intersection(times)
    found = find_candidates(models, replace(request, allow=allow, limit=len(times)))
    passing = set(found.item_ids)
    among = [item_id for item_id in times if item_id in passing]
    return {item_id: times[item_id] for item_id in among[:limit]}


def capture_request(
    models: LiveModels, user_id: str, item_ids: tuple[str, ...], time_ms: int, context: Features
) -> CapturedRequest:
    """Return what is known of a user and items now, as the ranker takes it."""
    with models.lock.read():
        request = models.feature_store.request(user_id, item_ids, time_ms, context)
    with models.weights_lock.read():
        return models.ranker.capture(request)


def score_items(
    models: LiveModels, user_id: str, item_ids: tuple[str, ...], time_ms: int, context: Features
) -> RankingScores:
    """Return the ranker's probabilities and hidden states, before compensation.

    Raises:
        ModelError: a probability is not finite.
    """
    captured = capture_request(models, user_id, item_ids, time_ms, context)
    with models.weights_lock.read():
        scores = models.ranker.predict([captured])[0]
    check_scores(models, scores)
    return scores


def check_scores(models: LiveModels, scores: RankingScores) -> None:
    """Check what the ranker said.

    Raises:
        ModelError: a probability is not finite; sorting by it would give any order at all.
    """
    _check_finite(scores.probabilities, "ranker", models.snapshot_id)


def compensate(models: LiveModels, scores: RankingScores) -> NDArray[np.float32]:
    """Return probabilities (N, H) corrected by the error memory.

    Raises:
        ModelError: a corrected probability is not finite.
    """
    with models.weights_lock.read():
        corrected = models.memory.compensate(scores.hidden, scores.probabilities)
    _check_finite(corrected, "memory", models.snapshot_id)
    return corrected


def best_first(item_ids: tuple[str, ...], scores_N: NDArray[np.float32], limit: int) -> Candidates:
    """Return the `limit` best items by score; equal scores keep the order they came in."""
    order = np.argsort(-scores_N, kind="stable")[:limit]
    return Candidates(item_ids=tuple(item_ids[i] for i in order), scores=scores_N[order])


def warm_up(models: LiveModels, user_ids: tuple[str, ...], time_ms: int, limit: int) -> None:
    """Answer for a few users and throw the answers away.

    First calls pay for lazy set-up and cold caches; and models that cannot answer raise here,
    before they are live.
    """
    for user_id in user_ids:
        asker = read_asker(models, user_id, time_ms)
        request = RetrievalRequest(
            user=asker.view, time_ms=time_ms, limit=limit, exclude=asker.seen
        )
        found = fill_up(models, find_candidates(models, request), limit, request)
        if found.item_ids:
            compensate(models, score_items(models, user_id, found.item_ids, time_ms, {}))


def _check_finite(values: NDArray[np.float32], who: str, snapshot_id: str) -> None:
    if not np.isfinite(values).all():
        raise ModelError(f"{who} of snapshot {snapshot_id} gave a score that is not finite")
