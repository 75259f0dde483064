"""One run: a log, trainers that are killed one after the other, and the verdict on them."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deploy.kafka.broker import KafkaBroker
from replay.simulator import simulate
from tests.faults.backends import SqliteTestLog, TestLog, fill, kafka_test_log, read_all
from tests.faults.disturbance import Crashes, Producer, RunError
from tests.faults.fault_worlds import Stream, train_arguments
from tests.faults.launcher import Plan
from tests.faults.lives import KILLED, Life, Zygote, start_in_full
from tests.faults.points import POINTS, RANDOM
from tests.faults.producer import acknowledged_ids, order
from tests.faults.verdict import Verdict, compare, judge, outcome_of

PRODUCER = "the producer, while it appends"
_LIFE_S = 120.0
"""Longest life of a trainer that nobody kills: these logs are learned in seconds."""
_PATIENCE_S = 8.0
"""How long a trainer on a live log may take to reach the point at which it is to die; for four
seconds of it the broker may be away."""
_FILLED_PATIENCE_S = 2.5
"""The same on a log that was filled before: to its end would take a trainer a few times as long,
and nobody is left to be killed then."""
_LOADING_SHARE = 0.2
"""Share of the random kills that come while the process still loads; the others come later."""
_LOADING_S = 0.6
_LEARNING_S = 1.0
_START_S = 60.0
"""Longest wait for the first word of a trainer, which is that it has resumed or published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run is made of.

    Attributes:
        live: whether the log is written while it is read; otherwise it is filled before.
        points: where trainers are killed, one after the other.
        broker_kills: how often the broker is killed meanwhile.
        producer_kills: how often the producer of a live run is.
        in_full: which trainers, by number, are started in full instead of forked.
        mutation: a mistake built into the trainers that are killed; "" for none.
        first_call: a trainer kills itself at this call of its point, or a later one.
        rate: records per second that the producer of a live run appends.
    """

    name: str
    stream: Stream
    policy: str
    points: tuple[str, ...]
    live: bool = False
    broker_kills: int = 0
    producer_kills: int = 0
    in_full: frozenset[int] = frozenset()
    mutation: str = ""
    first_call: int = 1
    rate: float = 80.0


@dataclass(slots=True)
class RunResult:
    """What came of a run.

    Attributes:
        kills: by point.
        unused: points that the log did not bring a trainer to.
    """

    plan: RunPlan
    backend: str
    kills: Counter[str] = field(default_factory=Counter)
    broker_kills: int = 0
    records: int = 0
    seconds: float = 0.0
    unused: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs are made.

    Attributes:
        broker: of the runs on Kafka; None for runs on the embedded log.
    """

    folder: Path
    zygote: Zygote
    broker: KafkaBroker | None = None


def make_run(plan: RunPlan, place: Place) -> RunResult:
    """Make a run.

    1. Fill the log or, in a live run, let a producer begin.
    2. Start trainers and kill them; kill the broker and the producer meanwhile.
    3. Let a last trainer come to the end of the log.
    4. Compare what it holds with the log, and with what nobody disturbed.

    What went wrong is in the verdict; the folder is kept then.
    """
    began = time.monotonic()
    folder = place.folder / plan.name
    folder.mkdir(parents=True)
    test_log: TestLog = SqliteTestLog(folder / "events.sqlite")
    if place.broker is not None:
        test_log = kafka_test_log(place.broker, plan.name)
    run = _Run(plan, place, test_log)
    try:
        run.disturb()
        run.judge()
    except RunError as error:
        run.result.verdict.unequal.append(str(error))
    run.result.seconds = time.monotonic() - began
    if run.result.verdict.clean:
        shutil.rmtree(folder)
    return run.result


