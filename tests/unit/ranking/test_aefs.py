"""Early selection: what is chosen, who feels which loss, and what is never looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.features import USER_ID
from domain.state import state_hash
from ranking.adaf2m2 import AdaF2M2Config
from ranking.aefs import (
    AefsConfig,
    AefsOutput,
    RunningNorm,
    SmallModel,
    embedding_alignment,
    prediction_alignment,
    renormalised_top_k,
)
from ranking.embedding_table import EmbeddingTable
from ranking.hashing import FieldHasher
from ranking.history_encoder import BackboneConfig
from ranking.learner import RankingConfig, RankingModel
from tests.contract.test_ranking_learner import SCHEMA, SMALL, labelled, request, stream
from tests.unit.ranking.test_learner import CONFIG, asked, likes, revealed
from tests.unit.ranking.test_learner import SCHEMA as CHECKERBOARD

F, S, D, W, H = 4, 2, 3, 5, 2
HALF = AefsConfig(keep=0.5, small_dimension=S)


def small_model(config: AefsConfig = HALF) -> SmallModel:
    model = SmallModel(config, F, (W, D, H), torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.controller.weight.normal_(0, 1, generator=torch.Generator().manual_seed(1))
        model.controller.bias.fill_(1.0)  # so that the rectifier lets gradients through
    return model


def looked(model: SmallModel, large: torch.Tensor) -> tuple[torch.Tensor, AefsOutput]:
    generator = torch.Generator().manual_seed(2)
    small = torch.randn(6, F, S, generator=generator)
    numbers = torch.randn(6, W, generator=generator)
    return model.look(model.choose(small), numbers, large)


def test_top_k_weights_sum_to_one_again() -> None:
    mask, chosen = renormalised_top_k(torch.tensor([[0.1, 0.4, 0.05, 0.45]]), 2)
    assert chosen.tolist() == [[False, True, False, True]]
    torch.testing.assert_close(mask, torch.tensor([[0.0, 0.4 / 0.85, 0.0, 0.45 / 0.85]]))
    assert mask[0, 1] == pytest.approx(0.47059, abs=1e-5)


def test_first_of_equal_weights_is_kept() -> None:
    assert renormalised_top_k(torch.full((1, 4), 0.25), 2)[0].tolist() == [[0.5, 0.5, 0.0, 0.0]]


def test_all_fields_are_kept_when_asked() -> None:
    weights = torch.tensor([[0.1, 0.4, 0.05, 0.45]])
    torch.testing.assert_close(renormalised_top_k(weights, 4)[0], weights)


def test_fields_not_chosen_reach_the_main_model_as_zeros() -> None:
    model = small_model()
    with torch.no_grad():
        model.main_norm.shift.fill_(7.0)  # what normalisation makes of a zero
    weighed, out = looked(model, torch.randn(6, F, D))
    assert (out.choice.chosen_MF.sum(dim=1) == 2).all()
    assert not weighed[~out.choice.chosen_MF].any()
    assert weighed[out.choice.chosen_MF].all()
    assert (out.main_MFD[~out.choice.chosen_MF] == 7.0).all()


def gradients(model: SmallModel, loss: torch.Tensor, *inputs: torch.Tensor) -> set[str]:
    """Return which parameters a loss reaches; inputs are called by their place."""
    named: dict[str, torch.Tensor] = {
        name: p for name, p in model.named_parameters() if p.requires_grad
    }
    named |= {str(place): each for place, each in enumerate(inputs)}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name
        for name, gradient in zip(named, found, strict=True)
        if gradient is not None and gradient.any()
    }


SMALL_ROWS = {"defaults", "norm.scale", "norm.shift"}
CONTROLLER = {"controller.weight", "controller_norm.scale", "controller_norm.shift"}
HEAD = {"layers.0.weight", "layers.0.bias", "layers.1.weight", "heads.weight", "heads.bias"}
MAIN = {"main_norm.scale", "main_norm.shift", "0"}


def test_main_prediction_reaches_the_controller_through_the_mask() -> None:
    model, large = small_model(), torch.randn(6, F, D, requires_grad=True)
    weighed, _ = looked(model, large)
    reached = gradients(model, weighed.pow(3).sum(), large)
    assert reached >= MAIN | CONTROLLER | SMALL_ROWS
    assert not reached & (HEAD | {"projector.weight", "projector.bias"})


def test_prediction_alignment_never_reaches_the_main_model() -> None:
    model, large = small_model(), torch.randn(6, F, D, requires_grad=True)
    weighed, out = looked(model, large)
    main_logits = weighed.sum(dim=(1, 2))[:, None].expand(6, H)
    reached = gradients(model, prediction_alignment(out.small_logits_MH, main_logits), large)
    assert reached >= CONTROLLER | SMALL_ROWS | {"heads.weight"}
    assert not reached & MAIN


def test_embedding_alignment_never_reaches_the_main_model() -> None:
    model, large = small_model(), torch.randn(6, F, D, requires_grad=True)
    _, out = looked(model, large)
    reached = gradients(model, embedding_alignment(out), large)
    assert reached >= CONTROLLER | SMALL_ROWS | {"projector.weight", "projector.bias"}
    assert not reached & (MAIN | HEAD)


def test_embedding_alignment_is_the_mean_over_all_fields() -> None:
    _, out = looked(small_model(), torch.randn(6, F, D))
    total = 0.0
    for m in range(6):
        for f in range(F):
            if out.choice.chosen_MF[m, f]:
                gap = (out.projected_MFD[m, f] - out.main_MFD[m, f]) * out.choice.mask_MF[m, f]
                total += float(gap.detach().square().sum())
    assert float(embedding_alignment(out).detach()) == pytest.approx(total / (6 * F * D), rel=1e-5)


def test_prediction_alignment_is_the_mean_squared_distance_of_probabilities() -> None:
    small, main = torch.tensor([[0.0]]), torch.tensor([[torch.logit(torch.tensor(0.9))]])
    assert float(prediction_alignment(small, main)) == pytest.approx(0.16, abs=1e-6)


def test_running_norm_does_what_batch_normalisation_does_once_it_saw_the_batch() -> None:
    x = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    norm, oracle = RunningNorm(3), torch.nn.BatchNorm1d(3)
    norm.observe(x)
    expected = oracle(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(norm(x), expected, atol=1e-4, rtol=1e-4)


def test_running_norm_follows_by_mean_at_first_then_by_momentum() -> None:
    norm = RunningNorm(1)
    for value in (1.0, 3.0):
        norm.observe(torch.full((4, 1), value))
    assert float(norm.mean) == pytest.approx(2.0)
    for _ in range(20):
        norm.observe(torch.full((4, 1), 2.0))
    norm.observe(torch.full((4, 1), 12.0))
    assert float(norm.mean) == pytest.approx(3.0, abs=1e-4)


def test_running_norm_sees_the_spread_of_batches_of_one() -> None:
    norm = RunningNorm(1)
    for value in np.random.default_rng(0).normal(3.0, 2.0, 400):
        norm.observe(torch.tensor([[value]], dtype=torch.float32))
    assert float(norm.mean) == pytest.approx(3.0, abs=1.5)
    assert float(norm.variance) ** 0.5 == pytest.approx(2.0, abs=1.0)


def test_first_value_that_varies_does_not_run_the_network() -> None:
    norm = RunningNorm(1)
    norm.observe(torch.zeros(8, 1))
    assert norm(torch.tensor([[100.0], [-100.0]])).tolist() == [[5.0], [-5.0]]


def test_as_many_fields_are_chosen_as_asked_even_when_weights_vanish() -> None:
    _, chosen = renormalised_top_k(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), 3)
    assert chosen.tolist() == [[True, True, True, False]]


def test_controller_takes_a_step_once_in_ten_with_that_gradient_alone() -> None:
    model = RankingModel(SCHEMA, replace(SMALL, aefs=AefsConfig(keep=0.5)), seed=3)
    rng = np.random.default_rng(0)
    moved = []
    for step in range(20):
        before = model.save()["dense"]
        batch = [labelled(rng, model.capture(request(rng, step * 60_000))) for _ in range(8)]
        model.learn(batch)
        after = model.save()["dense"]
        names = [name for name in after if name.startswith("small.controller")]
        assert names
        moved.append(
            {
                name
                for name in ("small.controller.weight", "small.projector.weight", "heads.weight")
                if not np.array_equal(before[name]["weight"], after[name]["weight"])
            }
        )
        taken = after["small.controller.weight"].get("step")
        assert (0 if taken is None else int(taken)) == (step + 1) // 10
    others = {"small.projector.weight", "heads.weight"}
    for step, names_moved in enumerate(moved):
        expected = others | ({"small.controller.weight"} if step in (9, 19) else set())
        assert names_moved == expected, step


def selecting(keep: float, **aefs: Any) -> RankingModel:
    config: RankingConfig = replace(SMALL, aefs=AefsConfig(keep=keep, **aefs))
    return RankingModel(SCHEMA, config, seed=3)


class Reads:
    """Notes which ids were read from the tables, by the width of their rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: dict[int, list[NDArray[np.int64]]] = {}
        read = EmbeddingTable.read

        def noted(table: EmbeddingTable, ids: NDArray[np.int64]) -> NDArray[np.float32]:
            rows = read(table, ids)
            self.ids.setdefault(rows.shape[-1], []).append(ids[ids != 0])
            return rows

        monkeypatch.setattr(EmbeddingTable, "read", noted)


