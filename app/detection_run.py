"""The detection table: which detector says what, how soon, how often for nothing.

    python -m app.detection_run [--seeds 20] [--scenario-seeds 2] [--json FILE]

Every scenario is simulated as arrays, a small model (`_Logistic`) predicts each list before its
labels are known and learns from them when their attribution window is over, and the monitors and
field watch of a trainer, with the settings of a trainer, see what a trainer would see of it. The
scores that a server would have given come from a copy of the model that is refreshed now and then.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.settings import Settings
from domain.events import Features
from domain.requests import RankingRequest, UserView
from monitoring.drift_monitor import DriftMonitor, DriftMonitorConfig
from monitoring.drift_signal import DriftSignal
from monitoring.drift_sinks import ListSink
from monitoring.drift_streams import (
    ITEM_NOVELTY,
    LABEL_DELAY,
    USER_NOVELTY,
    observe_batch,
    observe_skew,
    observe_windows,
    standard_streams,
)
from monitoring.field_drift import FieldDrift
from monitoring.field_watch import FieldWatch
from monitoring.metrics import Metrics
from monitoring.quality_windows import QualityWindows
from monitoring.score_skew import ScoreSkew
from replay.scenarios import SCENARIOS, DriftTruth, Scenario
from replay.simulator import Shown, shown
from replay.world import Answers, World

# Shape legend: L = lists, N = items per list, H = heads, K = hashed inputs.

SERVING_SKEW = replace(
    SCENARIOS["stationary"],
    id="serving-skew",
    description="half-way servers lose sight of the items' categories; the log has them all",
    truth=(DriftTruth(what="what servers see of items", at=0.5, streams=("skew/",)),),
)
"""Only here: in a log there is nothing to be simulated, it happens between log and server."""
TABLE_SCENARIOS: Mapping[str, Scenario] = {
    **{name: one for name, one in SCENARIOS.items() if one.truth and not one.noise.late_rate},
    SERVING_SKEW.id: SERVING_SKEW,
}
"""Scenarios with a truth; those that differ only in how events arrive need the loop."""
ALL = "all together"
_VARIANT = "online"
_BATCH_LISTS = 26
"""Lists whose labels are measured together: 260 examples, as in a micro-batch."""
_PUBLISH_BATCHES = 20
"""Batches between two snapshots: a server's scores are up to half an hour of event time old."""
_MILLION = 1_000_000
_BUCKETS = 2**18


@dataclass(slots=True)
class Watched:
    """One scenario and seed as several monitors saw it.

    Attributes:
        events: impressions and actions.
        signals: by the name of a monitor.
    """

    scenario: Scenario
    events: int = 0
    signals: dict[str, list[DriftSignal]] = field(default_factory=dict)


def monitors_of(config: DriftMonitorConfig) -> dict[str, DriftMonitorConfig]:
    """Return the settings of each monitor: every detector alone, and all of them."""
    alone: dict[str, DriftMonitorConfig] = {
        name: replace(config, detectors=(name,)) for name in config.detectors
    }
    return {**alone, ALL: config}


def watch(scenario: Scenario, configs: dict[str, DriftMonitorConfig]) -> Watched:
    """Lead a scenario past monitors and the field watch."""
    return _Run(World(scenario), configs).run()


