"""Negative sampler: items a user could have taken and did not, drawn inside the stream."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import log
from typing import Any
from zlib import crc32

import numpy as np

from domain.state import State
from stream.columns import pack_strings, split_list, unpack_strings

_RECENT_ACTIONS = 16
"""Items per user that are never her negatives. She has acted on few of the catalog's items, so a
negative she liked is rare; it would be common only among the items of her running session."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Negatives that may be used: `NegativeSampler.commit` makes it so.

    Attributes:
        log_sampling_rate: ln of the share of the eligible items that was drawn.
        random_state: state of the generator after the draw.
    """

    item_ids: tuple[str, ...]
    log_sampling_rate: float
    random_state: dict[str, Any]


class NegativeSampler:
    """Draws negatives uniformly from the distinct items the stream has shown or acted on.

    At most `max_items` items are held, the least recently met one giving way; the recent actions
    of at most `max_users` users are.
    """

    def __init__(self, max_items: int, max_users: int, rng_seed: int) -> None:
        self._max_items = max_items
        self._max_users = max_users
        self._items: list[str] = []
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently met first
        self._actions: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        seed = np.random.SeedSequence([rng_seed, crc32(b"joiner.negatives")])
        self._random = np.random.Generator(np.random.PCG64(seed))

    def __len__(self) -> int:
        """Return how many items are held."""
        return len(self._items)

    def observe_items(self, item_ids: Iterable[str]) -> None:
        """Take in items that were shown or acted on."""
        slots = self._slots
        for item_id in item_ids:
            if item_id in slots:
                slots.move_to_end(item_id)
            elif len(self._items) < self._max_items:
                slots[item_id] = len(self._items)
                self._items.append(item_id)
            else:
                _, slot = slots.popitem(last=False)
                slots[item_id] = slot
                self._items[slot] = item_id

    def observe_action(self, user_id: str, item_id: str) -> None:
        """Take in a user's positive action: the item is not among her next negatives."""
        recent = [other for other in self._actions.get(user_id, ()) if other != item_id]
        self._actions[user_id] = (*recent, item_id)[-_RECENT_ACTIONS:]
        self._actions.move_to_end(user_id)
        if len(self._actions) > self._max_users:
            self._actions.popitem(last=False)

    def draw(self, user_id: str, item_id: str, count: int) -> Draw:
        """Return up to `count` distinct negatives for a user's action on an item.

        Nothing changes, not even the generator: until something is committed or observed, the same
        question has the same answer.
        """
        excluded = {item_id, *self._actions.get(user_id, ())}
        num_eligible = len(self._items) - sum(other in self._slots for other in excluded)
        count = min(count, num_eligible)
        before = self._random.bit_generator.state
        chosen: dict[str, None] = {}
        if 4 * count > num_eligible:
            eligible = [other for other in self._items if other not in excluded]
            order = self._random.permutation(num_eligible)[:count]
            chosen = dict.fromkeys(eligible[at] for at in order.tolist())
        while len(chosen) < count:  # few tries: most items are eligible
            # A scaled uniform is seven times as fast here as `integers`; its bias is below 2**-30.
            for uniform in self._random.random(2 * count).tolist():
                other = self._items[int(uniform * len(self._items))]
                if other not in excluded and len(chosen) < count:
                    chosen[other] = None
        after = self._random.bit_generator.state
        self._random.bit_generator.state = before
        rate = log(count / num_eligible) if count else 0.0
        return Draw(tuple(chosen), rate, dict(after))

    def commit(self, draw: Draw) -> None:
        """Use a draw: the next one will be another."""
        self._random.bit_generator.state = draw.random_state

    def save(self) -> State:
        """Return items, recent actions and the state of the generator."""
        actions = list(self._actions.values())
        return {
            "items": list(self._items),
            "by_recency": np.array(list(self._slots.values()), np.int64),
            "users": list(self._actions),
            "action_lengths": np.array([len(items) for items in actions], np.int64),
            "actions": pack_strings(chain.from_iterable(actions)),
            "random": dict(self._random.bit_generator.state),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._items = list(state["items"])
        by_recency = state["by_recency"].tolist()
        self._slots = OrderedDict((self._items[slot], slot) for slot in by_recency)
        actions = split_list(unpack_strings(state["actions"]), state["action_lengths"].tolist())
        self._actions = OrderedDict(zip(state["users"], map(tuple, actions), strict=True))
        self._random.bit_generator.state = state["random"]
