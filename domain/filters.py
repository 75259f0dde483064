"""Conditions on items: what a caller asks of every item in an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from domain.errors import InvalidRequestError
from domain.events import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCondition:
    """One condition on one feature of an item.

    Exactly one kind of test: membership in a set of texts, or a range of numbers. An item without
    the feature does not meet it; it meets the negated condition.

    Attributes:
        one_of: the feature is one of these texts; of a feature with several texts, any is.
        at_least: the feature is a number not below this.
        at_most: the feature is a number not above this.
        negated: true asks for the opposite.

    Raises:
        InvalidRequestError: no test, both kinds, a NaN bound, or a range that is empty.
    """

    feature: str
    one_of: frozenset[str] | None = None
    at_least: float | None = None
    at_most: float | None = None
    negated: bool = False

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if (self.one_of is None) == (not bounds):
            raise InvalidRequestError(
                self.feature, "expected either a set of texts or a range of numbers"
            )
        if any(math.isnan(bound) for bound in bounds) or bounds != sorted(bounds):
            raise InvalidRequestError(
                self.feature, f"expected a range of numbers, got {self.at_least} to {self.at_most}"
            )

    def met_by(self, features: Features) -> bool:
        """Return whether an item with these features meets the condition: the obvious way."""
        return self._holds(features) != self.negated

    def _holds(self, features: Features) -> bool:
        value = features.get(self.feature)
        if value is None:
            return False
        if self.one_of is not None:
            texts = value if isinstance(value, tuple) else (value,)
            return any(text in self.one_of for text in texts)
        if isinstance(value, (str, tuple)):
            return False
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilters:
    """What may be in an answer at all; an item must pass every one of them.

    Attributes:
        exclude_seen: leave out items that the user already acted on. What a caller who does not
            say gets is each call's own: Recommend leaves them out, Retrieve does not.
        allow: when given, only these items; empty allows none.
        deny: never these items, allowed or not.
        where: conditions on features that every item meets.
    """

    exclude_seen: bool = False
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    where: tuple[ItemCondition, ...] = ()
