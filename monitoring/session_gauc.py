"""Session GAUC over a whole run: keeps the sessions that are still open, and sums of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from monitoring import quality

_MIN_SWEEP_ROWS = 4_096
"""Fewer new rows than this are not worth a look for finished sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionGaucConfig:
    """When a session is finished.

    Attributes:
        close_after_ms: a session is finished when none of its labels was settled for this long in
            event time; at least session gap plus attribution window, or sessions are torn apart.
        max_open_examples: examples of open sessions kept at once; beyond it the sessions that were
            silent longest are finished early, until a quarter of it is free.
    """

    close_after_ms: int = 2 * 60 * 60 * 1000
    max_open_examples: int = 200_000

    def __post_init__(self) -> None:
        if self.close_after_ms <= 0:
            raise ConfigError(
                f"session_gauc.close_after_ms must be positive, got {self.close_after_ms}"
            )
        if self.max_open_examples < 1:
            raise ConfigError(
                f"session_gauc.max_open_examples must be at least 1, got {self.max_open_examples}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """M examples of open sessions, in the order they came; H heads."""

    session_M: NDArray[np.int64]
    time_M: NDArray[np.int64]
    label_MH: NDArray[np.float32]
    score_MH: NDArray[np.float32]

    def take(self, chosen_M: NDArray[np.bool_]) -> _Rows:
        return _Rows(
            self.session_M[chosen_M],
            self.time_M[chosen_M],
            self.label_MH[chosen_M],
            self.score_MH[chosen_M],
        )


class SessionGauc:
    """Exact GAUC by session, unless sessions had to be finished early (`finished_early`).

    The labels of a session arrive over several updates. They wait here until the session is over;
    then only its share of the two sums behind GAUC remains.
    """

    def __init__(self, num_heads: int, config: SessionGaucConfig | None = None) -> None:
        self._config = config or SessionGaucConfig()
        self._weighted_auc_H = np.zeros(num_heads)
        self._weight_H = np.zeros(num_heads, np.int64)
        self._parts = [_no_rows(num_heads)]
        self._num_open = 0
        self._sweep_at = _MIN_SWEEP_ROWS
        self._newest_ms = 0
        self.finished_early = 0

    @property
    def num_open(self) -> int:
        """Return how many examples of open sessions are kept."""
        return self._num_open

    def update(
        self,
        label_NH: NDArray[np.float32],
        score_NH: NDArray[np.float32],
        session_N: NDArray[np.int64],
        time_N: NDArray[np.int64],
    ) -> None:
        """Take N examples and keep the arrays.

        NaN labels are unknown; times are event times, in ms, at which labels were settled.
        """
        if len(session_N) == 0:
            return
        self._parts.append(_Rows(session_N, time_N, label_NH, score_NH))
        self._num_open += len(session_N)
        self._newest_ms = max(self._newest_ms, int(time_N.max()))
        if self._num_open >= min(self._sweep_at, self._config.max_open_examples + 1):
            self._finish_sessions()

    def get(self, head: int) -> tuple[float | None, int]:
        """Return GAUC and the examples it speaks for, open sessions as they are now."""
        weighted_auc, weight = self._sums(self._open_rows(), head)
        weighted_auc += float(self._weighted_auc_H[head])
        weight += int(self._weight_H[head])
        return (weighted_auc / weight if weight else None), weight

    def save(self) -> State:
        """Return the sums and all rows of open sessions."""
        rows = self._open_rows()
        return {
            "weighted_auc": self._weighted_auc_H.copy(),
            "weight": self._weight_H.copy(),
            "session": rows.session_M.copy(),
            "time": rows.time_M.copy(),
            "label": rows.label_MH.copy(),
            "score": rows.score_MH.copy(),
            "sweep_at": self._sweep_at,
            "newest_ms": self._newest_ms,
            "finished_early": self.finished_early,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._weighted_auc_H = state["weighted_auc"].copy()
        self._weight_H = state["weight"].copy()
        rows = [state[name].copy() for name in ("session", "time", "label", "score")]
        self._parts = [_Rows(*rows)]
        self._num_open = len(rows[0])
        self._sweep_at = state["sweep_at"]
        self._newest_ms = state["newest_ms"]
        self.finished_early = state["finished_early"]

    def _finish_sessions(self) -> None:
        """Move sessions that are over, and the oldest ones beyond the limit, into the sums."""
        rows = self._open_rows()
        _, group_M = np.unique(rows.session_M, return_inverse=True)
        last_ms_G = np.full(group_M.max() + 1, np.iinfo(np.int64).min)
        np.maximum.at(last_ms_G, group_M, rows.time_M)
        over_G = last_ms_G < self._newest_ms - self._config.close_after_ms

        # Of the others keep the freshest that fit; a session is kept or finished as a whole. Once
        # the limit is passed, room is made for many: a sweep at every update would cost the more
        # the higher the limit is.
        size_G = np.where(over_G, 0, np.bincount(group_M))
        room = self._config.max_open_examples
        if size_G.sum() > room:
            room -= room // 4
        freshest_G = np.argsort(-last_ms_G, kind="stable")
        fits_G = np.empty(len(size_G), bool)
        fits_G[freshest_G] = np.cumsum(size_G[freshest_G]) <= room
        self.finished_early += int((~over_G & ~fits_G).sum())

        open_M = (~over_G & fits_G)[group_M]
        finished = rows.take(~open_M)
        for head in range(len(self._weight_H)):
            weighted_auc, weight = self._sums(finished, head)
            self._weighted_auc_H[head] += weighted_auc
            self._weight_H[head] += weight
        self._parts = [rows.take(open_M)]
        self._num_open = len(self._parts[0].session_M)
        self._sweep_at = 2 * self._num_open + _MIN_SWEEP_ROWS

    def _sums(self, rows: _Rows, head: int) -> tuple[float, int]:
        label_M, score_M = rows.label_MH[:, head], rows.score_MH[:, head]
        known_M = ~np.isnan(label_M)
        return quality.gauc_sums(label_M[known_M], score_M[known_M], rows.session_M[known_M])

    def _open_rows(self) -> _Rows:
        """Return all open rows as one part."""
        if len(self._parts) > 1:
            self._parts = [
                _Rows(
                    np.concatenate([part.session_M for part in self._parts]),
                    np.concatenate([part.time_M for part in self._parts]),
                    np.concatenate([part.label_MH for part in self._parts]),
                    np.concatenate([part.score_MH for part in self._parts]),
                )
            ]
        return self._parts[0]


def _no_rows(num_heads: int) -> _Rows:
    none_M, none_MH = np.zeros(0, np.int64), np.zeros((0, num_heads), np.float32)
    return _Rows(none_M, none_M, none_MH, none_MH)
