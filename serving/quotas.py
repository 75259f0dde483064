"""How many calls a client may make: one token bucket each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from domain.clock import Clock
from domain.errors import ConfigError, OverloadedError


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """What one client may ask for.

    Attributes:
        calls_per_s: calls a second in the long run; 0.0 is no limit. A message of a stream,
            and each request of a batch, count as a call.
        burst: calls at once, after a pause.
        max_clients: clients that are remembered; who was not seen for longest is forgotten first,
            and begins with a full burst.
    """

    calls_per_s: float = 0.0
    burst: int = 100
    max_clients: int = 10_000

    def __post_init__(self) -> None:
        if not self.calls_per_s >= 0.0:
            raise ConfigError(
                f"server.quota.calls_per_s must not be negative, got {self.calls_per_s}"
            )
        for name in ("burst", "max_clients"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"server.quota.{name} must be at least 1, got {value}")


@dataclass(slots=True)
class _Bucket:
    calls: float
    filled_s: float


class Quotas:
    """Counts the calls of each client."""

    def __init__(self, config: QuotaConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str, calls: int = 1) -> None:
        """Count calls of a client; more at once than a burst count as a burst.

        Raises:
            OverloadedError: it has used up what it may; says when the next call is free.
        """
        config = self._config
        if config.calls_per_s == 0.0:
            return
        now_s = self._clock.stopwatch_s()
        wanted = float(min(calls, config.burst))
        with self._lock:
            bucket = self._bucket(client, now_s)
            earned = (now_s - bucket.filled_s) * config.calls_per_s
            bucket.calls = min(bucket.calls + earned, float(config.burst))
            bucket.filled_s = now_s
            if bucket.calls >= wanted:
                bucket.calls -= wanted
                return
            missing = wanted - bucket.calls
        raise OverloadedError(
            f"over quota: {config.calls_per_s:g} calls a second, {config.burst} at once",
            retry_after_s=missing / config.calls_per_s,
        )

    def _bucket(self, client: str, now_s: float) -> _Bucket:
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(float(self._config.burst), now_s)
            if len(self._buckets) > self._config.max_clients:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return bucket
