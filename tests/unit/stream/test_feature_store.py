from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ConfigError, SchemaError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from domain.features import FeatureSchema, Field, Head
from domain.requests import UserView
from domain.state import state_hash
from stream.feature_store import FeatureStore, FeatureStoreConfig

SCHEMA = FeatureSchema(
    fields=(
        Field(name="country", entity="user", kind="categorical"),
        Field(name="age", entity="user", kind="numeric"),
        Field(name="tags", entity="item", kind="multi"),
        Field(name="image", entity="item", kind="dense", size=2),
        Field(name="page", entity="context", kind="categorical"),
        Field(name="depth", entity="context", kind="numeric"),
    ),
    heads=(
        Head(name="click", feedback_kind="click"),
        Head(name="good", feedback_kind="rating", positive_at=4.0),
    ),
)


def _shown(event_id: str, time_ms: int, user_id: str = "ann", **context: Any) -> Impression:
    items = tuple(ShownItem(item_id=item, position=at) for at, item in enumerate("abc"))
    return Impression(
        event_id=event_id, time_ms=time_ms, user_id=user_id, items=items, context=context
    )


def _done(
    item_id: str, time_ms: int, kind: str = "click", value: float = 1.0, **more: Any
) -> Feedback:
    return Feedback(
        event_id=f"{item_id}{time_ms}{kind}",
        time_ms=time_ms,
        user_id=more.pop("user_id", "ann"),
        item_id=item_id,
        kind=kind,
        value=value,
        **more,
    )


def _user(time_ms: int, user_id: str = "ann", **features: Any) -> UserUpdate:
    return UserUpdate(event_id=f"u{time_ms}", time_ms=time_ms, user_id=user_id, features=features)


def _item(item_id: str, time_ms: int, **features: Any) -> ItemUpdate:
    return ItemUpdate(
        event_id=f"i{item_id}{time_ms}", time_ms=time_ms, item_id=item_id, features=features
    )


def _store(*events: Event, **config: int) -> FeatureStore:
    store = FeatureStore(SCHEMA, FeatureStoreConfig(**config))
    for event in events:
        store.observe(event)
    return store


def _plain(view: UserView) -> dict[str, Any]:
    history = view.history
    return {
        "items": history.item_ids,
        "times_ms": history.times_ms.tolist(),
        "outcomes": history.outcomes.tolist(),
        "features": dict(view.features),
        "last_impression_ms": view.last_impression_ms,
        "session_position": view.session_position,
    }


def test_request_holds_what_was_known_before_it() -> None:
    store = _store(
        _user(1, country="at", age=33),
        _item("a", 1, tags=("x", "y"), image=(1, 2)),
        _shown("p", 100),
        _done("b", 120, impression_id="p"),
        _done("c", 130, kind="rating", value=3.0),
    )
    request = store.request("ann", ["a", "z"], 200, {"page": "home", "depth": 2})
    assert request.item_ids == ("a", "z")
    assert request.item_features == ({"tags": ("x", "y"), "image": (1.0, 2.0)}, {})
    assert request.context == {"page": "home", "depth": 2.0}
    assert request.time_ms == 200
    assert _plain(request.user) == {
        "items": ("b", "c"),
        "times_ms": [100, 130],
        "outcomes": [0b01, 0b00],
        "features": {"country": "at", "age": 33.0},
        "last_impression_ms": 100,
        "session_position": 1,
    }


def test_integers_become_floats_when_they_stand_for_numbers() -> None:
    store = _store(_user(1, age=33), _item("a", 1, image=(1, 2)))
    assert isinstance(store.user_view("ann", 2).features["age"], float)
    assert [type(x) for x in store.item_features("a")["image"]] == [float, float]  # type: ignore
    assert isinstance(store.request("ann", "a", 2, {"depth": 1}).context["depth"], float)


def test_unknown_user_and_item_have_empty_views() -> None:
    store = _store()
    view = store.user_view("nobody", 5)
    assert _plain(view) == {
        "items": (),
        "times_ms": [],
        "outcomes": [],
        "features": {},
        "last_impression_ms": None,
        "session_position": 0,
    }
    assert store.item_features("nothing") == {}
    assert store.seen("nobody") == frozenset()
    assert store.save()["user_ids"] == []  # asking does not make a user


