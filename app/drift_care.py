"""`headrace drift` at work: what was found, as a table for people or as JSON for programs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from app.settings import Settings
from domain.errors import ConfigError
from monitoring.drift_signal import DRIFT_KINDS, DriftKind, DriftSignal, signal_to_plain
from monitoring.signal_store import FILE_NAME, SignalStore

_AGO = re.compile(r"(\d+)([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SEVERITY_STYLE = {"small": "", "medium": "yellow", "large": "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalFilter:
    """Which signals are wanted; None is all."""

    since: str | None = None
    stream: str | None = None
    kind: str | None = None
    live: bool = False
    limit: int | None = None


def find_signals(settings: Settings, wanted: SignalFilter) -> list[DriftSignal]:
    """Return the signals in the data folder, the newest first.

    Raises:
        ConfigError: there are no records, a time cannot be read, or there is no such kind.
    """
    store = SignalStore(settings.data.path / FILE_NAME, read_only=True)
    try:
        return store.list(
            since_ms=_since_ms(wanted.since, store),
            stream=wanted.stream,
            kind=_kind(wanted.kind),
            live=wanted.live,
            limit=wanted.limit,
        )
    finally:
        store.close()


def as_json(signals: list[DriftSignal]) -> str:
    """Return signals as a JSON list; times are ms since 1970 UTC."""
    rows = [
        {
            **signal_to_plain(one),
            "size": one.size,
            "severity": one.severity,
            "sentence": one.describe(),
        }
        for one in signals
    ]
    return json.dumps(rows, indent=1)


def print_signals(signals: list[DriftSignal], console: Console) -> None:
    """Print signals as a table, or say that there are none."""
    if not signals:
        console.print("No drift signals.")
        return
    table = Table()
    table.add_column("noticed (UTC)", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("what", overflow="fold")
    for one in signals:
        table.add_row(
            _moment(one.time_ms),
            "live" if one.ended_ms is None else _moment(one.ended_ms),
            one.severity,
            one.describe(),
            style=_SEVERITY_STYLE[one.severity],
        )
    console.print(table)


def _kind(kind: str | None) -> DriftKind | None:
    if kind is None:
        return None
    for known in DRIFT_KINDS:
        if kind == known:
            return known
    raise ConfigError(f"--kind: expected one of {', '.join(DRIFT_KINDS)}, got {kind!r}")


def _since_ms(since: str | None, store: SignalStore) -> int | None:
    """Read a moment, or how long before the newest signal: event time knows no other now."""
    if since is None:
        return None
    ago = _AGO.fullmatch(since)
    if ago:
        newest = store.list(limit=1)
        newest_ms = newest[0].time_ms if newest else 0
        return newest_ms - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigError(
            "--since: expected 30m, 6h or 2d (before the newest signal), or a moment such as "
            f"2026-01-31T18:00, got {since!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000)


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S}"
