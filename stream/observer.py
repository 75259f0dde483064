"""What the loop tells those who measure it; observers watch, they never change what is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample, LearnReport, PositiveAction
from domain.requests import RankingRequest
from domain.state import State


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What arrived since the beginning.

    Attributes:
        events: events that were taken in, duplicates left out.
        duplicates: events whose id was seen before.
        dead_letters: events that were set aside.
    """

    events: int = 0
    duplicates: int = 0
    dead_letters: int = 0

    @property
    def total(self) -> int:
        """Return everything that arrived."""
        return self.events + self.duplicates + self.dead_letters


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Items about to be scored: what a variant other than the live model needs to score them too.

    Attributes:
        ordinal: how many demands came before it.
        session: number of the user's session, the group of session GAUC.
        served_N: scores that a server showed the items with, None when nobody said.
        arrivals: what had arrived by then.
    """

    impression_id: str
    ordinal: int
    session: int
    request: RankingRequest
    served_N: NDArray[np.float32] | None = None
    arrivals: Arrivals = Arrivals()


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A settled label beside what was predicted before it was known; H heads.

    Attributes:
        base_H: probabilities of the live ranker.
        compensated_H: the same after the error memory.
        served: score that a server showed the item with, NaN when nobody said.
    """

    example: JoinedExample
    session: int
    base_H: NDArray[np.float32]
    compensated_H: NDArray[np.float32]
    served: float = math.nan


class LoopObserver(Protocol):
    """Watches the loop; every method is called in the order of the log."""

    def on_demand(self, demand: Demand) -> None:
        """Items are about to be scored; nothing of the future is known."""

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Labels became known; early negatives and corrections are among them."""

    def on_measured(self, measured: Sequence[Measured]) -> None:
        """Labels were settled; they are measured before anything is learned from them."""

    def on_ranks(self, actions: Sequence[PositiveAction], ranks: NDArray[np.int64]) -> None:
        """Retrieval ranked the items users took, before learning from them."""

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """No label can reach these impressions any more; all of theirs were measured."""

    def on_step(self, step: int, ranking: LearnReport, retrieval: LearnReport) -> None:
        """A learning step was taken."""

    def save(self) -> State:
        """Return what must survive a restart."""

    def load(self, state: State) -> None:
        """Become what `save` described."""
