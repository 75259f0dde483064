"""Deduplicator: which event ids were seen before."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from domain.errors import ConfigError
from domain.state import State


def hash_id(text: str) -> int:
    """Return a signed 64-bit hash of an id that is the same in every process, and never 0.

    Two of a million ids collide with probability 3e-8 (birthday bound), so an id may be known by
    its hash alone.
    """
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeduplicatorConfig:
    """How long event ids are remembered.

    Attributes:
        horizon_ms: event time for which an id is remembered at least, unless there are too many.
        max_ids: ids remembered at once; beyond it the oldest are forgotten first.
    """

    horizon_ms: int = 24 * 60 * 60 * 1000
    max_ids: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("horizon_ms", "max_ids"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"deduplicator.{name} must be positive, got {getattr(self, name)}"
                )


class Deduplicator:
    """Remembers the ids of recent events, as 64-bit hashes in order of arrival.

    >>> deduplicator = Deduplicator(DeduplicatorConfig(horizon_ms=1_000))
    >>> [deduplicator.seen("a", 0), deduplicator.seen("b", 10), deduplicator.seen("a", 0)]
    [False, False, True]
    """

    def __init__(self, config: DeduplicatorConfig | None = None) -> None:
        self._config = config or DeduplicatorConfig()
        # An OrderedDict, because taking the first key out of a dict again and again is quadratic.
        self._times_ms: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many ids are remembered."""
        return len(self._times_ms)

    def seen(self, event_id: str, time_ms: int) -> bool:
        """Return whether the id was seen before, and remember it."""
        key = hash_id(event_id)
        if key in self._times_ms:
            return True
        self._times_ms[key] = time_ms
        self._forget(time_ms)
        return False

    def _forget(self, time_ms: int) -> None:
        """Drop what is over the limit, and up to two ids that are past the horizon.

        Two, so that memory shrinks faster than it grows, and yet one event with a clock far in the
        future cannot empty it.
        """
        if len(self._times_ms) > self._config.max_ids:
            self._times_ms.popitem(last=False)
        oldest_kept_ms = time_ms - self._config.horizon_ms
        for _ in range(2):
            if next(iter(self._times_ms.values())) >= oldest_kept_ms:
                return
            self._times_ms.popitem(last=False)

    def save(self) -> State:
        """Return the remembered hashes and their event times, oldest first."""
        return {
            "keys": np.array(list(self._times_ms.keys()), np.int64),
            "times_ms": np.array(list(self._times_ms.values()), np.int64),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        keys, times_ms = state["keys"].tolist(), state["times_ms"].tolist()
        self._times_ms = OrderedDict(zip(keys, times_ms, strict=True))
