"""Someone's own file: actions, actions with what was shown, or shown items with outcomes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from domain.errors import ConfigError, DatasetError, SchemaError
from domain.events import Feedback, Impression, ItemUpdate
from domain.features import FeatureSchema, Field, Head
from replay.datasets import Dataset, DatasetOptions, EventFileColumns, open_dataset

COLUMNS = EventFileColumns(user="who", item="what", time="when")
MINUTE_MS = 60_000


def opened(
    path: Path, text: str, columns: EventFileColumns = COLUMNS, **options: object
) -> Dataset:
    path.write_text(text)
    return open_dataset("events", path, DatasetOptions(columns=columns, **options))  # type: ignore[arg-type]


def feedback(dataset: Dataset) -> list[Feedback]:
    return [event for event in dataset.events() if isinstance(event, Feedback)]


def impressions(dataset: Dataset) -> list[Impression]:
    return [event for event in dataset.events() if isinstance(event, Impression)]


def test_positives_only_become_organic_clicks(tmp_path: Path) -> None:
    dataset = opened(tmp_path / "log.csv", "who,what,when\nu2,i1,2000\nu1,i1,1000\nu1,i1,1000\n")
    done = feedback(dataset)
    assert [(e.user_id, e.item_id, e.time_ms, e.kind, e.value) for e in done] == [
        ("u1", "i1", 1000, "click", 1.0),
        ("u1", "i1", 1000, "click", 1.0),
        ("u2", "i1", 2000, "click", 1.0),
    ]
    assert len({event.event_id for event in done}) == 3, "equal rows may be two true actions"
    assert dataset.joiner_hints.organic
    assert [head.feedback_kind for head in dataset.schema.heads] == ["click"]
    assert sum(isinstance(event, ItemUpdate) for event in dataset.events()) == 1


def test_ratings_need_to_be_told_from_where_they_are_positive(tmp_path: Path) -> None:
    columns = replace(COLUMNS, value="stars", default_kind="rating")
    text = "who,what,when,stars\nu1,i1,1000,4.5\n"
    with pytest.raises(ConfigError, match=r"^dataset\.positive_at must be given"):
        opened(tmp_path / "log.csv", text, columns)
    dataset = opened(tmp_path / "log.csv", text, columns, positive_at=4.0)
    assert [(event.kind, event.value) for event in feedback(dataset)] == [("rating", 4.5)]
    assert dataset.schema.heads == (Head(name="rating", feedback_kind="rating", positive_at=4.0),)


def test_kinds_become_heads_the_default_first_then_the_most_frequent(tmp_path: Path) -> None:
    rows = [("u1", "i1", 1, "play"), ("u1", "i2", 2, "play"), ("u1", "i1", 3, "buy")]
    rows += [("u1", "i1", 4, "click")]
    text = "".join(
        json.dumps({"who": who, "what": what, "when": when, "did": did}) + "\n"
        for who, what, when, did in rows
    )
    dataset = opened(tmp_path / "log.jsonl", text, replace(COLUMNS, kind="did"))
    assert [head.name for head in dataset.schema.heads] == ["click", "play", "buy"]


def test_outcomes_become_lists_whose_labels_wait_for_the_session(tmp_path: Path) -> None:
    columns = replace(COLUMNS, impression="list", label=("click", "buy"), context=("tab",))
    text = (
        "who,what,when,list,click,buy,tab\n"
        "u1,i1,60000,l1,1,0,home\nu1,i2,60000,l1,0,0,home\nu1,i1,120000,l2,1,1,\n"
    )
    dataset = opened(tmp_path / "log.csv", text, columns, session_gap_ms=10 * MINUTE_MS)
    first, second = impressions(dataset)
    assert [(item.item_id, item.position) for item in first.items] == [("i1", 0), ("i2", 1)]
    assert (first.event_id, first.time_ms, first.context) == ("l1", MINUTE_MS, {"tab": "home"})
    assert second.context == {}
    done = feedback(dataset)
    assert {event.time_ms for event in done} == {12 * MINUTE_MS}
    assert [(e.impression_id, e.item_id, e.kind, e.value) for e in done] == [
        ("l1", "i1", "click", 1.0),
        ("l1", "i1", "buy", 0.0),
        ("l1", "i2", "click", 0.0),
        ("l1", "i2", "buy", 0.0),
        ("l2", "i1", "click", 1.0),
        ("l2", "i1", "buy", 1.0),
    ]
    assert dataset.joiner_hints.explicit_negatives
    assert dataset.joiner_hints.attribution_window_ms == 11 * MINUTE_MS
    assert [head.name for head in dataset.schema.heads] == ["click", "buy"]


def test_outcomes_without_an_impression_column_are_lists_of_one(tmp_path: Path) -> None:
    columns = replace(COLUMNS, label=("y",))
    dataset = opened(tmp_path / "log.csv", "who,what,when,y\nu1,i1,5,true\nu1,i1,5,0\n", columns)
    shown = impressions(dataset)
    assert [len(event.items) for event in shown] == [1, 1]
    assert [event.impression_id for event in feedback(dataset)] == [e.event_id for e in shown]


def test_shown_rows_and_actions_keep_the_times_of_the_log(tmp_path: Path) -> None:
    columns = replace(COLUMNS, kind="did", impression="list")
    text = (
        "who,what,when,did,list\n"
        "u1,i1,1000,impression,l1\nu1,i2,1000,impression,l1\nu1,i2,1000,click,l1\n"
        "u1,i9,4000,click,\n"
    )
    dataset = opened(tmp_path / "log.csv", text, columns)
    kinds = [type(event).__name__ for event in dataset.events()]
    assert kinds == [
        "ItemUpdate", "ItemUpdate", "Impression", "Feedback", "ItemUpdate", "Feedback"
    ]  # fmt: skip
    assert [(e.time_ms, e.impression_id) for e in feedback(dataset)] == [(1000, "l1"), (4000, None)]
    hints = dataset.joiner_hints
    assert (hints.attribution_window_ms, hints.explicit_negatives, hints.organic) == (
        1,
        False,
        True,
    )


def test_shown_rows_need_an_impression_id(tmp_path: Path) -> None:
    text = "who,what,when,did\nu1,i1,1000,click\nu1,i1,1000,impression\n"
    with pytest.raises(DatasetError, match=r"log\.csv:3: a row of kind 'impression' needs"):
        opened(tmp_path / "log.csv", text, replace(COLUMNS, kind="did"))


@pytest.mark.parametrize(
    ("unit", "written", "time_ms"),
    [
        ("s", "1700000000", 1_700_000_000_000),
        ("s", "1700000000.125", 1_700_000_000_125),
        ("ms", "1700000000123", 1_700_000_000_123),
        ("us", "1700000000123456", 1_700_000_000_123),
        ("ns", "1700000000123456789", 1_700_000_000_123),
        ("iso", "2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("iso", "2023-11-14 22:13:20.125", 1_700_000_000_125),
        ("iso", "2023-11-14T23:13:20+01:00", 1_700_000_000_000),
    ],
)
def test_times_come_in_every_unit(tmp_path: Path, unit: str, written: str, time_ms: int) -> None:
    columns = replace(COLUMNS, time_unit=unit)  # type: ignore[arg-type]
    dataset = opened(tmp_path / "log.csv", f"who,what,when\nu,i,{written}\n", columns)
    assert feedback(dataset)[0].time_ms == time_ms


@pytest.mark.parametrize(
    ("unit", "written", "reason"),
    [
        ("ns", "900", r":2: column 'when': 900 is not between 1970 and 3000"),
        ("s", "1700000000123", r":2: column 'when': 1700000000123 is not between 1970 and 3000"),
        ("ms", "noon", r":2: column 'when': expected a whole number, got 'noon'"),
        ("iso", "noon", r":2: expected a time like 2024-05-01T12:00:00Z, got 'noon'"),
    ],
)
def test_times_that_are_none_are_named(
    tmp_path: Path, unit: str, written: str, reason: str
) -> None:
    columns = replace(COLUMNS, time_unit=unit)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=reason):
        opened(tmp_path / "log.csv", f"who,what,when\nu,i,{written}\n", columns)


def test_parquet_timestamps_need_no_unit(tmp_path: Path) -> None:
    when = datetime(2023, 11, 14, 22, 13, 20, 125_000, tzinfo=UTC)
    for unit in ("us", "ns"):
        times = pa.array([when], pa.timestamp(unit, "UTC"))
        pa_parquet.write_table(
            pa.table({"who": [7], "what": ["i"], "when": times}), tmp_path / "log.parquet"
        )
        dataset = open_dataset("events", tmp_path / "log.parquet", DatasetOptions(columns=COLUMNS))
        (event,) = feedback(dataset)
        assert (event.user_id, event.time_ms) == ("7", 1_700_000_000_125)


def test_context_kinds_are_derived_from_what_is_in_the_columns(tmp_path: Path) -> None:
    rows = [
        {"who": "u", "what": "i", "when": 1, "tab": 3, "dwell": 1.5, "tags": ["a", "b"]},
        {"who": "u", "what": "i", "when": 2, "tab": None, "dwell": 2.0, "tags": None},
    ]
    for row in rows:
        row["vector"] = [0.5, 1.0]
    columns = replace(COLUMNS, context=("tab", "dwell", "tags", "vector"))
    text = "\n".join(json.dumps(row) for row in rows)
    dataset = opened(tmp_path / "log.jsonl", text, columns)
    assert [(f.name, f.kind, f.size) for f in dataset.schema.of("context")] == [
        ("tab", "categorical", 0),
        ("dwell", "numeric", 0),
        ("tags", "multi", 0),
        ("vector", "dense", 2),
    ]
    first, second = (event.context for event in feedback(dataset))
    assert first == {"tab": "3", "dwell": 1.5, "tags": ("a", "b"), "vector": (0.5, 1.0)}
    assert second == {"dwell": 2.0, "vector": (0.5, 1.0)}
    for context in (first, second):
        dataset.schema.check("context", context, "context")


def test_context_numbers_in_csv_are_numeric_only_with_a_decimal_point(tmp_path: Path) -> None:
    columns = replace(COLUMNS, context=("tab", "dwell", "place"))
    text = "who,what,when,tab,dwell,place\nu,i,1,3,1,x\nu,i,2,4,0.5,y\n"
    dataset = opened(tmp_path / "log.csv", text, columns)
    assert [f.kind for f in dataset.schema.fields] == ["categorical", "numeric", "categorical"]
    assert feedback(dataset)[0].context == {"tab": "3", "dwell": 1.0, "place": "x"}


def test_a_given_schema_decides_how_columns_are_read(tmp_path: Path) -> None:
    schema = FeatureSchema(
        fields=(
            Field(name="age", entity="context", kind="numeric"),
            Field(name="tags", entity="context", kind="multi"),
        ),
        heads=(Head(name="liked", feedback_kind="rating", positive_at=4.0),),
    )
    columns = replace(COLUMNS, value="stars", default_kind="rating", context=("age", "tags"))
    text = "who,what,when,stars,age,tags\nu,i,1,5,30,a|b\n"
    dataset = opened(tmp_path / "log.csv", text, columns, schema=schema)
    assert dataset.schema is schema
    assert feedback(dataset)[0].context == {"age": 30.0, "tags": ("a", "b")}


def test_a_given_schema_must_fit_the_file(tmp_path: Path) -> None:
    text = "who,what,when,tab\nu,i,1,3\n"
    with pytest.raises(SchemaError, match="'tab' is no context field"):
        opened(
            tmp_path / "log.csv", text, replace(COLUMNS, context=("tab",)), schema=FeatureSchema()
        )
    other = FeatureSchema(heads=(Head(name="buy", feedback_kind="buy"),))
    with pytest.raises(SchemaError, match="the file decides none of them, it has: click"):
        opened(tmp_path / "log.csv", text, schema=other)


def test_a_file_of_impressions_alone_has_no_labels(tmp_path: Path) -> None:
    columns = replace(COLUMNS, kind="did", impression="list")
    with pytest.raises(SchemaError, match="no action"):
        opened(tmp_path / "log.csv", "who,what,when,did,list\nu,i,1,impression,l\n", columns)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("u1,i1,1,l1,1\nu2,i2,1,l1,0\n", r"log\.csv:3: impression 'l1' was shown to user 'u1'"),
        ("u1,i1,1,l1,1\nu1,i1,1,l1,0\n", r"log\.csv:3: impression 'l1' shows item 'i1' twice"),
        ("u1,i1,1,l1,1\nu1,i2,1,l1,2\n", r"log\.csv:3: column 'y': expected 0 or 1, got 2"),
        ("u1,i1,1,l1,1\nu1,i2,1,l1,\n", r"log\.csv:3: column 'y': expected a number, got nothing"),
        ("u1,i1,1,l1,1\nu1,i2,1,,0\n", r"log\.csv:3: column 'list': expected an id"),
    ],
)
def test_lists_that_contradict_themselves_are_named(tmp_path: Path, rows: str, reason: str) -> None:
    columns = replace(COLUMNS, label=("y",), impression="list")
    with pytest.raises(DatasetError, match=reason):
        opened(tmp_path / "log.csv", "who,what,when,list,y\n" + rows, columns)


def test_values_that_are_no_number_are_named(tmp_path: Path) -> None:
    columns = replace(COLUMNS, value="stars", context=("x",))
    text = "who,what,when,stars,x\nu,i,1,5,1.5\nu,i,2,five,2.5\n"
    with pytest.raises(DatasetError, match=r"log\.csv:3: column 'stars': .*, got 'five'"):
        opened(tmp_path / "log.csv", text, columns, positive_at=4.0)


def test_an_empty_value_means_it_was_done(tmp_path: Path) -> None:
    columns = replace(COLUMNS, kind="did", value="stars")
    text = "who,what,when,did,stars\nu,i,1,click,\nu,i,2,rating,5\n"
    dataset = opened(tmp_path / "log.csv", text, columns, positive_at=1.0)
    assert [event.value for event in feedback(dataset)] == [1.0, 5.0]


def test_limit_takes_the_first_rows_in_time(tmp_path: Path) -> None:
    dataset = opened(tmp_path / "log.csv", "who,what,when\nu,i,9\nu,j,3\nu,k,5\n", limit=2)
    assert [event.item_id for event in feedback(dataset)] == ["j", "k"]
    assert dataset.num_events_hint == 2


def test_events_need_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^dataset\.columns must name"):
        open_dataset("events", tmp_path / "log.csv")


def test_label_columns_have_no_bar(tmp_path: Path) -> None:
    columns = replace(COLUMNS, label=("y",))
    with pytest.raises(ConfigError, match=r"^dataset\.positive_at: label columns"):
        opened(tmp_path / "log.csv", "who,what,when,y\nu,i,1,1\n", columns, positive_at=1.0)


def test_missing_columns_are_named_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"log\.csv: no column 'when'; it has: who, what"):
        opened(tmp_path / "log.csv", "who,what\nu,i\n")
