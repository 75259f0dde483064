"""What of the settings decides what is learned: kept in the journal, to learn the same again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.settings import Settings
from app.validation import first_complaint
from domain.errors import JournalError
from domain.features import FeatureSchema, schema_to_mapping

DECISIVE = (
    "seed",
    "deduplicator",
    "watermark",
    "joiner",
    "session_ids",
    "feature_store",
    "batcher",
    "train_loop",
    "ranking",
    "memory",
    "memory_rewriting",
    "retrieval",
    "prequential_quality",
    "prequential_ranks",
    "drift",
    "reactions",
    "evaluation",
)
"""Sections that a component of a snapshot depends on, beside the schema; the last five belong to
observers."""


def decisive_settings(settings: Settings, schema: FeatureSchema) -> dict[str, Any]:
    """Return the decisive sections as JSON values, with the schema that is in use."""
    sections = settings.model_dump(mode="json", by_alias=True, include={*DECISIVE})
    return {**sections, "schema": schema_to_mapping(schema)}


def settings_of(plain: Mapping[str, Any], where: str) -> Settings:
    """Return settings whose decisive sections are those that `decisive_settings` gave.

    Raises:
        JournalError: naming `where` and the key that this version does not know.
    """
    try:
        return Settings.model_validate(dict(plain))
    except ValidationError as error:
        raise JournalError(
            f"{where}: was written with the settings of another version: {first_complaint(error)}"
        ) from None
