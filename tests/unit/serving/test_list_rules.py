"""Answers under rules: windows, diversity and exploration, from request to impression."""

from __future__ import annotations

import pytest

from domain.clock import ManualClock
from domain.errors import ConfigError
from domain.events import Impression, ItemUpdate
from domain.features import FeatureSchema, Field
from domain.filters import ItemCondition, ItemFilters
from serving.availability import AvailabilityConfig
from serving.diversity import AttributeCap, DiversityConfig
from serving.exploration import ExplorationConfig
from serving.impression_log import ImpressionLog, ImpressionLogConfig
from serving.recommend import Recommender, RecommenderConfig
from stream.codec import decode
from stream.sqlite_log import SqliteLog
from tests.unit.serving.worlds import (
    ITEMS,
    Broken,
    CatalogRetriever,
    count,
    live,
    make_known,
    make_models,
    serving_metrics,
)


class Desk:
    """A recommender with rules, and what it logged."""

    def __init__(self, tmp_path, models, clock=None, **rules) -> None:
        self.log = SqliteLog(tmp_path / "log.sqlite")
        self.impression_log = ImpressionLog(self.log, ImpressionLogConfig())
        self.impression_log.start()
        self.metrics = serving_metrics()
        self.recommender = Recommender(
            live(models),
            clock or ManualClock(1_000_000),
            RecommenderConfig(**rules),
            self.impression_log,
            self.metrics,
        )

    def lists(self) -> list[Impression]:
        records = self.log.read({}, max_records=10_000, timeout_s=0.0)
        return [decode(record.value) for record in records]


@pytest.fixture
def desk(tmp_path):
    desks = []

    def make(models, **rules) -> Desk:
        desks.append(Desk(tmp_path, models, **rules))
        return desks[-1]

    yield make
    for one in desks:
        one.impression_log.stop(5.0)
        one.log.close()


def described_models(retriever=None):
    models = make_models("s1", **({} if retriever is None else {"retriever": retriever}))
    make_known(models, "ann", "i0")
    for item_id in ITEMS:
        tags = ("high",) if int(item_id[1]) > 4 else ("low",)
        models.feature_store.observe(
            ItemUpdate(event_id=item_id, time_ms=1, item_id=item_id, features={"tags": tags})
        )
    return models


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_caps_and_likeness_shape_what_is_shown_and_leave_scores_alone(desk) -> None:
    capped = DiversityConfig(caps=(AttributeCap(feature="tags", at_most=2),))
    answer = desk(described_models(), diversity=capped).recommender.recommend("ann", 5)
    assert ids(answer) == ["i9", "i8", "i4", "i3", "i7"]
    assert [item.score for item in answer.items] == pytest.approx([0.09, 0.08, 0.04, 0.03, 0.07])


def test_likeness_alternates_even_and_odd_numbers(desk) -> None:
    alike = DiversityConfig(mmr_lambda=0.3)
    answer = desk(described_models(), diversity=alike).recommender.recommend("ann", 2)
    assert ids(answer) == ["i9", "i8"]
    first_two_odd = described_models(CatalogRetriever(["i9", "i7", "i6"]))
    answer = desk(first_two_odd, diversity=alike).recommender.recommend("ann", 2)
    assert ids(answer) == ["i9", "i6"]


def test_rules_hold_on_the_simpler_paths_too(desk) -> None:
    capped = DiversityConfig(caps=(AttributeCap(feature="tags", at_most=1),), mmr_lambda=0.9)
    models = described_models(Broken(CatalogRetriever(), "retrieve", "item_vectors"))
    answer = desk(models, diversity=capped).recommender.recommend("ann", 3)
    assert (ids(answer), answer.path) == (["i1", "i5", "i2"], "popular")