def test_positive_is_at_or_above_the_threshold_of_its_head() -> None:
    store = _store(_done("a", 1, kind="rating", value=4.0), _done("b", 2, kind="rating", value=3.9))
    assert store.user_view("ann", 9).history.outcomes.tolist() == [0b10, 0b00]


def test_kind_without_a_head_does_not_enter_the_history() -> None:
    store = _store(_done("a", 1, kind="share"))
    assert len(store.user_view("ann", 9).history) == 0
    assert store.seen("ann") == frozenset()


def test_session_ends_when_the_gap_is_exceeded() -> None:
    store = _store(_shown("p", 1_000), _shown("q", 1_500), session_gap_ms=1_000)
    assert store.user_view("ann", 2_500).session_position == 2
    assert store.user_view("ann", 2_501).session_position == 0
    assert store.user_view("ann", 2_501).last_impression_ms == 1_500


def test_seen_holds_positives_and_organic_actions_longer_than_the_history() -> None:
    store = _store(
        _done("a", 1),
        _done("b", 2, kind="rating", value=1.0),
        _done("c", 3, value=0.0, impression_id="p"),
        _done("d", 4, impression_id="p"),
        history_length=2,
        seen_length=3,
    )
    assert store.seen("ann") == {"a", "b", "d"}
    assert store.user_view("ann", 9).history.item_ids == ("c", "d")
    store.observe(_done("e", 5))
    assert store.seen("ann") == {"b", "d", "e"}


def test_item_acted_on_again_stays_seen_longer() -> None:
    store = _store(_done("a", 1), _done("b", 2), _done("a", 3), history_length=2, seen_length=2)
    store.observe(_done("c", 4))
    assert store.seen("ann") == {"a", "c"}


def test_view_is_not_changed_by_later_events() -> None:
    store = _store(_user(1, country="at"), _item("a", 1, tags=("x",)), _done("a", 5))
    request = store.request("ann", ["a"], 9, {})
    before = _plain(request.user), dict(request.item_features[0])
    for event in (_user(7, country="de"), _item("a", 7, tags=("y",)), _done("b", 6)):
        store.observe(event)
    assert (_plain(request.user), dict(request.item_features[0])) == before


def test_features_given_are_copied() -> None:
    features = {"country": "at"}
    store = _store(UserUpdate(event_id="u", time_ms=1, user_id="ann", features=features))
    features["country"] = "de"
    view = store.user_view("ann", 5)
    assert view.features == {"country": "at"}
    with pytest.raises(TypeError):
        view.features["country"] = "fr"  # type: ignore[index]


def test_older_update_does_not_replace_a_newer_one() -> None:
    store = _store(_user(5, country="at"), _user(4, country="de"))
    assert store.user_view("ann", 9).features == {"country": "at"}
    store = _store(_item("a", 5, tags=("new",)), _item("a", 4, tags=("old",)))
    assert store.item_features("a") == {"tags": ("new",)}


def test_label_of_the_future_is_not_in_a_view_of_the_past() -> None:
    store = _store(_shown("p", 100), _done("a", 500, impression_id="p"), _shown("q", 600))
    view = store.user_view("ann", 499)
    assert len(view.history) == 0
    assert view.last_impression_ms == 100


@pytest.mark.parametrize(
    ("event", "where"),
    [
        (_shown("p", 1, page=3), "impression.context.page: expected categorical, got 3"),
        (_done("a", 1, context={"nope": 1.0}), "feedback.context.nope: no such context field"),
        (_user(1, age="old"), "user_update.features.age: expected numeric, got 'old'"),
        (_item("a", 1, image=(1.0,)), "item_update.features.image: expected dense"),
    ],
)
def test_feature_that_does_not_fit_is_refused_before_anything_changes(
    event: Event, where: str
) -> None:
    store = _store(_done("b", 1))
    before = state_hash(store.save())
    for verb in (store.check, store.observe):
        with pytest.raises(SchemaError, match=where):
            verb(event)
    assert state_hash(store.save()) == before


