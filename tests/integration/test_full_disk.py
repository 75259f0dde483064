"""A disk that is really full: what is refused, what goes on, and that all is well afterwards.

Two ways to be full: a file system of a few MiB (where this process may mount one), and a limit on
the size of files that this process may write, which any process may set for itself.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event as StopSignal
from typing import Any, Protocol

import grpc
import pytest

from app.server_wiring import running_server
from domain.clock import SystemClock
from domain.events import UserUpdate
from domain.state import state_hash
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from tests.loop_trace import Trace
from tests.loop_worlds import hashes_of, lead, make_loop, tiny_settings, tiny_world
from tests.trainer_worlds import Workshop
from tests.unit.serving.running_server import RunningServer, until

_LIBC = ctypes.CDLL(None, use_errno=True)
SETTINGS = tiny_settings(
    "trainer.max_records=25",
    "trainer.poll_timeout_s=0.001",
    "checkpoint.every_s=1",
    "snapshot.keep=2",
    "server.address=127.0.0.1:0",
    "watcher.poll_ms=10",
)


class Disk(Protocol):
    """A folder whose disk can be filled and made room on again."""

    folder: Path

    def fill(self) -> None:
        """Leave no room."""

    def make_room(self) -> None:
        """Undo that."""

    def close(self) -> None:
        """Give the disk back."""


class TinyFileSystem:
    """A file system in memory, full when it is full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        options = (b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=32m")
        if _LIBC.mount(*options) != 0:
            reason = os.strerror(ctypes.get_errno())
            pytest.skip(f"no file system can be mounted here ({reason}); the limit is tested")
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as filler:
            for size in (2**20, 2**12, 1):
                try:
                    while True:
                        filler.write(b"x" * size)
                except OSError:
                    continue

    def make_room(self) -> None:
        self._filler.unlink()

    def close(self) -> None:
        # Lazily: a file that is still open must not keep the test session from ending.
        assert _LIBC.umount2(str(self.folder).encode(), 2) == 0


class SizeLimit:
    """No file of this process may grow beyond a few bytes while the disk is "full"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, self._before[1]))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    def close(self) -> None:
        self.make_room()


@pytest.fixture(params=[TinyFileSystem, SizeLimit])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = request.param(folder)
    yield disk
    disk.close()


# A trainer whose snapshots do not fit


def test_trainer_goes_on_without_room_for_snapshots_and_publishes_when_there_is_some(
    disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    schema, events = tiny_world(50)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(events)
    workshop.snapshots = disk.folder / "snapshots"
    steps: list[int] = []

    def look(demand: Any) -> None:
        if demand.ordinal == 15:
            steps.append(newest_step(workshop.snapshots))
            disk.fill()
        if demand.ordinal == 35:
            steps.append(newest_step(workshop.snapshots))
            disk.make_room()

    watcher = Trace()
    watcher.when_asked = look
    workshop.trainer(observers=(watcher,)).run(StopSignal(), until_end=True)
    end = workshop.log.end_positions()
    workshop.close()
    failures = workshop.count("snapshot_publish_failures_total")
    assert failures >= 1.0
    assert steps[0] == steps[1], "nothing was published while there was no room"
    complaints = [one for one in caplog.records if one.message == "snapshot not published"]
    assert len(complaints) == failures
    stored = LocalSnapshotStore(workshop.snapshots).load("current")
    assert stored.manifest.positions == end
    assert {name: state_hash(state) for name, state in stored.states.items()} == hashes_of(
        workshop.loop
    )
    expected = lead(make_loop(schema, SETTINGS, (Trace(),)), events)
    assert hashes_of(workshop.loop) == hashes_of(expected)


def newest_step(snapshots: Path) -> int:
    """The step of the current snapshot, which must be whole."""
    return LocalSnapshotStore(snapshots).load("current").manifest.step


# A log that does not fit


def test_publish_is_unavailable_while_the_log_has_no_room(disk: Disk) -> None:
    server = RunningServer(disk.folder)
    server.start()
    acknowledged: list[str] = []

    def publish(number: int) -> grpc.StatusCode:
        event = UserUpdate(event_id=f"e{number}", time_ms=1, user_id="u" * 100)
        padding = [replace(event, event_id=f"p{number}-{n:04d}") for n in range(100)]
        try:
            acknowledged.extend(server.publish(event, *padding, timeout_s=20.0))
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    assert publish(0) == grpc.StatusCode.OK
    disk.fill()
    # SQLite may have room of its own for a while: pages that it uses again.
    codes = {publish(number) for number in range(1, 11)}
    assert grpc.StatusCode.UNAVAILABLE in codes
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK}
    disk.make_room()
    assert publish(11) == grpc.StatusCode.OK
    stored = [event.event_id for event in server.stored()]
    assert stored == acknowledged, "all of a request or nothing, in order"
    server.close()


# A server that finds the newest snapshot damaged


def test_server_begins_with_the_snapshot_before_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    schema, events = tiny_world(30)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(events)
    workshop.run_to_end()
    workshop.close()
    before, newest = workshop.store().ids()[-2:]
    (tmp_path / "snapshots" / newest / "manifest.json").write_text("")
    data = replace(SETTINGS.data, dir=str(tmp_path))
    settings = SETTINGS.model_copy(update={"data": data})
    with running_server(settings, schema, SystemClock(), Metrics()) as server:
        until(lambda: server.slot.snapshot_id != "", 20.0)
        assert server.slot.snapshot_id == before

        def lines() -> list[str]:
            return [one.message for one in caplog.records if "snapshot" in one.message]

        until(lambda: len(lines()) > 1, 20.0)
        assert lines()[:2] == ["snapshot refused", "snapshot stands in"]
