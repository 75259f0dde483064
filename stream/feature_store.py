"""Feature store: what is known about users and items now, and requests built from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain
from sys import intern
from types import MappingProxyType
from typing import assert_never

import numpy as np

from domain.errors import ConfigError
from domain.events import (
    Event,
    Features,
    FeatureValue,
    Feedback,
    Impression,
    ItemUpdate,
    UserUpdate,
)
from domain.features import FeatureSchema
from domain.requests import History, RankingRequest, UserView
from domain.state import State
from stream.columns import pack_features, pack_strings, split_list, unpack_features, unpack_strings
from stream.exposure import ItemExposure
from stream.history import HistoryBounds, UserHistory, histories_from, histories_state
from stream.label_heads import LabelHeads

_NO_FEATURES: Features = MappingProxyType({})
_NEVER_MS = -(2**63)
_NO_HISTORY = History()
for _column in (_NO_HISTORY.times_ms, _NO_HISTORY.outcomes):
    _column.flags.writeable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStoreConfig:
    """How much is remembered.

    Attributes:
        max_users: users remembered; beyond it the least recently active one is dropped.
        max_items: items whose features are remembered; beyond it the least recently updated one
            is dropped, and counted.
        history_length: entries of a user's history.
        shown_length: a user's last impressions whose times are remembered; feedback on an older
            one enters her history at its own time.
        seen_length: items a user acted on that are remembered as seen; at least `history_length`.
        session_gap_ms: a longer pause between two impressions of a user begins a new session.
        enough_shows: times an item is shown until it is known well enough; exploration picks among
            those shown less.
    """

    max_users: int = 200_000
    max_items: int = 1_000_000
    history_length: int = 64
    shown_length: int = 32
    seen_length: int = 256
    session_gap_ms: int = 30 * 60 * 1000
    enough_shows: int = 100

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"feature_store.{name} must be positive, got {getattr(self, name)}"
                )
        if self.seen_length < self.history_length:
            raise ConfigError(
                f"feature_store.seen_length must be at least history_length "
                f"({self.history_length}), got {self.seen_length}"
            )


class _IdleQueue:
    """Finds the key whose time is oldest, ties by key, when times only ever grow.

    Every key has one entry, made with the time it had then; an entry found to be outdated goes back
    with the time its key has now. So being active costs nothing, and only dropping a key does.
    """

    def __init__(self, times_ms: Iterable[tuple[str, int]] = ()) -> None:
        self._heap = [(time_ms, key) for key, time_ms in times_ms]
        heapify(self._heap)

    def add(self, key: str, time_ms: int) -> None:
        """Take in a new key."""
        heappush(self._heap, (time_ms, key))

    def pop(self, time_of: Callable[[str], int]) -> str:
        """Take out the key whose time is oldest and return it."""
        while True:
            noted_ms, key = self._heap[0]
            time_ms = time_of(key)
            if time_ms == noted_ms:
                heappop(self._heap)
                return key
            heapreplace(self._heap, (time_ms, key))


class _User:
    """One user's record; `seen` is in order of arrival."""

    __slots__ = ("active_ms", "features", "features_ms", "history", "seen")

    def __init__(self) -> None:
        self.history = UserHistory()
        self.seen: dict[str, None] = {}
        self.features = _NO_FEATURES
        self.features_ms = _NEVER_MS
        self.active_ms = _NEVER_MS


