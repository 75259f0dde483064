"""Session numbers: which impressions of a user belong together, with no long pause between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.errors import ConfigError
from domain.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionIdsConfig:
    """When a session ends.

    Attributes:
        gap_ms: a longer pause between two impressions of a user begins a new session.
        max_users: users remembered at once; only users active within the last gap count.
    """

    gap_ms: int = 30 * 60 * 1000
    max_users: int = 1_000_000

    def __post_init__(self) -> None:
        if self.gap_ms <= 0:
            raise ConfigError(f"session_ids.gap_ms must be positive, got {self.gap_ms}")
        if self.max_users < 1:
            raise ConfigError(f"session_ids.max_users must be at least 1, got {self.max_users}")


class SessionIds:
    """Numbers sessions across all users: 0, 1, 2... in the order they begin.

    Call `assign` once per impression, when it is scored, in the order of the log. A user is
    forgotten when she has been silent for longer than the gap, which changes nothing for a log in
    order of event time; if more than `max_users` are active within one gap, the longest silent one
    is forgotten too early and her next impression begins a new session (see `forgotten_early`).

    >>> sessions = SessionIds(SessionIdsConfig(gap_ms=1_000))
    >>> [sessions.assign("ann", 0), sessions.assign("bob", 500), sessions.assign("ann", 900)]
    [0, 1, 0]
    >>> sessions.assign("ann", 1_901)
    2
    """

    def __init__(self, config: SessionIdsConfig | None = None) -> None:
        self._config = config or SessionIdsConfig()
        # user -> (session, time of her newest impression), longest silent user first
        self._open: dict[str, tuple[int, int]] = {}
        self._next = 0
        self._newest_ms: int | None = None
        self.forgotten_early = 0

    def __len__(self) -> int:
        """Return how many users are remembered."""
        return len(self._open)

    def assign(self, user_id: str, time_ms: int) -> int:
        """Return the session of an impression of `user_id` at event time `time_ms`."""
        known = self._open.pop(user_id, None)
        if known is not None and abs(time_ms - known[1]) <= self._config.gap_ms:
            session = known[0]
        else:
            session = self._next
            self._next += 1
        if known is None or time_ms >= known[1]:
            self._open[user_id] = (session, time_ms)
        else:  # came late: her newest impression still decides when the session ends
            self._open[user_id] = known
        self._forget(time_ms)
        return session

    def save(self) -> State:
        """Return users, their sessions and the next number."""
        return {
            "users": list(self._open),
            "sessions": np.array([session for session, _ in self._open.values()], np.int64),
            "times_ms": np.array([time_ms for _, time_ms in self._open.values()], np.int64),
            "next": self._next,
            "newest_ms": self._newest_ms,
            "forgotten_early": self.forgotten_early,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        rows = zip(state["users"], state["sessions"], state["times_ms"], strict=True)
        self._open = {user: (int(session), int(time_ms)) for user, session, time_ms in rows}
        self._next = state["next"]
        self._newest_ms = state["newest_ms"]
        self.forgotten_early = state["forgotten_early"]

    def _forget(self, time_ms: int) -> None:
        """Drop the longest silent users: those whose sessions are over, then those over limit.

        Looks at the front only, so an impression that came late may hide finished sessions behind
        it for a while; the limit holds all the same.
        """
        newest_ms = time_ms if self._newest_ms is None else max(self._newest_ms, time_ms)
        self._newest_ms = newest_ms
        while self._open:
            user = next(iter(self._open))
            is_over = newest_ms - self._open[user][1] > self._config.gap_ms
            if not is_over and len(self._open) <= self._config.max_users:
                return
            del self._open[user]
            self.forgotten_early += not is_over
