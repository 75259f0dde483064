"""Training-serving skew: the scores of servers beside the trainer's scores of the same items.

A server scores with the newest snapshot it has and with its own histories and features; the trainer
scores the same list again when it reads it. The two differ a little, because the trainer has
learned meanwhile. What counts is whether the difference stays what it was: a feature that only one
side sees, a snapshot that is no longer taken into service or a memory that is lost makes it grow.

Only scores between 0 and 1, both excluded, are compared: those are the ranker's, corrected by the
memory. Answers in the order of retrieval or of popularity carry numbers of another kind, logits
below 0 or counts around 1 and above; they are counted as answered without the ranker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from monitoring import quality

EXAMPLES = 512
"""Items behind one point: some fifty lists of ten."""


@dataclass(frozen=True, slots=True)
class SkewPoint:
    """What a window says.

    Attributes:
        distance: mean absolute difference of the two scores, in log-odds.
        order: rank correlation (Spearman) of the two; None where one side says one thing only.
    """

    distance: float
    order: float | None


def are_rankers(served_N: NDArray[np.float32]) -> bool:
    """Return whether the scores of a list are those of a ranker.

    >>> are_rankers(np.array([0.4, 0.2], np.float32)), are_rankers(np.array([-3.1], np.float32))
    (True, False)
    """
    return bool(((served_N > 0.0) & (served_N < 1.0)).all())


class ScoreSkew:
    """Gathers pairs of scores until they suffice for a point."""

    def __init__(self, examples: int = EXAMPLES) -> None:
        self._examples = examples
        self._served_N = np.zeros(0, np.float32)
        self._trained_N = np.zeros(0, np.float32)

    def update(
        self, served_N: NDArray[np.float32], trained_N: NDArray[np.float32]
    ) -> SkewPoint | None:
        """Take N items' scores by a server and by the trainer; NaN is not compared.

        Returns:
            A point when the window is full, else None.
        """
        kept_N = np.isfinite(served_N) & np.isfinite(trained_N)
        self._served_N = np.concatenate([self._served_N, served_N[kept_N]])
        self._trained_N = np.concatenate([self._trained_N, trained_N[kept_N]])
        if len(self._served_N) < self._examples:
            return None
        served_N, self._served_N = self._served_N, np.zeros(0, np.float32)
        trained_N, self._trained_N = self._trained_N, np.zeros(0, np.float32)
        apart_N = np.abs(_log_odds(served_N) - _log_odds(trained_N))
        return SkewPoint(float(apart_N.mean()), quality.rank_correlation(served_N, trained_N))

    def save(self) -> State:
        """Return the pairs that wait."""
        return {"served": self._served_N.copy(), "trained": self._trained_N.copy()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._served_N, self._trained_N = state["served"].copy(), state["trained"].copy()


def _log_odds(probability_N: NDArray[np.float32]) -> NDArray[np.float64]:
    floor = quality.PROBABILITY_FLOOR
    clipped_N = probability_N.astype(np.float64).clip(floor, 1.0 - floor)
    odds_N: NDArray[np.float64] = np.log(clipped_N) - np.log1p(-clipped_N)
    return odds_N
