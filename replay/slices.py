"""Slices: the parts of a stream that a single number hides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from replay.records import ExampleRecords

NEW_ITEM_SHOWS = 10
_TENTHS = 10


def slices(records: ExampleRecords, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return the rows of each slice by name; slices overlap, and an empty one is left out.

    New users had no known action when the item was shown; new items had been shown fewer than
    `NEW_ITEM_SHOWS` times. The rest is there to compare them with. Activity counts a user's
    examples among `rows`; the tenths hold equally many users, those with equal counts together.
    """
    columns = {name: column[rows] for name, column in records.columns.items()}
    found = {
        "new users": rows[columns["known_actions"] == 0],
        "known users": rows[columns["known_actions"] > 0],
        "new items": rows[columns["item_shown"] < NEW_ITEM_SHOWS],
        "known items": rows[columns["item_shown"] >= NEW_ITEM_SHOWS],
        **_by_activity(columns, rows),
    }
    return {name: chosen for name, chosen in found.items() if len(chosen)}


def _by_activity(
    columns: Mapping[str, NDArray[np.int64]], rows: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    if not len(rows):
        return {}
    _, code_N, count_U = np.unique(columns["user"], return_inverse=True, return_counts=True)
    sorted_U = np.sort(count_U)
    # The tenth of a user is that of the last user who was as active, so equals stay together.
    above_U = np.searchsorted(sorted_U, count_U, side="right")
    tenth_U = np.ceil(above_U * _TENTHS / len(count_U)).astype(np.int64)
    found, begin = {}, 1
    for tenth in np.unique(tenth_U).tolist():
        inside_U = tenth_U == tenth
        low, high = int(count_U[inside_U].min()), int(count_U[inside_U].max())
        tenths, span = _span(begin, tenth), _span(low, high)
        noun = "example" if span == "1" else "examples"
        found[f"activity {tenths}/10 ({span} {noun})"] = rows[inside_U[code_N]]
        begin = tenth + 1
    return found


def _span(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}-{high}"
