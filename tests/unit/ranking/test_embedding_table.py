"""Embedding rows: who gets one, who loses it, and what a recycled one remembers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domain.errors import ConfigError, SnapshotError
from domain.state import state_hash
from ranking.embedding_table import EmbeddingTable, EmbeddingTableConfig
from ranking.row_optimiser import OPTIMISERS, OptimiserName

HOUR_MS = 3_600_000


def table_of(**options: Any) -> EmbeddingTable:
    return EmbeddingTable(EmbeddingTableConfig(dimension=2, **options))


def learn(table: EmbeddingTable, ids: list[int], time_ms: int = 0, gradient: float = 1.0) -> None:
    table.learn(
        np.array(ids, np.int64),
        np.ones(len(ids), np.int64),
        np.full((len(ids), 2), gradient, np.float32),
        time_ms,
    )


def test_read_gives_zeros_and_inserts_nothing_when_unseen() -> None:
    table = table_of()
    before = state_hash(table.save())
    assert table.read(np.array([[1, 2], [3, 0]])).tolist() == np.zeros((2, 2, 2)).tolist()
    learn(table, [7])
    after = state_hash(table.save())
    assert table.read(np.array([1])).tolist() == [[0.0, 0.0]]
    assert state_hash(table.save()) == after != before


def test_first_step_has_the_size_of_the_learning_rate() -> None:
    table = table_of()
    learn(table, [5], gradient=-123.0)
    np.testing.assert_allclose(table.read(np.array([5])), [[0.03, 0.03]], rtol=1e-6)


def test_steps_shrink_as_adagrad_says() -> None:
    table = table_of()
    for _ in range(4):
        learn(table, [5])
    expected = -0.03 * sum(1 / np.sqrt(n) for n in (1, 2, 3, 4))
    np.testing.assert_allclose(table.read(np.array([5]))[0, 0], expected, rtol=1e-6)


def test_row_is_admitted_at_the_third_sighting_when_three_are_asked_for() -> None:
    table = table_of(min_count=3)
    learn(table, [5])
    learn(table, [5])
    assert len(table) == 0
    learn(table, [5])
    assert len(table) == 1
    assert table.read(np.array([5]))[0, 0] == np.float32(-0.03)


def test_sightings_within_one_batch_count_towards_admission() -> None:
    table = table_of(min_count=3)
    table.learn(np.array([5, 6]), np.array([3, 2]), np.ones((2, 2), np.float32), 0)
    assert len(table) == 1


def test_least_recently_learned_row_leaves_when_the_table_is_full() -> None:
    table = table_of(max_rows=3)
    for time_ms, each in enumerate([11, 12, 13, 11]):
        learn(table, [each], time_ms)
    learn(table, [14], 10)
    assert table.take_delta()["removed"].tolist() == [12]
    assert not table.read(np.array([12])).any()
    assert table.read(np.array([11, 13, 14])).all()


def test_row_expires_by_event_time_when_not_learned_for_long() -> None:
    table = table_of(ttl_ms=HOUR_MS)
    learn(table, [1], 0)
    learn(table, [2], HOUR_MS)
    assert len(table) == 2
    learn(table, [2], 2 * HOUR_MS)
    assert table.take_delta()["removed"].tolist() == [1]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_recycled_row_starts_anew_with_its_optimiser(optimiser: OptimiserName) -> None:
    table = table_of(max_rows=1, optimiser=optimiser)
    for _ in range(50):
        learn(table, [1], 0)
    learn(table, [2], 1)
    np.testing.assert_allclose(table.read(np.array([2])), [[-0.03, -0.03]], rtol=1e-6)
    assert not table.read(np.array([1])).any()
    kept = table.save()["rows"]["columns"]
    new = table_of(max_rows=1, optimiser=optimiser)
    learn(new, [2], 1)
    for column, values in new.save()["rows"]["columns"].items():
        assert np.array_equal(kept[column], values), column


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_expired_row_starts_anew_when_its_id_comes_back(optimiser: OptimiserName) -> None:
    table = table_of(ttl_ms=HOUR_MS, optimiser=optimiser)
    for _ in range(50):
        learn(table, [1], 0)
    learn(table, [2], 2 * HOUR_MS)
    assert len(table) == 1
    learn(table, [1], 2 * HOUR_MS)
    np.testing.assert_allclose(table.read(np.array([1])), [[-0.03, -0.03]], rtol=1e-6)


def test_growth_moves_no_column() -> None:
    table = table_of()
    learn(table, [1])
    before = {name: table._rows[name] for name in ("weight", "square")}
    learn(table, list(range(2, 50_000)))
    for name, column in before.items():
        assert table._rows[name] is column


def test_bag_is_the_sum_of_its_rows_and_gives_each_its_gradient() -> None:
    table, twin = table_of(), table_of()
    learn(table, [5, 6, 7])
    learn(twin, [5, 6, 7])
    bags = np.array([[5, 6, 0], [7, 5, 5], [8, 0, 0]])
    rows = table.read(np.array([5, 6, 7]))
    np.testing.assert_allclose(
        table.read_bags(bags), [rows[0] + rows[1], rows[2] + 2 * rows[0], [0, 0]], rtol=1e-6
    )
    gradients = np.array([[1.0, 2.0], [-3.0, 0.5], [4.0, 4.0]], np.float32)
    table.learn_bags(bags, gradients, 1)
    summed = np.array([gradients[0] + 2 * gradients[1], gradients[0], gradients[1], gradients[2]])
    twin.learn(np.array([5, 6, 7, 8]), np.array([3, 1, 1, 1]), summed, 1)
    every_id = np.arange(10)
    np.testing.assert_allclose(table.read(every_id), twin.read(every_id), rtol=1e-6)
    assert sorted(table.take_delta()["ids"].tolist()) == [5, 6, 7, 8]


def test_rows_of_a_late_batch_may_leave_at_once() -> None:
    table = table_of(max_rows=2)
    learn(table, [1, 2], 10)
    learn(table, [3], 5)
    assert len(table) == 2
    assert table.read(np.array([3])).any(), "the newcomer took an older row's place"


@pytest.mark.parametrize(
    ("optimiser", "column"), [("rowwise_adagrad", "square"), ("lazy_adam", "first")]
)
def test_state_of_another_optimiser_is_refused(optimiser: OptimiserName, column: str) -> None:
    table = table_of()
    learn(table, [1])
    with pytest.raises(SnapshotError, match=rf"^ranking\.table\.rows\.columns\.{column}: expected"):
        table_of(optimiser=optimiser).load(table.save())


def test_growth_keeps_rows_and_optimiser_state() -> None:
    table, alone = table_of(), table_of()
    learn(table, [1])
    learn(alone, [1])
    learn(table, list(range(2, 2_000)))
    learn(table, [1])
    learn(alone, [1])
    assert np.array_equal(table.read(np.array([1])), alone.read(np.array([1])))


def test_rows_that_were_learned_travel_once() -> None:
    table = table_of()
    learn(table, [1, 2])
    first = table.take_delta()
    assert first["ids"].tolist() == [1, 2]
    assert np.array_equal(first["columns"]["weight"], table.read(first["ids"]))
    assert [*first["columns"]] == ["weight"], "optimiser state stays at home"
    assert table.take_delta()["ids"].tolist() == []
    learn(table, [2])
    assert table.take_delta()["ids"].tolist() == [2]


def test_delta_holds_every_row_when_more_ids_left_than_are_remembered() -> None:
    table = table_of(max_rows=2)
    for each in range(1, 9):
        learn(table, [each], each)
    delta = table.take_delta()
    assert delta["whole"]
    assert delta["removed"].tolist() == []
    assert sorted(delta["ids"].tolist()) == [7, 8]
    assert not table.take_delta()["whole"]


def test_what_changed_before_a_save_is_no_part_of_the_state() -> None:
    table, looked_at = table_of(max_rows=2), table_of(max_rows=2)
    for each in range(1, 5):
        learn(table, [each], each)
        learn(looked_at, [each], each)
        looked_at.take_delta()
    assert state_hash(table.save()) == state_hash(looked_at.save())
    restored = table_of(max_rows=2)
    restored.load(table.save())
    delta = restored.take_delta()
    assert (delta["ids"].tolist(), delta["removed"].tolist(), delta["whole"]) == ([], [], False)


def test_new_rows_differ_by_id_but_not_by_order_when_spread() -> None:
    config = EmbeddingTableConfig(dimension=2, initial_spread=0.1)
    first, second = EmbeddingTable(config), EmbeddingTable(config)
    learn(first, list(range(1, 200)), gradient=0.0)
    for each in reversed(range(1, 200)):
        learn(second, [each], gradient=0.0)
    rows = first.read(np.arange(1, 200))
    assert np.array_equal(rows, second.read(np.arange(1, 200)))
    assert len(np.unique(rows)) == rows.size
    assert np.abs(rows).max() <= 0.1
    assert rows.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.1)
    assert abs(rows.mean()) < 0.01


def test_batch_with_more_new_ids_than_rows_keeps_as_many_as_fit() -> None:
    table = table_of(max_rows=4)
    learn(table, list(range(1, 11)))
    assert len(table) == 4


@pytest.mark.parametrize("key", ["dimension", "max_rows", "min_count", "max_waiting", "ttl_ms"])
def test_config_names_the_key_when_below_one(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.table\.{key} must be at least 1, got 0"):
        EmbeddingTableConfig(**{key: 0})


def test_config_names_the_learning_rate_when_not_positive() -> None:
    with pytest.raises(ConfigError, match=r"^ranking\.table\.learning_rate must be positive"):
        EmbeddingTableConfig(learning_rate=float("nan"))


@pytest.mark.parametrize("key", ["admission", "optimiser"])
def test_config_names_the_choices_when_there_is_no_such(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.table\.{key} must be one of .*, got 'luck'"):
        EmbeddingTableConfig(**{key: "luck"})


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 1.0), (-0.1, 0.9)])
def test_config_names_the_betas_when_out_of_range(betas: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^ranking\.table\.adam_betas must be two numbers"):
        EmbeddingTableConfig(adam_betas=betas)


def test_config_error_names_the_setting_when_there_is_no_room() -> None:
    with pytest.raises(ConfigError, match=r"^ranking\.table\.max_rows: expected a number of rows"):
        table_of(max_rows=2**52)
