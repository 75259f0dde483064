"""Open impressions: shown lists whose labels are still being collected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domain.examples import JoinedExample, Role
from domain.state import State
from stream.columns import split_list
from stream.label_heads import labels_of


class OpenImpression:
    """One shown list of N items; bit h of a label belongs to head h.

    Attributes:
        decided: per item, heads that feedback has decided.
        positive: per item, those of them that are positive.
        revealed_ms: per item, event time of the newest feedback that decided a head.
        due_ms: event time at which the watermark calls for something to be done next.
        is_assumed: whether undecided heads have been emitted as early negatives.
        num_undecided: items with a head that feedback has not decided.
    """

    __slots__ = (
        "decided",
        "due_ms",
        "impression_id",
        "is_assumed",
        "item_ids",
        "num_heads",
        "num_undecided",
        "positive",
        "revealed_ms",
        "shown_ms",
        "user_id",
    )

    def __init__(
        self,
        impression_id: str,
        user_id: str,
        item_ids: tuple[str, ...],
        shown_ms: int,
        num_heads: int,
    ) -> None:
        self.impression_id = impression_id
        self.user_id = user_id
        self.item_ids = item_ids
        self.shown_ms = shown_ms
        self.num_heads = num_heads
        self.decided = [0] * len(item_ids)
        self.positive = [0] * len(item_ids)
        self.revealed_ms = [shown_ms] * len(item_ids)
        self.due_ms = shown_ms
        self.is_assumed = False
        self.num_undecided = len(item_ids)

    @property
    def _all_heads(self) -> int:
        return (1 << self.num_heads) - 1

    def answer(
        self, index: int, decided: int, positive: int, time_ms: int
    ) -> list[JoinedExample] | None:
        """Take in what feedback says of an item; return the examples that settles.

        None means that all of it was decided before. What is decided stays decided: a later "no"
        does not take back a "yes", nor a later "yes" a "no" that was said.
        """
        new = decided & ~self.decided[index]
        if not new:
            return None
        self.decided[index] |= new
        self.positive[index] |= positive & new
        self.revealed_ms[index] = max(self.revealed_ms[index], time_ms)
        is_complete = self.decided[index] == self._all_heads
        self.num_undecided -= is_complete
        if self.is_assumed:
            # What is new was taken as "no" before: only a "yes" says anything.
            corrected = positive & new
            if not corrected:
                return []
            return [self._example(index, corrected, self.revealed_ms[index], "correction")]
        if is_complete:
            return [self._example(index, self._all_heads, self.revealed_ms[index], "final")]
        return []

    def assume(self, revealed_ms: int) -> list[JoinedExample]:
        """Take what is undecided as "no" for now; return the examples.

        Decided heads of an item are final, its undecided ones are an early negative: each head's
        label is known in exactly one of the two.
        """
        self.is_assumed = True
        examples = []
        for index, decided in enumerate(self.decided):
            undecided = self._all_heads & ~decided
            if not undecided:
                continue
            if decided:
                known_ms = self.revealed_ms[index]
                examples.append(self._example(index, decided, known_ms, "final"))
            examples.append(self._example(index, undecided, revealed_ms, "early_negative"))
        return examples

    def close(self, revealed_ms: int) -> list[JoinedExample]:
        """Settle every item that is not, undecided heads being "no"; return the examples."""
        return [
            self._example(index, self._all_heads, max(revealed_ms, self.revealed_ms[index]))
            for index, decided in enumerate(self.decided)
            if decided != self._all_heads
        ]

    def _example(
        self, index: int, known: int, revealed_ms: int, role: Role = "final"
    ) -> JoinedExample:
        return JoinedExample(
            impression_id=self.impression_id,
            item_index=index,
            user_id=self.user_id,
            item_id=self.item_ids[index],
            shown_ms=self.shown_ms,
            revealed_ms=revealed_ms,
            labels=labels_of(self.num_heads, known, self.positive[index]),
            role=role,
        )


_ITEM_COLUMNS = ("decided", "positive", "revealed_ms")


def impressions_state(impressions: Sequence[OpenImpression]) -> State:
    """Return open impressions as columns; `impressions_from` reads them back."""
    state: State = {
        "impression_ids": [one.impression_id for one in impressions],
        "user_ids": [one.user_id for one in impressions],
        "item_ids": [item_id for one in impressions for item_id in one.item_ids],
        "lengths": np.array([len(one.item_ids) for one in impressions], np.int64),
        "shown_ms": np.array([one.shown_ms for one in impressions], np.int64),
        "due_ms": np.array([one.due_ms for one in impressions], np.int64),
        "is_assumed": np.array([one.is_assumed for one in impressions], np.bool_),
    }
    for name in _ITEM_COLUMNS:
        values = [value for one in impressions for value in getattr(one, name)]
        state[name] = np.array(values, np.int64)
    return state


def impressions_from(state: State, num_heads: int) -> list[OpenImpression]:
    """Return the open impressions that `impressions_state` described."""
    lengths = state["lengths"].tolist()
    rows = zip(
        state["impression_ids"],
        state["user_ids"],
        split_list(state["item_ids"], lengths),
        state["shown_ms"].tolist(),
        strict=True,
    )
    impressions = [
        OpenImpression(impression_id, user_id, tuple(item_ids), shown_ms, num_heads)
        for impression_id, user_id, item_ids, shown_ms in rows
    ]
    for name in ("due_ms", "is_assumed"):
        for one, value in zip(impressions, state[name].tolist(), strict=True):
            setattr(one, name, value)
    for name in _ITEM_COLUMNS:
        values = split_list(state[name].tolist(), lengths)
        for one, row in zip(impressions, values, strict=True):
            setattr(one, name, row)
    for one in impressions:
        all_heads = (1 << num_heads) - 1
        one.num_undecided = sum(decided != all_heads for decided in one.decided)
    return impressions
