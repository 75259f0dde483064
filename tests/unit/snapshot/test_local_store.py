"""Publishing, finding, checking, promoting, rolling back and pruning snapshots."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import (
    ConfigError,
    SnapshotDamagedError,
    SnapshotError,
    SnapshotNotFoundError,
)
from domain.state import state_hash
from snapshot import disk
from snapshot.local_store import LocalSnapshotStore, SnapshotConfig
from tests.unit.snapshot.small_snapshots import (
    flip_last_byte,
    publish,
    states_at,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalSnapshotStore:
    return LocalSnapshotStore(tmp_path / "snapshots", SnapshotConfig(keep=3))


def test_config_keeps_at_least_one() -> None:
    with pytest.raises(ConfigError, match=r"^snapshot\.keep must be at least 1, got 0"):
        SnapshotConfig(keep=0)


def test_store_is_empty_and_touches_nothing_when_nothing_was_published(
    store: LocalSnapshotStore, tmp_path: Path
) -> None:
    assert store.current_id() is None
    assert store.latest_id() is None
    assert store.ids() == store.list() == []
    assert store.load_newest_good() == (None, [])
    for look in (store.load, store.load_current, store.verify, store.rollback, store.size_bytes):
        with pytest.raises(SnapshotNotFoundError, match="there is no current snapshot"):
            look()
    with pytest.raises(SnapshotNotFoundError, match="there is no latest snapshot"):
        store.load("latest")
    assert [*tmp_path.iterdir()] == []


def test_load_returns_what_was_published(store: LocalSnapshotStore) -> None:
    snapshot_id = publish(store, 7)
    for snapshot in (store.load(), store.load_current(), store.load(snapshot_id)):
        manifest = snapshot.manifest
        assert manifest.snapshot_id == snapshot_id
        assert (manifest.step, manifest.event_time_ms) == (7, 7_000)
        assert manifest.positions == {"events/0": 70}
        assert manifest.schema_hash == "abc"
        assert manifest.extra == {"events": 7}
        assert manifest.parent_id is None
        assert {name: state_hash(state) for name, state in snapshot.states.items()} == {
            name: state_hash(state) for name, state in states_at(7).items()
        }


def test_load_reads_only_the_components_asked_for(
    store: LocalSnapshotStore, tmp_path: Path
) -> None:
    snapshot_id = publish(store, 1)
    flip_last_byte(tmp_path / "snapshots" / snapshot_id / "ranking.safetensors")
    assert store.load(components=["stream"]).states == {"stream": {"ids": ["u1", "u0"]}}
    with pytest.raises(SnapshotDamagedError):
        store.load(components=["ranking", "stream"])
    with pytest.raises(SnapshotNotFoundError, match="no state 'memory'; it has ranking, stream"):
        store.load(components=["memory"])


def test_size_is_that_of_all_files(store: LocalSnapshotStore, tmp_path: Path) -> None:
    snapshot_id = publish(store, 1)
    files = [*(tmp_path / "snapshots" / snapshot_id).iterdir()]
    expected = sum(path.stat().st_size for path in files if path.name != "manifest.json")
    assert store.size_bytes() == store.size_bytes(snapshot_id) == expected > 0


def test_oldest_are_pruned_when_there_are_more_than_are_kept(store: LocalSnapshotStore) -> None:
    ids = [publish(store, step) for step in range(6)]
    assert store.ids() == ids[3:]
    assert [manifest.step for manifest in store.list()] == [3, 4, 5]
    assert store.current_id() == store.latest_id() == ids[5]
    assert store.load().manifest.parent_id == ids[4]
    with pytest.raises(SnapshotNotFoundError, match=f"no snapshot '{ids[0]}'; there are: {ids[3]}"):
        store.load(ids[0])


def test_the_current_snapshot_is_never_pruned(
    store: LocalSnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator promotes the oldest between the trainer's phases 4 and 5."""
    ids = [publish(store, step) for step in range(3)]
    prune = store._prune

    def promote_first(*args: Any) -> None:
        LocalSnapshotStore(store._folder.root).promote(ids[0])
        prune(*args)

    monkeypatch.setattr(store, "_prune", promote_first)
    newest = publish(store, 3)
    assert store.current_id() == ids[0]
    assert store.ids() == [ids[0], ids[1], ids[2], newest]
    assert store.verify() == []


def test_promote_makes_an_older_snapshot_current(store: LocalSnapshotStore) -> None:
    ids = [publish(store, step) for step in range(3)]
    store.promote(ids[0])
    assert store.current_id() == ids[0]
    assert store.latest_id() == ids[2]
    assert store.load_current().manifest.step == 0
    store.promote("latest")
    assert store.current_id() == ids[2]


@pytest.mark.parametrize("unknown", ["000000000009-0123456789ab", "..", "", "nonsense"])
def test_promote_refuses_when_there_is_no_such_snapshot(
    store: LocalSnapshotStore, unknown: str
) -> None:
    snapshot_id = publish(store, 1)
    with pytest.raises(SnapshotNotFoundError, match="no snapshot"):
        store.promote(unknown)
    assert store.current_id() == snapshot_id


def test_rollback_goes_one_back_each_time_until_there_is_nothing_older(
    store: LocalSnapshotStore,
) -> None:
    ids = [publish(store, step) for step in range(3)]
    assert store.rollback() == ids[1] == store.current_id()
    assert store.rollback() == ids[0] == store.current_id()
    with pytest.raises(SnapshotNotFoundError, match=f"nothing is older than {ids[0]}"):
        store.rollback()
    assert store.current_id() == ids[0]


