"""What every ranking learner promises, checked on the ranker."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.examples import LabeledRequest
from domain.features import FeatureSchema, Field, Head
from domain.learners import RankingLearner
from domain.requests import CapturedRequest, History, RankingRequest, UserView
from domain.state import state_hash
from encoders.shape import Kind
from ranking.adaf2m2 import AdaF2M2Config
from ranking.aefs import AefsConfig
from ranking.counters import CounterConfig
from ranking.embedding_table import EmbeddingTableConfig
from ranking.feature_encoder import EncoderConfig
from ranking.history_cache import HistoryCacheConfig
from ranking.history_encoder import BackboneConfig
from ranking.learner import RankingConfig, RankingModel

HOUR_MS = 3_600_000
SCHEMA = FeatureSchema(
    fields=(
        Field(name="country", entity="user", kind="categorical"),
        Field(name="age", entity="user", kind="numeric"),
        Field(name="tab", entity="context", kind="categorical", counted=True),
        Field(name="author", entity="item", kind="categorical", counted=True),
        Field(name="tags", entity="item", kind="multi", counted=True),
        Field(name="price", entity="item", kind="numeric"),
        Field(name="image", entity="item", kind="dense", size=3),
    ),
    heads=(Head(name="click", feedback_kind="click"), Head(name="like", feedback_kind="like")),
    counted_pairs=(("user", "tab"), ("user", "tags")),
)
SMALL = RankingConfig(
    encoder=EncoderConfig(history_length=4),
    table=EmbeddingTableConfig(dimension=4),
    backbone=BackboneConfig(width=8, head_width=4),
    hidden=(16, 8),
    device="cpu",
)


def variant(**changes: Any) -> Callable[[], RankingLearner]:
    return lambda: RankingModel(SCHEMA, replace(SMALL, **changes), seed=3)


def backbone(kind: Kind) -> BackboneConfig:
    return BackboneConfig(kind=kind, width=8, head_width=4, blocks=2)


VARIANTS: dict[str, Callable[[], RankingLearner]] = {
    "default": variant(),
    "no_history": variant(backbone=BackboneConfig(blocks=0)),
    "two_blocks_and_masks": variant(
        backbone=backbone("fuxi-alpha"),
        adaf2m2=AdaF2M2Config(
            masked_forwards=2, id_embeddings_in_state=True, id_gradient=True, masked_heads=True
        ),
    ),
    "early_selection": variant(aefs=AefsConfig(keep=0.5)),
    "fuxi-beta": variant(backbone=backbone("fuxi-beta")),
    "hstu": variant(backbone=backbone("hstu")),
    "sasrec": variant(backbone=backbone("sasrec")),
    "kept_histories": variant(
        backbone=backbone("fuxi-alpha"), history_cache=HistoryCacheConfig(max_bytes=20_000)
    ),
    "dcnv2": variant(interaction="dcnv2", backbone=BackboneConfig(blocks=0)),
    "dcnv2_with_history": variant(
        interaction="dcnv2", cross_layers=2, adaf2m2=AdaF2M2Config(masked_forwards=1)
    ),
}


def request(rng: np.random.Generator, time_ms: int, num_items: int | None = None) -> RankingRequest:
    entries = int(rng.integers(0, 7))
    items = num_items if num_items is not None else int(rng.integers(1, 6))
    history = History(
        item_ids=tuple(f"i{rng.integers(20)}" for _ in range(entries)),
        times_ms=np.sort(time_ms - rng.integers(1, HOUR_MS, entries)),
        outcomes=rng.integers(0, 4, entries),
    )
    user = UserView(
        user_id=f"u{rng.integers(8)}",
        history=history,
        features={"country": "nz", "age": 31.0} if rng.random() < 0.7 else {},
        last_impression_ms=time_ms - HOUR_MS if entries else None,
        session_position=entries,
    )
    features = {"author": "a1", "tags": ("x", "y"), "price": 12.5, "image": (0.1, 0.2, -0.3)}
    return RankingRequest(
        user=user,
        item_ids=tuple(f"i{rng.integers(20)}" for _ in range(items)),
        item_features=tuple(features if rng.random() < 0.7 else {} for _ in range(items)),
        time_ms=time_ms,
        context={"tab": f"t{rng.integers(3)}"},
    )


def labelled(rng: np.random.Generator, captured: CapturedRequest) -> LabeledRequest:
    n = len(captured.item_ids)
    chosen = np.sort(rng.choice(n, size=int(rng.integers(1, n + 1)), replace=False))
    labels = rng.integers(0, 2, (len(chosen), 2)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    return LabeledRequest(
        captured=captured,
        item_indices=chosen.astype(np.int64),
        labels=labels,
        roles=("final",) * len(chosen),
        log_sampling_rates=np.zeros(len(chosen), np.float32),
        revealed_ms=captured.time_ms + HOUR_MS,
    )


def stream(learner: RankingLearner, steps: int, seed: int = 0, start: int = 0) -> list[float]:
    """Run the loop's order on a learner: capture, predict, observe, learn; return all scores."""
    rng = np.random.default_rng(seed)
    scores: list[float] = []
    for step in range(start, start + steps):
        captured = [learner.capture(request(rng, (step * 8 + k) * 60_000)) for k in range(8)]
        for answer in learner.predict(captured):
            scores += answer.probabilities.ravel().tolist()
        batch = [labelled(rng, each) for each in captured]
        for revealed in batch:
            learner.observe(revealed)
        learner.learn(batch)
    return scores


