"""Named points at which a trainer is killed, and what is wrapped so that it happens there.

Nothing of this is in the shipped code: a process is started through `tests.faults.launcher`, which
puts a wrapper around the function that a point names and sends SIGKILL to itself at the n-th call.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RANDOM = "at a random moment"
"""Not a point of the code: the harness sends the signal after a while of its own choice."""

When = Literal["before", "after"]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Where a process kills itself.

    Attributes:
        targets: "module:Class.function" or "module:function"; those of the backend in use.
        when: before the function begins, or after it has ended and before its caller goes on.
        calls: the kill comes at the n-th call, n drawn from 1 to this.
        only_if: calls that do not count, judged by (arguments, result).
        spoil: done just before the kill: what a power cut may leave behind.
    """

    targets: tuple[str, ...]
    when: When
    calls: int
    only_if: Callable[[tuple[Any, ...], Any], bool] = lambda arguments, result: True
    spoil: Callable[[tuple[Any, ...], Any], None] = lambda arguments, result: None


def _synced(folder: str, *, files_only: bool = False) -> Callable[[tuple[Any, ...], Any], bool]:
    """Judge whether `os.fsync` was called for something below a folder of this name."""

    def judge(arguments: tuple[Any, ...], _result: Any) -> bool:
        path = _path_of(arguments)
        is_file = stat.S_ISREG(os.fstat(arguments[0]).st_mode)
        return folder in path.parts and (is_file or not files_only)

    return judge


def _path_of(arguments: tuple[Any, ...]) -> Path:
    return Path(f"/proc/self/fd/{arguments[0]}").readlink()


def _lose_half(arguments: tuple[Any, ...], _result: Any) -> None:
    """Leave half of a file that was never synced: the other half never reached the disk."""
    path = _path_of(arguments)
    os.truncate(path, path.stat().st_size // 2)


def _leave_half_a_state(arguments: tuple[Any, ...], names: list[str]) -> None:
    path = Path(arguments[0]) / names[-1]
    os.truncate(path, path.stat().st_size // 2)


def _leave_half_a_file(arguments: tuple[Any, ...], _result: Any) -> None:
    path = Path(arguments[0])
    os.truncate(path, path.stat().st_size // 2)


def _lose_half_a_delta(arguments: tuple[Any, ...], _result: Any) -> None:
    """Leave half of a delta that was renamed: deltas are never synced."""
    store, delta = arguments
    _leave_half_a_file((store.path_of(delta.point),), None)


def _is_trash(arguments: tuple[Any, ...], _result: Any) -> bool:
    return Path(arguments[0]).name.startswith(".trash-")


def _delete_one(arguments: tuple[Any, ...], _result: Any) -> None:
    sorted(Path(arguments[0]).iterdir())[0].unlink()


_COMMIT = ("stream.sqlite_log:SqliteLog.commit", "stream.kafka_log:KafkaLog.commit")
_DEAD_LETTER = ("stream.sqlite_log:SqliteLog.dead_letter", "stream.kafka_log:KafkaLog.dead_letter")

# Bounds on n: a life of some hundred events with a checkpoint every few dozen reaches them.
POINTS: dict[str, Point] = {
    "while a snapshot file is written": Point(
        ("snapshot.local_store:write_state",), "after", 12, spoil=_leave_half_a_state
    ),
    "before fsync of a snapshot": Point(("os:fsync",), "before", 30, _synced("snapshots")),
    "before fsync, half the file lost": Point(
        ("os:fsync",), "before", 24, _synced("snapshots", files_only=True), _lose_half
    ),
    "after fsync of a snapshot": Point(("os:fsync",), "after", 30, _synced("snapshots")),
    "before the snapshot's rename": Point(("snapshot.folder:SnapshotFolder.reveal",), "before", 3),
    "between rename and CURRENT": Point(("snapshot.folder:SnapshotFolder.point_at",), "before", 3),
    "between publish and commit": Point(_COMMIT, "before", 3),
    "after commit": Point(_COMMIT, "after", 3),
    "between hiding and deleting old snapshots": Point(
        ("snapshot.folder:SnapshotFolder.hide",), "after", 3, lambda _, hidden: bool(hidden)
    ),
    "while an old snapshot is deleted": Point(
        ("snapshot.disk:remove_folder",), "before", 3, _is_trash, _delete_one
    ),
    "before a journal segment": Point(("stream.journal_files:JournalFolder.write",), "before", 3),
    "while a journal segment is written": Point(
        ("os:fsync",), "before", 3, _synced("journal", files_only=True), _lose_half
    ),
    "before a journal segment's rename": Point(
        ("os:fsync",), "after", 3, _synced("journal", files_only=True)
    ),
    "between segment and snapshot": Point(
        ("stream.journal_files:JournalFolder.write",), "after", 3
    ),
    "while a delta is written": Point(
        ("snapshot.deltas:write_aside",), "after", 12, spoil=_leave_half_a_file
    ),
    "after a delta, half of it lost": Point(
        ("snapshot.deltas:LocalDeltaStore.publish",), "after", 12, spoil=_lose_half_a_delta
    ),
    "in the joiner": Point(("stream.joiner:Joiner.observe",), "after", 250),
    "before a learning step": Point(("stream.train_loop:TrainLoop.step",), "before", 12),
    "in a learning step": Point(("ranking.learner:RankingModel.learn",), "after", 12),
    "before a dead letter": Point(_DEAD_LETTER, "before", 4),
    "after a dead letter": Point(_DEAD_LETTER, "after", 4),
    "while resuming": Point(("app.trainer_wiring:restore",), "after", 1),
}


def arm(name: str, call: int) -> None:
    """Wrap what a point names, so that this process dies at that call of it."""
    point = POINTS[name]
    seen = 0

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if point.when == "before":
                look(arguments, None)
            result = original(*arguments, **named)
            if point.when == "after":
                look(arguments, result)
            return result

        return wrapper

    def look(arguments: tuple[Any, ...], result: Any) -> None:
        nonlocal seen
        if point.only_if(arguments, result):
            seen += 1
            if seen == call:
                point.spoil(arguments, result)
                os.kill(os.getpid(), signal.SIGKILL)

    for target in point.targets:
        replace(target, around)


def replace(target: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `around(function)` in the place of the function that "module:dotted.name" names."""
    module, _, dotted = target.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = dotted.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, name, around(getattr(owner, name)))
