"""Compensation: how what the memory read corrects a base score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory.store import MemoryRead


def estimate_errors(
    read: MemoryRead, base_NH: NDArray[np.float32], gamma: float
) -> NDArray[np.float32]:
    """Return y_err (N, H), the estimate of label minus base score; 0 where the memory is empty.

    y_err = gamma (ybar - y_base) + (1 - gamma)(ybar - ybar_base), ReLoop2, section 3.3; the second
    term's exact shape is our reading. With a prior the whole is multiplied by the read's trust.
    """
    error_NH = read.mean_label - gamma * read.trust * base_NH - (1.0 - gamma) * read.mean_base
    return error_NH.astype(np.float32)


def compensate(
    base_NH: NDArray[np.float32], error_NH: NDArray[np.float32], lambda_H: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return clamp(y_base + lambda y_err, 0, 1) per head; where lambda is 0, the base itself.

    >>> base_NH = np.array([[0.5, 0.9]], np.float32)
    >>> error_NH = np.array([[0.2, 0.4]], np.float32)
    >>> compensate(base_NH, error_NH, np.array([0.0, 0.5], np.float32)).tolist()
    [[0.5, 1.0]]
    """
    corrected_NH = np.clip(base_NH + lambda_H * error_NH, 0.0, 1.0)
    return np.where(lambda_H == 0, base_NH, corrected_NH).astype(np.float32)
