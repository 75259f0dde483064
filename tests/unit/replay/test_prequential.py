"""What a replay keeps of every prediction, and the tables it makes of that."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import DatasetError
from domain.examples import PositiveAction
from domain.requests import UserView
from monitoring.quality import auc, calibration_ratio, gauc, normalized_entropy
from replay.prequential import Prequential
from replay.records import digest, load_records, records_path
from replay.variants import MemoryVariant, OnlineVariant
from stream.observer import Measured
from tests.unit.replay.measured_fakes import demand, example, measured

NAN = math.nan


def _fed(num_lists: int = 40, max_examples: int | None = None) -> tuple[Prequential, Any]:
    """Lists of two items, one a minute; returns the columns that were fed too."""
    prequential = Prequential([OnlineVariant(), MemoryVariant()], max_examples)
    rng = np.random.default_rng(1)
    rows = []
    for ordinal in range(num_lists):
        name, shown_ms, session = f"p{ordinal}", 60_000 * ordinal, ordinal // 4
        prequential.on_demand(demand(name, "a", "b", ordinal=ordinal, session=session))
        batch = []
        for index in (0, 1):
            label, base, compensated = float(rng.random() < 0.4), *rng.random(2)
            rows.append((ordinal, shown_ms, session, label, base, compensated))
            one = example(name, index, label, NAN, shown_ms=shown_ms)
            batch.append(measured(one, base, compensated, session))
        prequential.on_measured(batch)
    return prequential, np.array(rows)


def _taken(count: int) -> list[PositiveAction]:
    return [PositiveAction(UserView(user_id="ann"), f"i{at}", 5) for at in range(count)]


def _quality(rows: Any, column: int) -> dict[str, Any]:
    labels, scores = rows[:, 3], rows[:, column].astype(np.float32)
    return {
        "examples": len(rows),
        "auc": auc(labels, scores),
        "gauc": gauc(labels, scores, rows[:, 2].astype(int)),
        "ne": normalized_entropy(labels, scores),
        "calibration": calibration_ratio(labels, scores),
    }


def test_second_half_is_the_quality_of_what_was_shown_from_the_split_on() -> None:
    prequential, rows = _fed()
    report = prequential.variants(split_at=25, num_demands=40)
    assert list(report) == ["online", "online+memory"]
    second = rows[rows[:, 0] >= 25]
    assert report["online"]["second_half"] == pytest.approx(_quality(second, 4))
    assert report["online+memory"]["second_half"] == pytest.approx(_quality(second, 5))


def test_windows_share_out_all_examples_in_the_order_they_were_shown() -> None:
    prequential, rows = _fed()
    windows = prequential.variants(split_at=20, num_demands=40, num_windows=8)["online"]["windows"]
    assert [window["examples"] for window in windows] == [10] * 8
    third = rows[(rows[:, 0] >= 10) & (rows[:, 0] < 15)]
    assert windows[2] == pytest.approx(
        {"from_ms": 600_000, "until_ms": 840_000, **_quality(third, 4)}
    )


def test_windows_hold_what_came_beyond_the_demands_that_were_counted() -> None:
    prequential, _ = _fed(num_lists=40)
    windows = prequential.variants(split_at=15, num_demands=30)["online"]["windows"]
    assert sum(window["examples"] for window in windows) == 80


def test_windows_without_an_example_are_left_out() -> None:
    prequential, _ = _fed(num_lists=4)
    windows = prequential.variants(split_at=2, num_demands=400)["online"]["windows"]
    assert [window["examples"] for window in windows] == [8]


def test_label_that_is_not_known_is_not_measured() -> None:
    prequential = Prequential([OnlineVariant()])
    prequential.on_demand(demand("p", "a"))
    prequential.on_measured([measured(example("p", 0, NAN, 1.0))])
    assert prequential.variants(0, 1)["online"]["second_half"]["examples"] == 0
    assert len(prequential.records(0, 1).examples) == 1, "the other head's label is known"
    prequential.on_measured([measured(example("p", 0, NAN, NAN))])
    assert len(prequential.records(0, 1).examples) == 1


def test_nothing_measured_is_said_with_none_and_never_with_nan() -> None:
    prequential = Prequential([OnlineVariant()])
    report = {"variants": prequential.variants(0, 0), "retrieval": prequential.retrieval(0)}
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text)["variants"]["online"]["second_half"]["auc"] is None
    assert json.loads(text)["retrieval"]["mrr"] is None


def test_label_of_what_was_shown_before_a_restart_is_left_out() -> None:
    prequential = Prequential([OnlineVariant()])
    prequential.on_demand(demand("new", "a"))
    batch = [measured(example(name, 0, 1.0)) for name in ("shown before", "new")]
    prequential.on_measured(batch)
    assert prequential.variants(0, 1)["online"]["second_half"]["examples"] == 1


def test_no_more_examples_are_kept_than_asked_for() -> None:
    prequential, rows = _fed(num_lists=40, max_examples=25)
    assert prequential.variants(0, 40)["online"]["second_half"] == pytest.approx(
        _quality(rows[:25], 4)
    )


def test_what_is_done_with_is_forgotten_by_every_variant() -> None:
    class Forgetful(OnlineVariant):
        forgotten: tuple[str, ...] = ()

        def on_forget(self, impression_ids: Sequence[str]) -> None:
            self.forgotten += tuple(impression_ids)

    variant = Forgetful()
    prequential = Prequential([variant])
    prequential.on_demand(demand("p", "a"))
    prequential.on_forget(["p", "unknown"])
    assert variant.forgotten == ("p", "unknown")


def test_variants_see_demands_and_labels_as_they_come() -> None:
    told: list[str] = []

    class Listening(OnlineVariant):
        def on_demand(self, demand: Any) -> None:
            told.append(f"shown {demand.impression_id}")

        def on_examples(self, examples: Sequence[Any]) -> None:
            told.extend(f"known {one.impression_id}" for one in examples)

        def probabilities(self, measured: Sequence[Measured]) -> Any:
            told.extend(f"measured {one.example.impression_id}" for one in measured)
            return super().probabilities(measured)

    prequential = Prequential([Listening()])
    prequential.on_demand(demand("p", "a"))
    prequential.on_examples([example("p", 0, 1.0)])
    prequential.on_measured([measured(example("p", 0, 1.0))])
    assert told == ["shown p", "known p", "measured p"]


def test_between_is_the_quality_of_what_was_shown_in_that_time() -> None:
    prequential, rows = _fed()
    inside = rows[(rows[:, 1] >= 600_000) & (rows[:, 1] < 1_200_000)]
    assert len(inside) == 20
    found = prequential.between(600_000, 1_200_000)["online"]
    assert found == pytest.approx(_quality(inside, 4))
    assert prequential.span_ms() == (0, 39 * 60_000)


def test_retrieval_counts_misses_leaves_out_users_without_history_and_the_first_half() -> None:
    prequential = Prequential([])
    prequential.on_demand(demand("p", "a", ordinal=0))
    prequential.on_ranks(_taken(3), np.array([1, 1, 1], np.int64))  # before the split
    prequential.on_demand(demand("q", "a", ordinal=1))
    prequential.on_ranks(_taken(4), np.array([2, 21, -1, 0], np.int64))
    found = prequential.retrieval(split_at=2)
    assert found["predictions"] == 3
    assert found["recall@20"] == pytest.approx(1 / 3)
    assert found["mrr"] == pytest.approx((1 / 2 + 1 / 21) / 3)
    assert found["ndcg@20"] == pytest.approx((1 / math.log2(3)) / 3)


# Records


def test_records_say_of_each_example_what_was_known_when_it_was_shown() -> None:
    prequential = Prequential([OnlineVariant()], heads=("click", "like"))
    prequential.on_demand(demand("p", "i0", "i1", ordinal=0, session=4))
    prequential.on_demand(demand("q", "i1", "i0", ordinal=1, session=5, user_id="bob"))
    batch = [measured(example("q", 1, 0.0, NAN), session=5), measured(example("p", 0, 1.0, 1.0))]
    prequential.on_measured(batch)
    shown = prequential.records(split_at=1, num_demands=2).examples
    assert shown.heads == ("click", "like")
    columns = {name: values.tolist() for name, values in shown.columns.items()}
    assert columns["key"] == [digest("q", "i1"), digest("p", "i0")]
    assert columns["user"] == [digest("bob"), digest("ann")]
    assert columns["ordinal"] == [1, 0]
    assert columns["session"] == [5, 0]
    assert columns["item_shown"] == [1, 0]
    assert columns["known_actions"] == [0, 0]
    assert np.array_equal(shown.label_NH, [[0.0, NAN], [1.0, 1.0]], equal_nan=True)
    assert shown.scores["online"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    everything = np.ones(2, bool)
    assert shown.known(0, everything).tolist() == [1, 0], "in the order they were shown"
    assert shown.known(1, everything).tolist() == [1]


def test_records_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    prequential, _ = _fed()
    prequential.on_ranks(_taken(3), np.array([2, -1, 0], np.int64))
    before = prequential.records(split_at=20, num_demands=40)
    path = records_path(tmp_path / "deep" / "out.json")
    before.save(path)
    assert path.name == "out.records.npz"
    after = load_records(path)
    assert (after.split_at, after.num_demands) == (20, 40)
    assert after.examples.heads == ("0", "1")
    assert np.array_equal(after.examples.label_NH, before.examples.label_NH, equal_nan=True)
    for ours, theirs in (
        (before.examples.columns, after.examples.columns),
        (before.examples.scores, after.examples.scores),
        (before.taken.columns, after.taken.columns),
        (before.taken.ranks, after.taken.ranks),
    ):
        assert list(ours) == list(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_nothing_measured_is_recorded_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.records.npz"
    Prequential([OnlineVariant()], heads=("click",)).records(0, 0).save(path)
    empty = load_records(path)
    assert (len(empty.examples), len(empty.taken)) == (0, 0)


@pytest.mark.parametrize("content", [b"", b"PK not an archive", b"{}"])
def test_file_that_holds_no_records_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"odd.npz: not the records of a replay"):
        load_records(path)


def test_records_cut_short_or_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "out.records.npz"
    with pytest.raises(DatasetError, match="no such file; `headrace replay --out` writes it"):
        load_records(path)
    _fed()[0].records(20, 40).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="or cut short"):
        load_records(path)
