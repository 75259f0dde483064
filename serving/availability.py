"""When an item may be shown: between two event times that its own features name."""

from __future__ import annotations

import math
from dataclasses import dataclass

from domain.errors import ConfigError
from domain.features import FeatureSchema
from domain.filters import ItemCondition


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailabilityConfig:
    """Which features of an item say from when and until when it may be in an answer.

    Both are event times in ms since 1970 UTC, declared in the schema as numeric fields of items. An
    item without the feature is open on that side.

    Attributes:
        from_feature: the item is shown from this time on; "" knows no beginning.
        until_feature: the item is shown before this time, and no longer at it; "" knows no end.
    """

    from_feature: str = ""
    until_feature: str = ""

    def __post_init__(self) -> None:
        if self.from_feature and self.from_feature == self.until_feature:
            raise ConfigError(
                "recommender.availability.until_feature must name another feature than "
                f"from_feature, got {self.until_feature!r} for both"
            )

    def check(self, schema: FeatureSchema) -> None:
        """Check that the schema declares what is named.

        Raises:
            ConfigError: naming the key, and what would do.
        """
        numeric = [field.name for field in schema.of("item") if field.kind == "numeric"]
        for key in ("from_feature", "until_feature"):
            name = getattr(self, key)
            if name and name not in numeric:
                raise ConfigError(
                    f"recommender.availability.{key} must name a numeric field of items "
                    f"({', '.join(numeric) or 'the schema declares none'}), got {name!r}"
                )

    def conditions(self, time_ms: int) -> tuple[ItemCondition, ...]:
        """Return what an item must meet to be shown at a time."""
        conditions: list[ItemCondition] = []
        if self.from_feature:
            later = math.nextafter(float(time_ms), math.inf)
            conditions.append(
                ItemCondition(feature=self.from_feature, at_least=later, negated=True)
            )
        if self.until_feature:
            conditions.append(
                ItemCondition(feature=self.until_feature, at_most=float(time_ms), negated=True)
            )
        return tuple(conditions)
