"""Early selection watched while it learns: how well two models agree, and how choices change.

Shape legend: N items of a request, F fields, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from domain.examples import LabeledRequest, LearnReport
from domain.requests import CapturedRequest, RankingScores
from ranking.choices import RequestChoices
from ranking.learner import RankingModel

_KEPT = 200
"""Requests of a window whose fields are chosen once more at its end."""


@dataclass(slots=True)
class _Window:
    """Sums over the items scored in a window of event time."""

    items: int = 0
    squared_gap: float = 0.0
    embedding_gap: float = 0.0
    pairs: list[NDArray[np.float32]] = field(default_factory=list)
    chosen_F: NDArray[np.float64] | None = None
    kept: list[tuple[CapturedRequest, RequestChoices]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WindowReport:
    """What a window of event time showed.

    Attributes:
        window: its number; windows are counted from the beginning of the watch.
        items: items scored in it.
        prediction_gap: mean squared distance of the two models' probabilities, PAL.
        embedding_gap: EAL.
        agreement: correlation of the two models' probabilities for the first head.
        churn: share of choices made in the window that its end would make otherwise.
        shares: how often each field was chosen.
    """

    window: int
    items: int
    prediction_gap: float
    embedding_gap: float
    agreement: float | None
    churn: float | None
    shares: dict[str, float]


class WatchedSelector:
    """A ranker that chooses fields, and notes what it chose by windows of event time."""

    def __init__(self, model: RankingModel, start_ms: int, window_ms: int) -> None:
        self._model = model
        self._start_ms = start_ms
        self._window_ms = window_ms
        self._current: int | None = None
        self._window = _Window()
        self._fields: tuple[str, ...] = ()
        self.reports: list[WindowReport] = []

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests, and note what was chosen for them."""
        for request, choices in zip(captured, self._model.choices(captured), strict=True):
            self._note(request, choices)
        return self._model.predict(captured)

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Take one learning step."""
        return self._model.learn(batch)

    def finish(self) -> list[WindowReport]:
        """Close the last window; return all of them."""
        self._close()
        return self.reports

    def _note(self, request: CapturedRequest, choices: RequestChoices) -> None:
        number = (request.time_ms - self._start_ms) // self._window_ms
        # A request that comes a little late is counted with the window that is open.
        if self._current is None or number > self._current:
            self._close()
            self._current = number
        window, self._fields = self._window, choices.fields
        gap_NH = choices.small_NH - choices.main_NH
        window.items += len(gap_NH)
        window.squared_gap += float(np.square(gap_NH).mean(axis=1).sum())
        window.embedding_gap += float(choices.embedding_gap_N.sum())
        window.pairs.append(np.stack((choices.small_NH[:, 0], choices.main_NH[:, 0])))
        chosen_F = choices.chosen_NF.sum(axis=0, dtype=np.float64)
        window.chosen_F = chosen_F if window.chosen_F is None else window.chosen_F + chosen_F
        if len(window.kept) < _KEPT:
            window.kept.append((request, choices))

    def _close(self) -> None:
        window, self._window = self._window, _Window()
        if not window.items or self._current is None or window.chosen_F is None:
            return
        again = self._model.choices([request for request, _ in window.kept])
        self.reports.append(
            WindowReport(
                window=self._current,
                items=window.items,
                prediction_gap=window.squared_gap / window.items,
                embedding_gap=window.embedding_gap / window.items,
                agreement=_correlation(np.concatenate(window.pairs, axis=1)),
                churn=_churn([choices for _, choices in window.kept], again),
                shares=dict(
                    zip(self._fields, (window.chosen_F / window.items).tolist(), strict=True)
                ),
            )
        )


def _correlation(pair_2N: NDArray[np.float32]) -> float | None:
    if pair_2N.shape[1] < 2 or not pair_2N.std(axis=1).all():
        return None
    small_N, main_N = pair_2N
    return float(np.corrcoef(small_N, main_N)[0, 1])


def _churn(before: Sequence[RequestChoices], after: Sequence[RequestChoices]) -> float | None:
    left = sum(
        int((old.chosen_NF & ~new.chosen_NF).sum()) for old, new in zip(before, after, strict=True)
    )
    chosen = sum(int(old.chosen_NF.sum()) for old in before)
    return left / chosen if chosen else None
