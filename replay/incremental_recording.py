"""Slots: what was shown after a base model had learned its part, captured with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from domain.errors import DatasetError
from domain.examples import LabeledRequest, LearnReport
from domain.learners import RankingLearner
from domain.requests import (
    CapturedRequest,
    RankingRequest,
    RankingScores,
)
from domain.state import State
from monitoring.session_ids import SessionIds


@dataclass(slots=True, eq=False)
class ShownList:
    """A captured request of a slot, with the labels that settled, by row; H heads."""

    captured: CapturedRequest
    session: int
    labels: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def labeled(self) -> LabeledRequest:
        """Return it with everything that settled, for training."""
        items_M = np.array(sorted(self.labels), np.int64)
        return LabeledRequest(
            captured=self.captured,
            item_indices=items_M,
            labels=np.array([self.labels[item] for item in items_M.tolist()], np.float32),
            roles=tuple("final" for _ in items_M),
            log_sampling_rates=np.zeros(len(items_M), np.float32),
            revealed_ms=self.captured.time_ms,
        )


class SlotRecorder:
    """A ranker that learns from the first lists of a log and only records the later ones.

    To be led through the train loop in the ranker's place. Features are captured as they always
    are, counters of the moment among them (unless they are to stop with the base), so that every
    method is given the same.

    What is shown after the base has learned is not scored here: the loop is told a half for all.
    """

    def __init__(
        self,
        model: RankingLearner,
        sessions: SessionIds,
        num_base_lists: int,
        shape: tuple[int, int],
        live_counters: bool,
    ) -> None:
        """Lead `model` in.

        Args:
            model: the base.
            sessions: numbers the sessions as the loop does.
            num_base_lists: lists that the base learns from.
            shape: number of label heads, width of a hidden state.
            live_counters: whether label counters go on after the base's part.
        """
        self._model = model
        self._sessions = sessions
        self._num_base_lists = num_base_lists
        self._num_heads, self._hidden_size = shape
        self._live_counters = live_counters
        self._num_lists = 0
        self._later: dict[int, ShownList] = {}

    def capture(self, request: RankingRequest) -> CapturedRequest:
        """Encode a request; keep it when the base is not to learn it."""
        captured = self._model.capture(request)
        session = self._sessions.assign(request.user.user_id, request.time_ms)
        self._num_lists += 1
        if self._num_lists > self._num_base_lists:
            # By identity: the list keeps what it is known by alive.
            self._later[id(captured)] = ShownList(captured, session)
        return captured

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score what the base learns from; see the class for the rest."""
        own = [one for one in captured if id(one) not in self._later]
        scored = iter(self._model.predict(own) if own else ())
        return [self._unscored(one) if id(one) in self._later else next(scored) for one in captured]

    def _unscored(self, captured: CapturedRequest) -> RankingScores:
        num_items = len(captured.item_ids)
        return RankingScores(
            probabilities=np.full((num_items, self._num_heads), 0.5, np.float32),
            hidden=np.zeros((num_items, self._hidden_size), np.float32),
        )

    def observe(self, request: LabeledRequest) -> None:
        """Count labels that stand, and keep those of later lists."""
        shown = self._later.get(id(request.captured))
        if shown is None or self._live_counters:
            self._model.observe(request)
        if shown is None:
            return
        if request.log_sampling_rates.any():
            raise DatasetError("incremental: expected lists that were shown, got sampled negatives")
        rows = zip(request.item_indices.tolist(), request.labels.tolist(), strict=True)
        shown.labels.update((item, tuple(labels)) for item, labels in rows)

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Learn what belongs to the base, whenever its labels come."""
        return self._model.learn([one for one in batch if id(one.captured) not in self._later])

    def slots(self, num_slots: int) -> list[list[ShownList]]:
        """Return the later lists that have labels, in order of time, cut into equal slots.

        Raises:
            DatasetError: there are fewer lists than slots.
        """
        lists = sorted(
            (one for one in self._later.values() if one.labels),
            key=lambda one: one.captured.time_ms,
        )
        if len(lists) < num_slots:
            raise DatasetError(
                f"incremental: expected at least {num_slots} labelled lists after the base's part, "
                f"got {len(lists)}"
            )
        ends = np.cumsum([len(one.labels) for one in lists])
        slot_of = np.minimum((ends - 1) * num_slots // int(ends[-1]), num_slots - 1)
        slots: list[list[ShownList]] = [[] for _ in range(num_slots)]
        for one, slot in zip(lists, slot_of.tolist(), strict=True):
            slots[slot].append(one)
        return slots

    def save(self) -> State:
        """Return the model's state: what was recorded is never resumed."""
        return self._model.save()

    def load(self, state: State) -> None:
        """Let the model become what `save` described."""
        self._model.load(state)

    def take_delta(self) -> State:
        """Return what changed in the model."""
        return self._model.take_delta()

    def follow(self) -> None:
        """Let the model become a twin."""
        self._model.follow()

    def check_delta(self, state: State) -> None:
        """Check a delta of the model."""
        self._model.check_delta(state)

    def apply_delta(self, state: State) -> None:
        """Apply a delta of the model."""
        self._model.apply_delta(state)
