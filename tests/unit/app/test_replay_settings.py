"""A replay fits the settings to the recording, except for what was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.replay_run import REPLAY_LINGER_MS, fit_to
from app.settings import Settings, load_settings
from domain.events import Event
from domain.features import FeatureSchema
from replay.dataset import JoinerHints

DEFAULT_FILE = Path(__file__).parents[3] / "deploy" / "config" / "default.toml"


class Recording:
    """A dataset of which only the hints matter."""

    name = "recording"
    schema = FeatureSchema()
    num_events_hint = 0

    def __init__(self, window_ms: int | None) -> None:
        self.joiner_hints = JoinerHints(attribution_window_ms=window_ms)

    def events(self) -> Iterator[Event]:
        return iter(())


def test_defaults_are_fitted_to_the_recording() -> None:
    fitted = fit_to(Recording(5_000), Settings())
    assert fitted.joiner.attribution_window_ms == 5_001, "feedback as late as the window is lost"
    assert fitted.batcher.linger_ms == REPLAY_LINGER_MS
    assert fitted.ranking == Settings().ranking


def test_recording_without_impressions_keeps_the_window() -> None:
    assert fit_to(Recording(None), Settings()).joiner == Settings().joiner


@pytest.mark.parametrize(
    ("flag", "window_ms", "linger_ms"),
    [
        ("joiner.attribution_window_ms=70_000", 70_000, REPLAY_LINGER_MS),
        ("batcher.linger_ms=70_000", 5_001, 70_000),
        ("joiner.organic_negatives=1", 5_001, REPLAY_LINGER_MS),
        ("batcher.max_examples=16", 5_001, REPLAY_LINGER_MS),
    ],
)
def test_only_what_was_chosen_stays(flag: str, window_ms: int, linger_ms: int) -> None:
    chosen = load_settings(None, [flag])
    fitted = fit_to(Recording(5_000), chosen)
    assert fitted.joiner.attribution_window_ms == window_ms
    assert fitted.batcher.linger_ms == linger_ms
    assert fitted.joiner.organic_negatives == chosen.joiner.organic_negatives
    assert fitted.batcher.max_examples == chosen.batcher.max_examples


def test_default_file_changes_nothing() -> None:
    recording = Recording(5_000)
    fitted, plain = fit_to(recording, load_settings(DEFAULT_FILE)), fit_to(recording, Settings())
    assert (fitted.joiner, fitted.batcher) == (plain.joiner, plain.batcher)
