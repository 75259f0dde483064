"""Quality of so many examples at a time: what says whether scores still order and still inform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from monitoring import quality

EXAMPLES = 1_024
"""Examples behind one AUC: with a click rate of .2 its standard error is about .02."""


@dataclass(frozen=True, slots=True)
class WindowQuality:
    """What one full window of one head says of one variant; None where it has one class only."""

    head: int
    variant: str
    auc: float | None
    normalized_entropy: float | None


class QualityWindows:
    """Gathers labels and scores until they suffice; H heads, each with windows of its own.

    >>> windows = QualityWindows(["online"], num_heads=1, examples=4)
    >>> label_NH = np.array([[1.0], [0.0], [1.0], [0.0]], np.float32)
    >>> score_NH = np.array([[0.9], [0.1], [0.4], [0.4]], np.float32)
    >>> windows.update(label_NH[:3], {"online": score_NH[:3]})
    []
    >>> windows.update(label_NH[3:], {"online": score_NH[3:]})[0].auc
    0.875
    """

    def __init__(self, variants: Sequence[str], num_heads: int, examples: int = EXAMPLES) -> None:
        self._examples = examples
        self._label = [np.zeros(0, np.float32) for _ in range(num_heads)]
        self._score = {
            variant: [np.zeros(0, np.float32) for _ in range(num_heads)] for variant in variants
        }

    def update(
        self, label_NH: NDArray[np.float32], scores: Mapping[str, NDArray[np.float32]]
    ) -> list[WindowQuality]:
        """Take N examples; return what the windows say that are full by now.

        Labels that are NaN, and examples that some variant gave no finite score, are left out.
        """
        found: list[WindowQuality] = []
        for head in range(len(self._label)):
            known_N = ~np.isnan(label_NH[:, head])
            for score_NH in scores.values():
                known_N &= np.isfinite(score_NH[:, head])
            self._label[head] = np.concatenate([self._label[head], label_NH[known_N, head]])
            for variant, score_NH in scores.items():
                kept = self._score[variant]
                kept[head] = np.concatenate([kept[head], score_NH[known_N, head]])
            if len(self._label[head]) >= self._examples:
                found += self._take(head)
        return found

    def _take(self, head: int) -> list[WindowQuality]:
        label_N, self._label[head] = self._label[head], np.zeros(0, np.float32)
        found = []
        for variant, kept in self._score.items():
            score_N, kept[head] = kept[head], np.zeros(0, np.float32)
            found.append(
                WindowQuality(
                    head,
                    variant,
                    quality.auc(label_N, score_N),
                    quality.normalized_entropy(label_N, score_N),
                )
            )
        return found

    def save(self) -> State:
        """Return the examples that wait."""
        return {
            "labels": {str(head): label_N.copy() for head, label_N in enumerate(self._label)},
            "scores": {
                variant: {str(head): score_N.copy() for head, score_N in enumerate(kept)}
                for variant, kept in self._score.items()
            },
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._label = [state["labels"][str(head)].copy() for head in range(len(self._label))]
        for variant, kept in self._score.items():
            for head in range(len(kept)):
                kept[head] = state["scores"][variant][str(head)].copy()
