"""One replay: a dataset's events through the real train loop, scored before they are learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from domain.errors import DecodeError, SchemaError
from domain.events import Event, Feedback, Impression
from domain.features import FeatureSchema
from stream.label_heads import LabelHeads
from stream.train_loop import TrainLoop

Progress = Callable[[int, int], None]
"""Told the number of events so far and the newest event time in ms."""

_EVENTS_PER_REPORT = 500


@dataclass(slots=True)
class ReplayCounts:
    """What a replay met beside what the loop itself counts."""

    records: int = 0
    dead_letters: int = 0
    first_dead_letter: str = ""
    interrupted: bool = False


def count_demands(events: Iterable[Event], schema: FeatureSchema) -> int:
    """Return how many lists these events will ask to be scored; repeated ids count once.

    The split into halves must be known before the first event is learned.
    """
    heads = LabelHeads(schema)
    seen: set[str] = set()
    for event in events:
        match event:
            case Impression():
                seen.add(event.event_id)
            case Feedback(impression_id=None):
                decided, _ = heads.decide(event.kind, event.value)
                if decided:
                    seen.add(event.event_id)
            case _:
                pass
    return len(seen)


def replay_events(
    events: Iterable[Event],
    loop: TrainLoop,
    progress: Progress,
    stopped: Callable[[], bool] = lambda: False,
    counts: ReplayCounts | None = None,
) -> ReplayCounts:
    """Lead events through the loop in order, then learn from what still waits.

    Events that contradict themselves or the schema are counted as dead letters and passed over, as
    the trainer sets them aside.

    Args:
        events: all of them, from the beginning.
        loop: has seen as many of them as `counts` says.
        progress: told now and then how far it is.
        stopped: asked between two events. When it says so the replay ends early, and labels that
            were not settled by then stay unknown: settling them would take "not yet" for "no".
        counts: of a replay that goes on; they are counted up, and returned.
    """
    counts = counts or ReplayCounts()
    for event in islice(events, counts.records, None):
        if stopped():
            counts.interrupted = True
            return counts
        counts.records += 1
        try:
            loop.process(event)
        except (DecodeError, SchemaError) as error:
            counts.dead_letters += 1
            counts.first_dead_letter = counts.first_dead_letter or f"{event.event_id}: {error}"
        if counts.records % _EVENTS_PER_REPORT == 0:
            progress(counts.records, event.time_ms)
    loop.finish()
    return counts
