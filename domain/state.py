"""State: what a component hands to a snapshot, and takes back, as plain data.

A state is a tree of dictionaries whose leaves are NumPy arrays or JSON values. Components build and
read such trees and know nothing about files; `snapshot` writes arrays to safetensors and the rest
to JSON. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

import numpy as np

State: TypeAlias = dict[str, Any]
"""Nested dictionaries with str keys; leaves: np.ndarray, str, int, float, bool, None, or lists."""


def state_hash(state: State) -> str:
    """Return a SHA-256 over a state's content, independent of dictionary order.

    Two states hash alike exactly when every array has the same dtype, shape and bytes, and every
    other leaf is equal. Used to compare a crashed and resumed trainer with one that never crashed.
    """
    digest = hashlib.sha256()
    _update(digest, state, "")
    return digest.hexdigest()


def _update(digest: hashlib._Hash, node: Any, path: str) -> None:
    if isinstance(node, dict):
        for key in sorted(node):
            _update(digest, node[key], f"{path}/{key}")
        return
    digest.update(path.encode())
    if isinstance(node, np.ndarray):
        digest.update(f"{node.dtype.str}{node.shape}".encode())
        digest.update(np.ascontiguousarray(node).tobytes())
    else:
        digest.update(json.dumps(node, sort_keys=True).encode())
