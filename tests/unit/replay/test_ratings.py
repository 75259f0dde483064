"""Rating files in each published layout become organic feedback in order of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import DatasetError
from domain.events import Event, Feedback, ItemUpdate
from replay.datasets import Dataset, DatasetOptions, open_dataset
from replay.films import year_of

RATINGS = [("1", "31", "2.5", 900), ("2", "10", "4", 800), ("1", "10", "5", 900)]
EXPECTED = [("2", "10", 4.0, 800_000), ("1", "31", 2.5, 900_000), ("1", "10", 5.0, 900_000)]


def write_csv(folder: Path) -> None:
    rows = [f"{user},{item},{rating},{time}" for user, item, rating, time in RATINGS]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n10,"American President, The (1995)",Comedy|Drama\n'
        "31,Nameless,(no genres listed)\n"
    )


def write_dat(folder: Path) -> None:
    rows = ["::".join(map(str, row)) for row in RATINGS]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    films = "10::American President: The :: Cut (1995)::Comedy|Drama\n31::Namel\xe8ss::\n"
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))


def write_tabs(folder: Path) -> None:
    (folder / "u.data").write_text("\n".join("\t".join(map(str, row)) for row in RATINGS))
    no, comedy_drama = "|0" * 19, "|0|0|0|0|0|1|0|0|1" + "|0" * 10
    (folder / "u.item").write_text(
        f"10|American President, The (1995)|01-Jan-1995||http://x{comedy_drama}\n"
        f"31|Nameless|||{no}\n"
    )


def feedback(dataset: Dataset) -> list[tuple[str, str, float, int]]:
    return [
        (event.user_id, event.item_id, event.value, event.time_ms)
        for event in dataset.events()
        if isinstance(event, Feedback)
    ]


@pytest.mark.parametrize("write", [write_csv, write_dat, write_tabs])
def test_movielens_reads_every_published_layout(tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]
    dataset = open_dataset("movielens", tmp_path)
    assert feedback(dataset) == EXPECTED
    features = {e.item_id: e.features for e in dataset.events() if isinstance(e, ItemUpdate)}
    assert features == {"10": {"genres": ("Comedy", "Drama"), "year": "1995"}, "31": {}}
    for known in features.values():
        dataset.schema.check("item", known, "item")


def test_movielens_announces_an_item_right_before_its_first_rating(tmp_path: Path) -> None:
    write_csv(tmp_path)
    kinds: list[Event] = list(open_dataset("movielens", tmp_path).events())
    names = [f"{type(event).__name__} {getattr(event, 'item_id', '')}" for event in kinds]
    assert names == ["ItemUpdate 10", "Feedback 10", "ItemUpdate 31", "Feedback 31", "Feedback 10"]


def test_movielens_is_organic_and_positive_from_four_stars_on(tmp_path: Path) -> None:
    write_csv(tmp_path)
    dataset = open_dataset("movielens", tmp_path)
    (head,) = dataset.schema.heads
    assert (head.name, head.feedback_kind, head.positive_at) == ("positive", "rating", 4.0)
    assert dataset.joiner_hints.organic
    assert dataset.joiner_hints.attribution_window_ms is None
    assert all(e.impression_id is None for e in dataset.events() if isinstance(e, Feedback))


def test_movielens_takes_another_bar_when_told(tmp_path: Path) -> None:
    write_csv(tmp_path)
    dataset = open_dataset("movielens", tmp_path, DatasetOptions(positive_at=3.5))
    assert dataset.schema.heads[0].positive_at == 3.5


def test_movielens_limit_takes_the_first_ratings_in_time(tmp_path: Path) -> None:
    write_dat(tmp_path)
    dataset = open_dataset("movielens", tmp_path, DatasetOptions(limit=2))
    assert feedback(dataset) == EXPECTED[:2]


def test_movielens_reads_ratings_without_a_table_of_films(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "movies.csv").unlink()
    dataset = open_dataset("movielens", tmp_path)
    assert feedback(dataset) == EXPECTED
    assert dataset.schema.fields == ()


def test_movietweetings_keeps_leading_zeros_and_likes_from_seven_on(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::0104257::8::1364690142\n")
    (tmp_path / "movies.dat").write_text("0104257::A Few Good Men (1992)::Drama\n")
    (tmp_path / "users.dat").write_text("1::177651718\n")
    dataset = open_dataset("movietweetings", tmp_path)
    assert feedback(dataset) == [("1", "0104257", 8.0, 1_364_690_142_000)]
    assert dataset.schema.heads[0].positive_at == 7.0


@pytest.mark.parametrize(
    "line", ["1::2::3", "1::2::five::900", "1::2::5::noon", "1::::5::900", "1::2::nan::900"]
)
def test_movielens_names_the_line_that_is_no_rating(tmp_path: Path, line: str) -> None:
    (tmp_path / "ratings.dat").write_text(f"1::10::4::800\n\n{line}\n")
    with pytest.raises(DatasetError, match=r"ratings\.dat:3: expected user, item, rating"):
        open_dataset("movielens", tmp_path)


def test_movielens_names_the_csv_line_that_is_no_rating(tmp_path: Path) -> None:
    write_csv(tmp_path)
    path = tmp_path / "ratings.csv"
    path.write_text(path.read_text().replace("900", "noon", 1))
    with pytest.raises(DatasetError, match=r"ratings\.csv:2: expected user, item, rating"):
        open_dataset("movielens", tmp_path)


@pytest.mark.parametrize(
    ("file", "text"), [("movies.csv", "id,title,genres\n1,2\n"), ("movies.dat", "\n1::2\n")]
)
def test_movielens_names_the_line_that_is_no_film(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::4::800\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(DatasetError, match=rf"{file}:2: expected id"):
        open_dataset("movielens", tmp_path)


def test_movielens_names_the_u_item_line_that_is_no_film(tmp_path: Path) -> None:
    write_tabs(tmp_path)
    (tmp_path / "u.item").write_text("10|Short\n")
    with pytest.raises(DatasetError, match=r"u\.item:1: expected 24 columns"):
        open_dataset("movielens", tmp_path)


def test_movielens_refuses_a_folder_without_ratings(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of ratings\.csv, ratings\.dat, u\.data"):
        open_dataset("movielens", tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(DatasetError, match="the file has no ratings"):
        open_dataset("movielens", tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset("movielens", tmp_path / "gone")


def test_year_of_reads_the_year_a_title_ends_with() -> None:
    assert year_of("Blade Runner 2049 (2017) ") == "2017"
    assert year_of("The Office (2005-2013)") == "2005"
    assert year_of("(1984) nothing") == ""
