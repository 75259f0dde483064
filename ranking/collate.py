"""Captured requests -> one batch: everything stacked, histories padded, every id once.

Shape legend: B requests, M chosen items of all of them, T longest history of the batch, S and I id
columns of request and item, U distinct ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.requests import CapturedRequest

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as arrays. Ids are given as indices into `ids`.

    Attributes:
        ids: U distinct ids in ascending order; `ABSENT` may be among them.
        counts: how often each occurs.
        request_BS: the requests' ids.
        item_MI: the items' ids.
        history_BT: the histories' item ids, oldest first; padding points at `ABSENT`.
        lengths_B: how many entries of each history are there.
        times_s_BU: their times in seconds, U = T + 1; from index `length` on that of the request.
        outcomes_BT: their outcomes, bit h for head h; 0 where padded.
        activity_MA: log counts of user and item, see `FeatureEncoder`.
        floats_MW: the request's numbers, then the item's; NaN where missing.
        request_M: the request each item belongs to, ascending.
        slot_M: the item's place among the chosen ones of its request.
        num_slots: most chosen items of one request, at least 1.
    """

    ids: Integers
    counts: Integers
    request_BS: Integers
    item_MI: Integers
    history_BT: Integers
    lengths_B: Integers
    times_s_BU: NDArray[np.float64]
    outcomes_BT: Integers
    activity_MA: NDArray[np.float32]
    floats_MW: NDArray[np.float32]
    request_M: Integers
    slot_M: Integers
    num_slots: int


def collate(
    captured: Sequence[CapturedRequest], chosen: Sequence[NDArray[np.int64]] | None = None
) -> Batch:
    """Stack at least one request; of each, the chosen items or all of them."""
    arrays: list[Any] = [each.arrays for each in captured]
    items = [each["item_ids"] for each in arrays]
    item_floats = [each["item_floats"] for each in arrays]
    activity = [each["activity"] for each in arrays]
    if chosen is not None:
        items = [rows[index] for rows, index in zip(items, chosen, strict=True)]
        item_floats = [rows[index] for rows, index in zip(item_floats, chosen, strict=True)]
        activity = [rows[index] for rows, index in zip(activity, chosen, strict=True)]
    sizes_B = np.array([len(rows) for rows in items], np.int64)
    request_M = np.repeat(np.arange(len(arrays)), sizes_B)
    starts_B = np.cumsum(sizes_B) - sizes_B
    request_floats = np.stack([each["request_floats"] for each in arrays])
    lengths_B = np.array([len(each["history_ids"]) for each in arrays], np.int64)
    present_BT = np.arange(max(1, lengths_B.max()))[None] < lengths_B[:, None]
    request_BS = np.stack([each["request_ids"] for each in arrays])
    item_MI = np.concatenate(items)
    history_BT = _padded([each["history_ids"] for each in arrays], present_BT, np.int64)
    request_ms_B1 = np.array([each.time_ms for each in captured], np.int64)[:, None]
    times_BU = np.repeat(request_ms_B1, present_BT.shape[1] + 1, axis=1)
    times_BU[:, :-1][present_BT] = np.concatenate([each["history_times_ms"] for each in arrays])
    parts = (request_BS, item_MI, history_BT)
    ids, index, counts = np.unique(
        np.concatenate([part.reshape(-1) for part in parts]),
        return_inverse=True,
        return_counts=True,
    )
    ends = np.cumsum([part.size for part in parts])
    return Batch(
        ids=ids,
        counts=counts,
        request_BS=index[: ends[0]].reshape(request_BS.shape),
        item_MI=index[ends[0] : ends[1]].reshape(item_MI.shape),
        history_BT=index[ends[1] :].reshape(history_BT.shape),
        lengths_B=lengths_B,
        times_s_BU=times_BU / 1_000,
        outcomes_BT=_padded([each["history_outcomes"] for each in arrays], present_BT, np.int64),
        activity_MA=np.concatenate(activity),
        floats_MW=np.concatenate(
            [request_floats[request_M], np.concatenate(item_floats)], axis=1, dtype=np.float32
        ),
        request_M=request_M,
        slot_M=np.arange(len(request_M)) - starts_B[request_M],
        num_slots=max(1, int(sizes_B.max())),
    )


def in_chunks(captured: Sequence[CapturedRequest], max_rows: int) -> list[list[CapturedRequest]]:
    """Cut requests so that the items of no chunk, padded, take more than `max_rows` rows.

    A request is never cut, however many items it has.
    """
    chunks: list[list[CapturedRequest]] = []
    widest = 0
    for request in captured:
        widest = max(widest, len(request.item_ids))
        if not chunks or (len(chunks[-1]) + 1) * widest > max_rows:
            chunks.append([])
            widest = len(request.item_ids)
        chunks[-1].append(request)
    return chunks


def _padded(
    rows: Sequence[NDArray[Any]], present_BT: NDArray[np.bool_], dtype: type
) -> NDArray[Any]:
    # For ids, zero is `ABSENT`: padding has a row of zeros and learns nothing.
    padded: NDArray[Any] = np.zeros(present_BT.shape, dtype)
    padded[present_BT] = np.concatenate(rows)
    return padded
