"""The learner's contract: predict first, learn, save and load to the bit, stay within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from domain.errors import ConfigError, ModelError
from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.features import FeatureSchema, Field
from domain.requests import RetrievalRequest, UserView
from domain.state import state_hash
from retrieval.learner import RetrievalConfig, RetrievalModel
from retrieval.negatives import NegativesConfig
from retrieval.tower_config import TowerConfig
from tests.unit.retrieval.asking import popular

MINUTE_MS = 60_000
SCHEMA = FeatureSchema(
    fields=(
        Field(name="kind", entity="item", kind="categorical"),
        Field(name="look", entity="item", kind="dense", size=2),
        Field(name="country", entity="user", kind="categorical"),
        Field(name="age", entity="user", kind="numeric"),
    )
)
SAMPLED = NegativesConfig(full_softmax_items=8, from_reservoir=8, uniform=8, reservoir=32)

Make = Callable[[], RetrievalModel]


@pytest.fixture(params=["full", "sampled", "mean"])
def make(request: pytest.FixtureRequest, small_model) -> Make:
    """Return a maker of equal models that know nothing yet."""
    settings: dict[str, object] = {}
    if request.param == "sampled":
        settings["negatives"] = SAMPLED
    if request.param == "mean":
        settings["tower"] = TowerConfig(width=8, encoder="mean")
    return lambda: small_model(SCHEMA, step_examples=8, **settings)


@pytest.fixture
def stream(world) -> list[PositiveAction]:
    """Return 160 actions of 12 users on 30 items."""
    rng = np.random.default_rng(5)
    for user in range(12):
        world.describe(f"u{user}", {"country": f"c{user % 3}", "age": float(user)})
    for step in range(160):
        user, item = int(rng.integers(12)), int(rng.zipf(1.5)) % 30
        world.take(f"u{user}", f"i{item}", step * MINUTE_MS)
    return list(world.actions)


def describe_items(model: RetrievalModel) -> None:
    for item in range(0, 30, 2):
        features = {"kind": f"k{item % 4}", "look": (float(item), 1.0)}
        model.observe_item(
            ItemUpdate(event_id=f"e{item}", time_ms=0, item_id=f"i{item}", features=features)
        )


def learned(make: Make, stream: list[PositiveAction]) -> RetrievalModel:
    model = make()
    describe_items(model)
    for first in range(0, len(stream), 20):
        model.learn(stream[first : first + 20])
    return model


def requests(stream: list[PositiveAction]) -> list[RetrievalRequest]:
    return [RetrievalRequest(action.user, action.time_ms, limit=7) for action in stream[-20:]]


def answers(model: RetrievalModel, stream: list[PositiveAction]) -> list[object]:
    found = [model.retrieve(request) for request in requests(stream)]
    ranks = model.target_ranks(stream).tolist()
    return [
        ranks,
        [(one.item_ids, one.scores.tolist()) for one in found],
        popular(model, 5).item_ids,
    ]


def test_model_answers_before_anything_is_known(make: Make, stream: list[PositiveAction]) -> None:
    model = make()
    assert model.retrieve(requests(stream)[0]).item_ids == ()
    assert popular(model, 3).item_ids == ()
    ranks = model.target_ranks(stream)
    assert ranks.tolist() == [-1 if len(a.user.history) else 0 for a in stream]
    report = model.learn([])
    assert math.isnan(report.loss)
    assert report.examples == 0


def test_model_answers_from_the_catalog_before_the_first_learn(make: Make, view) -> None:
    model = make()
    describe_items(model)
    found = model.retrieve(RetrievalRequest(view("u", ["i2"]), 0, limit=5))
    assert len(found.item_ids) == 5
    assert np.isfinite(found.scores).all()


def test_predicting_changes_nothing(make: Make, stream: list[PositiveAction]) -> None:
    model = learned(make, stream)
    before = state_hash(model.save())
    first = answers(model, stream)
    assert answers(model, stream) == first
    assert state_hash(model.save()) == before


def test_loss_falls_while_a_stream_repeats(make: Make, stream: list[PositiveAction]) -> None:
    model = make()
    losses = [model.learn(stream).loss for _ in range(8)]
    assert losses[-1] < losses[0] - 0.2


def test_restored_model_answers_and_goes_on_to_the_bit(
    make: Make, stream: list[PositiveAction]
) -> None:
    model, restored = learned(make, stream[:100]), make()
    restored.load(model.save())
    assert answers(restored, stream) == answers(model, stream)
    for one in (model, restored):
        one.learn(stream[100:])
    assert answers(restored, stream) == answers(model, stream)
    assert state_hash(restored.save()) == state_hash(model.save())


def test_equal_seeds_give_equal_bits_and_others_do_not(
    make: Make, stream: list[PositiveAction]
) -> None:
    hashes = {state_hash(learned(make, stream).save()) for _ in range(2)}
    assert len(hashes) == 1
    other = RetrievalModel(SCHEMA, RetrievalConfig(), seed=8)
    other.learn(stream)
    assert state_hash(other.save()) not in hashes


def test_ranks_of_a_batch_are_those_one_by_one(make: Make, stream: list[PositiveAction]) -> None:
    model = learned(make, stream)
    one_by_one = [int(model.target_ranks([action])[0]) for action in stream]
    assert model.target_ranks(stream).tolist() == one_by_one


def test_model_keeps_no_reference_to_its_input(make: Make, stream: list[PositiveAction]) -> None:
    model = learned(make, stream)
    before = state_hash(model.save())
    for action in stream:
        action.user.history.times_ms[:] = 0
        action.user.history.outcomes[:] = 0
    assert state_hash(model.save()) == before


def test_learning_does_not_change_its_input(make: Make, stream: list[PositiveAction]) -> None:
    before = [action.user.history.times_ms.copy() for action in stream]
    learned(make, stream)
    for action, times in zip(stream, before, strict=True):
        np.testing.assert_array_equal(action.user.history.times_ms, times)


def test_rank_is_the_place_in_a_complete_answer(make: Make, stream: list[PositiveAction]) -> None:
    model = learned(make, stream)
    for action, rank in zip(stream, model.target_ranks(stream).tolist(), strict=True):
        used = frozenset(action.user.history.item_ids)
        request = RetrievalRequest(action.user, action.time_ms, limit=100, exclude=used)
        order = model.retrieve(request).item_ids
        if not used:
            assert rank == 0
        elif action.item_id in used:
            assert rank == -1
        else:
            assert order[rank - 1] == action.item_id


def test_item_taken_out_is_a_miss_until_it_comes_back(
    make: Make, stream: list[PositiveAction], view
) -> None:
    model = learned(make, stream)
    action = PositiveAction(view("u", ["i1"]), "i2", 200 * MINUTE_MS)
    before = model.target_ranks([action])[0]
    update = ItemUpdate(event_id="x", time_ms=0, item_id="i2", available=False)
    model.observe_item(update)
    assert model.target_ranks([action]).tolist() == [-1]
    found = model.retrieve(RetrievalRequest(action.user, action.time_ms, limit=100)).item_ids
    assert "i2" not in found
    assert "i2" not in popular(model, 100).item_ids
    assert model.learn([action]).examples == 0
    features = {"kind": "k2", "look": (2.0, 1.0)}
    model.observe_item(ItemUpdate(event_id="y", time_ms=0, item_id="i2", features=features))
    assert 0 < model.target_ranks([action])[0] <= before + 1


def test_taking_out_an_unknown_item_changes_nothing(make: Make) -> None:
    model = make()
    model.observe_item(ItemUpdate(event_id="x", time_ms=0, item_id="i", available=False))
    assert model.num_items == 0


def test_non_finite_loss_leaves_the_weights_and_counts_the_examples(
    make: Make, stream: list[PositiveAction], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = learned(make, stream)
    before = model.save()

    def broken(*_: object) -> torch.Tensor:
        return torch.tensor(math.nan, requires_grad=True)

    monkeypatch.setattr("retrieval.scorer.softmax_loss", broken)
    report = model.learn(stream[:12])
    assert (report.examples, report.quarantined) == (0, 12)
    assert math.isnan(report.loss)
    after = model.save()
    for part in ("items", "queries", "prior_weights", "optimizer"):
        assert state_hash(after[part]) == state_hash(before[part])
    monkeypatch.undo()
    assert model.learn(stream[:12]).quarantined == 0


def test_non_finite_gradient_leaves_the_weights(
    make: Make, stream: list[PositiveAction], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = learned(make, stream)
    before = model.save()

    def broken(logits_BC: torch.Tensor, *_: object) -> torch.Tensor:
        # The square root of zero has a finite value and an infinite slope.
        return (logits_BC.sum() * 0.0).sqrt()

    monkeypatch.setattr("retrieval.scorer.softmax_loss", broken)
    assert model.learn(stream[:4]).quarantined == 4
    after = model.save()
    for part in ("items", "queries", "prior_weights", "optimizer"):
        assert state_hash(after[part]) == state_hash(before[part])


def test_absurd_features_do_not_stop_learning(make: Make, stream: list[PositiveAction]) -> None:
    model = learned(make, stream)
    features = {"look": (3e38, -3e38)}
    model.observe_item(ItemUpdate(event_id="x", time_ms=0, item_id="i3", features=features))
    assert model.learn(stream).quarantined == 0


def test_catalog_stays_within_its_bound(small_model, world) -> None:
    model = small_model(max_items=50, step_examples=5)
    for first in range(0, 400, 20):
        steps = range(first, first + 20)
        model.learn([world.take(f"u{step % 7}", f"i{step}", step * MINUTE_MS) for step in steps])
    assert model.num_items == 50
    assert len(model.save()["items"]["ids"]["weight"]) == 50
    found = model.retrieve(RetrievalRequest(world.user("u0"), 400 * MINUTE_MS, limit=60))
    assert set(found.item_ids) == {f"i{step}" for step in range(350, 400)}


def test_item_that_gets_a_used_row_inherits_nothing(small_model, world) -> None:
    model = small_model(max_items=10, step_examples=1)
    for step in range(10):
        model.learn([world.take("u", f"i{step}", step * MINUTE_MS)])
    model.observe_item(ItemUpdate(event_id="n", time_ms=11 * MINUTE_MS, item_id="new"))
    state = model.save()
    row = state["catalog"]["ids"]["ids"].index("new")
    assert not state["prior"]["popularity"]["counts"][:, row].any()
    assert not (state["prior"]["transitions"]["next"] == row).any()
    assert state["items"]["biases"]["weight"][row] == 0.0


def test_state_of_another_schema_is_refused(make: Make) -> None:
    state = make().save()
    with pytest.raises(ModelError, match="expected a state of schema"):
        RetrievalModel(FeatureSchema(), RetrievalConfig(), 0).load(state)


def test_state_of_another_shape_is_refused_by_name(small_model) -> None:
    state = small_model().save()
    other = small_model(tower=TowerConfig(width=16))
    with pytest.raises(ModelError, match=r"tower\.width: expected a state saved with 16, got 8"):
        other.load(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_examples": 0}, "retrieval.step_examples must be at least 1, got 0"),
        ({"max_items": 3}, "retrieval.max_items must be at least step_examples"),
    ],
)
def test_retrieval_config_names_the_key_that_is_wrong(
    settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RetrievalConfig(**settings)  # type: ignore[arg-type]


def test_user_view_without_positive_events_is_evaluated_without_history(make: Make) -> None:
    model = make()
    describe_items(model)
    history_of_noes = PositiveAction(UserView("u"), "i2", 0)
    assert model.target_ranks([history_of_noes]).tolist() == [0]
