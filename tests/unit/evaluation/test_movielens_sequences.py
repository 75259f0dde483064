"""MovieLens folders, in both published forms, become the same sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from domain.errors import DatasetError
from evaluation.movielens import read_movielens

RATINGS = [
    ("5", "30", "4", 300), ("5", "10", "2", 100), ("5", "20", "5", 100), ("7", "20", "1", 50),
    ("5", "99", "3", 400),
]  # fmt: skip
FILMS = [("20", "B, or not (1990)"), ("10", "A (1980)"), ("40", "Nobody's (1970)"), ("30", "C")]


def write_csv(folder: Path) -> None:
    ratings = [",".join(map(str, row)) for row in RATINGS]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]))
    films = [f'{item},"{title}",Drama' for item, title in FILMS]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]))


def write_dat(folder: Path) -> None:
    (folder / "ratings.dat").write_text("\n".join("::".join(map(str, row)) for row in RATINGS))
    films = [f"{item}::{title}::Drama|War" for item, title in FILMS]
    (folder / "movies.dat").write_text("\n".join(films))


@pytest.mark.parametrize("write", [write_csv, write_dat])
def test_rows_follow_the_film_table_and_time(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    found = read_movielens(tmp_path)
    # Film 20 is row 1, 10 row 2, 40 row 3, 30 row 4; film 99, in no table, row 5. Two ratings of
    # one second keep the order of the file.
    assert found.item_E.tolist() == [2, 1, 4, 5, 1]
    assert found.time_s_E.tolist() == [100, 100, 300, 400, 50]
    assert found.start_U1.tolist() == [0, 4, 5]
    assert (found.num_candidates, found.num_rows) == (4, 6)


def test_a_film_table_must_be_there(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "movies.csv").unlink()
    with pytest.raises(DatasetError, match=r"movies\.dat or movies\.csv"):
        read_movielens(tmp_path)


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        read_movielens(tmp_path / "nowhere")
