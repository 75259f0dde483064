"""The moment of an action: its own, or that of the list it answers."""

from __future__ import annotations

from domain.events import Feedback, Impression, ShownItem
from domain.features import FeatureSchema, Field
from stream import positives
from stream.feature_store import FeatureStore
from stream.positives import PositiveQueue

SCHEMA = FeatureSchema(fields=(Field(name="tab", entity="context", kind="categorical"),))


def shown(impression_id: str, tab: str) -> Impression:
    items = (ShownItem(item_id="i", position=0),)
    return Impression(
        event_id=impression_id, time_ms=0, user_id="u", items=items, context={"tab": tab}
    )


def click(impression_id: str | None, **context: str) -> Feedback:
    return Feedback(
        event_id="c",
        time_ms=1,
        user_id="u",
        item_id="i",
        kind="click",
        impression_id=impression_id,
        context=context,
    )


def test_action_has_its_own_context_or_that_of_its_list() -> None:
    queue, store = PositiveQueue(SCHEMA), FeatureStore(SCHEMA)
    queue.observe_shown(shown("l1", "home"))
    for feedback in (click("l1"), click("l1", tab="search"), click("unknown"), click(None)):
        queue.observe(feedback, store)
    restored = PositiveQueue(SCHEMA)
    restored.load(queue.save())
    for one in (queue, restored):
        assert [dict(action.context) for action in one.take()] == [
            {"tab": "home"},
            {"tab": "search"},
            {},
            {},
        ]
        one.observe(click("l1"), store)
        assert [dict(action.context) for action in one.take()] == [{"tab": "home"}]


def test_lists_shown_long_ago_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(positives, "_REMEMBERED", 2)
    queue, store = PositiveQueue(SCHEMA), FeatureStore(SCHEMA)
    for number in range(3):
        queue.observe_shown(shown(f"l{number}", "home"))
    queue.observe(click("l0"), store)
    queue.observe(click("l2"), store)
    assert [dict(action.context) for action in queue.take()] == [{}, {"tab": "home"}]
