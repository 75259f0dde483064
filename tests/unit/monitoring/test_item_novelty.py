"""Item novelty: what is new, what is forgotten, save and load."""

from __future__ import annotations

import pytest

from domain.errors import ConfigError
from monitoring.item_novelty import ItemNovelty


def test_item_is_new_once() -> None:
    novelty = ItemNovelty()
    assert novelty.update(["a", "b", "a"]) == 2 / 3
    assert novelty.update(["a", "b", "c", "d"]) == 2 / 4
    assert novelty.update([]) == 0.0


def test_item_shown_longest_ago_is_forgotten_when_memory_is_full() -> None:
    novelty = ItemNovelty(max_items=2)
    novelty.update(["a", "b", "a", "c"])  # b was shown before a was shown again
    assert len(novelty) == 2
    assert novelty.update(["a"]) == 0.0
    assert novelty.update(["b"]) == 1.0


def test_load_continues_where_save_stood() -> None:
    before, after = ItemNovelty(max_items=3), ItemNovelty(max_items=3)
    before.update(["a", "b", "c", "a"])
    after.load(before.save())
    for item in ("d", "a", "b"):
        assert after.update([item]) == before.update([item])
    smaller = ItemNovelty(max_items=1)
    smaller.load(before.save())
    assert smaller.update(["b"]) == 0.0


def test_limit_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"^item_novelty\.max_items "):
        ItemNovelty(max_items=0)
