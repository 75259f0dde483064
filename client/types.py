"""What calls take and give: plain frozen values, no Protobuf."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from client.errors import CallError

FeatureValue: TypeAlias = str | float | Sequence[str] | Sequence[float]
"""A text, a number, several texts, or a vector; the server's schema says which is right."""

Features: TypeAlias = Mapping[str, FeatureValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition on one feature of an item: one of several texts, or a range of numbers.

    Attributes:
        one_of: the feature is one of these texts; of a feature with several texts, any is.
        at_least: the feature is a number not below this.
        at_most: the feature is a number not above this.
        negated: true asks for the opposite.
    """

    feature: str
    one_of: Collection[str] | None = None
    at_least: float | None = None
    at_most: float | None = None
    negated: bool = False

    def __post_init__(self) -> None:
        has_range = self.at_least is not None or self.at_most is not None
        if (self.one_of is not None) == has_range:
            raise ValueError(f"{self.feature}: expected either one_of or a range of numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What may be in an answer at all.

    Attributes:
        exclude_seen: leave out what the user already acted on. None: as the call does by itself,
            which is yes for recommendations and no for retrieval.
        allow: when given, only these items.
        deny: never these items.
        where: conditions that every item meets.
    """

    exclude_seen: bool | None = None
    allow: Collection[str] | None = None
    deny: Collection[str] = ()
    where: Sequence[Condition] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendQuery:
    """One recommendation of several; `limit` 0 is the server's default."""

    user_id: str
    limit: int = 0
    context: Features = field(default_factory=dict)
    filters: Filters | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveQuery:
    """One search for candidates of several; `limit` 0 is the server's default."""

    user_id: str
    limit: int = 0
    context: Features = field(default_factory=dict)
    filters: Filters | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankQuery:
    """One ranking of several."""

    user_id: str
    item_ids: Sequence[str]
    context: Features = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Items, best first.

    Attributes:
        scores: one per item, float32; comparable only within one answer.
        path: "ranked", "retrieved", "popular" or "cold_start": how the answer was made.
        snapshot_id: whose models made it.
        model_age_ms: event time from the newest event those models know to now.
        impression_id: name it in feedback; "" when nothing was logged as shown.
    """

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    path: str
    snapshot_id: str
    model_age_ms: int
    impression_id: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The server's word on one batch of a stream of events.

    Attributes:
        number: which batch, counted from 0.
        event_ids: ids of its events when they are stored.
        error: why they are not, or are not known to be; sending them again with the same ids is
            safe.
    """

    number: int
    event_ids: tuple[str, ...] = ()
    error: CallError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSignal:
    """What changed, since when, by how much, and who says so; see docs/drift.md.

    Attributes:
        kind: "covariate", "label", "concept", "model" or "stream".
        severity: "small", "medium" or "large".
        measure: what `size` is in: "deviations", "psi" or "share".
        time_ms: event time at which it was noticed.
        since_ms: event time at which it began.
        ended_ms: event time at which it was over, None while it is live.
        contributors: what moved most, and its part.
        sentence: all of it in words.
    """

    stream: str
    kind: str
    detector: str
    severity: str
    size: float
    measure: str
    time_ms: int
    since_ms: int
    before: float
    after: float
    ended_ms: int | None
    contributors: tuple[tuple[str, float], ...]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot in the server's store; see `SnapshotInfo` in the protos."""

    snapshot_id: str
    step: int
    event_time_ms: int
    events: int
    size_bytes: int
    parent_id: str
    is_current: bool
    is_live: bool
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class Switched:
    """Which snapshot is current now, and which was before."""

    snapshot_id: str
    previous_id: str
