"""Small worlds and builders that the retrieval tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from domain.events import Features
from domain.examples import PositiveAction
from domain.features import FeatureSchema
from domain.requests import History, UserView
from retrieval.learner import RetrievalConfig, RetrievalModel
from retrieval.tower_config import TowerConfig

MINUTE_MS = 60_000

ViewMaker = Callable[..., UserView]
ModelMaker = Callable[..., RetrievalModel]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def view() -> ViewMaker:
    """Return a builder of users: view("u", ["a", "b"]) took a, then b, a minute apart."""

    def build(
        user_id: str,
        item_ids: Sequence[str] = (),
        *,
        start_ms: int = 0,
        outcomes: Sequence[int] | None = None,
        features: Features | None = None,
    ) -> UserView:
        num = len(item_ids)
        history = History(
            tuple(item_ids),
            start_ms + MINUTE_MS * np.arange(num, dtype=np.int64),
            np.ones(num, np.int64) if outcomes is None else np.array(outcomes, np.int64),
        )
        return UserView(user_id, history, features or {})

    return build


@pytest.fixture
def small_model() -> ModelMaker:
    """Return a builder of models small enough for unit tests."""

    def build(
        schema: FeatureSchema | None = None, *, seed: int = 0, **settings: object
    ) -> RetrievalModel:
        tower = TowerConfig(width=8, max_history=8, num_blocks=1, id_learning_rate=0.1)
        settings.setdefault("tower", tower)
        config = RetrievalConfig(**settings)  # type: ignore[arg-type]
        return RetrievalModel(schema or FeatureSchema(), config, seed)

    return build


class World:
    """A stream of positive actions whose histories grow as they should."""

    def __init__(self) -> None:
        self.actions: list[PositiveAction] = []
        self._taken: dict[str, list[tuple[str, int]]] = {}
        self._features: dict[str, Features] = {}

    def describe(self, user_id: str, features: Features) -> None:
        """Give a user features from now on."""
        self._features[user_id] = features

    def user(self, user_id: str) -> UserView:
        """Return a user as known now."""
        taken = self._taken.get(user_id, [])
        history = History(
            tuple(item_id for item_id, _ in taken),
            np.array([time_ms for _, time_ms in taken], np.int64),
            np.ones(len(taken), np.int64),
        )
        return UserView(user_id, history, self._features.get(user_id, {}))

    def take(self, user_id: str, item_id: str, time_ms: int) -> PositiveAction:
        """Let a user take an item."""
        action = PositiveAction(self.user(user_id), item_id, time_ms)
        self.actions.append(action)
        self._taken.setdefault(user_id, []).append((item_id, time_ms))
        return action


@pytest.fixture
def world() -> World:
    """Return an empty world."""
    return World()


def learn_all(model: RetrievalModel, actions: Sequence[PositiveAction], batch: int = 16) -> None:
    """Learn a stream in micro-batches."""
    for first in range(0, len(actions), batch):
        model.learn(actions[first : first + batch])


@pytest.fixture
def learn() -> Callable[..., None]:
    """Return `learn_all`."""
    return learn_all
