"""Lambda, chosen online: zero until revealed labels show that another value would have helped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.errors import ModelError, SnapshotError
from domain.state import State
from domain.state_reading import StateReader
from memory.config import MemoryConfig
from memory.lambda_gains import log_likelihoods


class LambdaChoice:
    """Follow the leader over a fixed grid, with a margin, for each of H heads.

    Every grid value keeps its evidence: the log-likelihood it gave to the labels revealed so far,
    relative to the value that gave most. The value in use changes to the leader when it has fallen
    `lambda_margin` behind it, and to 0 already when 0 leads. No value's evidence falls further
    behind than that margin, so a long quiet time does not have to be paid back before a drift is
    answered, nor a long useful one before lambda returns to 0 (the idea of CUSUM, Page 1954, and
    of fixed-share experts, Herbster and Warmuth 1998).
    """

    def __init__(self, config: MemoryConfig, num_heads: int) -> None:
        self._grid_G = np.array(config.lambda_grid, np.float32)
        self._margin = config.lambda_margin
        self._evidence_GH = np.zeros((len(self._grid_G), num_heads))
        self._index_H = np.zeros(num_heads, np.int64)

    @property
    def lambdas(self) -> NDArray[np.float32]:
        """Return the value in use for each head, float32 (H,)."""
        return self._grid_G[self._index_H]

    def observe(
        self,
        base_NH: NDArray[np.float32],
        error_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
    ) -> None:
        """Measure every grid value on labels that have just been revealed, then choose."""
        gained_GH = log_likelihoods(self._grid_G, base_NH, error_NH, labels_NH)
        evidence_GH = self._evidence_GH + gained_GH
        self._evidence_GH = np.maximum(evidence_GH - evidence_GH.max(axis=0), -self._margin)

        leader_H = self._evidence_GH.argmax(axis=0)
        in_use_H = self._evidence_GH[self._index_H, np.arange(len(leader_H))]
        change_H = (in_use_H <= -self._margin) | (leader_H == 0)
        self._index_H = np.where(change_H, leader_H, self._index_H)

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "grid": self._grid_G.copy(),
            "evidence": self._evidence_GH.copy(),
            "index": self._index_H.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            ModelError: the grid is another one, so the evidence would belong to other values, or
                the number of heads differs.
        """
        if "evidence" not in state or not np.array_equal(state["grid"], self._grid_G):
            rule = "" if "evidence" in state else " by another rule"
            raise ModelError(
                f"memory.lambda_grid: expected {self._grid_G.tolist()} as configured, "
                f"got {state['grid'].tolist()}{rule} as saved"
            )
        if state["evidence"].shape != self._evidence_GH.shape:
            raise ModelError(
                f"memory.lambda: expected {self._evidence_GH.shape[1]} label heads, "
                f"got {state['evidence'].shape[1]} as saved"
            )
        self._evidence_GH = state["evidence"].copy()
        self._index_H = state["index"].copy()

    def take_delta(self) -> State:
        """Return which values are in use; the evidence for them serves learning alone."""
        return {"index": self._index_H.copy()}

    def read_delta(self, reader: StateReader) -> NDArray[np.int64]:
        """Check what `take_delta` of another choice returned, and return the indices (H,).

        Raises:
            SnapshotError: it is something else.
        """
        index_H: NDArray[np.int64] = reader.array("index", np.int64, self._index_H.shape)
        if (index_H < 0).any() or (index_H >= len(self._grid_G)).any():
            raise SnapshotError(
                f"{reader.path}.index: expected places in a grid of {len(self._grid_G)}, "
                f"got {index_H.tolist()}"
            )
        return index_H

    def apply_delta(self, index_H: NDArray[np.int64]) -> None:
        """Use the values that another choice uses."""
        self._index_H = index_H.copy()