class _Run:
    def __init__(self, plan: RunPlan, place: Place, test_log: TestLog) -> None:
        self.result = RunResult(plan, test_log.backend)
        self._plan = plan
        self._place = place
        self._log = test_log
        self._folder = place.folder / plan.name
        self._data_dir = self._folder / "killed"
        self._rng = np.random.default_rng([plan.stream.seed, plan.stream.num_lists])
        self._lives = 0

    @property
    def _acknowledged(self) -> Path:
        return self._folder / "acknowledged"

    def disturb(self) -> None:
        """Let trainers learn and be killed, until the last one has come to the end."""
        plan = self._plan
        with Crashes(self._place.broker, plan.broker_kills, self._rng) as crashes:
            if plan.live:
                self._kill_live(crashes)
            else:
                fill(self._log, list(simulate(plan.stream.scenario)))
                crashes.begin()
                self._kill_all()
        self.result.broker_kills = crashes.done
        self._finish(self._data_dir, plan.mutation)

    def judge(self) -> None:
        """Compare with the log, and with a run over the same log that nobody disturbed."""
        records, letters = read_all(self._log)
        self.result.records = len(records)
        acknowledged = acknowledged_ids(self._acknowledged)
        outcome = outcome_of(self._data_dir)
        self.result.verdict = verdict = judge(outcome, records, letters, acknowledged)
        if self._plan.live and self._log.backend == "kafka":
            # Partitions read while they are written meet in an order that only the journal knows.
            self._replay_journal(verdict)
            return
        undisturbed = self._folder / "undisturbed"
        self._finish(undisturbed)
        compare(outcome, outcome_of(undisturbed), verdict)

    def _kill_all(self) -> None:
        points = list(self._plan.points)
        while points and self._one_life(points[0], until_end=True):
            points.pop(0)
        self.result.unused += points

    def _kill_live(self, crashes: Crashes) -> None:
        plan = self._plan
        task = order(plan.stream, self._log, self._acknowledged, plan.rate)
        producer = Producer(task, plan.producer_kills, self._place.zygote, self._rng)
        crashes.begin()
        points = list(plan.points)
        while points or not (producer.ended and crashes.ended):
            self._one_life(points.pop(0) if points else RANDOM, until_end=False)
            self.result.kills[PRODUCER] += producer.care()

    def _one_life(self, point: str, *, until_end: bool) -> bool:
        """Let a trainer live until it is killed; False when it came to the log's end before."""
        in_full = self._lives in self._plan.in_full
        life = self._start(point, until_end=until_end, in_full=in_full)
        if point == RANDOM:
            self._kill_at_random(life)
        else:
            life.wait_for_a_word(_START_S)
            if life.wait(_FILLED_PATIENCE_S if until_end else _PATIENCE_S) is None:
                self.result.unused.append(point)
                point = RANDOM
                life.kill()
        status = life.wait(_LIFE_S)
        if status == 0 and until_end:
            return False
        if status == KILLED:
            self.result.kills[point] += 1
        else:
            raise RunError(f"a trainer ended with {status}: {life.said[-600:]}")
        return True

    def _kill_at_random(self, life: Life) -> None:
        if self._rng.random() < _LOADING_SHARE:
            life.wait(float(self._rng.uniform(0.0, _LOADING_S)))
        else:
            life.wait_for_a_word(_START_S)
            life.wait(float(self._rng.uniform(0.0, _LEARNING_S)))
        life.kill()

    def _start(self, point: str, *, until_end: bool, in_full: bool) -> Life:
        self._lives += 1
        call = 0
        if point != RANDOM:
            call = int(self._rng.integers(self._plan.first_call, POINTS[point].calls + 1))
        plan = Plan(
            arguments=self._arguments(self._data_dir, until_end=until_end),
            point="" if point == RANDOM else point,
            call=call,
            mutation=self._plan.mutation,
        )
        start = start_in_full if in_full else self._place.zygote.start
        return start(plan, self._folder / f"life-{self._lives}.log")

    def _finish(self, data_dir: Path, mutation: str = "") -> None:
        """Let a trainer learn to the end of the log."""
        plan = Plan(arguments=self._arguments(data_dir, until_end=True), mutation=mutation)
        life = self._place.zygote.start(plan, self._folder / f"{data_dir.name}.log")
        _expect_success(life)

    def _replay_journal(self, verdict: Verdict) -> None:
        """Learn the same log again in the order of the journal; the command compares the bits."""
        settings = [word for one in self._log.settings for word in ("--set", one)]
        journal = str(self._data_dir / "journal")
        plan = Plan(arguments=("replay", "--journal", journal, "--log", self._log.url, *settings))
        life = self._place.zygote.start(plan, self._folder / "replay.log")
        if life.wait(_LIFE_S) != 0:
            verdict.unequal.append(f"the replay of the journal ended with {life.status}")

    def _arguments(self, data_dir: Path, *, until_end: bool) -> tuple[str, ...]:
        plan = self._plan
        extra = ("--until-end",) if until_end else ()
        return train_arguments(data_dir, plan.stream, self._log, plan.policy, extra)


def _expect_success(life: Life) -> None:
    status = life.wait(_LIFE_S)
    if status != 0:
        life.kill()
        raise RunError(f"{life.output.name} ended with {status}: {life.said[-600:]}")
