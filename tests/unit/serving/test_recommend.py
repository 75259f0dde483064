from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest

from domain.clock import ManualClock
from domain.errors import (
    ConfigError,
    DeadlineExceededError,
    InvalidRequestError,
    LogUnavailableError,
    NotReadyError,
    OverloadedError,
)
from domain.events import Impression, ShownItem, UserUpdate
from domain.filters import ItemFilters
from serving.impression_log import ImpressionLog, ImpressionLogConfig
from serving.live_models import LiveModelSlot
from serving.recommend import Recommender, RecommenderConfig
from stream.codec import decode
from stream.sqlite_log import SqliteLog
from tests.unit.serving.worlds import (
    CLOCK,
    Broken,
    CatalogRetriever,
    NanRanker,
    NumberRanker,
    ShiftMemory,
    SlowRanker,
    count,
    live,
    make_known,
    make_models,
    serving_metrics,
)


class Desk:
    """A recommender over one bundle, with a real log behind it."""

    def __init__(self, tmp_path, models=None, clock=CLOCK, **config) -> None:
        self.models = models
        self.log = SqliteLog(tmp_path / "log.sqlite")
        self.impression_log = ImpressionLog(self.log, ImpressionLogConfig())
        self.impression_log.start()
        self.metrics = serving_metrics()
        self.recommender = Recommender(
            LiveModelSlot() if models is None else live(models),
            clock,
            RecommenderConfig(**config),
            self.impression_log,
            self.metrics,
        )
        self.recommend = self.recommender.recommend

    def logged(self) -> list[Impression]:
        records = self.log.read({}, max_records=100, timeout_s=0.0)
        return [decode(record.value) for record in records]

    def close(self) -> None:
        self.impression_log.stop(5.0)
        self.log.close()


@pytest.fixture
def desk(tmp_path):
    desks = []

    def make(models=None, **config) -> Desk:
        desks.append(Desk(tmp_path, models, **config))
        return desks[-1]

    yield make
    for one in desks:
        one.close()


def known_models(**parts):
    models = make_models("s1", **parts)
    make_known(models, "ann", "i0")
    return models


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_recommend_ranks_what_retrieval_found_without_seen_items(desk):
    answer = desk(known_models()).recommend("ann", 3)
    assert ids(answer) == ["i9", "i8", "i7"]
    assert [item.score for item in answer.items] == pytest.approx([0.09, 0.08, 0.07])
    assert answer.path == "ranked"
    assert answer.snapshot_id == "s1"
    assert ids(desk(known_models()).recommend("ann", 500)) == [f"i{n}" for n in range(9, 0, -1)]


def test_recommend_hands_the_configured_number_of_candidates_to_the_ranker(desk):
    answer = desk(known_models(), num_candidates=4).recommend("ann", 2)
    assert ids(answer) == ["i4", "i3"]


def test_recommend_corrects_scores_by_the_memory(desk):
    class Favourite(ShiftMemory):
        def compensate(self, hidden_ND, base_NH):
            corrected = base_NH.copy()
            corrected[hidden_ND[:, 0] == 3, 0] = 0.99
            return corrected

    assert ids(desk(known_models(memory=Favourite())).recommend("ann", 2)) == ["i3", "i9"]


def test_recommend_uses_retrieval_order_when_the_ranker_fails(desk, caplog):
    one = desk(known_models(ranker=Broken()))
    answer = one.recommend("ann", 3)
    assert (ids(answer), answer.path) == (["i1", "i2", "i3"], "retrieved")
    assert count(one.metrics.answers, path="retrieved") == 1
    assert 'event="ranking failed" request=-' in caplog.text
    assert "capture is broken" in caplog.text


def test_recommend_uses_retrieval_order_when_scores_are_not_finite(desk, caplog):
    answer = desk(known_models(ranker=NanRanker())).recommend("ann", 1)
    assert (ids(answer), answer.path) == (["i1"], "retrieved")
    assert "not finite" in caplog.text


