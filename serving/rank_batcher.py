"""Rankings of several requests in one pass: what queued while the one before was computed.

Nobody waits for others to come. A request that finds the ranker idle is ranked at once, alone.
Those that come meanwhile are ranked together when it is free again: one of them does it for all.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from domain.errors import DeadlineExceededError
from domain.requests import CapturedRequest, RankingScores
from serving import cancellation
from serving.admission import Deadline
from serving.live_models import LiveModels

_LOOK_S = 0.05
"""How often who waits looks whether its caller is still there."""

_MOST = 16
"""Requests ranked together: beyond, a batch only makes everybody in it wait longer."""

_MOST_ROWS = 2_000
"""Items ranked together, unless one request alone has more. Beyond, little is won (measured: eight
requests of 500 items took 3.4 ms each in one pass, 3.1 in two), and the first ones wait longer."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request to rank, and what became of it.

    Attributes:
        woken: set when there is an outcome, or when it is this request's turn to rank.
    """

    models: LiveModels
    captured: CapturedRequest
    woken: threading.Event = field(default_factory=threading.Event)
    scores: RankingScores | None = None
    error: Exception | None = None


class RankBatcher:
    """Ranks for many threads, one batch at a time.

    Args:
        max_wait_s: longest that a request waits for the batch before its own; then it ranks alone.
            0 ranks every request alone, beside others.
        observe_size: told how many requests each pass had.
    """

    def __init__(
        self, max_wait_s: float, observe_size: Callable[[int], None] = lambda _size: None
    ) -> None:
        self._max_wait_s = max_wait_s
        self._observe_size = observe_size
        self._lock = threading.Lock()
        self._queue: list[_Waiting] = []
        self._busy = False

    def predict(
        self, models: LiveModels, captured: CapturedRequest, deadline: Deadline
    ) -> RankingScores:
        """Return the scores of a request, ranked alone or with others.

        Raises:
            DeadlineExceededError: its deadline passed while it waited.
            CallCancelledError: its caller went away while it waited.
            Whatever the ranker raises of this very request; never what it raises of others.
        """
        if self._max_wait_s <= 0.0:
            self._observe_size(1)
            return _alone(models, captured)
        mine = _Waiting(models, captured)
        with self._lock:
            self._queue.append(mine)
            leads, self._busy = not self._busy, True
        if not leads and not self._wait(mine, deadline):
            self._observe_size(1)
            return _alone(models, captured)
        if mine.scores is None and mine.error is None:
            self._lead()
        if mine.error is not None:
            raise mine.error
        assert mine.scores is not None
        return mine.scores

    def _wait(self, mine: _Waiting, deadline: Deadline) -> bool:
        """Wait for an outcome or for one's turn; False: rank alone, it took too long."""
        left_s = self._max_wait_s
        while not mine.woken.wait(min(left_s, deadline.remaining_s(), _LOOK_S)):
            left_s -= _LOOK_S
            if left_s > 0.0 and deadline.remaining_s() > 0.0 and cancellation.wanted():
                continue
            if not self._withdrawn(mine):
                mine.woken.wait()  # it is being ranked, or about to rank
                return True
            if deadline.remaining_s() <= 0.0:
                raise DeadlineExceededError("the deadline passed before ranking")
            cancellation.check("ranking")
            return False
        return True

    def _withdrawn(self, mine: _Waiting) -> bool:
        """Leave the queue; False when a batch has taken this request already, or its turn came."""
        with self._lock:
            if mine not in self._queue or mine.woken.is_set():
                return False
            self._queue.remove(mine)
            return True

    def _lead(self) -> None:
        """Rank all who wait for the same models as the first, then hand on to who came since."""
        with self._lock:
            models = self._queue[0].models
            batch = _first([one for one in self._queue if one.models is models])
            for one in batch:
                self._queue.remove(one)
        try:
            self._rank(models, batch)
        finally:
            with self._lock:
                if self._queue:
                    self._queue[0].woken.set()
                else:
                    self._busy = False

    def _rank(self, models: LiveModels, batch: Sequence[_Waiting]) -> None:
        self._observe_size(len(batch))
        try:
            with models.weights_lock.read():
                all_scores = models.ranker.predict([one.captured for one in batch])
            for one, scores in zip(batch, all_scores, strict=True):
                one.scores = scores
        except Exception as error:  # noqa: BLE001 - raised again by whom it concerns
            if len(batch) == 1:
                batch[0].error = error
            else:
                self._rank_each(models, batch)
        finally:
            for one in batch:
                one.woken.set()

    def _rank_each(self, models: LiveModels, batch: Sequence[_Waiting]) -> None:
        """Find out of which request a batch failed."""
        for one in batch:
            try:
                one.scores = _alone(models, one.captured)
            except Exception as error:  # noqa: BLE001 - raised again by whom it concerns
                one.error = error


def _first(waiting: list[_Waiting]) -> list[_Waiting]:
    """Return as many as go into one pass."""
    rows = list(itertools.accumulate(len(one.captured.item_ids) for one in waiting))
    return waiting[: max(sum(so_far <= _MOST_ROWS for so_far in rows[:_MOST]), 1)]


def _alone(models: LiveModels, captured: CapturedRequest) -> RankingScores:
    with models.weights_lock.read():
        return models.ranker.predict([captured])[0]
