"""What a dataset is: a recorded log turned into events in the order they became known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol

from domain.errors import ConfigError
from domain.events import Event
from domain.features import FeatureSchema
from replay.event_columns import EventFileColumns

THIRTY_MINUTES_MS = 30 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinerHints:
    """What the joiner has to know of a log to label it as it was meant.

    Attributes:
        attribution_window_ms: longest wait from an impression to feedback that should count; the
            joiner's window must be longer. None when no feedback names an impression.
        explicit_negatives: whether feedback of value 0.0 says "no"; otherwise a "no" is silence
            until the window closes.
        organic: whether feedback comes without impressions, so that negatives must be sampled.
    """

    attribution_window_ms: int | None = None
    explicit_negatives: bool = False
    organic: bool = False


class Dataset(Protocol):
    """A recorded log as events, in order of event time."""

    @property
    def name(self) -> str:
        """Return the name under which it was opened."""

    @property
    def schema(self) -> FeatureSchema:
        """Return the features its events carry and the labels its feedback decides."""

    @property
    def num_events_hint(self) -> int:
        """Return about how many events there are, for progress bars."""

    @property
    def joiner_hints(self) -> JoinerHints:
        """Return how labels become known in this log."""

    def events(self) -> Iterator[Event]:
        """Return all events from the beginning, in order of event time; may be called again.

        Raises:
            DatasetError: naming the file and line that cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """How to read a dataset; an option that a dataset has no use for is an error, not ignored.

    Attributes:
        limit: take only the first so many rows in order of time, None for all.
        positive_at: smallest rating that counts as liked, None for the dataset's own default.
        session_gap_ms: where a log does not say when feedback came, all feedback of a session
            becomes known this long after its last impression; a longer pause starts a new session.
        columns: which column of a file means what ("events" only).
        schema: the schema to use instead of a derived one ("events" only).
    """

    limit: int | None = None
    positive_at: float | None = None
    session_gap_ms: int = THIRTY_MINUTES_MS
    columns: EventFileColumns | None = None
    schema: FeatureSchema | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit <= 0:
            raise ConfigError(f"dataset.limit must be positive, got {self.limit}")
        if self.session_gap_ms <= 0:
            raise ConfigError(f"dataset.session_gap_ms must be positive, got {self.session_gap_ms}")

    def reject_unused(self, dataset: str, used: tuple[str, ...]) -> None:
        """Refuse an option that differs from its default and that `dataset` does not read.

        Raises:
            ConfigError: naming the option.
        """
        for field in fields(self):
            if field.name not in used and getattr(self, field.name) != field.default:
                raise ConfigError(f"dataset.{field.name}: {dataset} has no use for it")
