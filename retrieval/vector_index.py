"""The contract of a vector index: find ids whose vectors have the largest inner product.

Vectors move at every learning step, so every index takes them in place: an id given again is
replaced. Searches may run in parallel; a write must run alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State

IndexKind = Literal["auto", "exact", "flat", "ivf", "gpu"]
NO_ID = -1

# FAISS searches query by query until queries times width come to this, then hands them to BLAS.
# Its own limit of 128,000 makes batches four to seven times slower; much lower ones make single
# queries slower (measured). Global to the process.
BLAS_FROM_VALUES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexConfig:
    """Which index, and how hard it works.

    Attributes:
        kind: "exact" (NumPy, the oracle), "flat" (FAISS, complete), "ivf" (FAISS, partitioned) or
            "auto": flat until `flat_items`, then ivf; "gpu" (FAISS, complete, on a GPU; as "auto"
            where there is none, which the log says).
        flat_items: largest catalog that "auto" keeps flat: there a complete search takes about a
            millisecond (measured), and a write is a memory copy.
        ivf_lists: lists of the partitioned index; 0 means 4 * sqrt(items).
        ivf_probes: lists searched per query before any widening.
        refresh_items: item vectors brought up to date per learning step beside those that the step
            was about, in turns.
    """

    kind: IndexKind = "auto"
    flat_items: int = 100_000
    ivf_lists: int = 0
    ivf_probes: int = 64
    refresh_items: int = 2_048

    def __post_init__(self) -> None:
        if self.kind not in get_args(IndexKind):
            raise ConfigError(
                'retrieval.index.kind must be "auto", "exact", "flat", "ivf" or "gpu", '
                f"got {self.kind!r}"
            )
        for name in ("flat_items", "ivf_probes", "refresh_items"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"retrieval.index.{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.ivf_lists < 0:
            raise ConfigError(
                f"retrieval.index.ivf_lists must not be negative, got {self.ivf_lists}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Answers to B queries, best first.

    Attributes:
        ids_BK: int64, NO_ID after the last hit.
        scores_BK: float32, -inf after the last hit.
    """

    ids_BK: NDArray[np.int64]
    scores_BK: NDArray[np.float32]


class VectorIndex(Protocol):
    """Ids (any int64 from 0 on) with vectors of one width."""

    def __len__(self) -> int:
        """Return how many ids are held."""

    def upsert(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        """Add ids, or replace their vectors; ids must not repeat within one call."""

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Drop ids, and return how many were there."""

    def search(
        self,
        queries_BD: NDArray[np.float32],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        effort: int = 1,
    ) -> Hits:
        """Find the k best ids of each query; never fewer than k while that many may be returned.

        Args:
            queries_BD: float32, contiguous.
            k: answers wanted per query.
            exclude: ids that must not be returned.
            allowed: when given, bool (R,): only ids below R whose entry is true may be returned.
            effort: multiplies the part of the index that is searched; 1 is the configured part.
        """

    def save(self) -> State:
        """Return what a later `load` needs beside the vectors themselves."""

    def load(self, state: State) -> None:
        """Take back what `save` described; vectors are then given again by `upsert`."""


def eligible_bitmap(
    allowed: NDArray[np.bool_], exclude: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Return which ids may be returned: those allowed, less those excluded.

    >>> eligible_bitmap(np.array([True, True, False]), np.array([0, 2, 9])).tolist()
    [False, True, False]
    """
    if exclude is None or not len(exclude):
        return allowed
    eligible = allowed.copy()
    eligible[exclude[exclude < len(allowed)]] = False
    return eligible


def empty_hits(num_queries: int, k: int) -> Hits:
    """Return hits that found nothing.

    >>> empty_hits(1, 2).ids_BK.tolist()
    [[-1, -1]]
    """
    return Hits(
        np.full((num_queries, k), NO_ID, dtype=np.int64),
        np.full((num_queries, k), -np.inf, dtype=np.float32),
    )