class _Run:
    """One world, one model, several monitors; the last of them also watches fields."""

    def __init__(self, world: World, configs: dict[str, DriftMonitorConfig]) -> None:
        self._world = world
        self._heads = tuple(head.name for head in world.schema.heads)
        self._sinks = {name: ListSink() for name in configs}
        metrics = Metrics()
        streams = standard_streams((_VARIANT,), self._heads)
        self._monitors = {
            name: DriftMonitor(streams, config, metrics, [self._sinks[name]])
            for name, config in configs.items()
        }
        last = list(configs)[-1]
        self._fields = FieldWatch(world.schema, configs[last].fields)
        self._field_drift = FieldDrift(
            self._fields, configs[last].fields, self._monitors[last].book, [self._sinks[last]]
        )
        self._model = _Logistic(len(self._heads))
        self._seen_users = np.zeros(len(world.user_ids), np.bool_)
        self._seen_items = np.zeros(len(world.item_ids), np.bool_)
        self._features: dict[tuple[int, str], Features] = {}
        self._waiting: deque[_Pending] = deque()
        self._windows = QualityWindows((_VARIANT,), len(self._heads))
        self._skew = ScoreSkew()
        self._server = _Logistic(len(self._heads))
        self._batches = 0
        self._result = Watched(world.scenario)

    def run(self) -> Watched:
        for lists in shown(self._world):
            for first in range(0, len(lists.users_L), _BATCH_LISTS):
                self._take(_part(lists, slice(first, first + _BATCH_LISTS)))
        while self._waiting:
            self._measure(self._waiting.popleft())
        self._result.signals = {name: sink.signals for name, sink in self._sinks.items()}
        return self._result

    def _take(self, lists: Shown) -> None:
        """Show some lists: measure and learn what is due first, then predict them."""
        window_ms = self._world.scenario.traffic.max_feedback_delay_ms
        while self._waiting and self._waiting[0].time_ms + window_ms < lists.times_L[0]:
            self._measure(self._waiting.popleft())
        actions = int(lists.answers.clicked.sum() + lists.answers.liked.sum())
        self._result.events += len(lists.users_L) + actions
        self._watch_shown(lists)
        hashed_EK = self._hash(lists)
        label_EH = np.stack(
            [lists.answers.clicked.ravel(), lists.answers.liked.ravel()], axis=1
        ).astype(np.float32)
        self._waiting.append(
            _Pending(
                int(lists.times_L[-1]),
                hashed_EK,
                self._model.predict(hashed_EK),
                label_EH,
                self._served(lists, hashed_EK),
            )
        )
        delays_s = lists.answers.delays_ms[..., 0][lists.answers.clicked] / 1_000
        if len(delays_s):
            mean = float(np.log1p(delays_s).mean())
            self._observe(LABEL_DELAY, mean, len(delays_s), int(lists.times_L[-1]))

    def _served(self, lists: Shown, hashed_EK: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what a server would have said of the primary head, float32 (E,)."""
        if self._batches % _PUBLISH_BATCHES == 0:
            self._server.copy(self._model)
        self._batches += 1
        scenario = self._world.scenario
        breaks_ms = scenario.share_ms(SERVING_SKEW.truth[0].at)
        if scenario.id == SERVING_SKEW.id and lists.times_L[0] >= breaks_ms:
            hashed_EK = self._hash(lists, sees_categories=False)
        return self._server.predict(hashed_EK)[:, 0]

    def _watch_shown(self, lists: Shown) -> None:
        for row, (user, time_ms) in enumerate(
            zip(lists.users_L.tolist(), lists.times_L.tolist(), strict=True)
        ):
            items = lists.items_LN[row]
            new = float(1.0 - self._seen_items[items].mean())
            self._observe(ITEM_NOVELTY, new, len(items), time_ms)
            self._observe(USER_NOVELTY, float(not self._seen_users[user]), len(items), time_ms)
            self._seen_items[items] = self._seen_users[user] = True
            request = RankingRequest(
                user=UserView(
                    user_id=self._world.user_ids[user],
                    features=self._world.user_features(user),
                ),
                item_ids=tuple(self._world.item_ids[item] for item in items.tolist()),
                item_features=tuple(self._item_features(item, time_ms) for item in items.tolist()),
                time_ms=time_ms,
            )
            state = self._fields.observe(request, time_ms)
            if state is not None:
                self._field_drift.take(state)

    def _item_features(self, item: int, time_ms: int) -> Features:
        category = int(self._world.truth.item_category[item])
        key = (item, self._world.category_name(category, time_ms))
        if key not in self._features:
            self._features[key] = self._world.item_features(item, time_ms)
        return self._features[key]

    def _hash(self, lists: Shown, *, sees_categories: bool = True) -> NDArray[np.int64]:
        """Return hashed inputs of each shown item, int64 (E, K): ids, category, and pairs."""
        world, now_ms = self._world, int(lists.times_L[0])
        users_E = np.repeat(lists.users_L, lists.items_LN.shape[1])
        items_E = lists.items_LN.ravel()
        names = [world.category_name(c, now_ms) for c in range(world.truth.num_categories)]
        code_C = np.array([zlib.crc32(name.encode()) for name in names], np.int64)
        code_C *= sees_categories
        category_E = code_C[world.truth.item_category[items_E]]
        segment_E = world.truth.user_segment[users_E]
        nothing_E = np.zeros_like(items_E)
        pairs = (
            (nothing_E, nothing_E),
            (users_E, nothing_E),
            (nothing_E, items_E),
            (nothing_E, category_E),
            (users_E, category_E),
            (segment_E, category_E),
            (segment_E, items_E),
        )
        return np.stack([_mixed(kind, a, b) for kind, (a, b) in enumerate(pairs)], axis=1)

    def _measure(self, pending: _Pending) -> None:
        """Measure labels that are known by now, then learn from them."""
        for monitor in self._monitors.values():
            observe_batch(
                monitor,
                self._heads,
                pending.label_EH,
                {_VARIANT: pending.score_EH},
                pending.time_ms,
            )
        windows = self._windows.update(pending.label_EH, {_VARIANT: pending.score_EH})
        skew = self._skew.update(pending.served_E, pending.score_EH[:, 0])
        for monitor in self._monitors.values():
            observe_windows(monitor, self._heads, windows, pending.time_ms)
            observe_skew(monitor, skew, pending.time_ms)
        self._model.learn(pending)

    def _observe(self, stream: str, mean: float, examples: int, time_ms: int) -> None:
        for monitor in self._monitors.values():
            monitor.observe(stream, mean, examples, time_ms)


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """E shown items that wait for their labels."""

    time_ms: int
    hashed_EK: NDArray[np.int64]
    score_EH: NDArray[np.float32]
    label_EH: NDArray[np.float32]
    served_E: NDArray[np.float32]


class _Logistic:
    """Logistic regression over hashed inputs, with Adagrad (Duchi et al., JMLR 2011)."""

    _LEARNING_RATE = 0.1

    def __init__(self, num_heads: int) -> None:
        self._weight_BH = np.zeros((_BUCKETS, num_heads))
        self._square_BH = np.ones((_BUCKETS, num_heads))

    def copy(self, other: _Logistic) -> None:
        """Predict from now on what the other would predict now."""
        self._weight_BH[:] = other._weight_BH

    def predict(self, hashed_EK: NDArray[np.int64]) -> NDArray[np.float32]:
        logit_EH = np.clip(self._weight_BH[hashed_EK].sum(axis=1), -30.0, 30.0)
        score_EH: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-logit_EH))).astype(np.float32)
        return score_EH

    def learn(self, pending: _Pending) -> None:
        hashed_EK = pending.hashed_EK
        error_EH = self.predict(hashed_EK) - pending.label_EH
        rows, where = np.unique(hashed_EK, return_inverse=True)
        flat = where.ravel()
        for head in range(error_EH.shape[1]):
            spread = np.repeat(error_EH[:, head], hashed_EK.shape[1])
            gradient_R = np.bincount(flat, spread, minlength=len(rows))
            self._square_BH[rows, head] += gradient_R**2
            step_R = self._LEARNING_RATE * gradient_R / np.sqrt(self._square_BH[rows, head])
            self._weight_BH[rows, head] -= step_R


def _mixed(kind: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a bucket for each pair (SplitMix64's finaliser, Steele et al., OOPSLA 2014)."""
    x = (a.astype(np.uint64) << np.uint64(34)) ^ b.astype(np.uint64) ^ np.uint64(kind << 60)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(_BUCKETS)).astype(np.int64)


