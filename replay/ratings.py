"""MovieLens and MovieTweetings: rating files as published, turned into organic feedback.

Layouts: `ratings.csv` with a header (MovieLens latest, 20M, 25M), `ratings.dat` with `::` between
the values (MovieLens 1M and 10M, MovieTweetings), `u.data` with tabs (MovieLens 100K). Films are in
`movies.csv`, `movies.dat` or `u.item`; they are features of the items and may be absent.

Every rating is a feedback event of kind "rating" without an impression: the files say what people
watched, not what they were shown.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domain.errors import DatasetError
from domain.events import Event, Features, Feedback
from domain.features import FeatureSchema, Field, Head
from replay.announce import announced
from replay.dataset import DatasetOptions, JoinerHints
from replay.films import Film, read_films

_MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class RatingLayout:
    """How one published file of ratings is written.

    Attributes:
        separator: what stands between user, item, rating and time in seconds.
        header: whether the first line names the columns.
    """

    file: str
    separator: str
    header: bool = False


_LAYOUTS = (
    RatingLayout("ratings.csv", ",", header=True),
    RatingLayout("ratings.dat", "::"),
    RatingLayout("u.data", "\t"),
)


class Ratings:
    """Rating files as events; `open_movielens` and `open_movietweetings` make it."""

    def __init__(
        self, name: str, log: RatingLog, films: dict[str, Film], positive_at: float
    ) -> None:
        self._name = name
        self._log = log
        self._films = films
        self._positive_at = positive_at

    @property
    def name(self) -> str:
        """Return the name of the dataset."""
        return self._name

    @property
    def schema(self) -> FeatureSchema:
        """Return genres and year of the items, and the one head "positive"."""
        head = Head(name="positive", feedback_kind="rating", positive_at=self._positive_at)
        if not self._films:
            return FeatureSchema(heads=(head,))
        return FeatureSchema(
            fields=(
                Field(name="genres", entity="item", kind="multi", counted=True),
                Field(name="year", entity="item", kind="categorical", counted=True),
            ),
            heads=(head,),
            counted_pairs=(("user", "genres"),),
        )

    @property
    def num_events_hint(self) -> int:
        """Return the number of ratings plus at most one update per item."""
        return len(self._log.order) + len(self._log.items)

    @property
    def joiner_hints(self) -> JoinerHints:
        """Return that everything is organic."""
        return JoinerHints(organic=True)

    def events(self) -> Iterator[Event]:
        """Return item updates and ratings; ratings of one second keep their order in the file."""
        return announced(self._feedback(), self._name, item_features=self._item_features)

    def _feedback(self) -> Iterator[Event]:
        log = self._log
        for row in log.order:
            user, item = log.users[log.user_of[row]], log.items[log.item_of[row]]
            time_ms, rating = log.time_ms_of[row], log.rating_of[row]
            yield Feedback(
                event_id=f"{self._name}-{user}-{item}-{time_ms}-{rating:g}",
                time_ms=time_ms,
                user_id=user,
                item_id=item,
                kind="rating",
                value=rating,
            )

    def _item_features(self, item: str) -> Features:
        film = self._films.get(item)
        return film.features() if film else {}


def open_movielens(path: Path, options: DatasetOptions) -> Ratings:
    """Read a folder with any published MovieLens layout; a rating of 4 or more is positive.

    Raises:
        DatasetError: the folder or its ratings are missing, or a line cannot be read.
    """
    return _open("movielens", path, options, default_positive_at=4.0)


def open_movietweetings(path: Path, options: DatasetOptions) -> Ratings:
    """Read a MovieTweetings folder; ratings go from 0 to 10, 7 or more is positive.

    Seven, because the median rating is 8 and a bar above the median would leave few positives.

    Raises:
        DatasetError: the folder or its ratings are missing, or a line cannot be read.
    """
    return _open("movietweetings", path, options, default_positive_at=7.0)


def _open(name: str, path: Path, options: DatasetOptions, *, default_positive_at: float) -> Ratings:
    options.reject_unused(name, ("limit", "positive_at"))
    log = read_rating_log(name, path, options.limit)
    positive_at = default_positive_at if options.positive_at is None else options.positive_at
    return Ratings(name, log, read_films(path), positive_at)


def read_rating_log(name: str, folder: Path, limit: int | None = None) -> RatingLog:
    """Read the ratings of a published download called `name`, in order of time.

    Raises:
        DatasetError: the folder or its ratings are missing, or a line cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder (expected the {name} download)")
    for layout in _LAYOUTS:
        if (folder / layout.file).is_file():
            return _read_ratings(folder / layout.file, layout, limit)
    expected = ", ".join(layout.file for layout in _LAYOUTS)
    raise DatasetError(f"{folder}: none of {expected} is in it")


class RatingLog:
    """Ratings in columns: a few bytes each, ids kept once.

    Attributes:
        users: names; `user_of` holds places in it. Likewise `items` and `item_of`.
        order: rows in order of time, those of one second in file order.
    """

    def __init__(self) -> None:
        self.users: list[str] = []
        self.items: list[str] = []
        self.user_of = array("q")
        self.item_of = array("q")
        self.rating_of = array("d")
        self.time_ms_of = array("q")
        self.order: Sequence[int] = ()
        self._user_codes: dict[str, int] = {}
        self._item_codes: dict[str, int] = {}

    def add(self, user: str, item: str, rating: float, time_ms: int) -> None:
        """Append one rating."""
        self.user_of.append(_code(user, self._user_codes, self.users))
        self.item_of.append(_code(item, self._item_codes, self.items))
        self.rating_of.append(rating)
        self.time_ms_of.append(time_ms)

    def sort(self, limit: int | None) -> None:
        """Put the ratings in order of time, ties in file order, and keep the first `limit`."""
        times_ms = np.frombuffer(self.time_ms_of, np.int64)
        self.order = array("q", np.argsort(times_ms, kind="stable")[:limit].tobytes())


def _code(name: str, codes: dict[str, int], names: list[str]) -> int:
    code = codes.setdefault(name, len(names))
    if code == len(names):
        names.append(name)
    return code


def _read_ratings(path: Path, layout: RatingLayout, limit: int | None) -> RatingLog:
    log = RatingLog()
    for line, parts in _rows(path, layout):
        try:
            user, item, rating, time_s = parts[:4]
            if not (user and item and math.isfinite(float(rating)) and int(time_s) > 0):
                raise ValueError(rating)
            log.add(user, item, float(rating), int(time_s) * _MS_PER_S)
        except ValueError as error:
            raise DatasetError(
                f"{path}:{line}: expected user, item, rating and time in seconds with "
                f"{layout.separator!r} between them, got {layout.separator.join(parts)!r}"
            ) from error
    if not log.users:
        raise DatasetError(f"{path}: the file has no ratings")
    log.sort(limit)
    return log


def _rows(path: Path, layout: RatingLayout) -> Iterator[tuple[int, list[str]]]:
    """Return line number and parts of every line that is not empty, without the header."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if layout.header:
            reader = csv.reader(file, delimiter=layout.separator)
            next(reader, None)
            yield from ((reader.line_num, parts) for parts in reader if parts)
            return
        for line, text in enumerate(file, start=1):
            if text.strip():
                yield line, text.strip().split(layout.separator)
