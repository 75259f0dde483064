"""`headrace replay --snapshot`: go on from a snapshot, over what its trainer had not read yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.learners import LearnerConfigs
from app.settings import Settings
from domain.errors import ConfigError, DatasetError
from domain.features import FeatureSchema, schema_from_mapping
from domain.state import State
from replay.dataset import Dataset
from replay.log_dataset import LogDataset
from snapshot.local_store import LocalSnapshotStore, Snapshot
from stream.checkpoint import restore
from stream.open_log import open_log
from stream.train_loop import LoopCounts, TrainLoop

_LEARNERS = ("ranking", "memory", "retrieval", "seed")


@dataclass(frozen=True, slots=True, eq=False)
class ReplayStart:
    """A snapshot that a replay goes on from."""

    snapshot: Snapshot

    @property
    def snapshot_id(self) -> str:
        """Return its id."""
        return self.snapshot.manifest.snapshot_id

    @property
    def positions(self) -> Mapping[str, int]:
        """Return where in its log it ends."""
        return self.snapshot.manifest.positions

    def restore(self, loop: TrainLoop) -> None:
        """Let a loop that has seen nothing become what the snapshot's was.

        Counts and observers begin anew: they are about the replay, and others watch it than
        watched the trainer.
        """
        states = dict(self.snapshot.states)
        fresh: State = loop.save()
        counts = LoopCounts(steps=self.snapshot.manifest.step)
        new = {"counts": asdict(counts), "observers": fresh["observers"]}
        restore(loop, {**states, "stream": {**states["stream"], **new}})


def data_dir_of(wanted: str) -> Path | None:
    """Return the data folder of a snapshot that is named by its path; None when by its id.

    >>> data_dir_of("data/snapshots/000000000042-9f3c0a11bb27").as_posix(), data_dir_of("latest")
    ('data', None)
    """
    return Path(wanted).parent.parent if Path(wanted).name != wanted else None


def open_start(settings: Settings, wanted: str) -> tuple[Settings, Dataset, ReplayStart]:
    """Return a snapshot, settings with its learners, and the rest of its log.

    Args:
        settings: name the data folder, and the log when it is not the embedded one.
        wanted: an id, "current", "latest" or the path of a snapshot in the data folder.

    Raises:
        SnapshotNotFoundError: there is no such snapshot.
        ConfigError: the settings contradict it, or there is no log.
        DatasetError: the log no longer holds what follows the snapshot.
    """
    if not settings.data.log and not settings.data.embedded_log.exists():
        raise ConfigError(f"{settings.data.embedded_log}: there is no event log (--log names it)")
    store = LocalSnapshotStore(settings.data.snapshots, settings.snapshot)
    start = ReplayStart(store.load(Path(wanted).name))
    settings = _with_learners(settings, start)
    schema = _schema(settings, start)
    url = settings.data.log_url
    dataset = LogDataset(
        url, schema, lambda: open_log(url, kafka=settings.kafka), dict(start.positions)
    )
    if dataset.num_events_hint == 0:
        raise DatasetError(f"{url}: snapshot {start.snapshot_id} has read all of it")
    return settings, dataset, start


def _with_learners(settings: Settings, start: ReplayStart) -> Settings:
    """Return settings with the snapshot's learners; one that was chosen must be the same."""
    theirs = LearnerConfigs.from_plain(start.snapshot.manifest.extra["learners"])
    defaults, updates = Settings(), dict[str, Any]()
    for section in _LEARNERS:
        ours = getattr(settings, section)
        if ours == getattr(defaults, section):
            updates[section] = getattr(theirs, section)
        elif ours != getattr(theirs, section):
            raise ConfigError(
                f"{section}: differs from what snapshot {start.snapshot_id} was made with, which "
                "cannot go on otherwise; leave it out"
            )
    return settings.model_copy(update=updates)


def _schema(settings: Settings, start: ReplayStart) -> FeatureSchema:
    manifest = start.snapshot.manifest
    declared = settings.schema_declared
    if declared not in (FeatureSchema(), schema_from_mapping(manifest.extra["schema"])):
        raise ConfigError(
            f"schema: snapshot {start.snapshot_id} was made with schema {manifest.schema_hash}, "
            f"the settings declare {declared.hash}"
        )
    return schema_from_mapping(manifest.extra["schema"])
