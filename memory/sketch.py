"""The error memory as a sketch: labels and scores, bucketed by hidden state, in constant space."""

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
from memory.centre import Centre
from memory.config import MemoryConfig
from memory.decay import Decay
from memory.hashing import SignHash
from memory.store import MemoryRead

_RESCALE_HALVINGS = 16
"""After this many half-lives everything is scaled down, by a power of two, which float32 does
exactly. 2**16 times `MAX_BUCKET_COUNT` is far from overflow, and a pass over a few MB is rare."""

_KINDS = {"density": kernels.DENSITY, "count": kernels.COUNT, "log_count": kernels.LOG_COUNT}


@dataclass(frozen=True, slots=True, eq=False)
class SketchDelta:
    """What a read needs that changed; R buckets, H heads.

    Attributes:
        rows: int64 (R,), ascending: array times 2**L plus bucket.
        counts_RH2: what they hold now, of the sketch's own type: examples and positive labels.
        bases_RH: float32, sums of base scores.
        written_H: float64, total weight written.
        centre_D: float64, mean hidden state.
        log2_weight: binary logarithm of what a new example weighs.
    """

    rows: NDArray[np.int64]
    counts_RH2: NDArray[np.float32] | NDArray[np.int32]
    bases_RH: NDArray[np.float32]
    written_H: NDArray[np.float64]
    centre_D: NDArray[np.float64]
    log2_weight: float


