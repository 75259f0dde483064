"""Checks that every request passes before it costs anything; each names the field that failed."""

from __future__ import annotations

from collections.abc import Sequence

from domain.errors import HeadraceError, InvalidRequestError, SchemaError
from domain.events import Features, FeatureValue
from domain.features import Entity, FeatureSchema
from domain.filters import ItemFilters

MAX_ID_LENGTH = 512
"""Longest id accepted; histories and tables keep ids, so their length is part of their bound."""

_ASKABLE = {"one_of": ("categorical", "multi"), "range": ("numeric",)}
"""Which kinds of feature can be asked for one of several texts, and which for a range."""

MAX_TEXT_LENGTH = 512
"""Longest text of a feature accepted; tables keep them as they keep ids."""

MAX_TEXTS = 1_000
"""Most texts accepted in one feature."""


def check_id(field: str, value: str) -> None:
    """Check that an id was given and is not absurdly long.

    Raises:
        InvalidRequestError: naming `field`.
    """
    if not value:
        raise InvalidRequestError(field, "expected an id, got none")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidRequestError(
            field, f"expected at most {MAX_ID_LENGTH} characters, got {len(value)}"
        )


def check_limit(limit: int, *, default: int, most: int) -> int:
    """Return how many items are asked for; 0 means the default.

    Raises:
        InvalidRequestError: naming "limit".
    """
    if not 0 <= limit <= most:
        raise InvalidRequestError("limit", f"expected 1 to {most}, or 0 for {default}, got {limit}")
    return limit or default


def check_item_ids(item_ids: Sequence[str], most: int) -> None:
    """Check a list of items to be ranked: not empty, not too long, none twice.

    Raises:
        InvalidRequestError: naming "item_ids" or the offending entry.
    """
    if not 0 < len(item_ids) <= most:
        raise InvalidRequestError("item_ids", f"expected 1 to {most} ids, got {len(item_ids)}")
    first_index: dict[str, int] = {}
    for index, item_id in enumerate(item_ids):
        check_id(f"item_ids[{index}]", item_id)
        first = first_index.setdefault(item_id, index)
        if first != index:
            raise InvalidRequestError(
                f"item_ids[{index}]", f"{item_id!r} was already given as item_ids[{first}]"
            )


def check_features(schema: FeatureSchema, entity: Entity, features: Features, where: str) -> None:
    """Check that features are declared, of the declared kind and of a sane size.

    Raises:
        InvalidRequestError: naming the feature, e.g. "context.tab".
    """
    # Before the schema looks, which quotes what it does not like.
    for name, value in features.items():
        _check_size(f"{where}.{name}", value)
    try:
        schema.check(entity, features, where)
    except SchemaError as error:
        raise named_field(error) from error


def _check_size(where: str, value: FeatureValue) -> None:
    texts = [
        part for part in (value if isinstance(value, tuple) else (value,)) if type(part) is str
    ]
    if len(texts) > MAX_TEXTS:
        raise InvalidRequestError(where, f"expected at most {MAX_TEXTS} texts, got {len(texts)}")
    longest = max(map(len, texts), default=0)
    if longest > MAX_TEXT_LENGTH:
        raise InvalidRequestError(
            where, f"expected at most {MAX_TEXT_LENGTH} characters, got {longest}"
        )


def check_filters(schema: FeatureSchema, filters: ItemFilters) -> None:
    """Check that ids are ids, and that conditions ask of item features what these can be asked.

    Raises:
        InvalidRequestError: naming the field, e.g. "filters.where[0].feature".
    """
    for name, item_ids in (("allow", filters.allow or ()), ("deny", filters.deny)):
        for item_id in item_ids:
            check_id(f"filters.{name}", item_id)
    kinds = {field.name: field.kind for field in schema.of("item")}
    for index, condition in enumerate(filters.where):
        where = f"filters.where[{index}]"
        kind = kinds.get(condition.feature)
        if kind is None:
            known = ", ".join(sorted(kinds)) or "none"
            raise InvalidRequestError(
                f"{where}.feature",
                f"expected a feature of items ({known}), got {condition.feature!r}",
            )
        asked = "one_of" if condition.one_of is not None else "range"
        if kind not in _ASKABLE[asked]:
            raise InvalidRequestError(
                f"{where}.{asked}",
                f"expected a {' or '.join(_ASKABLE[asked])} feature, "
                f"{condition.feature!r} is {kind}",
            )


def named_field(error: HeadraceError | str, prefix: str = "") -> InvalidRequestError:
    """Return the error of a message that reads "field: reason", with the field made its own.

    >>> named_field("feedback.item_id: expected an id, got none", "events[3].").field
    'events[3].feedback.item_id'
    """
    field, _, reason = str(error).partition(": ")
    return InvalidRequestError(prefix + field, reason)
