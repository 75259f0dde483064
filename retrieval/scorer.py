"""Towers and prior, put together into scores.

    score(user, item) = a * log(prior(user, item) + eps) + query(user) . vector(item) + bias(item)

Shape legend: B = users, R = items asked for, C = columns of the softmax, T = history, D = width,
P = (user, item) pairs with a transition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from domain.events import Features
from domain.features import FeatureSchema
from domain.state import State
from domain.state_reading import StateReader
from retrieval.item_tower import ItemTower, ItemVectors
from retrieval.losses import softmax_loss
from retrieval.negatives import Columns
from retrieval.prior import PriorConfig, PriorFeatures, StreamingPrior
from retrieval.prior_weights import PriorWeights
from retrieval.query_tower import QueryTower
from retrieval.row_table import RowTable
from retrieval.tower_config import TowerConfig
from retrieval.user_batch import UserBatch


class Scorer:
    """Everything a score is made of. Reading it is safe from many threads; learning is not."""

    def __init__(
        self,
        schema: FeatureSchema,
        tower: TowerConfig,
        prior: PriorConfig,
        generator: torch.Generator,
    ) -> None:
        self.items = ItemTower(schema, tower, generator)
        self.queries = QueryTower(schema, tower, generator)
        self.prior = StreamingPrior(prior)
        self.weights = PriorWeights(prior)

    @property
    def tables(self) -> tuple[RowTable, ...]:
        """Return the tables that learn by row."""
        return (*self.items.tables, *self.queries.tables)

    @property
    def dense(self) -> nn.ModuleList:
        """Return the modules whose parameters learn densely, the prior's weights excepted."""
        return nn.ModuleList([self.queries, self.items.content])

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`."""
        self.items.grow(num_rows)
        self.prior.grow(num_rows)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Start rows anew that now belong to other items."""
        self.items.reset(rows)
        self.prior.reset(rows)

    def take_delta(self) -> State:
        """Return what changed of towers and prior since the last call."""
        return {
            "items": self.items.take_delta(),
            "queries": self.queries.take_delta(),
            "prior": self.prior.take_delta(),
            "weights": self.weights.save(),
        }

    def read_delta(self, reader: StateReader, num_rows: int, num_values: int) -> State:
        """Check what `take_delta` of another scorer returned.

        Args:
            reader: what it returned.
            num_rows: items that the other scorer has.
            num_values: feature values of items that it had before the delta.

        Raises:
            SnapshotError: it is something else.
        """
        return {
            "num_rows": num_rows,
            "items": self.items.read_delta(reader.part("items"), num_rows, num_values),
            "queries": self.queries.read_delta(reader.part("queries")),
            "prior": self.prior.read_delta(reader.part("prior"), num_rows),
            "weights": self.weights.read_delta(reader.part("weights")),
        }

    def apply_delta(self, delta: State) -> None:
        """Score as the other scorer does."""
        self.items.apply_delta(delta["items"])
        self.queries.apply_delta(delta["queries"])
        self.prior.apply_delta(delta["prior"], delta["num_rows"])
        self.weights.restore(delta["weights"])

    def truncate(self, num_rows: int, num_values: int) -> None:
        """Take away items from row `num_rows` on, which were reset, and their values likewise."""
        self.items.truncate(num_rows, num_values)
        self.prior.truncate(num_rows)

    @torch.no_grad()
    def embed_users(self, users: UserBatch, features: Sequence[Features]) -> Tensor:
        """Return query vectors float32 (B, D)."""
        if not users.history_BT.shape[1]:
            items_BTD = torch.zeros((len(users), 0, self.items.ids.width))
        else:
            items_BTD = self._history_vectors(users)
        query_BD: Tensor = self.queries(users, features, items_BTD)
        return query_BD

    def _history_vectors(self, users: UserBatch) -> Tensor:
        rows, position_BT = np.unique(np.maximum(users.history_BT, 0), return_inverse=True)
        vectors_RD = self.items.embed(rows).vectors_RD
        return vectors_RD[torch.from_numpy(position_BT.reshape(users.history_BT.shape))]

    @torch.no_grad()
    def scores(
        self, query_BD: Tensor, users: UserBatch, rows: NDArray[np.int64] | None, num_items: int
    ) -> Tensor:
        """Return scores float32 (B, R) of ascending rows (None: all), whether available or not."""
        counted = self.prior.features(users.recent_BK, users.times_ms, rows, num_items)
        return self._logits(query_BD, self.items.embed(rows), counted)

    @torch.no_grad()
    def index_vectors(self, rows: NDArray[np.int64], num_items: int) -> NDArray[np.float32]:
        """Return [vector, a * log(popularity + eps) + bias] of rows, float32 (R, D + 1).

        The inner product with [query, 1] is the score without transitions.
        """
        embedded = self.items.embed(rows)
        shares_HR = torch.from_numpy(self.prior.shares(rows, num_items))
        last_R1 = (self.weights.item_part(shares_HR) + embedded.bias_R).unsqueeze(1)
        return torch.cat([embedded.vectors_RD, last_R1], dim=1).numpy()

    @torch.no_grad()
    def popularity(self, num_items: int) -> NDArray[np.float32]:
        """Return the blended popularity of all rows, 1.0 for an item as popular as the average."""
        shares_HN = torch.from_numpy(self.prior.shares(None, num_items))
        return (self.weights.blend() @ shares_HN).numpy()

    def loss(
        self, users: UserBatch, features: Sequence[Features], columns: Columns, num_items: int
    ) -> Tensor:
        """Return the mean loss of B users, ready for the backward pass."""
        rows = columns.rows
        if rows is not None:
            rows = np.union1d(rows, users.history_BT[users.history_BT >= 0])
        embedded = self.items.embed(rows, learning=True)
        history_BT = _positions(users.history_BT, rows)
        items_BTD = functional.embedding(history_BT, embedded.vectors_RD)
        query_BD = self.queries(users, features, items_BTD, learning=True)
        counted = self.prior.features(users.recent_BK, users.times_ms, columns.rows, num_items)
        chosen = embedded
        if columns.rows is not None:
            column_C = _positions(columns.rows, rows)
            chosen = ItemVectors(embedded.vectors_RD[column_C], embedded.bias_R[column_C])
        logits_BC = self._logits(query_BD, chosen, counted)
        correction = columns.correction_C
        return softmax_loss(
            logits_BC,
            torch.from_numpy(columns.target_B),
            None if correction is None else torch.from_numpy(correction),
        )

    def _logits(self, query_BD: Tensor, embedded: ItemVectors, counted: PriorFeatures) -> Tensor:
        shares_HR = torch.from_numpy(counted.shares_HR)
        base_R = self.weights.item_part(shares_HR) + embedded.bias_R
        logits_BR = torch.addmm(base_R, query_BD, embedded.vectors_RD.T)
        if len(counted.pair_user):
            column_P = torch.from_numpy(counted.pair_column)
            bonus_P = self.weights.pair_bonus(
                shares_HR[:, column_P], torch.from_numpy(counted.pair_values_PF)
            )
            flat_P = torch.from_numpy(counted.pair_user) * logits_BR.shape[1] + column_P
            logits_BR.view(-1).index_add_(0, flat_P, bonus_P)
        return logits_BR


def _positions(wanted: NDArray[np.int64], rows: NDArray[np.int64] | None) -> Tensor:
    """Return where each wanted row stands among ascending rows (None: all); padding gets 0."""
    if rows is None:
        return torch.from_numpy(np.maximum(wanted, 0))
    return torch.from_numpy(np.searchsorted(rows, np.maximum(wanted, rows[0])))
