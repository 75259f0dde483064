"""What a run came to: which events were lost, which had their effect twice, what is not equal.

The log is the truth. Every event in it must be in the model once, every broken record must be a
dead letter, every offset must be in the journal once, and the bits must be those of a trainer that
nobody disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domain.event_log import DeadLetter, Record
from domain.state import State, state_hash
from snapshot.local_store import LocalSnapshotStore, Snapshot
from stream.checkpoint import JOURNAL
from stream.codec import BadEvent, decode_record
from stream.deduplicator import hash_id
from stream.journal_files import JournalFolder

COMPONENTS = ("stream", "ranking", "memory", "retrieval")


@dataclass(slots=True)
class Verdict:
    """One line for each thing that should not be.

    Attributes:
        lost: events acknowledged or in the log whose effect is missing.
        doubled: events that were led through the loop more often than they are in the log.
        unequal: what differs from the undisturbed run.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Return whether every event had its effect exactly once."""
        return not (self.lost or self.doubled or self.unequal)

    def __str__(self) -> str:
        parts = [
            f"{name}: {len(lines)} ({'; '.join(lines[:3])})"
            for name, lines in (
                ("lost", self.lost),
                ("doubled", self.doubled),
                ("unequal", self.unequal),
            )
            if lines
        ]
        return ", ".join(parts) or "equal"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What can be told of a trainer's work from its folder.

    Attributes:
        hashes: of each component of the current snapshot.
        offsets: how often the journal tells each (partition, offset).
    """

    hashes: Mapping[str, str]
    positions: Mapping[str, int]
    step: int
    stream: State
    offsets: Counter[tuple[str, int]]
    damage: Sequence[str]


def outcome_of(data_dir: Path) -> Outcome:
    """Read what a trainer left behind."""
    store = LocalSnapshotStore(data_dir / "snapshots")
    snapshot = store.load_current()
    return Outcome(
        hashes={name: state_hash(snapshot.states[name]) for name in COMPONENTS},
        positions=dict(snapshot.manifest.positions),
        step=snapshot.manifest.step,
        stream=snapshot.states["stream"],
        offsets=_offsets(data_dir / "journal", snapshot),
        damage=store.verify("current"),
    )


def judge(
    outcome: Outcome,
    records: Sequence[Record],
    letters: Sequence[DeadLetter],
    acknowledged: Iterable[str] = (),
) -> Verdict:
    """Compare what was learned with what the log holds.

    Args:
        outcome: of the trainer that was killed again and again.
        records: the whole log.
        letters: what was set aside.
        acknowledged: ids of events that a producer was told are stored.
    """
    verdict = Verdict(unequal=list(outcome.damage))
    in_log: Counter[str] = Counter()
    broken: set[str] = set()
    for record in records:
        for index, entry in enumerate(decode_record(record.value)):
            if isinstance(entry, BadEvent):
                broken.add(f"{record.where}#{index}" if index else record.where)
            else:
                in_log[entry.event_id] += 1
    verdict.lost += [f"{one}: not in the log" for one in acknowledged if one not in in_log]
    _judge_events(outcome, in_log, verdict)
    _judge_letters(broken, letters, verdict)
    _judge_offsets(outcome, records, verdict)
    return verdict


def compare(outcome: Outcome, undisturbed: Outcome, verdict: Verdict) -> None:
    """Add what differs from a run over the same log that nobody disturbed."""
    pairs = {
        **{name: (outcome.hashes[name], undisturbed.hashes[name]) for name in COMPONENTS},
        "positions": (dict(outcome.positions), dict(undisturbed.positions)),
        "steps": (outcome.step, undisturbed.step),
        "counts": (outcome.stream["counts"], undisturbed.stream["counts"]),
        "joiner": (
            state_hash(outcome.stream["joiner"]),
            state_hash(undisturbed.stream["joiner"]),
        ),
    }
    verdict.unequal += [
        f"{name}: {found!s:.60} instead of {expected!s:.60}"
        for name, (found, expected) in pairs.items()
        if found != expected
    ]


def _judge_events(outcome: Outcome, in_log: Counter[str], verdict: Verdict) -> None:
    known = Counter(outcome.stream["deduplicator"]["keys"].tolist())
    expected = {hash_id(event_id): event_id for event_id in in_log}
    missing = [event_id for key, event_id in expected.items() if key not in known]
    verdict.lost += [f"{event_id}: not learned" for event_id in missing]
    foreign = sum((known - Counter(expected.keys())).values())
    if foreign:
        verdict.unequal.append(f"{foreign} events known that are not in the log")
    counts = outcome.stream["counts"]
    for what, found, wanted in (
        ("events", counts["events"], len(in_log) - len(missing)),
        ("duplicates", counts["duplicates"], in_log.total() - len(in_log)),
    ):
        lines = [f"{what}: counted {found}, the log has {wanted}"] * abs(found - wanted)
        (verdict.doubled if found > wanted else verdict.lost).extend(lines)


def _judge_letters(broken: set[str], letters: Sequence[DeadLetter], verdict: Verdict) -> None:
    found = Counter(letter.where for letter in letters)
    verdict.lost += [f"{where}: not set aside" for where in sorted(broken - found.keys())]
    verdict.doubled += [f"{where}: set aside twice" for where, n in found.items() if n > 1]
    verdict.unequal += [f"{where}: set aside" for where in sorted(found.keys() - broken)]


def _judge_offsets(outcome: Outcome, records: Sequence[Record], verdict: Verdict) -> None:
    wanted = {(record.partition, record.offset) for record in records}
    told = outcome.offsets
    verdict.lost += [f"{p}@{n}: not in the journal" for p, n in sorted(wanted) if not told[(p, n)]]
    verdict.doubled += [f"{p}@{n}: in the journal twice" for (p, n), k in told.items() if k > 1]
    foreign = told.keys() - wanted
    verdict.unequal += [f"{p}@{n}: in the journal only" for p, n in sorted(foreign)]


def _offsets(folder: Path, snapshot: Snapshot) -> Counter[tuple[str, int]]:
    name = snapshot.manifest.extra[JOURNAL]
    return Counter(
        (run.partition, offset)
        for _, segment in JournalFolder(folder).chain(name)
        for run in segment.runs
        for offset in range(run.first, run.first + run.length)
    )
