from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ConfigError
from domain.examples import JoinedExample
from domain.state import state_hash
from stream.batcher import Batcher, BatcherConfig


def _example(number: int, impression_id: str = "p") -> JoinedExample:
    return JoinedExample(
        impression_id=impression_id,
        item_index=number,
        user_id="ann",
        item_id=f"i{number}",
        shown_ms=0,
        revealed_ms=1,
        labels=(1.0, float("nan")),
    )


def _numbers(groups: list[list[JoinedExample]]) -> list[list[int]]:
    return [[example.item_index for example in group] for group in groups]


def test_batch_is_ready_when_enough_examples_wait() -> None:
    batcher = Batcher(BatcherConfig(max_examples=2, linger_ms=100))
    assert not batcher.ready(0)
    batcher.add([_example(0)])
    assert not batcher.ready(0)
    batcher.add([_example(1), _example(2)])
    assert batcher.ready(0)
    assert _numbers(batcher.take()) == [[0, 1]]
    assert not batcher.ready(0)
    assert len(batcher) == 1


def test_batch_is_ready_when_event_time_moved_on_since_the_oldest_was_added() -> None:
    batcher = Batcher(BatcherConfig(linger_ms=100))
    batcher.add([_example(0)])
    assert not batcher.ready(1_000)
    batcher.add([_example(1)])
    assert not batcher.ready(1_099)
    assert batcher.ready(1_100)
    assert _numbers(batcher.take()) == [[0, 1]]
    assert not batcher.ready(9_999)


def test_what_stays_behind_waits_from_its_own_time_on() -> None:
    batcher = Batcher(BatcherConfig(max_examples=2, linger_ms=100))
    batcher.add([_example(0)])
    batcher.ready(1_000)
    batcher.add([_example(1), _example(2)])
    assert batcher.ready(1_050)
    batcher.take()
    assert not batcher.ready(1_149)
    assert batcher.ready(1_150)


def test_batch_is_grouped_by_impression_in_order_of_first_appearance() -> None:
    batcher = Batcher()
    batcher.add([_example(0, "q"), _example(1, "p"), _example(2, "q")])
    assert _numbers(batcher.take()) == [[0, 2], [1]]
    assert batcher.take() == []


@given(
    counts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=20),
    cut=st.integers(0, 20),
)
def test_batches_end_at_the_same_events_when_the_trainer_restarts(
    counts: list[tuple[int, int]], cut: int
) -> None:
    def run(restart_at: int | None) -> list[tuple[int, list[list[int]]]]:
        batcher, batches, number, time_ms = Batcher(config), [], 0, 0
        for at, (count, pause_ms) in enumerate(counts):
            if at == restart_at:
                state = batcher.save()
                batcher = Batcher(config)
                batcher.load(state)
                assert state_hash(batcher.save()) == state_hash(state)
            time_ms += pause_ms
            batcher.add([_example(number + more) for more in range(count)])
            number += count
            while batcher.ready(time_ms):
                batches.append((at, _numbers(batcher.take())))
        return batches

    config = BatcherConfig(max_examples=4, linger_ms=100)
    assert run(None) == run(cut)
    assert all(1 <= sum(map(len, groups)) <= 4 for _, groups in run(None))


@pytest.mark.parametrize("name", ["max_examples", "linger_ms"])
def test_config_names_the_key_when_not_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^batcher\.{name} must be positive, got 0"):
        BatcherConfig(**{name: 0})
