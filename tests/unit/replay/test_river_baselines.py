"""River's learners as variants: what they see, when they learn, and that they do learn."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from river import facto, linear_model, optim

from domain.features import FeatureSchema, Field
from replay.river_baselines import FACTORISATION, LOGISTIC, RiverVariant
from snapshot.state_files import read_state, write_state
from tests.unit.replay.measured_fakes import demand, example, measured

BOTH = pytest.mark.parametrize("name", [LOGISTIC, FACTORISATION])


def variant(name: str, seed: int = 1) -> RiverVariant:
    return RiverVariant(name, FeatureSchema(), seed)


def taught(name: str, seed: int = 1) -> RiverVariant:
    """Item good is always clicked, item bad never."""
    one = variant(name, seed)
    for at in range(200):
        one.on_demand(demand(f"p{at}", "good", "bad"))
        one.on_examples([example(f"p{at}", 0, 1.0), example(f"p{at}", 1, 0.0)])
        one.on_forget([f"p{at}"])
    one.on_demand(demand("last", "good", "bad"))
    return one


@BOTH
def test_it_learns_which_item_is_good(name: str) -> None:
    answers = [measured(example("last", index, 1.0)) for index in (0, 1)]
    good, bad = taught(name).probabilities(answers)[:, 0]
    assert good > 0.6 > 0.4 > bad


@BOTH
def test_it_answers_with_what_it_knew_when_the_items_were_shown(name: str) -> None:
    one = variant(name)
    one.on_demand(demand("p", "good"))
    before = one.probabilities([measured(example("p", 0, 1.0))]).tolist()
    one.on_examples([example("p", 0, 1.0)] * 50)
    assert one.probabilities([measured(example("p", 0, 1.0))]).tolist() == before
    one.on_demand(demand("q", "good"))
    assert one.probabilities([measured(example("q", 0, 1.0))])[0, 0] > before[0][0]


@BOTH
def test_it_learns_the_primary_head_only_and_nothing_it_was_not_shown(name: str) -> None:
    one, untouched = variant(name), variant(name)
    one.on_demand(demand("p", "good"))
    one.on_examples([example("p", 0, math.nan, 1.0), example("never shown", 0, 1.0)])
    untouched.on_demand(demand("p", "good"))
    for each in (one, untouched):
        each.on_demand(demand("q", "good"))
    answer = [measured(example("q", 0, 1.0))]
    assert one.probabilities(answer).tolist() == untouched.probabilities(answer).tolist()


@BOTH
def test_it_repeats_under_a_seed_and_forgets_what_is_done_with(name: str) -> None:
    answer = [measured(example("last", 0, 1.0))]
    one, again = taught(name, 5), taught(name, 5)
    assert one.probabilities(answer).tolist() == again.probabilities(answer).tolist()
    one.on_forget(["last", "unknown"])
    with pytest.raises(KeyError):
        one.probabilities(answer)


def test_machine_is_river_s_own_fed_with_the_same_inputs() -> None:
    plain: Any = facto.FMClassifier(
        n_factors=8,
        weight_optimizer=optim.SGD(0.03),
        latent_optimizer=optim.SGD(0.03),
        intercept_lr=0.003,
        latent_initializer=optim.initializers.Normal(sigma=0.05, seed=4),
        seed=4,
    )
    fields = tuple(
        Field(name=name, entity="context", kind="categorical") for name in ("tab", "hour", "place")
    )
    one, rng = RiverVariant(FACTORISATION, FeatureSchema(fields=fields), 4), Random(0)
    for at in range(300):
        item, label = f"i{rng.randrange(5)}", float(rng.random() < 0.5)
        context = {field.name: f"{rng.randrange(3)}" for field in fields}
        inputs = {"user=ann": 1, f"item={item}": 1}
        inputs |= {f"{name}={value}": 1 for name, value in context.items()}
        one.on_demand(demand(f"p{at}", item, context=context))
        expected = plain.predict_proba_one(inputs)[True]
        answer = one.probabilities([measured(example(f"p{at}", 0, label))])[0, 0]
        assert answer == pytest.approx(expected, abs=1e-9)
        one.on_examples([example(f"p{at}", 0, label)])
        plain.learn_one(inputs, bool(label))


def test_logistic_is_river_s_own_fed_with_the_same_inputs() -> None:
    plain: Any = linear_model.LogisticRegression(optimizer=optim.SGD(0.03), intercept_lr=0.003)
    one, rng = variant(LOGISTIC), np.random.default_rng(0)
    for at in range(60):
        item, label = f"i{rng.integers(5)}", float(rng.random() < 0.5)
        inputs = {"user=ann": 1, f"item={item}": 1}
        one.on_demand(demand(f"p{at}", item))
        expected = plain.predict_proba_one(inputs)[True]
        answer = one.probabilities([measured(example(f"p{at}", 0, label))])
        assert answer[0, 0] == pytest.approx(expected, abs=1e-12)
        one.on_examples([example(f"p{at}", 0, label)])
        plain.learn_one(inputs, bool(label))


@BOTH
def test_restored_from_files_it_goes_on_to_the_last_bit(name: str, tmp_path: Path) -> None:
    one, again, rng = variant(name), variant(name, seed=9), Random(3)
    for at in range(120):
        if at == 60:
            write_state(tmp_path, "learner", one.save())
            files = [
                (tmp_path / f"learner.{kind}").read_bytes() for kind in ("json", "safetensors")
            ]
            again.load(read_state(files[0], files[1], "learner"))
        item, label = f"i{rng.randrange(40)}", float(rng.random() < 0.4)
        answers = []
        for each in (one, again) if at >= 60 else (one,):
            each.on_demand(demand(f"p{at}", item))
            answers.append(each.probabilities([measured(example(f"p{at}", 0, label))]).tobytes())
            if at >= 3:  # labels come later, also those of lists that were shown before
                each.on_examples([example(f"p{at - 3}", 0, label)])
                each.on_forget([f"p{at - 3}"])
        assert len(set(answers)) == 1
