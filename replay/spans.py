"""Part of a dataset: from one event time to another, with what was known before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from domain.errors import ConfigError
from domain.events import Event, Feedback, Impression, ItemUpdate, UserUpdate
from domain.features import FeatureSchema
from replay.dataset import Dataset, JoinerHints


class Span:
    """A dataset's lists and actions in [from, until).

    What was said of users and items before `from` is known, as it was to whoever had to answer
    then; it comes at its own time. Feedback on a list shown before `from` is left out with its
    list. Feedback on a list shown inside comes however late it is, so that labels are those of the
    whole log.
    """

    def __init__(self, dataset: Dataset, from_ms: int | None, until_ms: int | None) -> None:
        """Take a part of `dataset`; None is no limit.

        Raises:
            ConfigError: the span ends before it begins.
        """
        if from_ms is not None and until_ms is not None and from_ms >= until_ms:
            raise ConfigError(f"--until: expected later than --from {from_ms}, got {until_ms}")
        self._dataset = dataset
        self._from_ms = -math.inf if from_ms is None else from_ms
        self._until_ms = math.inf if until_ms is None else until_ms

    @property
    def name(self) -> str:
        """Return the dataset's name."""
        return self._dataset.name

    @property
    def schema(self) -> FeatureSchema:
        """Return the dataset's schema."""
        return self._dataset.schema

    @property
    def num_events_hint(self) -> int:
        """Return the number of events of the whole dataset: all of it is read."""
        return self._dataset.num_events_hint

    @property
    def joiner_hints(self) -> JoinerHints:
        """Return the dataset's hints."""
        return self._dataset.joiner_hints

    def events(self) -> Iterator[Event]:
        """Return the events of the span."""
        shown: set[str] = set()
        for event in self._dataset.events():
            inside = self._from_ms <= event.time_ms < self._until_ms
            match event:
                case ItemUpdate() | UserUpdate():
                    if event.time_ms < self._until_ms:
                        yield event
                case Feedback(impression_id=str(impression_id)):
                    if impression_id in shown or (inside and not self._bounded_below):
                        yield event
                case Impression():
                    if inside:
                        shown.add(event.event_id)
                        yield event
                case _:
                    if inside:
                        yield event

    @property
    def _bounded_below(self) -> bool:
        return self._from_ms > -math.inf


def time_of(text: str, flag: str) -> int:
    """Return an event time in ms from "2022-05-01", "2022-05-01T12:00:00+02:00" or ms.

    A time without an offset is UTC.

    Raises:
        ConfigError: it is none of these.

    >>> time_of("1970-01-02", "--from"), time_of("1500", "--from")
    (86400000, 1500)
    """
    if text.lstrip("-").isdigit() and not (len(text) == 8 and text.startswith(("19", "20"))):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{flag}: expected a time such as 2022-05-01T12:00 (UTC) or ms since 1970, got {text!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000)
