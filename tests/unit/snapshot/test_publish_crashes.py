"""A crash at any point of publishing leaves a snapshot that is whole and current."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snapshot import disk, folder, local_store
from snapshot.local_store import LocalSnapshotStore, SnapshotConfig

REPOSITORY = Path(__file__).parents[3]


class Killed(BaseException):
    """What a process feels when it is killed: nothing after it runs, nothing is cleaned up."""


def publish(store: LocalSnapshotStore, step: int) -> str:
    states = {name: {"step": np.full(50, step)} for name in ("memory", "ranking", "stream")}
    return store.publish(
        states, positions={"events/0": step}, step=step, event_time_ms=step, schema_hash="abc"
    )


def kill_at(target: Any, name: str, call: int, *, after: bool) -> pytest.MonkeyPatch:
    """Make the process die just before, or just after, the given call of a function."""
    patch = pytest.MonkeyPatch()
    original, calls = getattr(target, name), iter(range(1, 1000))

    def dying(*args: Any) -> Any:
        if next(calls) != call:
            return original(*args)
        if after:
            original(*args)
        raise Killed

    patch.setattr(target, name, dying)
    return patch


PHASES = [
    # phase, where, function, call, after it, whether the new snapshot is current afterwards
    (1, local_store, "write_state", 1, False, False),
    (1, local_store, "write_state", 2, True, False),
    (1, LocalSnapshotStore, "_write_aside", 1, True, False),
    (2, disk, "sync", 1, False, False),
    (2, disk, "sync", 4, True, False),
    (2, LocalSnapshotStore, "_make_durable", 1, True, False),
    (3, Path, "rename", 1, False, False),
    (3, Path, "rename", 1, True, False),
    (3, LocalSnapshotStore, "_reveal", 1, True, False),
    (4, Path, "rename", 2, False, False),
    (4, Path, "rename", 2, True, True),
    (4, LocalSnapshotStore, "_point_at", 1, True, True),
    (5, folder.SnapshotFolder, "hide", 1, False, True),
    (5, Path, "rename", 3, True, True),
    (5, folder.SnapshotFolder, "hide", 1, True, True),
    (5, LocalSnapshotStore, "_prune", 1, True, True),
]


def name_of(phase: tuple[Any, ...]) -> str:
    number, _, name, call, after, _ = phase
    return f"{number}-{'after' if after else 'before'}-{name}-{call}"


@pytest.mark.parametrize("phase", PHASES, ids=name_of)
def test_earlier_or_new_snapshot_is_live_and_whole_when_the_writer_dies(
    tmp_path: Path, phase: tuple[Any, ...]
) -> None:
    _, target, name, call, after, new_is_current = phase
    writer = LocalSnapshotStore(tmp_path, SnapshotConfig(keep=2))
    ids = [publish(writer, 1), publish(writer, 2)]
    patch = kill_at(target, name, call, after=after)
    with pytest.raises(Killed):
        publish(writer, 3)
    patch.undo()
    writer.close()  # as the operating system does

    before_restart = sorted(path.name for path in tmp_path.iterdir())
    reader = LocalSnapshotStore(tmp_path)
    assert reader.load_current().manifest.step == (3 if new_is_current else 2)
    assert all(reader.verify(one) == [] for one in reader.ids())
    assert sorted(path.name for path in tmp_path.iterdir()) == before_restart, "readers only read"

    resumed = LocalSnapshotStore(tmp_path, SnapshotConfig(keep=2))
    snapshot, passed_over = resumed.load_newest_good()
    assert snapshot is not None
    assert passed_over == []
    # The trainer comes by step 3 again and makes the same snapshot.
    assert publish(resumed, 3) == resumed.current_id()
    assert resumed.ids() == [ids[1], resumed.current_id()]
    assert resumed.load_current().manifest.positions == {"events/0": 3}
    hidden = [path.name for path in tmp_path.glob(".*") if path.is_dir()]
    assert hidden == [], "nothing of the crash is left"


@pytest.fixture
def writing_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start_writer(tmp_path, keep=1)
    yield process
    process.kill()
    process.communicate()


def start_writer(root: Path, keep: int) -> subprocess.Popen[str]:
    """Start a process that resumes and then publishes without end, one line per snapshot."""
    code = """
import sys
import numpy as np
from snapshot.local_store import LocalSnapshotStore, SnapshotConfig
store = LocalSnapshotStore(sys.argv[1], SnapshotConfig(keep=int(sys.argv[2])))
snapshot, _ = store.load_newest_good()
step = 0 if snapshot is None else snapshot.manifest.step
while True:
    step += 1
    states = {name: {"step": np.full(5_000, step)} for name in ("memory", "ranking", "stream")}
    store.publish(
        states, positions={"events/0": step}, step=step, event_time_ms=step, schema_hash="abc"
    )
    print(step, flush=True)
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), str(keep)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def step_of(store: LocalSnapshotStore) -> int:
    """Load the current snapshot, check that all of it is of one step, and return that step."""
    snapshot = store.load_current()
    step = snapshot.manifest.step
    assert snapshot.manifest.positions == {"events/0": step}
    assert sorted(snapshot.states) == ["memory", "ranking", "stream"]
    for state in snapshot.states.values():
        assert (state["step"] == step).all()
    return step


def test_reader_never_sees_a_torn_snapshot_while_another_process_publishes_and_prunes(
    tmp_path: Path, writing_process: subprocess.Popen[str]
) -> None:
    assert writing_process.stdout is not None
    writing_process.stdout.readline()
    reader = LocalSnapshotStore(tmp_path)
    steps = [step_of(reader)]
    deadline = time.monotonic() + 60
    while (len(steps) < 60 or steps[-1] < steps[0] + 20) and time.monotonic() < deadline:
        steps.append(step_of(reader))
    assert steps == sorted(steps)
    assert steps[-1] >= steps[0] + 20, "the writer must have moved while we read"


def test_a_whole_snapshot_is_current_when_the_writing_process_is_killed_again_and_again(
    tmp_path: Path,
) -> None:
    published = 0
    for extra_s in (0.0, 0.003, 0.011):
        process = start_writer(tmp_path, keep=2)
        assert process.stdout is not None
        for _ in range(3):
            published = int(process.stdout.readline())
        time.sleep(extra_s)  # so that it dies at another point each time
        process.kill()
        process.communicate()
        reader = LocalSnapshotStore(tmp_path)
        assert step_of(reader) >= published
        assert all(reader.verify(one) == [] for one in reader.ids())
