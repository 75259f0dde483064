"""Damage is found, named and passed over."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from domain.errors import (
    SnapshotDamagedError,
    SnapshotError,
    SnapshotNotFoundError,
)
from snapshot.local_store import LocalSnapshotStore, SnapshotConfig
from tests.unit.snapshot.small_snapshots import (
    DAMAGES,
    damage_by_flipping,
    damage_by_removing,
    flip_last_byte,
    publish,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalSnapshotStore:
    return LocalSnapshotStore(tmp_path / "snapshots", SnapshotConfig(keep=3))


def test_promote_refuses_when_the_snapshot_is_damaged(
    store: LocalSnapshotStore, tmp_path: Path
) -> None:
    first, second = publish(store, 1), publish(store, 2)
    flip_last_byte(tmp_path / "snapshots" / first / "stream.json")
    with pytest.raises(SnapshotDamagedError, match=r"stream\.json: expected SHA-256"):
        store.promote(first)
    with pytest.raises(SnapshotDamagedError):
        store.rollback()
    assert store.current_id() == second


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_and_the_one_before_is_used(
    store: LocalSnapshotStore, tmp_path: Path, damage: Any
) -> None:
    good, bad = publish(store, 1), publish(store, 2)
    expected = damage(tmp_path / "snapshots" / bad)
    problems = store.verify(bad)
    assert len(problems) == 1
    assert expected in problems[0]
    with pytest.raises(SnapshotDamagedError) as caught:
        store.load()
    assert str(caught.value) == problems[0]
    snapshot, passed_over = store.load_newest_good()
    assert snapshot is not None
    assert snapshot.manifest.snapshot_id == good
    assert passed_over == problems
    assert good in [manifest.snapshot_id for manifest in store.list()]


def test_verify_names_every_damaged_file(store: LocalSnapshotStore, tmp_path: Path) -> None:
    snapshot_id = publish(store, 1)
    folder = tmp_path / "snapshots" / snapshot_id
    damage_by_flipping(folder)
    damage_by_removing(folder)
    problems = store.verify()
    assert [Path(problem.split(":")[0]).name for problem in problems] == [
        "ranking.safetensors",
        "stream.json",
    ]


def test_nothing_is_returned_when_all_snapshots_are_damaged(
    store: LocalSnapshotStore, tmp_path: Path
) -> None:
    ids = [publish(store, step) for step in (1, 2)]
    for snapshot_id in ids:
        damage_by_flipping(tmp_path / "snapshots" / snapshot_id)
    snapshot, passed_over = store.load_newest_good()
    assert snapshot is None
    assert [ids[1] in passed_over[0], ids[0] in passed_over[1]] == [True, True]


def test_newer_ones_are_tried_last_when_everything_up_to_current_is_damaged(
    store: LocalSnapshotStore, tmp_path: Path
) -> None:
    ids = [publish(store, step) for step in (1, 2, 3)]
    store.promote(ids[0])
    damage_by_flipping(tmp_path / "snapshots" / ids[0])
    snapshot, passed_over = store.load_newest_good()
    assert snapshot is not None
    assert snapshot.manifest.step == 2
    assert len(passed_over) == 1


@pytest.mark.parametrize("content", [b"", b"../../etc", b"\xff\xfe", b"000000000001"])
def test_a_damaged_pointer_is_named_and_mended_by_the_next_publish(
    store: LocalSnapshotStore, tmp_path: Path, content: bytes
) -> None:
    publish(store, 1)
    (tmp_path / "snapshots" / "CURRENT").write_bytes(content)
    with pytest.raises(SnapshotDamagedError, match="CURRENT: expected a snapshot id, got "):
        store.load()
    snapshot, passed_over = store.load_newest_good()
    assert snapshot is not None
    assert (snapshot.manifest.step, passed_over) == (1, [])
    assert publish(store, 2) == store.current_id()


def test_a_pointer_to_nothing_is_not_found(store: LocalSnapshotStore, tmp_path: Path) -> None:
    first, second = publish(store, 1), publish(store, 2)
    shutil.rmtree(tmp_path / "snapshots" / second)
    with pytest.raises(SnapshotNotFoundError, match=f"no snapshot '{second}'; there are: {first}"):
        store.load_current()
    snapshot, _ = store.load_newest_good()
    assert snapshot is not None
    assert snapshot.manifest.snapshot_id == first


def test_a_damaged_snapshot_is_replaced_when_the_same_is_published_again(
    store: LocalSnapshotStore, tmp_path: Path
) -> None:
    """What a trainer does that passed it over, resumed from the one before and came by again."""
    publish(store, 1)
    damaged = publish(store, 2)
    damage_by_flipping(tmp_path / "snapshots" / damaged)
    store.load_newest_good()
    assert publish(store, 2) == damaged
    assert store.verify(damaged) == []
    assert [path.name for path in (tmp_path / "snapshots").glob(".trash*")] == []


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.EIO, SnapshotDamagedError), (errno.EACCES, SnapshotError)]
)
def test_a_file_the_disk_has_lost_is_damage_and_a_forbidden_one_is_not(
    store: LocalSnapshotStore,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    expected: type[SnapshotError],
) -> None:
    publish(store, 1)

    def fail(path: Path) -> bytes:
        if path.name == "CURRENT":
            return path.open("rb").read1()
        raise OSError(code, os.strerror(code), str(path))

    snapshot_id = store.current_id()
    assert snapshot_id is not None
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(SnapshotError, match=os.strerror(code)) as caught:
        store.load(snapshot_id)
    assert type(caught.value) is expected
