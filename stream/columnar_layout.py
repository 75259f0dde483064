"""Events as columns: what many events hold, in a few flat arrays and without an object for each.

Both wire forms can be read into it: a columnar record lies in memory as these arrays do
(`stream.columnar_form`), and records of one event are parsed into them (`stream.bulk_decode`).

Shape legend: N = events, T = texts, B = bytes of text, S = shown items, G = sets of features,
F = features, K = texts in features, M = numbers in features, V = numbers in vectors.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

IMPRESSION: Final = 1
FEEDBACK: Final = 2
ITEM_UPDATE: Final = 3
USER_UPDATE: Final = 4
"""Values of `EventColumns.kinds`."""

TEXT: Final = 1
NUMBER: Final = 2
TEXTS: Final = 3
VECTOR: Final = 4
"""Values of `EventColumns.feature_kinds`."""

NO_TEXT: Final = -1
"""In a column of texts: an empty one, or none at all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventColumns:
    """N events in order; a column of "texts" holds numbers of `text`, -1 where there is none.

    A column that a kind of event has no use for holds -1 (`values` 1.0, `withdrawn` 0) in its rows.
    The arrays may be views of the bytes that were read: do not write into them.

    Attributes:
        times_ms: int64 (N,), event time.
        values: float64 (N,), value of feedback.
        event_ids: int32 (N,), texts.
        users: int32 (N,), texts; -1 for item updates.
        items: int32 (N,), texts; feedback and item updates.
        actions: int32 (N,), texts; the kind of feedback.
        impression_ids: int32 (N,), texts; the impression that feedback answers.
        snapshot_ids: int32 (N,), texts; the snapshot that served an impression.
        feature_sets: int32 (N,), which set of features is the event's; -1 for none.
        kinds: uint8 (N,), IMPRESSION, FEEDBACK, ITEM_UPDATE or USER_UPDATE.
        withdrawn: uint8 (N,), 1 where an item update takes the item out.
        shown_starts: int32 (N + 1,); event n shows the items shown_starts[n]:shown_starts[n + 1].
        shown_items: int32 (S,), texts.
        positions: int32 (S,).
        scores: float32 (S,).
        probabilities: float32 (S,).
        text_starts: int32 (T + 1,); text t is text_bytes[text_starts[t]:text_starts[t + 1]].
        text_bytes: uint8 (B,), UTF-8.
        set_starts: int32 (G + 1,); set g has the features set_starts[g]:set_starts[g + 1].
        feature_names: int32 (F,), texts.
        feature_kinds: uint8 (F,), TEXT, NUMBER, TEXTS or VECTOR.
        feature_sizes: int32 (F,), how many of the parts below are the feature's; they follow each
            other in the order of features. 1 for TEXT and NUMBER.
        part_texts: int32 (K,), parts of TEXT and TEXTS; -1 for an empty text.
        part_numbers: float64 (M,), parts of NUMBER.
        part_floats: float32 (V,), parts of VECTOR.
    """

    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    event_ids: NDArray[np.int32]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    actions: NDArray[np.int32]
    impression_ids: NDArray[np.int32]
    snapshot_ids: NDArray[np.int32]
    feature_sets: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    withdrawn: NDArray[np.uint8]
    shown_starts: NDArray[np.int32]
    shown_items: NDArray[np.int32]
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    text_starts: NDArray[np.int32]
    text_bytes: NDArray[np.uint8]
    set_starts: NDArray[np.int32]
    feature_names: NDArray[np.int32]
    feature_kinds: NDArray[np.uint8]
    feature_sizes: NDArray[np.int32]
    part_texts: NDArray[np.int32]
    part_numbers: NDArray[np.float64]
    part_floats: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def num_texts(self) -> int:
        """Return T."""
        return len(self.text_starts) - 1

    def texts(self) -> list[str]:
        """Return the T texts as Python objects."""
        raw = self.text_bytes.tobytes()
        bounds = itertools.pairwise(self.text_starts.tolist())
        if raw.isascii():
            whole = raw.decode("ascii")
            return [whole[start:end] for start, end in bounds]
        return [raw[start:end].decode() for start, end in bounds]


COLUMN_NAMES: Final = tuple(one.name for one in fields(EventColumns))


def unusable(columns: EventColumns) -> NDArray[np.bool_]:
    """Return for each event whether `event_check.contradiction` would say something about it.

    A list that shows an item twice is the one thing that is not seen here: it takes the texts.
    """
    has_text = np.zeros(columns.num_texts + 1, np.bool_)  # the last one stands for -1
    has_text[:-1] = np.diff(columns.text_starts) > 0
    impression, feedback, item_update, _ = (
        columns.kinds == kind for kind in (IMPRESSION, FEEDBACK, ITEM_UPDATE, USER_UPDATE)
    )
    bad = ~has_text[columns.event_ids] | (columns.times_ms <= 0)
    bad |= ~item_update & ~has_text[columns.users]
    bad |= (feedback | item_update) & ~has_text[columns.items]
    bad |= feedback & (~has_text[columns.actions] | ~np.isfinite(columns.values))
    bad |= impression & (np.diff(columns.shown_starts) == 0)
    if len(columns.shown_items):
        bad_shown = ~has_text[columns.shown_items] | (columns.positions < 0)
        bad_shown |= ~np.isfinite(columns.scores)
        bad_shown |= ~((columns.probabilities > 0) & (columns.probabilities <= 1))
        bad |= impression & _any_within(columns.shown_starts, bad_shown)
    if len(columns.set_starts) > 1:
        bad_sets = np.append(_any_within(columns.set_starts, _bad_features(columns)), False)
        bad |= bad_sets[columns.feature_sets]
    return bad


def _bad_features(columns: EventColumns) -> NDArray[np.bool_]:
    """Return for each feature whether it has a number that is not finite."""
    bad = np.zeros(len(columns.feature_kinds), np.bool_)
    bad[columns.feature_kinds == NUMBER] = ~np.isfinite(columns.part_numbers)
    vectors = columns.feature_kinds == VECTOR
    starts = np.concatenate([[0], np.cumsum(columns.feature_sizes[vectors])])
    bad[vectors] = _any_within(starts, ~np.isfinite(columns.part_floats))
    return bad


def _any_within(starts: NDArray[Any], flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each slice starts[i]:starts[i + 1] whether any of its flags is set."""
    before = np.concatenate([[0], np.cumsum(flags)])
    sums: NDArray[np.int64] = np.diff(before[starts])
    return sums > 0
