"""The quality of one head's predictions over one set of examples: every number together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring import quality


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadQuality:
    """What is known about one head; a number is None when it cannot be computed (see `quality`).

    Attributes:
        examples: examples with a known label of this head.
        positives: how many of them were positive.
        auc_error: the true AUC lies within this distance of `auc`; 0.0 when it is exact.
        gauc: AUC per session.
        gauc_examples: examples in sessions with both classes; the others do not speak in `gauc`.
    """

    examples: int
    positives: int
    auc: float | None
    auc_error: float
    gauc: float | None
    gauc_examples: int
    log_loss: float | None
    normalized_entropy: float | None
    calibration: float | None
    expected_calibration_error: float | None


def head_quality(
    label_N: NDArray[np.floating], score_N: NDArray[np.floating], session_N: NDArray[np.integer]
) -> HeadQuality:
    """Return all numbers, exactly, over N examples with known labels."""
    examples, positives = len(label_N), int(label_N.sum())
    weighted_auc, gauc_examples = quality.gauc_sums(label_N, score_N, session_N)
    loss = quality.log_loss(label_N, score_N)
    return HeadQuality(
        examples=examples,
        positives=positives,
        auc=quality.auc(label_N, score_N),
        auc_error=0.0,
        gauc=weighted_auc / gauc_examples if gauc_examples else None,
        gauc_examples=gauc_examples,
        log_loss=loss,
        normalized_entropy=quality.relative_loss(loss, positives, examples),
        calibration=quality.calibration_ratio(label_N, score_N),
        expected_calibration_error=quality.expected_calibration_error(label_N, score_N),
    )
