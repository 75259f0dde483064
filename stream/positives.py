"""Positive actions: what the retrieval towers learn from."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from domain.events import Features, Feedback, Impression
from domain.examples import PositiveAction
from domain.features import FeatureSchema
from domain.requests import History, UserView
from domain.state import State
from stream.columns import pack_features, unpack_features
from stream.feature_store import FeatureStore
from stream.packing import pack, unpack

_REMEMBERED = 20_000
"""Lists whose moment is remembered: nearly all clicks come before so many others were shown."""


class PositiveQueue:
    """Collects actions that make the primary label head positive, until the next learning step."""

    def __init__(self, schema: FeatureSchema) -> None:
        self._kind = schema.heads[0].feedback_kind
        self._positive_at = schema.heads[0].positive_at
        self._user_fields = schema.of("user")
        self._context_fields = schema.of("context")
        self._waiting: list[PositiveAction] = []
        self._contexts: dict[str, Features] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def observe_shown(self, impression: Impression) -> None:
        """Remember the moment of a shown list, for the actions that answer it."""
        if not impression.context:
            return
        self._contexts[impression.event_id] = impression.context
        if len(self._contexts) > _REMEMBERED:
            del self._contexts[next(iter(self._contexts))]

    def observe(self, feedback: Feedback, store: FeatureStore) -> None:
        """Take in feedback; call it before `store` learns of the feedback."""
        if feedback.kind != self._kind or feedback.value < self._positive_at:
            return
        view = store.user_view(feedback.user_id, feedback.time_ms)
        context = feedback.context or self._contexts.get(feedback.impression_id or "", {})
        self._waiting.append(PositiveAction(view, feedback.item_id, feedback.time_ms, context))

    def take(self) -> list[PositiveAction]:
        """Return what waits, oldest first, and start anew."""
        taken, self._waiting = self._waiting, []
        return taken

    def save(self) -> State:
        """Return the waiting actions with their user views."""
        return {
            "rows": [
                {
                    "user_id": action.user.user_id,
                    "history": list(action.user.history.item_ids),
                    "last_impression_ms": action.user.last_impression_ms,
                    "session_position": action.user.session_position,
                    "item_id": action.item_id,
                    "time_ms": action.time_ms,
                }
                for action in self._waiting
            ],
            "features": pack_features(
                self._user_fields, [action.user.features for action in self._waiting]
            ),
            "contexts": pack_features(
                self._context_fields, [action.context for action in self._waiting]
            ),
            "shown_ids": list(self._contexts),
            "shown": pack_features(self._context_fields, list(self._contexts.values())),
            "histories": pack(
                [
                    {"times_ms": one.user.history.times_ms, "outcomes": one.user.history.outcomes}
                    for one in self._waiting
                ]
            ),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        rows = state["rows"]
        histories = unpack(state["histories"], len(rows))
        features = unpack_features(self._user_fields, state["features"], len(rows))
        fields = self._context_fields
        contexts = unpack_features(fields, state["contexts"], len(rows))
        self._waiting = [
            _action_from(*parts) for parts in zip(rows, features, contexts, histories, strict=True)
        ]
        shown_ids = state["shown_ids"]
        shown = unpack_features(fields, state["shown"], len(shown_ids))
        self._contexts = dict(zip(shown_ids, shown, strict=True))


def _action_from(
    row: State, features: Features, context: Features, history: dict[str, NDArray[Any]]
) -> PositiveAction:
    view = UserView(
        user_id=row["user_id"],
        history=History(tuple(row["history"]), history["times_ms"], history["outcomes"]),
        features=features,
        last_impression_ms=row["last_impression_ms"],
        session_position=row["session_position"],
    )
    return PositiveAction(view, row["item_id"], row["time_ms"], context)
