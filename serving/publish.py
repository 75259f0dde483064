"""Published events to the log: all checked, all stored or none, acknowledged when durable."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import assert_never

from domain.clock import Clock
from domain.errors import ConfigError, InvalidRequestError, OverloadedError
from domain.events import Event, Feedback, Impression, ItemUpdate, UserUpdate
from domain.features import FeatureSchema
from monitoring.metrics import ServingMetrics
from serving import validate
from serving.admission import Admission, answerable_s
from serving.impression_log import ImpressionLog


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherConfig:
    """Bounds of Publish.

    Attributes:
        max_events: most events in one request.
        future_tolerance_ms: how far ahead of our clock an event time may be; clocks differ, but an
            event from next week would move the watermark and make everything else late.
        log_timeout_ms: longest wait until the events are durable.
        max_concurrency: requests that may wait for the log at once; more are refused.
        max_unacknowledged: requests of one stream that may wait for the log at once; the next is
            not read before the oldest of them is acknowledged.
    """

    max_events: int = 1_000
    future_tolerance_ms: int = 60_000
    log_timeout_ms: int = 5_000
    max_concurrency: int = 8
    max_unacknowledged: int = 16

    def __post_init__(self) -> None:
        for name in self.__slots__:
            least = 0 if name == "future_tolerance_ms" else 1
            if getattr(self, name) < least:
                raise ConfigError(
                    f"publisher.{name} must be at least {least}, got {getattr(self, name)}"
                )


class Publisher:
    """Takes events in from outside."""

    def __init__(
        self,
        impression_log: ImpressionLog,
        schema: FeatureSchema,
        clock: Clock,
        config: PublisherConfig,
        metrics: ServingMetrics,
    ) -> None:
        self._impression_log = impression_log
        self._schema = schema
        self._clock = clock
        self._config = config
        self._metrics = metrics
        self._admission = Admission(config.max_concurrency, 0)

    @property
    def capacity(self) -> int:
        """Return how many requests are let in at once; the next one is refused."""
        return self._admission.capacity

    @property
    def max_unacknowledged(self) -> int:
        """Return how many requests of one stream may wait for the log at once."""
        return self._config.max_unacknowledged

    @property
    def max_events(self) -> int:
        """Return the most events one request may hold."""
        return self._config.max_events

    def publish(self, events: Sequence[Event], deadline_s: float | None = None) -> None:
        """Store events durably, all or none.

        Args:
            events: each already free of contradictions in itself (see `stream.codec`).
            deadline_s: seconds until the caller gives up, None when it did not say.

        Raises:
            InvalidRequestError: naming the field, e.g. "events[3].feedback.context.tab".
            OverloadedError: too many events or requests are waiting for the log.
            LogUnavailableError: they are not stored, or not known to be; publishing again with the
                same event ids is safe.
        """
        self._check_all(events)
        if not events:
            return
        timeout_s = self._config.log_timeout_ms / 1_000
        if deadline_s is not None:
            timeout_s = min(timeout_s, answerable_s(deadline_s))
        try:
            with self._admission.enter():
                self._impression_log.write(events, timeout_s)
        except OverloadedError:
            self._metrics.refused.inc()
            raise

    def submit(self, events: Sequence[Event]) -> Future[None]:
        """Hand events to the log without waiting; the future ends when they are durable.

        Raises:
            InvalidRequestError: as `publish`.
            OverloadedError: too many events are waiting for the log.
            LogUnavailableError: the server is stopping.
        """
        self._check_all(events)
        if not events:
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing
        try:
            return self._impression_log.submit(events)
        except OverloadedError:
            self._metrics.refused.inc()
            raise

    def wait(self, stored: Future[None], count: int) -> None:
        """Wait until `count` submitted events are durable.

        Raises:
            LogUnavailableError: they are not stored, or not known to be.
        """
        self._impression_log.wait(stored, count, self._config.log_timeout_ms / 1_000)

    def _check_all(self, events: Sequence[Event]) -> None:
        latest_ms = self._clock.now_ms() + self._config.future_tolerance_ms
        for index, event in enumerate(events):
            self._check(f"events[{index}]", event, latest_ms)

    def _check(self, where: str, event: Event, latest_ms: int) -> None:
        if event.time_ms > latest_ms:
            raise InvalidRequestError(
                f"{where}.time_ms",
                f"expected at most {latest_ms}, the server's time and some tolerance, "
                f"got {event.time_ms}",
            )
        validate.check_id(f"{where}.event_id", event.event_id)
        match event:
            case Impression():
                self._check_impression(f"{where}.impression", event)
            case Feedback():
                validate.check_id(f"{where}.feedback.user_id", event.user_id)
                validate.check_id(f"{where}.feedback.item_id", event.item_id)
                self._check_context(f"{where}.feedback", event)
            case ItemUpdate():
                validate.check_id(f"{where}.item_update.item_id", event.item_id)
                features = f"{where}.item_update.features"
                validate.check_features(self._schema, "item", event.features, features)
            case UserUpdate():
                validate.check_id(f"{where}.user_update.user_id", event.user_id)
                features = f"{where}.user_update.features"
                validate.check_features(self._schema, "user", event.features, features)
            case _:
                assert_never(event)

    def _check_impression(self, where: str, event: Impression) -> None:
        validate.check_id(f"{where}.user_id", event.user_id)
        for index, item in enumerate(event.items):
            validate.check_id(f"{where}.items[{index}].item_id", item.item_id)
        self._check_context(where, event)

    def _check_context(self, where: str, event: Impression | Feedback) -> None:
        validate.check_features(self._schema, "context", event.context, f"{where}.context")
