"""KuaiRand-Pure: one row per shown video with its outcomes, turned into events.

Published by Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly
Exposed Videos" (CIKM 2022). Read as published: `log_standard*.csv` (or .parquet), the user table
and the table of basic video features; never the table of video statistics, which counts what
happened later.

The log does not say when a click came, only that it came. So labels become known when the session
is over: all feedback of a session arrives together, `session_gap_ms` after its last impression.

Exact duplicate rows are in the published log. An event id is made from the whole row, so that a
duplicate is a repeated id, which the stream drops.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from domain.errors import DatasetError
from domain.events import Event, Feedback, Impression, ShownItem
from domain.features import FeatureSchema
from replay.announce import announced
from replay.column_table import ColumnTable, read_columns
from replay.dataset import DatasetOptions, JoinerHints
from replay.kuairand_features import SCHEMA, FeatureTable, read_users, read_videos
from replay.sessions import session_revealed_ms

_OUTCOMES = {"click": "is_click", "long_view": "long_view", "like": "is_like"}
_COLUMNS = ("user_id", "video_id", "time_ms", "tab", *_OUTCOMES.values())
_MS_PER_HOUR = 3_600_000


class KuaiRand:
    """The log as events; `open_kuairand` makes it."""

    name = "kuairand-pure"

    def __init__(
        self, log: _Log, users: FeatureTable, videos: FeatureTable, session_gap_ms: int
    ) -> None:
        self._log = log
        self._users = users
        self._videos = videos
        self._revealed_ms = session_revealed_ms(log.user_codes, log.times_ms, session_gap_ms)

    @property
    def schema(self) -> FeatureSchema:
        """Return the features of users, videos and moments, and the heads click, long_view, like.

        The pairs that are counted are those whose click rates said most of the next click.
        """
        return SCHEMA

    @property
    def num_events_hint(self) -> int:
        """Return the exact number of events."""
        rows = len(self._log.times_ms) * (1 + len(_OUTCOMES))
        return rows + len(set(self._log.users)) + len(set(self._log.videos))

    @property
    def joiner_hints(self) -> JoinerHints:
        """Return the longest wait from an impression to the end of its session."""
        return JoinerHints(
            attribution_window_ms=int((self._revealed_ms - self._log.times_ms).max()),
            explicit_negatives=True,
        )

    def events(self) -> Iterator[Event]:
        """Return impressions, feedback, and user and item updates, in order of event time.

        At equal times impressions come first: they were shown before the feedback was known.
        """
        return announced(
            heapq.merge(self._impressions(), self._feedback(), key=attrgetter("time_ms")),
            "kr",
            item_features=self._videos.features,
            user_features=self._users.features,
        )

    def _impressions(self) -> Iterator[Event]:
        log = self._log
        rows = zip(
            log.times_ms.tolist(), log.users, log.videos, log.event_ids, log.tabs, strict=True
        )
        for time_ms, user, video, event_id, tab in rows:
            yield Impression(
                event_id=event_id,
                time_ms=time_ms,
                user_id=user,
                items=(ShownItem(item_id=video, position=0),),
                context={"tab": tab, "hour": f"{time_ms // _MS_PER_HOUR % 24:02d}"},
            )

    def _feedback(self) -> Iterator[Event]:
        log = self._log
        revealed = self._revealed_ms
        outcomes = [(kind, values.tolist()) for kind, values in log.outcomes.items()]
        # rows are in order of impression time, so equal reveal times keep that order
        for row in np.argsort(revealed, kind="stable").tolist():
            time_ms = int(revealed[row])
            for kind, values in outcomes:
                yield Feedback(
                    event_id=f"{log.event_ids[row]}-{kind}",
                    time_ms=time_ms,
                    user_id=log.users[row],
                    item_id=log.videos[row],
                    kind=kind,
                    value=values[row],
                    impression_id=log.event_ids[row],
                )


class _Log:
    """The rows of all log files in order of time; equal times keep their order in the files."""

    def __init__(self, tables: list[ColumnTable], limit: int | None) -> None:
        times_ms = np.concatenate([table.integers("time_ms") for table in tables])
        order = np.argsort(times_ms, kind="stable")[:limit]
        self.times_ms = times_ms[order]
        self.users = _taken(tables, "user_id", order)
        self.videos = _taken(tables, "video_id", order)
        self.tabs = _taken(tables, "tab", order)
        self.event_ids = _row_ids(tables, order)
        self.outcomes = {kind: _outcome(tables, name, order) for kind, name in _OUTCOMES.items()}
        codes = pa.array(self.users).dictionary_encode().indices
        self.user_codes = np.asarray(codes.to_numpy(), np.int64)


def open_kuairand(path: Path, options: DatasetOptions) -> KuaiRand:
    """Read a folder as downloaded (with or without its `data` folder), or a part of one.

    Raises:
        DatasetError: a file or column is missing, or a line cannot be read.
    """
    options.reject_unused(KuaiRand.name, ("limit", "session_gap_ms"))
    folder = _folder(path)
    files = sorted(folder.glob("log_standard*.parquet")) + sorted(folder.glob("log_standard*.csv"))
    tables = [read_columns(file) for file in files]
    for table in tables:
        for name in _COLUMNS:
            if name not in table.names:
                raise DatasetError(f"{table.path}: no column {name!r}")
    users = read_users(_one_of(folder, ("user_features.csv", "user_features_pure.csv")))
    videos = read_videos(_one_of(folder, ("video_features.csv", "video_features_basic_pure.csv")))
    return KuaiRand(_Log(tables, options.limit), users, videos, options.session_gap_ms)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DatasetError(f"{path}: no such folder (expected the KuaiRand-Pure download)")
    for folder in (path, path / "data"):
        if any(folder.glob("log_standard*.parquet")) or any(folder.glob("log_standard*.csv")):
            return folder
    raise DatasetError(f"{path}: no log_standard*.csv or log_standard*.parquet in it")


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(f"{folder}: neither {' nor '.join(names)} is in it")


def _taken(tables: list[ColumnTable], name: str, order: NDArray[np.int64]) -> list[str]:
    chunks = [chunk for table in tables for chunk in table.ids(name).chunks]
    values: list[str] = pa.chunked_array(chunks, pa.string()).take(pa.array(order)).to_pylist()
    return values


def _outcome(tables: list[ColumnTable], name: str, order: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.concatenate([table.integers(name) for table in tables])[order]
    return values.astype(np.float64)


def _row_ids(tables: list[ColumnTable], order: NDArray[np.int64]) -> list[str]:
    """Return one id per row, the same for rows that are equal in every column."""
    texts: list[str] = []
    for table in tables:
        columns = [
            pc.fill_null(table.column(name).cast(pa.string()), "") for name in sorted(table.names)
        ]
        texts += pc.binary_join_element_wise(*columns, "|").to_pylist()
    return [f"kr-{_digest(texts[row])}" for row in order.tolist()]


def _digest(text: str) -> str:
    # 64 bits: among the 1.4 million rows of the full log two differing rows share an id with a
    # chance of about 1 in 20 million
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
