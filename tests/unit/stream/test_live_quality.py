"""The numbers of a running trainer: what it measures, what it shows, and that they survive."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from domain.examples import LearnReport
from domain.features import FeatureSchema, Head
from domain.requests import RankingRequest, UserView
from domain.state import state_hash
from monitoring.metrics import Metrics
from monitoring.prequential_quality import PrequentialQualityConfig
from monitoring.prequential_ranks import PrequentialRanksConfig
from monitoring.quality import auc, normalized_entropy
from stream.drift_watch import VARIANTS
from stream.live_quality import LiveQuality
from stream.observer import Demand, Measured
from tests.unit.stream.pending_fakes import NAN, example

SCHEMA = FeatureSchema(
    heads=(Head(name="click", feedback_kind="click"), Head(name="like", feedback_kind="like"))
)
NOTHING = LearnReport(loss=math.nan, examples=0)


def _quality(metrics: Metrics | None = None, window: int = 100) -> LiveQuality:
    return LiveQuality(
        SCHEMA,
        PrequentialQualityConfig(window=window, score_buckets=64),
        PrequentialRanksConfig(window=window),
        metrics or Metrics(),
    )


def _demand(time_ms: int, *item_ids: str) -> Demand:
    features = tuple({} for _ in item_ids)
    request = RankingRequest(UserView(user_id="ann"), item_ids, features, time_ms)
    return Demand("p", 0, 0, request)


def _measured(labels: tuple[float, ...], base: float, compensated: float, session: int) -> Measured:
    return Measured(
        example=example("p", 0, *labels),
        session=session,
        base_H=np.full(2, base, np.float32),
        compensated_H=np.full(2, compensated, np.float32),
    )


def _stream(count: int, seed: int = 1) -> list[Measured]:
    """Clicks that the ranker guesses at and the memory knows; likes are sometimes not known."""
    rng = np.random.default_rng(seed)
    stream = []
    for number in range(count):
        clicked = float(rng.random() < 0.3)
        liked = NAN if number % 3 == 0 else float(rng.random() < 0.5)
        known = 0.9 if clicked else 0.1
        stream.append(_measured((clicked, liked), float(rng.random()), known, number // 10))
    return stream


def _show(quality: LiveQuality, at_ms: int = 1_000_000) -> None:
    quality.on_demand(_demand(at_ms, "a"))
    quality.on_step(1, NOTHING, NOTHING)


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"headrace_{name}", labels)


def test_shown_numbers_are_those_of_the_window_by_variant_and_head() -> None:
    metrics = Metrics()
    quality, stream = _quality(metrics, window=100), _stream(250)
    for first in range(0, 250, 25):
        quality.on_measured(stream[first : first + 25])
    _show(quality)
    last = stream[-100:]
    labels = np.array([one.example.labels for one in last])
    for variant, name in zip(VARIANTS, ("base_H", "compensated_H"), strict=True):
        scores = np.array([getattr(one, name) for one in last])
        for head, kind in enumerate(("click", "like")):
            known = ~np.isnan(labels[:, head])
            told = {"variant": variant, "head": kind, "scope": "window"}
            assert _value(metrics, "monitoring_auc_ratio", **told) == pytest.approx(
                auc(labels[known, head], scores[known, head])
            )
            assert _value(metrics, "monitoring_normalized_entropy_ratio", **told) == pytest.approx(
                normalized_entropy(labels[known, head], scores[known, head])
            )


def test_numbers_are_shown_when_event_time_has_moved_on_not_at_every_step() -> None:
    metrics = Metrics()
    quality = _quality(metrics)
    told = {"variant": "online", "head": "click", "scope": "window"}
    quality.on_measured(_stream(20))
    quality.on_step(1, NOTHING, NOTHING)
    assert _value(metrics, "monitoring_auc_ratio", **told) is None  # no event time yet
    _show(quality, at_ms=1_000_000)
    shown = _value(metrics, "monitoring_auc_ratio", **told)
    assert shown is not None
    quality.on_measured(_stream(20, seed=2))
    _show(quality, at_ms=1_009_999)
    assert _value(metrics, "monitoring_auc_ratio", **told) == shown
    _show(quality, at_ms=1_010_000)
    assert _value(metrics, "monitoring_auc_ratio", **told) != shown


def test_event_with_a_clock_far_in_the_future_does_not_stop_the_numbers() -> None:
    metrics = Metrics()
    quality = _quality(metrics)
    told = {"variant": "online", "head": "click", "scope": "window"}
    quality.on_measured(_stream(20))
    _show(quality, at_ms=2**52)
    shown = _value(metrics, "monitoring_auc_ratio", **told)
    quality.on_measured(_stream(20, seed=2))
    _show(quality, at_ms=1_000_000)
    assert _value(metrics, "monitoring_auc_ratio", **told) != shown


def test_ranks_of_retrieval_are_shown() -> None:
    metrics = Metrics()
    quality = _quality(metrics)
    quality.on_ranks([], np.array([1, 2, 50, -1, 0], np.int64))
    _show(quality)
    assert _value(metrics, "retrieval_recall_at_20_ratio", scope="window") == pytest.approx(0.5)


def test_nothing_measured_moves_nothing() -> None:
    quality = _quality()
    before = state_hash(quality.save())
    quality.on_measured([])
    quality.on_examples([example("p", 0, 1.0, 0.0)])
    quality.on_forget(["p"])
    quality.on_ranks([], np.zeros(0, np.int64))
    assert state_hash(quality.save()) == before


def test_quality_survives_a_restart_and_goes_on_to_the_same_bits() -> None:
    stream = _stream(300)
    whole, first = _quality(), _quality()
    for quality, until in ((whole, 300), (first, 130)):
        for number in range(0, until, 10):
            quality.on_demand(_demand(1_000 * number, f"i{number % 7}", f"i{number}"))
            quality.on_measured(stream[number : number + 10])
            quality.on_ranks([], np.array([number % 30 + 1, -1], np.int64))
    state = copy.deepcopy(first.save())
    again = _quality()
    again.load(state)
    assert state_hash(again.save()) == state_hash(first.save())
    for number in range(130, 300, 10):
        again.on_demand(_demand(1_000 * number, f"i{number % 7}", f"i{number}"))
        again.on_measured(stream[number : number + 10])
        again.on_ranks([], np.array([number % 30 + 1, -1], np.int64))
    assert state_hash(again.save()) == state_hash(whole.save())
