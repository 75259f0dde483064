"""Scenarios: worlds to stream through Headrace, each under an id that never changes its meaning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from domain.errors import ConfigError

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class TasteChange:
    """From here on users want something else.

    Attributes:
        at: when it begins, as a share of the scenario's duration.
        over: how long it takes, as a share of the duration; 0 is at once.
        to_taste: number of the taste it leads to; 0 is the one the world begins with.
    """

    at: float
    over: float = 0.0
    to_taste: int = 1

    def __post_init__(self) -> None:
        _check_share("change.at", self.at)
        _check_share("change.over", self.over)
        if self.to_taste < 0:
            raise ConfigError(f"change.to_taste must not be negative, got {self.to_taste}")


IncidentKind = Literal[
    "broken_field", "renamed_values", "bots", "slow_feedback", "position_bias", "user_wave",
    "item_wave",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something other than taste changes, for a while or for good.

    broken_field: every item's category is stuck at "unknown". renamed_values: categories get other
    names. bots: `strength` is the share of lists that few accounts ask for and click to the last
    item. slow_feedback: actions come `strength` times as late. position_bias: of this `strength`.
    user_wave, item_wave: all newcomers come in this time, and none before or after.

    Attributes:
        at: when it begins, as a share of the scenario's duration.
        until: when it is over, as a share of the duration.
    """

    kind: IncidentKind
    at: float
    until: float = 1.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        _check_share("incident.at", self.at)
        _check_share("incident.until", self.until)
        if not self.at < self.until:
            raise ConfigError(f"incident.until must be above at ({self.at}), got {self.until}")
        if not self.strength > 0.0:
            raise ConfigError(f"incident.strength must be positive, got {self.strength}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftTruth:
    """What drifted, when, and who should say so.

    Attributes:
        what: in words.
        at: when it began, as a share of the scenario's duration.
        streams: watched streams any of which names the right cause; a name that ends in "/" stands
            for all that begin with it.
    """

    what: str
    at: float
    streams: tuple[str, ...]

    def is_named_by(self, stream: str) -> bool:
        """Return whether a signal on this stream names the right cause."""
        return any(
            stream.startswith(name) if name.endswith("/") else stream == name
            for name in self.streams
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Who and what there is, and what moves a click. Scales are standard deviations of the logit.

    With the defaults a random list is clicked at a rate of about 0.24, and ranking by the true
    probability has an AUC of about 0.83; by the taste of before a change, 0.53.

    Attributes:
        num_users: users, newcomers included.
        num_items: items, newcomers included.
        num_categories: every item has one category, every user a liking for each.
        num_segments: groups of users with similar likings.
        style_size: length of the style vectors that users and items have beside categories.
        base_logit: logit of a click where nothing speaks for or against it.
        category_scale: how much the category decides.
        style_scale: how much the style decides.
        quality_scale: how much better some items are for everyone, always.
        popularity_scale: how much an item's rise and fall over time decides.
        news_scale: how much better for everyone an item is when it has just come; items differ in
            it. 0 is a catalog in which age does not matter.
        news_half_life_ms: time after which half of that is left.
        newcomer_users: share of the users who come for the first time during the scenario.
        newcomer_items: share of the items that enter the catalog during the scenario.
        withdrawn_items: share of the items that leave the catalog during the scenario.
    """

    num_users: int = 2_000
    num_items: int = 1_000
    num_categories: int = 12
    num_segments: int = 8
    style_size: int = 8
    base_logit: float = -1.9
    category_scale: float = 1.3
    style_scale: float = 0.8
    quality_scale: float = 0.3
    popularity_scale: float = 0.4
    news_scale: float = 0.0
    news_half_life_ms: int = 15 * _MINUTE_MS
    newcomer_users: float = 0.2
    newcomer_items: float = 0.2
    withdrawn_items: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_users", "num_items", "num_segments", "style_size", "news_half_life_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"population.{name} must be positive, got {getattr(self, name)}")
        if self.num_categories < 2:
            raise ConfigError(
                f"population.num_categories must be at least 2, got {self.num_categories}"
            )
        for name in ("newcomer_users", "newcomer_items", "withdrawn_items"):
            _check_share(f"population.{name}", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is shown to whom, and how users answer.

    Attributes:
        num_lists: lists shown in the scenario.
        list_size: items per list.
        lists_per_session: mean number of lists in one visit.
        pause_ms: mean time between two lists of a visit.
        popularity_pull: how much the policy that shows the lists favours what is popular; 0 shows
            at random.
        freshness_pull: how much that policy favours what entered the catalog a moment ago; where
            there is news, what is news.
        position_bias: the item at position k is looked at with chance 1 / (1 + bias * k).
        feedback_delay_ms: mean time from a list to a click in it.
        max_feedback_delay_ms: longest time from a list to anything done with it.
        visitors: users who are there in any one minute, when asked for by `World.users_at`.
    """

    num_lists: int = 20_000
    list_size: int = 10
    lists_per_session: float = 3.0
    pause_ms: int = 45_000
    popularity_pull: float = 1.0
    freshness_pull: float = 0.0
    position_bias: float = 0.0
    feedback_delay_ms: int = 30_000
    max_feedback_delay_ms: int = 5 * _MINUTE_MS
    visitors: int = 40

    def __post_init__(self) -> None:
        for name in (
            "num_lists",
            "list_size",
            "pause_ms",
            "feedback_delay_ms",
            "max_feedback_delay_ms",
            "visitors",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"traffic.{name} must be positive, got {getattr(self, name)}")
        if self.lists_per_session < 1.0:
            raise ConfigError(
                f"traffic.lists_per_session must be at least 1, got {self.lists_per_session}"
            )
        if self.position_bias < 0.0:
            raise ConfigError(
                f"traffic.position_bias must not be negative, got {self.position_bias}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What goes wrong between an event and the log. Rates are shares of the events.

    Attributes:
        duplicate_rate: events that are written a second time.
        duplicate_within_ms: how soon the second time comes, at most.
        late_rate: impressions and feedback that are written long after they happened.
        late_by_ms: how long after, at least; at most twice as long.
        malformed_rate: records that are no event, on top of the events.
        disorder_ms: how long after it happened any other event is written, at most.
    """

    duplicate_rate: float = 0.0
    duplicate_within_ms: int = 5 * _MINUTE_MS
    late_rate: float = 0.0
    late_by_ms: int = _HOUR_MS
    malformed_rate: float = 0.0
    disorder_ms: int = 0

    def __post_init__(self) -> None:
        for name in ("duplicate_rate", "late_rate", "malformed_rate"):
            _check_share(f"noise.{name}", getattr(self, name))
        for name in ("duplicate_within_ms", "late_by_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"noise.{name} must be positive, got {getattr(self, name)}")
        if self.disorder_ms < 0:
            raise ConfigError(f"noise.disorder_ms must not be negative, got {self.disorder_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world, its traffic, its changes and its noise. Same scenario, same events, to the byte.

    Attributes:
        id: permanent; a scenario that should behave differently gets another id.
        start_ms: event time of the beginning.
        changes: in order of time, none beginning before the one before it has ended.
        incident: what else changes.
        truth: what a watchful system should say, in order of time.
    """

    id: str
    description: str
    seed: int = 1
    start_ms: int = 1_704_067_200_000
    duration_ms: int = 24 * _HOUR_MS
    population: Population = field(default_factory=Population)
    traffic: Traffic = field(default_factory=Traffic)
    noise: Noise = field(default_factory=Noise)
    changes: tuple[TasteChange, ...] = ()
    incident: Incident | None = None
    truth: tuple[DriftTruth, ...] = ()

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("scenario.id must be given")
        if self.seed < 0:
            raise ConfigError(f"scenario.seed must not be negative, got {self.seed}")
        if self.start_ms < 1 or self.duration_ms < 1:
            raise ConfigError("scenario.start_ms and scenario.duration_ms must be positive")
        free_from = 0.0
        for change in self.changes:
            if change.at < free_from:
                raise ConfigError(
                    f"scenario.changes: one begins at {change.at}, before {free_from} when the one "
                    "before it has ended"
                )
            free_from = change.at + change.over

    @property
    def end_ms(self) -> int:
        """Return the event time at which no more lists are shown."""
        return self.start_ms + self.duration_ms

    @property
    def change_times_ms(self) -> tuple[int, ...]:
        """Return when each change of taste begins."""
        return tuple(self.start_ms + round(c.at * self.duration_ms) for c in self.changes)

    def share_ms(self, share: float) -> int:
        """Return the event time at a share of the duration."""
        return self.start_ms + round(share * self.duration_ms)

    def incident_span_ms(self, *kinds: IncidentKind) -> tuple[int, int] | None:
        """Return from when to when an incident of one of these kinds lasts; None without one."""
        if self.incident is None or self.incident.kind not in kinds:
            return None
        return self.share_ms(self.incident.at), self.share_ms(self.incident.until)

    def reseeded(self, seed: int) -> Scenario:
        """Return the same scenario with other users, items and chances."""
        return replace(self, seed=seed)

    def resized(self, num_lists: int) -> Scenario:
        """Return the same world with another number of lists, spread over the same time."""
        return replace(self, traffic=replace(self.traffic, num_lists=num_lists))


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value}")


_REAL_LIFE = Noise(duplicate_rate=0.01, late_rate=0.005, malformed_rate=0.001, disorder_ms=2_000)
_CONCEPT = ("loss/", "auc/", "calibration/")


def _taste(at: float, what: str = "what users want") -> DriftTruth:
    return DriftTruth(what=what, at=at, streams=_CONCEPT)


SCENARIOS: dict[str, Scenario] = {
    scenario.id: scenario
    for scenario in (
        Scenario(id="stationary", description="nobody changes her mind, nothing goes wrong"),
        Scenario(
            id="abrupt",
            description="half-way, from one moment to the next, everyone wants something else",
            changes=(TasteChange(at=0.5),),
            truth=(_taste(0.5),),
        ),
        Scenario(
            id="gradual",
            description="tastes move over for two fifths of the time",
            changes=(TasteChange(at=0.3, over=0.4),),
            truth=(_taste(0.3),),
        ),
        Scenario(
            id="recurring",
            description="tastes change, and change back",
            changes=(TasteChange(at=0.33), TasteChange(at=0.67, to_taste=0)),
            truth=(_taste(0.33), _taste(0.67, "what users want, back again")),
        ),
        Scenario(
            id="newcomers",
            description="most items arrive during the scenario, and most leave again",
            population=Population(newcomer_items=0.8, withdrawn_items=0.7, newcomer_users=0.5),
        ),
        Scenario(
            id="noisy",
            description="abrupt, with duplicated, late, disordered and malformed events",
            changes=(TasteChange(at=0.5),),
            noise=_REAL_LIFE,
            truth=(_taste(0.5),),
        ),
        Scenario(
            id="item-churn",
            description="from half-way on new items stream in and take a third of the clicks",
            population=Population(num_items=2_000, newcomer_items=0.5, withdrawn_items=0.0),
            traffic=Traffic(freshness_pull=2.0),
            incident=Incident(kind="item_wave", at=0.5),
            truth=(DriftTruth(what="which items there are", at=0.5, streams=("item_novelty",)),),
        ),
        Scenario(
            id="cold-users",
            description="half-way a wave of new users comes within an hour and a half",
            population=Population(newcomer_users=0.5),
            incident=Incident(kind="user_wave", at=0.5, until=0.56),
            truth=(DriftTruth(what="who comes", at=0.5, streams=("user_novelty",)),),
        ),
        Scenario(
            id="delayed-labels",
            description="half-way feedback begins to come ten times as late",
            traffic=Traffic(max_feedback_delay_ms=30 * _MINUTE_MS),
            incident=Incident(kind="slow_feedback", at=0.5, strength=10.0),
            truth=(DriftTruth(what="how late labels are", at=0.5, streams=("label_delay",)),),
        ),
        Scenario(
            id="broken-field",
            description="half-way every item's category is stuck at a default, for a while",
            incident=Incident(kind="broken_field", at=0.5, until=0.75),
            truth=(
                DriftTruth(what="the item's category", at=0.5, streams=("field/item.category",)),
            ),
        ),
        Scenario(
            id="schema-change",
            description="half-way the producer gives all categories other names",
            incident=Incident(kind="renamed_values", at=0.5),
            truth=(
                DriftTruth(
                    what="the names of the item's categories",
                    at=0.5,
                    streams=("field/item.category", "unseen/item.category"),
                ),
            ),
        ),
        Scenario(
            id="bot-burst",
            description="half-way a few accounts ask for a fifth of all lists and click everything",
            incident=Incident(kind="bots", at=0.5, until=0.6, strength=0.2),
            truth=(DriftTruth(what="how much is clicked", at=0.5, streams=("label_rate/",)),),
        ),
        Scenario(
            id="position-bias",
            description="half-way a new page makes users look at the top of a list only",
            incident=Incident(kind="position_bias", at=0.5, strength=0.5),
            truth=(
                DriftTruth(
                    what="how far down users look", at=0.5, streams=("label_rate/", "calibration/")
                ),
            ),
        ),
        Scenario(
            id="news",
            description="stories of the last quarter hour take three tenths of all clicks",
            population=Population(
                num_items=3_000,
                newcomer_items=0.95,
                withdrawn_items=0.5,
                category_scale=0.3,
                style_scale=0.2,
                news_scale=2.5,
            ),
            traffic=Traffic(popularity_pull=0.3, freshness_pull=2.0),
        ),
    )
}
"""By id. What an id stands for never changes: results are compared across versions."""
