"""Rankings together: nobody waits when idle, each gets its own, errors stay apart."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from domain.clock import SystemClock
from domain.errors import CallCancelledError, DeadlineExceededError, ModelError
from domain.requests import CapturedRequest, RankingScores
from serving import cancellation
from serving.admission import Deadline
from serving.live_models import LiveModels
from serving.rank_batcher import RankBatcher
from tests.unit.serving.running_server import until
from tests.unit.serving.worlds import NumberRanker, make_models

LONG_S = 30.0


class GatedRanker(NumberRanker):
    """Stands still in the pass of "slow" until the gate is opened, of "slower" until the second.

    "bad" spoils its whole pass.
    """

    def __init__(self, scale: float = 0.01) -> None:
        super().__init__(scale)
        self.gate = threading.Event()
        self.second_gate = threading.Event()
        self.passes: list[tuple[str, ...]] = []

    def predict(self, captured: Any) -> list[RankingScores]:
        users = tuple(one.user_id for one in captured)
        self.passes.append(users)
        if "slow" in users:
            assert self.gate.wait(LONG_S)
        if "slower" in users:
            assert self.second_gate.wait(LONG_S)
        if "bad" in users:
            raise ModelError(f"a pass of {len(users)} failed")
        return super().predict(captured)


class World:
    """A batcher whose first pass stands still."""

    def __init__(self, pool: ThreadPoolExecutor, max_wait_s: float = LONG_S) -> None:
        self.ranker = GatedRanker()
        self.models = make_models(ranker=self.ranker)
        self.sizes: list[int] = []
        self.batcher = RankBatcher(max_wait_s, self.sizes.append)
        self._pool = pool
        self.slow = self.ask("slow", 1)
        until(lambda: self.ranker.passes == [("slow",)])

    def ask(self, user_id: str, number: int, **facts: Any) -> Future[float]:
        return self._pool.submit(self._ask, user_id, number, **facts)

    def queued(self, count: int) -> None:
        until(lambda: len(self.batcher._queue) == count)

    def _ask(
        self,
        user_id: str,
        number: int,
        *,
        models: LiveModels | None = None,
        items: int = 1,
        seconds: float = LONG_S,
        wanted: threading.Event | None = None,
    ) -> float:
        if wanted is not None:
            cancellation.begin(wanted.is_set)
        numbers = {"numbers": np.full(items, number, np.float32)}
        captured = CapturedRequest(user_id, (f"i{number}",) * items, 1, numbers)
        deadline = Deadline(SystemClock(), seconds)
        scores = self.batcher.predict(models or self.models, captured, deadline)
        return float(scores.probabilities[0, 0])


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(24) as pool:
        yield pool


def test_idle_ranker_ranks_at_once_and_alone(pool: ThreadPoolExecutor) -> None:
    world = World(pool)
    world.ranker.gate.set()
    assert world.slow.result() == pytest.approx(0.01)
    for number in range(5):
        assert world.ask("u", number).result() == pytest.approx(number / 100)
    assert world.sizes == [1] * 6


def test_what_queued_is_ranked_together_and_each_gets_its_own(pool: ThreadPoolExecutor) -> None:
    world = World(pool)
    asked = [world.ask(f"u{number}", number) for number in range(7)]
    world.queued(7)
    world.ranker.gate.set()
    assert [one.result() for one in asked] == pytest.approx([n / 100 for n in range(7)])
    assert world.sizes == [1, 7]


def test_most_are_ranked_in_several_passes(pool: ThreadPoolExecutor) -> None:
    world = World(pool)
    asked = [world.ask(f"u{number}", number) for number in range(20)]
    world.queued(20)
    world.ranker.gate.set()
    assert [one.result() for one in asked] == pytest.approx([n / 100 for n in range(20)])
    assert world.sizes == [1, 16, 4]


def test_pass_has_no_more_items_than_is_good_for_it(pool: ThreadPoolExecutor) -> None:
    world = World(pool)
    asked = [world.ask(f"u{number}", 1, items=900) for number in range(5)]
    world.queued(5)
    world.ranker.gate.set()
    assert [one.result() for one in asked] == pytest.approx([0.01] * 5)
    assert world.sizes == [1, 2, 2, 1]


def test_one_that_is_being_ranked_waits_without_work_however_long(
    pool: ThreadPoolExecutor,
) -> None:
    world = World(pool, max_wait_s=0.2)
    asked = [world.ask("slower", number) for number in range(3)]
    world.queued(3)
    world.ranker.gate.set()
    until(lambda: ("slower",) * 3 in world.ranker.passes)
    time.sleep(0.4)  # longer than any of them would have waited in the queue
    before_s = time.process_time()
    time.sleep(0.5)
    spent_s = time.process_time() - before_s
    world.ranker.second_gate.set()
    assert [one.result(LONG_S) for one in asked] == pytest.approx([0.0, 0.01, 0.02])
    assert spent_s < 0.1
    assert world.sizes == [1, 3]


def test_error_of_one_is_told_to_that_one_alone(pool: ThreadPoolExecutor) -> None:
    world = World(pool)
    asked = [world.ask(name, 5) for name in ("u1", "bad", "u2")]
    world.queued(3)
    world.ranker.gate.set()
    assert asked[0].result() == asked[2].result() == pytest.approx(0.05)
    with pytest.raises(ModelError, match="a pass of 1 failed"):
        asked[1].result()
    assert world.ask("u3", 6).result() == pytest.approx(0.06)


def test_deadline_of_one_that_waits_is_kept_and_others_are_ranked(
    pool: ThreadPoolExecutor,
) -> None:
    world = World(pool)
    late, patient = world.ask("late", 1, seconds=0.1), world.ask("patient", 2)
    with pytest.raises(DeadlineExceededError):
        late.result(LONG_S)
    world.ranker.gate.set()
    assert patient.result() == pytest.approx(0.02)
    assert ("late",) not in world.ranker.passes


def test_one_whose_caller_has_gone_gives_up_its_place(pool: ThreadPoolExecutor) -> None:
    world = World(pool)
    wanted = threading.Event()
    wanted.set()
    gone = world.ask("gone", 1, wanted=wanted)
    world.queued(1)
    wanted.clear()
    with pytest.raises(CallCancelledError):
        gone.result(LONG_S)
    world.ranker.gate.set()
    world.slow.result()
    assert world.ranker.passes == [("slow",)]


def test_one_that_waited_long_enough_is_ranked_alone(pool: ThreadPoolExecutor) -> None:
    world = World(pool, max_wait_s=0.05)
    assert world.ask("impatient", 3).result(LONG_S) == pytest.approx(0.03)
    assert not world.slow.done()
    world.ranker.gate.set()
    world.slow.result()
    assert world.ranker.passes == [("slow",), ("impatient",)]


def test_models_that_were_swapped_are_not_mixed(pool: ThreadPoolExecutor) -> None:
    world = World(pool)
    newer = make_models("s2", ranker=GatedRanker(scale=0.02))
    asked = [
        world.ask(f"u{number}", 3, models=newer if number % 2 else None) for number in range(6)
    ]
    world.queued(6)
    world.ranker.gate.set()
    assert [one.result() for one in asked] == pytest.approx([0.03, 0.06] * 3)
    assert sorted(world.sizes) == [1, 3, 3]


def test_switched_off_rankings_run_side_by_side(pool: ThreadPoolExecutor) -> None:
    world = World(pool, max_wait_s=0.0)
    assert world.ask("u", 4).result(LONG_S) == pytest.approx(0.04)
    assert not world.slow.done()
    world.ranker.gate.set()
    world.slow.result()


def test_crowd_gets_every_answer_right_whatever_is_given_up(pool: ThreadPoolExecutor) -> None:
    world = World(pool, max_wait_s=0.02)
    world.ranker.gate.set()
    numbers = itertools.count()
    lock = threading.Lock()
    wrong: list[Any] = []

    def crowd() -> None:
        for _ in range(150):
            with lock:
                number = next(numbers)
            seconds = 0.001 if number % 11 == 0 else LONG_S
            name = "bad" if number % 7 == 0 else "u"
            try:
                got = world._ask(name, number % 100, seconds=seconds)
            except ModelError:
                right = name == "bad"
            except DeadlineExceededError:
                right = seconds < 1.0
            else:
                right = name == "u" and abs(got - (number % 100) / 100) < 1e-6
            if not right:
                wrong.append(number)
            time.sleep(0.0)

    for one in [pool.submit(crowd) for _ in range(12)]:
        one.result()
    assert wrong == []
    assert world.batcher._queue == []
    assert not world.batcher._busy
