"""The last N scored and labelled examples, or all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State

_FIRST_CAPACITY = 1_024


class ExampleRows:
    """Labels, scores and sessions of the newest `capacity` examples; H heads.

    A ring when there is a capacity, else arrays that double when they are full.
    """

    def __init__(self, num_heads: int, capacity: int | None) -> None:
        self._capacity = capacity
        self._appended = 0
        size = capacity or _FIRST_CAPACITY
        self._label_RH = np.empty((size, num_heads), np.float32)
        self._score_RH = np.empty((size, num_heads), np.float32)
        self._session_R = np.empty(size, np.int64)

    def __len__(self) -> int:
        """Return how many examples are kept."""
        return min(self._appended, len(self._session_R))

    def append(
        self,
        label_NH: NDArray[np.float32],
        score_NH: NDArray[np.float32],
        session_N: NDArray[np.int64],
    ) -> None:
        """Copy N examples in, oldest first."""
        if self._capacity is None:
            self._grow_to(self._appended + len(session_N))
        size = len(self._session_R)
        first = max(0, len(session_N) - size)  # more than fit: only the newest stay
        slot_M = np.arange(self._appended + first, self._appended + len(session_N)) % size
        self._label_RH[slot_M] = label_NH[first:]
        self._score_RH[slot_M] = score_NH[first:]
        self._session_R[slot_M] = session_N[first:]
        self._appended += len(session_N)

    def known(
        self, head: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Return labels, scores and sessions of examples whose label of `head` is known."""
        slot_M = self._slots()
        slot_M = slot_M[~np.isnan(self._label_RH[slot_M, head])]
        return self._label_RH[slot_M, head], self._score_RH[slot_M, head], self._session_R[slot_M]

    def save(self) -> State:
        """Return the kept examples, oldest first."""
        slot_M = self._slots()
        return {
            "label": self._label_RH[slot_M],
            "score": self._score_RH[slot_M],
            "session": self._session_R[slot_M],
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._appended = 0
        self.append(state["label"], state["score"], state["session"])

    def _slots(self) -> NDArray[np.int64]:
        """Return where the kept examples lie, oldest first."""
        size = len(self._session_R)
        return np.arange(max(0, self._appended - size), self._appended) % size

    def _grow_to(self, needed: int) -> None:
        size = len(self._session_R)
        if needed <= size:
            return
        while size < needed:
            size *= 2
        more = size - len(self._session_R)
        self._label_RH = np.pad(self._label_RH, ((0, more), (0, 0)))
        self._score_RH = np.pad(self._score_RH, ((0, more), (0, 0)))
        self._session_R = np.pad(self._session_R, (0, more))