def test_recommend_uses_retrieval_order_when_there_is_no_time_to_rank(desk):
    one = desk(known_models(), rank_budget_ms=5_000)
    answer = one.recommend("ann", 2, deadline_s=1.0)
    assert (ids(answer), answer.path) == (["i1", "i2"], "retrieved")
    assert one.models.ranker.captured == []
    assert one.recommend("ann", 2, deadline_s=60.0).path == "ranked"


def test_recommend_learns_how_long_ranking_takes(desk):
    clock = ManualClock(1_000_000)
    ranker = SlowRanker(lambda: clock.sleep(0.3))
    one = desk(known_models(ranker=ranker), clock=clock, rank_budget_ms=10)
    assert one.recommend("ann", 1, deadline_s=0.5).path == "ranked"
    for _ in range(12):
        one.recommend("ann", 1, deadline_s=60.0)
    assert one.recommend("ann", 1, deadline_s=0.2).path == "retrieved"


def test_recommend_ranks_again_some_time_after_a_slow_spell(desk):
    clock = ManualClock(1_000_000)
    seconds = [2.0]
    ranker = SlowRanker(lambda: clock.sleep(seconds.pop() if seconds else 0.0))
    one = desk(known_models(ranker=ranker), clock=clock)
    assert one.recommend("ann", 1, deadline_s=60.0).path == "ranked"
    assert one.recommend("ann", 1, deadline_s=0.2).path == "retrieved"
    paths = [one.recommend("ann", 1, deadline_s=0.2).path for _ in range(80)]
    assert paths[-1] == "ranked"


def test_recommend_keeps_ranked_scores_when_only_the_memory_fails(desk, caplog):
    answer = desk(known_models(memory=Broken())).recommend("ann", 2)
    assert (ids(answer), answer.path) == (["i9", "i8"], "ranked")
    assert 'event="memory failed"' in caplog.text


def test_recommend_uses_popular_items_when_retrieval_fails(desk, caplog):
    one = desk(known_models(retriever=Broken(CatalogRetriever(), "retrieve")))
    answer = one.recommend("ann", 2)
    assert (ids(answer), answer.path) == (["i1", "i2"], "popular")
    assert count(one.metrics.answers, path="popular") == 1
    assert 'event="retrieval failed"' in caplog.text


def test_recommend_uses_popular_items_when_retrieval_finds_nothing(desk):
    class Blind(CatalogRetriever):
        def retrieve(self, request):
            return self._first(replace(request, limit=0))

    answer = desk(known_models(retriever=Blind())).recommend("ann", 2)
    assert (ids(answer), answer.path) == (["i1", "i2"], "popular")


def test_recommend_fills_up_with_popular_items_when_too_few_were_found(desk, caplog):
    class Shy(CatalogRetriever):
        def retrieve(self, request):
            return self._first(replace(request, limit=2))

    answer = desk(known_models(retriever=Shy())).recommend("ann", 4)
    assert (ids(answer), answer.path) == (["i4", "i3", "i2", "i1"], "ranked")
    unranked = desk(known_models(retriever=Shy(), ranker=Broken())).recommend("ann", 4)
    assert ids(unranked) == ["i1", "i2", "i3", "i4"]
    assert [item.score for item in unranked.items] == [-1.0, -2.0, -2.0, -2.0]
    no_popular = Broken(Shy(), "popular")
    assert ids(desk(known_models(retriever=no_popular)).recommend("ann", 4)) == ["i2", "i1"]
    assert 'event="popular items failed"' in caplog.text


def test_recommend_ranks_popular_items_for_an_unknown_user(desk):
    one = desk(make_models(retriever=Broken(CatalogRetriever(), "retrieve")))
    answer = one.recommend("stranger", 2)
    assert (ids(answer), answer.path) == (["i9", "i8"], "cold_start")


def test_recommend_knows_a_user_by_her_features_alone(desk):
    models = make_models()
    models.feature_store.observe(
        UserUpdate(event_id="e", time_ms=1, user_id="bob", features={"age": 30.0})
    )
    assert desk(models).recommend("bob", 1).path == "ranked"


