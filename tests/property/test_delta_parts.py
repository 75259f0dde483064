"""Deltas in parts: whatever is lost, repeated or changed on the way, no other ever comes out."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from domain.deltas import DeltaPoint
from stream.delta_parts import Assembly, DeltaPart, beginning, headers_of, part_from, split

CONTENTS = st.lists(st.binary(max_size=30), min_size=1, max_size=6)


def records_of(contents: list[bytes], part_bytes: int) -> list[DeltaPart]:
    return [
        part
        for number, content in enumerate(contents, start=1)
        for part in split(DeltaPoint("c", number), content, part_bytes)
    ]


def assembled(parts: list[DeltaPart]) -> list[tuple[int, bytes]]:
    assembly, found = Assembly(), []
    for part in parts:
        content = assembly.take(part)
        if content is not None:
            found.append((part.point.number, content))
    return found


@given(CONTENTS, st.integers(1, 12))
def test_deltas_come_out_as_they_went_in(contents: list[bytes], part_bytes: int) -> None:
    parts = records_of(contents, part_bytes)
    assert all(len(part.content) <= part_bytes for part in parts)
    assert [part_from(headers_of(part), part.content) for part in parts] == parts
    assert assembled(parts) == list(enumerate(contents, start=1))


@given(CONTENTS, st.integers(1, 12), st.data())
def test_of_what_lost_a_part_nothing_comes_out_and_of_the_others_all(
    contents: list[bytes], part_bytes: int, data: st.DataObject
) -> None:
    parts = records_of(contents, part_bytes)
    lost = data.draw(st.sets(st.sampled_from(range(len(parts)))))
    torn = {parts[one].point.number for one in lost}
    left = [part for at, part in enumerate(parts) if at not in lost]
    whole = list(enumerate(contents, start=1))
    assert assembled(left) == [one for one in whole if one[0] not in torn]


@given(CONTENTS, st.integers(1, 12), st.data())
def test_parts_in_any_disorder_never_make_what_was_not_sent(
    contents: list[bytes], part_bytes: int, data: st.DataObject
) -> None:
    parts = records_of(contents, part_bytes)
    shuffled = data.draw(st.lists(st.sampled_from(parts), max_size=3 * len(parts)))
    assert set(assembled(shuffled)) <= set(enumerate(contents, start=1))


@given(st.binary(min_size=1, max_size=30), st.integers(1, 12), st.data())
def test_changed_content_is_no_delta(content: bytes, part_bytes: int, data: st.DataObject) -> None:
    parts = split(DeltaPoint("c", 1), content, part_bytes)
    at = data.draw(st.integers(0, len(parts) - 1))
    spoilt = bytes([parts[at].content[0] ^ 1]) + parts[at].content[1:]
    parts[at] = replace(parts[at], content=spoilt)
    assert assembled(parts) == []


@given(st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8)), max_size=6))
def test_records_of_others_are_told_apart(headers: list[tuple[str, bytes]]) -> None:
    part = part_from(headers, b"")
    assert part is None or {"chain", "number", "part", "parts", "sha256"} <= dict(headers).keys()


def test_word_that_a_chain_begins_is_told_from_a_delta() -> None:
    begins = part_from(headers_of(beginning("c")), None)
    assert begins is not None
    assert begins.begins_chain
    assert not split(DeltaPoint("c", 1), b"", 5)[0].begins_chain


def test_numbers_that_cannot_be_are_not_ours() -> None:
    headers = dict(headers_of(split(DeltaPoint("c", 1), b"abc", 2)[1]))
    for name, value in (("part", "2"), ("part", "-1"), ("parts", "100000"), ("number", "-1")):
        changed = {**headers, name: value.encode()}
        assert part_from(list(changed.items()), b"") is None