class FeatureStore:
    """The single builder of ranking requests, in trainer and server alike.

    Views are snapshots: nothing observed later changes a request or view that was handed out.
    Labels are never seen before their time: a view at `time_ms` holds only impressions and
    feedback up to then, even when later ones arrived first. Features given by updates hold from
    their arrival on, because what was known before them is not kept.

    Reading from several threads is safe while none writes.

    Attributes:
        evicted_users: users dropped because there were too many.
        evicted_items: items whose features were dropped because there were too many.
    """

    def __init__(self, schema: FeatureSchema, config: FeatureStoreConfig | None = None) -> None:
        self._schema = schema
        self._config = config or FeatureStoreConfig()
        self._bounds = HistoryBounds(
            self._config.history_length, self._config.shown_length, self._config.session_gap_ms
        )
        self._heads = LabelHeads(schema)
        self._numeric = {field.name for field in schema.fields if field.kind == "numeric"}
        self._dense = {field.name for field in schema.fields if field.kind == "dense"}
        self._users: dict[str, _User] = {}
        self._idle_users = _IdleQueue()
        self._item_features: dict[str, Features] = {}
        self._item_times_ms: dict[str, int] = {}
        self._idle_items = _IdleQueue()
        self._exposure = ItemExposure(
            enough=self._config.enough_shows, max_items=self._config.max_items
        )
        self.evicted_users = 0
        self.evicted_items = 0

    def check(self, event: Event) -> None:
        """Check that an event's features fit the schema; changes nothing.

        Raises:
            SchemaError: naming the feature, what was expected and what came.
        """
        match event:
            case Impression():
                self._schema.check("context", event.context, "impression.context")
            case Feedback():
                self._schema.check("context", event.context, "feedback.context")
            case UserUpdate():
                self._schema.check("user", event.features, "user_update.features")
            case ItemUpdate():
                self._schema.check("item", event.features, "item_update.features")
            case _:
                assert_never(event)

    def observe(self, event: Event) -> None:
        """Take in an event.

        Raises:
            SchemaError: as `check`; nothing was changed.
        """
        self.check(event)
        match event:
            case Impression():
                history = self._touch(event.user_id, event.time_ms).history
                history.observe_shown(event.event_id, event.time_ms, self._bounds)
                self._exposure.observe_shown(item.item_id for item in event.items)
            case Feedback():
                self._observe_feedback(event)
            case UserUpdate():
                user = self._touch(event.user_id, event.time_ms)
                if event.time_ms >= user.features_ms:
                    user.features = self._plain(event.features)
                    user.features_ms = event.time_ms
            case ItemUpdate():
                self._observe_item(event)
                self._exposure.observe_item(event.item_id, available=event.available)
            case _:
                assert_never(event)

    def user_view(self, user_id: str, time_ms: int) -> UserView:
        """Return a user as known at `time_ms`; one who is not known has an empty view."""
        user = self._users.get(user_id)
        if user is None:
            return UserView(user_id, _NO_HISTORY, _NO_FEATURES)
        last_ms, position = user.history.shown.before(time_ms, self._bounds.session_gap_ms)
        return UserView(user_id, user.history.view(time_ms), user.features, last_ms, position)

    def item_features(self, item_id: str) -> Features:
        """Return an item's latest features, empty when none are known."""
        return self._item_features.get(item_id, _NO_FEATURES)

    def seen(self, user_id: str) -> frozenset[str]:
        """Return the items a user acted on, as far back as they are remembered.

        Those are items with a positive outcome and items of organic feedback.
        """
        user = self._users.get(user_id)
        return frozenset() if user is None else frozenset(user.seen)

    def least_shown(self, limit: int) -> list[tuple[str, int]]:
        """Return items of the catalog shown least, and how often; the newest first.

        Items that were shown `enough_shows` times are not among them.
        """
        return self._exposure.least_shown(limit)

    def request(
        self, user_id: str, item_ids: Sequence[str], time_ms: int, context: Features
    ) -> RankingRequest:
        """Return the request to score items for a user at `time_ms`.

        Raises:
            SchemaError: a context feature does not fit the schema.
        """
        self._schema.check("context", context, "request.context")
        features = self._item_features
        return RankingRequest(
            user=self.user_view(user_id, time_ms),
            item_ids=tuple(item_ids),
            item_features=tuple([features.get(item_id, _NO_FEATURES) for item_id in item_ids]),
            time_ms=time_ms,
            context=self._plain(context),
        )

    def _observe_feedback(self, event: Feedback) -> None:
        user = self._touch(event.user_id, event.time_ms)
        decided, positive = self._heads.decide(event.kind, event.value)
        if not decided:
            return
        # Interned, because the same item stands in many histories.
        item_id = intern(event.item_id)
        user.history.observe_action(
            item_id, event.impression_id, event.time_ms, positive, self._bounds
        )
        if positive or event.impression_id is None:
            user.seen.pop(item_id, None)
            user.seen[item_id] = None
            if len(user.seen) > self._config.seen_length:
                del user.seen[next(iter(user.seen))]

    def _observe_item(self, event: ItemUpdate) -> None:
        item_id = event.item_id
        known_ms = self._item_times_ms.get(item_id)
        if known_ms is None:
            if len(self._item_features) >= self._config.max_items:
                oldest = self._idle_items.pop(self._item_times_ms.__getitem__)
                del self._item_features[oldest], self._item_times_ms[oldest]
                self.evicted_items += 1
            self._idle_items.add(item_id, event.time_ms)
        elif event.time_ms < known_ms:
            return
        self._item_features[item_id] = self._plain(event.features)
        self._item_times_ms[item_id] = event.time_ms

    def _touch(self, user_id: str, time_ms: int) -> _User:
        """Return a user's record, made if need be, and mark her active."""
        user = self._users.get(user_id)
        if user is None:
            if len(self._users) >= self._config.max_users:
                del self._users[self._idle_users.pop(lambda key: self._users[key].active_ms)]
                self.evicted_users += 1
            user = self._users[user_id] = _User()
            self._idle_users.add(user_id, time_ms)
            user.active_ms = time_ms
        user.active_ms = max(user.active_ms, time_ms)
        return user

    def _plain(self, features: Features) -> Features:
        """Return a copy that nobody can change, with every number a float."""
        if not features:
            return _NO_FEATURES
        plain: dict[str, FeatureValue] = {}
        for name, value in features.items():
            if name in self._numeric:
                value = float(value)  # type: ignore[arg-type]  # `check` has seen to it
            elif name in self._dense:
                value = tuple(map(float, value))  # type: ignore[arg-type]
            plain[name] = value
        return MappingProxyType(plain)

    def save(self) -> State:
        """Return users and items as columns."""
        users, items = list(self._users.values()), self._item_features
        return {
            "user_ids": list(self._users),
            "user_active_ms": np.array([user.active_ms for user in users], np.int64),
            "user_features_ms": np.array([user.features_ms for user in users], np.int64),
            "user_features": pack_features(
                self._schema.of("user"), [user.features for user in users]
            ),
            "histories": histories_state([user.history for user in users]),
            "seen_lengths": np.array([len(user.seen) for user in users], np.int64),
            "seen": pack_strings(chain.from_iterable(user.seen for user in users)),
            "item_ids": list(items),
            "item_times_ms": np.array(list(self._item_times_ms.values()), np.int64),
            "item_features": pack_features(self._schema.of("item"), list(items.values())),
            "exposure": self._exposure.save(),
            "evicted_users": self.evicted_users,
            "evicted_items": self.evicted_items,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._load_users(state)
        item_ids, times_ms = state["item_ids"], state["item_times_ms"].tolist()
        features = unpack_features(self._schema.of("item"), state["item_features"], len(item_ids))
        self._item_times_ms = dict(zip(item_ids, times_ms, strict=True))
        self._item_features = dict(zip(item_ids, map(_frozen, features), strict=True))
        self._idle_items = _IdleQueue(self._item_times_ms.items())
        self._exposure.load(state["exposure"])
        self.evicted_users = state["evicted_users"]
        self.evicted_items = state["evicted_items"]

    def _load_users(self, state: State) -> None:
        user_ids = state["user_ids"]
        features = unpack_features(self._schema.of("user"), state["user_features"], len(user_ids))
        columns = zip(
            user_ids,
            state["user_active_ms"].tolist(),
            state["user_features_ms"].tolist(),
            features,
            histories_from(state["histories"]),
            split_list(unpack_strings(state["seen"]), state["seen_lengths"].tolist()),
            strict=True,
        )
        self._users = {}
        for user_id, active_ms, features_ms, user_features, history, seen in columns:
            user = self._users[user_id] = _User()
            user.active_ms, user.features_ms = active_ms, features_ms
            user.features, user.history = _frozen(user_features), history
            user.seen = dict.fromkeys(seen)
        self._idle_users = _IdleQueue((key, user.active_ms) for key, user in self._users.items())


def _frozen(features: dict[str, FeatureValue]) -> Features:
    return MappingProxyType(features) if features else _NO_FEATURES
