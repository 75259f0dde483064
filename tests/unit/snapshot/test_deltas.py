"""Deltas in a folder: what was published comes back in order, and nothing else ever does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from domain.deltas import Delta, DeltaPoint
from domain.errors import ConfigError, DeltaGapError, SnapshotDamagedError, SnapshotError
from domain.state import state_hash
from snapshot.delta_files import delta_from_bytes, delta_to_bytes
from snapshot.deltas import DeltaStoreConfig, LocalDeltaStore
from tests.unit.snapshot.small_snapshots import flip_last_byte, states_at


def delta_at(chain: str, number: int) -> Delta:
    return Delta(
        point=DeltaPoint(chain, number),
        positions={"events/0": 10 * number},
        step=number,
        event_time_ms=1_000 * number,
        schema_hash="abc",
        states=states_at(number),
    )


class World:
    """A store that writes, and another, as in another process, that reads."""

    def __init__(self, root: Path, **limits: int) -> None:
        self.root = root / "deltas"
        self.writer = LocalDeltaStore(self.root, DeltaStoreConfig(**limits))
        self.reader = LocalDeltaStore(self.root)
        self.chain = self.writer.begin_chain()

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.writer.publish(delta_at(self.chain, number))

    def numbers(self, after: int, limit: int = 100) -> list[int]:
        point = DeltaPoint(self.chain, after)
        return [delta.point.number for delta in self.reader.after(point, limit)]

    def file(self, number: int) -> Path:
        return self.root / self.chain / f"{number:012d}.delta"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", ["keep", "max_bytes"])
def test_config_keeps_at_least_one(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^delta_store\.{name} must be at least 1, got 0"):
        DeltaStoreConfig(**{name: 0})


def test_delta_comes_back_from_its_bytes_exactly() -> None:
    delta = delta_at("c", 3)
    found = delta_from_bytes(delta_to_bytes(delta), "here")
    assert (found.point, found.positions) == (DeltaPoint("c", 3), {"events/0": 30})
    assert (found.step, found.event_time_ms, found.schema_hash) == (3, 3_000, "abc")
    assert state_hash(dict(found.states)) == state_hash(states_at(3))


def test_delta_with_a_state_that_has_no_exact_form_is_refused() -> None:
    delta = Delta(
        point=DeltaPoint("c", 1),
        positions={},
        step=1,
        event_time_ms=0,
        schema_hash="",
        states={"ranking": {"x": np.float32(1.0)}},
    )
    with pytest.raises(SnapshotError, match=r"delta 1\.ranking\.x: expected"):
        delta_to_bytes(delta)


def test_any_changed_byte_and_any_cut_is_damage() -> None:
    content = delta_to_bytes(delta_at("c", 3))
    for place in range(len(content)):
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        with pytest.raises(SnapshotDamagedError, match=r"^here: "):
            delta_from_bytes(bytes(spoilt), "here")
        with pytest.raises(SnapshotDamagedError, match=r"^here: "):
            delta_from_bytes(content[:place], "here")


def test_deltas_are_read_in_order_and_up_to_a_limit(world: World) -> None:
    assert world.numbers(0) == []
    world.publish(1, 2, 3)
    assert world.numbers(0) == [1, 2, 3]
    assert world.numbers(1, limit=1) == [2]
    assert world.numbers(3) == world.numbers(9) == []
    assert world.reader.newest() == DeltaPoint(world.chain, 3)


def test_publish_returns_the_size_of_the_file_and_leaves_nothing_aside(world: World) -> None:
    assert world.writer.publish(delta_at(world.chain, 1)) == world.file(1).stat().st_size
    assert [path.name for path in world.file(1).parent.iterdir()] == [world.file(1).name]


def test_publish_refuses_what_is_not_next(world: World, tmp_path: Path) -> None:
    world.publish(1, 2)
    for chain, number in ((world.chain, 2), ("other", 3)):
        with pytest.raises(SnapshotError, match=r"expected a delta of chain .* behind 2"):
            world.writer.publish(delta_at(chain, number))
    with pytest.raises(SnapshotError, match="expected a delta of chain none behind 0"):
        LocalDeltaStore(tmp_path / "unbegun").publish(delta_at("c", 1))
    assert world.numbers(0) == [1, 2]


def test_number_left_out_is_a_gap_once_a_later_one_is_there(world: World) -> None:
    world.publish(1)
    assert world.numbers(1) == []
    world.publish(3)
    assert world.numbers(0) == [1]
    with pytest.raises(DeltaGapError, match=r"delta 2 of chain .* is gone, the newest is 3"):
        world.numbers(1)
    assert world.numbers(2) == [3]


@pytest.mark.parametrize("limits", [{"keep": 2}, {"max_bytes": 1_200}])
def test_oldest_are_deleted_and_a_reader_that_was_too_slow_meets_a_gap(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    world = World(tmp_path, **limits)
    world.publish(*range(1, 8))
    left = sorted(int(path.stem) for path in world.file(1).parent.iterdir())
    assert left == list(range(left[0], 8))
    assert 1 < left[0] <= 7
    assert world.numbers(left[0] - 1) == left
    with pytest.raises(DeltaGapError, match="is gone, the newest is 7"):
        world.numbers(0)


def test_newest_stays_however_large_it_is(tmp_path: Path) -> None:
    world = World(tmp_path, max_bytes=1)
    world.publish(1, 2)
    assert world.numbers(1) == [2]


def test_damaged_delta_is_named_after_the_good_ones_were_given(world: World) -> None:
    world.publish(1, 2, 3)
    flip_last_byte(world.file(2))
    assert world.numbers(0) == [1]
    with pytest.raises(SnapshotDamagedError, match=r"000000000002\.delta: its checksum differs"):
        world.numbers(1)
    assert world.numbers(2) == [3]


def test_delta_under_another_number_is_damage(world: World) -> None:
    world.publish(1)
    world.file(1).rename(world.file(2))
    with pytest.raises(SnapshotDamagedError, match=r"expected delta 2 of .*, got 1 of"):
        world.numbers(1)


def test_new_chain_ends_the_old_one_and_deletes_it(world: World) -> None:
    world.publish(1, 2)
    old, writer = world.chain, LocalDeltaStore(world.root)
    new = writer.begin_chain()
    assert new != old
    with pytest.raises(DeltaGapError, match=f"chain {old} has ended, now {new} is written"):
        world.numbers(0)
    assert sorted(path.name for path in world.root.iterdir()) == sorted(["CHAIN", new])
    world.chain = new
    assert world.numbers(0) == []
    assert world.reader.newest() == DeltaPoint(new, 0)


def test_reader_before_any_chain_is_told_so(tmp_path: Path) -> None:
    reader = LocalDeltaStore(tmp_path / "nothing")
    assert reader.newest() is None
    with pytest.raises(DeltaGapError, match="now none is written"):
        reader.after(DeltaPoint("gone", 1), 1)
    assert [*tmp_path.iterdir()] == []


def test_damaged_name_of_the_chain_is_said(world: World) -> None:
    (world.root / "CHAIN").write_text("?")
    with pytest.raises(SnapshotDamagedError, match="CHAIN: expected a chain's name, got"):
        world.numbers(0)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "deltas").write_text("a file")
    with pytest.raises(SnapshotError, match="deltas"):
        LocalDeltaStore(tmp_path / "deltas").begin_chain()
    world = World(tmp_path / "other")
    world.publish(1)
    (world.file(1).parent / ".writing").mkdir()
    with pytest.raises(SnapshotError, match=r"\.writing"):
        world.publish(2)
    assert world.numbers(0) == [1]
