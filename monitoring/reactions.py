"""Reactions: what was done about a drift signal, told in a sentence and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

ReactionName = Literal[
    "faster_learning",
    "shorter_memory",
    "reset_memory",
    "rebuild_index",
    "hold_promotion",
    "roll_back",
]

REACTIONS: tuple[ReactionName, ...] = (
    "faster_learning",
    "shorter_memory",
    "reset_memory",
    "rebuild_index",
    "hold_promotion",
    "roll_back",
)

_SAID = {
    "faster_learning": "learns faster",
    "shorter_memory": "the error memory forgets faster",
    "reset_memory": "the error memory was emptied",
    "rebuild_index": "the retrieval index was built anew",
    "hold_promotion": "new snapshots are not served",
    "roll_back": "an earlier snapshot is served",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """One thing done about one signal.

    Attributes:
        time_ms: event time at which it was done.
        until_ms: event time at which it ends by itself; None when it is done once, or ends with
            its signals.
        stream: the stream whose signal was its cause.
        cause: the signal's sentence.
    """

    name: ReactionName
    time_ms: int
    stream: str
    cause: str
    until_ms: int | None = None

    def describe(self) -> str:
        """Return it as one sentence.

        >>> Reaction(name="reset_memory", time_ms=5, stream="s", cause="s rose").describe()
        'the error memory was emptied, because s rose'
        """
        time = "" if self.until_ms is None else f" for {(self.until_ms - self.time_ms) / 1e3:.0f} s"
        return f"{_SAID[self.name]}{time}, because {self.cause}"


class ReactionSink(Protocol):
    """Takes what was done; it must neither raise nor keep its caller waiting."""

    def write_reactions(self, reactions: Sequence[Reaction]) -> None:
        """Take reactions, once each; after a restart perhaps again."""


class ReactionList:
    """Keeps reactions in memory, in the order they were told."""

    def __init__(self) -> None:
        self.reactions: list[Reaction] = []

    def write_reactions(self, reactions: Sequence[Reaction]) -> None:
        """Keep them."""
        self.reactions += reactions
