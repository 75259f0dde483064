"""A ranker and a memory whose every answer can be said aloud, and requests to ask them with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample, Role
from domain.requests import CapturedRequest, RankingScores
from stream.pending import PendingRequest

NAN = math.nan


class SumRanker:
    """Item k of a request has hidden state (x_k, weight) and probability x_k + weight."""

    def __init__(self, weight: float = 0.0) -> None:
        self.weight = weight
        self.asked: list[list[str]] = []

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        self.asked.append([one.user_id for one in captured])
        return [self._scores(one.arrays["x"]) for one in captured]

    def _scores(self, x_N: NDArray[np.generic]) -> RankingScores:
        hidden_ND = np.stack([x_N, np.full_like(x_N, self.weight)], axis=1).astype(np.float32)
        scores_NH = np.stack([x_N + self.weight, x_N], axis=1).astype(np.float32)
        return RankingScores(probabilities=scores_NH, hidden=hidden_ND)


class ShiftMemory:
    """Knows an error of `error` everywhere, trusts it fully, and writes down what it is taught."""

    def __init__(self, error: float = 0.125) -> None:
        self.error = np.float32(error)
        self.taught: list[tuple[NDArray[np.float32], ...]] = []
        self.times_ms: list[int] = []

    def read_errors(self, hidden_ND, base_NH):
        return np.full_like(base_NH, self.error)

    def compensate(self, hidden_ND, base_NH):
        return base_NH + self.error

    def learn(self, hidden_ND, base_NH, labels_NH, time_ms, *, errors_NH):
        self.taught.append((hidden_ND, base_NH, labels_NH, errors_NH))
        self.times_ms.append(time_ms)


def request(user_id: str, *x: float, organic: bool = False, session: int = 7) -> PendingRequest:
    """A request of as many items as numbers are given, waiting to be scored."""
    captured = CapturedRequest(
        user_id=user_id,
        item_ids=tuple(f"i{at}" for at in range(len(x))),
        time_ms=100,
        arrays={"x": np.array(x, np.float32)},
    )
    return PendingRequest(captured, organic=organic, session=session)


def example(
    impression_id: str,
    item_index: int,
    *labels: float,
    role: Role = "final",
    organic: bool = False,
    log_sampling_rate: float = 0.0,
    revealed_ms: int = 200,
) -> JoinedExample:
    """A label that became known."""
    return JoinedExample(
        impression_id=impression_id,
        item_index=item_index,
        user_id="ann",
        item_id=f"i{item_index}",
        shown_ms=100,
        revealed_ms=revealed_ms,
        labels=labels,
        role=role,
        organic=organic,
        log_sampling_rate=log_sampling_rate,
    )
