"""Numbers that look random and follow from an id: the same in every run and order of arrival."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_MIXING = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
"""SplitMix64 (Steele et al. 2014) with its last shift left out: only high bits are used."""


def uniform(ids: NDArray[np.int64], places: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return numbers in [0, 1), one for each id and place; broadcast against each other.

    >>> first = uniform(np.array([7, 8, 7]), np.array([1], np.uint64))
    >>> bool(first[0] == first[2]), bool(first[0] == first[1])
    (True, False)
    """
    mixed = ids.view(np.uint64) + places * _STRIDE
    for shift, factor in _MIXING:
        mixed = (mixed ^ (mixed >> shift)) * factor
    numbers: NDArray[np.float32] = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return numbers
