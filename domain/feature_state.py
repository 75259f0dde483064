"""Features as plain data and back: tuples have no form of their own in a saved state."""

from __future__ import annotations

from typing import Any

from domain.events import Features, FeatureValue


def features_to_plain(features: Features) -> dict[str, Any]:
    """Return JSON values; `features_from_plain` reads them back exactly.

    >>> features_to_plain({"tags": ("a", "b"), "age": 3.0})
    {'tags': ['a', 'b'], 'age': 3.0}
    """
    return {name: _to_plain(value) for name, value in features.items()}


def features_from_plain(plain: dict[str, Any]) -> dict[str, FeatureValue]:
    """Return the features that `features_to_plain` described."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
    }


def _to_plain(value: FeatureValue) -> Any:
    return list(value) if isinstance(value, tuple) else value
