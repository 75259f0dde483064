"""Users and items are announced once, right before they are first needed."""

from __future__ import annotations

from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from replay.announce import announced


def shown(time_ms: int, user: str, *items: str) -> Impression:
    members = tuple(ShownItem(item_id=name, position=k) for k, name in enumerate(items))
    return Impression(event_id=f"e{time_ms}", time_ms=time_ms, user_id=user, items=members)


def test_announced_puts_updates_before_the_first_event_that_names_them() -> None:
    click = Feedback(event_id="e3", time_ms=3, user_id="u2", item_id="b", kind="click")
    events: list[Event] = [shown(1, "u1", "a", "b"), shown(2, "u1", "a"), click]
    out = list(
        announced(
            events, "set", item_features=lambda item: {"name": item}, user_features=lambda user: {}
        )
    )
    assert out == [
        UserUpdate(event_id="set-user-u1", time_ms=1, user_id="u1"),
        ItemUpdate(event_id="set-item-a", time_ms=1, item_id="a", features={"name": "a"}),
        ItemUpdate(event_id="set-item-b", time_ms=1, item_id="b", features={"name": "b"}),
        events[0],
        events[1],
        UserUpdate(event_id="set-user-u2", time_ms=3, user_id="u2"),
        click,
    ]


def test_announced_leaves_users_out_when_nothing_is_known_of_them() -> None:
    out = list(announced([shown(1, "u1", "a")], "set", item_features=lambda item: {}))
    assert [type(event).__name__ for event in out] == ["ItemUpdate", "Impression"]
