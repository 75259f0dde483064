"""Quality over the whole run in bounded memory: sums, a histogram of scores and open sessions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from monitoring import quality
from monitoring.head_quality import HeadQuality
from monitoring.session_gauc import SessionGauc

_LOGIT_LIMIT = 12.0
"""Scores below 6e-6 or above 1 - 6e-6 share the outermost buckets."""
_CALIBRATION_BINS = 15


class RunningQuality:
    """Progressive quality of H heads; every number is exact but AUC, whose error is stated.

    Scores are counted in `num_buckets` buckets of equal width in log-odds. Pairs within one bucket
    count one half, so AUC is wrong by at most half the share of such pairs: about 0.0003 with 8,192
    buckets and log-odds of standard deviation 1, reported as `auc_error`.
    """

    def __init__(self, num_heads: int, num_buckets: int, sessions: SessionGauc) -> None:
        self._sessions = sessions
        self._num_buckets = num_buckets
        self._negatives_HB = np.zeros((num_heads, num_buckets), np.int64)
        self._positives_HB = np.zeros((num_heads, num_buckets), np.int64)
        self._loss_H = np.zeros(num_heads)
        self._score_H = np.zeros(num_heads)
        self._calibration_gap_HC = np.zeros((num_heads, _CALIBRATION_BINS))

    @property
    def sessions(self) -> SessionGauc:
        """Return what keeps the sessions."""
        return self._sessions

    def update(
        self,
        label_NH: NDArray[np.float32],
        score_NH: NDArray[np.float32],
        session_N: NDArray[np.int64],
        time_N: NDArray[np.int64],
    ) -> None:
        """Count N examples; NaN labels are unknown."""
        for head in range(label_NH.shape[1]):
            known_N = ~np.isnan(label_NH[:, head])
            self._count(head, label_NH[known_N, head], score_NH[known_N, head].astype(np.float64))
        self._sessions.update(label_NH, score_NH, session_N, time_N)

    def get(self, head: int) -> HeadQuality:
        """Return the quality of one head so far."""
        positives_B, negatives_B = self._positives_HB[head], self._negatives_HB[head]
        positives, negatives = int(positives_B.sum()), int(negatives_B.sum())
        examples = positives + negatives
        loss = float(self._loss_H[head] / examples) if examples else None
        pairs = float(positives) * float(negatives)
        tied = float((positives_B.astype(np.float64) * negatives_B).sum())
        gap = float(np.abs(self._calibration_gap_HC[head]).sum())
        gauc, gauc_examples = self._sessions.get(head)
        return HeadQuality(
            examples=examples,
            positives=positives,
            auc=quality.auc_of_levels(positives_B, negatives_B),
            auc_error=0.5 * tied / pairs if pairs else 0.0,
            gauc=gauc,
            gauc_examples=gauc_examples,
            log_loss=loss,
            normalized_entropy=quality.relative_loss(loss, positives, examples),
            calibration=float(self._score_H[head] / positives) if positives else None,
            expected_calibration_error=gap / examples if examples else None,
        )

    def save(self) -> State:
        """Return histograms, sums and open sessions."""
        return {
            "negatives": self._negatives_HB.copy(),
            "positives": self._positives_HB.copy(),
            "loss": self._loss_H.copy(),
            "score": self._score_H.copy(),
            "calibration_gap": self._calibration_gap_HC.copy(),
            "sessions": self._sessions.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._negatives_HB = state["negatives"].copy()
        self._positives_HB = state["positives"].copy()
        self._loss_H = state["loss"].copy()
        self._score_H = state["score"].copy()
        self._calibration_gap_HC = state["calibration_gap"].copy()
        self._sessions.load(state["sessions"])

    def _count(self, head: int, label_N: NDArray[np.float32], score_N: NDArray[np.float64]) -> None:
        bucket_N = score_buckets(score_N, self._num_buckets)
        positive_N = label_N == 1.0
        size = self._num_buckets
        self._positives_HB[head] += np.bincount(bucket_N[positive_N], minlength=size)
        self._negatives_HB[head] += np.bincount(bucket_N[~positive_N], minlength=size)
        self._loss_H[head] += quality.log_losses(label_N, score_N).sum()
        self._score_H[head] += score_N.sum()
        bin_N = quality.calibration_bins(score_N, _CALIBRATION_BINS)
        self._calibration_gap_HC[head] += np.bincount(
            bin_N, score_N - label_N, minlength=_CALIBRATION_BINS
        )


def score_buckets(score_N: NDArray[np.float64], num_buckets: int) -> NDArray[np.int64]:
    """Return the bucket of each probability; a higher probability never has a lower bucket."""
    floor = quality.PROBABILITY_FLOOR
    clipped_N = score_N.clip(floor, 1.0 - floor)
    logit_N = np.log(clipped_N) - np.log1p(-clipped_N)
    share_N = (logit_N + _LOGIT_LIMIT) / (2.0 * _LOGIT_LIMIT)
    bucket_N: NDArray[np.int64] = (share_N * num_buckets).astype(np.int64)
    return bucket_N.clip(0, num_buckets - 1)
