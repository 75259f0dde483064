"""How a Prometheus instrument is declared: full name, labels, and what it shows at first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric


@dataclass(frozen=True, slots=True)
class Instrument:
    """How one instrument was declared.

    Attributes:
        name: full name as Prometheus shows it.
        kind: "counter", "gauge" or "histogram".
        labels: values of each label; empty when the configuration decides them.
    """

    name: str
    kind: str
    labels: Mapping[str, Sequence[str]]
    help: str


class Maker:
    """Declares instruments; those with one enumerated label show all its values from the start.

    Without that, a counter's first increment is a series that appears at 1, and `rate()` over it
    misses exactly the first error.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.made: list[Instrument] = []

    def counter(self, name: str, text: str, **labels: Sequence[str]) -> Counter:
        """Declare something that only grows."""
        full = self._declare(name, "counter", text, labels)
        counter = Counter(full, text, tuple(labels), registry=self._registry)
        for label, value in _known_values(labels):
            counter.labels(**{label: value})
        return counter

    def gauge(self, name: str, text: str, **labels: Sequence[str]) -> Gauge:
        """Declare something that is set."""
        full = self._declare(name, "gauge", text, labels)
        if not labels:
            return LateGauge(full, text, registry=self._registry)
        return Gauge(full, text, tuple(labels), registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: Sequence[float], **labels: Sequence[str]
    ) -> Histogram:
        """Declare something that is counted by size."""
        full = self._declare(name, "histogram", text, labels)
        histogram = Histogram(
            full, text, tuple(labels), registry=self._registry, buckets=tuple(buckets)
        )
        for label, value in _known_values(labels):
            histogram.labels(**{label: value})
        return histogram

    def _declare(self, name: str, kind: str, text: str, labels: Mapping[str, Sequence[str]]) -> str:
        full = f"headrace_{name}"
        self.made.append(Instrument(full, kind, dict(labels), text))
        return full


class LateGauge(Gauge):
    """A gauge without labels that is not shown before it is set; with labels all gauges are so.

    Every process declares every instrument, and a server that shows a snapshot age of 0 because it
    never publishes one would be lying.
    """

    _is_set = False

    def set(self, value: float) -> None:
        """Show a value."""
        self._is_set = True
        super().set(value)

    def inc(self, amount: float = 1) -> None:
        """Show more."""
        self._is_set = True
        super().inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Show less."""
        self._is_set = True
        super().dec(amount)

    def set_function(self, f: Callable[[], float]) -> None:
        """Show what a function says."""
        self._is_set = True
        super().set_function(f)

    def collect(self) -> Iterable[Metric]:
        """Return nothing before the first value."""
        return super().collect() if self._is_set else ()


def _known_values(labels: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    if len(labels) != 1:
        return []
    return [(label, value) for label, values in labels.items() for value in values]