def test_explored_items_come_from_those_shown_least_and_chances_are_logged(desk) -> None:
    # Two items come last, so they are the newest; and the ranker thinks nothing of a 0.
    retriever = CatalogRetriever()
    models = described_models(retriever)
    for item_id in ("new-0", "newer-0"):
        retriever.observe_item(ItemUpdate(event_id=item_id, time_ms=2, item_id=item_id))
        update = ItemUpdate(event_id=item_id, time_ms=2, item_id=item_id, features={"tags": ()})
        models.feature_store.observe(update)
    one = desk(
        models,
        num_candidates=5,
        exploration=ExplorationConfig(share=0.5, first_position=2, choices=1, seed=5),
    )
    answers = [one.recommender.recommend("ann", 4) for _ in range(40)]
    explored = 0
    for answer, impression in zip(answers, one.lists(), strict=True):
        assert [item.item_id for item in impression.items] == ids(answer)
        assert all(0.0 < item.probability <= 1.0 for item in impression.items)
        assert [item.probability for item in impression.items[:2]] == [1.0, 1.0]
        assert ids(answer)[:2] == ["i5", "i4"]
        drawn = [item for item in impression.items if item.item_id.startswith("new")]
        assert [item.probability for item in drawn] == [0.5] * len(drawn)
        explored += len(drawn)
    assert explored == pytest.approx(40, abs=16)  # 80 places, each given away by half
    assert count(one.metrics.explored_items) == explored


def test_exploration_keeps_the_filters_of_the_request(desk) -> None:
    one = desk(
        described_models(), exploration=ExplorationConfig(share=1.0, first_position=0, choices=3)
    )
    for _ in range(20):
        answer = one.recommender.recommend(
            "ann", 3, filters=ItemFilters(exclude_seen=True, deny=frozenset({"i9", "i4"}))
        )
        assert not {"i0", "i9", "i4"} & set(ids(answer))
        only = ItemFilters(allow=frozenset({"i2", "i3", "i5"}))
        assert sorted(ids(one.recommender.recommend("ann", 3, filters=only))) == ["i2", "i3", "i5"]


def test_nothing_is_explored_in_need(desk) -> None:
    exploring = ExplorationConfig(share=1.0, first_position=0)
    models = make_models("s1", ranker=Broken())
    make_known(models, "ann", "i0")
    one = desk(models, exploration=exploring)
    answer = one.recommender.recommend("ann", 3)
    assert (ids(answer), answer.path) == (["i1", "i2", "i3"], "retrieved")
    assert [item.probability for item in one.lists()[0].items] == [1.0] * 3


class Searched(CatalogRetriever):
    """Keeps the conditions it was asked with."""

    def popular(self, request):
        self.requests.append(request)
        return super().popular(request)


def test_windows_become_conditions_of_every_search(desk) -> None:
    window = AvailabilityConfig(from_feature="from_ms", until_feature="until_ms")
    retriever = Searched()
    one = desk(described_models(retriever), availability=window)
    mine = ItemCondition(feature="tags", one_of=frozenset({"low"}))
    one.recommender.retrieve("ann", 3, filters=ItemFilters(where=(mine,)))
    one.recommender.recommend("ann", 3)
    one.recommender.recommend("a stranger", 3)
    for request in retriever.requests:
        shown = {
            (begin, end): all(
                condition.met_by({"from_ms": begin, "until_ms": end})
                for condition in request.where
                if condition is not mine
            )
            for begin in (999_999.0, 1_000_000.0, 1_000_000.5)
            for end in (1_000_000.0, 1_000_001.0)
        }
        assert [window for window, is_shown in shown.items() if is_shown] == [
            (999_999.0, 1_000_001.0),
            (1_000_000.0, 1_000_001.0),
        ]
        assert all(one.met_by({}) for one in request.where if one is not mine)
    assert mine in retriever.requests[0].where
    assert len(retriever.requests) == 3


def test_window_must_be_numeric_fields_of_items_and_two_of_them() -> None:
    schema = FeatureSchema(
        fields=(
            Field(name="from_ms", entity="item", kind="numeric"),
            Field(name="tags", entity="item", kind="multi"),
        )
    )
    AvailabilityConfig(from_feature="from_ms").check(schema)
    with pytest.raises(
        ConfigError, match=r"availability.until_feature must name .*\(from_ms\), got 'tags'"
    ):
        AvailabilityConfig(until_feature="tags").check(schema)
    with pytest.raises(ConfigError, match="until_feature must name another feature"):
        AvailabilityConfig(from_feature="a", until_feature="a")