def _part(lists: Shown, rows: slice) -> Shown:
    answers = lists.answers
    return Shown(
        lists.users_L[rows],
        lists.times_L[rows],
        lists.items_LN[rows],
        lists.chances_LN[rows],
        Answers(answers.clicked[rows], answers.liked[rows], answers.delays_ms[rows]),
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What one monitor made of the truths of one scenario and seed.

    Attributes:
        delays: events from each truth to the first signal that names it; None where none came.
        false: signals before the first truth began, or without a truth at all.
    """

    delays: tuple[int | None, ...]
    false: int


def judge(watched: Watched, signals: Sequence[DriftSignal]) -> Found:
    """Compare signals with the truths of a scenario.

    A signal counts for a truth when it was given after the truth began and before the next one
    began, on a stream that names it. Events are spread evenly enough to count them by time.
    """
    scenario = watched.scenario
    begins = [scenario.share_ms(truth.at) for truth in scenario.truth]
    delays: list[int | None] = []
    for truth, begin, end in zip(
        scenario.truth, begins, [*begins, scenario.end_ms * 2][1:], strict=True
    ):
        times = [
            signal.time_ms
            for signal in signals
            if begin <= signal.time_ms < end and truth.is_named_by(signal.stream)
        ]
        passed = (min(times) - begin) / scenario.duration_ms if times else None
        delays.append(None if passed is None else round(passed * watched.events))
    first_ms = min(begins, default=2**62)
    return Found(tuple(delays), sum(signal.time_ms < first_ms for signal in signals))


def table(runs: Sequence[Watched]) -> dict[str, Any]:
    """Return, by detector, false signals per million events, and delays and misses by scenario.

    Detectors of fields are judged by their signals among those of all together.
    """
    detectors = sorted({name for run in runs for name in run.signals} - {ALL})
    result: dict[str, Any] = {}
    for name in (*detectors, "psi", "share", ALL):
        still = _StillEvents()
        moved: dict[str, list[int | None]] = defaultdict(list)
        for run in runs:
            signals = run.signals.get(name)
            if signals is None:  # detectors of fields do not run alone
                signals = [one for one in run.signals[ALL] if one.detector == name]
            found = judge(run, signals)
            if run.scenario.truth:
                moved[run.scenario.id] += found.delays
            else:
                still.events += run.events
                still.signals += found.false
        result[name] = {
            "false_signals": still.signals,
            "stationary_events": still.events,
            "false_per_million": round(still.signals * _MILLION / max(still.events, 1), 2),
            "scenarios": {key: _delays(delays) for key, delays in moved.items()},
        }
    return result


@dataclass(slots=True)
class _StillEvents:
    events: int = 0
    signals: int = 0


def _delays(delays: Sequence[int | None]) -> dict[str, Any]:
    known = sorted(delay for delay in delays if delay is not None)
    return {
        "truths": len(delays),
        "missed": len(delays) - len(known),
        "median_delay_events": int(np.median(known)) if known else None,
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table as a page shows it: median delay in events, and what was missed."""
    names = list(result)
    scenarios = list(result[ALL]["scenarios"])
    lines = [
        f"| scenario | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
        "| false signals per million events |"
        + "".join(f" {result[name]['false_per_million']:g} |" for name in names),
    ]
    for scenario in scenarios:
        cells = [_cell(result[name]["scenarios"][scenario]) for name in names]
        lines.append(f"| {scenario} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: dict[str, Any]) -> str:
    if found["missed"] == found["truths"]:
        return "-"
    missed = f" ({found['missed']} of {found['truths']} missed)" if found["missed"] else ""
    return f"{found['median_delay_events']:,}{missed}"


def jobs(seeds: int, scenario_seeds: int) -> Iterator[Scenario]:
    """Return every scenario to run: the stationary one with many seeds, the others with a few."""
    for seed in range(1, seeds + 1):
        yield SCENARIOS["stationary"].reseeded(seed)
    for scenario in TABLE_SCENARIOS.values():
        for seed in range(1, scenario_seeds + 1):
            yield scenario.reseeded(seed)


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Run everything, print the table, and return 0 when false signals are rare enough."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the stationary scenario")
    parser.add_argument("--scenario-seeds", type=int, default=2, help="seeds of each other one")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    given = parser.parse_args(arguments)
    configs = monitors_of(Settings().drift)
    runs: list[Watched] = []
    todo = list(jobs(given.seeds, given.scenario_seeds))
    book = logging.getLogger("monitoring.signal_book")
    level = book.level
    book.setLevel(logging.ERROR)  # signals are counted here, not announced
    try:
        for number, scenario in enumerate(todo, start=1):
            runs.append(watch(scenario, configs))
            told = ", ".join(sorted({one.stream for one in runs[-1].signals[ALL]})) or "nothing"
            sys.stderr.write(f"{number}/{len(todo)} {scenario.id} {scenario.seed}: {told}\n")
    finally:
        book.setLevel(level)
    result = table(runs)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    say(markdown(result))
    return 0 if result[ALL]["false_per_million"] <= 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
