"""Boosted trees on the same captures: what a batch learner makes of the same inputs.

A rival for evaluation, not a model to serve: it keeps every example, and is trained anew from all
of them every so many. LightGBM is installed for development only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.examples import LabeledRequest, LearnReport
from domain.requests import CapturedRequest, RankingScores
from domain.state import State

RETRAIN_EVERY = 11_000
"""Examples between two trainings: on KuaiRand-Pure there are twenty of them."""
_ROUNDS = 200
_MOST_CATEGORIES = 256
"""Fields with more values (ids of users, items, authors) are known to trees by their counters."""
_PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "cat_smooth": 50.0,
    "verbosity": -1,
    # One order of summing, hence the same trees on every run.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
}


class TreesRival:
    """Predicts the first head; scores and learns as a contender of a replay does."""

    def __init__(self, seed: int, retrain_every: int = RETRAIN_EVERY) -> None:
        """Make a rival that has learned nothing.

        Raises:
            ConfigError: LightGBM is not installed.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise ConfigError(
                "rival/trees: expected lightgbm, which is installed for development only: "
                "pip install --group dev"
            ) from error
        self._library: Any = lightgbm
        self._seed = seed
        self._retrain_every = retrain_every
        self._floats: list[NDArray[np.float32]] = []
        self._ids: list[NDArray[np.int64]] = []
        self._labels: list[NDArray[np.float32]] = []
        self._num_examples = 0
        self._num_positive = 0.0
        self._trained_at = 0
        self._trees: Any = None
        self._categories: dict[int, NDArray[np.int64]] = {}
        """Known values of each categorical column, ascending."""

    @property
    def num_trainings(self) -> int:
        """Return how often it was trained."""
        return self._trained_at // self._retrain_every

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests; the overall rate until the first training."""
        sizes = [len(each.item_ids) for each in captured]
        if self._trees is None:
            rate = (self._num_positive + 1.0) / (self._num_examples + 2.0)
            score_N = np.full(sum(sizes), rate)
        else:
            rows = [
                _rows(each, np.arange(size)) for each, size in zip(captured, sizes, strict=True)
            ]
            floats, ids = (np.concatenate(part) for part in zip(*rows, strict=True))
            score_N = np.asarray(self._trees.predict(self._table(floats, ids), num_threads=1))
        parts = np.split(score_N.astype(np.float32)[:, None], np.cumsum(sizes)[:-1])
        return [
            RankingScores(probabilities=p, hidden=np.zeros((len(p), 0), np.float32)) for p in parts
        ]

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Keep settled examples of the first head; train anew when there are enough new ones."""
        for request in batch:
            known = ~np.isnan(request.labels[:, 0])
            known &= np.array([role == "final" for role in request.roles], bool)
            floats, ids = _rows(request.captured, request.item_indices[known])
            self._floats.append(floats)
            self._ids.append(ids)
            self._labels.append(request.labels[known, 0])
            self._num_examples += int(known.sum())
            self._num_positive += float(request.labels[known, 0].sum())
        if self._num_examples - self._trained_at >= self._retrain_every:
            self._train()
        return LearnReport(loss=float("nan"), examples=sum(len(one.labels) for one in batch))

    def save(self) -> State:
        """Return all examples and the trees as plain data."""
        return {
            "floats": np.concatenate(self._floats) if self._floats else None,
            "ids": np.concatenate(self._ids) if self._ids else None,
            "labels": np.concatenate(self._labels) if self._labels else None,
            "num_examples": self._num_examples,
            "num_positive": self._num_positive,
            "trained_at": self._trained_at,
            "trees": "" if self._trees is None else self._trees.model_to_string(),
            "categories": {str(column): known for column, known in self._categories.items()},
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._floats, self._ids, self._labels = (
            [] if state[name] is None else [state[name]] for name in ("floats", "ids", "labels")
        )
        self._num_examples = int(state["num_examples"])
        self._num_positive = float(state["num_positive"])
        self._trained_at = int(state["trained_at"])
        text = state["trees"]
        self._trees = self._library.Booster(model_str=text) if text else None
        self._categories = {int(column): known for column, known in state["categories"].items()}

    def _train(self) -> None:
        self._trained_at = self._num_examples // self._retrain_every * self._retrain_every
        floats, ids = np.concatenate(self._floats), np.concatenate(self._ids)
        labels = np.concatenate(self._labels)
        # One array from now on: many small ones would be joined again every time.
        self._floats, self._ids, self._labels = [floats], [ids], [labels]
        values = {column: np.unique(ids[:, column]) for column in range(ids.shape[1])}
        self._categories = {
            column: found for column, found in values.items() if 1 < len(found) <= _MOST_CATEGORIES
        }
        table = self._table(floats, ids)
        categorical = list(range(floats.shape[1], table.shape[1]))
        data = self._library.Dataset(table, labels, categorical_feature=categorical)
        self._trees = self._library.train(
            {**_PARAMETERS, "seed": self._seed}, data, num_boost_round=_ROUNDS
        )

    def _table(self, floats: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return numbers, then a code per categorical column; NaN for a value not known."""
        columns = []
        for column, known in self._categories.items():
            at = np.minimum(np.searchsorted(known, ids[:, column]), len(known) - 1)
            columns.append(np.where(known[at] == ids[:, column], at, np.nan))
        return np.column_stack([floats, *columns]).astype(np.float32)


def _rows(
    captured: CapturedRequest, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the numbers and the ids of some items of a capture, a row each."""
    arrays: Any = captured.arrays
    parts = []
    for kind in ("floats", "ids"):
        shared = arrays[f"request_{kind}"]
        repeated = np.broadcast_to(shared, (len(chosen), len(shared)))
        parts.append(np.concatenate([repeated, arrays[f"item_{kind}"][chosen]], axis=1))
    return parts[0], parts[1]
