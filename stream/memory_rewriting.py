"""What the error memory knows, written anew under the model of now: hidden states move.

A memory is keyed by hidden states of the time they were scored at. ReLoop2 empties it whenever the
base model is updated, which a model that never stops learning would do all the time. Here the last
examples are kept as they were captured, and now and then the memory is emptied and filled again
from them, newest first and a few at each step, with the hidden states that they would have now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.learners import MemoryLearner, RankingLearner
from domain.requests import CapturedRequest
from domain.state import State
from stream.packing import pack, unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRewritingConfig:
    """Whether, and how, the error memory is written anew.

    Attributes:
        window: examples that are kept to be written again; 0 is off.
        every_steps: learning steps between two times that the memory is emptied for it.
        rows_per_step: examples written again at each step after that.
    """

    window: int = 0
    every_steps: int = 500
    rows_per_step: int = 1_000

    def __post_init__(self) -> None:
        for name, least in (("window", 0), ("every_steps", 1), ("rows_per_step", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"memory_rewriting.{name} must be at least {least}, got {getattr(self, name)}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """Examples of one captured request that were written to the memory; M of them, H heads.

    Attributes:
        item_indices: int64 (M,), rows of the capture.
        labels_MH: float32, NaN where unknown.
        base_MH: float32, the scores they were given before their labels were known.
        time_ms: when they were written.
    """

    captured: CapturedRequest
    item_indices: NDArray[np.int64]
    labels_MH: NDArray[np.float32]
    base_MH: NDArray[np.float32]
    time_ms: int


class MemoryRewriting:
    """Keeps the last examples that a memory was taught, and teaches them again."""

    def __init__(self, config: MemoryRewritingConfig) -> None:
        self._config = config
        self._taught: deque[Taught] = deque()
        self._num_examples = 0
        self._steps = 0
        # Of what is kept the oldest so many: what is newer was written under the model of now.
        self._to_write = 0

    @property
    def num_examples(self) -> int:
        """Return how many examples are kept."""
        return self._num_examples

    def observe(self, taught: Sequence[Taught]) -> None:
        """Keep what was just written, and forget what is beyond the window."""
        for one in taught:
            self._taught.append(one)
            self._num_examples += len(one.item_indices)
        while self._num_examples > self._config.window:
            forgotten = len(self._taught.popleft().item_indices)
            self._num_examples -= forgotten
            self._to_write = max(self._to_write - forgotten, 0)

    def begin(self, memory: MemoryLearner) -> None:
        """Empty the memory, to be filled again: the model is another one now."""
        memory.reset()
        self._steps = 0
        self._to_write = self._num_examples

    def advance(self, ranking: RankingLearner, memory: MemoryLearner) -> int:
        """Take note of a learning step, and write some more; return how many examples that were."""
        self._steps += 1
        if self._steps >= self._config.every_steps:
            self.begin(memory)
        return self.write_some(ranking, memory, self._config.rows_per_step)

    def write_some(self, ranking: RankingLearner, memory: MemoryLearner, num_rows: int) -> int:
        """Write the newest that were not written again yet, at least `num_rows` if there are."""
        chosen, num_chosen = self._next(num_rows)
        if not chosen:
            self._to_write = 0
            return 0
        results = ranking.predict([one.captured for one in chosen])
        hidden_ND = np.concatenate(
            [result.hidden[one.item_indices] for result, one in zip(results, chosen, strict=True)]
        )
        memory.rewrite(
            hidden_ND,
            np.concatenate([one.base_MH for one in chosen]),
            np.concatenate([one.labels_MH for one in chosen]),
            np.repeat([one.time_ms for one in chosen], [len(one.item_indices) for one in chosen]),
        )
        self._to_write -= num_chosen
        return num_chosen

    def _next(self, num_rows: int) -> tuple[list[Taught], int]:
        """Return what comes next, newest first."""
        newer = self._num_examples - self._to_write
        chosen: list[Taught] = []
        num_chosen = passed = 0
        for one in reversed(self._taught):
            if self._to_write <= 0 or num_chosen >= num_rows:
                break
            if passed < newer:
                passed += len(one.item_indices)
                continue
            chosen.append(one)
            num_chosen += len(one.item_indices)
        return chosen, num_chosen

    def save(self) -> State:
        """Return what is kept, and how far writing has come."""
        return {
            "rows": [
                {
                    "user_id": one.captured.user_id,
                    "item_ids": list(one.captured.item_ids),
                    "captured_ms": one.captured.time_ms,
                    "time_ms": one.time_ms,
                }
                for one in self._taught
            ],
            "captures": pack([one.captured.arrays for one in self._taught]),
            "examples": pack(
                [
                    {"items": one.item_indices, "labels": one.labels_MH, "bases": one.base_MH}
                    for one in self._taught
                ]
            ),
            "steps": self._steps,
            "to_write": self._to_write,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        rows = state["rows"]
        captures = unpack(state["captures"], len(rows))
        examples = unpack(state["examples"], len(rows))
        self._taught = deque(
            Taught(
                captured=CapturedRequest(
                    user_id=row["user_id"],
                    item_ids=tuple(row["item_ids"]),
                    time_ms=row["captured_ms"],
                    arrays=arrays,
                ),
                item_indices=one["items"],
                labels_MH=one["labels"],
                base_MH=one["bases"],
                time_ms=row["time_ms"],
            )
            for row, arrays, one in zip(rows, captures, examples, strict=True)
        )
        self._num_examples = sum(len(one.item_indices) for one in self._taught)
        self._steps = state["steps"]
        self._to_write = state["to_write"]
