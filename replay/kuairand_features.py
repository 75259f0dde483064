"""The user and video tables of KuaiRand-Pure as features, and the schema that declares them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from domain.events import FeatureValue
from domain.features import FeatureSchema, Field, Head
from replay.column_table import ColumnTable, read_columns

_USER_CATEGORIES = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{index}" for index in range(18)),
)
_USER_COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_VIDEO_CATEGORIES = {
    "author": "author_id",
    "video_type": "video_type",
    "upload_dt": "upload_dt",
    "upload_type": "upload_type",
    "music": "music_id",
    "music_type": "music_type",
}
_VIDEO_COLUMNS = (*_VIDEO_CATEGORIES.values(), "video_duration", "server_width", "server_height")
_COUNTED = ("author", "music")
_LENGTH_BOUNDS_S = (7, 15, 30, 60, 120, 300)

SCHEMA = FeatureSchema(
    fields=(
        *(Field(name=name, entity="user", kind="categorical") for name in _USER_CATEGORIES),
        *(Field(name=f"log_{name}", entity="user", kind="numeric") for name in _USER_COUNTS),
        *(
            Field(name=name, entity="item", kind="categorical", counted=name in _COUNTED)
            for name in _VIDEO_CATEGORIES
        ),
        Field(name="tag", entity="item", kind="multi", counted=True),
        Field(name="length", entity="item", kind="categorical"),
        Field(name="log_length_s", entity="item", kind="numeric"),
        Field(name="format", entity="item", kind="categorical"),
        Field(name="tab", entity="context", kind="categorical", counted=True),
        Field(name="hour", entity="context", kind="categorical"),
    ),
    heads=(
        Head(name="click", feedback_kind="click"),
        Head(name="long_view", feedback_kind="long_view"),
        Head(name="like", feedback_kind="like"),
    ),
    counted_pairs=(
        ("user", "tab"),
        ("item", "tab"),
        ("user", "tag"),
        ("user", "author"),
    ),
)
"""Counts span orders of magnitude, so the numeric fields hold ln(1 + n)."""


class FeatureTable:
    """Features by id, made when they are first asked for."""

    def __init__(
        self, table: ColumnTable, key: str, make: Callable[[int], Mapping[str, FeatureValue]]
    ) -> None:
        self._rows = {name: row for row, name in enumerate(table.ids(key).to_pylist())}
        self._make = make

    def features(self, key: str) -> Mapping[str, FeatureValue]:
        """Return what the table says of one id, nothing when it is not in it."""
        row = self._rows.get(key)
        return {} if row is None else self._make(row)


def read_users(path: Path) -> FeatureTable:
    """Read the user table.

    Raises:
        DatasetError: a column is missing, or a line cannot be read.
    """
    table = read_columns(path, ("user_id", *_USER_CATEGORIES, *_USER_COUNTS))
    categories = {name: table.text(name).to_pylist() for name in _USER_CATEGORIES}
    counts = {name: table.numbers(name).tolist() for name in _USER_COUNTS}

    def make(row: int) -> Mapping[str, FeatureValue]:
        features: dict[str, FeatureValue] = _present(categories, row)
        for name, values in counts.items():
            features[f"log_{name}"] = math.log1p(max(values[row], 0.0))
        return features

    return FeatureTable(table, "user_id", make)


def read_videos(path: Path) -> FeatureTable:
    """Read the table of basic video features.

    Raises:
        DatasetError: a column is missing, or a line cannot be read.
    """
    table = read_columns(path, ("video_id", "tag", *_VIDEO_COLUMNS))
    categories = {
        name: table.text(source).to_pylist() for name, source in _VIDEO_CATEGORIES.items()
    }
    tags = table.text("tag").to_pylist()
    lengths_ms = _optional_numbers(table, "video_duration")
    widths = _optional_numbers(table, "server_width")
    heights = _optional_numbers(table, "server_height")

    def make(row: int) -> Mapping[str, FeatureValue]:
        features: dict[str, FeatureValue] = _present(categories, row)
        if tags[row]:
            features["tag"] = tuple(part for part in tags[row].split(",") if part)
        length_ms, width, height = lengths_ms[row], widths[row], heights[row]
        if length_ms is not None:
            features["length"] = _length_bucket(length_ms / 1000)
            features["log_length_s"] = math.log1p(max(length_ms, 0.0) / 1000)
        if width and height:
            features["format"] = _format(width, height)
        return features

    return FeatureTable(table, "video_id", make)


def _present(columns: Mapping[str, list[str | None]], row: int) -> dict[str, FeatureValue]:
    features: dict[str, FeatureValue] = {}
    for name, values in columns.items():
        value = values[row]
        if value is not None:
            features[name] = value
    return features


def _optional_numbers(table: ColumnTable, name: str) -> list[float | None]:
    """Return a column of numbers with None where it is empty."""
    numbers: list[float | None] = []
    for row, text in enumerate(table.text(name).to_pylist()):
        try:
            numbers.append(None if text is None else float(text))
        except ValueError as error:
            reason = f"column {name!r}: expected a number, got {text!r}"
            raise table.error(row, reason) from error
    return numbers


def _length_bucket(length_s: float) -> str:
    """Return the bucket of a video's length.

    >>> _length_bucket(7.5), _length_bucket(2_000)
    ('7-15s', '300s+')
    """
    low = 0
    for high in _LENGTH_BOUNDS_S:
        if length_s < high:
            return f"{low}-{high}s"
        low = high
    return f"{low}s+"


def _format(width: float, height: float) -> str:
    if width == height:
        return "square"
    return "portrait" if height > width else "landscape"
