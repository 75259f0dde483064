"""The published data sets themselves, where a folder with them is at hand."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from domain.events import Impression
from replay.datasets import open_dataset

FOLDER = os.environ.get("HEADRACE_TEST_DATA", "")

pytestmark = pytest.mark.skipif(
    not FOLDER, reason="HEADRACE_TEST_DATA names no folder with the published data sets"
)


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        (
            "kuairand-pure",
            "kuairand-pure",
            {"Impression": 228_329, "Feedback": 684_987, "UserUpdate": 25_156, "ItemUpdate": 6_361},
        ),
        ("movielens", "ml-latest-small", {"Feedback": 100_004, "ItemUpdate": 9_066}),
        ("movietweetings", "movietweetings", {"Feedback": 100_000, "ItemUpdate": 10_506}),
    ],
)
def test_dataset_gives_all_events_in_order_of_time(
    name: str, folder: str, expected: dict[str, int]
) -> None:
    path = Path(FOLDER) / folder
    if not path.is_dir():
        pytest.skip(f"{folder} is not in HEADRACE_TEST_DATA")
    dataset = open_dataset(name, path)
    counts: Counter[str] = Counter()
    last_ms = 0
    for event in dataset.events():
        counts[type(event).__name__] += 1
        assert event.time_ms >= last_ms
        last_ms = event.time_ms
    assert counts == expected
    assert dataset.num_events_hint == sum(expected.values())


def test_kuairand_has_as_many_different_impressions_as_different_rows() -> None:
    path = Path(FOLDER) / "kuairand-pure"
    if not path.is_dir():
        pytest.skip("kuairand-pure is not in HEADRACE_TEST_DATA")
    events = open_dataset("kuairand-pure", path).events()
    assert len({e.event_id for e in events if isinstance(e, Impression)}) == 222_869