LARGE_WIDTH, SMALL_WIDTH = 4, 2


def test_only_chosen_fields_are_read_from_the_large_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six fields three are chosen; the one of several values has none here."""
    model = selecting(0.5, small_dimension=SMALL_WIDTH)
    stream(model, 12)
    rng = np.random.default_rng(5)
    ask = replace(request(rng, 10_000_000, num_items=1), item_features=({"author": "a1"},))
    ask = replace(ask, user=replace(ask.user, history=asked(0, [0]).user.history))
    captured = model.capture(ask)
    reads = Reads(monkeypatch)
    (chosen,) = model.choices([captured])
    ((large,), (small,)) = reads.ids[LARGE_WIDTH], reads.ids[SMALL_WIDTH]
    assert chosen.chosen_NF.sum() == 3
    present = {
        name: int(array)
        for name, array in {
            "user": captured.arrays["request_ids"][0],
            "country": captured.arrays["request_ids"][1],
            "tab": captured.arrays["request_ids"][2],
            "item": captured.arrays["item_ids"][0, 0],
            "author": captured.arrays["item_ids"][0, 1],
        }.items()
    }
    assert set(small.tolist()) == {each for each in present.values() if each}
    wanted = {
        present[name]
        for name, is_chosen in zip(chosen.fields, chosen.chosen_NF[0], strict=True)
        if is_chosen and present.get(name)
    }
    assert set(large.tolist()) == wanted
    assert len(wanted) < len(small)


def test_less_is_read_the_less_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    for keep in (1.0, 0.6, 0.3):
        with monkeypatch.context() as patch:
            model = RankingModel(
                SCHEMA,
                replace(
                    SMALL,
                    aefs=AefsConfig(keep=keep, small_dimension=SMALL_WIDTH),
                    backbone=BackboneConfig(blocks=0),
                ),
                seed=3,
            )
            stream(model, 3)
            reads = Reads(patch)
            rng = np.random.default_rng(7)
            for step in range(10):
                model.predict([model.capture(request(rng, step, num_items=1))])
            read.append(sum(map(len, reads.ids[LARGE_WIDTH])))
            assert sum(map(len, reads.ids[SMALL_WIDTH])) == read[0]
    assert read[0] > read[1] > read[2] > 0


def test_ids_of_fields_never_chosen_get_no_row() -> None:
    """Of two fields one is kept: always the first one, by a controller that has no opinion."""
    config = replace(
        CONFIG,
        backbone=BackboneConfig(blocks=0),
        aefs=AefsConfig(keep=0.5, controller_every=10_000, dropout=0.0),
    )
    model = RankingModel(CHECKERBOARD, config, seed=0)
    state = model.save()
    state["dense"]["small.controller.weight"]["weight"][:] = 0.0
    model.load(state)
    for user in range(6):
        model.learn([revealed(model.capture(asked(user, [user + 10])), [1.0])])
    state = model.save()
    large, small = (set(state[name]["rows"]["ids"].tolist()) for name in ("table", "small_table"))
    assert large == {FieldHasher(USER_ID)(f"u{user}") for user in range(6)}
    assert len(small) == 12


def test_row_shared_with_an_example_that_did_not_choose_it_is_not_seen_by_that_one() -> None:
    model = selecting(0.5)
    stream(model, 12)
    rng = np.random.default_rng(11)
    captured = [model.capture(request(rng, 10_000_000)) for _ in range(12)]
    together = model.choices(captured)
    for each, one in zip(captured, together, strict=True):
        (alone,) = model.choices([each])
        np.testing.assert_array_equal(alone.chosen_NF, one.chosen_NF)
        np.testing.assert_allclose(alone.main_NH, one.main_NH, atol=1e-5)
        np.testing.assert_allclose(alone.small_NH, one.small_NH, atol=1e-5)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_checkerboard_is_learned_with_early_selection(keep: float) -> None:
    """Two fields, both needed: with one of them kept it cannot be learned, with both it can."""
    config = replace(
        CONFIG, backbone=BackboneConfig(blocks=0), aefs=AefsConfig(keep=keep, dropout=0.0)
    )
    model = RankingModel(CHECKERBOARD, config, seed=0)
    rng = np.random.default_rng(0)
    for step in range(250):
        batch = []
        for user in range(8):
            items: Sequence[int] = rng.permutation(8)[:4].tolist()
            captured = model.capture(asked(user, items, step))
            batch.append(revealed(captured, [float(likes(user, item)) for item in items]))
        model.learn(batch)
    right = []
    for user, answer in enumerate(
        model.predict([model.capture(asked(user, range(8), 251)) for user in range(8)])
    ):
        right += [
            bool(p > 0.5) == likes(user, item) for item, p in enumerate(answer.probabilities[:, 0])
        ]
    assert bool(np.mean(right) > 0.95) is (keep == 1.0)


def test_off_is_the_model_without_it() -> None:
    plain, off = RankingModel(SCHEMA, SMALL, seed=3), selecting(0.0)
    assert stream(plain, 3) == stream(off, 3)
    assert state_hash(plain.save()) == state_hash(off.save())


def test_choices_are_told_only_where_fields_are_chosen() -> None:
    model = RankingModel(SCHEMA, SMALL, seed=3)
    with pytest.raises(ConfigError, match=r"ranking\.aefs\.keep is 0"):
        model.choices([model.capture(request(np.random.default_rng(0), 0))])


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"keep": 1.5}, "keep"),
        ({"small_dimension": 0}, "small_dimension"),
        ({"controller_every": 0}, "controller_every"),
        ({"hidden": ()}, "hidden"),
        ({"small_weight": -1.0}, "small_weight"),
        ({"embedding_alignment": -1.0}, "embedding_alignment"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_config_names_the_key_when_out_of_range(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.aefs\.{key} must"):
        AefsConfig(**values)


def test_masked_copies_and_early_selection_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="cannot both be on"):
        RankingConfig(aefs=AefsConfig(keep=0.5), adaf2m2=AdaF2M2Config(masked_forwards=1))
