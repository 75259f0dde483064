"""`headrace replay --journal`: a live run learned again from its log, in the order of its journal.

Fresh learners, the settings that the journal holds, every record in the order in which it was
learned: the result must have the bits of the snapshot. When it has not, something other than the
events has had a say, and the table says in which component, and from which step on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from app.journal_settings import settings_of
from app.learners import LearnerConfigs, build_learners
from app.reactions_wiring import build_reactions
from app.trainer_observers import build_observers
from app.trainer_wiring import build_loop
from domain.clock import SystemClock
from domain.errors import DecodeError, JournalError, SchemaError
from domain.event_log import EventLog, Positions
from domain.events import Event
from domain.state import state_hash
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from snapshot.manifest import Manifest
from stream.checkpoint import JOURNAL, restore, states_of
from stream.codec import BadEvent, decode_record
from stream.journal_check import check_chain
from stream.journal_files import JournalFolder, Segment
from stream.journal_reader import RunReader
from stream.train_loop import TrainLoop

Chain = Sequence[tuple[str, Segment]]
Tell = Callable[[int, int], None]
"""Called with records led so far and records to lead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPlace:
    """Where a journal, its snapshots and its log are."""

    folder: JournalFolder
    store: LocalSnapshotStore
    log: EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOutcome:
    """What a replay came to.

    Attributes:
        snapshot_id: the snapshot it was compared with.
        started_from: id of the snapshot it began with, "" when it began with nothing learned.
        live: hash of each component of the snapshot.
        replayed: hash of each component of the replay.
        last_equal_step: step of the newest snapshot up to which all was equal, -1 for none.
        first_different_step: first learning step taken after another event; None when none was.
    """

    snapshot_id: str
    started_from: str
    records: int
    events: int
    steps: int
    live: Mapping[str, str]
    replayed: Mapping[str, str]
    last_equal_step: int
    first_different_step: int | None

    @property
    def equal(self) -> bool:
        """Return whether every component has the same bits and every step the same place."""
        return self.live == self.replayed and self.first_different_step is None


def replay_journal(place: JournalPlace, snapshot_id: str, tell: Tell) -> JournalOutcome:
    """Learn again what a snapshot holds, and compare.

    1. Follow the journal back from the snapshot, and check that it tells every offset once.
    2. Begin with nothing learned or, when that is no longer kept, with the oldest snapshot from
       which journal and log are whole.
    3. Lead every record through the loop in the order of the journal, noting where steps fall.
    4. Compare the hashes of all components, at each snapshot on the way that is still kept.

    Raises:
        JournalError: journal, snapshots or log no longer hold enough; says which.
        SnapshotNotFoundError: there is no such snapshot.
        LogUnavailableError: the log cannot be read now.
    """
    target = place.store.load(snapshot_id, components=()).manifest
    name = target.extra.get(JOURNAL)
    if name is None:
        raise JournalError(
            f"snapshot {target.snapshot_id} names no segment of a journal: it was published with "
            "journal.enabled = false, or by an earlier version"
        )
    whole = place.folder.chain(name)
    check_chain(whole)
    chain, parent = _beginning(whole, place)
    replay = _Replay(place, chain[0], parent)
    total = sum(run.length for _, segment in chain for run in segment.runs)
    for segment_name, segment in chain:
        replay.lead(segment_name, segment, lambda records: tell(records, total))
        replay.compare(segment_name)
    return replay.outcome(target)


def _beginning(chain: Chain, place: JournalPlace) -> tuple[Chain, str | None]:
    """Return the longest part of a chain that can be replayed, and the snapshot it begins with."""
    held = place.log.beginning_positions()
    kept = set(place.store.ids())
    reasons = []
    for number, (segment_name, segment) in enumerate(chain):
        rest = [one for _, one in chain[number:]]
        needed = _first_offsets(rest)
        gone = [name for name, first in needed.items() if first < held.get(name, first + 1)]
        is_anew = any(gap.made_anew for one in rest for _, gap in one.gaps)
        if gone:
            reasons.append(f"the log no longer holds {gone[0]}@{needed[gone[0]]}")
        elif is_anew:
            reasons.append("the log was made anew after that")
        elif segment.parent is None:
            return chain[number:], None
        elif segment.parent in kept:
            return chain[number:], segment.parent
        else:
            reasons.append(
                f"segment {segment_name} goes on from snapshot {segment.parent}, which is gone"
            )
    raise JournalError(f"{place.folder.root}: nothing to begin a replay with: {reasons[-1]}")