def fixed_captures(learner: RankingLearner, count: int = 6) -> list[CapturedRequest]:
    rng = np.random.default_rng(99)
    return [learner.capture(request(rng, 10_000_000)) for _ in range(count)]


def predictions(
    learner: RankingLearner, captured: list[CapturedRequest]
) -> tuple[np.ndarray, np.ndarray]:
    answers = learner.predict(captured)
    return (
        np.concatenate([answer.probabilities for answer in answers]),
        np.concatenate([answer.hidden for answer in answers]),
    )


def check_predicts_before_first_learn(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    captured = fixed_captures(learner)
    for asked, answer in zip(captured, learner.predict(captured), strict=True):
        assert answer.probabilities.shape == (len(asked.item_ids), 2)
        assert answer.probabilities.dtype == answer.hidden.dtype == np.float32
        assert np.all((answer.probabilities > 0) & (answer.probabilities < 1))
        assert np.isfinite(answer.hidden).all()


def check_predicting_changes_nothing(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    stream(learner, 3)
    before = state_hash(learner.save())
    learner.predict(fixed_captures(learner))
    learner.predict([])
    assert state_hash(learner.save()) == before


def check_unknown_ids_are_not_inserted_by_reading(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    before = state_hash(learner.save())
    learner.predict(fixed_captures(learner))
    assert state_hash(learner.save()) == before


def check_batch_equals_one_by_one(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    stream(learner, 5)
    captured = fixed_captures(learner, 12)
    together = predictions(learner, captured)
    single = [predictions(learner, [each]) for each in captured]
    for part in (0, 1):
        alone = np.concatenate([each[part] for each in single])
        np.testing.assert_allclose(together[part], alone, atol=1e-5)


def check_save_load_continues_to_the_bit(make: Callable[[], RankingLearner]) -> None:
    learner, restored = make(), make()
    stream(learner, 4)
    restored.load(learner.save())
    assert state_hash(restored.save()) == state_hash(learner.save())
    assert stream(restored, 4, seed=1, start=4) == stream(learner, 4, seed=1, start=4)
    assert state_hash(restored.save()) == state_hash(learner.save())


def check_saved_state_is_not_touched_by_learning(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    stream(learner, 3)
    state = learner.save()
    before = state_hash(state)
    stream(learner, 3, seed=1, start=3)
    assert state_hash(state) == before
    assert state_hash(learner.save()) != before


def check_seeded_runs_repeat(make: Callable[[], RankingLearner]) -> None:
    first, second = make(), make()
    assert stream(first, 4) == stream(second, 4)
    assert state_hash(first.save()) == state_hash(second.save())


def check_keeps_no_reference_to_its_input(make: Callable[[], RankingLearner]) -> None:
    learner, twin = make(), make()
    rng = np.random.default_rng(5)
    asked = request(rng, 10_000_000, num_items=3)
    captured, same = learner.capture(asked), twin.capture(copy.deepcopy(asked))
    asked.user.history.times_ms[:] = 0
    asked.user.history.outcomes[:] = 0
    for name, array in captured.arrays.items():
        np.testing.assert_array_equal(array, same.arrays[name])
    batch, kept = (labelled(np.random.default_rng(6), each) for each in (captured, same))
    for each, model in ((batch, learner), (kept, twin)):
        model.observe(each)
        model.learn([each])
    batch.labels[:] = 1.0
    for array in captured.arrays.values():
        array[...] = 0
    assert state_hash(learner.save()) == state_hash(twin.save())


def check_capture_before_observe_is_unaffected(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    stream(learner, 2)
    early = fixed_captures(learner)
    kept = [{name: array.copy() for name, array in each.arrays.items()} for each in early]
    for each in early:
        learner.observe(labelled(np.random.default_rng(1), each))
    for each, copies in zip(early, kept, strict=True):
        for name, array in each.arrays.items():
            np.testing.assert_array_equal(array, copies[name])


def check_item_score_does_not_depend_on_other_items(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    stream(learner, 5)
    full = request(np.random.default_rng(7), 10_000_000, num_items=5)
    for index in range(5):
        alone = replace(
            full,
            item_ids=full.item_ids[index : index + 1],
            item_features=full.item_features[index : index + 1],
        )
        whole, single = (predictions(learner, [learner.capture(each)]) for each in (full, alone))
        np.testing.assert_allclose(whole[0][index], single[0][0], atol=1e-5)
        np.testing.assert_allclose(whole[1][index], single[1][0], atol=1e-5)


def check_threads_may_predict_at_once(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    stream(learner, 3)
    captured = fixed_captures(learner, 10)
    expected = predictions(learner, captured)[0]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: predictions(learner, captured)[0], range(16)))
    assert all(np.array_equal(answer, expected) for answer in answers)


def check_empty_batch_and_empty_request_are_harmless(make: Callable[[], RankingLearner]) -> None:
    learner = make()
    report = learner.learn([])
    assert report.examples == 0
    assert np.isnan(report.loss)
    empty = learner.capture(request(np.random.default_rng(0), 0, num_items=0))
    assert learner.predict([empty])[0].probabilities.shape == (0, 2)


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
def test_ranking_learner_contract(
    make: Callable[[], RankingLearner], check: Callable[[Callable[[], RankingLearner]], None]
) -> None:
    check(make)


def test_ranking_model_memory_stays_bounded_when_ids_never_repeat() -> None:
    config = replace(
        SMALL,
        table=EmbeddingTableConfig(dimension=4, max_rows=80),
        counters=CounterConfig(max_entries=90),
    )
    model = RankingModel(SCHEMA, config, seed=0)
    sizes = []
    for step in range(40):
        rng = np.random.default_rng(step)
        asked = request(rng, step * HOUR_MS, num_items=5)
        fresh = replace(asked, item_ids=tuple(f"i{step}.{k}" for k in range(5)))
        revealed = labelled(rng, model.capture(fresh))
        model.observe(revealed)
        model.learn([revealed])
        state = model.save()
        sizes.append((len(state["table"]["rows"]["ids"]), len(state["counters"]["entries"]["ids"])))
    assert max(size for size, _ in sizes) <= 80
    assert max(size for _, size in sizes) <= 90
    assert sizes[-1] == sizes[20], "the second half may not grow"


def test_copy_is_independent_of_the_original() -> None:
    model = RankingModel(SCHEMA, SMALL, seed=0)
    stream(model, 2)
    frozen = model.copy()
    before = state_hash(frozen.save())
    assert before == state_hash(model.save())
    stream(model, 2, seed=1, start=2)
    assert state_hash(frozen.save()) == before
