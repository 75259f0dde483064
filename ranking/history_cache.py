"""Encoded histories of users, kept from one request to the next within a bound of bytes.

What candidates need of a history does not change until the history does, or the model. So a user
who asks twice in between is encoded once; of what was kept only the newest row is worked out again,
because it alone looks back from the time of the request (see `Backbone.moved`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from domain.errors import ConfigError
from domain.requests import CapturedRequest
from encoders.backbone import HistoryState
from ranking.history_encoder import CandidateEncoder

HISTORY_ARRAYS = ("history_ids", "history_times_ms", "history_outcomes")
"""The arrays of a capture that tell the history, and nothing else."""

OnLookup = Callable[[bool, int], None]
"""Called with whether a history was there, and the bytes held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCacheConfig:
    """How many encoded histories are kept."""

    max_bytes: int = 0
    """Most bytes held; beyond it the users who asked longest ago leave. 0 keeps nothing."""

    def __post_init__(self) -> None:
        if self.max_bytes < 0:
            raise ConfigError(
                f"ranking.history_cache.max_bytes must not be negative, got {self.max_bytes}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    identity: bytes
    state: HistoryState
    num_bytes: int


class HistoryCache:
    """One entry per user, for the model as it is; any number of threads may use it at once."""

    def __init__(self, config: HistoryCacheConfig) -> None:
        self._max_bytes = config.max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._num_bytes = 0
        self._version = 0
        self._lock = threading.Lock()
        self._on_lookup: OnLookup | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Return how many bytes are held."""
        return self._num_bytes

    def watch(self, on_lookup: OnLookup) -> None:
        """Call `on_lookup` at every look-up from now on."""
        self._on_lookup = on_lookup

    def states(
        self,
        captured: Sequence[CapturedRequest],
        encoder: CandidateEncoder | None,
        encode: Callable[[CapturedRequest], HistoryState],
    ) -> tuple[Sequence[CapturedRequest], list[HistoryState] | None]:
        """Return requests without their histories, and these encoded, as of each request.

        Where nothing is kept or histories are not read, the requests are returned as they are.

        Args:
            captured: the requests.
            encoder: the network's part that reads histories, if it has one.
            encode: called for a history that is not there.
        """
        if not self._max_bytes or encoder is None:
            return captured, None
        states = [
            encoder.moved(self.state_of(each, encode), each.time_ms / 1_000) for each in captured
        ]
        return [without_history(each) for each in captured], states

    def state_of(
        self, captured: CapturedRequest, encode: Callable[[CapturedRequest], HistoryState]
    ) -> HistoryState:
        """Return the user's history as if asked for when its newest entry was shown.

        `encode` is called when it is not there. Since the time of this request has no part in what
        is kept, answers do not depend on what was asked before, or left the cache.
        """
        identity = _identity(captured)
        with self._lock:
            version = self._version
            entry = self._entries.get(captured.user_id)
            found = entry is not None and entry.identity == identity
            if found:
                self._entries.move_to_end(captured.user_id)
        if self._on_lookup is not None:
            self._on_lookup(found, self._num_bytes)
        if found:
            assert entry is not None
            return entry.state
        times_ms = captured.arrays["history_times_ms"]
        state = encode(replace(captured, time_ms=int(times_ms[-1]) if len(times_ms) else 0))
        self._keep(captured.user_id, _Entry(identity, state, state.num_bytes), version)
        return state

    def forget(self) -> None:
        """Drop everything: the model is another one now. What is being encoded is not kept."""
        with self._lock:
            self._version += 1
            self._entries.clear()
            self._num_bytes = 0

    def _keep(self, user_id: str, entry: _Entry, version: int) -> None:
        with self._lock:
            if version != self._version or entry.num_bytes > self._max_bytes:
                return
            before = self._entries.pop(user_id, None)
            self._num_bytes += entry.num_bytes - (0 if before is None else before.num_bytes)
            self._entries[user_id] = entry
            while self._num_bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._num_bytes -= oldest.num_bytes


def without_history(captured: CapturedRequest) -> CapturedRequest:
    """Return a capture whose history need not be read again: an empty one stands in its place."""
    empty = {name: captured.arrays[name][:0] for name in HISTORY_ARRAYS}
    return replace(captured, arrays={**captured.arrays, **empty})


def _identity(captured: CapturedRequest) -> bytes:
    """Return what tells this history from any other of the same user."""
    digest = blake2b(digest_size=16)
    for name in HISTORY_ARRAYS:
        array = np.ascontiguousarray(captured.arrays[name])
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(array.tobytes())
    return digest.digest()
