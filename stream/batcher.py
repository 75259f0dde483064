"""Batcher: examples in the order of the log become micro-batches, grouped by impression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import ConfigError
from domain.examples import JoinedExample
from domain.state import State
from stream.pending import examples_from, examples_state


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherConfig:
    """When examples make a micro-batch.

    Attributes:
        max_examples: examples that make a batch at once, and the most that one holds.
        linger_ms: event time after which fewer will do.
    """

    max_examples: int = 256
    linger_ms: int = 1_000

    def __post_init__(self) -> None:
        for name in ("max_examples", "linger_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"batcher.{name} must be positive, got {getattr(self, name)}")


class Batcher:
    """Collects examples until there are enough, or event time has moved on.

    Where a batch ends is a function of the log alone: of the number of examples and of event time,
    never of the machine's clock or its load. So a replay, and a trainer that crashed and resumed,
    make the very same batches, and with them the same weights.

    Call `ready` after every `add`: examples count as added at the event time of that call.
    """

    def __init__(self, config: BatcherConfig | None = None) -> None:
        self._config = config or BatcherConfig()
        self._examples: list[JoinedExample] = []
        self._added_ms: list[int] = []  # shorter than `_examples` until `ready` is called

    def __len__(self) -> int:
        """Return how many examples wait."""
        return len(self._examples)

    def add(self, examples: Sequence[JoinedExample]) -> None:
        """Take in examples, in the order of the log."""
        self._examples += examples

    def ready(self, event_time_ms: int) -> bool:
        """Return whether a batch is due at this event time."""
        num_new = len(self._examples) - len(self._added_ms)
        self._added_ms += [event_time_ms] * num_new
        if not self._examples:
            return False
        return (
            len(self._examples) >= self._config.max_examples
            or event_time_ms - self._added_ms[0] >= self._config.linger_ms
        )

    def take(self) -> list[list[JoinedExample]]:
        """Take out the oldest examples, at most a batch, due or not.

        They come grouped by impression, in order of first appearance.
        """
        size = self._config.max_examples
        taken, self._examples = self._examples[:size], self._examples[size:]
        del self._added_ms[:size]
        groups: dict[str, list[JoinedExample]] = {}
        for example in taken:
            groups.setdefault(example.impression_id, []).append(example)
        return list(groups.values())

    def save(self) -> State:
        """Return the waiting examples."""
        return {"examples": examples_state(self._examples), "added_ms": list(self._added_ms)}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._examples = examples_from(state["examples"])
        self._added_ms = list(state["added_ms"])
