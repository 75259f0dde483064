"""The retrieval learner: catalog, counts, towers and index behind the four verbs.

Reading order of the package: `prior` counts, `item_tower` and `query_tower` embed, `scorer` puts
both together, `negatives` and `losses` say what is learned from, `live_index` and `retriever`
answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from domain.errors import ConfigError, ModelError, NonFiniteLossError, SnapshotError
from domain.events import ItemUpdate
from domain.examples import LearnReport, PositiveAction
from domain.features import FeatureSchema
from domain.requests import Candidates, RetrievalRequest, UserView
from domain.state import State
from domain.state_reading import StateReader
from retrieval.catalog import Catalog
from retrieval.eligibility import Eligibility
from retrieval.id_rows import UNKNOWN
from retrieval.index_care import IndexCare, SharedLock
from retrieval.item_columns import ItemColumns
from retrieval.live_index import LiveIndex
from retrieval.negatives import NegativeSampler, NegativesConfig
from retrieval.optimizer import ScorerOptimizer
from retrieval.prior import PriorConfig
from retrieval.provisional import ItemParts, Provisional
from retrieval.ranks import ranks_of_targets
from retrieval.retriever import Retriever
from retrieval.scorer import Scorer
from retrieval.segments import SegmentPopularity, SegmentsConfig
from retrieval.tower_config import TowerConfig
from retrieval.user_batch import UserBatch, encode_users
from retrieval.vector_index import IndexConfig

# Scores held at once while ranking: 16 million float32 are 64 MB.
_SCORES_AT_ONCE = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalConfig:
    """Settings of retrieval.

    Attributes:
        max_items: items kept; beyond it, those taken out and those not seen for longest leave.
        step_examples: actions per gradient step; a larger micro-batch makes several steps, each
            with counts that know the one before.
    """

    tower: TowerConfig = field(default_factory=TowerConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    segments: SegmentsConfig = field(default_factory=SegmentsConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    max_items: int = 1_000_000
    step_examples: int = 64

    def __post_init__(self) -> None:
        if self.step_examples < 1:
            raise ConfigError(
                f"retrieval.step_examples must be at least 1, got {self.step_examples}"
            )
        if self.max_items < self.step_examples:
            raise ConfigError(
                f"retrieval.max_items must be at least step_examples ({self.step_examples}), "
                f"got {self.max_items}"
            )

    def shapes(self) -> dict[str, int | str | list[int] | list[str]]:
        """Return the settings that decide what a saved state looks like."""
        tower, prior = asdict(self.tower), asdict(self.prior)
        names = ("width", "encoder", "max_history", "num_blocks", "num_heads", "ffn_multiple")
        return {
            **{f"tower.{name}": tower[name] for name in (*names, "max_multi_values")},
            "prior.popularity_half_lives_ms": list(prior["popularity_half_lives_ms"]),
            "prior.transition_half_lives_ms": list(prior["transition_half_lives_ms"]),
            "prior.num_recent": prior["num_recent"],
            "prior.max_successors": prior["max_successors"],
            "negatives.reservoir": self.negatives.reservoir,
            "segments.features": list(self.segments.features),
            "segments.half_life_ms": self.segments.half_life_ms,
        }


class RetrievalModel:
    """Implements `domain.learners.RetrievalLearner` and `domain.deltas.DeltaLearner`."""

    def __init__(self, schema: FeatureSchema, config: RetrievalConfig, seed: int) -> None:
        self._schema = schema
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        self._catalog = Catalog(config.max_items)
        self._scorer = Scorer(schema, config.tower, config.prior, self._generator)
        self._optimizer = ScorerOptimizer(
            self._scorer,
            dense_rate=config.tower.dense_learning_rate,
            prior_rate=config.prior.learning_rate,
        )
        self._sampler = NegativeSampler(config.negatives, np.random.default_rng(seed))
        self._live_index = LiveIndex(config.index, config.tower.width + 1, self._index_vectors)
        self._columns = ItemColumns(schema)
        config.segments.check(schema)
        self._segments = SegmentPopularity(config.segments)
        self._retriever = Retriever(
            self._scorer,
            self._catalog,
            self._live_index,
            Eligibility(self._catalog, self._columns),
            self._segments,
        )
        self._provisional: Provisional | None = None
        self._checked: tuple[State, Provisional, State] | None = None

    @property
    def num_items(self) -> int:
        """Return how many items can be recommended."""
        return self._catalog.num_available

    def index_care(self, lock: SharedLock) -> IndexCare:
        """Return what looks after the index while others search and write under `lock`."""
        return IndexCare(self._live_index, self._config.index, self._config.tower.width + 1, lock)

    def sample_items(self, limit: int) -> tuple[str, ...]:
        """Return at most `limit` items that can be recommended, spread evenly over the catalog."""
        rows = np.flatnonzero(self._catalog.available)
        if len(rows) > limit:
            rows = rows[np.arange(limit) * len(rows) // limit]
        return tuple(self._catalog.ids.ids_of(rows))

    def item_vectors(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of items as they are now, float32 (K, D); NaN for unknown items."""
        rows = np.array([self._catalog.ids.row(item_id) for item_id in item_ids], np.int64)
        known = rows != UNKNOWN
        vectors_KD = np.full((len(rows), self._config.tower.width), np.nan, np.float32)
        with torch.no_grad():
            vectors_KD[known] = self._scorer.items.embed(rows[known]).vectors_RD.numpy()
        return vectors_KD

    def observe_item(self, update: ItemUpdate) -> None:
        """Take an item into the catalog, refresh its features, or take it out.

        An item taken out keeps what was learned of it, in case it comes back. What a twin observes
        is taken back by the next delta, see `follow`.
        """
        if self._provisional is not None:
            self._provisional.note(update.item_id)
        row = self._catalog.ids.row(update.item_id)
        if not update.available:
            if row != UNKNOWN:
                self._catalog.set_available(row, available=False)
                self._live_index.drop(np.array([row]))
            return
        self._admit([update.item_id], [update.time_ms])
        row = self._catalog.ids.row(update.item_id)
        self._catalog.set_available(row, available=True)
        self._scorer.items.describe(row, update.features)
        self._columns.describe(row, update.features)
        self._live_index.mark(row)

    def retrieve(self, request: RetrievalRequest) -> Candidates:
        """Return the best candidates, best first.

        Safe from several threads on a model that nobody learns on and no item is observed by.
        """
        if self._live_index.num_waiting:
            self._live_index.flush()
            self._retriever.refresh()
        return self._retriever.retrieve(request, self._encode([request.user], [request.time_ms]))

    def popular(self, request: RetrievalRequest) -> Candidates:
        """Return what is popular and recent, best first, for when nothing else can answer."""
        return self._retriever.popular(request)

    def target_ranks(self, batch: Sequence[PositiveAction]) -> NDArray[np.int64]:
        """Return the 1-based exact rank of each action's item over the whole catalog as it stands.

        Everything in a user's history is taken out first, as nobody recommends it again; a target
        that the user had used before is taken out with it and so is a miss. Ties go to the item
        that entered the catalog first, as in `retrieve`.

        Returns:
            int64 (B,); -1 for a miss (unknown, taken out, or used before), 0 when the user has no
            history.
        """
        ranks = np.zeros(len(batch), dtype=np.int64)
        chunk = max(1, _SCORES_AT_ONCE // max(self._catalog.num_rows, 1))
        evaluated = [i for i, action in enumerate(batch) if len(action.user.history)]
        for first in range(0, len(evaluated), chunk):
            chosen = evaluated[first : first + chunk]
            ranks[chosen] = self._ranks([batch[i] for i in chosen])
        return ranks

    def _ranks(self, batch: Sequence[PositiveAction]) -> NDArray[np.int64]:
        if not self._catalog.num_rows:
            return np.full(len(batch), -1, dtype=np.int64)
        users = self._encode_actions(batch)
        query_BD = self._scorer.embed_users(users, [action.user.features for action in batch])
        scores_BN = self._scorer.scores(query_BD, users, None, self._catalog.num_available)
        available = self._catalog.available
        if not available.all():
            scores_BN[:, torch.from_numpy(~available)] = -math.inf
        scores_BN[torch.from_numpy(users.used_user), torch.from_numpy(users.used_row)] = -math.inf
        targets = self._catalog.ids.rows(action.item_id for action in batch)
        return ranks_of_targets(scores_BN, targets)

    def learn(self, batch: Sequence[PositiveAction]) -> LearnReport:
        """Learn from a micro-batch: towers first, then the prior's counts, then the index.

        A step whose loss or gradient is not finite changes no weight and its examples count as
        quarantined; the counts take them in all the same, as they are facts.
        """
        assert self._provisional is None, "a twin learns from deltas only"
        total, learned, quarantined = 0.0, 0, 0
        size = self._config.step_examples
        for first in range(0, len(batch), size):
            chunk = batch[first : first + size]
            self._admit([a.item_id for a in chunk], [a.time_ms for a in chunk])
            targets = self._catalog.ids.rows(action.item_id for action in chunk)
            users = self._encode_actions(chunk)
            try:
                loss, num = self._step(chunk, targets, users)
            except NonFiniteLossError:
                quarantined += len(chunk)
            else:
                total, learned = total + loss * num, learned + num
            self._scorer.prior.learn(targets, users.recent_BK[:, 0], users.times_ms)
            self._sampler.learn(targets)
        self._segments.learn(batch)
        if batch:
            touched = self._catalog.ids.known(action.item_id for action in batch)
            self._live_index.refresh(touched, self._catalog.available)
            self._retriever.refresh()
        return LearnReport(total / learned if learned else math.nan, learned, quarantined)

    def scale_learning_rate(self, factor: float) -> None:
        """Take steps of this many times the configured size from now on; not saved."""
        self._optimizer.scale_learning_rate(factor)

    def rebuild_index(self) -> None:
        """Build the index anew from the vectors as they are."""
        self._live_index.rebuild(self._catalog.available)

    def _step(
        self, chunk: Sequence[PositiveAction], targets: NDArray[np.int64], users: UserBatch
    ) -> tuple[float, int]:
        """Move the weights once; return the mean loss and the number of actions learned from.

        Nothing is learned from an action on an item that has been taken out.
        """
        kept = self._catalog.available[targets]
        if not kept.all():
            chunk = [action for action, keep in zip(chunk, kept, strict=True) if keep]
            if not chunk:
                return 0.0, 0
            targets, users = targets[kept], self._encode_actions(chunk)
        features = [action.user.features for action in chunk]
        self._scorer.queries.admit(features)
        columns = self._sampler.columns(targets, self._catalog.available)
        loss = self._scorer.loss(users, features, columns, self._catalog.num_available)
        return self._optimizer.step(loss), len(chunk)

    def take_delta(self) -> State:
        """Return what changed since the last call, or since this model was made or loaded.

        That is everything an answer needs. Optimiser state, negatives and random state stay, and
        so does the index: a twin keeps its own, over the same vectors.
        """
        return {
            "catalog": self._catalog.take_delta(),
            "columns": self._columns.take_delta(),
            "scorer": self._scorer.take_delta(),
            "segments": self._segments.take_delta(),
        }

    def follow(self) -> None:
        """Become a twin: from now on only deltas teach.

        Items observed meanwhile are there at once and are taken back by the next `apply_delta`.
        Until then they may exceed `max_items`: who leaves is for the trainer to say.
        """
        parts = ItemParts(
            catalog=self._catalog,
            scorer=self._scorer,
            columns=self._columns,
            live_index=self._live_index,
        )
        self._provisional = Provisional(parts)

    def check_delta(self, state: State) -> None:
        """Raise what `apply_delta` would raise; change nothing.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin.
        """
        self._checked = (state, *self._read_delta(state))

    def apply_delta(self, state: State) -> None:
        """Become what the model was that `state` was taken from; all of it or nothing.

        The index takes in who is new and who was acted upon, and others in turns, as a step of
        learning does.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin; nothing was changed.
        """
        checked, self._checked = self._checked, None
        # What was checked just now is not checked again while readers wait.
        if checked is None or checked[0] is not state:
            checked = (state, *self._read_delta(state))
        _, provisional, delta = checked
        provisional.take_back()
        catalog, columns, scorer = delta["catalog"], delta["columns"], delta["scorer"]
        self._catalog.apply_delta(catalog)
        self._columns.apply_delta(columns, catalog["num_rows"])
        self._scorer.apply_delta(scorer)
        self._segments.apply_delta(delta["segments"])
        provisional.begin()
        available = self._catalog.available
        self._live_index.drop(catalog["rows"][~available[catalog["rows"]]])
        acted_upon = scorer["prior"]["popularity"]["rows"]
        touched = np.unique(np.concatenate([catalog["rows"], columns["rows"], acted_upon]))
        self._live_index.refresh(touched, available)
        self._retriever.refresh()

    def _read_delta(self, state: State) -> tuple[Provisional, State]:
        provisional = self._provisional
        if provisional is None:
            raise SnapshotError("retrieval: expected a model that follows, got one that learns")
        reader = StateReader(state, "retrieval")
        catalog = self._catalog.read_delta(reader.part("catalog"), provisional.num_rows)
        num_rows, num_values = catalog["num_rows"], provisional.num_values
        scorer = reader.part("scorer")
        return provisional, {
            "catalog": catalog,
            "columns": self._columns.read_delta(reader.part("columns"), num_rows),
            "scorer": self._scorer.read_delta(scorer, num_rows, num_values),
            "segments": self._segments.read_delta(reader.part("segments")),
        }

    def _admit(self, item_ids: Sequence[str], times_ms: Sequence[int]) -> None:
        if self._provisional is None:
            self._make_room(item_ids)
        for item_id, time_ms in zip(item_ids, times_ms, strict=True):
            self._catalog.admit(item_id, time_ms)
        self._scorer.grow(self._catalog.num_rows)
        self._columns.grow(self._catalog.num_rows)
        self._sampler.grow(self._catalog.num_rows)

    def _make_room(self, item_ids: Sequence[str]) -> None:
        coming = {item_id for item_id in item_ids if item_id not in self._catalog.ids}
        evicted = self._catalog.make_room(len(coming), keep=item_ids)
        if len(evicted):
            self._live_index.drop(evicted)
            self._scorer.reset(evicted)
            self._columns.reset(evicted)
            self._sampler.reset(evicted)

    def _encode(self, users: Sequence[UserView], times_ms: Sequence[int]) -> UserBatch:
        return encode_users(
            users,
            times_ms,
            self._catalog.ids,
            max_history=self._config.tower.max_history,
            num_recent=self._config.prior.num_recent,
        )

    def _encode_actions(self, batch: Sequence[PositiveAction]) -> UserBatch:
        return self._encode([action.user for action in batch], [a.time_ms for a in batch])

    def _index_vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._scorer.index_vectors(rows, self._catalog.num_available)

    def save(self) -> State:
        """Return everything `load` needs.

        The index is brought up to date first, so that what goes on from here and what is restored
        from here search the same vectors.
        """
        self._live_index.synchronise(self._catalog.available)
        return {
            "schema": self._schema.hash,
            "shapes": self._config.shapes(),
            "catalog": self._catalog.save(),
            "columns": self._columns.save(),
            "items": self._scorer.items.save(),
            "queries": self._scorer.queries.save(),
            "prior": self._scorer.prior.save(),
            "segments": self._segments.save(),
            "prior_weights": self._scorer.weights.save(),
            "optimizer": self._optimizer.save(),
            "negatives": self._sampler.save(),
            "generator": self._generator.get_state().numpy().copy(),
            "index": self._live_index.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described; what was here before is gone.

        Raises:
            ModelError: the state belongs to another schema, or to models of other shapes.
        """
        if state["schema"] != self._schema.hash:
            raise ModelError(
                f"retrieval: expected a state of schema {self._schema.hash}, got {state['schema']}"
            )
        for name, here in self._config.shapes().items():
            if state["shapes"].get(name) != here:
                raise ModelError(
                    f"retrieval.{name}: expected a state saved with {here}, "
                    f"got {state['shapes'].get(name)}"
                )
        self._catalog.load(state["catalog"])
        self._columns.load(state["columns"])
        self._scorer.items.load(state["items"])
        self._scorer.queries.load(state["queries"])
        self._scorer.prior.load(state["prior"])
        self._segments.load(state["segments"])
        self._scorer.weights.restore(state["prior_weights"])
        self._optimizer.load(state["optimizer"])
        self._sampler.load(state["negatives"])
        self._generator.set_state(torch.from_numpy(np.array(state["generator"], dtype=np.uint8)))
        self._live_index.load(state["index"], self._catalog.available)
        self._retriever.refresh()