def _first_offsets(segments: Sequence[Segment]) -> Positions:
    first: Positions = {}
    for segment in segments:
        for run in segment.runs:
            first.setdefault(run.partition, run.first)
    return first


class _Replay:
    """A loop that is led through segment after segment."""

    def __init__(self, place: JournalPlace, first: tuple[str, Segment], parent: str | None) -> None:
        name, segment = first
        self._place = place
        self._settings = segment.settings
        self._loop = _fresh_loop(name, segment)
        if parent is not None:
            restore(self._loop, dict(place.store.load(parent).states))
        self._parent = parent
        self._reader = RunReader(place.log)
        self._snapshots = {
            manifest.extra[JOURNAL]: manifest
            for manifest in place.store.list()
            if JOURNAL in manifest.extra
        }
        self._began_at = self._loop.counts.steps
        self._records = self._events = 0
        self._last_equal_step = -1
        self._different_step: int | None = None

    def lead(self, name: str, segment: Segment, tell: Callable[[int], None]) -> None:
        """Lead the records of a segment, and note the first step that falls elsewhere."""
        self._take_settings(name, segment)
        places: list[int] = []
        num_events = 0
        for record in self._reader.records(segment):
            for entry in decode_record(record.value):
                self._lead(entry)
                num_events += 1
                taken = self._loop.counts.steps - segment.first_step - len(places)
                places += [num_events] * taken
            self._records += 1
            if self._records % 100 == 0:
                tell(self._records)
        tell(self._records)
        self._events += num_events
        if self._different_step is None:
            self._different_step = _first_difference(segment, places)

    def compare(self, name: str) -> None:
        """Compare with the snapshot that names this segment, when it is still kept."""
        manifest = self._snapshots.get(name)
        if manifest is None or self._different_step is not None:
            return
        if _live_hashes(self._place.store, manifest) == self._hashes():
            self._last_equal_step = manifest.step

    def outcome(self, target: Manifest) -> JournalOutcome:
        """Return what came of it."""
        return JournalOutcome(
            snapshot_id=target.snapshot_id,
            started_from=self._parent or "",
            records=self._records,
            events=self._events,
            steps=self._loop.counts.steps - self._began_at,
            live=_live_hashes(self._place.store, target),
            replayed=self._hashes(),
            last_equal_step=self._last_equal_step,
            first_different_step=self._different_step,
        )

    def _take_settings(self, name: str, segment: Segment) -> None:
        """Go on in a loop built from new settings, as a trainer does that was started with them."""
        if segment.settings == self._settings:
            return
        states = copy.deepcopy(states_of(self._loop))
        self._loop = _fresh_loop(name, segment)
        restore(self._loop, states)
        self._settings = segment.settings

    def _lead(self, entry: Event | BadEvent) -> None:
        """Lead an entry through the loop; what the trainer has set aside is set aside again."""
        if isinstance(entry, BadEvent):
            self._loop.set_aside()
            return
        try:
            self._loop.process(entry)
        except (DecodeError, SchemaError):
            self._loop.set_aside()

    def _hashes(self) -> dict[str, str]:
        return {name: state_hash(state) for name, state in states_of(self._loop).items()}


def _fresh_loop(name: str, segment: Segment) -> TrainLoop:
    settings = settings_of(segment.settings, f"segment {name}")
    schema = settings.schema_declared
    if schema.hash != segment.schema_hash:
        raise JournalError(
            f"segment {name}: expected schema {segment.schema_hash}, its settings give "
            f"{schema.hash}: it was written by another version"
        )
    learners = build_learners(schema, LearnerConfigs.of(settings))
    metrics = Metrics()
    reactions = build_reactions(settings, learners, metrics)
    hearers = () if reactions is None else (reactions,)
    observers, _ = build_observers(settings, schema, learners, SystemClock(), metrics, hearers)
    return build_loop(settings, schema, learners, metrics, observers, reactions)


def _live_hashes(store: LocalSnapshotStore, manifest: Manifest) -> dict[str, str]:
    states = store.load(manifest.snapshot_id).states
    return {name: state_hash(state) for name, state in states.items()}


def _first_difference(segment: Segment, places: Sequence[int]) -> int | None:
    pairs = zip_longest(segment.steps, places)
    for number, (live, replayed) in enumerate(pairs, segment.first_step + 1):
        if live != replayed:
            return number
    return None
