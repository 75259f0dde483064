"""Segments on the disk: what is written comes back, and what is damaged is not believed."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import JournalError
from stream.gaps import Gap
from stream.journal_check import check_chain
from stream.journal_files import JournalFolder, Run, Segment

SEGMENT = Segment(
    previous=None,
    parent=None,
    schema_hash="the-schema",
    settings={"seed": 42, "ranking": {"hidden": [16, 8]}},
    begin={"a": 5, "b": 0},
    end={"a": 30, "b": 4},
    runs=(Run("a", 5, 2), Run("b", 0, 2), Run("a", 9, 1), Run("b", 2, 2), Run("a", 20, 10)),
    gaps=((4, Gap("a", 10, 20)),),
    holes=(Run("a", 7, 2),),
    first_step=3,
    steps=(2, 2, 9),
    num_events=17,
)


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path)


def test_segment_comes_back_from_the_disk(folder: JournalFolder) -> None:
    name = folder.write(SEGMENT)
    assert name.startswith("000000000006-")
    assert folder.read(name) == SEGMENT
    assert [path.name for path in folder.root.iterdir()] == [f"{name}.json.gz"]
    check_chain([(name, SEGMENT)])


def test_same_segment_is_the_same_file(folder: JournalFolder, tmp_path: Path) -> None:
    name = folder.write(SEGMENT)
    before = (tmp_path / f"{name}.json.gz").read_bytes()
    assert folder.write(SEGMENT) == name
    assert (tmp_path / f"{name}.json.gz").read_bytes() == before


def test_segment_of_many_runs_takes_a_byte_or_two_for_each(folder: JournalFolder) -> None:
    runs = tuple(Run("ab"[number % 2], number // 2, 1) for number in range(10_000))
    name = folder.write(replace(SEGMENT, runs=runs))
    assert folder.size_bytes(name) < 20_000


def test_changed_content_is_found_by_the_name(folder: JournalFolder, tmp_path: Path) -> None:
    name = folder.write(SEGMENT)
    path = tmp_path / f"{name}.json.gz"
    other = replace(SEGMENT, settings={"seed": 43})
    path.write_bytes(gzip.compress(other.to_json()))
    with pytest.raises(JournalError, match="damaged: its content is not what its name was made"):
        folder.read(name)


def test_file_that_was_cut_short_is_named(folder: JournalFolder, tmp_path: Path) -> None:
    name = folder.write(SEGMENT)
    path = tmp_path / f"{name}.json.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(JournalError, match=f"{name}.json.gz: cannot be read"):
        folder.read(name)


def test_what_is_no_segment_is_named() -> None:
    with pytest.raises(JournalError, match="here: is no segment"):
        Segment.from_json(b'{"format_version": 1}', "here")
    with pytest.raises(JournalError, match="here: expected format version 1, got 2"):
        Segment.from_json(b'{"format_version": 2}', "here")


def test_name_that_leads_out_of_the_folder_is_refused(folder: JournalFolder) -> None:
    with pytest.raises(JournalError, match="expected the name of a segment"):
        folder.read("../../etc/passwd")


def test_chain_goes_back_as_far_as_segments_are_kept(folder: JournalFolder) -> None:
    names = [folder.write(SEGMENT)]
    for _ in range(2):
        last = folder.read(names[-1])
        after = replace(
            last,
            previous=names[-1],
            begin=last.end,
            runs=(),
            gaps=(),
            holes=(),
            steps=(),
            first_step=6,
            num_events=len(names),
        )
        names.append(folder.write(after))
    assert [name for name, _ in folder.chain(names[-1])] == names
    folder.remove(names[0])
    assert [name for name, _ in folder.chain(names[-1])] == names[1:]
    folder.remove(names[2])
    with pytest.raises(JournalError, match="the file is missing"):
        folder.chain(names[2])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"end": {"a": 30, "b": 5}}, "its records end at"),
        ({"runs": (*SEGMENT.runs, Run("b", 3, 1))}, "expected b@4 next, got offset 3"),
        ({"runs": (Run("a", 6, 1), *SEGMENT.runs)}, "expected a@5 next, got offset 6"),
        ({"holes": ()}, "expected a@7 next, got offset 9"),
        ({"holes": (*SEGMENT.holes, Run("b", 9, 1))}, "b@9 is a hole"),
        ({"gaps": ()}, "expected a@10 next, got offset 20"),
        ({"gaps": ((0, Gap("a", 10, 20)),)}, "a gap at a@10, but its records end at 5"),
        ({"steps": (2, 99)}, "its steps are not in the order of its events"),
    ],
)
def test_journal_that_tells_an_offset_twice_or_not_at_all_is_found(
    broken: dict[str, object], message: str
) -> None:
    with pytest.raises(JournalError, match=message):
        check_chain([("x", replace(SEGMENT, **broken))])  # type: ignore[arg-type]


def test_segments_that_do_not_follow_each_other_are_found() -> None:
    after = Segment(
        previous="one",
        parent="snap",
        schema_hash="the-schema",
        settings={},
        begin=SEGMENT.end,
        end=SEGMENT.end,
        first_step=6,
    )
    check_chain([("one", SEGMENT), ("two", after)])
    for wrong, message in (
        (replace(after, previous="other"), "the segment before 'one', got 'other'"),
        (replace(after, begin={}, end={}), "positions at its beginning"),
        (replace(after, first_step=7), "steps before it 6, got 7"),
    ):
        with pytest.raises(JournalError, match=message):
            check_chain([("one", SEGMENT), ("two", wrong)])
