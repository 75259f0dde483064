"""The memory is filled again from the last examples, newest first, under the model of now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domain.errors import ConfigError
from domain.requests import CapturedRequest, RankingScores
from domain.state import state_hash
from stream.memory_rewriting import MemoryRewriting, MemoryRewritingConfig, Taught
from tests.loop_worlds import make_loop, tiny_settings, tiny_world


class Ranker:
    """Says of an item that its hidden state is its number plus how often the model was changed."""

    version = 0

    def predict(self, captured: list[CapturedRequest]) -> list[RankingScores]:
        return [
            RankingScores(
                probabilities=np.full((3, 1), 0.9, np.float32),
                hidden=one.arrays["number"] + np.float32(self.version),
            )
            for one in captured
        ]


class Memory:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float, int]] = []
        self.resets = 0

    def reset(self) -> None:
        self.rows = []
        self.resets += 1

    def rewrite(self, hidden_ND: Any, base_NH: Any, labels_NH: Any, times_ms_N: Any) -> None:
        self.rows += zip(
            hidden_ND[:, 0].tolist(),
            base_NH[:, 0].tolist(),
            labels_NH[:, 0].tolist(),
            times_ms_N.tolist(),
            strict=True,
        )


def taught(number: int) -> Taught:
    """Items 1 and 2 of three, whose hidden states begin at ten times `number`."""
    hidden_ND = np.arange(3, dtype=np.float32)[:, None] + 10 * number
    captured = CapturedRequest("u", ("a", "b", "c"), number, {"number": hidden_ND})
    labels_MH = np.array([[0.0], [1.0]], np.float32)
    return Taught(captured, np.array([1, 2]), labels_MH, labels_MH * 0.5 + 0.1, number)


def make(**settings: int) -> MemoryRewriting:
    config = {"window": 6, "every_steps": 4, "rows_per_step": 2} | settings
    return MemoryRewriting(MemoryRewritingConfig(**config))


def test_examples_come_back_newest_first_with_their_own_scores_labels_and_times() -> None:
    rewriting, memory, ranker = make(), Memory(), Ranker()
    rewriting.observe([taught(1), taught(2), taught(3)])
    ranker.version = 5
    rewriting.begin(memory)
    assert rewriting.write_some(ranker, memory, 2) == 2
    assert memory.rows == [(36.0, pytest.approx(0.1), 0.0, 3), (37.0, pytest.approx(0.6), 1.0, 3)]
    assert rewriting.write_some(ranker, memory, 3) == 4
    assert [row[0] for row in memory.rows] == [36.0, 37.0, 26.0, 27.0, 16.0, 17.0]
    assert rewriting.write_some(ranker, memory, 3) == 0


def test_what_is_taught_meanwhile_is_not_written_twice() -> None:
    rewriting, memory, ranker = make(window=100), Memory(), Ranker()
    rewriting.observe([taught(1), taught(2)])
    rewriting.begin(memory)
    rewriting.write_some(ranker, memory, 2)
    rewriting.observe([taught(3)])  # whoever taught it wrote it
    rewriting.write_some(ranker, memory, 100)
    assert [row[3] for row in memory.rows] == [2, 2, 1, 1]


def test_window_is_kept_to_also_while_it_is_being_written() -> None:
    rewriting, memory, ranker = make(window=4), Memory(), Ranker()
    rewriting.observe([taught(number) for number in range(5)])
    assert rewriting.num_examples == 4
    rewriting.begin(memory)
    rewriting.observe([taught(9)])
    assert rewriting.num_examples == 4
    assert rewriting.write_some(ranker, memory, 100) == 2, "the older of both has left"
    assert [row[3] for row in memory.rows] == [4, 4]


def test_memory_is_emptied_every_so_many_steps() -> None:
    rewriting, memory, ranker = make(every_steps=3, rows_per_step=2), Memory(), Ranker()
    rewriting.observe([taught(1), taught(2), taught(3)])
    written = [rewriting.advance(ranker, memory) for _ in range(7)]
    assert memory.resets == 2
    assert written == [0, 0, 2, 2, 2, 2, 2], "emptied at the third and at the sixth"


def test_loaded_rewriting_goes_on_where_the_other_stood() -> None:
    one, other, ranker = make(), make(), Ranker()
    one.observe([taught(1), taught(2), taught(3)])
    one.begin(Memory())
    one.write_some(ranker, Memory(), 2)
    other.load(one.save())
    assert state_hash(other.save()) == state_hash(one.save())
    mine, theirs = Memory(), Memory()
    one.write_some(ranker, mine, 100)
    other.write_some(ranker, theirs, 100)
    assert theirs.rows == mine.rows
    assert len(mine.rows) == 4


@pytest.mark.parametrize("key", ["window", "every_steps", "rows_per_step"])
def test_config_names_the_key(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"memory_rewriting\.{key} must be at least"):
        MemoryRewritingConfig(**{key: -1})


def test_loop_fills_its_memory_with_the_hidden_states_of_now() -> None:
    """After the last rewriting every example is where the ranker would look for it today."""
    schema, events = tiny_world(80)
    settings = tiny_settings(
        "memory_rewriting.window=10_000",
        "memory_rewriting.rows_per_step=10_000",
        "memory.half_life_ms=none",
        "memory.centring=none",
    )
    loop = make_loop(schema, settings)
    for event in events:
        loop.process(event)
    loop.finish()
    parts = loop.parts
    assert parts.rewriting is not None
    before = parts.memory.save()["memory"]["counts"]
    parts.rewriting.begin(parts.memory)
    assert not parts.memory.save()["memory"]["counts"].any()
    parts.rewriting.write_some(parts.ranking, parts.memory, 10**6)
    after = parts.memory.save()["memory"]["counts"]
    assert after.sum() == before.sum() > 0, "the same examples"
    assert (after != before).any(), "in other buckets: the ranker has learned since"
    taught_all = list(parts.rewriting._taught)
    hidden_ND = np.concatenate(
        [
            result.hidden[one.item_indices]
            for one, result in zip(
                taught_all, parts.ranking.predict([t.captured for t in taught_all]), strict=True
            )
        ]
    )
    assert (parts.memory.read(hidden_ND).support >= 1.0).all()


def test_loop_with_rewriting_goes_on_bit_for_bit_after_a_restart() -> None:
    schema, events = tiny_world(60)
    settings = tiny_settings("memory_rewriting.window=100", "memory_rewriting.every_steps=3")
    whole, half = make_loop(schema, settings), make_loop(schema, settings)
    for at, event in enumerate(events):
        whole.process(event)
        if at == len(events) // 2:
            resumed = make_loop(schema, settings)
            resumed.load(half.save())
            for name in ("ranking", "memory", "retrieval"):
                getattr(resumed.parts, name).load(getattr(half.parts, name).save())
            half = resumed
        half.process(event)
    assert state_hash(half.save()) == state_hash(whole.save())
    assert state_hash(half.parts.memory.save()) == state_hash(whole.parts.memory.save())