def test_training_goes_on_from_where_it_was_rolled_back_to(store: LocalSnapshotStore) -> None:
    """20 and 30 are abandoned: they do not come back on a restart and do not push out the old."""
    ids = [publish(store, step) for step in (10, 20, 30)]
    store.rollback()
    store.rollback()
    snapshot, passed_over = store.load_newest_good()
    assert snapshot is not None
    assert (snapshot.manifest.step, passed_over) == (10, [])
    next_id = publish(store, 15)
    assert store.load().manifest.parent_id == ids[0]
    assert store.ids() == [ids[0], next_id, ids[1]]
    assert publish(store, 17) == store.current_id()
    assert [manifest.step for manifest in store.list()] == [10, 15, 17]


def test_the_same_content_at_the_same_step_is_one_snapshot(store: LocalSnapshotStore) -> None:
    first = publish(store, 1)
    assert publish(store, 1) == first
    assert store.ids() == [first]
    assert publish(store, 1, positions={"events/0": 99}) != first
    assert len(store.ids()) == 2


def test_only_one_store_can_be_the_writer(store: LocalSnapshotStore, tmp_path: Path) -> None:
    publish(store, 1)
    other = LocalSnapshotStore(tmp_path / "snapshots")
    with pytest.raises(SnapshotError, match="another writer publishes snapshots here"):
        publish(other, 2)
    assert other.load().manifest.step == 1, "reading needs no turn"
    store.close()
    store.close()
    assert publish(other, 2) == store.current_id()
    with pytest.raises(SnapshotError, match="another writer"):
        publish(store, 3)


def test_the_writer_s_place_is_free_when_the_store_is_gone(tmp_path: Path) -> None:
    publish(LocalSnapshotStore(tmp_path), 1)
    publish(LocalSnapshotStore(tmp_path), 2)
    assert len(LocalSnapshotStore(tmp_path).ids()) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -1}, "step must be an int from 0 to"),
        ({"step": 10**12}, "step must be an int from 0 to"),
        ({"step": np.int64(3)}, "step must be an int from 0 to"),
        ({"positions": {"events/0": np.int64(3)}}, "positions, event time or extra are not JSON"),
        ({"positions": {"events/0": -1}}, r"manifest\.positions: expected offsets by partition"),
        ({"event_time_ms": 1.5}, r"manifest\.event_time_ms: expected an integer, got 1\.5"),
        ({"extra": {"x": float("nan")}}, "positions, event time or extra are not JSON"),
        ({"extra": {"x": object()}}, "positions, event time or extra are not JSON"),
        ({"states": {"a": {"x": float("nan")}}}, r"a\.x: JSON has no nan"),
        ({"states": {"../a": {}}}, "component names must be"),
    ],
)
def test_publish_refuses_and_leaves_nothing_when_its_input_makes_no_sense(
    store: LocalSnapshotStore, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    first = publish(store, 1)
    with pytest.raises(SnapshotError, match=message):
        publish(store, changes.pop("step", 2), **changes)
    assert store.ids() == [first]
    assert store.current_id() == first
    assert not (tmp_path / "snapshots" / ".writing").exists()
    assert publish(store, 3) == store.current_id()


def test_a_tuple_in_extra_comes_back_as_a_list(store: LocalSnapshotStore) -> None:
    publish(store, 1, extra={"grid": (0.0, 0.5)})
    assert store.load().manifest.extra == {"grid": [0.0, 0.5]}
    assert store.verify() == []


@pytest.mark.parametrize("refused", ["sync", "replace_text", "sha256_of"])
def test_publish_names_the_path_and_cleans_up_when_the_disk_is_full(
    store: LocalSnapshotStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    first = publish(store, 1)

    def no_space(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(disk, refused, no_space)
        with pytest.raises(SnapshotError, match=rf"{tmp_path}/snapshots/.*: No space left"):
            publish(store, 2)
    assert store.current_id() == first
    assert store.load().manifest.step == 1
    assert not (tmp_path / "snapshots" / ".writing").exists()
    assert publish(store, 2) == store.current_id()


def test_publish_says_so_and_goes_on_when_only_pruning_is_refused(
    store: LocalSnapshotStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [publish(store, step) for step in range(3)]

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(store._folder, "hide", refuse)
        newest = publish(store, 3)
    assert store.current_id() == newest
    assert store.ids() == [*ids, newest]
    assert [record.message for record in caplog.records] == ["snapshots not pruned"]


def test_the_root_is_named_when_it_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SnapshotError, match=r"file/snapshots: Not a directory"):
        publish(LocalSnapshotStore(tmp_path / "file" / "snapshots"), 1)


def test_load_current_reads_the_next_one_when_the_first_is_pruned_under_its_hands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LocalSnapshotStore(tmp_path, SnapshotConfig(keep=1))
    reader = LocalSnapshotStore(tmp_path)
    publish(writer, 1)
    read_content = reader._folder.content
    overtaken = iter([True, False])

    def overtake(*args: Any) -> bytes:
        if next(overtaken, False):
            publish(writer, 2)
        return read_content(*args)

    monkeypatch.setattr(reader._folder, "content", overtake)
    assert reader.load_current().manifest.step == 2


def test_load_says_pruned_and_not_damaged_when_the_snapshot_is_pruned_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LocalSnapshotStore(tmp_path, SnapshotConfig(keep=1))
    reader = LocalSnapshotStore(tmp_path)
    publish(writer, 0)
    steps = iter(range(1, 100))
    read_content = reader._folder.content

    def overtake(*args: Any) -> bytes:
        publish(writer, next(steps))
        return read_content(*args)

    monkeypatch.setattr(reader._folder, "content", overtake)
    with pytest.raises(SnapshotNotFoundError, match="was pruned while it was being read"):
        reader.load()
    with pytest.raises(SnapshotNotFoundError, match="was pruned while it was being read"):
        reader.load_current()
    assert next(steps) == 12, "one try of load and ten of load_current"
