"""Which run is better: worlds in which one is, in which none is, and in which nobody can say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.errors import ConfigError, DatasetError
from monitoring.quality import auc
from replay.compare import CompareConfig, Difference, compare, verdict_line
from replay.records import ExampleRecords, ReplayRecords, TakenRecords

SIZE, USERS = 4_000, 200


def run(
    shift: float = 0.0, *, noise_seed: int = 0, better: float = 0.0, order: Any = None
) -> ReplayRecords:
    """Labels and scores that know a little of them; `better` knows more, `shift` is a bias."""
    rng = np.random.default_rng(1)
    truth = rng.random(SIZE)
    labels = (rng.random(SIZE) < truth).astype(np.float32)
    noise = np.random.default_rng((2, noise_seed)).normal(0, 0.02, SIZE)
    common = rng.normal(0, 0.3, SIZE)
    score = np.clip(truth + (1.0 - better) * common + noise + shift, 0.01, 0.99)
    order = np.arange(SIZE) if order is None else order
    user = rng.integers(0, USERS, SIZE)
    columns: dict[str, NDArray[np.int64]] = {
        "key": np.arange(SIZE) * 11,
        "user": user,
        "session": user * 50 + rng.integers(0, 5, SIZE),
        "ordinal": np.arange(SIZE),
        "time_ms": np.arange(SIZE),
        "known_actions": np.zeros(SIZE, np.int64),
        "item_shown": np.zeros(SIZE, np.int64),
    }
    ranks = np.maximum(1, 30 - (100 * better) + rng.integers(-25, 25, SIZE)).astype(np.int64)
    return ReplayRecords(
        split_at=SIZE // 2,
        num_demands=SIZE,
        examples=ExampleRecords(
            heads=("click",),
            columns={name: values[order] for name, values in columns.items()},
            label_NH=labels[order, None],
            scores={"online+memory": score[order, None].astype(np.float32)},
        ),
        taken=TakenRecords(
            columns={name: columns[name] for name in ("key", "user", "ordinal")},
            ranks={"online": ranks},
        ),
    )


def found(first: ReplayRecords, later: ReplayRecords, **config: Any) -> dict[str, Difference]:
    return {one.metric: one for one in compare(first, later, CompareConfig(**config))}


def test_run_that_knows_more_is_better_and_the_other_way_round_worse() -> None:
    there, back = found(run(), run(better=0.3)), found(run(better=0.3), run())
    for metric in ("auc", "gauc", "ne", "recall@20", "mrr"):
        assert (there[metric].verdict, back[metric].verdict) == ("better", "worse"), metric
        assert there[metric].change == pytest.approx(-(back[metric].change or 0.0))
    assert (there["ne"].change or 0) < 0 < (there["auc"].change or 0)


def test_change_is_the_difference_of_the_two_values_over_the_second_half() -> None:
    first, later = run(), run(better=0.3)
    second = slice(SIZE // 2, None)
    values = [
        auc(one.examples.label_NH[second, 0], one.examples.scores["online+memory"][second, 0])
        for one in (first, later)
    ]
    one = found(first, later, metrics=("auc",))["auc"]
    assert [one.before, one.after] == pytest.approx(values)
    assert one.change == pytest.approx(values[1] - values[0])


def test_pairing_makes_a_small_difference_certain_that_two_intervals_would_hide() -> None:
    one = found(run(), run(better=0.05), metrics=("auc",))["auc"]
    assert one.verdict == "better"
    assert one.high - one.low < 0.01  # type: ignore[operator]


def test_same_model_under_another_seed_is_no_difference() -> None:
    for metric, one in found(run(noise_seed=1), run(noise_seed=2)).items():
        assert one.verdict == "no difference", metric


def test_run_against_itself_differs_by_nothing() -> None:
    for one in found(run(), run()).values():
        assert [one.change, one.low, one.high] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
        assert one.verdict == "no difference"


def test_rows_may_come_in_another_order() -> None:
    turned = run(order=np.random.default_rng(0).permutation(SIZE))
    for one in found(run(), turned, metrics=("auc", "ne")).values():
        assert one.change == pytest.approx(0.0, abs=1e-12)


def test_margin_decides_what_matters() -> None:
    pair = run(), run(better=0.3)
    assert found(*pair, metrics=("auc",), margins={"auc": 0.9})["auc"].verdict == "no difference"
    assert found(*pair, metrics=("auc",), margins={"auc": 0.0})["auc"].verdict == "better"


def test_calibration_is_judged_by_its_distance_from_one() -> None:
    high, low = run(shift=0.2), run(shift=-0.2)
    right = run()
    for wrong in (high, low):
        assert found(right, wrong, metrics=("calibration",))["calibration"].verdict == "worse"
        assert found(wrong, right, metrics=("calibration",))["calibration"].verdict == "better"


def test_different_events_are_refused_with_what_they_share() -> None:
    first = run()
    shown = first.examples
    columns = dict(shown.columns) | {"key": shown.columns["key"] + 11}
    later = replace(first, examples=replace(shown, columns=columns))
    with pytest.raises(DatasetError, match=r"different examples: 2,000 and 2,000 .* 1,999 of them"):
        found(first, later)


def test_different_labels_of_the_same_events_are_refused() -> None:
    first = run()
    turned = replace(first.examples, label_NH=1.0 - first.examples.label_NH)
    with pytest.raises(DatasetError, match=r"disagree about 2,000 labels"):
        found(first, replace(first, examples=turned))


def test_different_actions_are_refused_where_retrieval_is_compared() -> None:
    first = run()
    columns = dict(first.taken.columns) | {"key": first.taken.columns["key"] + 1}
    later = replace(first, taken=replace(first.taken, columns=columns))
    with pytest.raises(DatasetError, match=r"different actions"):
        found(first, later, metrics=("mrr",))
    assert found(first, later, metrics=("auc",))["auc"].verdict == "no difference"


def test_unknown_names_are_said_with_those_there_are() -> None:
    with pytest.raises(DatasetError, match=r"first run has no variant 'best', it has: online\+mem"):
        found(run(), run(), variant="best")
    with pytest.raises(DatasetError, match=r"no label head 'like'; there are: click"):
        found(run(), run(), head="like")
    with pytest.raises(ConfigError, match=r"compare\.metric: no metric 'acc'; there are: auc, "):
        CompareConfig(metrics=("acc",))
    with pytest.raises(ConfigError, match=r"compare\.margin: auc must not be negative"):
        CompareConfig(margins={"auc": -1.0})
    with pytest.raises(ConfigError, match=r"must name at least one metric"):
        CompareConfig(metrics=())


def test_one_class_gives_no_verdict_and_the_reason() -> None:
    first = run()
    silent = replace(first, examples=replace(first.examples, label_NH=np.zeros((SIZE, 1))))
    one = found(silent, silent, metrics=("auc",))["auc"]
    assert (one.verdict, one.change) == ("n/a", None)
    assert one.reason == "it cannot be computed over these examples"


def test_verdict_line_says_worst_first_in_one_line() -> None:
    def one(metric: str, low: float, high: float) -> Difference:
        return Difference(
            metric=metric,
            before=0.5,
            after=0.6,
            change=(low + high) / 2,
            low=low,
            high=high,
            margin=0.001,
        )

    line = verdict_line(
        "B", "A", [one("auc", 0.002, 0.004), one("ne", 0.01, 0.03), one("mrr", -0.1, 0.1)]
    )
    assert line == (
        "B against A: worse on NE: +0.0200 [+0.0100, +0.0300]; better on AUC: +0.0030 "
        "[+0.0020, +0.0040]; no difference on MRR"
    )
