"""Kept histories: whose they are, when they are of no more use, how many bytes they may take."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from domain.errors import ConfigError
from domain.requests import CapturedRequest
from encoders.backbone import HistoryState
from encoders.shape import Kind
from ranking.history_cache import HistoryCache, HistoryCacheConfig, without_history
from ranking.learner import RankingModel
from tests.contract.test_ranking_learner import (
    SCHEMA,
    SMALL,
    backbone,
    labelled,
    predictions,
    request,
    stream,
)

STATE_BYTES = 80


def captured(
    user_id: str, entries: int = 2, time_ms: int = 9_000, **arrays: Any
) -> CapturedRequest:
    history = {
        "history_ids": np.arange(entries),
        "history_times_ms": np.arange(entries) * 1_000,
        "history_outcomes": np.zeros(entries, np.int32),
    }
    return CapturedRequest(user_id, (), time_ms, {**history, **arrays})


def state(size: int = STATE_BYTES) -> HistoryState:
    """Return a state of this many bytes in all."""
    nothing = torch.zeros(0)
    return HistoryState((), torch.zeros(size // 4), nothing, nothing)


class Encoder:
    """Encodes nothing, and remembers what it was asked."""

    def __init__(self, size: int = STATE_BYTES) -> None:
        self.asked: list[CapturedRequest] = []
        self._size = size

    def __call__(self, request: CapturedRequest) -> HistoryState:
        self.asked.append(request)
        return state(self._size)


def cache(states: int = 3) -> HistoryCache:
    return HistoryCache(HistoryCacheConfig(max_bytes=states * STATE_BYTES))


def test_history_is_encoded_once_and_as_of_its_newest_entry() -> None:
    kept, encode = cache(), Encoder()
    first = kept.state_of(captured("u", time_ms=9_000), encode)
    again = kept.state_of(captured("u", time_ms=12_000), encode)
    assert first is again
    assert [each.time_ms for each in encode.asked] == [1_000]
    assert (len(kept), kept.num_bytes) == (1, STATE_BYTES)


@pytest.mark.parametrize(
    "arrays",
    [
        {"history_ids": np.array([0, 5])},
        {"history_times_ms": np.array([0, 1_001])},
        {"history_outcomes": np.array([0, 1], np.int32)},
    ],
    ids=["item", "time", "outcome"],
)
def test_another_history_is_encoded_anew_in_place_of_the_old_one(arrays: dict[str, Any]) -> None:
    kept, encode = cache(), Encoder()
    kept.state_of(captured("u"), encode)
    kept.state_of(captured("u", **arrays), encode)
    assert len(encode.asked) == 2
    assert (len(kept), kept.num_bytes) == (1, STATE_BYTES)


def test_users_do_not_share_entries() -> None:
    kept, encode = cache(), Encoder()
    assert kept.state_of(captured("u"), encode) is not kept.state_of(captured("v"), encode)


def test_user_who_asked_longest_ago_leaves_first() -> None:
    kept, encode = cache(states=2), Encoder()
    for user in ("a", "b", "a", "c"):
        kept.state_of(captured(user), encode)
    assert kept.num_bytes == 2 * STATE_BYTES
    before = len(encode.asked)
    kept.state_of(captured("a"), encode)
    assert len(encode.asked) == before
    kept.state_of(captured("b"), encode)
    assert len(encode.asked) == before + 1


def test_history_larger_than_the_bound_is_not_kept() -> None:
    kept, encode = cache(states=1), Encoder(2 * STATE_BYTES)
    kept.state_of(captured("u"), encode)
    assert (len(kept), kept.num_bytes) == (0, 0)


def test_nothing_is_found_after_forgetting() -> None:
    kept, encode = cache(), Encoder()
    kept.state_of(captured("u"), encode)
    kept.forget()
    assert (len(kept), kept.num_bytes) == (0, 0)
    kept.state_of(captured("u"), encode)
    assert len(encode.asked) == 2


def test_what_was_being_encoded_when_the_model_changed_is_not_kept() -> None:
    kept = cache()

    def encode(_: CapturedRequest) -> HistoryState:
        kept.forget()
        return state()

    kept.state_of(captured("u"), encode)
    assert len(kept) == 0


def test_look_ups_are_told() -> None:
    kept, told = cache(), []
    kept.watch(lambda found, num_bytes: told.append((found, num_bytes)))
    for _ in range(2):
        kept.state_of(captured("u"), Encoder())
    assert told == [(False, 0), (True, STATE_BYTES)]


def test_bytes_are_those_of_all_tensors() -> None:
    model = RankingModel(SCHEMA, replace(SMALL, backbone=backbone("fuxi-alpha")), seed=0)
    asked = model.capture(request(np.random.default_rng(3), 10_000_000))
    entries = len(asked.arrays["history_ids"])
    with torch.inference_mode():
        made = model._encoded(asked)
    # Two blocks; 2 heads of width 4, keys and values, and two shared vectors of as many channels.
    floats = 2 * (2 * max(entries, 1) * 8 + 2 * 8) + 8
    assert made.num_bytes == 4 * floats + 8 * (max(entries, 1) + 1) + 8


def test_capture_without_history_keeps_everything_else() -> None:
    asked = captured("u", other=np.arange(3))
    bare = without_history(asked)
    assert {name: len(array) for name, array in bare.arrays.items()} == {
        "history_ids": 0,
        "history_times_ms": 0,
        "history_outcomes": 0,
        "other": 3,
    }
    assert len(asked.arrays["history_ids"]) == 2


def twins(kind: Kind, max_bytes: int = 10**6) -> tuple[RankingModel, RankingModel]:
    """Return a model that keeps histories and one that does not, with the same weights."""
    config = replace(SMALL, backbone=backbone(kind))
    keeps = replace(config, history_cache=HistoryCacheConfig(max_bytes=max_bytes))
    models = RankingModel(SCHEMA, keeps, seed=3), RankingModel(SCHEMA, config, seed=3)
    stream(models[1], 6)
    models[0].load(models[1].save())
    return models


def same_scores(
    models: tuple[RankingModel, RankingModel], asked: list[CapturedRequest]
) -> np.ndarray:
    with_cache, without = (predictions(model, asked) for model in models)
    for kept, plain in zip(with_cache, without, strict=True):
        np.testing.assert_allclose(kept, plain, atol=1e-6, rtol=1e-6)
    return with_cache[0]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_scores_equal_those_without_a_cache(kind: Kind) -> None:
    """Users come again at other times, with the same history and with another one."""
    models = twins(kind)
    found: list[bool] = []
    models[0].watch_histories(lambda hit, _: found.append(hit))
    rng = np.random.default_rng(5)
    asked = [models[0].capture(request(rng, 10_000_000 + k)) for k in range(12)]
    for _ in range(2):
        same_scores(models, asked)
        asked = [replace(each, time_ms=each.time_ms + 7_000_000) for each in asked]
    assert any(found)
    assert not all(found)


def test_scores_do_not_depend_on_what_is_in_the_cache() -> None:
    rng = np.random.default_rng(5)
    models = [twins("fuxi-alpha", max_bytes)[0] for max_bytes in (10**6, 1)]
    for k in range(6):
        asked = [models[0].capture(request(rng, 10_000_000 + k)) for _ in range(5)]
        first, second = (predictions(model, asked)[0] for model in models)
        np.testing.assert_array_equal(first, second)


def changes() -> dict[str, Callable[[RankingModel, RankingModel], None]]:
    def learn(kept: RankingModel, plain: RankingModel) -> None:
        batch = [labelled(np.random.default_rng(8), fixed(kept)[0])]
        for model in (kept, plain):
            model.learn(batch)

    def load(kept: RankingModel, plain: RankingModel) -> None:
        stream(plain, 3, seed=4, start=50)
        kept.load(plain.save())

    def delta(kept: RankingModel, plain: RankingModel) -> None:
        plain.take_delta()
        kept.follow()
        stream(plain, 3, seed=4, start=50)
        kept.apply_delta(plain.take_delta())

    return {"learn": learn, "load": load, "delta": delta}


def fixed(model: RankingModel) -> list[CapturedRequest]:
    rng = np.random.default_rng(7)
    return [model.capture(request(rng, 10_000_000 + k)) for k in range(6)]


@pytest.mark.parametrize("change", changes().values(), ids=changes())
def test_change_of_the_model_is_seen_at_once(
    change: Callable[[RankingModel, RankingModel], None],
) -> None:
    models = twins("fuxi-alpha")
    asked = fixed(models[0])
    before = same_scores(models, asked)
    change(*models)
    assert not np.allclose(same_scores(models, asked), before, atol=1e-5)


def test_threads_share_one_cache() -> None:
    model, _ = twins("fuxi-alpha", 2_000)
    rng = np.random.default_rng(5)
    asked = [model.capture(request(rng, 10_000_000 + k)) for k in range(40)]
    expected = [predictions(model, [each])[0] for each in asked]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda each: predictions(model, [each])[0], asked * 4)
        for answer, right in zip(answers, expected * 4, strict=True):
            np.testing.assert_array_equal(answer, right)
    assert model._histories.num_bytes <= 2_000


def test_config_names_the_key_when_negative() -> None:
    with pytest.raises(ConfigError, match=r"^ranking\.history_cache\.max_bytes "):
        HistoryCacheConfig(max_bytes=-1)
