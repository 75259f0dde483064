"""The query tower: a user's positive history and features to one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from domain.events import Features
from domain.features import FeatureSchema
from domain.state import State
from domain.state_reading import StateReader
from encoders.shape import BackboneShape
from retrieval.content_tower import ContentTower
from retrieval.feature_coder import FeatureCoder
from retrieval.history_encoder import HistoryEncoder
from retrieval.row_table import RowTable
from retrieval.tower_config import TowerConfig
from retrieval.user_batch import UserBatch


class MeanEncoder(nn.Module):
    """The baseline: the mean of the history's item vectors, through one linear map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix_DD = nn.Parameter(torch.eye(width))

    def forward(self, items_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Return float32 (B, D); zero for an empty history."""
        weight_BT = valid_BT / valid_BT.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("btd,bt->bd", items_BTD, weight_BT) @ self.mix_DD


class QueryTower(nn.Module):
    """Embeds users at the moment of a request; B users, T events, D width."""

    def __init__(
        self, schema: FeatureSchema, config: TowerConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.coder = FeatureCoder(
            schema,
            "user",
            max_multi_values=config.max_multi_values,
            max_values=config.max_values,
        )
        value_table = config.table(config.content_init_std, config.content_learning_rate)
        self.content = ContentTower(value_table, self.coder.num_numbers, generator)
        self.encoder: HistoryEncoder | MeanEncoder
        if config.encoder == "mean":
            self.encoder = MeanEncoder(config.width)
        else:
            shape = BackboneShape(
                width=config.width,
                container=config.max_history + 1,
                blocks=config.num_blocks,
                heads=config.num_heads,
                d_qk=config.width // config.num_heads,
                d_v=config.width // config.num_heads,
                ffn_multiple=config.ffn_multiple,
            )
            self.encoder = HistoryEncoder(shape, generator)

    @property
    def tables(self) -> tuple[RowTable, ...]:
        """Return the tables that learn by row."""
        return (self.content.values,)

    def admit(self, features: Sequence[Features]) -> None:
        """Give rows to feature values never seen."""
        if self.coder.num_slots:
            self.coder.code(list(features), admit=True)
            self.content.values.grow(self.coder.num_values)

    def forward(
        self,
        users: UserBatch,
        features: Sequence[Features],
        items_BTD: Tensor,
        *,
        learning: bool = False,
    ) -> Tensor:
        """Return query vectors float32 (B, D); zero for a user nothing is known of.

        Args:
            users: histories and times.
            features: latest features of each user.
            items_BTD: item vectors of `users.history_BT`; anything at padding.
            learning: whether feature-value vectors are lent with gradient.
        """
        query_BD = self._encode(users, items_BTD)
        if not (self.coder.num_slots or self.coder.num_numbers):
            return query_BD
        coded = self.coder.code(list(features), admit=False)
        known_BD: Tensor = self.content(coded, learning=learning)
        return query_BD + known_BD

    def _encode(self, users: UserBatch, items_BTD: Tensor) -> Tensor:
        valid_BT = torch.from_numpy(users.history_BT >= 0)
        if not users.history_BT.shape[1]:
            return torch.zeros((len(users), items_BTD.shape[2]))
        if isinstance(self.encoder, MeanEncoder):
            mean_BD: Tensor = self.encoder(items_BTD, valid_BT)
            return mean_BD
        query_BD: Tensor = self.encoder(items_BTD, valid_BT, torch.from_numpy(users.seconds_BU))
        return query_BD

    def dense_state(self) -> dict[str, np.ndarray]:
        """Return the encoder's weights by name."""
        return {
            name: tensor.detach().numpy().copy()
            for name, tensor in self.encoder.state_dict().items()
        }

    def take_delta(self) -> State:
        """Return the encoder's weights, which are small, and the value vectors that moved."""
        return {
            "encoder": self.dense_state(),
            "content": self.content.take_delta(),
            "coder": self.coder.take_delta(),
        }

    def read_delta(self, reader: StateReader) -> State:
        """Check what `take_delta` of another tower returned.

        Raises:
            SnapshotError: it is something else.
        """
        encoder = reader.part("encoder")
        coder = self.coder.read_delta(reader.part("coder"), self.coder.num_values)
        num_values = self.coder.num_values + len(coder["values"])
        return {
            "encoder": {
                name: encoder.array(name, own.dtype, own.shape)
                for name, own in self.dense_state().items()
            },
            "content": self.content.read_delta(reader.part("content"), num_values),
            "coder": coder,
        }

    def apply_delta(self, delta: State) -> None:
        """Embed as the other tower does."""
        self.coder.apply_delta(delta["coder"])
        self.content.apply_delta(delta["content"])
        self._load_encoder(delta["encoder"])

    def save(self) -> State:
        """Return weights, value vectors and their map."""
        return {
            "encoder": self.dense_state(),
            "content": self.content.save(),
            "coder": self.coder.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self.coder.load(state["coder"])
        self.content.load(state["content"])
        self._load_encoder(state["encoder"])

    def _load_encoder(self, arrays: State) -> None:
        weights = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        self.encoder.load_state_dict(weights)
