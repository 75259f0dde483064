"""From items in order to the list that is shown: diversity, then places to explore."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.requests import Candidates, RetrievalRequest
from monitoring.metrics import ServingMetrics
from serving import request_id, stages
from serving.diversity import DiversityConfig, diversified
from serving.exploration import ExplorationConfig, Explorer
from serving.live_models import LiveModels

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ShownList:
    """A list as shown.

    Attributes:
        items: in the order to show, with the scores they were ordered by.
        probabilities: the chance that each stood exactly there.
    """

    items: Candidates
    probabilities: tuple[float, ...]


class ListMaker:
    """Makes lists by the rules of a configuration; whatever fails, the order of scores answers."""

    def __init__(
        self,
        diversity: DiversityConfig,
        exploration: ExplorationConfig,
        metrics: ServingMetrics,
    ) -> None:
        self._diversity = diversity
        self._explorer = Explorer(exploration)
        self._metrics = metrics

    def choices(self, models: LiveModels, request: RetrievalRequest, limit: int) -> dict[str, int]:
        """Return items to explore in a list of `limit`, and how often each was shown.

        They pass the filters of `request`. Empty when nothing is explored.
        """
        wanted = self._explorer.num_choices(limit)
        if not wanted:
            return {}
        try:
            return stages.least_shown(models, request, wanted)
        except Exception:
            _logger.exception("exploration failed", extra={"request": request_id.current()})
            return {}

    def plain(self, models: LiveModels, in_order: Candidates, limit: int) -> ShownList:
        """Return the first `limit` items, as unlike as the rules ask for."""
        items = self._first(models, in_order, limit)
        return ShownList(items, (1.0,) * len(items.item_ids))

    def mixed(
        self, models: LiveModels, in_order: Candidates, limit: int, choices: Mapping[str, int]
    ) -> ShownList:
        """Return `plain`, with places given away to some of the choices, which were ranked too.

        A choice that stands in the list by its own score is not drawn. Caps do not count what was
        drawn: then the chances would depend on each other.
        """
        items = self._first(models, in_order, limit)
        if not choices:
            return ShownList(items, (1.0,) * len(items.item_ids))
        mix = self._explorer.mix(items.item_ids, choices)
        self._metrics.explored_items.inc(mix.explored)
        score_of = dict(zip(in_order.item_ids, in_order.scores.tolist(), strict=True))
        scores = np.array([score_of[item_id] for item_id in mix.item_ids], np.float32)
        return ShownList(Candidates(item_ids=mix.item_ids, scores=scores), mix.probabilities)

    def _first(self, models: LiveModels, in_order: Candidates, limit: int) -> Candidates:
        item_ids, scores_N = in_order.item_ids, in_order.scores
        if not self._diversity.is_on:
            return Candidates(item_ids=item_ids[:limit], scores=scores_N[:limit])
        order = diversified(
            scores_N,
            self._vectors(models, item_ids),
            stages.item_features(models, item_ids),
            limit,
            self._diversity,
        )
        return Candidates(item_ids=tuple(item_ids[at] for at in order), scores=scores_N[order])

    def _vectors(self, models: LiveModels, item_ids: tuple[str, ...]) -> NDArray[np.float32] | None:
        """Return item vectors, None when likeness does not count or nobody can tell."""
        if self._diversity.mmr_lambda == 1.0:
            return None
        try:
            return stages.item_vectors(models, item_ids)
        except Exception:
            _logger.exception("item vectors failed", extra={"request": request_id.current()})
            return None
