"""Numbers, slices and sentences of a report, from records that can be said aloud."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from replay.intervals import BootstrapConfig
from replay.records import ExampleRecords, ReplayRecords, TakenRecords
from replay.report import RANK_METRICS, measure, rank_gains
from replay.slices import slices
from replay.words import in_words

FEW = BootstrapConfig(num_draws=20)


def records(
    labels: Any, scores: dict[str, Any], *, users: Any = None, ranks: Any = None, **columns: Any
) -> ReplayRecords:
    """One list of one item after the other; the second half begins in the middle."""
    size = len(labels)
    label_NH = np.asarray(labels, np.float32).reshape(size, -1 if size else 1)
    count = np.arange(size)
    users = count if users is None else np.asarray(users)
    plain = {
        "key": count,
        "user": users,
        "session": users,
        "ordinal": count,
        "time_ms": 1_000 * count,
        "known_actions": np.ones(size, np.int64),
        "item_shown": np.full(size, 99),
    }
    ranks = {name: np.asarray(one, np.int64) for name, one in (ranks or {}).items()}
    taken = max((len(one) for one in ranks.values()), default=0)
    taken_columns = {"key": np.arange(taken), "user": np.arange(taken)}
    return ReplayRecords(
        split_at=size // 2,
        num_demands=size,
        examples=ExampleRecords(
            heads=tuple(f"head{head}" for head in range(label_NH.shape[1])),
            columns={**plain, **{name: np.asarray(one) for name, one in columns.items()}},
            label_NH=label_NH,
            scores={
                name: np.asarray(one, np.float32).reshape(size, -1 if size else 1)
                for name, one in scores.items()
            },
        ),
        taken=TakenRecords({**taken_columns, "ordinal": np.full(taken, size)}, ranks),
    )


def world(size: int = 400) -> ReplayRecords:
    rng = np.random.default_rng(2)
    truth = rng.random(size)
    labels = np.stack([rng.random(size) < truth, rng.random(size) < 0.3], axis=1).astype(float)
    labels[::7, 1] = math.nan
    served = np.stack([truth, np.full(size, 0.3)], axis=1)
    return records(
        labels,
        {
            "counters/item": np.full(size, 0.5),
            "frozen": np.clip(served + rng.normal(0, 0.3, (size, 2)), 0.01, 0.99),
            "online+memory": served,
        },
        users=rng.integers(0, 60, size),
        ranks={
            "online": rng.integers(1, 10, size),
            "popular": rng.integers(200, 900, size),
            "item-item": np.full(size, -1),
            "repeat": np.full(size, 30),
        },
    )


def test_every_part_window_and_head_is_measured_over_its_own_known_labels() -> None:
    one = world()
    found = measure(one, FEW)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    shown = one.examples
    halves = {"all": slice(None), "first_half": slice(0, 200), "second_half": slice(200, None)}
    for head, name in enumerate(("head0", "head1")):
        for half, rows in halves.items():
            part = found["heads"][name][half]
            labels = shown.label_NH[rows, head]
            known = ~np.isnan(labels)
            assert part["examples"] == known.sum()
            assert part["positives"] == labels[known].sum()
            scores = shown.scores["frozen"][rows, head][known]
            auc = part["variants"]["frozen"]["auc"]
            assert auc["value"] == pytest.approx(roc_auc_score(labels[known], scores))
            assert auc["low"] < auc["value"] < auc["high"]
    assert set(found["heads"]["head0"]["all"]["variants"]) == set(shown.scores)
    assert set(found["heads"]["head1"]["all"]["variants"]) == {"frozen", "online+memory"}
    windows = found["windows"]["head0"]
    assert [window["examples"] for window in windows] == [20] * 20
    assert (windows[1]["from_ms"], windows[1]["until_ms"]) == (20_000, 39_000)


def test_curves_and_histograms_share_out_all_examples_of_the_second_half() -> None:
    found = measure(world(), FEW)
    for name in ("counters/item", "online+memory"):
        assert sum(found["calibration_curves"][name]["examples"]) == 200
        histogram = found["score_histograms"][name]
        assert sum(histogram["positives"]) + sum(histogram["negatives"]) == 200
    curve = found["calibration_curves"]["online+memory"]
    assert curve["predicted"] == sorted(curve["predicted"])


def test_rank_gains_are_those_of_scikit_learn_and_of_hand() -> None:
    ranks = np.array([1, 3, 25, -1])
    gains = dict(zip(RANK_METRICS, rank_gains(ranks).T.tolist(), strict=True))
    assert gains["recall@20"] == gains["hr@20"] == [1, 1, 0, 0]
    assert gains["recall@100"] == [1, 1, 1, 0]
    assert gains["mrr"] == pytest.approx([1, 1 / 3, 1 / 25, 0])
    relevance = np.zeros((1, 30))
    relevance[0, 2] = 1.0
    order = -np.arange(30.0)[None]
    assert gains["ndcg@20"][1] == pytest.approx(ndcg_score(relevance, order, k=20))
    assert gains["ndcg@20"][2:] == [0, 0]


def test_retrievers_leave_out_users_without_history_and_count_misses() -> None:
    found = measure(records([1, 0], {}, ranks={"online": [1, 0, -1, 4]}), FEW)["retrievers"]
    assert found["online"]["predictions"] == 3
    assert found["online"]["mrr"]["value"] == pytest.approx((1 + 1 / 4) / 3)


def test_nothing_measured_is_null_with_a_reason_everywhere() -> None:
    nothing = records(np.zeros((0, 1)), {"online+memory": np.zeros((0, 1))}, ranks={"online": []})
    found = measure(nothing, FEW)
    text = json.dumps(found, allow_nan=False)
    auc = found["heads"]["head0"]["all"]["variants"]["online+memory"]["auc"]
    assert auc == {
        "value": None, "low": None, "high": None, "reason": "no example has a known label",
    }  # fmt: skip
    assert "nobody with a history took an item" in text
    assert in_words(nothing, FEW)[0] == (
        "Ranking: nothing to compare, no variant has an AUC: there is no baseline."
    )


# Slices


def test_slices_are_new_and_known_and_tenths_of_users_by_activity() -> None:
    one = records(
        np.zeros(20),
        {},
        users=[0] * 11 + list(range(1, 10)),
        known_actions=[0, 5] * 10,
        item_shown=[9] * 5 + [10] * 15,
    )
    rows = np.arange(20)
    found = {name: chosen.tolist() for name, chosen in slices(one.examples, rows).items()}
    assert found["new users"] == list(range(0, 20, 2))
    assert found["new items"] == list(range(5))
    assert found["known items"] == list(range(5, 20))
    assert found["activity 1-9/10 (1 example)"] == list(range(11, 20)), "equals stay together"
    assert found["activity 10/10 (11 examples)"] == list(range(11))
    assert slices(one.examples, np.zeros(0, np.int64)) == {}


# Sentences


def test_words_say_that_the_model_earns_its_keep_and_what_is_a_repetition() -> None:
    ranking, frozen, retrieval, repetitions = in_words(world(), FEW)
    assert ranking.startswith(
        "Ranking: online+memory earns its keep against the best baseline, counters/item: AUC +0."
    )
    assert frozen.startswith(
        "Learning on: online+memory earns its keep against a copy that stopped"
    )
    assert retrieval.startswith("Retrieval: the retriever earns its keep against the best baseline")
    assert repetitions.startswith("Repetitions: 0.0% of the items taken")


def test_words_say_it_when_a_baseline_wins() -> None:
    one = world()
    scores, ranks = one.examples.scores, one.taken.ranks
    turned = ReplayRecords(
        one.split_at,
        one.num_demands,
        ExampleRecords(
            one.examples.heads,
            one.examples.columns,
            one.examples.label_NH,
            {"counters/item": scores["online+memory"], "online+memory": scores["frozen"]},
        ),
        TakenRecords(
            one.taken.columns, {**ranks, "online": ranks["popular"], "popular": ranks["online"]}
        ),
    )
    ranking, retrieval, _ = in_words(turned, FEW)
    assert "too" not in retrieval
    assert ranking.startswith(
        "Ranking: counters/item WINS against online+memory, which is behind: AUC -0."
    )
    assert retrieval.startswith(
        "Retrieval: popular WINS against the retriever, which is behind: recall@20 -"
    )


def test_words_name_every_baseline_of_retrieval_that_wins() -> None:
    lost = {"online": [900] * 42, "popular": [15, 15, 901] * 14, "item-item": [2] * 42}
    (retrieval,) = [one for one in in_words(records([1, 0], {}, ranks=lost), FEW) if "WINS" in one]
    assert retrieval.startswith(
        "Retrieval: item-item WINS against the retriever, which is behind: recall@20 -1.0"
    )
    assert " popular wins against it too: recall@20 -0.6" in retrieval
    lost["popular"] = [901] * 42
    (retrieval,) = [one for one in in_words(records([1, 0], {}, ranks=lost), FEW) if "WINS" in one]
    assert "popular" not in retrieval


def test_words_say_what_the_error_memory_does_and_when_it_does_nothing() -> None:
    one = world()
    shown = one.examples

    def with_ranker(scores: Any) -> ReplayRecords:
        examples = ExampleRecords(
            shown.heads, shown.columns, shown.label_NH, {**shown.scores, "online": scores}
        )
        return ReplayRecords(one.split_at, one.num_demands, examples, one.taken)

    said = in_words(with_ranker(shown.scores["online+memory"]), FEW)
    assert said[2] == "Error memory: it changed no score; a server answers what the ranker says."
    said = in_words(with_ranker(shown.scores["frozen"]), FEW)
    assert said[2].startswith(
        "Error memory: online+memory earns its keep against the ranker alone: AUC +0."
    )


def test_words_say_when_nothing_sets_them_apart() -> None:
    one = world()
    same = dict.fromkeys(("counters/item", "online+memory"), one.examples.scores["frozen"])
    twins = ReplayRecords(
        one.split_at,
        one.num_demands,
        ExampleRecords(one.examples.heads, one.examples.columns, one.examples.label_NH, same),
        one.taken,
    )
    assert in_words(twins, FEW)[0] == (
        "Ranking: online+memory is no better and no worse than the best baseline, counters/item "
        "(on AUC, session GAUC, NE)."
    )
