"""One answer from one bundle of models: candidates, their order, and the path that gave them.

A stage that fails or has no time left hands over to a simpler path, never to silence: the answer
says which path made it, and the log says why with the request's id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.clock import Clock
from domain.errors import CallCancelledError, DeadlineExceededError
from domain.events import Features
from domain.filters import ItemFilters
from domain.recommendations import Path
from domain.requests import Candidates, RankingScores, RetrievalRequest
from monitoring.metrics import ServingMetrics
from serving import cancellation, request_id, stages, trace
from serving.admission import Deadline
from serving.availability import AvailabilityConfig
from serving.diversity import DiversityConfig
from serving.exploration import ExplorationConfig
from serving.live_models import LiveModels
from serving.rank_batcher import RankBatcher
from serving.rank_time import RankTimeEstimate
from serving.shown_list import ListMaker, ShownList

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """A request to recommend.

    Attributes:
        time_ms: the moment of the request; features are read as known then.
        limit: how many items are wanted.
        filters: what may be in the answer.
    """

    user_id: str
    time_ms: int
    limit: int
    context: Features
    deadline: Deadline
    filters: ItemFilters


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """What holds for every answer beside the caller's own wishes.

    Attributes:
        batch_wait_s: longest wait of a ranking for the batch before its own; 0 makes no batches.
    """

    num_candidates: int
    batch_wait_s: float
    availability: AvailabilityConfig
    diversity: DiversityConfig
    exploration: ExplorationConfig


class AnswerMaker:
    """Leads a query through retrieval, ranking and compensation, with a way round each of them."""

    def __init__(
        self, clock: Clock, rules: AnswerRules, rank_budget_s: float, metrics: ServingMetrics
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._lists = ListMaker(rules.diversity, rules.exploration, metrics)
        self._rank_time = RankTimeEstimate(rank_budget_s)
        self._batcher = RankBatcher(rules.batch_wait_s, metrics.rank_batch_size.observe)
        self._metrics = metrics

    def recommend(self, models: LiveModels, query: Query) -> tuple[ShownList, Path]:
        """Return the list to show, at most `query.limit` items, and the path that found them.

        Known user: retrieval, then ranking ("ranked"); ranker failed or late: retrieval's order
        ("retrieved"); retrieval failed or found nothing: "popular". Unknown user: popular items
        ordered by the ranker ("cold_start"), or not even that ("popular"). Only what was ranked is
        mixed with items to explore: a server in need should not take chances.
        """
        asker = stages.read_asker(models, query.user_id, query.time_ms)
        wanted = max(self._rules.num_candidates, query.limit)
        request = self._request(query, asker, wanted)
        if asker.known:
            found = self._retrieved(models, query, request)
            path: Path = "ranked"
        else:
            found, path = stages.popular_items(models, request), "cold_start"
        if found is None:
            popular = stages.popular_items(models, request)
            return self._lists.plain(models, popular, query.limit), "popular"
        choices = self._lists.choices(models, request, query.limit)
        in_order = self._ranked(models, query, _joined(found, choices))
        if in_order is None:
            plain = self._lists.plain(models, found, query.limit)
            return plain, "retrieved" if asker.known else "popular"
        return self._lists.mixed(models, in_order, query.limit, choices), path

    def retrieve(self, models: LiveModels, query: Query) -> tuple[Candidates, Path]:
        """Return candidates for a user, popular items when retrieval fails or finds none."""
        asker = stages.read_asker(models, query.user_id, query.time_ms)
        request = self._request(query, asker, query.limit)
        found = self._retrieved(models, query, request)
        if found is None:
            return stages.popular_items(models, request), "popular"
        return _head(found, query), "retrieved"

    def rank(self, models: LiveModels, query: Query, item_ids: tuple[str, ...]) -> Candidates:
        """Return the given items, best first; there is no simpler path, so errors are raised."""
        scores_N = self._scored(models, query, item_ids)
        return stages.best_first(item_ids, scores_N, len(item_ids))

    def _retrieved(
        self, models: LiveModels, query: Query, request: RetrievalRequest
    ) -> Candidates | None:
        """Return at least `query.limit` candidates if the catalog has them; None: use popular."""
        try:
            with self._timed("retrieve"):
                found = stages.find_candidates(models, request)
            self._metrics.candidates.observe(len(found.item_ids))
        except Exception:
            _logger.exception("retrieval failed", extra={"request": request_id.current()})
            return None
        if not found.item_ids:
            _logger.info("nothing retrieved", extra={"request": request_id.current()})
            return None
        try:
            return stages.fill_up(models, found, query.limit, request)
        except Exception:
            _logger.exception("popular items failed", extra={"request": request_id.current()})
            return found

    def _ranked(self, models: LiveModels, query: Query, found: Candidates) -> Candidates | None:
        """Return `found` in the ranker's order; None when it failed or is too late."""
        if not found.item_ids:
            return None
        cancellation.check("ranking")
        needed_s, left_s = self._rank_time.expected_s(), query.deadline.remaining_s()
        if left_s < needed_s:
            self._rank_time.skipped()
            _logger.info(
                "ranking skipped",
                extra={
                    "request": request_id.current(),
                    "left_ms": round(left_s * 1_000, 1),
                    "needed_ms": round(needed_s * 1_000, 1),
                },
            )
            return None
        started_s = self._clock.stopwatch_s()
        try:
            scores_N = self._scored(models, query, found.item_ids)
        except (CallCancelledError, DeadlineExceededError):
            raise  # it waited for others, and nobody waits for it any more
        except Exception:
            _logger.exception("ranking failed", extra={"request": request_id.current()})
            return None
        self._rank_time.observe(self._clock.stopwatch_s() - started_s)
        return stages.best_first(found.item_ids, scores_N, len(found.item_ids))

    def _scored(
        self, models: LiveModels, query: Query, item_ids: tuple[str, ...]
    ) -> NDArray[np.float32]:
        """Return the primary head's probability of each item, float32 (N,)."""
        with self._timed("rank"):
            captured = stages.capture_request(
                models, query.user_id, item_ids, query.time_ms, query.context
            )
            scores = self._batcher.predict(models, captured, query.deadline)
            stages.check_scores(models, scores)
        return self._compensated(models, scores)[:, 0]

    def _compensated(self, models: LiveModels, scores: RankingScores) -> NDArray[np.float32]:
        """Return corrected probabilities; a failing memory costs its correction, not the answer."""
        try:
            with self._timed("compensate"):
                return stages.compensate(models, scores)
        except Exception:
            _logger.exception("memory failed", extra={"request": request_id.current()})
            return scores.probabilities

    def _request(self, query: Query, asker: stages.Asker, limit: int) -> RetrievalRequest:
        """Return the search for candidates that a query asks for."""
        filters = query.filters
        return RetrievalRequest(
            user=asker.view,
            time_ms=query.time_ms,
            limit=limit,
            exclude=filters.deny | asker.seen if filters.exclude_seen else filters.deny,
            allow=filters.allow,
            where=filters.where + self._rules.availability.conditions(query.time_ms),
            context=query.context,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started_s = self._clock.stopwatch_s()
        try:
            with trace.stage(stage):
                yield
        finally:
            seconds = self._clock.stopwatch_s() - started_s
            self._metrics.stage_seconds.labels(stage=stage).observe(seconds)


def _joined(found: Candidates, choices: Mapping[str, int]) -> Candidates:
    """Return candidates with items to choose among behind them; scores are the ranker's to give."""
    if not choices:
        return found
    known = set(found.item_ids)
    more = tuple(item_id for item_id in choices if item_id not in known)
    scores = np.concatenate([found.scores, np.zeros(len(more), np.float32)])
    return Candidates(item_ids=found.item_ids + more, scores=scores)


def _head(found: Candidates, query: Query) -> Candidates:
    return Candidates(item_ids=found.item_ids[: query.limit], scores=found.scores[: query.limit])
