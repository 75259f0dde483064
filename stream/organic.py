"""Organic feedback: actions without an impression, with negatives sampled inside the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domain.events import Feedback
from domain.examples import JoinedExample
from domain.state import State
from stream.columns import split_list
from stream.label_heads import LabelHeads, labels_of
from stream.negative_sampler import Draw, NegativeSampler


@dataclass(frozen=True, slots=True, eq=False)
class OrganicGroup:
    """An organic action and the negatives drawn for it.

    Attributes:
        item_ids: the item acted on, then the negatives.
        decided: bits of the heads the feedback decides.
        positive: bits of those that are positive.
    """

    group_id: str
    user_id: str
    item_ids: tuple[str, ...]
    time_ms: int
    decided: int
    positive: int
    log_sampling_rate: float

    def examples(self, num_heads: int, revealed_ms: int) -> list[JoinedExample]:
        """Return the labelled examples: heads the feedback says nothing of are NaN.

        Negatives are "no" for the heads that are positive. A "no" to the acted item itself was
        heard, not sampled: beside sampled negatives it is an example of its own, with rate 1.
        """
        heard, rate = self.decided, self.log_sampling_rate
        examples = []
        if rate != 0.0 and self.decided != self.positive:
            heard = self.positive
            said_no = self.decided & ~self.positive
            examples.append(self._example(0, labels_of(num_heads, said_no, 0), revealed_ms, 0.0))
        labels = labels_of(num_heads, heard, self.positive)
        examples.append(self._example(0, labels, revealed_ms, rate))
        labels = labels_of(num_heads, self.positive, 0)
        negatives = range(1, len(self.item_ids))
        return examples + [self._example(at, labels, revealed_ms, rate) for at in negatives]

    def _example(
        self, index: int, labels: tuple[float, ...], revealed_ms: int, rate: float
    ) -> JoinedExample:
        return JoinedExample(
            impression_id=self.group_id,
            item_index=index,
            user_id=self.user_id,
            item_id=self.item_ids[index],
            shown_ms=self.time_ms,
            revealed_ms=revealed_ms,
            labels=labels,
            organic=True,
            log_sampling_rate=rate,
        )


class OrganicGroups:
    """Makes organic groups of feedback, drawing the negatives of positive ones."""

    def __init__(self, heads: LabelHeads, num_negatives: int, sampler: NegativeSampler) -> None:
        self._heads = heads
        self._num_negatives = num_negatives
        self._sampler = sampler
        self._made: tuple[Feedback, OrganicGroup, Draw | None] | None = None

    def make(self, event: Feedback) -> OrganicGroup:
        """Return feedback as an organic group: the same one until something is used or forgotten.

        Changes nothing that a later group depends on; see `use`.
        """
        if self._made is None or self._made[0] != event:
            self._made = self._make(event)
        return self._made[1]

    def use(self, event: Feedback) -> OrganicGroup:
        """Return feedback as an organic group, and see to it that the next draw is another."""
        group = self.make(event)
        assert self._made is not None
        draw = self._made[2]
        if draw is not None:
            self._sampler.commit(draw)
        return group

    def forget(self) -> None:
        """Forget what was made: items or actions were observed since."""
        self._made = None

    def _make(self, event: Feedback) -> tuple[Feedback, OrganicGroup, Draw | None]:
        decided, positive = self._heads.decide(event.kind, event.value)
        draw = None
        if positive and self._num_negatives:
            draw = self._sampler.draw(event.user_id, event.item_id, self._num_negatives)
        group = OrganicGroup(
            group_id=f"organic:{event.event_id}",
            user_id=event.user_id,
            item_ids=(event.item_id, *(draw.item_ids if draw else ())),
            time_ms=event.time_ms,
            decided=decided,
            positive=positive,
            log_sampling_rate=draw.log_sampling_rate if draw else 0.0,
        )
        return event, group, draw


def groups_state(groups: Sequence[OrganicGroup]) -> State:
    """Return organic groups as columns; `groups_from` reads them back."""
    return {
        "group_ids": [group.group_id for group in groups],
        "user_ids": [group.user_id for group in groups],
        "item_ids": [item_id for group in groups for item_id in group.item_ids],
        "lengths": np.array([len(group.item_ids) for group in groups], np.int64),
        "time_ms": np.array([group.time_ms for group in groups], np.int64),
        "decided": np.array([group.decided for group in groups], np.int64),
        "positive": np.array([group.positive for group in groups], np.int64),
        "log_sampling_rates": np.array([group.log_sampling_rate for group in groups], np.float64),
    }


def groups_from(state: State) -> list[OrganicGroup]:
    """Return the organic groups that `groups_state` described."""
    columns = zip(
        state["group_ids"],
        state["user_ids"],
        map(tuple, split_list(state["item_ids"], state["lengths"].tolist())),
        state["time_ms"].tolist(),
        state["decided"].tolist(),
        state["positive"].tolist(),
        state["log_sampling_rates"].tolist(),
        strict=True,
    )
    return [OrganicGroup(*column) for column in columns]
