"""How long ranking will take: the estimate that decides whether there is still time for it."""

from __future__ import annotations

import threading

_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 4.0
_FORGET = 0.95


class RankTimeEstimate:
    """Running mean of the ranking time plus four mean deviations.

    The estimator of TCP's retransmission timer (Jacobson and Karels 1988; RFC 6298, section 2): it
    follows a change within some ten observations and stays above nearly all of a steady series.
    """

    def __init__(self, initial_s: float) -> None:
        # Half mean, half margin; the margin is four deviations.
        self._mean_s = initial_s / 2
        self._deviation_s = initial_s / 2 / _DEVIATIONS
        self._lock = threading.Lock()

    def expected_s(self) -> float:
        """Return how many seconds the next ranking should be given."""
        with self._lock:
            return self._mean_s + _DEVIATIONS * self._deviation_s

    def observe(self, seconds: float) -> None:
        """Learn from one ranking."""
        with self._lock:
            error = seconds - self._mean_s
            self._deviation_s += _DEVIATION_GAIN * (abs(error) - self._deviation_s)
            self._mean_s += _GAIN * error

    def skipped(self) -> None:
        """Become a little more hopeful.

        Only a ranking that runs can correct the estimate, so after one slow spell an estimate
        beyond every caller's deadline would keep ranking off for ever.
        """
        with self._lock:
            self._mean_s *= _FORGET
            self._deviation_s *= _FORGET
