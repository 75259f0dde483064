"""Numbers as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NOTHING = "-"

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, thousands set apart.

    >>> number(0.81234), number(12345.6), number(None), number(float("nan")), number(7.0)
    ('0.812', '12,346', '-', '-', '7')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """Return a share in percent.

    >>> percent(0.1234), percent(0.00012), percent(None), percent(0.0)
    ('12.3 %', '0.012 %', '-', '0 %')
    """
    return NOTHING if share is None or not math.isfinite(share) else f"{number(100 * share)} %"


def seconds(value: float | None) -> str:
    """Return a duration in the unit that suits it.

    >>> seconds(0.0042), seconds(0.35), seconds(42.0), seconds(130.0), seconds(7300.0)
    ('4.2 ms', '350 ms', '42 s', '2 min 10 s', '2 h 1 min')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 1:
        return "0 s" if value == 0 else f"{1_000 * value:.3g} ms"
    rest = round(value)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def size(size_bytes: float | None) -> str:
    """Return a size in MiB.

    >>> size(3 * 2**20), size(None)
    ('3 MiB', '-')
    """
    return NOTHING if size_bytes is None else f"{number(size_bytes / 2**20)} MiB"


def moment(time_ms: int | None) -> str:
    """Return a time in UTC.

    >>> moment(1_700_000_000_000), moment(None)
    ('2023-11-14 22:13:20', '-')
    """
    if time_ms is None:
        return NOTHING
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S}"


def change(now: float | None, before: float | None) -> str:
    """Return by how much a number changed, in percent of what it was.

    >>> change(0.9, 0.8), change(0.4, 0.8), change(1.0, None)
    ('+12.5 %', '-50.0 %', '-')
    """
    if now is None or not before:
        return NOTHING
    return f"{100 * (now / before - 1):+.1f} %"
