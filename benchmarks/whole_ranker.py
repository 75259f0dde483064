"""The ranker as it is served, with and without kept histories, for bench_ranker.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from domain.features import FeatureSchema, Field
from domain.requests import CapturedRequest, History, RankingRequest, UserView
from encoders.shape import Kind
from ranking.feature_encoder import EncoderConfig
from ranking.history_cache import HistoryCacheConfig
from ranking.history_encoder import BackboneConfig
from ranking.learner import RankingConfig, RankingModel

_SCHEMA = FeatureSchema(
    fields=(
        Field(name="tab", entity="context", kind="categorical"),
        Field(name="author", entity="item", kind="categorical", counted=True),
        Field(name="price", entity="item", kind="numeric"),
    )
)
_NOW_MS = 10**12


class WholeRanker:
    """One request, asked again and again at later times, of rankers with the same weights."""

    def __init__(self, kind: Kind, length: int, candidates: int) -> None:
        config = RankingConfig(
            encoder=EncoderConfig(history_length=length),
            backbone=BackboneConfig(kind=kind, width=64, heads=2, head_width=32, blocks=2),
            device="cpu",
        )
        keeps = replace(config, history_cache=HistoryCacheConfig(max_bytes=10**9))
        self._plain, self._keeps = (RankingModel(_SCHEMA, each, seed=1) for each in (config, keeps))
        self._asked = self._plain.capture(_request(length, candidates))
        self._later = count(1)

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        """Return ways to score the request; all give the same."""
        ways = {
            "plain": lambda: self._scores(self._plain, self._asked_later()),
            "hit": lambda: self._scores(self._keeps, self._asked_later()),
            "miss": lambda: self._scores(self._keeps, self._asked_by_another()),
        }
        for way in ways.values():
            torch.testing.assert_close(way(), ways["plain"](), atol=1e-6, rtol=1e-5)
        return ways

    def _asked_later(self) -> CapturedRequest:
        return replace(self._asked, time_ms=self._asked.time_ms + next(self._later))

    def _asked_by_another(self) -> CapturedRequest:
        return replace(self._asked, user_id=f"u{next(self._later)}")

    @staticmethod
    def _scores(model: RankingModel, asked: CapturedRequest) -> Tensor:
        return torch.from_numpy(model.predict([asked])[0].probabilities)


def _request(length: int, candidates: int) -> RankingRequest:
    rng = np.random.default_rng(3)
    history = History(
        tuple(f"i{item}" for item in rng.integers(0, 5_000, length)),
        np.sort(_NOW_MS - rng.integers(1, 10**9, length)),
        rng.integers(0, 2, length),
    )
    return RankingRequest(
        user=UserView(user_id="u", history=history),
        item_ids=tuple(f"i{item}" for item in rng.integers(0, 5_000, candidates)),
        item_features=tuple(
            {"author": f"a{item}", "price": float(item)} for item in rng.integers(0, 99, candidates)
        ),
        time_ms=_NOW_MS,
        context={"tab": "home"},
    )
