"""One delta as one file: a checksum, a head in JSON, the arrays in safetensors; no pickle.

8 bytes   "HRDELTA" and the version of the format
32 bytes  SHA-256 of everything that follows
8 bytes   length of the head, little-endian
head      JSON: the delta's place and facts, and its states with null where an array was
arrays    safetensors, named by the path that leads to each
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from domain.deltas import Delta, DeltaPoint
from domain.errors import SnapshotDamagedError, SnapshotError
from snapshot.state_files import join, split

_MAGIC = b"HRDELTA\x01"
_DIGEST = slice(len(_MAGIC), len(_MAGIC) + hashlib.sha256().digest_size)
_LENGTH = slice(_DIGEST.stop, _DIGEST.stop + 8)


def delta_to_bytes(delta: Delta) -> bytes:
    """Return a delta as the content of its file.

    Raises:
        SnapshotError: naming the place that has no exact form on disk.
    """
    tree, arrays = split(dict(delta.states), f"delta {delta.point.number}")
    head = {
        "chain": delta.point.chain,
        "number": delta.point.number,
        "positions": dict(delta.positions),
        "step": delta.step,
        "event_time_ms": delta.event_time_ms,
        "schema_hash": delta.schema_hash,
        "states": tree,
        "arrays": sorted(arrays),
    }
    try:
        text = json.dumps(head, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise SnapshotError(f"delta {delta.point.number}: not JSON: {error}") from error
    digest = hashlib.sha256()
    parts = (len(text).to_bytes(8, "little"), text, save(arrays))
    for part in parts:
        digest.update(part)
    return b"".join((_MAGIC, digest.digest(), *parts))


def delta_from_bytes(content: bytes, where: str) -> Delta:
    """Return the delta that these bytes were made from; its arrays are read-only.

    Raises:
        SnapshotDamagedError: naming `where`; the bytes are not what `delta_to_bytes` returned.
    """
    if not content.startswith(_MAGIC):
        raise SnapshotDamagedError(f"{where}: expected a delta, got {content[:8]!r}")
    if hashlib.sha256(memoryview(content)[_DIGEST.stop :]).digest() != content[_DIGEST]:
        raise SnapshotDamagedError(f"{where}: its checksum differs from its content")
    end = _LENGTH.stop + int.from_bytes(content[_LENGTH], "little")
    try:
        head: dict[str, Any] = json.loads(content[_LENGTH.stop : end])
        arrays: dict[str, np.ndarray] = load(content[end:])
        if sorted(arrays) != head["arrays"]:
            raise ValueError(f"expected arrays {head['arrays']}, got {sorted(arrays)}")
        return Delta(
            point=DeltaPoint(head["chain"], head["number"]),
            positions=head["positions"],
            step=head["step"],
            event_time_ms=head["event_time_ms"],
            schema_hash=head["schema_hash"],
            states=join(head["states"], arrays),
        )
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SnapshotDamagedError(f"{where}: not a delta: {error!r}") from error
