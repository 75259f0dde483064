"""Live queries to an index that keeps finding what it should: measured, tuned, made anew aside.

A share of live queries is answered exactly as well, by one thread that rests most of the time.
After a window of them the number of lists that a query searches becomes the smallest that holds
the target; and when the lists are worn, or holding the target takes twice as many as it took when
they were new, new ones are made beside the live ones and swapped in.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from domain.clock import Clock
from domain.errors import ConfigError, NotReadyError
from monitoring.index_metrics import IndexMetrics
from serving.live_models import LiveModels, LiveModelSlot

_logger = logging.getLogger(__name__)

# Numbers of lists tried, relative to the present one: steps of a factor 1.4, farther upwards, where
# every query is worse off until the target is reached again.
_LADDER = (0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
# Fewer lists must hold the target by this much: the mean of a hundred queries is only so sure.
_MARGIN = 0.005
_WORN_FACTOR = 2.0


class KeptIndex(Protocol):
    """The index of one bundle; takes the locks it needs. Questions are its own business."""

    @property
    def num_lists(self) -> int:
        """Return how many lists there are, 0 while every search is complete."""

    @property
    def probes(self) -> int:
        """Return how many lists a query searches, 0 while every search is complete."""

    @property
    def is_worn(self) -> bool:
        """Return whether the lists no longer fit what they hold."""

    def keep_queries(self, every: int) -> None:
        """Keep one live query in so many for `take_question`."""

    def take_question(self) -> Any:
        """Return a live query that waits to be asked again, None when none does."""

    def recalls(self, question: Any, probes: Sequence[int]) -> list[float]:
        """Return what share of a question's exact answer each number of lists finds."""

    def set_probes(self, probes: int) -> None:
        """Let queries search so many lists from now on."""

    def retrain(self) -> bool:
        """Make new lists aside and swap them in whole; say whether that was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexKeeperConfig:
    """How the retrieval index is looked after while it serves.

    Attributes:
        probe_share: share of live queries that are answered exactly as well.
        window: queries that recall is the mean of; after as many, lists are tuned.
        target_recall: share of the exact answer that searches are to find.
        core_share: most of one core that measuring and tuning may take; the rest of the time the
            keeper rests. Making lists anew is not bounded by it.
        poll_ms: time between two looks for queries.
    """

    probe_share: float = 0.01
    window: int = 100
    target_recall: float = 0.95
    core_share: float = 0.05
    poll_ms: int = 200

    def __post_init__(self) -> None:
        for name in ("window", "poll_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"index_keeper.{name} must be at least 1, got {getattr(self, name)}"
                )
        for name in ("probe_share", "target_recall", "core_share"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"index_keeper.{name} must be above 0 and at most 1, got {getattr(self, name)}"
                )


class IndexKeeper:
    """Looks after the index of whatever bundle is live."""

    def __init__(
        self,
        slot: LiveModelSlot,
        index_of: Callable[[LiveModels], KeptIndex],
        clock: Clock,
        config: IndexKeeperConfig,
        metrics: IndexMetrics,
    ) -> None:
        self._slot = slot
        self._index_of = index_of
        self._clock = clock
        self._config = config
        self._metrics = metrics
        self._models: LiveModels | None = None
        self._index: KeptIndex | None = None
        self._recalls: deque[float] = deque(maxlen=config.window)
        self._questions: deque[Any] = deque(maxlen=config.window)
        self._since_tuned = 0
        self._tuned: int | None = None
        self._new_probes: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-keeper", daemon=True)

    def start(self) -> None:
        """Start looking after the index."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for what is being done."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look_once(self) -> bool:
        """Answer one waiting query exactly, and see to the index when a window is full.

        Returns:
            Whether a query was waiting.
        """
        index = self._live_index()
        question = None if index is None else index.take_question()
        if index is None or question is None:
            return False
        probes = index.probes
        self._recalls.append(self._asked(index, question, [probes])[0])
        self._questions.append(question)
        self._metrics.asked_again.inc()
        self._metrics.recall.set(math.fsum(self._recalls) / len(self._recalls))
        self._metrics.probed_lists.set(probes)
        self._since_tuned += 1
        if self._since_tuned >= self._config.window:
            self._since_tuned = 0
            self._see_to(index)
        return True

    def _live_index(self) -> KeptIndex | None:
        """Return the live bundle's index; a new bundle's searches as many lists as the last's."""
        try:
            models = self._slot.current()
        except NotReadyError:
            return None
        if models is not self._models:
            index = self._index_of(models)
            index.keep_queries(round(1 / self._config.probe_share))
            if self._tuned is not None:
                index.set_probes(self._tuned)
            self._models, self._index = models, index
            self._forget()
        return self._index

    def _forget(self) -> None:
        """Start a new window: what was asked before says nothing about these lists."""
        self._recalls.clear()
        self._questions.clear()
        self._since_tuned, self._new_probes = 0, None

    def _see_to(self, index: KeptIndex) -> None:
        if not index.num_lists:
            return
        probes, holds = self._tune(index)
        if holds and self._new_probes is None:
            self._new_probes = probes
        takes_more = self._new_probes is not None and probes >= _WORN_FACTOR * self._new_probes
        if not index.is_worn and not takes_more:
            return
        started_s = self._clock.stopwatch_s()
        if index.retrain():
            self._metrics.retrainings.inc()
            seconds = round(self._clock.stopwatch_s() - started_s, 2)
            _logger.info("index lists made anew", extra={"took_s": seconds})
        self._forget()

    def _tune(self, index: KeptIndex) -> tuple[int, bool]:
        """Search the smallest number of lists that holds the target, or the most that were tried.

        Returns:
            That number, and whether it holds the target.
        """
        now, most = index.probes, index.num_lists
        ladder = sorted({min(max(round(now * step), 1), most) for step in _LADDER})
        sums = [0.0] * len(ladder)
        for question in self._questions:
            found = self._asked(index, question, ladder)
            sums = [total + one for total, one in zip(sums, found, strict=True)]
        probes, holds = ladder[-1], False
        for tried, total in zip(ladder, sums, strict=True):
            needed = self._config.target_recall + (_MARGIN if tried < now else 0.0)
            if total / len(self._questions) >= needed:
                probes, holds = tried, True
                break
        if probes != now:
            index.set_probes(probes)
            _logger.info("index searches other lists", extra={"was": now, "now": probes})
        self._tuned = probes
        self._metrics.probed_lists.set(probes)
        return probes, holds

    def _asked(self, index: KeptIndex, question: Any, probes: Sequence[int]) -> list[float]:
        """Ask again, then rest for so long that no more than our share of a core is taken."""
        started_s = self._clock.stopwatch_s()
        found = index.recalls(question, probes)
        took_s = self._clock.stopwatch_s() - started_s
        self._stopping.wait(took_s * (1.0 / self._config.core_share - 1.0))
        return found

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                waited = self.look_once()
            except Exception:
                # Searches go on without care; whatever it was must not end the keeper.
                _logger.exception("index keeper failed")
                waited = False
            if not waited:
                self._stopping.wait(self._config.poll_ms / 1_000)
