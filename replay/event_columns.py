"""Which column of someone's own file means what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from domain.errors import ConfigError

TimeUnit = Literal["s", "ms", "us", "ns", "iso"]

TIME_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns", "iso")
IMPRESSION_KIND = "impression"
"""Value of the kind column that says: this item was shown, nothing has been done with it yet."""

_REPEATED = ("label", "context")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFileColumns:
    """Names of the columns of an event file; only user, item and time must be there.

    Attributes:
        time_unit: unit of the time column; "iso" for text like 2024-05-01T12:00:00Z. Columns that
            a Parquet file types as timestamps need no unit.
        kind: column that says what was done; rows of kind "impression" are shown items.
        value: column that says how much, for example a rating.
        label: columns of 0 and 1 (or false and true): each row is one shown item with its outcomes,
            each column a feedback kind and a label head of its own.
        impression: column that names the shown list a row belongs to.
        context: columns that describe the moment (place in the app, device).
        default_kind: what was done, where there is no kind column.
    """

    user: str
    item: str
    time: str
    time_unit: TimeUnit = "ms"
    kind: str | None = None
    value: str | None = None
    label: tuple[str, ...] = ()
    impression: str | None = None
    context: tuple[str, ...] = ()
    default_kind: str = "click"

    def __post_init__(self) -> None:
        if self.time_unit not in TIME_UNITS:
            expected = ", ".join(TIME_UNITS)
            raise ConfigError(f"columns.time_unit must be one of {expected}, got {self.time_unit}")
        if self.label and (self.kind or self.value):
            raise ConfigError(
                "columns.label: a file has either label columns (a row is a shown item with its "
                "outcomes) or kind and value columns (a row is an action), not both"
            )
        if self.impression and not (self.label or self.kind):
            raise ConfigError(
                "columns.impression needs columns.label, or columns.kind with rows of kind "
                f"{IMPRESSION_KIND!r}: otherwise no row says what was shown"
            )
        if not self.default_kind or self.default_kind == IMPRESSION_KIND:
            raise ConfigError(
                f"columns.default_kind must name an action, got {self.default_kind!r}"
            )

    def names(self) -> tuple[str, ...]:
        """Return every column that must be in the file, once."""
        single = (self.user, self.item, self.time, self.kind, self.value, self.impression)
        wanted = (*single, *self.label, *self.context)
        return tuple(dict.fromkeys(name for name in wanted if name is not None))


def columns_from_mapping(raw: Mapping[str, Any]) -> EventFileColumns:
    """Build columns from a parsed TOML table; `label` and `context` may be one name or a list.

    Raises:
        ConfigError: naming the key that is unknown, missing or of the wrong type.
    """
    known = {field.name for field in fields(EventFileColumns)}
    for key in raw:
        if key not in known:
            raise ConfigError(f"columns.{key}: unknown key, expected one of {sorted(known)}")
    for key in ("user", "item", "time"):
        if key not in raw:
            raise ConfigError(f"columns.{key} is missing: it names the {key} column")
    return EventFileColumns(**{key: _names(key, value) for key, value in raw.items()})


def _names(key: str, value: object) -> Any:
    if key in _REPEATED:
        parts = [value] if isinstance(value, str) else value
        if isinstance(parts, list | tuple) and all(isinstance(part, str) for part in parts):
            return tuple(parts)
        raise ConfigError(f"columns.{key} must be a column name or a list of them, got {value!r}")
    if not isinstance(value, str):
        raise ConfigError(f"columns.{key} must be text, got {value!r}")
    return value
