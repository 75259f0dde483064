"""Checkpoints of a replay in a work folder: what `headrace replay --resume` goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from domain.clock import Clock
from domain.errors import ConfigError, SnapshotError
from domain.event_log import Positions
from domain.state import State
from monitoring.drift_signal import signal_from_plain, signal_to_plain
from monitoring.drift_sinks import ListSink
from monitoring.reactions import Reaction, ReactionList
from replay.prequential import Prequential
from replay.rankers_side_by_side import RankerCost, RankersSideBySide
from replay.run import ReplayCounts
from replay.side_by_side import SideBySide
from snapshot.local_store import LocalSnapshotStore, Snapshot, SnapshotConfig
from stream.checkpoint import restore, states_of
from stream.train_loop import TrainLoop

_KEPT = 2
"""Checkpoints kept: the newest, and the one before in case the disk loses it."""
_MOST_OF_THE_TIME = 0.05
"""A checkpoint that takes long is made more seldom, so that all of them take at most this share."""
_ABOUT = "replay"
_LOG_ENDS = "log_ends"
_MEASURED = "measured"
_LIBRARIES = ("numpy", "river", "torch")
"""Those whose version may move a last digit, or that keep what a checkpoint restores."""
_MOST_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """How often a replay that takes long secures what it has done; nothing measured depends on it.

    Attributes:
        checkpoint_every_s: processing time between two checkpoints, at least.
        report_every_s: processing time between two partial reports, at least; 0 writes none.
    """

    checkpoint_every_s: float = 60.0
    report_every_s: float = 900.0

    def __post_init__(self) -> None:
        if not self.checkpoint_every_s > 0:
            raise ConfigError(
                f"replay.checkpoint_every_s must be positive, got {self.checkpoint_every_s}"
            )
        if not self.report_every_s >= 0:
            raise ConfigError(
                f"replay.report_every_s must not be negative, got {self.report_every_s}"
            )


@dataclass(frozen=True, slots=True)
class ReplayState:
    """Everything of a replay that moves on with the events."""

    loop: TrainLoop
    prequential: Prequential
    watched: SideBySide
    rankers: RankersSideBySide
    signals: ListSink
    done: ReactionList


class Timer:
    """Says when something is due that must not come too often, nor take too much of the time."""

    def __init__(self, clock: Clock, every_s: float) -> None:
        self._clock = clock
        self._every_s = every_s
        self._next_s = clock.stopwatch_s() + every_s

    def due(self) -> bool:
        """Return whether it is time."""
        return self._clock.stopwatch_s() >= self._next_s

    def done(self, began_s: float) -> None:
        """Begin to wait again, after work that began then."""
        now_s = self._clock.stopwatch_s()
        self._next_s = now_s + max(self._every_s, (now_s - began_s) / _MOST_OF_THE_TIME)


class ReplayCheckpoints:
    """The checkpoints of one replay."""

    def __init__(self, folder: Path, log_ends: Positions | None = None) -> None:
        """Keep checkpoints in a folder.

        Args:
            folder: theirs alone; it is made with the first of them.
            log_ends: how far the log is read that is replayed, as it may grow; None for a dataset.
        """
        self.folder = folder
        self.log_ends = log_ends
        self._store = LocalSnapshotStore(folder, SnapshotConfig(keep=_KEPT))
        self._resumed: Snapshot | None = None
        self.problems: list[str] = []

    def find(self) -> None:
        """Find the newest checkpoint that is whole, to go on from; `log_ends` becomes its own.

        Raises:
            ConfigError: there is none.
            SnapshotError: none is whole.
        """
        self._resumed, self.problems = self._store.load_newest_good()
        if self._resumed is None and self.problems:
            raise SnapshotError(f"no checkpoint is whole; the newest: {self.problems[0]}")
        if self._resumed is None or _ABOUT not in self._resumed.manifest.extra:
            raise ConfigError(
                f"--resume: there is no checkpoint of a replay in {self.folder}; leave it out to "
                "begin at the beginning"
            )
        self.log_ends = self._resumed.manifest.extra[_LOG_ENDS]

    @property
    def is_resumed(self) -> bool:
        """Return whether there is a checkpoint to go on from."""
        return self._resumed is not None

    def begin(self) -> bool:
        """Take the folder for a replay that begins; return whether another's checkpoints went.

        Raises:
            ConfigError: something else than checkpoints of a replay lies there.
            SnapshotError: another replay writes there, or the folder cannot be written.
        """
        self._check_ours()
        self._store.become_writer()
        had_any = bool(self._store.ids())
        if had_any:
            self._clear()
            self._store.become_writer()
        return had_any

    def resume(self, about: Mapping[str, Any], state: ReplayState) -> tuple[ReplayCounts, float]:
        """Let new parts become what they were; return the counts and the seconds spent by then.

        Raises:
            ConfigError: this is another replay than the one that was interrupted; says in what.
            SnapshotError: another replay writes there.
        """
        assert self._resumed is not None
        then = self._resumed.manifest.extra[_ABOUT]
        different = list(differences(then, about))
        if different:
            said = "; ".join(different[:_MOST_NAMED])
            more = len(different) - _MOST_NAMED
            raise ConfigError(
                f"--resume: {self.folder} holds another replay: {said}"
                f"{f'; and {more} more' if more > 0 else ''}. Take the same again, or leave "
                "--resume out to begin at the beginning"
            )
        self._store.become_writer()
        states = dict(self._resumed.states)
        measured = states.pop(_MEASURED)
        restore(state.loop, states)
        state.prequential.load_all(measured["prequential"])
        state.watched.load_watch(measured["watched"])
        state.rankers.cost = RankerCost(**measured["cost"])
        state.signals.write_signals([signal_from_plain(one) for one in measured["signals"]])
        state.done.write_reactions([Reaction(**one) for one in measured["reactions"]])
        self._resumed = None  # as large as the learners
        return ReplayCounts(**measured["counts"]), measured["seconds"]

    def save(
        self, about: Mapping[str, Any], state: ReplayState, counts: ReplayCounts, seconds: float
    ) -> None:
        """Write a checkpoint, and delete the oldest when there are too many.

        Raises:
            SnapshotError: the disk refused; the checkpoint before is still there.
        """
        measured: State = {
            "prequential": state.prequential.save_all(),
            "watched": state.watched.save_watch(),
            "cost": asdict(state.rankers.cost),
            "signals": [signal_to_plain(one) for one in state.signals.signals],
            "reactions": [asdict(one) for one in state.done.reactions],
            "counts": {**asdict(counts), "interrupted": False},
            "seconds": seconds,
        }
        self._store.publish(
            {**states_of(state.loop), _MEASURED: measured},
            positions={"records": counts.records},
            step=counts.records,
            event_time_ms=state.loop.parts.watermark.newest_ms,
            schema_hash=state.loop.parts.schema.hash,
            extra={_ABOUT: dict(about), _LOG_ENDS: self.log_ends},
        )

    def remove(self) -> None:
        """Delete the folder: the replay is over."""
        self._clear()

    def _check_ours(self) -> None:
        """Refuse a folder that must not be deleted."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        strange = [name for name in names if not name.startswith(".") and name != "CURRENT"]
        strange = sorted(set(strange) - set(self._store.ids()))
        theirs = [one for one in self._store.list() if _ABOUT not in one.extra]
        if strange or theirs:
            found = strange[0] if strange else f"snapshot {theirs[0].snapshot_id}"
            raise ConfigError(
                f"--work {self.folder}: expected an empty folder, or one with the checkpoints of a "
                f"replay, found {found}"
            )

    def _clear(self) -> None:
        self._store.close()
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise SnapshotError(f"{error.filename}: {error.strerror}") from error


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that numbers hang on."""
    return {name: version(name) for name in _LIBRARIES}


def differences(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """Say in what two trees of JSON values differ.

    >>> list(differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
    ['a.b was 1, is 3']
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif then != now:
        yield f"{path} was {then}, is {now}"
