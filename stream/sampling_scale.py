"""Between the stream as it is and the stream as it was sampled for training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def on_sampled_scale(
    probabilities: NDArray[np.float32], log_sampling_rate: float
) -> NDArray[np.float32]:
    """Return what a probability of the full stream means among sampled negatives.

    Keeping negatives at rate r divides the odds of a positive by r, so logit' = logit - ln r. It is
    written without odds, which are infinite for the certainties that compensation may clip to.

    >>> float(on_sampled_scale(np.array([0.2], np.float32), float(np.log(0.25)))[0])
    0.5
    """
    if log_sampling_rate == 0.0:
        return probabilities
    kept = (1.0 - probabilities) * np.exp(log_sampling_rate)
    return np.asarray(probabilities / (probabilities + kept), np.float32)
