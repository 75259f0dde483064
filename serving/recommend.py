"""The request path, free of transport: Recommend, Retrieve and Rank.

Here a request is validated, let in or refused, answered from one bundle of models, and its shown
list logged. `answer` has the stages in between and the ways round them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from domain.clock import Clock
from domain.errors import ConfigError, HeadraceError, OverloadedError
from domain.events import Features, Impression, ShownItem
from domain.filters import ItemFilters
from domain.recommendations import Path, Recommendation, ScoredItem
from domain.requests import Candidates
from monitoring.metrics import ServingMetrics
from serving import request_id, trace, validate
from serving.admission import Admission, Deadline, answerable_s
from serving.answer import AnswerMaker, AnswerRules, Query
from serving.availability import AvailabilityConfig
from serving.diversity import DiversityConfig
from serving.exploration import ExplorationConfig
from serving.impression_log import ImpressionLog
from serving.live_models import LiveModels, LiveModelSlot
from serving.shown_list import ShownList

_logger = logging.getLogger(__name__)

_ALL = ItemFilters()
_UNSEEN = ItemFilters(exclude_seen=True)
_NUMBERS = (
    "num_candidates",
    "default_limit",
    "max_limit",
    "default_retrieve_limit",
    "max_retrieve_limit",
    "max_rank_items",
    "rank_budget_ms",
    "default_deadline_ms",
    "batch_wait_ms",
    "max_concurrency",
    "max_waiting",
    "log_timeout_ms",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommenderConfig:
    """Sizes, times and bounds of the request path.

    Attributes:
        num_candidates: how many items retrieval hands to the ranker.
        default_limit: items in an answer when the caller does not say.
        max_limit: most items Recommend gives.
        default_retrieve_limit: as `default_limit`, for Retrieve.
        max_retrieve_limit: most items Retrieve gives.
        max_rank_items: most items Rank takes.
        rank_budget_ms: what ranking is thought to take before the first one was timed; when less
            than the running estimate is left before the deadline, retrieval's order answers.
        default_deadline_ms: deadline of a caller that set none.
        batch_wait_ms: longest that a ranking waits for the one before it, to be computed together
            with others that wait; then it is computed alone. 0 computes each alone, side by side.
        max_concurrency: requests that use the models at the same time.
        max_waiting: further requests that may wait for their turn; more are refused at once.
        wait_for_log: whether an answer waits until its impression is durable. When not, a crash
            can lose impressions that were shown.
        log_timeout_ms: longest wait for that; then the answer goes out without an impression id.
        availability: from when and until when items may be in an answer.
        diversity: how unlike the items of a list are to be.
        exploration: how much of a list is given to items shown least.
    """

    num_candidates: int = 200
    default_limit: int = 10
    max_limit: int = 500
    default_retrieve_limit: int = 100
    max_retrieve_limit: int = 5_000
    max_rank_items: int = 5_000
    rank_budget_ms: int = 20
    default_deadline_ms: int = 2_000
    batch_wait_ms: int = 100
    max_concurrency: int = 8
    max_waiting: int = 12
    wait_for_log: bool = True
    log_timeout_ms: int = 500
    availability: AvailabilityConfig = field(default_factory=AvailabilityConfig)
    diversity: DiversityConfig = field(default_factory=DiversityConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            least = 0 if name in ("max_waiting", "batch_wait_ms") else 1
            if getattr(self, name) < least:
                raise ConfigError(
                    f"recommender.{name} must be at least {least}, got {getattr(self, name)}"
                )
        for name, most in (
            ("default_limit", self.max_limit),
            ("default_retrieve_limit", self.max_retrieve_limit),
        ):
            if getattr(self, name) > most:
                raise ConfigError(
                    f"recommender.{name} must be at most {most}, got {getattr(self, name)}"
                )


class Recommender:
    """Answers requests from whatever bundle of models is live when they arrive."""

    def __init__(
        self,
        slot: LiveModelSlot,
        clock: Clock,
        config: RecommenderConfig,
        impression_log: ImpressionLog,
        metrics: ServingMetrics,
    ) -> None:
        self._slot = slot
        self._clock = clock
        self._config = config
        self._impression_log = impression_log
        self._metrics = metrics
        self._admission = Admission(config.max_concurrency, config.max_waiting)
        rules = AnswerRules(
            num_candidates=config.num_candidates,
            batch_wait_s=config.batch_wait_ms / 1_000,
            availability=config.availability,
            diversity=config.diversity,
            exploration=config.exploration,
        )
        self._answers = AnswerMaker(clock, rules, config.rank_budget_ms / 1_000, metrics)

    @property
    def capacity(self) -> int:
        """Return how many requests are let in at once; the next one is refused."""
        return self._admission.capacity

    def recommend(
        self,
        user_id: str,
        limit: int = 0,
        context: Features | None = None,
        deadline_s: float | None = None,
        *,
        filters: ItemFilters = _UNSEEN,
    ) -> Recommendation:
        """Return the best items for a user now, and log them as shown.

        Args:
            user_id: who asks; need not be known.
            limit: how many items, 0 for the configured default.
            context: features of the moment, as the schema declares them.
            deadline_s: seconds until the caller gives up, None when it did not say.
            filters: what may be in the answer; left out, it is what she has not acted on yet.

        Raises:
            InvalidRequestError: an argument is out of range; names it.
            NotReadyError: no snapshot is live yet.
            OverloadedError: too many requests are waiting.
            DeadlineExceededError: nothing could be answered in time.
        """
        most, default = self._config.max_limit, self._config.default_limit
        limit = validate.check_limit(limit, default=default, most=most)
        with self._admitted(deadline_s) as (models, deadline):
            query = self._query(models, user_id, limit, context, deadline, filters)
            with self._turn(deadline):
                shown, path = self._answers.recommend(models, query)
            deadline.check("an answer was ready")
            self._metrics.answers.labels(path=path).inc()
            impression_id = self._log_impression(models, query, shown)
            return self._answer(models, shown.items, path, impression_id)

    def retrieve(
        self,
        user_id: str,
        limit: int = 0,
        *,
        context: Features | None = None,
        filters: ItemFilters = _ALL,
        deadline_s: float | None = None,
    ) -> Recommendation:
        """Return candidates for a user; nothing is logged.

        Left out, `filters` let everything through, items she has seen included.

        Raises:
            As `recommend`.
        """
        most, default = self._config.max_retrieve_limit, self._config.default_retrieve_limit
        limit = validate.check_limit(limit, default=default, most=most)
        with self._admitted(deadline_s) as (models, deadline):
            query = self._query(models, user_id, limit, context, deadline, filters)
            with self._turn(deadline):
                items, path = self._answers.retrieve(models, query)
            deadline.check("an answer was ready")
            return self._answer(models, items, path)

    def rank(
        self,
        user_id: str,
        item_ids: Sequence[str],
        context: Features | None = None,
        deadline_s: float | None = None,
    ) -> Recommendation:
        """Return the given items ordered for a user; nothing is logged.

        Raises:
            As `recommend`; and whatever the ranker raises, because nothing can stand in for it.
        """
        validate.check_item_ids(item_ids, self._config.max_rank_items)
        with self._admitted(deadline_s) as (models, deadline):
            query = self._query(models, user_id, len(item_ids), context, deadline, _ALL)
            with self._turn(deadline):
                items = self._answers.rank(models, query, tuple(item_ids))
            deadline.check("an answer was ready")
            return self._answer(models, items, "ranked")

    @contextmanager
    def _admitted(self, deadline_s: float | None) -> Iterator[tuple[LiveModels, Deadline]]:
        """Let a request in and give it the one bundle it will use."""
        if deadline_s is None:
            deadline_s = self._config.default_deadline_ms / 1_000
        deadline = Deadline(self._clock, deadline_s)
        models = self._slot.current()
        try:
            with self._admission.enter(), self._metrics.in_flight.track_inprogress():
                yield models, deadline
        except OverloadedError:
            self._metrics.refused.inc()
            raise

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        began_s = self._clock.stopwatch_s()
        with ExitStack() as held:
            with trace.stage("turn"):
                held.enter_context(self._admission.turn(deadline))
            waited_s = self._clock.stopwatch_s() - began_s
            self._metrics.queue_seconds.labels(place="turn").observe(waited_s)
            deadline.check("work on it began")
            yield

    def _query(
        self,
        models: LiveModels,
        user_id: str,
        limit: int,
        context: Features | None,
        deadline: Deadline,
        filters: ItemFilters,
    ) -> Query:
        validate.check_id("user_id", user_id)
        validate.check_features(models.schema, "context", context or {}, "context")
        validate.check_filters(models.schema, filters)
        return Query(
            user_id=user_id,
            time_ms=self._clock.now_ms(),
            limit=limit,
            context=context or {},
            deadline=deadline,
            filters=filters,
        )

    def _answer(
        self, models: LiveModels, items: Candidates, path: Path, impression_id: str = ""
    ) -> Recommendation:
        scores = items.scores.tolist()
        return Recommendation(
            items=tuple(
                ScoredItem(item_id=item_id, score=score)
                for item_id, score in zip(items.item_ids, scores, strict=True)
            ),
            snapshot_id=models.snapshot_id,
            path=path,
            impression_id=impression_id,
            age_ms=max(self._clock.now_ms() - models.event_time_ms, 0),
        )

    def _log_impression(self, models: LiveModels, query: Query, shown: ShownList) -> str:
        """Log a shown list; return its event id, "" when it could not be logged in time."""
        item_ids, scores = shown.items.item_ids, shown.items.scores.tolist()
        if not item_ids:
            return ""
        places = enumerate(zip(item_ids, scores, shown.probabilities, strict=True))
        impression = Impression(
            event_id=request_id.impression_id(),
            time_ms=query.time_ms,
            user_id=query.user_id,
            items=tuple(
                ShownItem(item_id=item_id, position=position, score=score, probability=chance)
                for position, (item_id, score, chance) in places
            ),
            context=query.context,
            snapshot_id=models.snapshot_id,
        )
        started_s = self._clock.stopwatch_s()
        try:
            with trace.stage("log"):
                self._store(impression, query.deadline)
        except HeadraceError as error:
            self._metrics.impression_log_failures.inc()
            _logger.warning(
                "impression not logged",
                extra={"request": request_id.current(), "error": str(error)},
            )
            return ""
        finally:
            seconds = self._clock.stopwatch_s() - started_s
            self._metrics.stage_seconds.labels(stage="log").observe(seconds)
        self._metrics.impressions_logged.inc()
        return impression.event_id

    def _store(self, impression: Impression, deadline: Deadline) -> None:
        if not self._config.wait_for_log:
            self._impression_log.submit([impression])
            return
        left_s = answerable_s(deadline.remaining_s())
        timeout_s = min(self._config.log_timeout_ms / 1_000, left_s)
        self._impression_log.write([impression], timeout_s)
