"""The manifest: what a snapshot holds, file by file, and where the log stood when it was taken."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from domain.errors import SnapshotDamagedError

FORMAT_VERSION = 1

_DELTA = "delta"
"""Key of `extra` under which a snapshot says how far into its trainer's deltas it reaches."""

_STEP_DIGITS = 12
_ID = re.compile(r"[0-9]{12}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a snapshot."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot holds.

    Attributes:
        snapshot_id: step and content hash, "000000000042-9f3c0a11bb27"; sorts by step.
        step: training steps taken.
        event_time_ms: event time of the newest event in it, ms UTC.
        positions: next offset to read per partition; every event before has had its effect.
        schema_hash: hash of the feature schema the models were built for.
        files: the files beside the manifest, by name.
        parent_id: the snapshot that was current before, None for the first.
        extra: whatever the publisher wants to tell, as JSON values.
    """

    snapshot_id: str
    step: int
    event_time_ms: int
    positions: Mapping[str, int]
    schema_hash: str
    files: tuple[FileEntry, ...]
    parent_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def named(self) -> Manifest:
        """Return the same manifest with the id that its content asks for.

        The same content at the same step has the same id, whatever was current before it, and
        whichever life of a trainer published it: that is all its place in a chain of deltas tells.
        """
        extra = {key: value for key, value in self.extra.items() if key != _DELTA}
        bare = replace(self, extra=extra)
        digest = hashlib.sha256(_canonical(bare, without=("snapshot_id", "parent_id")))
        return replace(self, snapshot_id=f"{self.step:0{_STEP_DIGITS}d}-{digest.hexdigest()[:12]}")

    def to_json(self) -> str:
        """Return the manifest as JSON, with a checksum over all of it."""
        document = {"manifest": asdict(self), "sha256": _checksum(self)}
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"


def manifest_from_json(text: str | bytes, where: str) -> Manifest:
    """Parse what `to_json` wrote, and nothing else.

    Raises:
        SnapshotDamagedError: naming `where`, what was expected and what came.
    """
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SnapshotDamagedError(f"{where}: not JSON: {error}") from error
    envelope = _Fields(where, "all", document, ("manifest", "sha256"))
    raw = envelope.take("manifest", "an object", lambda value: isinstance(value, dict))
    version = raw.get("format_version")
    if version != FORMAT_VERSION:
        raise SnapshotDamagedError(
            f"{where}: expected format version {FORMAT_VERSION}, got {version!r}"
        )
    manifest = _manifest(where, raw)
    if document["sha256"] != _checksum(manifest):
        raise SnapshotDamagedError(f"{where}: its checksum differs from its content")
    if manifest.snapshot_id != manifest.named().snapshot_id:
        raise SnapshotDamagedError(
            f"{where}: its content asks for id {manifest.named().snapshot_id}, "
            f"got {manifest.snapshot_id}"
        )
    return manifest


def is_snapshot_id(text: str) -> bool:
    """Tell whether `text` could be the id of a snapshot.

    >>> is_snapshot_id("000000000042-9f3c0a11bb27"), is_snapshot_id("../etc")
    (True, False)
    """
    return _ID.fullmatch(text) is not None


def is_step(value: object) -> bool:
    """Tell whether `value` is a step that an id has digits for."""
    return type(value) is int and 0 <= value < 10**_STEP_DIGITS


class _Fields:
    """A JSON object whose keys are known, read field by field."""

    def __init__(self, where: str, path: str, raw: object, names: Iterable[str]) -> None:
        if not isinstance(raw, dict) or set(raw) != set(names):
            got = f"one with {', '.join(sorted(raw))}" if isinstance(raw, dict) else repr(raw)
            raise SnapshotDamagedError(
                f"{where}: {path}: expected an object with {', '.join(sorted(names))}, got {got}"
            )
        self._where = where
        self._path = path
        self._raw = raw

    def take(self, name: str, expected: str, fits: Callable[[Any], bool]) -> Any:
        value = self._raw[name]
        if not fits(value):
            raise SnapshotDamagedError(
                f"{self._where}: {self._path}.{name}: expected {expected}, got {value!r}"
            )
        return value


def _manifest(where: str, raw: dict[str, Any]) -> Manifest:
    fields = _Fields(where, "manifest", raw, Manifest.__dataclass_fields__)
    files = fields.take("files", "a list", lambda value: isinstance(value, list))
    return Manifest(
        snapshot_id=fields.take("snapshot_id", "a snapshot id", _is_id),
        step=fields.take("step", "a step", is_step),
        event_time_ms=fields.take("event_time_ms", "an integer", _is_integer),
        positions=fields.take("positions", "offsets by partition", _is_positions),
        schema_hash=fields.take("schema_hash", "text", lambda value: isinstance(value, str)),
        files=tuple(_file(where, f"manifest.files[{i}]", item) for i, item in enumerate(files)),
        parent_id=fields.take(
            "parent_id", "a snapshot id or null", lambda v: v is None or _is_id(v)
        ),
        extra=fields.take("extra", "an object", lambda value: isinstance(value, dict)),
    )


def _file(where: str, path: str, raw: object) -> FileEntry:
    fields = _Fields(where, path, raw, ("name", "size_bytes", "sha256"))
    return FileEntry(
        name=fields.take("name", "a file name", _is_file_name),
        size_bytes=fields.take("size_bytes", "a size", lambda v: _is_integer(v) and v >= 0),
        sha256=fields.take("sha256", "64 hex digits", _is_sha256),
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_id(value: object) -> bool:
    return isinstance(value, str) and is_snapshot_id(value)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_integer(value: object) -> bool:
    return type(value) is int


def _is_positions(value: object) -> bool:
    return isinstance(value, dict) and all(_is_integer(v) and v >= 0 for v in value.values())


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and "/" not in value


def _checksum(manifest: Manifest) -> str:
    return hashlib.sha256(_canonical(manifest, without=())).hexdigest()


def _canonical(manifest: Manifest, without: tuple[str, ...]) -> bytes:
    raw = {key: value for key, value in asdict(manifest).items() if key not in without}
    return json.dumps(raw, sort_keys=True, allow_nan=False).encode()
