"""Quality of predictions made before their labels were known: whole run, and last N examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from domain.errors import ConfigError
from domain.state import State
from monitoring.example_rows import ExampleRows
from monitoring.head_quality import HeadQuality, head_quality
from monitoring.running_quality import RunningQuality
from monitoring.session_gauc import SessionGauc, SessionGaucConfig

Scope: TypeAlias = Literal["progressive", "window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrequentialQualityConfig:
    """How much is kept.

    Attributes:
        window: examples in the window.
        score_buckets: buckets behind the progressive AUC, see `RunningQuality`.
        sessions: when a session is finished; irrelevant with `keep_all`.
        keep_all: keep every example, so that progressive values are exact whatever happens. For
            offline replays: memory grows with the run.
    """

    window: int = 20_000
    score_buckets: int = 8_192
    sessions: SessionGaucConfig = field(default_factory=SessionGaucConfig)
    keep_all: bool = False

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"prequential_quality.window must be at least 1, got {self.window}")
        if self.score_buckets < 2:
            raise ConfigError(
                f"prequential_quality.score_buckets must be at least 2, got {self.score_buckets}"
            )


class PrequentialQuality:
    """Quality of one variant's probabilities, per head, progressive and windowed.

    Feed it examples whose labels have just been settled, with the scores given when their items
    were shown: before the label, and before any learning from it.
    """

    def __init__(
        self, heads: Sequence[str], config: PrequentialQualityConfig | None = None
    ) -> None:
        self._config = config or PrequentialQualityConfig()
        self._heads = tuple(heads)
        num_heads = len(self._heads)
        self._window = ExampleRows(num_heads, capacity=self._config.window)
        self._all = ExampleRows(num_heads, capacity=None) if self._config.keep_all else None
        self._running = RunningQuality(
            num_heads,
            self._config.score_buckets,
            SessionGauc(num_heads, self._config.sessions),
        )
        self.non_finite_scores = 0

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the names of the heads, in column order."""
        return self._heads

    def update(
        self, labels: ArrayLike, scores: ArrayLike, sessions: ArrayLike, times_ms: ArrayLike
    ) -> None:
        """Take N examples of H heads; no reference to the arrays is kept.

        A score that is not finite measures nothing: its label is skipped and counted in
        `non_finite_scores`.

        Args:
            labels: (N, H) of 0, 1 or NaN for not known.
            scores: (N, H) probabilities.
            sessions: (N,) session of each example, see `SessionIds`.
            times_ms: (N,) event times at which the labels were settled.
        """
        label_NH, score_NH = np.array(labels, np.float32), np.array(scores, np.float32)
        session_N, time_N = np.array(sessions, np.int64), np.array(times_ms, np.int64)
        shape = (len(session_N), len(self._heads))
        assert label_NH.shape == score_NH.shape == shape, (
            f"expected labels and scores of shape {shape}, got {label_NH.shape}, {score_NH.shape}"
        )
        broken_NH = ~np.isfinite(score_NH)
        self.non_finite_scores += int((broken_NH & ~np.isnan(label_NH)).sum())
        label_NH[broken_NH] = np.nan

        self._window.append(label_NH, score_NH, session_N)
        if self._all is not None:
            self._all.append(label_NH, score_NH, session_N)
        else:
            self._running.update(label_NH, score_NH, session_N, time_N)

    def get(self, scope: Scope) -> dict[str, HeadQuality]:
        """Return the quality of each head, by name."""
        return {name: self._get(scope, head) for head, name in enumerate(self._heads)}

    def save(self) -> State:
        """Return window, and sums or all rows."""
        return {
            "heads": list(self._heads),
            "score_buckets": self._config.score_buckets,
            "window": self._window.save(),
            "all": self._all.save() if self._all is not None else None,
            "running": self._running.save(),
            "non_finite_scores": self.non_finite_scores,
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            ConfigError: it was saved with other heads, buckets or `keep_all`.
        """
        config = self._config
        _expect("heads", list(self._heads), state["heads"])
        _expect("score_buckets", config.score_buckets, state["score_buckets"])
        _expect("keep_all", config.keep_all, state["all"] is not None)
        self._window.load(state["window"])
        if self._all is not None:
            self._all.load(state["all"])
        self._running.load(state["running"])
        self.non_finite_scores = state["non_finite_scores"]

    def _get(self, scope: Scope, head: int) -> HeadQuality:
        if scope == "progressive" and self._all is None:
            return self._running.get(head)
        rows = self._window if scope == "window" else self._all
        assert rows is not None, f"no such scope: {scope}"
        return head_quality(*rows.known(head))


def _expect(key: str, ours: object, saved: object) -> None:
    if ours != saved:
        raise ConfigError(f"prequential_quality.{key}: is {ours}, but was saved with {saved}")
