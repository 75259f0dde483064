"""Settlement: labels meet the requests they belong to, to be measured and learned from."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from domain.examples import JoinedExample, LabeledRequest
from domain.learners import MemoryLearner
from domain.state import State
from stream.memory_rewriting import Taught
from stream.observer import Measured
from stream.pending import PendingRequests, examples_from, examples_state
from stream.sampling_scale import on_sampled_scale


class Settlement:
    """Says which labels stand, and brings them together with what was predicted.

    A "final" label stands at once. An early negative stands when no correction can come any more;
    a correction replaces it. Only labels that stand are measured and counted, each once.
    """

    def __init__(self, pending: PendingRequests) -> None:
        self._pending = pending
        self._num_revealed = 0
        # (examples revealed until it finished, impression id), in order
        self._finished: deque[tuple[int, str]] = deque()
        self._settled_early: list[JoinedExample] = []

    @property
    def num_unmeasured(self) -> int:
        """Return how many early labels stand by now but wait for the next step to be measured."""
        return len(self._settled_early)

    def settle(
        self, examples: Sequence[JoinedExample], finished: Iterable[str]
    ) -> list[LabeledRequest]:
        """Take in labels that became known; return the ones that stand now, by request."""
        self._num_revealed += len(examples)
        standing = [example for example in examples if example.role == "final"]
        for example in examples:
            pending = self._pending.get(example.impression_id)
            if example.role != "final" and pending is not None:
                pending.early = pending.early or {}
                before = pending.early.get(example.item_index)
                pending.early[example.item_index] = corrected(before, example)
        for impression_id in finished:
            self._finished.append((self._num_revealed, impression_id))
            pending = self._pending.get(impression_id)
            if pending is not None and pending.early is not None:
                early = [replace(one, role="final") for one in pending.early.values()]
                standing += early
                self._settled_early += early
        return self.labeled(group_by_impression(standing))

    def labeled(self, groups: Iterable[Sequence[JoinedExample]]) -> list[LabeledRequest]:
        """Return each group with the captured request it belongs to; unknown ones are left out."""
        labeled = []
        for group in groups:
            pending = self._pending.get(group[0].impression_id)
            if pending is None:
                continue
            rates = [example.log_sampling_rate for example in group]
            labeled.append(
                LabeledRequest(
                    captured=pending.captured,
                    item_indices=np.array([example.item_index for example in group], np.int64),
                    labels=np.array([example.labels for example in group], np.float32),
                    roles=tuple(example.role for example in group),
                    log_sampling_rates=np.array(rates, np.float32),
                    revealed_ms=max(example.revealed_ms for example in group),
                )
            )
        return labeled

    def measure(self, groups: Iterable[Sequence[JoinedExample]]) -> list[Measured]:
        """Return the standing labels of a step beside the scores given before they were known."""
        examples = [example for group in groups for example in group if example.role == "final"]
        examples += self._settled_early
        self._settled_early.clear()
        measured = []
        for example in examples:
            pending = self._pending.get(example.impression_id)
            if pending is None:
                continue
            assert pending.base_NH is not None
            assert pending.compensated_NH is not None
            rate, index = example.log_sampling_rate, example.item_index
            base_H = on_sampled_scale(pending.base_NH[index], rate)
            compensated_H = on_sampled_scale(pending.compensated_NH[index], rate)
            served = math.nan if pending.served_N is None else float(pending.served_N[index])
            measured.append(Measured(example, pending.session, base_H, compensated_H, served))
        return measured

    def teach(
        self, memory: MemoryLearner, measured: Sequence[Measured], time_ms: int
    ) -> list[JoinedExample]:
        """Write errors of real impressions, and return them.

        Sampled negatives live on another scale.
        """
        rows = [one.example for one in measured if not one.example.organic]
        if not rows:
            return rows
        base, hidden, errors = [], [], []
        for example in rows:
            pending = self._pending.get(example.impression_id)
            assert pending is not None
            assert pending.base_NH is not None
            assert pending.hidden_ND is not None
            assert pending.errors_NH is not None
            base.append(pending.base_NH[example.item_index])
            hidden.append(pending.hidden_ND[example.item_index])
            errors.append(pending.errors_NH[example.item_index])
        labels_NH = np.array([example.labels for example in rows], np.float32)
        memory.learn(
            np.stack(hidden), np.stack(base), labels_NH, time_ms, errors_NH=np.stack(errors)
        )
        return rows

    def taught(self, examples: Sequence[JoinedExample], time_ms: int) -> list[Taught]:
        """Return what was written to the memory, by request, so that it can be written again."""
        taught = []
        for group in group_by_impression(examples):
            pending = self._pending.get(group[0].impression_id)
            assert pending is not None
            assert pending.base_NH is not None
            items_M = np.array([example.item_index for example in group], np.int64)
            labels_MH = np.array([example.labels for example in group], np.float32)
            taught.append(
                Taught(pending.captured, items_M, labels_MH, pending.base_NH[items_M], time_ms)
            )
        return taught

    def forget(self, num_waiting: int) -> list[str]:
        """Drop requests that no label can reach any more, and return their impression ids.

        Those are finished, and all of their examples were learned: examples are learned in the
        order they were revealed, so only the last `num_waiting` of them still need their request.
        """
        num_learned = self._num_revealed - num_waiting
        forgotten = []
        while self._finished and self._finished[0][0] <= num_learned:
            _, impression_id = self._finished.popleft()
            self._pending.pop(impression_id)
            forgotten.append(impression_id)
        return forgotten

    def save(self) -> State:
        """Return what stands but was not measured yet, and what may be forgotten."""
        return {
            "num_revealed": self._num_revealed,
            "finished": [impression_id for _, impression_id in self._finished],
            "finished_at": [num_revealed for num_revealed, _ in self._finished],
            "settled_early": examples_state(self._settled_early),
        }

    def load(self, state: State) -> None:
        """Become what `save` described; the pending requests are loaded apart."""
        self._num_revealed = state["num_revealed"]
        self._finished = deque(zip(state["finished_at"], state["finished"], strict=True))
        self._settled_early = examples_from(state["settled_early"])


def corrected(before: JoinedExample | None, now: JoinedExample) -> JoinedExample:
    """Return `before` with the labels that `now` knows in place of its own."""
    if before is None:
        return now
    pairs = zip(before.labels, now.labels, strict=True)
    labels = tuple(old if math.isnan(new) else new for old, new in pairs)
    return replace(now, labels=labels)


def group_by_impression(examples: Sequence[JoinedExample]) -> list[list[JoinedExample]]:
    """Return the examples grouped by impression, in order of first appearance."""
    groups: dict[str, list[JoinedExample]] = {}
    for example in examples:
        groups.setdefault(example.impression_id, []).append(example)
    return list(groups.values())
