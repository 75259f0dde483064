"""Strings to 64-bit ids, the same on every machine and in every process."""

from __future__ import annotations

import hashlib

from ranking.id_map import ABSENT

_CACHED = 200_000
"""Hashes remembered per field; about 30 MB of them when every field is an open set."""


class FieldHasher:
    """Hashes the values of one field; equal values of different fields get different ids."""

    def __init__(self, field: str) -> None:
        # The key separates fields; BLAKE2b keeps at most 64 bytes of it, and names are longer.
        self._key = hashlib.blake2b(field.encode(), digest_size=16).digest()
        self._known: dict[str, int] = {}

    def __call__(self, value: str) -> int:
        """Return the id of a value; the empty string is no value."""
        found = self._known.get(value)
        return self._remember(value) if found is None else found

    def _remember(self, value: str) -> int:
        if not value:
            return ABSENT
        digest = hashlib.blake2b(value.encode(), digest_size=8, key=self._key).digest()
        # A new dictionary instead of clear(): another thread may be reading the old one.
        if len(self._known) >= _CACHED:
            self._known = {}
        hashed = int.from_bytes(digest, "little", signed=True)
        self._known[value] = hashed
        return hashed
