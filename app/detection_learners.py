"""False signals of the real thing: a still world through the loop, with the real learners.

    python -m app.detection_learners [--seeds 20] [--lists 4000] [--json FILE]

`detection_run` measures what its small model can tell, at full traffic. This one leads a day in
which nothing changes through joiner, ranker, error memory and towers, as a trainer does, with the
duplicates, late events and dead letters of real life; with fewer lists, because the real learners
take a hundred times as long. The streams read off the learners can be judged nowhere else.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.learners import LearnerConfigs, build_learners
from app.replay_run import fit_to
from app.settings import Settings
from app.trainer_observers import drift_watch
from app.trainer_wiring import build_loop
from domain.errors import DecodeError, SchemaError
from monitoring.drift_signal import DriftSignal
from monitoring.drift_sinks import ListSink
from monitoring.metrics import Metrics
from replay.scenarios import SCENARIOS, Scenario
from replay.simulator import SimulatedDataset, simulate

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Still:
    """What was said of a day on which nothing changed; each of it is wrong."""

    seed: int
    events: int
    signals: tuple[DriftSignal, ...]


def still_day(seed: int, num_lists: int) -> Scenario:
    """Return a day on which nothing changes and a log is what logs are."""
    scenario = replace(SCENARIOS["stationary"], noise=SCENARIOS["noisy"].noise)
    return scenario.reseeded(seed).resized(num_lists)


def watch_learners(scenario: Scenario) -> Still:
    """Lead a scenario through the loop of a trainer; return the signals given."""
    dataset = SimulatedDataset(scenario)
    settings = fit_to(dataset, Settings())
    learners = build_learners(dataset.schema, LearnerConfigs.of(settings))
    metrics, sink = Metrics(), ListSink()
    watch = drift_watch(settings, dataset.schema, learners, metrics, [sink])
    loop = build_loop(settings, dataset.schema, learners, metrics, [watch])
    events = 0
    for arrival in simulate(scenario, dataset.world):
        events += 1
        if arrival.event is None:
            loop.set_aside()
            continue
        try:
            loop.process(arrival.event)
        except (DecodeError, SchemaError):
            loop.set_aside()
    given = {(one.stream, one.since_ms): one for one in sink.signals}
    return Still(scenario.seed, events, tuple(given.values()))


def summary(days: Sequence[Still]) -> dict[str, Any]:
    """Return how many false signals there were, in all and by stream."""
    events = sum(day.events for day in days)
    by_stream = Counter(signal.stream for day in days for signal in day.signals)
    false = sum(by_stream.values())
    return {
        "days": len(days),
        "events": events,
        "false_signals": false,
        "false_per_million": round(false * _MILLION / max(events, 1), 2),
        "by_stream": dict(sorted(by_stream.items())),
    }


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Run every seed, print what was said, and return 0 when nothing was."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--seeds", type=int, default=20, help="days, each with a seed of its own")
    parser.add_argument("--lists", type=int, default=4_000, help="lists shown on a day")
    parser.add_argument("--json", type=Path, help="write the summary there, too")
    given = parser.parse_args(arguments)
    book = logging.getLogger("monitoring.signal_book")
    level = book.level
    book.setLevel(logging.ERROR)  # signals are counted here, not announced
    days: list[Still] = []
    try:
        for seed in range(1, given.seeds + 1):
            scenario = still_day(seed, given.lists)
            days.append(watch_learners(scenario))
            sys.stderr.write(f"{seed}/{given.seeds}: {days[-1].events} events\n")
            for one in days[-1].signals:
                hours = (one.time_ms - scenario.start_ms) / 3_600_000
                sys.stderr.write(f"  after {hours:.1f} h, {one.severity}: {one.describe()}\n")
    finally:
        book.setLevel(level)
    result = summary(days)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    say(json.dumps(result, indent=1))
    return 1 if result["false_signals"] else 0


if __name__ == "__main__":
    sys.exit(main())
