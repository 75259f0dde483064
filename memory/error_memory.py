"""The error memory: recent labels and scores, bucketed by hidden state, in constant space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.changed_rows import ChangedRows
from domain.errors import ModelError
from domain.state import State
from domain.state_reading import StateReader
from memory import kernels
from memory.config import MemoryConfig
from memory.hashing import SignHash

_RESCALE_HALVINGS = 16
"""After this many half-lives everything is scaled down, by a power of two, which float32 does
exactly. 2**16 times `MAX_BUCKET_COUNT` is far from overflow, and a pass over a few MB is rare."""


@dataclass(frozen=True, slots=True, eq=False)
class MemoryRead:
    """What the memory knows near N hidden states, for H heads; all float64 (N, H).

    Attributes:
        trust: 0 where every bucket is empty; else the mean of count / (count + prior_count),
            which is 1 without a prior.
        mean_label: attention-weighted mean of the buckets' label rates (ybar), times trust.
        mean_base: the same of the base scores they were given (ybar_base), times trust.
        similarity: mean over arrays of the similarity; for "density" the RACE estimate.
        support: mean over arrays of the (decayed) number of examples in the bucket.
    """

    trust: NDArray[np.float64]
    mean_label: NDArray[np.float64]
    mean_base: NDArray[np.float64]
    similarity: NDArray[np.float64]
    support: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MemoryDelta:
    """What a read needs that changed; R buckets, H heads.

    Attributes:
        rows: int64 (R,), ascending: array times 2**L plus bucket.
        buckets_RH3: float32, what they hold now.
        written_H: float64, total weight written.
        centre_D: float64, mean hidden state.
        log2_weight: binary logarithm of what a new example weighs.
    """

    rows: NDArray[np.int64]
    buckets_RH3: NDArray[np.float32]
    written_H: NDArray[np.float64]
    centre_D: NDArray[np.float64]
    log2_weight: float


class ErrorMemory:
    """ReLoop2's locality-sensitive sketch (section 3.2) with event-time decay.

    K arrays of 2**L buckets hold (count, sum of labels, sum of base scores) per head. Instead of
    shrinking everything as event time passes, each new example is written with a weight that
    doubles every half-life; only ratios of weights matter.
    """

    def __init__(
        self,
        config: MemoryConfig,
        hidden_size: int,
        num_heads: int,
        generator: np.random.Generator,
    ) -> None:
        self._config = config
        self._hash = SignHash(config.num_arrays, config.num_bits, hidden_size, generator)
        shape = (config.num_arrays, 2**config.num_bits, num_heads, 3)
        self._buckets_KBH3 = np.zeros(shape, np.float32)
        self._first_K = np.arange(shape[0]) * shape[1]
        self._changed = ChangedRows()
        self._changed.grow(shape[0] * shape[1])
        self._written_H = np.zeros(num_heads)
        self._centre_D = np.zeros(hidden_size)
        self._centred_weight = 0.0
        self._log2_weight = 0.0
        self._half_life_scale = 1.0
        self._newest_ms: int | None = None
        self._reset_ms = 0

    @property
    def num_bytes(self) -> int:
        """Return the size of the sketch in bytes: 12 H K 2**L."""
        return self._buckets_KBH3.nbytes

    @property
    def empty_share(self) -> float:
        """Return the share of buckets with less than `min_count` in them, all heads together."""
        least = self._config.min_count * 2.0**self._log2_weight
        return float((self._buckets_KBH3[..., 0] < least).mean())

    def read(self, hidden_ND: NDArray[np.float32]) -> MemoryRead:
        """Look up N hidden states; changes nothing."""
        config = self._config
        shape = (3, config.num_arrays, len(hidden_ND), len(self._written_H))
        found_3KNH = np.empty(shape)
        kernels.gather(self._codes(hidden_ND), self._buckets_KBH3, found_3KNH)
        found_3KNH /= 2.0**self._log2_weight
        count_KNH, label_KNH, base_KNH = found_3KNH

        held_KNH = count_KNH >= config.min_count
        similarity_KNH = np.where(held_KNH, self._similarity(count_KNH), 0.0)
        top_NH = similarity_KNH.max(axis=0)
        attention_KNH = np.exp((similarity_KNH - top_NH) / config.tau) * held_KNH
        total_NH = attention_KNH.sum(axis=0)
        attention_KNH /= np.where(total_NH > 0, total_NH, 1.0)

        weight_KNH = attention_KNH / np.where(held_KNH, count_KNH + config.prior_count, 1.0)
        return MemoryRead(
            trust=(weight_KNH * count_KNH).sum(axis=0),
            mean_label=(weight_KNH * label_KNH).sum(axis=0),
            mean_base=(weight_KNH * base_KNH).sum(axis=0),
            similarity=similarity_KNH.mean(axis=0),
            support=count_KNH.mean(axis=0),
        )

    def write(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        time_ms: int,
    ) -> None:
        """Add N labelled examples; a head whose label is NaN is left as it was.

        A `time_ms` older than the newest counts as the newest.
        """
        known_NH = ~np.isnan(labels_NH)
        rows = np.flatnonzero(known_NH.any(axis=1))
        if len(rows) == 0:
            return
        self._advance(time_ms)
        weight = 2.0**self._log2_weight
        hidden_ND = hidden_ND[rows]
        self._move_centre(hidden_ND, weight)
        codes_NK = self._codes(hidden_ND)
        self._changed.mark(codes_NK + self._first_K)
        kernels.write(
            codes_NK,
            np.ascontiguousarray(base_NH[rows], np.float32),
            np.ascontiguousarray(labels_NH[rows], np.float32),
            np.float32(weight),
            self._buckets_KBH3,
        )
        self._written_H += weight * known_NH.sum(axis=0)

    def scale_half_life(self, factor: float) -> None:
        """Forget at this many times the configured half-life from now on; not saved."""
        self._half_life_scale = factor

    def reset(self) -> None:
        """Forget everything written; to be called when the base model is replaced."""
        self._buckets_KBH3[:] = 0
        self._changed.mark_all()
        self._written_H[:] = 0
        self._centre_D[:] = 0
        self._centred_weight = 0.0

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "planes": self._hash.planes_DLK.copy(),
            "buckets": self._buckets_KBH3.copy(),
            "written": self._written_H.copy(),
            "centre": self._centre_D.copy(),
            "centred_weight": self._centred_weight,
            "log2_weight": self._log2_weight,
            "newest_ms": self._newest_ms,
            "reset_ms": self._reset_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            ModelError: the state belongs to a memory of another size.
        """
        own = {"planes": self._hash.planes_DLK, "buckets": self._buckets_KBH3}
        for name, array in own.items():
            if state[name].shape != array.shape:
                raise ModelError(
                    f"memory.{name}: expected shape {array.shape}, got {state[name].shape}; "
                    "num_arrays, num_bits, the heads and the hidden size must stay as saved"
                )
        self._hash.planes_DLK = state["planes"].copy()
        self._buckets_KBH3 = state["buckets"].copy()
        self._changed.clear()
        self._written_H = state["written"].copy()
        self._centre_D = state["centre"].copy()
        self._centred_weight = state["centred_weight"]
        self._log2_weight = state["log2_weight"]
        self._newest_ms = state["newest_ms"]
        self._reset_ms = state["reset_ms"]

    def take_delta(self) -> State:
        """Return the buckets written since the last call, and what a read needs beside them."""
        rows = self._changed.take()
        return {
            "rows": rows,
            "buckets": self._flat_buckets()[rows],
            "written": self._written_H.copy(),
            "centre": self._centre_D.copy(),
            "log2_weight": self._log2_weight,
        }

    def read_delta(self, reader: StateReader) -> MemoryDelta:
        """Check what `take_delta` of another memory returned.

        Raises:
            SnapshotError: it is something else, or the other memory is of another size.
        """
        flat = self._flat_buckets()
        rows = reader.rows("rows", len(flat))
        return MemoryDelta(
            rows=rows,
            buckets_RH3=reader.array("buckets", np.float32, (len(rows), *flat.shape[1:])),
            written_H=reader.array("written", np.float64, self._written_H.shape),
            centre_D=reader.array("centre", np.float64, self._centre_D.shape),
            log2_weight=reader.number("log2_weight"),
        )

    def apply_delta(self, delta: MemoryDelta) -> None:
        """Read from now on as the memory does that the delta was taken from."""
        self._flat_buckets()[delta.rows] = delta.buckets_RH3
        self._written_H = delta.written_H.copy()
        self._centre_D = delta.centre_D.copy()
        self._log2_weight = delta.log2_weight

    def _flat_buckets(self) -> NDArray[np.float32]:
        """Return a view with one row per bucket."""
        return self._buckets_KBH3.reshape(-1, *self._buckets_KBH3.shape[2:])

    def _codes(self, hidden_ND: NDArray[np.float32]) -> NDArray[np.int32]:
        return self._hash.codes(hidden_ND, self._centre_D.astype(np.float32))

    def _similarity(self, count_KNH: NDArray[np.float64]) -> NDArray[np.float64]:
        similarity_KNH = count_KNH
        match self._config.similarity:
            case "density":
                written_H = self._written_H / 2.0**self._log2_weight
                similarity_KNH = count_KNH / np.maximum(written_H, self._config.min_count)
            case "log_count":
                similarity_KNH = np.log1p(count_KNH)
            case "count":
                pass
        return similarity_KNH

    def _advance(self, time_ms: int) -> None:
        """Move event time forward; reset or scale down when that is due."""
        if self._newest_ms is None:
            self._newest_ms = self._reset_ms = time_ms
        passed_ms = max(time_ms - self._newest_ms, 0)
        self._newest_ms += passed_ms
        reset_every_ms = self._config.reset_every_ms
        if reset_every_ms is not None and self._newest_ms - self._reset_ms >= reset_every_ms:
            self.reset()
            self._reset_ms = self._newest_ms
        if self._config.half_life_ms is None:
            return
        self._log2_weight += passed_ms / (self._config.half_life_ms * self._half_life_scale)
        if self._log2_weight >= _RESCALE_HALVINGS:
            self._scale_down(int(self._log2_weight))

    def _scale_down(self, halvings: int) -> None:
        scale = math.ldexp(1.0, -halvings)
        self._buckets_KBH3 *= np.float32(scale)
        self._changed.mark_all()
        self._written_H *= scale
        self._centred_weight *= scale
        self._log2_weight -= halvings

    def _move_centre(self, hidden_ND: NDArray[np.float32], weight: float) -> None:
        """Take the batch into the running mean, which forgets at the buckets' pace."""
        if self._config.centring == "none":
            return
        added = weight * len(hidden_ND)
        self._centred_weight += added
        mean_D = hidden_ND.mean(axis=0, dtype=np.float64)
        self._centre_D += (mean_D - self._centre_D) * (added / self._centred_weight)