class Sketch:
    """ReLoop2's locality-sensitive sketch (section 3.2) with event-time decay; an `ErrorStore`.

    K arrays of 2**L buckets hold (count, sum of labels, sum of base scores) per head, 12 bytes.
    Without a half-life every example counts 1, so counts and sums of labels are int32. With one an
    example's weight is any number, so they are float32: integers could not hold it.
    """

    def __init__(
        self,
        config: MemoryConfig,
        hidden_size: int,
        num_heads: int,
        generator: np.random.Generator,
    ) -> None:
        self._config = config
        self._kind = _KINDS[config.similarity]
        if config.similarity == "log_count" and config.tau == 1.0:
            self._kind = kernels.POOLED
        self._hash = SignHash(config.num_arrays, config.num_bits, hidden_size, generator)
        self._count_type = np.dtype(np.int32 if config.half_life_ms is None else np.float32)
        shape = (config.num_arrays, 2**config.num_bits, num_heads, 3)
        self._sums_KBH3 = np.zeros(shape, np.float32)
        self._counts_KBH3 = self._sums_KBH3.view(self._count_type)
        self._changed = ChangedRows()
        self._changed.grow(shape[0] * shape[1])
        self._written_H = np.zeros(num_heads)
        self._centre = Centre(config.centring, hidden_size)
        self._decay = Decay(config)

    @property
    def num_bytes(self) -> int:
        """Return the size of the sketch in bytes: 12 H K 2**L."""
        return self._sums_KBH3.nbytes

    @property
    def empty_share(self) -> float:
        """Return the share of buckets with less than `min_count` in them, all heads together."""
        least = self._config.min_count * 2.0**self._decay.log2_weight
        return float((self._counts_KBH3[..., 0] < least).mean())

    def read(self, hidden_ND: NDArray[np.float32]) -> MemoryRead:
        """Look up N hidden states; changes nothing."""
        config, weight = self._config, 2.0**self._decay.log2_weight
        found_4NH = np.empty((4, len(hidden_ND), len(self._written_H)))
        kernels.read(
            self._codes(hidden_ND),
            self._counts_KBH3,
            self._sums_KBH3,
            self._kind,
            (weight, config.min_count, config.prior_count, config.tau),
            np.maximum(self._written_H / weight, config.min_count),
            found_4NH,
        )
        return MemoryRead(*found_4NH)

    def density(self, hidden_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return RACE's estimate of the kernel density at N states, (N, H).

        Mean over the arrays of the share of all examples that are in the state's bucket (Coleman
        and Shrivastava, WWW 2020).
        """
        codes_NK = self._codes(hidden_ND).T
        count_NKH = self._counts_KBH3[np.arange(codes_NK.shape[1]), codes_NK, :, 0]
        density_NH: NDArray[np.float64] = count_NKH.mean(axis=1, dtype=np.float64)
        return density_NH / np.maximum(self._written_H, 1e-300)

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
        rows = _labelled(labels_NH)
        if len(rows) == 0:
            return
        if self._decay.advance(time_ms):
            self.reset()
        if self._decay.log2_weight >= _RESCALE_HALVINGS:
            self._scale_down(int(self._decay.log2_weight))
        weight = np.array([2.0**self._decay.log2_weight])
        self._put(hidden_ND, base_NH, labels_NH, rows, weight)

    def rewrite(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        times_ms_N: NDArray[np.int64],
    ) -> None:
        """Add N examples that were written before, with the age they have; time stands still."""
        rows = _labelled(labels_NH)
        if len(rows):
            weight_N = 2.0 ** self._decay.log2_weights(times_ms_N[rows])
            self._put(hidden_ND, base_NH, labels_NH, rows, weight_N)

    def scale_half_life(self, factor: float) -> None:
        """Forget at this many times the configured half-life from now on; not saved."""
        self._decay.scale_half_life(factor)

    def reset(self) -> None:
        """Forget everything written; to be called when the base model is replaced."""
        self._sums_KBH3[:] = 0
        self._changed.mark_all()
        self._written_H[:] = 0
        self._centre.reset()

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "planes": self._hash.planes_DLK.copy(),
            **self._bucket_state(self._flat(self._counts_KBH3), self._flat(self._sums_KBH3)),
            "written": self._written_H.copy(),
            **self._centre.save(),
            **self._decay.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            ModelError: the state belongs to a memory of another kind or size.
        """
        counts, sums = self._flat(self._counts_KBH3), self._flat(self._sums_KBH3)
        own = {"planes": self._hash.planes_DLK, **self._bucket_state(counts, sums)}
        for name, array in own.items():
            got = state.get(name)
            if got is None or got.shape != array.shape or got.dtype != array.dtype:
                found = "nothing" if got is None else f"{got.dtype} {got.shape}"
                raise ModelError(
                    f"memory.{name}: expected {array.dtype} of shape {array.shape}, got {found}; "
                    "kind, num_arrays, num_bits, the heads, the hidden size and whether there is a "
                    "half-life must stay as saved"
                )
        self._hash.use(state["planes"].copy())
        counts[..., :2] = state["counts"]
        sums[..., 2] = state["bases"]
        self._changed.clear()
        self._written_H = state["written"].copy()
        self._centre.load(state)
        self._decay.load(state)

    def take_delta(self) -> State:
        """Return the buckets written since the last call, and what a read needs beside them."""
        rows = self._changed.take()
        return {
            "rows": rows,
            **self._bucket_state(
                self._flat(self._counts_KBH3)[rows], self._flat(self._sums_KBH3)[rows]
            ),
            "written": self._written_H.copy(),
            "centre": self._centre.mean_D.copy(),
            "log2_weight": self._decay.log2_weight,
        }

    def read_delta(self, reader: StateReader) -> SketchDelta:
        """Check what `take_delta` of another memory returned.

        Raises:
            SnapshotError: it is something else, or the other memory is of another size.
        """
        num_heads = len(self._written_H)
        rows = reader.rows("rows", len(self._flat(self._sums_KBH3)))
        return SketchDelta(
            rows=rows,
            counts_RH2=reader.array("counts", self._count_type, (len(rows), num_heads, 2)),
            bases_RH=reader.array("bases", np.float32, (len(rows), num_heads)),
            written_H=reader.array("written", np.float64, self._written_H.shape),
            centre_D=self._centre.read_delta(reader),
            log2_weight=reader.number("log2_weight"),
        )

    def apply_delta(self, delta: SketchDelta) -> None:
        """Read from now on as the memory does that the delta was taken from."""
        self._flat(self._counts_KBH3)[delta.rows, :, :2] = delta.counts_RH2
        self._flat(self._sums_KBH3)[delta.rows, :, 2] = delta.bases_RH
        self._written_H = delta.written_H.copy()
        self._centre.mean_D = delta.centre_D.copy()
        self._decay.log2_weight = delta.log2_weight

    def _put(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        rows: NDArray[np.int64],
        weight_N: NDArray[np.float64],
    ) -> None:
        """Write some rows, with a weight each or one for all."""
        if len(rows) < len(labels_NH):
            hidden_ND, base_NH, labels_NH = hidden_ND[rows], base_NH[rows], labels_NH[rows]
        self._centre.move(hidden_ND, weight_N)
        codes_KN = self._codes(hidden_ND)
        known_NH = ~np.isnan(labels_NH)
        # One weight for all is the case of every ordinary write, so it must be the quick one.
        written_H = weight_N * known_NH.sum(axis=0) if len(weight_N) == 1 else weight_N @ known_NH
        kernels.write(
            codes_KN,
            np.require(base_NH, np.float32, ["C", "W"]),
            np.require(labels_NH, np.float32, ["C", "W"]),
            np.full(len(rows), weight_N, self._count_type),
            self._counts_KBH3,
            self._sums_KBH3,
            self._changed.flags,
        )
        self._written_H += written_H

    def _codes(self, hidden_ND: NDArray[np.float32]) -> NDArray[np.int32]:
        return self._hash.codes(hidden_ND, self._centre.mean_D.astype(np.float32))

    def _scale_down(self, halvings: int) -> None:
        scale = math.ldexp(1.0, -halvings)
        self._sums_KBH3 *= np.float32(scale)
        self._changed.mark_all()
        self._written_H *= scale
        self._centre.scale_down(scale)
        self._decay.log2_weight -= halvings

    @staticmethod
    def _flat(array_KBH3: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a view with one row per bucket."""
        return array_KBH3.reshape(-1, *array_KBH3.shape[2:])

    @staticmethod
    def _bucket_state(counts_RH3: NDArray[np.generic], sums_RH3: NDArray[np.generic]) -> State:
        return {"counts": counts_RH3[..., :2].copy(), "bases": sums_RH3[..., 2].copy()}


def _labelled(labels_NH: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows of which at least one label is known."""
    rows: NDArray[np.int64] = np.flatnonzero(~np.isnan(labels_NH).all(axis=1))
    return rows
