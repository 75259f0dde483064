"""A manifest is read back as it was written, or refused with a line that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from domain.errors import SnapshotDamagedError
from snapshot.manifest import FileEntry, Manifest, is_snapshot_id, is_step, manifest_from_json


def a_manifest(**changes: Any) -> Manifest:
    manifest = Manifest(
        snapshot_id="",
        step=42,
        event_time_ms=1_700_000_000_000,
        positions={"events/0": 7, "events/1": 0},
        schema_hash="0123456789abcdef",
        files=(FileEntry(name="ranking.json", size_bytes=3, sha256="ab" * 32),),
        extra={"events": 10, "learners": {"seed": 1}},
    )
    return replace(manifest, **changes).named()


def test_manifest_comes_back_as_it_was_when_nothing_happened_to_it() -> None:
    manifest = a_manifest(parent_id="000000000041-0123456789ab")
    assert manifest_from_json(manifest.to_json(), "here") == manifest


def test_id_starts_with_the_step_and_sorts_by_it() -> None:
    ids = [a_manifest(step=step).snapshot_id for step in (0, 9, 10, 99_999, 10**11)]
    assert ids[2].startswith("000000000010-")
    assert ids == sorted(ids)
    assert all(is_snapshot_id(one) for one in ids)


def test_id_depends_on_the_content_and_not_on_the_parent() -> None:
    manifest = a_manifest()
    assert a_manifest(parent_id="000000000041-0123456789ab").snapshot_id == manifest.snapshot_id
    assert a_manifest(extra={}).snapshot_id != manifest.snapshot_id
    assert a_manifest(positions={"events/0": 8}).snapshot_id != manifest.snapshot_id


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Return a function that sets one field of a parsed manifest file."""

    def apply(document: dict[str, Any]) -> None:
        node: Any = document
        *parents, last = path.split(".")
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("manifest", 3, "all.manifest: expected an object, got 3"),
        ("manifest.step", "42", "manifest.step: expected a step, got '42'"),
        ("manifest.step", -1, "manifest.step: expected a step, got -1"),
        ("manifest.step", True, "manifest.step: expected a step, got True"),
        ("manifest.snapshot_id", "../up", "manifest.snapshot_id: expected a snapshot id"),
        ("manifest.event_time_ms", 1.5, "manifest.event_time_ms: expected an integer, got 1.5"),
        ("manifest.positions", {"events/0": -1}, "manifest.positions: expected offsets"),
        ("manifest.schema_hash", None, "manifest.schema_hash: expected text, got None"),
        ("manifest.parent_id", "x", "manifest.parent_id: expected a snapshot id or null"),
        ("manifest.extra", [], "manifest.extra: expected an object"),
        ("manifest.files", {}, "manifest.files: expected a list"),
        ("manifest.files.0.name", "../up", "manifest.files[0].name: expected a file name"),
        ("manifest.files.0.size_bytes", -3, "manifest.files[0].size_bytes: expected a size"),
        ("manifest.files.0.sha256", "zz", "manifest.files[0].sha256: expected 64 hex digits"),
        ("manifest.files.0.more", 1, "manifest.files[0]: expected an object with name, sha256"),
        ("manifest.colour", "red", "manifest: expected an object with event_time_ms"),
        ("more", 1, "all: expected an object with manifest, sha256, got one with"),
        ("manifest.format_version", 2, "expected format version 1, got 2"),
        ("manifest.step", 43, "its checksum differs from its content"),
        ("manifest.extra.events", 11, "its checksum differs from its content"),
        ("sha256", "ab" * 32, "its checksum differs from its content"),
    ],
)
def test_manifest_says_what_was_expected_when_a_field_is_wrong(
    path: str, value: object, message: str
) -> None:
    document = json.loads(a_manifest().to_json())
    change(path, value)(document)
    with pytest.raises(SnapshotDamagedError) as caught:
        manifest_from_json(json.dumps(document), "root/x/manifest.json")
    assert str(caught.value).startswith("root/x/manifest.json: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"manifest": NaN}', b"\xff\xfe"])
def test_manifest_is_refused_when_it_is_not_json_of_the_right_form(text: str | bytes) -> None:
    with pytest.raises(SnapshotDamagedError, match=r"^here: "):
        manifest_from_json(text, "here")


def test_manifest_is_refused_when_its_id_is_not_what_its_content_asks_for() -> None:
    impostor = replace(a_manifest(), snapshot_id=a_manifest(extra={}).snapshot_id)
    with pytest.raises(SnapshotDamagedError, match="its content asks for id 000000000042-"):
        manifest_from_json(impostor.to_json(), "here")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, True), (10**12 - 1, True), (10**12, False), (-1, False), (1.0, False)],
)
def test_is_step_knows_what_an_id_has_digits_for(value: object, expected: bool) -> None:
    assert is_step(value) is expected
