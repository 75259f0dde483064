"""The settings in a journal: all that decide what is learned, and none that could be a secret."""

from __future__ import annotations

import json

import pytest

from app.journal_settings import DECISIVE, decisive_settings, settings_of
from app.settings import Settings
from domain.errors import JournalError
from tests.loop_worlds import tiny_settings, tiny_world

INDIFFERENT = {
    "data",
    "log",
    "kafka",
    "metrics",
    "trainer",
    "checkpoint",
    "journal",
    "snapshot",
    "server",
    "recommender",
    "impression_log",
    "publisher",
    "tail",
    "watcher",
    "deltas",
    "delta_store",
    "delta_follower",
    "index_keeper",
    "history",
    "tracing",
    "replay",
    "dashboard",
}
"""Sections that change nothing in what a trainer learns from given records in a given order."""


def test_settings_come_back_from_a_journal() -> None:
    schema, _ = tiny_world(3)
    settings = tiny_settings("joiner.policy=fast", "data.dir=secret", "seed=7")
    plain = json.loads(json.dumps(decisive_settings(settings, schema)))
    again = settings_of(plain, "segment x")
    assert again.schema_declared == schema
    assert again.seed == 7
    assert {name: getattr(again, name) for name in DECISIVE} == {
        name: getattr(settings, name) for name in DECISIVE
    }
    assert "secret" not in json.dumps(plain)


def test_every_section_either_decides_what_is_learned_or_does_not() -> None:
    sections = {*Settings.model_fields} - {"schema_declared"}
    assert {*DECISIVE} & INDIFFERENT == set()
    undecided = sections - {*DECISIVE} - INDIFFERENT
    assert not undecided, f"add {undecided} to DECISIVE, or here to INDIFFERENT"


def test_settings_of_another_version_are_named() -> None:
    plain = decisive_settings(tiny_settings(), tiny_world(3)[0])
    plain["joiner"]["colour"] = "red"
    with pytest.raises(JournalError, match=r"^segment x: .* another version: joiner.colour: "):
        settings_of(plain, "segment x")
