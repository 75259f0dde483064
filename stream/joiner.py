"""Joiner: impressions and feedback become labelled examples, on event time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from heapq import heapify, heappop, heappush
from typing import Literal, assert_never

import numpy as np

from domain.errors import ConfigError, DecodeError
from domain.events import Event, Features, Feedback, Impression, ItemUpdate, UserUpdate
from domain.examples import JoinedExample
from domain.features import FeatureSchema
from domain.state import State
from stream.early_feedback import EarlyFeedback
from stream.joiner_counts import JoinerCounts
from stream.label_heads import LabelHeads
from stream.negative_sampler import NegativeSampler
from stream.open_impression import OpenImpression, impressions_from, impressions_state
from stream.organic import OrganicGroup, OrganicGroups

Policy = Literal["wait", "fast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinerConfig:
    """When labels are settled, and how much is remembered meanwhile.

    Attributes:
        policy: "wait" emits an item once all its heads are decided or the window closes; "fast"
            emits undecided heads as early negatives after `fast_delay_ms`, and corrects them.
        attribution_window_ms: how long after an impression feedback still counts as its label;
            feedback exactly this late does not.
        fast_delay_ms: how long after an impression the watermark must be before the policy "fast"
            takes silence for "no".
        organic_negatives: negatives sampled for each positive organic action, 0 for none.
        max_pending: impressions waiting for labels, and early feedback waiting for impressions;
            beyond it the oldest are settled early, and counted.
        max_closed: settled impressions remembered, so that their feedback is known to be late.
        max_items: items that negatives are sampled from.
        max_users: users whose recent actions are never their negatives.
    """

    policy: Policy = "wait"
    attribution_window_ms: int = 30 * 60 * 1000
    fast_delay_ms: int = 60 * 1000
    organic_negatives: int = 4
    max_pending: int = 100_000
    max_closed: int = 200_000
    max_items: int = 100_000
    max_users: int = 50_000

    def __post_init__(self) -> None:
        if self.policy not in ("wait", "fast"):
            raise ConfigError(f"joiner.policy must be 'wait' or 'fast', got {self.policy!r}")
        if self.organic_negatives < 0:
            raise ConfigError(
                f"joiner.organic_negatives must be at least 0, got {self.organic_negatives}"
            )
        for name in ("attribution_window_ms", "fast_delay_ms", *_LIMITS):
            if getattr(self, name) < 1:
                raise ConfigError(f"joiner.{name} must be positive, got {getattr(self, name)}")
        if self.policy == "fast" and self.fast_delay_ms >= self.attribution_window_ms:
            raise ConfigError(
                f"joiner.fast_delay_ms must be less than attribution_window_ms "
                f"({self.attribution_window_ms}), got {self.fast_delay_ms}"
            )


_LIMITS = ("max_pending", "max_closed", "max_items", "max_users")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDemand:
    """Items to be scored now, because their labels may come.

    Attributes:
        impression_id: the id their examples will carry.
        organic: whether it comes from feedback: the item acted on, then sampled negatives.
    """

    impression_id: str
    user_id: str
    item_ids: tuple[str, ...]
    time_ms: int
    context: Features = field(default_factory=dict)
    organic: bool = False


class Joiner:
    """Joins impressions with their feedback within an attribution window, on event time.

    Policy "wait": one final example per (impression, item). Policy "fast", after Ktena et al.,
    "Addressing Delayed Feedback for Continuous Training with Neural Networks in CTR prediction"
    (RecSys 2019): silence is learned as "no" after a short delay and a later "yes" as a correction.
    Then each head of an (impression, item) is known in exactly one final example or early
    negative, and each assumed head that turns out positive in exactly one correction; other heads
    of these examples are NaN, so a learner that weighs by role and leaves out NaN counts each
    label once.

    A head, once decided, stays decided. As long as no piece of feedback contradicts another, the
    order in which events arrive changes no final label, unless an event is late.

    Call, for every event: `items_to_score`, `observe`, `advance`, `take_finished`. Save between
    events. Items of an impression are distinct, as the codec sees to.

    Attributes:
        counts: what became of every event, since the beginning.
    """

    def __init__(
        self, schema: FeatureSchema, config: JoinerConfig | None = None, rng_seed: int = 0
    ) -> None:
        self._config = config or JoinerConfig()
        self._heads = LabelHeads(schema)
        self._open: OrderedDict[str, OpenImpression] = OrderedDict()  # in order of arrival
        self._due: list[tuple[int, str]] = []  # (due, impression); may be outdated
        self._closed: OrderedDict[str, bool] = OrderedDict()  # whether feedback decided it all
        self._early = EarlyFeedback()
        self._sampler = NegativeSampler(self._config.max_items, self._config.max_users, rng_seed)
        self._groups = OrganicGroups(self._heads, self._config.organic_negatives, self._sampler)
        self._finished: list[str] = []
        self._watermark_ms = 0
        self.counts = JoinerCounts()

    @property
    def num_pending(self) -> int:
        """Return how many impressions are collecting labels."""
        return len(self._open)

    @property
    def num_early(self) -> int:
        """Return how much feedback waits for its impression."""
        return len(self._early)

    def items_to_score(self, event: Event) -> ScoreDemand | None:
        """Return the items whose labels this event makes us wait for, None when there are none.

        Those are an impression's items; or the item of feedback without a known impression, with
        sampled negatives when it is positive. Changes nothing: `observe` of the same event uses
        the very same negatives.

        Raises:
            DecodeError: the feedback contradicts its impression.
        """
        match event:
            case Impression():
                if self._is_known(event.event_id) or self._is_closed_at(event.time_ms):
                    return None
                item_ids = tuple(item.item_id for item in event.items)
                return ScoreDemand(
                    impression_id=event.event_id,
                    user_id=event.user_id,
                    item_ids=item_ids,
                    time_ms=event.time_ms,
                    context=event.context,
                )
            case Feedback():
                return self._organic_demand(event)
            case ItemUpdate() | UserUpdate():
                return None
            case _:
                assert_never(event)

    def observe(self, event: Event) -> list[JoinedExample]:
        """Take in an event; return the examples it settles at once.

        Raises:
            DecodeError: the feedback contradicts its impression; only that was counted.
        """
        match event:
            case Impression():
                examples = self._observe_impression(event)
            case Feedback():
                examples = self._observe_feedback(event)
            case ItemUpdate() | UserUpdate():
                examples = []
            case _:
                assert_never(event)
        self._groups.forget()
        return examples

    def advance(self, watermark_ms: int) -> list[JoinedExample]:
        """Settle what no longer waits at this watermark, in order of due time."""
        self._watermark_ms = max(self._watermark_ms, watermark_ms)
        examples: list[JoinedExample] = []
        while self._due and self._due[0][0] <= self._watermark_ms:
            due_ms, impression_id = heappop(self._due)
            impression = self._open.get(impression_id)
            if impression is not None and impression.due_ms == due_ms:
                examples += self._settle(impression, due_ms)
        for due_ms, group in self._early.take_due(self._watermark_ms):
            examples += self._give_up_waiting(group, due_ms)
        return examples

    def take_finished(self) -> list[str]:
        """Return the impression ids that will yield no further example, each once."""
        finished, self._finished = self._finished, []
        return finished

    def _observe_impression(self, event: Impression) -> list[JoinedExample]:
        if self._is_known(event.event_id):
            self.counts.impressions_repeated += 1
            return []
        if self._is_closed_at(event.time_ms):
            self.counts.impressions_late += 1
            self._remember_closed(event.event_id, decided=False)
            return []
        self.counts.impressions_joined += 1
        item_ids = tuple(item.item_id for item in event.items)
        self._sampler.observe_items(item_ids)
        impression = OpenImpression(
            event.event_id, event.user_id, item_ids, event.time_ms, self._heads.num_heads
        )
        is_fast = self._config.policy == "fast"
        self._open[event.event_id] = impression
        self._wait(
            impression,
            self._config.fast_delay_ms if is_fast else self._config.attribution_window_ms,
        )
        examples: list[JoinedExample] = []
        for group in self._early.take(event.event_id):
            examples += self._join_early(impression, group)
        if not impression.num_undecided:
            self._finish(impression)
        while len(self._open) > self._config.max_pending:
            examples += self._settle_oldest()
        return examples

    def _observe_feedback(self, event: Feedback) -> list[JoinedExample]:
        impression = self._answered(event)
        decided, positive = self._heads.decide(event.kind, event.value)
        if not decided:
            self.counts.feedback_unlabelled += 1
            return []
        if impression is not None:
            index = impression.item_ids.index(event.item_id)
            examples = self._answer(impression, index, decided, positive, event.time_ms)
            if not impression.num_undecided:
                self._finish(impression)
        elif event.impression_id is not None and event.impression_id in self._closed:
            if self._closed[event.impression_id]:
                self.counts.feedback_repeated += 1
            else:
                self.counts.feedback_late += 1
            examples = []
        else:
            examples = self._observe_alone(event)
        if positive:
            self._sampler.observe_action(event.user_id, event.item_id)
        return examples

    def _answer(
        self, impression: OpenImpression, index: int, decided: int, positive: int, time_ms: int
    ) -> list[JoinedExample]:
        if time_ms - impression.shown_ms >= self._config.attribution_window_ms:
            self.counts.feedback_late += 1
            return []
        examples = impression.answer(index, decided, positive, time_ms)
        if examples is None:
            self.counts.feedback_repeated += 1
            return []
        self.counts.feedback_joined += 1
        return examples

    def _observe_alone(self, event: Feedback) -> list[JoinedExample]:
        """Take in feedback whose impression is not named, or has not come yet."""
        group = self._groups.use(event)
        self._sampler.observe_items((event.item_id,))
        if event.impression_id is None:
            return self._emit_organic(group, event.time_ms)
        due_ms = event.time_ms + self._config.attribution_window_ms
        if not self._early.add(event.impression_id, group, due_ms):
            self.counts.feedback_repeated += 1
        if len(self._early) > self._config.max_pending:
            oldest = self._early.take_oldest()
            return self._give_up_waiting(oldest, max(oldest.time_ms, self._watermark_ms))
        return []

    def _organic_demand(self, event: Feedback) -> ScoreDemand | None:
        if self._answered(event) is not None or event.impression_id in self._closed:
            return None
        group = self._groups.make(event)
        can_have_examples = group.decided if event.impression_id is None else group.positive
        if not can_have_examples:
            return None
        return ScoreDemand(
            impression_id=group.group_id,
            user_id=event.user_id,
            item_ids=group.item_ids,
            time_ms=event.time_ms,
            context=event.context,
            organic=True,
        )

    def _join_early(self, impression: OpenImpression, group: OrganicGroup) -> list[JoinedExample]:
        """Join feedback that came before its impression; it is no organic group after all."""
        if group.positive:
            self._finished.append(group.group_id)
        item_id = group.item_ids[0]
        if item_id not in impression.item_ids or group.user_id != impression.user_id:
            self.counts.feedback_contradictory += 1
            return []
        index = impression.item_ids.index(item_id)
        return self._answer(impression, index, group.decided, group.positive, group.time_ms)

    def _give_up_waiting(self, group: OrganicGroup, revealed_ms: int) -> list[JoinedExample]:
        if group.positive:
            return self._emit_organic(group, revealed_ms)
        self.counts.feedback_orphaned += 1
        return []

    def _emit_organic(self, group: OrganicGroup, revealed_ms: int) -> list[JoinedExample]:
        self.counts.feedback_organic += 1
        self._finished.append(group.group_id)
        return group.examples(self._heads.num_heads, revealed_ms)

    def _answered(self, event: Feedback) -> OpenImpression | None:
        """Return the open impression that feedback answers, None when there is none."""
        if event.impression_id is None:
            return None
        impression = self._open.get(event.impression_id)
        if impression is None:
            return None
        if event.item_id not in impression.item_ids:
            self.counts.feedback_contradictory += 1
            raise DecodeError(
                f"feedback.item_id: expected an item of impression {event.impression_id!r}, "
                f"got {event.item_id!r}"
            )
        if event.user_id != impression.user_id:
            self.counts.feedback_contradictory += 1
            raise DecodeError(
                f"feedback.user_id: expected {impression.user_id!r}, who was shown impression "
                f"{event.impression_id!r}, got {event.user_id!r}"
            )
        return impression

    def _settle(self, impression: OpenImpression, due_ms: int) -> list[JoinedExample]:
        """Do what is due: early negatives first, the end of the window later."""
        if self._config.policy == "fast" and not impression.is_assumed:
            self._wait(impression, self._config.attribution_window_ms)
            return impression.assume(due_ms)
        examples = [] if impression.is_assumed else impression.close(due_ms)
        self._finish(impression)
        return examples

    def _settle_oldest(self) -> list[JoinedExample]:
        """Settle the impression that waits longest, with what is known."""
        impression = next(iter(self._open.values()))
        now_ms = max(impression.shown_ms, self._watermark_ms)
        if self._config.policy == "wait":
            examples = impression.close(now_ms)
        else:
            examples = [] if impression.is_assumed else impression.assume(now_ms)
        self.counts.impressions_settled_early += 1
        self._finish(impression)
        return examples

    def _wait(self, impression: OpenImpression, wait_ms: int) -> None:
        impression.due_ms = impression.shown_ms + wait_ms
        heappush(self._due, (impression.due_ms, impression.impression_id))
        # Impressions decided by feedback leave outdated entries; no more than half are kept.
        if len(self._due) > 2 * len(self._open) + 1_000:
            self._rebuild_due()

    def _rebuild_due(self) -> None:
        self._due = [(one.due_ms, one.impression_id) for one in self._open.values()]
        heapify(self._due)

    def _finish(self, impression: OpenImpression) -> None:
        del self._open[impression.impression_id]
        self._remember_closed(impression.impression_id, decided=not impression.num_undecided)
        self._finished.append(impression.impression_id)

    def _remember_closed(self, impression_id: str, *, decided: bool) -> None:
        self._closed[impression_id] = decided
        if len(self._closed) > self._config.max_closed:
            self._closed.popitem(last=False)

    def _is_known(self, impression_id: str) -> bool:
        return impression_id in self._open or impression_id in self._closed

    def _is_closed_at(self, shown_ms: int) -> bool:
        return shown_ms + self._config.attribution_window_ms <= self._watermark_ms

    def save(self) -> State:
        """Return everything `load` needs."""
        return {
            "open": impressions_state(list(self._open.values())),
            "closed": list(self._closed),
            "closed_decided": np.array(list(self._closed.values()), np.bool_),
            "early": self._early.save(),
            "sampler": self._sampler.save(),
            "finished": list(self._finished),
            "watermark_ms": self._watermark_ms,
            "counts": asdict(self.counts),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        impressions = impressions_from(state["open"], self._heads.num_heads)
        self._open = OrderedDict((one.impression_id, one) for one in impressions)
        self._rebuild_due()
        decided = state["closed_decided"].tolist()
        self._closed = OrderedDict(zip(state["closed"], decided, strict=True))
        self._early.load(state["early"])
        self._sampler.load(state["sampler"])
        self._groups.forget()
        self._finished = list(state["finished"])
        self._watermark_ms = state["watermark_ms"]
        self.counts = JoinerCounts(**state["counts"])
