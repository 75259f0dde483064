"""Numbers worked out from a request itself: when it comes, and what the user did last."""

from __future__ import annotations

import math

from domain.requests import History, RankingRequest

MISSING = math.nan
SESSION_POSITION, HISTORY_LENGTH = 1, 2
"""Where these stand among `request_signals`."""
_DAY_MS = 86_400_000


def num_request_signals(num_heads: int, last_outcomes: int) -> int:
    """Return the length of what `request_signals` returns."""
    return 7 + last_outcomes * num_heads


def num_item_signals(num_heads: int) -> int:
    """Return the length of each part of what `item_signals` returns."""
    return 2 + num_heads


def request_signals(request: RankingRequest, num_heads: int, last_outcomes: int) -> list[float]:
    """Return the signals every item of the request shares.

    Log seconds since the last impression and since the last entry of the history, log session
    position, log length of the history, sine and cosine of the time of day (UTC), share of
    positive first heads in the history; then for each of the newest outcomes, newest first, and
    each head: 1 positive, -1 negative, 0 no such outcome.
    """
    user, history = request.user, request.user.history
    angle = 2 * math.pi * (request.time_ms % _DAY_MS) / _DAY_MS
    outcomes: list[int] = history.outcomes.tolist()
    signals = [
        log_age(request.time_ms, user.last_impression_ms),
        math.log1p(user.session_position),
        math.log1p(len(history)),
        log_age(request.time_ms, int(history.times_ms[-1]) if outcomes else None),
        math.sin(angle),
        math.cos(angle),
        sum(outcome & 1 for outcome in outcomes) / len(outcomes) if outcomes else MISSING,
    ]
    newest = outcomes[: -last_outcomes - 1 : -1]
    for outcome in newest:
        signals += _signs(outcome, num_heads)
    signals += [0.0] * (num_heads * (last_outcomes - len(newest)))
    return signals


def item_signals(request: RankingRequest, num_heads: int) -> list[list[float]]:
    """Return the signals of each item: what this user did with this very item before.

    Log count in the history, log seconds since the last time, and that outcome per head.
    """
    never = [0.0, MISSING, *([0.0] * num_heads)]
    history = request.user.history
    met = _occurrences(history, set(request.item_ids))
    if not met:
        return [never] * len(request.item_ids)
    found = []
    for item_id in request.item_ids:
        count, last = met.get(item_id, (0, -1))
        if not count:
            found.append(never)
            continue
        age = log_age(request.time_ms, int(history.times_ms[last]))
        found.append([math.log1p(count), age, *_signs(int(history.outcomes[last]), num_heads)])
    return found


def squash(value: float) -> float:
    """Return sign(x) ln(1 + |x|), or NaN for anything that is not finite.

    >>> squash(-1.0)
    -0.6931471805599453
    """
    return math.copysign(math.log1p(abs(value)), value) if math.isfinite(value) else MISSING


def log_age(now_ms: int, then_ms: int | None) -> float:
    """Return ln(1 + seconds passed), NaN when there is no earlier moment."""
    return MISSING if then_ms is None else math.log1p(max(0, now_ms - then_ms) / 1_000)


def _occurrences(history: History, wanted: set[str]) -> dict[str, tuple[int, int]]:
    """Return for each wanted item how often it is in the history, and where last."""
    met: dict[str, tuple[int, int]] = {}
    for index, item_id in enumerate(history.item_ids):
        if item_id in wanted:
            met[item_id] = (met.get(item_id, (0, 0))[0] + 1, index)
    return met


def _signs(outcome: int, num_heads: int) -> list[float]:
    return [1.0 if outcome >> head & 1 else -1.0 for head in range(num_heads)]
