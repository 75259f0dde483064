"""A replay of a tiny scenario through the real loop: its report, to the last digit."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from app.replay_files import print_report
from app.replay_run import ReplayWishes, run_replay
from domain.errors import DatasetError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem
from domain.examples import LearnReport, PositiveAction
from domain.features import FeatureSchema, Head
from domain.requests import Candidates, History, RetrievalRequest, UserView
from replay.intervals import BootstrapConfig
from replay.prequential import Prequential
from replay.report_html import page
from replay.report_markdown import markdown
from replay.retrieval_baselines import RetrievalBaselines
from replay.run import count_demands, replay_events
from replay.scenarios import SCENARIOS, Noise
from replay.side_by_side import SideBySide
from replay.simulator import SimulatedDataset
from replay.variants import FrozenVariant, OnlineVariant
from stream.observer import Demand
from tests.loop_worlds import make_loop, tiny_scenario, tiny_settings, tiny_world, with_organic

NOISE = Noise(duplicate_rate=0.1, late_rate=0.05, late_by_ms=600_000, disorder_ms=10_000)


FEW_DRAWS = ReplayWishes(bootstrap=BootstrapConfig(num_draws=4))


class Organic(SimulatedDataset):
    """A scenario of which only the feedback was recorded."""

    def events(self) -> Iterator[Event]:
        seen = (event for event in super().events() if not isinstance(event, Impression))
        return iter(with_organic(seen, every=1))


def _report(dataset: SimulatedDataset, *overrides: str) -> dict[str, Any]:
    quiet = Console(file=io.StringIO())
    return run_replay(tiny_settings(*overrides), dataset, quiet, FEW_DRAWS).report


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return _report(SimulatedDataset(tiny_scenario(100)))


def test_report_says_what_was_replayed_in_json(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    events = list(SimulatedDataset(tiny_scenario(100)).events())
    assert report["dataset"] == "tiny"
    assert report["events"] == len(events)
    assert report["demands"] == 100
    assert report["examples"] == 500
    assert report["duplicates"] == report["dead_letters"] == report["quarantined"] == 0
    assert list(report["variants"]) == [
        "counters/item",
        "counters/user+item",
        "river/logistic",
        "river/fm",
        "frozen",
        "online",
        "online+memory",
    ]
    items = {shown.item_id for e in events if isinstance(e, Impression) for shown in e.items}
    assert 0 < report["retrieval"]["catalog"] <= 40
    assert report["retrieval"]["catalog"] >= len(items) - 10  # some were withdrawn


def test_every_variant_is_measured_on_the_same_examples(report: dict[str, Any]) -> None:
    for variant in report["variants"].values():
        assert variant["second_half"]["examples"] == 250
        assert [window["examples"] for window in variant["windows"]] == [25] * 20
        for number in ("auc", "gauc", "ne", "calibration"):
            assert variant["second_half"][number] > 0.0


def test_frozen_is_online_to_the_last_digit_before_the_split_and_not_after(
    report: dict[str, Any],
) -> None:
    frozen, online = (report["variants"][name]["windows"] for name in ("frozen", "online"))
    assert frozen[:10] == online[:10]
    assert frozen[15:] != online[15:]


def test_report_can_be_printed_for_people(report: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text == markdown(report, intervals=False)
    assert f"{report['variants']['online']['second_half']['auc']:.4f}" in text
    assert "online+memory" in text


@pytest.mark.parametrize("kind", [SimulatedDataset, Organic])
def test_replay_repeats_to_the_last_digit_and_another_seed_gives_other_digits(kind: Any) -> None:
    runs = [_report(kind(tiny_scenario(50)), f"seed={seed}") for seed in (7, 7, 8)]
    for run in runs:
        assert run.pop("seconds") > 0.0
        assert run.pop("costs")["online"]["learn_ms"] > 0.0
    assert runs[0] == runs[1]
    assert runs[0]["variants"]["online"] != runs[2]["variants"]["online"]


def test_counters_of_organic_feedback_are_calibrated_among_its_sampled_negatives() -> None:
    report = _report(Organic(tiny_scenario(200)))
    for name in ("counters/item", "counters/user+item"):
        assert report["variants"][name]["second_half"]["calibration"] == pytest.approx(1.0, abs=0.2)


def test_noisy_stream_is_replayed_to_its_end_with_what_went_wrong_counted() -> None:
    dataset = SimulatedDataset(tiny_scenario(100, noise=NOISE))
    report = _report(dataset)
    assert report["duplicates"] > 0 < report["late"]
    # Feedback that overtakes its list asks for scores of its own.
    assert report["demands"] > count_demands(dataset.events(), dataset.schema) == 100
    windows = report["variants"]["online"]["windows"]
    assert 400 < sum(window["examples"] for window in windows) <= report["examples"]


def test_frozen_copy_does_not_change_although_the_live_ranker_learns_on() -> None:
    schema, events = tiny_world(60)
    copies: list[Any] = []
    loop = make_loop(schema, tiny_settings())

    def copy() -> Any:
        copies.append(loop.parts.ranking.copy())  # type: ignore[attr-defined]
        return copies[-1]

    def begins(demand: Demand) -> bool:
        return demand.ordinal >= 30

    frozen = FrozenVariant(copy, begins)
    observer = Prequential([frozen, OnlineVariant()])
    loop = make_loop(schema, tiny_settings(), (observer,))
    probe = None
    for event in events:
        loop.process(event)
        if copies and probe is None:
            items = ["i1", "i2", "i3"]
            request = loop.parts.feature_store.request("u1", items, event.time_ms, {})
            probe = request, copies[0].predict([copies[0].capture(request)])[0].probabilities
    loop.finish()
    assert probe is not None
    (twin,) = copies
    request, before = probe
    assert twin.predict([twin.capture(request)])[0].probabilities.tobytes() == before.tobytes()
    live = loop.parts.ranking
    assert live.predict([live.capture(request)])[0].probabilities.tobytes() != before.tobytes()


# Counting what will be scored


def _shown(event_id: str, time_ms: int) -> Impression:
    return Impression(
        event_id=event_id,
        time_ms=time_ms,
        user_id="ann",
        items=(ShownItem(item_id="a", position=0),),
    )


def _done(event_id: str, kind: str = "click", impression_id: str | None = None) -> Feedback:
    return Feedback(
        event_id=event_id,
        time_ms=2_000,
        user_id="ann",
        item_id="a",
        kind=kind,
        impression_id=impression_id,
    )


def test_lists_and_organic_feedback_that_decides_a_label_are_counted_once() -> None:
    schema = FeatureSchema(heads=(Head(name="click", feedback_kind="click"),))
    events: list[Event] = [
        _shown("p", 1_000),
        _shown("p", 1_000),
        _shown("q", 1_100),
        _done("answer", impression_id="p"),
        _done("organic"),
        _done("organic"),
        _done("no label", kind="share"),
        ItemUpdate(event_id="item", time_ms=1, item_id="a"),
    ]
    assert count_demands(events, schema) == 3


@pytest.mark.parametrize("every", [1, 2, 1_000])
def test_demands_that_were_counted_are_those_that_come(every: int) -> None:
    schema, events = tiny_world(30)
    events = with_organic(events, every=every)
    loop = make_loop(schema)
    replay_events(events, loop, lambda events, time_ms: None)
    assert loop.counts.demands == count_demands(events, schema)


def test_replay_passes_over_what_a_trainer_would_set_aside_and_says_which_was_first() -> None:
    schema, events = tiny_world(30)
    odd = ItemUpdate(event_id="odd", time_ms=events[9].time_ms, item_id="i1", features={"x": "y"})
    told: list[tuple[int, int]] = []
    loop = make_loop(schema)
    counts = replay_events(
        [*events[:10], odd, *events[10:], replace(odd, event_id="odder")],
        loop,
        lambda records, time_ms: told.append((records, time_ms)),
    )
    assert (counts.records, counts.dead_letters) == (len(events) + 2, 2)
    assert counts.first_dead_letter.startswith("odd: item_update.features.x: no such item field")
    assert loop.counts.events == len(events)
    assert told == []  # fewer than 500 events


def test_dataset_that_asks_for_no_score_is_refused() -> None:
    class Silent(SimulatedDataset):
        def events(self) -> Iterator[Event]:
            return (event for event in super().events() if isinstance(event, ItemUpdate))

    with pytest.raises(DatasetError, match=r"^tiny: nothing in it asks for a score"):
        _report(Silent(tiny_scenario(10)))


# Streams that are not what one hopes for


def _changed(change: Callable[[Event], Event | None], num_lists: int = 30) -> dict[str, Any]:
    class Changed(SimulatedDataset):
        def events(self) -> Iterator[Event]:
            changed = (change(event) for event in super().events())
            return (event for event in changed if event is not None)

    report = _report(Changed(tiny_scenario(num_lists)))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    before, *_, data = page(report).split("<script>")
    assert "NaN" not in before + data
    return report


def test_stream_without_feedback_says_that_there_is_one_class_only() -> None:
    report = _changed(lambda event: None if isinstance(event, Feedback) else event)
    auc = report["heads"]["click"]["second_half"]["variants"]["online"]["auc"]
    assert auc["reason"] == "all 75 labels are 0: nothing to tell apart"
    assert report["words"][0] == (
        "Ranking: nothing to compare, no variant has an AUC: all 75 labels are 0: nothing to tell "
        "apart."
    )
    assert report["retrievers"]["online"]["mrr"]["value"] is None
    assert report["recommended_lists"]["online"]["coverage"] is None


def test_stream_of_a_single_user_has_numbers_but_no_intervals() -> None:
    def alone(event: Event) -> Event:
        return event if isinstance(event, ItemUpdate) else replace(event, user_id="ann")

    report = _changed(alone)
    auc = report["heads"]["click"]["second_half"]["variants"]["online"]["auc"]
    assert auc["value"] is not None
    assert auc["reason"] == "no interval: fewer than two users to draw from"
    assert "fewer than two users to draw from" in report["words"][0]


def test_report_on_a_stream_of_news_says_when_counting_wins() -> None:
    churn = SCENARIOS["item-churn"]
    news = replace(
        churn,
        population=replace(
            churn.population, num_items=200, popularity_scale=2.5, category_scale=0.1
        ),
        traffic=replace(
            churn.traffic,
            num_lists=300,
            list_size=5,
            lists_per_session=1.2,
            visitors=600,
            freshness_pull=0.0,
            popularity_pull=2.0,
        ),
    )
    rates = ("id", "bias", "content", "dense")
    asleep = [f"retrieval.tower.{name}_learning_rate=1e-12" for name in rates]
    asleep += ["retrieval.prior.learning_rate=1e-12"]
    asleep += [f"retrieval.prior.{of}_half_lives_ms=[1]" for of in ("popularity", "transition")]
    said = _report(SimulatedDataset(news), *asleep)["words"]
    (retrieval,) = [one for one in said if one.startswith("Retrieval: ")]
    assert retrieval.startswith(
        "Retrieval: popular WINS against the retriever, which is behind: recall@20 -0."
    )


def test_times_out_of_order_are_counted_as_late_and_measured() -> None:
    def turned(event: Event) -> Event:
        late = isinstance(event, Impression) and event.event_id.endswith("7")
        return replace(event, time_ms=event.time_ms - 7_200_000) if late else event

    report = _changed(turned)
    assert report["late"] > 0
    assert report["heads"]["click"]["all"]["examples"] > 100


def test_lists_are_described_by_what_they_are_made_of() -> None:
    class Fixed:
        """Ranks everything first and recommends a and new."""

        def observe_item(self, update: ItemUpdate) -> None: ...

        def target_ranks(self, batch: Sequence[PositiveAction]) -> Any:
            return np.ones(len(batch), np.int64)

        def retrieve(self, request: RetrievalRequest) -> Candidates:
            return Candidates(("a", "new"), np.zeros(2, np.float32))

        def learn(self, batch: Sequence[PositiveAction]) -> LearnReport:
            return LearnReport(0.0, len(batch))

    watched = SideBySide(Fixed(), RetrievalBaselines(), lambda: True)  # type: ignore[arg-type]
    past = History(("z",), np.zeros(1, np.int64), np.ones(1, np.int64))
    before = [PositiveAction(UserView(user_id="ann"), item, 1) for item in ("a", "a", "a")]
    watched.learn(before)
    asked = PositiveAction(UserView(user_id="bob", history=past), "a", 2)
    assert watched.target_ranks([asked]).tolist() == [1]
    assert watched.ranks()["popular"].tolist() == [1]
    found = watched.lists(catalog=4)["online"]
    # Of four actions, counting one to come, `a` is all four and `new` would be one.
    assert found == {
        "lists": 1,
        "coverage": 0.5,
        "novelty_bits": (0.0 + 2.0) / 2,
        "popularity_share": 0.5,
    }
