from __future__ import annotations

import threading

import pytest

from domain.event_log import Record
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from serving.apply_events import apply_records
from serving.landing import Landing
from serving.live_models import LiveModelSlot
from stream.codec import encode
from tests.unit.serving.worlds import SCHEMA, CatalogRetriever, make_models, serving_metrics


class At:
    """A clock that stands."""

    def now_ms(self) -> int:
        return 2_000


@pytest.fixture
def metrics():
    return serving_metrics().freshness


@pytest.fixture
def slot():
    return LiveModelSlot()


@pytest.fixture
def landing(slot, metrics):
    return Landing(slot, At(), 0.5, metrics)


def click(number: int, item_id: str = "i1", *, time_ms: int = 1_900) -> Feedback:
    return Feedback(
        event_id=f"c{number}", time_ms=time_ms, user_id="ann", item_id=item_id, kind="click"
    )


def as_record(event: Event, offset: int = 0) -> Record:
    return Record("events/0", offset, "ann", encode(event))


def seen(models) -> frozenset[str]:
    return models.feature_store.seen("ann")


def times(metrics) -> tuple[float, float]:
    """Sum of the ages observed, and how many were above the target."""
    of_path = {"path": "history"}
    return metrics.seconds.labels(**of_path)._sum.get(), metrics.missed.labels(
        **of_path
    )._value.get()


def test_stored_events_are_in_histories_features_and_catalog_at_once(slot, landing):
    models = make_models()
    slot.swap(models)
    landing.land(
        [
            click(1),
            UserUpdate(event_id="u", time_ms=1, user_id="ann", features={"age": 3.0}),
            ItemUpdate(event_id="n", time_ms=1, item_id="new"),
        ]
    )
    assert seen(models) == {"i1"}
    assert models.feature_store.user_view("ann", 9_999).features == {"age": 3.0}
    assert models.retriever.item_ids[-1] == "new"
    assert models.unsettled.is_set()


def test_shown_lists_are_left_to_the_tail(slot, landing):
    slot.swap(make_models())
    shown = (ShownItem(item_id="i1", position=0),)
    landing.land([Impression(event_id="s", time_ms=1, user_id="ann", items=shown)])
    assert landing.num_pending == 0


def test_an_event_that_the_tail_comes_to_later_has_no_second_effect(slot, landing):
    models = make_models(retriever=CatalogRetriever(["i0", "i5"]))
    slot.swap(models)
    there = ItemUpdate(event_id="a", time_ms=1, item_id="i6")
    gone = ItemUpdate(event_id="b", time_ms=2, item_id="i6", available=False)
    landing.land([there, gone])
    applied = apply_records(models, [as_record(there)])
    assert models.retriever.item_ids == ["i0", "i5"]
    assert (applied.event_ids, applied.times_ms) == (["a"], [])


def test_a_new_bundle_takes_in_what_its_tail_has_not_come_to(slot, landing):
    slot.swap(make_models())
    landing.land([click(1), click(2, "i2")])
    landing.passed(["c1"])
    after = make_models()
    landing.hand_over(after, lambda: slot.swap(after))
    assert slot.current() is after
    assert seen(after) == {"i2"}


def test_what_lands_while_a_new_bundle_is_taken_over_is_in_the_one_that_answers(slot, landing):
    """Many hand-overs beside many landings: whoever is live after `land` has the event."""
    slot.swap(make_models())
    stop = threading.Event()

    def hand_over_again_and_again() -> None:
        while not stop.is_set():
            new = make_models()
            landing.hand_over(new, lambda new=new: slot.swap(new))

    thread = threading.Thread(target=hand_over_again_and_again)
    thread.start()
    missed = []
    for number in range(200):
        landing.land([click(number, f"x{number}")])
        missed.append(f"x{number}" not in seen(slot.current()))
    stop.set()
    thread.join(5)
    assert not any(missed)


def test_before_the_first_bundle_events_wait_for_it(slot, landing):
    landing.land([click(1)])
    models = make_models()
    landing.hand_over(models, lambda: slot.swap(models))
    assert seen(models) == {"i1"}


def test_no_more_than_twenty_thousand_events_wait_for_the_tail(slot, landing):
    landing.land([click(number) for number in range(20_005)])
    assert landing.num_pending == 20_000
    models = make_models()
    landing.hand_over(models, lambda: slot.swap(models))
    assert not models.deduplicator.seen("c4", 1)  # the oldest are left to the tail
    assert models.deduplicator.seen("c5", 1)


def test_the_age_at_which_events_are_seen_is_measured_once_per_event(slot, landing, metrics):
    models = make_models(schema=SCHEMA)
    slot.swap(models)
    landing.land([click(1), click(2, time_ms=1_400)])  # 100 ms and 600 ms old; 500 are promised
    assert times(metrics) == (pytest.approx(0.7), 1.0)
    landing.show(apply_records(models, [as_record(click(1))]))
    assert times(metrics) == (pytest.approx(0.7), 1.0)
