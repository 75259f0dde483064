"""Genres and year of films, from the film tables of MovieLens and MovieTweetings."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from domain.errors import DatasetError
from domain.events import FeatureValue

_YEAR = re.compile(r"\((\d{4})(?:\D\d{0,4})?\)\s*$")
_NO_GENRES = "(no genres listed)"

# u.item marks genres by position; their names, in this order, are in the u.genre beside it.
_U_ITEM_GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
_U_ITEM_COLUMNS = 5 + len(_U_ITEM_GENRES)


@dataclass(frozen=True, slots=True)
class Film:
    """What is known of a film; `year` is "" when its title does not end with one."""

    genres: tuple[str, ...]
    year: str

    def features(self) -> dict[str, FeatureValue]:
        """Return the item features, without those that are not known."""
        features: dict[str, FeatureValue] = {}
        if self.genres:
            features["genres"] = self.genres
        if self.year:
            features["year"] = self.year
        return features


def read_films(folder: Path) -> dict[str, Film]:
    """Return films by id from the film table in `folder`; nothing when there is none.

    Raises:
        DatasetError: naming the line that is no film.
    """
    for name, read in (
        ("movies.csv", _read_csv),
        ("movies.dat", _read_dat),
        ("u.item", _read_u_item),
    ):
        path = folder / name
        if path.is_file():
            return dict(read(path))
    return {}


def year_of(title: str) -> str:
    """Return the year a title ends with, "" when it ends otherwise.

    >>> year_of("Toy Story (1995)"), year_of("1984")
    ('1995', '')
    """
    match = _YEAR.search(title)
    return match.group(1) if match else ""


def _film(title: str, genres: str) -> Film:
    names = () if genres == _NO_GENRES else tuple(name for name in genres.split("|") if name)
    return Film(names, year_of(title))


def _read_csv(path: Path) -> Iterator[tuple[str, Film]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        next(reader, None)
        for parts in reader:
            if len(parts) >= 3:
                yield parts[0], _film(parts[1], parts[2])
            elif parts:
                raise _no_film(path, reader.line_num, "id,title,genres", ",".join(parts))


def _read_dat(path: Path) -> Iterator[tuple[str, Film]]:
    for line, text in _lines(path):
        # a title may contain the separator, an id and the genres never do
        item, *title, genres = text.split("::")
        if not title:
            raise _no_film(path, line, "id::title::genres", text)
        yield item, _film("::".join(title), genres)


def _read_u_item(path: Path) -> Iterator[tuple[str, Film]]:
    for line, text in _lines(path):
        parts = text.split("|")
        if len(parts) != _U_ITEM_COLUMNS:
            raise _no_film(path, line, f"{_U_ITEM_COLUMNS} columns with '|' between them", text)
        marks = zip(_U_ITEM_GENRES, parts[5:], strict=True)
        genres = tuple(name for name, mark in marks if mark == "1" and name != "unknown")
        yield parts[0], Film(genres, year_of(parts[1]))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # MovieLens 100K and 1M are Latin-1, everything later UTF-8; only titles differ, and of a title
    # nothing but its year is used.
    with path.open(encoding="utf-8", errors="replace") as file:
        for line, text in enumerate(file, start=1):
            if text.strip():
                yield line, text.rstrip("\n")


def _no_film(path: Path, line: int, expected: str, text: str) -> DatasetError:
    return DatasetError(f"{path}:{line}: expected {expected}, got {text!r}")
