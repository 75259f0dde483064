"""Lost records: which they are, and the line that lets a person choose."""

from __future__ import annotations

from domain.errors import LogGapError
from stream.gaps import Gap, choice, find_gaps, gap_from


def test_positions_at_the_beginning_and_at_the_end_are_no_gap() -> None:
    assert find_gaps({"a": 3, "b": 9}, {"a": 3, "b": 0}, {"a": 8, "b": 9}) == []


def test_partition_never_read_or_not_known_to_the_log_is_no_gap() -> None:
    assert find_gaps({"gone": 5}, {"new": 7}, {"new": 9}) == []


def test_deleted_records_are_counted() -> None:
    (gap,) = find_gaps({"a": 3}, {"a": 1_003}, {"a": 2_000})
    assert gap == Gap("a", 3, 1_003)
    assert gap.lost == 1_000
    assert not gap.made_anew
    assert choice([gap]) == (
        "a lost 1,000 records before they were read: expected to go on at offset 3, the oldest one "
        "held is 1003. Restore the records, or accept the loss: --on-gap skip goes on at a@1003"
    )


def test_log_made_anew_is_read_from_its_beginning_and_nobody_knows_what_is_lost() -> None:
    (gap,) = find_gaps({"a": 300}, {"a": 0}, {"a": 7})
    assert gap.made_anew
    assert gap.lost == 0
    assert "a was made anew or restored: expected to go on at offset 300" in choice([gap])
    assert choice([gap]).endswith("--on-gap skip goes on at a@0")


def test_one_line_names_every_partition() -> None:
    text = choice([Gap("a", 1, 2), Gap("b", 1, 5)])
    assert text.endswith("goes on at a@2, b@5")
    assert "b lost 4 records" in text
    assert "\n" not in text


def test_gap_that_a_read_ran_into_is_the_same() -> None:
    assert gap_from(LogGapError("the log", "a", 3, 7, 9)) == Gap("a", 3, 7)
