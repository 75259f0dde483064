"""When to try again: failures that pass, after a pause that grows, within a budget."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from client.errors import CallError
from client.timing import now_s

_PASSING = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
"""Statuses after which the server did not do it, or doing it again has no second effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a call is tried again.

    The budget is what keeps clients from drowning a server that is slow already: in the long run
    at most `budget_share` retries are made per call, whatever each call would be allowed.

    Attributes:
        max_attempts: attempts of one call, the first included; 1 never tries again.
        first_pause_s: pause after the first failure; doubles each time, cut at random by up to a
            half so that clients do not come back together. A longer one that the server asks for
            is kept.
        max_pause_s: longest pause of ours.
        budget_share: retries that each call adds to the budget.
        budget_most: retries that can be saved up; what a client begins with.
    """

    max_attempts: int = 4
    first_pause_s: float = 0.05
    max_pause_s: float = 1.0
    budget_share: float = 0.1
    budget_most: float = 10.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, got {self.max_attempts}")
        for name in ("first_pause_s", "max_pause_s", "budget_share", "budget_most"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class Budget:
    """Retries that all calls of a client share."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._left = retry.budget_most
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Count a call."""
        with self._lock:
            self._left = min(self._left + self._retry.budget_share, self._retry.budget_most)

    def spend(self) -> bool:
        """Take a retry if there is one left."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


class Attempts:
    """The attempts of one call, under one deadline."""

    def __init__(self, retry: Retry, budget: Budget, timeout_s: float) -> None:
        self._retry = retry
        self._budget = budget
        self._end_s = now_s() + timeout_s
        self._made = 0
        budget.earn()

    def remaining_s(self) -> float:
        """Return the seconds left for this call and all its retries."""
        return max(self._end_s - now_s(), 0.0)

    def pause_s(self, error: CallError) -> float | None:
        """Return how long to wait before the next attempt, None when there is to be none."""
        self._made += 1
        if error.code not in _PASSING or self._made >= self._retry.max_attempts:
            return None
        longest = min(self._retry.first_pause_s * 2.0 ** (self._made - 1), self._retry.max_pause_s)
        pause_s = max(longest * (1.0 - secrets.randbelow(501) / 1_000), error.retry_after_s)
        if pause_s >= self.remaining_s() or not self._budget.spend():
            return None
        return pause_s
