"""The ranker learns worlds whose right answer can be said aloud, and survives bad input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from domain.errors import ConfigError, SchemaError
from domain.examples import LabeledRequest, Role
from domain.features import FeatureSchema, Field, Head
from domain.requests import CapturedRequest, History, RankingRequest, UserView
from domain.state import state_hash
from encoders.shape import Kind
from ranking.adaf2m2 import AdaF2M2Config
from ranking.averaging import AveragingConfig
from ranking.clipping import ClippingConfig
from ranking.embedding_table import EmbeddingTableConfig
from ranking.history_encoder import BackboneConfig
from ranking.learner import RankingConfig, RankingModel

SCHEMA = FeatureSchema(fields=(Field(name="size", entity="item", kind="numeric"),))
CONFIG = RankingConfig(
    table=EmbeddingTableConfig(dimension=8),
    backbone=BackboneConfig(width=16, head_width=8),
    hidden=(32, 16),
    learning_rate=0.003,
    device="cpu",
)
SIZE = 8
USERS = range(SIZE)


def asked(
    user: int, items: Sequence[int], time_ms: int = 0, history: History | None = None
) -> RankingRequest:
    return RankingRequest(
        user=UserView(user_id=f"u{user}", history=history or History()),
        item_ids=tuple(f"i{item}" for item in items),
        item_features=({},) * len(items),
        time_ms=time_ms,
    )


def revealed(
    captured: CapturedRequest, labels: Sequence[float], role: Role = "final", rate: float = 1.0
) -> LabeledRequest:
    return LabeledRequest(
        captured=captured,
        item_indices=np.arange(len(labels)),
        labels=np.array(labels, np.float32)[:, None],
        roles=(role,) * len(labels),
        log_sampling_rates=np.full(len(labels), math.log(rate), np.float32),
        revealed_ms=captured.time_ms,
    )


def likes(user: int, item: int) -> bool:
    return user % 2 == item % 2


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, backbone=BackboneConfig(blocks=0), adaf2m2=AdaF2M2Config(adapter=False)),
        replace(CONFIG, adaf2m2=AdaF2M2Config(masked_forwards=2)),
        replace(CONFIG, backbone=BackboneConfig(blocks=0), interaction="dcnv2"),
    ],
    ids=["default", "plain", "masked", "dcnv2"],
)
def test_checkerboard_is_learned(config: RankingConfig) -> None:
    """Users like items of their own parity: counters of users and items alone say nothing."""
    model = RankingModel(SCHEMA, config, seed=0)
    rng = np.random.default_rng(0)
    for step in range(150):
        batch = []
        for user in USERS:
            items = rng.permutation(SIZE)[:4].tolist()
            captured = model.capture(asked(user, items, step))
            batch.append(revealed(captured, [float(likes(user, item)) for item in items]))
        for each in batch:
            model.observe(each)
        model.learn(batch)
    captured = [model.capture(asked(user, range(SIZE), 151)) for user in USERS]
    for user, answer in zip(USERS, model.predict(captured), strict=True):
        p = answer.probabilities[:, 0]
        liked = [likes(user, item) for item in range(SIZE)]
        assert p[liked].min() > 0.8 > 0.2 > p[np.logical_not(liked)].max()


@pytest.mark.parametrize(
    ("kind", "initial_std", "steps"),
    [("fuxi-alpha", 0.1, 120), ("hstu", 0.1, 120), ("fuxi-beta", 0.3, 240)],
)
def test_history_decides_when_nothing_else_can(kind: Kind, initial_std: float, steps: int) -> None:
    """Every user is new: whoever took an even item last wants an even one now.

    Not with SASRec: it adds what it finds to the candidate where the others multiply, and parity is
    no sum.
    """
    backbone = replace(CONFIG.backbone, kind=kind, initial_std=initial_std)
    model = RankingModel(SCHEMA, replace(CONFIG, backbone=backbone), seed=0)
    rng = np.random.default_rng(0)

    def history(item: int) -> History:
        return History((f"i{item}",), np.array([-60_000]), np.array([1]))

    for step in range(steps):
        batch = []
        for k in range(16):
            last, items = int(rng.integers(SIZE)), rng.permutation(SIZE)[:3].tolist()
            captured = model.capture(asked(1_000 + 16 * step + k, items, 0, history(last)))
            batch.append(revealed(captured, [float(likes(last, item)) for item in items]))
        model.learn(batch)
    for last in (2, 5):
        (answer,) = model.predict([model.capture(asked(0, range(SIZE), 0, history(last)))])
        liked = np.array([likes(last, item) for item in range(SIZE)])
        assert answer.probabilities[liked, 0].min() > answer.probabilities[~liked, 0].max()


def test_counters_alone_rank_a_good_item_first() -> None:
    model = RankingModel(SCHEMA, CONFIG, seed=0)
    for step in range(120):
        batch = [
            revealed(model.capture(asked(k, [k % 3], step)), [float(k % 3 == 0)]) for k in range(12)
        ]
        for each in batch:
            model.observe(each)
        model.learn(batch)
    (answer,) = model.predict([model.capture(asked(999, [0, 1, 2], 121))])
    assert answer.probabilities[0, 0] > 0.8 > 0.2 > answer.probabilities[1:, 0].max()


def served_rate(role_stream: Sequence[tuple[float, Role]], rate: float = 1.0) -> float:
    model = RankingModel(SCHEMA, replace(CONFIG, learning_rate=0.01), seed=0)
    for step in range(100):
        captured = model.capture(asked(0, [0], step))
        batch = [revealed(captured, [label], role, rate) for label, role in role_stream]
        for each in batch:
            model.observe(each)
        model.learn(batch)
    (answer,) = model.predict([model.capture(asked(0, [0], 101))])
    return float(answer.probabilities[0, 0])


def test_true_rate_is_served_when_positives_come_as_corrections() -> None:
    """Ten impressions are "no" at first and three of them "yes" later: three in ten."""
    early: list[tuple[float, Role]] = [(0.0, "early_negative")] * 10
    assert served_rate([*early, *([(1.0, "correction")] * 3)]) == pytest.approx(0.3, abs=0.03)


def test_unsampled_rate_is_served_when_negatives_were_sampled() -> None:
    """One "yes" for four "no" kept of forty: one in forty-one."""
    rate = served_rate([(1.0, "final"), *([(0.0, "final")] * 4)], rate=0.1)
    assert rate == pytest.approx(1 / 41, abs=0.01)


@pytest.mark.parametrize("rate", [math.nan, math.inf])
def test_batch_is_quarantined_and_nothing_learned_when_not_finite(rate: float) -> None:
    model = RankingModel(SCHEMA, CONFIG, seed=0)
    good = revealed(model.capture(asked(0, [1, 2])), [1.0, 0.0])
    model.learn([good])
    twin = model.copy()
    bad = revealed(model.capture(asked(0, [3, 4])), [1.0, 0.0])
    bad = replace(bad, log_sampling_rates=np.array([rate, 0.0], np.float32))
    report = model.learn([bad])
    assert report.examples == 0
    assert report.quarantined == 2
    state, expected = model.save(), twin.save()
    assert report.loss != report.loss or math.isinf(report.loss)
    for part in expected:
        assert state_hash(state[part]) == state_hash(expected[part]), part


def test_scores_are_made_with_the_mean_of_the_weights_and_learning_goes_on_from_the_newest() -> (
    None
):
    """With scoring from the newest weights the same steps are learned, to the bit."""
    averaged = RankingModel(SCHEMA, CONFIG, seed=0)
    newest = RankingModel(
        SCHEMA, replace(CONFIG, averaging=AveragingConfig(half_life_examples=0.0)), seed=0
    )
    for step in range(12):
        for model in (averaged, newest):
            captured = model.capture(asked(step % 3, [1, 2, 3], step))
            model.learn([revealed(captured, [1.0, 0.0, float(step % 2)])])
    states = [model.save() for model in (averaged, newest)]
    for part in ("dense", "table", "normaliser", "steps"):
        assert state_hash(states[0][part]) == state_hash(states[1][part]), part
    scores = [
        model.predict([model.capture(asked(0, [1, 2], 99))])[0].probabilities
        for model in (averaged, newest)
    ]
    assert not np.array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[0], scores[1], atol=0.05)


def test_one_odd_batch_leaves_a_smaller_trace_when_gradients_are_clipped() -> None:
    """After a hundred steps of one kind, everything is the other way round for one step."""
    traces = {}
    for factor in (0.0, 2.0):
        config = replace(CONFIG, clipping=ClippingConfig(factor=factor))
        model = RankingModel(SCHEMA, config, seed=0)
        for step in range(100):
            model.learn([revealed(model.capture(asked(step % 3, [1, 2], step)), [1.0, 0.0])])
        calm = model.save()
        model.learn([revealed(model.capture(asked(1, [1, 2], 101)), [0.0, 1.0])])
        odd = model.save()
        assert odd["clipper"]["clipped"] - calm["clipper"]["clipped"] == (factor > 0)
        # Adam's second moment, which would make every later step too small.
        squares = [float(one["dense"]["heads.bias"]["exp_avg_sq"].max()) for one in (calm, odd)]
        traces[factor] = squares[1] - squares[0]
    assert traces[2.0] < 0.5 * traces[0.0]


def test_learning_goes_on_after_a_quarantine() -> None:
    model = RankingModel(SCHEMA, CONFIG, seed=0)
    bad = revealed(model.capture(asked(0, [1])), [1.0])
    model.learn([replace(bad, log_sampling_rates=np.array([np.nan], np.float32))])
    report = model.learn([bad])
    assert report.examples == 1
    assert report.quarantined == 0
    assert math.isfinite(report.loss)


def test_loss_is_that_before_the_step() -> None:
    model = RankingModel(SCHEMA, CONFIG, seed=0)
    captured = model.capture(asked(0, [1]))
    (before,) = model.predict([captured])
    report = model.learn([revealed(captured, [1.0])])
    assert report.loss == pytest.approx(-math.log(before.probabilities[0, 0]), rel=1e-4)


def test_masked_copies_learn_the_label_of_their_own_example() -> None:
    """Copies stand example by example; labels tiled batch by batch would belong to others.

    The copies decide alone here, so with labels of others the world would be learned as noise.
    """
    masks = AdaF2M2Config(
        masked_forwards=2, masked_weight=100.0, mask_rate_min=0.0, mask_rate_max=0.0
    )
    model = RankingModel(SCHEMA, replace(CONFIG, adaf2m2=masks), seed=0)
    for step in range(60):
        batch = [
            revealed(model.capture(asked(k, [k % 3], step)), [float(k % 3 == 0)]) for k in range(12)
        ]
        model.learn(batch)
    (answer,) = model.predict([model.capture(asked(999, [0, 1, 2], 61))])
    assert answer.probabilities[0, 0] > 0.8 > 0.2 > answer.probabilities[1:, 0].max()


def test_unlabelled_items_of_a_request_are_not_learned_from() -> None:
    model, twin = (RankingModel(SCHEMA, CONFIG, seed=0) for _ in range(2))
    for ranker, items in ((model, [1, 2, 3]), (twin, [2])):
        each = revealed(ranker.capture(asked(0, items)), [1.0])
        ranker.learn([replace(each, item_indices=np.array([items.index(2)]))])
    assert state_hash(model.save()["table"]) == state_hash(twin.save()["table"])


def test_long_predictions_are_made_in_passes_of_bounded_size() -> None:
    model = RankingModel(SCHEMA, replace(CONFIG, max_rows_per_pass=10), seed=0)
    whole = RankingModel(SCHEMA, CONFIG, seed=0)
    captured = [model.capture(asked(0, range(n), n)) for n in (1, 9, 25, 2, 2, 2, 7)]
    for ours, theirs in zip(model.predict(captured), whole.predict(captured), strict=True):
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)


def test_state_of_another_schema_is_refused() -> None:
    other = FeatureSchema(heads=(Head(name="buy", feedback_kind="buy"),))
    state = RankingModel(other, CONFIG, seed=0).save()
    with pytest.raises(SchemaError, match="expected a state of schema"):
        RankingModel(SCHEMA, CONFIG, seed=0).load(state)


def test_learning_uses_no_global_random_numbers() -> None:
    config = replace(CONFIG, adaf2m2=AdaF2M2Config(masked_forwards=1))
    hashes = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        model = RankingModel(SCHEMA, config, seed=0)
        model.learn([revealed(model.capture(asked(0, [1, 2])), [1.0, 0.0])])
        hashes.append(state_hash(model.save()))
    assert hashes[0] == hashes[1]


def test_weights_differ_between_seeds() -> None:
    first, second = (RankingModel(SCHEMA, CONFIG, seed=seed).save() for seed in (0, 1))
    assert state_hash(first["dense"]) != state_hash(second["dense"])


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"hidden": ()}, "hidden"),
        ({"hidden": (8, 0)}, "hidden"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"max_rows_per_pass": 0}, "max_rows_per_pass"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_config_names_the_key_when_out_of_range(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.{key} must be"):
        RankingConfig(**values)  # type: ignore[arg-type]
