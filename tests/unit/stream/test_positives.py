"""Positive actions: taken in before the store learns of them, kept until the next step."""

from __future__ import annotations

import numpy as np

from domain.events import Feedback, Impression, ShownItem, UserUpdate
from domain.features import FeatureSchema, Field, Head
from domain.state import state_hash
from stream.feature_store import FeatureStore
from stream.positives import PositiveQueue

SCHEMA = FeatureSchema(
    fields=(
        Field(name="segment", entity="user", kind="categorical"),
        Field(name="likes", entity="user", kind="multi"),
    ),
    heads=(
        Head(name="good", feedback_kind="rating", positive_at=4.0),
        Head(name="click", feedback_kind="click"),
    ),
)


def _rated(item_id: str, time_ms: int, value: float = 5.0, kind: str = "rating") -> Feedback:
    return Feedback(
        event_id=f"{kind}-{item_id}-{time_ms}",
        time_ms=time_ms,
        user_id="ann",
        item_id=item_id,
        kind=kind,
        value=value,
    )


def _lead(queue: PositiveQueue, store: FeatureStore, *events: Feedback) -> None:
    for event in events:
        queue.observe(event, store)
        store.observe(event)


def _store() -> FeatureStore:
    store = FeatureStore(SCHEMA)
    features = {"segment": "south", "likes": ("tea", "rain")}
    store.observe(UserUpdate(event_id="ann", time_ms=1, user_id="ann", features=features))
    return store


def test_only_what_makes_the_primary_head_positive_is_kept() -> None:
    queue, store = PositiveQueue(SCHEMA), _store()
    _lead(queue, store, _rated("a", 10, 3.9), _rated("b", 20, 4.0), _rated("c", 30, kind="click"))
    assert [action.item_id for action in queue.take()] == ["b"]


def test_history_of_an_action_ends_before_the_action() -> None:
    queue, store = PositiveQueue(SCHEMA), _store()
    _lead(queue, store, _rated("a", 10), _rated("b", 20), _rated("c", 30))
    seen = [(one.item_id, one.user.history.item_ids, one.time_ms) for one in queue.take()]
    assert seen == [("a", (), 10), ("b", ("a",), 20), ("c", ("a", "b"), 30)]


def test_what_is_taken_is_gone() -> None:
    queue, store = PositiveQueue(SCHEMA), _store()
    _lead(queue, store, _rated("a", 10))
    assert len(queue) == 1
    assert len(queue.take()) == 1
    assert len(queue) == 0
    assert queue.take() == []


def test_waiting_actions_come_back_with_everything_known_of_the_user() -> None:
    queue, store = PositiveQueue(SCHEMA), _store()
    shown = (ShownItem(item_id="z", position=0),)
    store.observe(Impression(event_id="p", time_ms=5, user_id="ann", items=shown))
    _lead(queue, store, _rated("a", 10), _rated("b", 20), _rated("c", 30))
    state = queue.save()
    again = PositiveQueue(SCHEMA)
    again.load(state)
    assert state_hash(again.save()) == state_hash(state)
    assert len(again) == 3
    for ours, theirs in zip(queue.take(), again.take(), strict=True):
        assert (theirs.item_id, theirs.time_ms) == (ours.item_id, ours.time_ms)
        assert theirs.user.user_id == "ann"
        assert theirs.user.features == {"segment": "south", "likes": ("tea", "rain")}
        assert theirs.user.last_impression_ms == 5
        assert theirs.user.session_position == ours.user.session_position == 1
        assert theirs.user.history.item_ids == ours.user.history.item_ids
        for name in ("times_ms", "outcomes"):
            before, after = getattr(ours.user.history, name), getattr(theirs.user.history, name)
            assert after.dtype == np.int64
            assert after.tolist() == before.tolist()


def test_an_empty_queue_comes_back_empty() -> None:
    queue = PositiveQueue(SCHEMA)
    queue.load(PositiveQueue(SCHEMA).save())
    assert len(queue) == 0
