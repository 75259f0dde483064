"""Popular by segment: own counts where there are enough, everybody's where there are not."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import ConfigError, SnapshotError
from domain.events import Features, ItemUpdate
from domain.examples import PositiveAction
from domain.features import FeatureSchema, Field
from domain.requests import RetrievalRequest, UserView
from domain.state import state_hash
from domain.state_reading import StateReader
from retrieval.id_rows import IdRows
from retrieval.segments import SegmentPopularity, SegmentsConfig

HOUR_MS = 3_600_000
SCHEMA = FeatureSchema(
    fields=(
        Field(name="country", entity="user", kind="categorical"),
        Field(name="tab", entity="context", kind="categorical"),
        Field(name="age", entity="user", kind="numeric"),
    )
)
COUNTRY = SegmentsConfig(features=("user.country",), half_life_ms=HOUR_MS, prior_actions=4.0)


def action(item: str, time_ms: int = 0, country: str | None = "at", **context) -> PositiveAction:
    features: Features = {} if country is None else {"country": country}
    return PositiveAction(UserView("u", features=features), item, time_ms, context)


def scores(segments: SegmentPopularity, user: Features, time_ms: int, *items: str) -> list[float]:
    """Return the popularity of items of which each is as popular as the average elsewhere."""
    ids = IdRows()
    for item in items:
        ids.admit(item)
    everywhere_N = np.ones(len(items), np.float32)
    key = segments.key_of(user, {})
    return segments.blended(everywhere_N, key, time_ms, ids, len(items)).tolist()


def test_counts_of_a_segment_are_weighed_against_those_of_all() -> None:
    # Four actions on a, against a prior of four: a has (4 * 2 + 4) / 8 of the average, b 4 / 8.
    segments = SegmentPopularity(COUNTRY)
    segments.learn([action("a")] * 4)
    assert scores(segments, {"country": "at"}, 0, "a", "b") == [1.5, 0.5]
    assert scores(segments, {"country": "de"}, 0, "a", "b") == [1.0, 1.0]
    assert scores(segments, {}, 0, "a", "b") == [1.0, 1.0]


def test_what_a_silent_segment_knew_fades() -> None:
    segments = SegmentPopularity(COUNTRY)
    segments.learn([action("a")] * 4)
    # Two half-lives later one action is left of four: (1 * 2 + 4) / 5 and 4 / 5.
    assert scores(segments, {"country": "at"}, 2 * HOUR_MS, "a", "b") == pytest.approx([1.2, 0.8])


def test_counting_for_years_changes_nothing_but_the_origin() -> None:
    late_ms = 3_000 * HOUR_MS
    early, late = SegmentPopularity(COUNTRY), SegmentPopularity(COUNTRY)
    early.learn([action("a", 0), action("b", HOUR_MS)])
    late.learn([action("x", 0)])
    late.learn([action("a", late_ms), action("b", late_ms + HOUR_MS)])
    at = {"country": "at"}
    assert scores(late, at, late_ms + HOUR_MS, "a", "b") == pytest.approx(
        scores(early, at, HOUR_MS, "a", "b")
    )


def test_segment_is_all_its_features_together() -> None:
    config = SegmentsConfig(features=("user.country", "context.tab"))
    assert config.key({"country": "at"}, {"tab": "home"}) == '["at", "home"]'
    assert config.key({"country": "at"}, {}) is None
    assert SegmentsConfig().key({"country": "at"}, {"tab": "home"}) is None


def test_memory_is_bounded_and_the_strongest_stay() -> None:
    segments = SegmentPopularity(
        SegmentsConfig(features=("user.country",), max_segments=3, max_items=5)
    )
    for k in range(40):
        segments.learn([action("hit", k), action(f"once-{k}", k)])
    for k in range(20):
        segments.learn([action("x", 40 + k, country=f"c{k}")])
    assert len(segments) == 3
    state = segments.save()
    assert state["keys"][0] == '["at"]'
    assert state["lengths"].max() <= 10
    assert "hit" in state["items"]


def stream(num: int) -> list[PositiveAction]:
    rng = np.random.default_rng(1)
    return [
        action(f"i{rng.zipf(1.5) % 30}", step * HOUR_MS // 4, country=f"c{rng.integers(6)}")
        for step in range(num)
    ]


def test_saved_and_restored_counts_go_on_alike() -> None:
    config = SegmentsConfig(features=("user.country",), half_life_ms=HOUR_MS, max_items=4)
    whole, actions = SegmentPopularity(config), stream(4_000)
    for first in range(0, 4_000, 250):
        restored = SegmentPopularity(config)
        restored.load(whole.save())
        for one in (whole, restored):
            one.learn(actions[first : first + 250])
        assert state_hash(restored.save()) == state_hash(whole.save())
        whole = restored


def test_twin_that_applies_deltas_has_the_same_counts() -> None:
    config = SegmentsConfig(
        features=("user.country",), half_life_ms=HOUR_MS, max_items=4, max_segments=4
    )
    trainer, twin = SegmentPopularity(config), SegmentPopularity(config)
    actions = stream(4_000)
    sizes = []
    for first in range(0, 4_000, 10):
        trainer.learn(actions[first : first + 10])
        delta = trainer.take_delta()
        sizes.append(len(delta["items"]))
        twin.apply_delta(twin.read_delta(StateReader(delta, "segments")))
        ours, theirs = twin.save(), trainer.save()
        assert ours["keys"] == theirs["keys"]
        assert ours["totals"].tolist() == theirs["totals"].tolist()
        for state in (ours, theirs):
            ends = np.cumsum(state["lengths"]).tolist()
            state["by_segment"] = [
                dict(
                    zip(state["items"][end - n : end], state["counts"][end - n : end], strict=True)
                )
                for end, n in zip(ends, state["lengths"].tolist(), strict=True)
            ]
        assert ours["by_segment"] == theirs["by_segment"]
    assert np.median(sizes) <= 20
    assert trainer.take_delta()["changed"] == []


def test_delta_that_does_not_fit_is_refused() -> None:
    segments = SegmentPopularity(COUNTRY)
    segments.learn([action("a")])
    delta = segments.take_delta() | {"keys": []}
    with pytest.raises(SnapshotError, match="changes of segments that there are"):
        segments.read_delta(StateReader(delta, "segments"))


def test_newcomers_get_what_is_popular_in_their_segment(small_model) -> None:
    model = small_model(SCHEMA, segments=COUNTRY)
    for item in ("everywhere", "austrian", "nobody's"):
        model.observe_item(ItemUpdate(event_id=item, time_ms=0, item_id=item))
    crowd = [action("everywhere", k, country="de") for k in range(60)]
    model.learn([*crowd, *(action("austrian", k) for k in range(20))])

    def popular(country: str | None, **filters) -> tuple[str, ...]:
        features: Features = {} if country is None else {"country": country}
        user = UserView("new", features=features)
        return model.popular(RetrievalRequest(user, 100, 3, **filters)).item_ids

    assert popular(None) == ("everywhere", "austrian", "nobody's")
    assert popular("unheard of") == popular(None) == popular("de")
    assert popular("at") == ("austrian", "everywhere", "nobody's")
    assert popular("at", exclude=frozenset({"austrian"})) == ("everywhere", "nobody's")
    twin = small_model(SCHEMA, segments=COUNTRY)
    twin.load(model.save())
    request = RetrievalRequest(UserView("new", features={"country": "at"}), 100, 3)
    np.testing.assert_array_equal(twin.popular(request).scores, model.popular(request).scores)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SegmentsConfig(features=("country",)), "features must be named as"),
        (lambda: SegmentsConfig(max_items=0), "max_items must be positive, got 0"),
        (
            lambda: SegmentsConfig(features=("user.age",)).check(SCHEMA),
            "features must be categorical fields of users or contexts "
            "(user.country, context.tab), got 'user.age'",
        ),
    ],
)
def test_wrong_settings_are_named(make, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(f"retrieval.segments.{message}")
