"""What every kind of error memory is: pairs of hidden state and error, kept and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from domain.state_reading import StateReader


@dataclass(frozen=True, slots=True, eq=False)
class MemoryRead:
    """What the memory knows near N hidden states, for H heads; all float64 (N, H).

    Attributes:
        trust: 0 where nothing is known; else how far the estimate is believed, which is 1 without
            a prior.
        mean_label: attention-weighted mean of the labels found (ybar), times trust.
        mean_base: the same of the base scores they were given (ybar_base), times trust.
        support: (decayed) number of examples found; for a sketch the mean over its arrays.
    """

    trust: NDArray[np.float64]
    mean_label: NDArray[np.float64]
    mean_base: NDArray[np.float64]
    support: NDArray[np.float64]


class ErrorStore(Protocol):
    """An error memory without a view on lambda; N examples, D hidden size, H heads.

    Not safe against threads: `memory.learner` lets reads and writes take turns.
    """

    @property
    def num_bytes(self) -> int:
        """Return how much is kept, in bytes; never changes."""

    @property
    def empty_share(self) -> float:
        """Return the share of the room that holds nothing that would be read."""

    def read(self, hidden_ND: NDArray[np.float32]) -> MemoryRead:
        """Look up N hidden states, each independent of the others; changes nothing."""

    def write(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        time_ms: int,
    ) -> None:
        """Add N labelled examples; a head whose label is NaN is left as it was.

        A `time_ms` older than the newest counts as the newest.
        """

    def rewrite(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        times_ms_N: NDArray[np.int64],
    ) -> None:
        """Add N examples that were written before, with the age they have; time stands still."""

    def scale_half_life(self, factor: float) -> None:
        """Forget at this many times the configured half-life from now on; not saved."""

    def reset(self) -> None:
        """Forget everything written; to be called when the base model is replaced."""

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            ModelError: the state belongs to a memory of another kind or size.
        """

    def take_delta(self) -> State:
        """Return what a read needs of what was written since the last call."""

    def read_delta(self, reader: StateReader) -> Any:
        """Check what `take_delta` of another memory returned, for `apply_delta`.

        Raises:
            SnapshotError: it is something else, or the other memory is of another size.
        """

    def apply_delta(self, delta: Any) -> None:
        """Read from now on as the memory does that the delta was taken from."""
