"""Vectors that move, for benchmarks of the index: what there is at first, and what changes by step.

Items are in clusters whose sizes fall as 1/rank, with a spectrum that decays, turned at random and
of length one; their local intrinsic dimension is about 15, as of trained item vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
Runbook = Literal["drift", "resample", "sliding"]

WIDTH = 64
NUM_CLUSTERS = 2_000
DRIFT_COSINE = 0.94
"""Cosine between a vector before and after it moves once."""


class Mixture:
    """A place that vectors come from."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._scale_D = np.arange(1, WIDTH + 1) ** -0.5
        self._turn_DD = np.linalg.qr(self._rng.normal(size=(WIDTH, WIDTH)))[0]
        self._centres = self._rng.normal(size=(NUM_CLUSTERS, WIDTH)) * self._scale_D
        self._shares = 1.0 / np.arange(1, NUM_CLUSTERS + 1)
        self._shares /= self._shares.sum()

    def draw(self, num: int) -> Vectors:
        """Return vectors of length one, float32 (num, WIDTH)."""
        which = self._rng.choice(NUM_CLUSTERS, num, p=self._shares)
        near = 0.7 * self._rng.normal(size=(num, WIDTH)) * self._scale_D
        return _unit((self._centres[which] + near) @ self._turn_DD)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One change: these ids get these vectors, and those go."""

    ids: Ids
    vectors: Vectors
    gone: Ids


class World:
    """A runbook: vectors at first, steps of a full turnover, and the truth at any time.

    drift: every vector moves once, to a cosine of DRIFT_COSINE. resample: every vector is replaced
    by one from another mixture. sliding: new ids from another mixture come, the oldest ids go.
    """

    def __init__(self, runbook: Runbook, num: int, num_steps: int) -> None:
        self._runbook = runbook
        self._num = num
        self._num_steps = num_steps
        self._rng = np.random.default_rng(7)
        self._first, self._other = Mixture(1), Mixture(2)
        self.vectors = self._first.draw(num)
        self.ids = np.arange(num, dtype=np.int64)

    def steps(self) -> Iterator[Step]:
        """Yield the changes, each already part of the truth when it is given out."""
        turns = np.array_split(self._rng.permutation(self._num), self._num_steps)
        for turn in turns:
            yield self._slide(len(turn)) if self._runbook == "sliding" else self._move(turn)

    def _move(self, at: Ids) -> Step:
        if self._runbook == "drift":
            self.vectors[at] = _drifted(self.vectors[at], self._rng)
        else:
            self.vectors[at] = self._other.draw(len(at))
        return Step(self.ids[at], self.vectors[at], np.zeros(0, dtype=np.int64))

    def _slide(self, num: int) -> Step:
        gone, last = self.ids[:num], int(self.ids[-1])
        fresh = self._other.draw(num)
        coming = np.arange(last + 1, last + 1 + num)
        self.ids = np.concatenate([self.ids[num:], coming])
        self.vectors = np.concatenate([self.vectors[num:], fresh])
        return Step(coming, fresh, gone)

    def queries(self, num: int) -> Vectors:
        """Return queries close to items of now, as users are to what they like."""
        near = self.vectors[self._rng.integers(len(self.vectors), size=num)]
        return _drifted(near, self._rng)


def _drifted(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    away = _unit(rng.normal(size=vectors.shape))
    return _unit(vectors + math.tan(math.acos(DRIFT_COSINE)) * away)


def _unit(vectors: NDArray[np.floating]) -> Vectors:
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
