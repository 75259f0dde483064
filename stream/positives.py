"""Positive actions: what the retrieval towers learn from."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from domain.events import Features, Feedback
from domain.examples import PositiveAction
from domain.features import FeatureSchema
from domain.requests import History, UserView
from domain.state import State
from stream.columns import pack_features, unpack_features
from stream.feature_store import FeatureStore
from stream.packing import pack, unpack


class PositiveQueue:
    """Collects actions that make the primary label head positive, until the next learning step."""

    def __init__(self, schema: FeatureSchema) -> None:
        self._kind = schema.heads[0].feedback_kind
        self._positive_at = schema.heads[0].positive_at
        self._user_fields = schema.of("user")
        self._waiting: list[PositiveAction] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def observe(self, feedback: Feedback, store: FeatureStore) -> None:
        """Take in feedback; call it before `store` learns of the feedback."""
        if feedback.kind != self._kind or feedback.value < self._positive_at:
            return
        view = store.user_view(feedback.user_id, feedback.time_ms)
        self._waiting.append(PositiveAction(view, feedback.item_id, feedback.time_ms))

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
        self._waiting = [
            _action_from(*parts) for parts in zip(rows, features, histories, strict=True)
        ]


def _action_from(
    row: State, features: Features, history: dict[str, NDArray[Any]]
) -> PositiveAction:
    view = UserView(
        user_id=row["user_id"],
        history=History(tuple(row["history"]), history["times_ms"], history["outcomes"]),
        features=features,
        last_impression_ms=row["last_impression_ms"],
        session_position=row["session_position"],
    )
    return PositiveAction(view, row["item_id"], row["time_ms"])
