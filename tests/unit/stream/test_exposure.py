"""Which items nobody knows anything about: counts, groups, and what is kept of them."""

from __future__ import annotations

import numpy as np

from domain.events import Impression, ItemUpdate, ShownItem
from domain.features import FeatureSchema
from domain.state import state_hash
from stream.exposure import ItemExposure
from stream.feature_store import FeatureStore


def exposure_of(*item_ids: str, enough: int = 3, max_items: int = 100) -> ItemExposure:
    exposure = ItemExposure(enough=enough, max_items=max_items)
    for item_id in item_ids:
        exposure.observe_item(item_id, available=True)
    return exposure


def test_least_shown_come_first_and_the_newest_of_them() -> None:
    exposure = exposure_of("a", "b", "c", "d")
    exposure.observe_shown(["a", "c", "c"])
    assert exposure.least_shown(10) == [("d", 0), ("b", 0), ("a", 1), ("c", 2)]
    assert exposure.least_shown(2) == [("d", 0), ("b", 0)]
    assert exposure.least_shown(0) == []


def test_item_shown_often_enough_is_never_found_again() -> None:
    exposure = exposure_of("a", "b")
    exposure.observe_shown(["a"] * 9)
    exposure.observe_item("a", available=True)
    assert exposure.least_shown(10) == [("b", 0)]


def test_item_known_from_lists_only_is_found_too() -> None:
    exposure = exposure_of()
    exposure.observe_shown(["x"])
    assert exposure.least_shown(5) == [("x", 1)]


def test_item_taken_out_is_not_found_until_it_comes_back_with_its_count() -> None:
    exposure = exposure_of("a", "b")
    exposure.observe_shown(["a"])
    exposure.observe_item("a", available=False)
    exposure.observe_shown(["a"])
    assert exposure.least_shown(5) == [("b", 0)]
    exposure.observe_item("a", available=True)
    assert exposure.least_shown(5) == [("b", 0), ("a", 2)]
    exposure.observe_item("never heard of", available=False)
    assert len(exposure) == 2


def test_memory_is_bounded_by_forgetting_those_counted_for_longest() -> None:
    exposure = exposure_of(*(f"i{k}" for k in range(1_000)), max_items=10)
    assert len(exposure) == 10
    assert exposure.least_shown(99) == [(f"i{k}", 0) for k in range(999, 989, -1)]


def test_counts_equal_those_of_a_plain_count_through_save_and_load() -> None:
    rng = np.random.default_rng(0)
    exposure, shown = (
        exposure_of(*(f"i{k}" for k in range(20)), enough=5),
        dict.fromkeys(range(20), 0),
    )
    for _ in range(60):
        item = int(rng.integers(20))
        exposure.observe_shown([f"i{item}"])
        shown[item] += 1
        restored = exposure_of(enough=5)
        restored.load(exposure.save())
        assert restored.least_shown(99) == exposure.least_shown(99)
        assert state_hash(restored.save()) == state_hash(exposure.save())
        exposure = restored
    expected = {f"i{k}": times for k, times in shown.items() if times < 5}
    assert dict(exposure.least_shown(99)) == expected


def test_feature_store_counts_what_lists_show() -> None:
    store = FeatureStore(FeatureSchema())
    for item_id in ("old", "new"):
        store.observe(ItemUpdate(event_id=item_id, time_ms=0, item_id=item_id))
    shown = (ShownItem(item_id="old", position=0),)
    store.observe(Impression(event_id="l", time_ms=1, user_id="u", items=shown))
    assert store.least_shown(5) == [("new", 0), ("old", 1)]
    restored = FeatureStore(FeatureSchema())
    restored.load(store.save())
    assert restored.least_shown(5) == [("new", 0), ("old", 1)]