def test_recommend_gives_popular_order_to_an_unknown_user_when_the_ranker_fails(desk, caplog):
    answer = desk(make_models(ranker=Broken())).recommend("stranger", 2)
    assert (ids(answer), answer.path) == (["i0", "i1"], "popular")


def test_recommend_answers_empty_and_logs_nothing_when_the_catalog_is_empty(desk):
    one = desk(make_models(retriever=CatalogRetriever(())))
    answer = one.recommend("stranger")
    assert (answer.items, answer.path, answer.impression_id) == ((), "popular", "")
    assert one.logged() == []


def test_recommend_logs_exactly_what_it_answered(desk):
    one = desk(known_models(), clock=ManualClock(5_000))
    answer = one.recommend("ann", 2, {"tab": "home", "hour": 7.0})
    assert one.logged() == [
        Impression(
            event_id=answer.impression_id,
            time_ms=5_000,
            user_id="ann",
            items=tuple(
                ShownItem(item_id=item.item_id, position=position, score=item.score)
                for position, item in enumerate(answer.items)
            ),
            context={"hour": 7.0, "tab": "home"},
            snapshot_id="s1",
        )
    ]
    assert count(one.metrics.impressions_logged) == 1


def test_recommend_answers_without_an_impression_id_when_the_log_fails(desk, caplog):
    class Unavailable:
        def append(self, events) -> None:
            raise LogUnavailableError("no broker answers")

    one = desk(known_models())
    one.impression_log._log = Unavailable()
    answer = one.recommend("ann", 2)
    assert (ids(answer), answer.impression_id) == (["i9", "i8"], "")
    assert count(one.metrics.impression_log_failures) == 1
    assert 'event="impression not logged"' in caplog.text


def test_recommend_does_not_wait_for_the_log_when_told_not_to(desk):
    gate = threading.Event()

    class Stuck:
        def __init__(self, log) -> None:
            self.log = log

        def append(self, events) -> None:
            gate.wait(5)
            self.log.append(events)

    one = desk(known_models(), wait_for_log=False)
    one.impression_log._log = Stuck(one.log)
    answer = one.recommend("ann", 1)
    assert answer.impression_id
    gate.set()
    one.impression_log.stop(5.0)
    assert [event.event_id for event in one.logged()] == [answer.impression_id]


def test_recommend_asks_with_the_moment_of_the_request_and_its_context(desk):
    one = desk(known_models(), clock=ManualClock(5_000))
    one.recommend("ann", 1, {"tab": "home"})
    (request,) = one.models.ranker.captured
    assert request.time_ms == 5_000
    assert request.context == {"tab": "home"}
    assert request.user.history.item_ids == ("i0",)


def test_recommend_tells_the_age_of_its_models(desk):
    one = desk(make_models(event_time_ms=3_000), clock=ManualClock(5_000))
    assert one.recommend("ann").age_ms == 2_000
    assert (
        desk(make_models(event_time_ms=9_000), clock=ManualClock(5_000)).recommend("a").age_ms == 0
    )


@pytest.mark.parametrize(
    ("user_id", "limit", "context", "field"),
    [
        ("", 1, {}, "user_id"),
        ("u" * 513, 1, {}, "user_id"),
        ("ann", -1, {}, "limit"),
        ("ann", 501, {}, "limit"),
        ("ann", 1, {"tub": "home"}, "context.tub"),
        ("ann", 1, {"tab": 3.0}, "context.tab"),
        ("ann", 1, {"age": 3.0}, "context.age"),
    ],
)
def test_recommend_refuses_a_malformed_request_and_names_the_field(
    desk, user_id, limit, context, field
):
    one = desk(known_models())
    with pytest.raises(InvalidRequestError) as caught:
        one.recommend(user_id, limit, context)
    assert caught.value.field == field
    assert one.logged() == []


def test_recommend_takes_limit_0_for_the_default(desk):
    assert len(desk(known_models(), default_limit=4).recommend("ann").items) == 4


def test_recommend_is_not_ready_before_a_snapshot_is_live(desk):
    with pytest.raises(NotReadyError, match="no snapshot is live"):
        desk().recommend("ann")


