"""Requests that were scored, or wait to be, until their labels are known.

A capture enters when its items are shown, is scored once with the weights of that moment (lazily,
but always before the next learning step), and leaves when no label can come any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample
from domain.learners import MemoryLearner, RankingLearner
from domain.requests import CapturedRequest
from domain.state import State
from stream.packing import pack, unpack


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One captured request and what was predicted for it; N items, H heads.

    Attributes:
        session: number of the user's session, the group of session GAUC.
        base_NH: probabilities of the ranker; None until scored.
        hidden_ND: hidden states of the ranker; None until scored.
        errors_NH: error estimates read from the memory when it was scored; None until scored.
        compensated_NH: probabilities after compensation; None until scored.
        early: labels emitted early, by item index, still waiting to be settled.
        served_N: scores that a server showed the items with, None when nobody said.
    """

    captured: CapturedRequest
    organic: bool
    session: int
    base_NH: NDArray[np.float32] | None = None
    hidden_ND: NDArray[np.float32] | None = None
    errors_NH: NDArray[np.float32] | None = None
    compensated_NH: NDArray[np.float32] | None = None
    early: dict[int, JoinedExample] | None = None
    served_N: NDArray[np.float32] | None = None


class PendingRequests:
    """Holds pending requests by impression id, in order of arrival."""

    def __init__(self) -> None:
        self._by_id: dict[str, PendingRequest] = {}
        self._unscored: dict[str, PendingRequest] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, impression_id: str) -> PendingRequest | None:
        """Return the pending request, None when it is unknown or was forgotten."""
        return self._by_id.get(impression_id)

    def add(self, impression_id: str, request: PendingRequest) -> None:
        """Take in a request that was just captured."""
        self._by_id[impression_id] = request
        self._unscored[impression_id] = request

    def score(self, ranking: RankingLearner, memory: MemoryLearner) -> int:
        """Score what was not scored yet with the models as they are; returns how many requests."""
        waiting = list(self._unscored.values())
        if not waiting:
            return 0
        results = ranking.predict([request.captured for request in waiting])
        base_NH = np.concatenate([result.probabilities for result in results])
        hidden_ND = np.concatenate([result.hidden for result in results])
        errors_NH = memory.read_errors(hidden_ND, base_NH)
        compensated_NH = memory.compensate(hidden_ND, base_NH)
        start = 0
        for request in waiting:
            end = start + len(request.captured.item_ids)
            request.base_NH = base_NH[start:end].copy()
            request.hidden_ND = hidden_ND[start:end].copy()
            request.errors_NH = errors_NH[start:end].copy()
            request.compensated_NH = compensated_NH[start:end].copy()
            start = end
        self._unscored.clear()
        return len(waiting)

    def pop(self, impression_id: str) -> PendingRequest | None:
        """Forget a request; returns it, None when it was not there."""
        self._unscored.pop(impression_id, None)
        return self._by_id.pop(impression_id, None)

    def save(self) -> State:
        """Return every pending request; unscored ones stay unscored, in order."""
        requests = list(self._by_id.values())
        scored = [request for request in requests if request.base_NH is not None]
        return {
            "rows": [_row_state(name, request) for name, request in self._by_id.items()],
            "captures": pack([request.captured.arrays for request in requests]),
            "scores": pack([{name: getattr(one, name) for name in _SCORES} for one in scored]),
            "unscored": list(self._unscored),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        rows = state["rows"]
        captures = unpack(state["captures"], len(rows))
        scores = iter(unpack(state["scores"], sum(row["scored"] for row in rows)))
        self._by_id = {}
        for row, arrays in zip(rows, captures, strict=True):
            request = _request_from(row, arrays)
            if row["scored"]:
                for name, value in next(scores).items():
                    setattr(request, name, value)
            self._by_id[row["impression_id"]] = request
        self._unscored = {name: self._by_id[name] for name in state["unscored"]}


_SCORES = ("base_NH", "hidden_ND", "errors_NH", "compensated_NH")


def _row_state(impression_id: str, request: PendingRequest) -> State:
    return {
        "impression_id": impression_id,
        "user_id": request.captured.user_id,
        "item_ids": list(request.captured.item_ids),
        "time_ms": request.captured.time_ms,
        "organic": request.organic,
        "session": request.session,
        "early": examples_state(list((request.early or {}).values())),
        "scored": request.base_NH is not None,
        "served": None if request.served_N is None else request.served_N.tolist(),
    }


def _request_from(row: State, arrays: dict[str, NDArray[Any]]) -> PendingRequest:
    early = {example.item_index: example for example in examples_from(row["early"])}
    return PendingRequest(
        captured=CapturedRequest(
            user_id=row["user_id"],
            item_ids=tuple(row["item_ids"]),
            time_ms=row["time_ms"],
            arrays=arrays,
        ),
        organic=row["organic"],
        session=row["session"],
        early=early or None,
        served_N=None if row.get("served") is None else np.array(row["served"], np.float32),
    )


_EXAMPLE_FIELDS = (
    "impression_id",
    "item_index",
    "user_id",
    "item_id",
    "shown_ms",
    "revealed_ms",
    "role",
    "organic",
    "log_sampling_rate",
)


def _example_state(example: JoinedExample) -> State:
    state: State = {name: getattr(example, name) for name in _EXAMPLE_FIELDS}
    # NaN is no JSON value; None stands for "not known".
    state["labels"] = [None if np.isnan(label) else label for label in example.labels]
    return state


def _example_from(state: Any) -> JoinedExample:
    labels = tuple(float("nan") if label is None else float(label) for label in state["labels"])
    return JoinedExample(labels=labels, **{name: state[name] for name in _EXAMPLE_FIELDS})


def examples_state(examples: Sequence[JoinedExample]) -> list[State]:
    """Return joined examples as plain data; `examples_from` reads it back."""
    return [_example_state(example) for example in examples]


def examples_from(states: Sequence[State]) -> list[JoinedExample]:
    """Return the examples that `examples_state` described."""
    return [_example_from(state) for state in states]