def test_context_of_a_request_is_checked() -> None:
    with pytest.raises(SchemaError, match=r"request\.context\.page: expected categorical"):
        _store().request("ann", ["a"], 1, {"page": 1.0})


def test_least_recently_active_user_is_dropped_when_there_are_too_many() -> None:
    store = _store(
        _done("a", 10, user_id="ann"),
        _done("a", 20, user_id="bob"),
        _done("b", 30, user_id="ann"),
        _done("b", 5, user_id="ann"),  # came late: she was active at 30 all the same
        _done("a", 40, user_id="cat"),
        max_users=2,
    )
    assert store.evicted_users == 1
    assert [len(store.user_view(user, 99).history) for user in ("ann", "bob", "cat")] == [3, 0, 1]


def test_least_recently_updated_item_is_dropped_and_counted() -> None:
    store = _store(
        _item("a", 1, tags=("x",)),
        _item("b", 2, tags=("x",)),
        _item("a", 3, tags=("x",)),
        _item("c", 4, tags=("x",)),
        max_items=2,
    )
    assert store.evicted_items == 1
    assert [bool(store.item_features(item)) for item in "abc"] == [True, False, True]


EVENTS = st.lists(
    st.one_of(
        st.builds(
            _shown, st.sampled_from("pqr"), st.integers(0, 50), st.sampled_from(["ann", "bob"])
        ),
        st.builds(
            lambda item, time_ms, kind, value, user, imp: _done(
                item, time_ms, kind, value, user_id=user, impression_id=imp
            ),
            st.sampled_from("abcdef"),
            st.integers(0, 50),
            st.sampled_from(["click", "rating", "share"]),
            st.sampled_from([0.0, 1.0, 4.0]),
            st.sampled_from(["ann", "bob", "cat"]),
            st.sampled_from([None, "p", "q"]),
        ),
        st.builds(
            lambda time_ms, user, given: _user(time_ms, user, **given),
            st.integers(0, 50),
            st.sampled_from(["ann", "bob", "dan"]),
            st.sampled_from([{}, {"age": 3}, {"country": "at", "age": 1.5}]),
        ),
        st.builds(
            lambda item, time_ms, given: _item(item, time_ms, **given),
            st.sampled_from("abcd"),
            st.integers(0, 50),
            st.sampled_from([{}, {"tags": ()}, {"tags": ("x", "y"), "image": (0.5, 2)}]),
        ),
    ),
    max_size=25,
)


@given(events=EVENTS, cut=st.integers(0, 25))
def test_store_continues_exactly_when_loaded(events: list[Event], cut: int) -> None:
    config = {"max_users": 2, "max_items": 2, "history_length": 3, "seen_length": 3}
    whole = _store(*events, **config)
    state = _store(*events[:cut], **config).save()
    resumed = FeatureStore(SCHEMA, FeatureStoreConfig(**config))
    resumed.load(_through_files(state))
    assert state_hash(resumed.save()) == state_hash(state)
    for event in events[cut:]:
        resumed.observe(event)
    assert state_hash(resumed.save()) == state_hash(whole.save())
    for user_id in ("ann", "bob", "cat", "dan"):
        one, two = whole.user_view(user_id, 40), resumed.user_view(user_id, 40)
        assert _plain(one) == _plain(two)
        assert whole.seen(user_id) == resumed.seen(user_id)
    for item_id in "abcd":
        assert whole.item_features(item_id) == resumed.item_features(item_id)


def _through_files(node: Any) -> Any:
    """Return a state as a snapshot gives it back: arrays as they are, the rest through JSON."""
    if isinstance(node, dict):
        return {key: _through_files(value) for key, value in node.items()}
    return node.copy() if isinstance(node, np.ndarray) else json.loads(json.dumps(node))


@pytest.mark.parametrize(
    "name", ["max_users", "max_items", "history_length", "shown_length", "session_gap_ms"]
)
def test_config_names_the_key_when_not_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^feature_store\.{name} must be positive, got 0"):
        FeatureStoreConfig(**{name: 0})


def test_config_refuses_a_seen_list_shorter_than_the_history() -> None:
    with pytest.raises(ConfigError, match=r"^feature_store\.seen_length must be at least"):
        FeatureStoreConfig(history_length=64, seen_length=63)
