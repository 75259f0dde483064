"""Snapshots that are published but not served, and the way back to one from before."""

from __future__ import annotations

from pathlib import Path

from snapshot.local_store import LocalSnapshotStore
from tests.unit.snapshot.small_snapshots import flip_last_byte, publish


def test_snapshot_that_is_not_promoted_is_there_and_is_not_served(tmp_path: Path) -> None:
    store = LocalSnapshotStore(tmp_path)
    served = publish(store, 1)
    held = publish(store, 2, promote=False)
    assert store.current_id() == served
    assert store.ids() == [served, held]
    third = publish(store, 3)
    assert store.current_id() == third
    assert [one.parent_id for one in store.list()] == [None, served, held]


def test_way_back_leads_to_the_newest_sound_snapshot_from_before(tmp_path: Path) -> None:
    store = LocalSnapshotStore(tmp_path)
    first, second, third, _ = [publish(store, step) for step in (1, 2, 3, 4)]
    flip_last_byte(tmp_path / third / "stream.json")
    assert store.roll_back_before(4_000) == second
    assert store.current_id() == second
    assert store.roll_back_before(2_000) == first


def test_there_may_be_no_way_back(tmp_path: Path) -> None:
    store = LocalSnapshotStore(tmp_path)
    served = publish(store, 1)
    assert store.roll_back_before(1_000) is None
    assert store.current_id() == served
