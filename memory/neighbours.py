"""The error memory as a window: the most similar of the last examples, searched completely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.changed_rows import ChangedRows
from domain.errors import ModelError
from domain.state import State
from domain.state_reading import StateReader
from memory import neighbour_kernels
from memory.centre import Centre
from memory.config import MemoryConfig
from memory.decay import Decay
from memory.store import MemoryRead

_QUERIES_AT_A_TIME = 64
"""Their products with 50,000 examples take 13 MB."""
_NEVER = -(2**62)
"""Order of an empty slot: before everything that was written."""


@dataclass(frozen=True, slots=True, eq=False)
class NeighboursDelta:
    """What a read needs that changed; R slots, see `Neighbours`."""

    rows: NDArray[np.int64]
    slots: dict[str, NDArray[np.generic]]
    num_written: int
    centre_D: NDArray[np.float64]
    log2_weight: float


class Neighbours:
    """ReLoop2's memory as an index of neighbours (section 3.2, the first form); an `ErrorStore`.

    A ring of the last `window` examples, each with its hidden state (less the running mean, at
    length 1), labels and base scores. A read takes the `count` of largest cosine and weighs them by
    exp(cosine / tau) and by age. The search is complete: exact, and its time grows with the window.

    Examples may be left out: those whose scores were nearly right, and others at random.
    """

    def __init__(
        self,
        config: MemoryConfig,
        hidden_size: int,
        num_heads: int,
        generator: np.random.Generator,
    ) -> None:
        self._config = config
        self._own = config.neighbours
        self._generator = generator
        window = self._own.window
        self._unit_WD = np.zeros((window, hidden_size), np.float32)
        self._label_WH = np.full((window, num_heads), np.nan, np.float32)
        self._base_WH = np.zeros((window, num_heads), np.float32)
        self._log2_W = np.zeros(window)
        self._order_W = np.full(window, _NEVER, np.int64)
        self._num_written = 0
        self._changed = ChangedRows()
        self._changed.grow(window)
        self._centre = Centre(config.centring, hidden_size)
        self._decay = Decay(config)

    @property
    def num_bytes(self) -> int:
        """Return the size of the ring in bytes: (4 D + 8 H + 16) for each example of the window."""
        return sum(array.nbytes for array in self._slots().values())

    @property
    def empty_share(self) -> float:
        """Return the share of slots that hold nothing that would be read."""
        weight_W = np.exp2(self._log2_W - self._decay.log2_weight)
        held_W = (self._order_W > _NEVER) & (weight_W >= self._config.min_count)
        return 1.0 - float(held_W.mean())

    def read(self, hidden_ND: NDArray[np.float32]) -> MemoryRead:
        """Look up N hidden states; changes nothing."""
        found_4NH = np.zeros((4, len(hidden_ND), self._label_WH.shape[1]))
        num_slots = min(self._num_written, len(self._unit_WD))
        if num_slots and len(hidden_ND):
            query_ND = self._units(hidden_ND)
            for start in range(0, len(query_ND), _QUERIES_AT_A_TIME):
                rows = slice(start, start + _QUERIES_AT_A_TIME)
                self._read_part(query_ND[rows], num_slots, found_4NH[:, rows])
        return MemoryRead(*found_4NH)

    def write(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        time_ms: int,
    ) -> None:
        """Add N labelled examples, but for those that are left out.

        A `time_ms` older than the newest counts as the newest.
        """
        if np.isnan(labels_NH).all():
            return
        if self._decay.advance(time_ms):
            self.reset()
        kept_N = self._kept(base_NH, labels_NH)
        log2_N = np.full(len(labels_NH), self._decay.log2_weight)
        self._put(hidden_ND, base_NH, labels_NH, log2_N, np.flatnonzero(kept_N))

    def rewrite(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        times_ms_N: NDArray[np.int64],
    ) -> None:
        """Add N examples that were written before, with the age they have; time stands still."""
        kept_N = self._kept(base_NH, labels_NH)
        log2_N = self._decay.log2_weights(times_ms_N)
        self._put(hidden_ND, base_NH, labels_NH, log2_N, np.flatnonzero(kept_N))

    def scale_half_life(self, factor: float) -> None:
        """Forget at this many times the configured half-life from now on; not saved."""
        self._decay.scale_half_life(factor)

    def reset(self) -> None:
        """Forget everything written; to be called when the base model is replaced."""
        self._unit_WD[:] = 0
        self._label_WH[:] = np.nan
        self._base_WH[:] = 0
        self._log2_W[:] = 0
        self._order_W[:] = _NEVER
        self._num_written = 0
        self._changed.mark_all()
        self._centre.reset()

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            **{name: array.copy() for name, array in self._slots().items()},
            "num_written": self._num_written,
            "generator": self._generator.bit_generator.state,
            **self._centre.save(),
            **self._decay.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            ModelError: the state belongs to a memory of another kind or size.
        """
        for name, array in self._slots().items():
            got = state.get(name)
            if got is None or got.shape != array.shape:
                found = "nothing" if got is None else str(got.shape)
                raise ModelError(
                    f"memory.{name}: expected shape {array.shape}, got {found}; kind, "
                    "neighbours.window, the heads and the hidden size must stay as saved"
                )
        for name, array in self._slots().items():
            array[:] = state[name]
        self._num_written = state["num_written"]
        self._generator.bit_generator.state = state["generator"]
        self._changed.clear()
        self._centre.load(state)
        self._decay.load(state)

    def take_delta(self) -> State:
        """Return the slots written since the last call, and what a read needs beside them."""
        rows = self._changed.take()
        return {
            "rows": rows,
            **{name: array[rows] for name, array in self._slots().items()},
            "num_written": self._num_written,
            "centre": self._centre.mean_D.copy(),
            "log2_weight": self._decay.log2_weight,
        }

    def read_delta(self, reader: StateReader) -> NeighboursDelta:
        """Check what `take_delta` of another memory returned.

        Raises:
            SnapshotError: it is something else, or the other memory is of another size.
        """
        rows = reader.rows("rows", len(self._unit_WD))
        slots = {
            # A label that is not known is NaN.
            name: reader.array(
                name, array.dtype, (len(rows), *array.shape[1:]), finite=name != "labels"
            )
            for name, array in self._slots().items()
        }
        return NeighboursDelta(
            rows=rows,
            slots=slots,
            num_written=reader.integer("num_written"),
            centre_D=self._centre.read_delta(reader),
            log2_weight=reader.number("log2_weight"),
        )

    def apply_delta(self, delta: NeighboursDelta) -> None:
        """Read from now on as the memory does that the delta was taken from."""
        for name, array in self._slots().items():
            array[delta.rows] = delta.slots[name]
        self._num_written = delta.num_written
        self._centre.mean_D = delta.centre_D.copy()
        self._decay.log2_weight = delta.log2_weight

    def _slots(self) -> dict[str, NDArray[np.generic]]:
        return {
            "units": self._unit_WD,
            "labels": self._label_WH,
            "bases": self._base_WH,
            "log2": self._log2_W,
            "order": self._order_W,
        }

    def _kept(
        self, base_NH: NDArray[np.float32], labels_NH: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Return which examples are worth a slot; draws numbers only when some are not."""
        error_NH = np.where(np.isnan(labels_NH), -1.0, np.abs(labels_NH - base_NH))
        kept_N: NDArray[np.bool_] = np.any(error_NH >= self._own.min_error, axis=1)
        if self._own.keep_rate < 1.0:
            kept_N &= self._generator.random(len(kept_N)) < self._own.keep_rate
        return kept_N

    def _put(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        log2_N: NDArray[np.float64],
        rows: NDArray[np.int64],
    ) -> None:
        if len(rows) == 0:
            return
        self._centre.move(hidden_ND[rows], np.exp2(log2_N[rows]))
        rows = rows[-len(self._unit_WD) :]  # what would be overwritten at once is not written
        order = self._num_written + np.arange(len(rows))
        slots = order % len(self._unit_WD)
        self._unit_WD[slots] = self._units(hidden_ND[rows])
        self._label_WH[slots] = labels_NH[rows]
        self._base_WH[slots] = base_NH[rows]
        self._log2_W[slots] = log2_N[rows]
        self._order_W[slots] = order
        self._num_written += len(rows)
        self._changed.mark(slots)

    def _units(self, hidden_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return states less the mean, at length 1; a row's never depends on those beside it."""
        centred_ND = hidden_ND.astype(np.float64) - self._centre.mean_D
        length_N = np.sqrt(np.add.accumulate(centred_ND**2, axis=1)[:, -1])
        units_ND = centred_ND / np.maximum(length_N, 1e-30)[:, None]
        return np.require(units_ND.astype(np.float32), requirements=["C", "W"])

    def _read_part(
        self, query_ND: NDArray[np.float32], num_slots: int, found_4NH: NDArray[np.float64]
    ) -> None:
        slots_Nk, cosine_Nk = self._search(query_ND, num_slots)
        held_Nk = slots_Nk >= 0
        slots_Nk = np.maximum(slots_Nk, 0)
        weight_Nk = np.exp2(self._log2_W[slots_Nk] - self._decay.log2_weight) * held_Nk
        nearness_Nk = np.exp(
            (np.where(held_Nk, cosine_Nk, -np.inf) - cosine_Nk[:, :1]) / self._own.tau
        )
        for head in range(found_4NH.shape[2]):
            label_Nk = self._label_WH[slots_Nk, head]
            known_Nk = ~np.isnan(label_Nk)
            support_N = _in_order(weight_Nk * known_Nk)
            attention_Nk = weight_Nk * nearness_Nk * known_Nk
            total_N = _in_order(attention_Nk)
            held_N = (support_N >= self._config.min_count) & (total_N > 0)
            trust_N = held_N * support_N / np.maximum(support_N + self._config.prior_count, 1e-300)
            share_Nk = attention_Nk * (trust_N / np.where(held_N, total_N, 1.0))[:, None]
            found_4NH[0, :, head] = trust_N
            found_4NH[1, :, head] = _in_order(share_Nk * np.where(known_Nk, label_Nk, 0.0))
            found_4NH[2, :, head] = _in_order(share_Nk * self._base_WH[slots_Nk, head])
            found_4NH[3, :, head] = support_N

    def _search(
        self, query_ND: NDArray[np.float32], num_slots: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots of the nearest, (N, k), and their cosines, best first."""
        unit_WD = self._unit_WD[:num_slots]
        rough_NW = query_ND @ unit_WD.T
        shape = (len(query_ND), min(self._own.count, num_slots))
        slots_Nk, cosine_Nk = np.empty(shape, np.int64), np.empty(shape, np.float32)
        # Both vectors have length 1, so D * 2**-23 bounds what rounding does (see `SignHash`).
        slack = np.float32(query_ND.shape[1] * 2.0**-21)
        neighbour_kernels.nearest(
            rough_NW, query_ND, unit_WD, self._order_W, slack, slots_Nk, cosine_Nk
        )
        return slots_Nk, cosine_Nk


def search_numpy(
    query_ND: NDArray[np.float32],
    unit_WD: NDArray[np.float32],
    order_W: NDArray[np.int64],
    count: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what the compiled search finds, bit for bit, in plain NumPy: its slow twin."""
    cosine_NW = np.zeros((len(query_ND), len(unit_WD)), np.float32)
    for d in range(query_ND.shape[1]):
        cosine_NW += query_ND[:, d, None] * unit_WD[:, d]
    slots_Nk = np.stack([np.lexsort((-order_W, -row_W))[:count] for row_W in cosine_NW])
    return slots_Nk, np.take_along_axis(cosine_NW, slots_Nk, axis=1)


def _in_order(values_Nk: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each row's sum, added from the left whatever the number of rows."""
    total_N: NDArray[np.float64] = np.add.accumulate(values_Nk, axis=1, dtype=np.float64)[:, -1]
    return total_N
