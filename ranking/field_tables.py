"""The tables that fields are looked up in: the large one, and the small one fields are chosen by.

Shape legend: U distinct ids of a batch, M examples, F fields, D width of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domain.state import State
from domain.state_reading import StateReader
from ranking.collate import Batch
from ranking.embedding_table import EmbeddingTable, EmbeddingTableConfig
from ranking.field_layout import FieldLayout
from ranking.id_map import ABSENT
from ranking.row_store import RowsDelta

LARGE, SMALL = "table", "small_table"


@dataclass(frozen=True, slots=True)
class LookUp:
    """Rows that were read for a batch, and how they learn.

    Attributes:
        table: where they were read.
        ids: N distinct ids.
        counts: how often each of them is in the batch.
        rows_ND: what was read; its gradient is what is learned.
    """

    table: EmbeddingTable
    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    rows_ND: Tensor

    @property
    def num_values(self) -> int:
        """Return how many numbers were looked up, a row as often as its id is in the batch."""
        return int(self.counts[self.ids != ABSENT].sum()) * self.rows_ND.shape[1]

    def is_finite(self) -> bool:
        """Return whether the gradient can be learned from."""
        gradient = self.rows_ND.grad
        return gradient is None or bool(torch.isfinite(gradient.sum()))

    def learn(self, time_ms: int) -> None:
        """Take a step along the gradient; see `EmbeddingTable.learn`."""
        gradient = self.rows_ND.grad
        if gradient is None:
            return
        real = self.ids != ABSENT
        gradients = gradient.cpu().numpy()[real]
        self.table.learn(self.ids[real], self.counts[real], gradients, time_ms)


class FieldTables:
    """One row per id in the large table and, when fields are chosen, one in the small table too."""

    def __init__(
        self, config: EmbeddingTableConfig, small_dimension: int | None, seed: int
    ) -> None:
        self._tables = {LARGE: EmbeddingTable(config, seed)}
        if small_dimension is not None:
            small = replace(config, dimension=small_dimension)
            self._tables[SMALL] = EmbeddingTable(small, seed)

    def __len__(self) -> int:
        return len(self._tables[LARGE])

    def look_up(
        self,
        which: str,
        batch: Batch,
        device: torch.device,
        counts_U: NDArray[np.int64] | None = None,
    ) -> LookUp:
        """Read a batch's rows; where gradients are wanted, they are wanted of these.

        Args:
            which: `LARGE` or `SMALL`.
            batch: says which ids.
            device: where the rows are wanted.
            counts_U: how often each of the batch's ids is needed; ids that are not needed are not
                read. All are when it is None.
        """
        ids, counts = batch.ids, batch.counts
        if counts_U is not None:
            needed = counts_U > 0
            ids, counts = ids[needed], counts_U[needed]
        table = self._tables[which]
        rows_ND = torch.from_numpy(table.read(ids)).to(device)
        return LookUp(table, ids, counts, rows_ND.requires_grad_(torch.is_grad_enabled()))

    def scale_learning_rate(self, factor: float) -> None:
        """Take steps of this many times the configured size from now on."""
        for table in self._tables.values():
            table.scale_learning_rate(factor)

    def save(self) -> State:
        """Return the tables' states by name."""
        return {name: table.save() for name, table in self._tables.items()}

    def load(self, state: State) -> None:
        """Become what `save` described; `state` may hold more."""
        for name, table in self._tables.items():
            table.load(state[name])

    def take_delta(self) -> State:
        """Return what changed in each table by name."""
        return {name: table.take_delta() for name, table in self._tables.items()}

    def read_delta(self, reader: StateReader) -> dict[str, RowsDelta]:
        """Check what `take_delta` returned.

        Raises:
            SnapshotError: it is something else.
        """
        return {name: table.read_delta(reader.part(name)) for name, table in self._tables.items()}

    def apply_delta(self, deltas: Mapping[str, RowsDelta]) -> None:
        """Read from now on as the tables do that the delta was taken from."""
        for name, table in self._tables.items():
            table.apply_delta(deltas[name])


def needed_counts(
    batch: Batch, layout: FieldLayout, chosen_MF: NDArray[np.bool_], *, history: bool
) -> NDArray[np.int64]:
    """Return how often each of the batch's ids is needed when only chosen fields are, (U,).

    What belongs to the request is needed once when any of its items chose it.

    Args:
        batch: M examples.
        layout: says which ids belong to which field.
        chosen_MF: whether an example's field was chosen.
        history: whether the entries of histories are needed; they are no field to choose.
    """
    counts = np.zeros(len(batch.ids), np.int64)
    num_request = layout.request.num_fields
    chosen_BF = np.zeros((len(batch.request_BS), num_request), bool)
    np.logical_or.at(chosen_BF, batch.request_M, chosen_MF[:, :num_request])
    request = batch.request_BS[chosen_BF[:, layout.request.fields_of_columns()]]
    item = batch.item_MI[chosen_MF[:, num_request:][:, layout.item.fields_of_columns()]]
    parts = [request, item]
    if history:
        present_BT = np.arange(batch.history_BT.shape[1]) < batch.lengths_B[:, None]
        parts.append(batch.history_BT[present_BT])
    counts += np.bincount(np.concatenate(parts), minlength=len(counts))
    counts[batch.ids == ABSENT] = 0
    return counts


def spread(lookup: LookUp, counts_U: NDArray[np.int64]) -> Tensor:
    """Return rows for all ids of a batch, zeros for those that were not needed, (U, D)."""
    needed = torch.from_numpy(np.flatnonzero(counts_U > 0)).to(lookup.rows_ND.device)
    rows_UD = lookup.rows_ND.new_zeros((len(counts_U), lookup.rows_ND.shape[1]))
    return rows_UD.index_copy(0, needed, lookup.rows_ND)
