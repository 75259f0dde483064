"""How far two histograms over the same bins are apart; every function takes counts (..., B)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]

HALF_A_VALUE = 0.5
"""Added to every bin, so that an empty one has a share above zero (Jeffreys' prior)."""


def shares(count_B: Counts, live_B: NDArray[np.bool_] | None = None) -> Counts:
    """Return the smoothed share of each bin; bins that are not live have share 0.

    >>> shares(np.array([1.0, 0.0])).tolist()
    [0.75, 0.25]
    """
    smoothed = count_B + HALF_A_VALUE
    if live_B is not None:
        smoothed = np.where(live_B, smoothed, 0.0)
    total = smoothed.sum(axis=-1, keepdims=True)
    result: Counts = smoothed / np.where(total > 0.0, total, 1.0)
    return result


def psi_parts(
    reference_B: Counts, now_B: Counts, live_B: NDArray[np.bool_] | None = None
) -> Counts:
    """Return what each bin adds to the population stability index; nothing is below zero.

    PSI = sum over bins of (p - q) ln(p / q), with p the shares now and q those of the reference.
    """
    p, q = shares(now_B, live_B), shares(reference_B, live_B)
    known = (p > 0.0) & (q > 0.0)
    p, q = np.where(known, p, 1.0), np.where(known, q, 1.0)
    result: Counts = (p - q) * np.log(p / q)
    return result


def psi(reference_B: Counts, now_B: Counts, live_B: NDArray[np.bool_] | None = None) -> Counts:
    """Return the population stability index; below 0.1 is calm, above 0.25 a clear change.

    >>> round(float(psi(np.array([50.0, 50.0]), np.array([80.0, 20.0]))), 2)
    0.41
    """
    result: Counts = psi_parts(reference_B, now_B, live_B).sum(axis=-1)
    return result


def jensen_shannon(
    reference_B: Counts, now_B: Counts, live_B: NDArray[np.bool_] | None = None
) -> Counts:
    """Return the Jensen-Shannon distance in base 2: 0 is the same, 1 is nothing in common.

    >>> float(jensen_shannon(np.array([9.0, 9.0]), np.array([9.0, 9.0])))
    0.0
    """
    p, q = shares(now_B, live_B), shares(reference_B, live_B)
    middle = (p + q) / 2.0
    known = middle > 0.0
    safe = np.where(known, middle, 1.0)

    def against_middle(share: Counts) -> Counts:
        some = np.where(share > 0.0, share, 1.0)
        parts: Counts = np.where(share > 0.0, share * np.log2(some / safe), 0.0).sum(axis=-1)
        return parts

    squared = (against_middle(p) + against_middle(q)) / 2.0
    result: Counts = np.sqrt(np.maximum(squared, 0.0))
    return result


def wasserstein(reference_B: Counts, now_B: Counts, centre_B: Counts) -> Counts:
    """Return the Wasserstein-1 distance of two histograms whose bins stand at ascending centres.

    >>> float(wasserstein(np.array([10.0, 0.0]), np.array([0.0, 10.0]), np.array([0.0, 3.0])))
    3.0
    """

    def below(count_B: Counts) -> Counts:
        total = count_B.sum(axis=-1, keepdims=True)
        part: Counts = np.cumsum(count_B / np.where(total > 0.0, total, 1.0), axis=-1)[..., :-1]
        return part

    gap_B = np.diff(centre_B, axis=-1)
    result: Counts = (np.abs(below(now_B) - below(reference_B)) * gap_B).sum(axis=-1)
    return result
