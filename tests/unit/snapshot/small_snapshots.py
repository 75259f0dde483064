"""Small snapshots to publish, and ways to damage one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from domain.state import State
from snapshot.local_store import LocalSnapshotStore


def states_at(step: int) -> dict[str, State]:
    return {
        "ranking": {"weights": np.full((3, 2), step, np.float32), "seen": step},
        "stream": {"ids": [f"u{step}", "u0"]},
    }


def publish(store: LocalSnapshotStore, step: int, **changes: Any) -> str:
    given: dict[str, Any] = {
        "positions": {"events/0": 10 * step},
        "step": step,
        "event_time_ms": 1_000 * step,
        "schema_hash": "abc",
        "extra": {"events": step},
    }
    states = changes.pop("states", states_at(step))
    return store.publish(states, **given | changes)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_by_removing(folder: Path) -> str:
    (folder / "ranking.safetensors").unlink()
    return "ranking.safetensors: the file is missing"


def damage_by_cutting(folder: Path) -> str:
    path = folder / "ranking.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    size = path.stat().st_size
    return f"ranking.safetensors: expected {size + 5} bytes, got {size}"


def damage_by_tearing(folder: Path) -> str:
    """Leave a file of the right size whose second half was never written."""
    path = folder / "ranking.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    return "ranking.safetensors: expected SHA-256"


def damage_by_flipping(folder: Path) -> str:
    flip_last_byte(folder / "stream.json")
    return "stream.json: expected SHA-256"


def damage_by_emptying_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text("")
    return "manifest.json: not JSON"


def damage_by_removing_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "manifest.json: the file is missing"


def damage_by_another_s_manifest(folder: Path) -> str:
    other = LocalSnapshotStore(folder.parent.parent / "other")
    other_id = publish(other, 77)
    shutil.copy(folder.parent.parent / "other" / other_id / "manifest.json", folder)
    return f"manifest.json: expected snapshot {folder.name}, got {other_id}"


DAMAGES: list[Callable[[Path], str]] = [
    damage_by_removing,
    damage_by_cutting,
    damage_by_tearing,
    damage_by_flipping,
    damage_by_emptying_the_manifest,
    damage_by_removing_the_manifest,
    damage_by_another_s_manifest,
]
