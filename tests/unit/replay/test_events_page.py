"""What docs/events.md shows is what Headrace reads."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from domain.features import schema_from_mapping
from replay.datasets import DATASETS, columns_from_mapping
from stream.event_json import from_json

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    """Return the fenced block that follows the marker of this name."""
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert match, f"docs/events.md has no example marked {name!r}"
    return match.group(1)


def test_events_page_shows_each_kind_of_event() -> None:
    events = [from_json(json.loads(text)) for text in example("events").split("\n\n")]
    names = [type(event).__name__ for event in events]
    assert names == ["Impression", "Feedback", "ItemUpdate", "UserUpdate"]


def test_events_page_declares_the_features_its_events_carry() -> None:
    schema = schema_from_mapping(tomllib.loads(example("schema"))["schema"])
    for text in example("events").split("\n\n"):
        raw = json.loads(text)
        event = from_json(raw)
        for entity, name in (("context", "context"), (raw["type"].split("_")[0], "features")):
            features = getattr(event, name, {})
            schema.check(entity, features, raw["event_id"])  # type: ignore[arg-type]
    assert [head.name for head in schema.heads] == ["click", "loved"]


def test_events_page_names_columns_that_can_be_named() -> None:
    columns = columns_from_mapping(tomllib.loads(example("columns")))
    assert (columns.kind, columns.impression) == ("action", "list_id")


def test_events_page_mentions_every_dataset() -> None:
    for name in DATASETS:
        assert f"--dataset {name} " in PAGE