def test_recommend_refuses_late_callers_before_and_after_the_work(desk):
    one = desk(known_models())
    with pytest.raises(DeadlineExceededError, match="deadline passed"):
        one.recommend("ann", deadline_s=0.0)
    clock = ManualClock(1_000_000)
    slow = desk(known_models(ranker=SlowRanker(lambda: clock.sleep(0.2))), clock=clock)
    with pytest.raises(DeadlineExceededError, match="before an answer was ready"):
        slow.recommend("ann", deadline_s=0.1)
    assert slow.logged() == []  # nobody was shown it


def test_recommend_refuses_early_when_too_many_are_waiting(desk):
    gate, entered = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        gate.wait(5)

    one = desk(known_models(ranker=SlowRanker(wait)), max_concurrency=1, max_waiting=1)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(one.recommend("ann", deadline_s=5.0)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    entered.wait(5)
    while count(one.metrics.in_flight) < 2:
        pass
    with pytest.raises(OverloadedError):
        one.recommend("bob")
    assert count(one.metrics.refused) == 1
    gate.set()
    for thread in threads:
        thread.join(5)
    assert len(answers) == 2
    assert count(one.metrics.in_flight) == 0


def test_retrieve_leaves_out_seen_items_only_when_asked(desk):
    recommender = desk(known_models()).recommender
    everything = recommender.retrieve("ann", 2)
    assert (ids(everything), everything.path) == (["i0", "i1"], "retrieved")
    unseen = recommender.retrieve("ann", 2, filters=ItemFilters(exclude_seen=True))
    assert ids(unseen) == ["i1", "i2"]


def test_retrieve_gives_popular_items_when_retrieval_fails_and_logs_no_impression(desk):
    one = desk(known_models(retriever=Broken(CatalogRetriever(), "retrieve")))
    answer = one.recommender.retrieve("ann", 2)
    assert (ids(answer), answer.path) == (["i0", "i1"], "popular")
    assert one.logged() == []


def test_rank_orders_exactly_the_given_items_and_logs_no_impression(desk):
    one = desk(known_models(memory=ShiftMemory(0.5)))
    answer = one.recommender.rank("ann", ["i2", "x77", "i5"], {"tab": "home"})
    assert ids(answer) == ["x77", "i5", "i2"]
    assert [item.score for item in answer.items] == pytest.approx([1.27, 0.55, 0.52])
    assert (answer.path, answer.impression_id, one.logged()) == ("ranked", "", [])


def test_rank_raises_what_the_ranker_raises(desk):
    with pytest.raises(RuntimeError, match="broken"):
        desk(known_models(ranker=Broken())).recommender.rank("ann", ["i1"])


@pytest.mark.parametrize(
    ("item_ids", "field"),
    [
        ([], "item_ids"),
        (["i1"] * 4, "item_ids"),
        (["i1", "i2", "i1"], "item_ids[2]"),
        (["i1", ""], "item_ids[1]"),
    ],
)
def test_rank_refuses_malformed_lists_and_names_the_entry(desk, item_ids, field):
    with pytest.raises(InvalidRequestError) as caught:
        desk(known_models(), max_rank_items=3).recommender.rank("ann", item_ids)
    assert caught.value.field == field


def test_recommend_keeps_order_of_equal_scores(desk):
    answer = desk(known_models(ranker=NumberRanker(scale=0.0))).recommend("ann", 3)
    assert ids(answer) == ["i1", "i2", "i3"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_candidates": 0}, "recommender.num_candidates must be at least 1, got 0"),
        ({"max_waiting": -1}, "recommender.max_waiting must be at least 0, got -1"),
        ({"default_limit": 600}, "recommender.default_limit must be at most 500, got 600"),
    ],
)
def test_recommender_config_names_the_key_that_is_out_of_range(setting, message):
    with pytest.raises(ConfigError, match=message):
        RecommenderConfig(**setting)


@pytest.fixture(autouse=True)
def _info(caplog):
    caplog.set_level(logging.INFO)
