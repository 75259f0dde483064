"""The drift watch of a loop: what it feeds, believed time, and exact restarts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.examples import LearnReport, PositiveAction
from domain.features import FeatureSchema, Field, Head
from domain.requests import RankingRequest, UserView
from domain.state import State, state_hash
from monitoring.drift_detectors import DriftDetectorsConfig
from monitoring.drift_monitor import DriftMonitorConfig
from monitoring.drift_sinks import ListSink
from monitoring.field_watch import FieldWatchConfig
from monitoring.metrics import Metrics
from stream.drift_watch import DriftWatch, DriftWatchParts
from stream.observer import Arrivals, Demand, Measured
from stream.watermark import WatermarkConfig
from tests.unit.stream.pending_fakes import example

SECOND = 1_000
SCHEMA = FeatureSchema(
    fields=(Field(name="plan", entity="user", kind="categorical"),),
    heads=(Head(name="click", feedback_kind="click"), Head(name="like", feedback_kind="like")),
)
CONFIG = DriftMonitorConfig(
    point_examples=10,
    sensitivity=DriftDetectorsConfig(settle=0, warm_up=20, max_values=200),
    fields=FieldWatchConfig(step_requests=10, window_steps=2, reference_steps=4, report_ms=0),
)


def watch(config: DriftMonitorConfig = CONFIG) -> tuple[DriftWatch, ListSink]:
    sink = ListSink()
    return DriftWatch(SCHEMA, DriftWatchParts(config=config, metrics=Metrics(), sinks=[sink])), sink


def demand(time_ms: int, user: str = "u", *item_ids: str, **features: str) -> Demand:
    view = UserView(user_id=user, features=features)
    request = RankingRequest(view, item_ids, tuple({} for _ in item_ids), time_ms)
    return Demand(f"d{time_ms}", 0, 0, request)


def measured(time_ms: int, click: float, score: float) -> Measured:
    scores = np.array([score, 0.1], np.float32)
    return Measured(example("p", 0, click, 0.0, revealed_ms=time_ms), 0, scores, scores)


def label(one: DriftWatch, start_s: int, count: int, rate: float, score: float = 0.5) -> None:
    """Settle ten labels a second; in turns one more or one less of them is a click."""
    for second in range(start_s, start_s + count):
        clicks = round(10 * rate) + second % 2
        batch = [measured(SECOND * second, float(n < clicks), score) for n in range(10)]
        one.on_measured(batch)


def streams(sink: ListSink) -> set[str]:
    return {signal.stream for signal in sink.signals}


def test_change_of_the_click_rate_is_a_signal_on_labels_loss_and_calibration() -> None:
    one, sink = watch()
    label(one, 1_000, 100, rate=0.1, score=0.15)
    assert sink.signals == []
    label(one, 1_100, 100, rate=0.6, score=0.15)
    found = streams(sink)
    assert {"label_rate/click", "loss/online/click", "calibration/online/click"} <= found
    assert not {name for name in found if name.startswith(("score/", "label_rate/like"))}
    assert {signal.since_ms for signal in sink.signals} == {1_100 * SECOND}


def test_event_far_in_the_future_ends_no_signal() -> None:
    one, sink = watch()
    label(one, 1_000, 100, rate=0.1)
    label(one, 1_100, 100, rate=0.6)
    live = one.live()
    assert live
    one.on_demand(demand(2**52, "u", "i"))
    one.on_measured([measured(2**52, 0.0, 0.5)])
    label(one, 1_200, 3, rate=0.6)
    assert one.live() == live
    assert all(signal.ended_ms is None for signal in sink.signals)


def test_wave_of_new_users_and_new_items_is_a_signal_on_each() -> None:
    one, sink = watch()
    for number in range(1_600):
        new = number >= 1_200
        user = f"new{number}" if new and number % 2 else f"u{number % 7}"
        item = f"new{number}" if new and number % 3 else f"i{number % 5}"
        one.on_demand(demand(1_000_000 + SECOND * number, user, item))
    assert streams(sink) == {"item_novelty", "user_novelty"}
    assert all(signal.since_ms >= 1_000_000 + SECOND * 1_180 for signal in sink.signals)


def test_lists_that_arrive_late_are_a_signal() -> None:
    one, sink = watch()
    for number in range(1_600):
        behind = 600 * SECOND if number >= 1_200 and number % 2 else 0
        one.on_demand(demand(1_000_000 + SECOND * number - behind, "u", "i"))
    assert streams(sink) == {"lateness"}


def test_actions_that_come_later_and_later_are_a_signal() -> None:
    one, sink = watch()
    for number in range(600):
        delay_s = (5 if number < 400 else 50) + number % 3
        now_ms = 1_000_000 + SECOND * number
        user = UserView(user_id="u", last_impression_ms=now_ms - SECOND * delay_s)
        one.on_ranks([PositiveAction(user, "i", now_ms)], np.array([1]))
    assert streams(sink) == {"label_delay"}


def test_field_that_moved_is_named_as_contributor_of_another_change() -> None:
    one, sink = watch()
    label(one, 1_000, 100, rate=0.1)
    for number in range(160):
        plan = ("free", "pro")[number % 2] if number < 80 else "broken"
        one.on_demand(demand(1_100_000 + SECOND * number, "u", "i", plan=plan))
    assert "field/user.plan" in streams(sink)
    label(one, 1_300, 60, rate=0.6)
    signal = next(signal for signal in sink.signals if signal.stream == "label_rate/click")
    assert signal.contributors == (("user.plan", 1.0),)
    assert "most of it: user.plan 100%" in signal.describe()


def test_fall_of_the_auc_is_a_signal() -> None:
    one, sink = watch(replace(CONFIG, point_examples=1))
    rng = np.random.default_rng(1)
    for number in range(60):
        clicked = rng.random(1_024) < 0.3
        told = clicked if number < 40 else ~clicked  # the model has it backwards
        score = np.where(told, 0.6, 0.4) + rng.normal(0.0, 0.2, 1_024)
        one.on_measured(
            [
                measured(SECOND * (1_000 + number), float(c), float(np.clip(s, 0.01, 0.99)))
                for c, s in zip(clicked, score, strict=True)
            ]
        )
    assert {"auc/online/click", "auc/online+memory/click"} <= streams(sink)


def shown(one: DriftWatch, first: int, last: int, served: float | None = None) -> None:
    """Show a list a second, with a score that a server gave its first item."""
    for number in range(first, last):
        served_N = None if served is None else np.array([served, 0.3], np.float32)
        plain = demand(1_000_000 + SECOND * number, "u", "i", "j")
        one.on_demand(replace(plain, served_N=served_N, arrivals=Arrivals(events=number)))


@pytest.mark.parametrize("what", ["duplicates", "dead_letters"])
def test_a_tenth_of_all_events_gone_wrong_is_a_signal_and_one_in_two_hundred_is_none(
    what: str,
) -> None:
    one, sink = watch()
    for number in range(1_600):
        wrong = number // 200 if number < 1_200 else 6 + (number - 1_200) // 10
        arrivals = Arrivals(events=number - wrong, **{what: wrong})
        one.on_demand(replace(demand(1_000_000 + SECOND * number, "u", "i"), arrivals=arrivals))
        if number == 1_200:
            assert sink.signals == []
    assert streams(sink) == {what}
    assert {signal.kind for signal in sink.signals} == {"stream"}


def test_lists_without_the_rankers_order_are_a_signal() -> None:
    one, sink = watch()
    shown(one, 0, 800, served=0.4)
    assert sink.signals == []
    shown(one, 800, 1_600, served=-2.0)  # a logit: retrieval's order
    assert streams(sink) == {"unranked"}


def test_lists_that_no_server_showed_say_nothing_of_servers() -> None:
    one, sink = watch()
    shown(one, 0, 800, served=0.4)
    shown(one, 800, 1_600)
    assert sink.signals == []


def test_server_that_scores_unlike_the_trainer_is_a_signal() -> None:
    one, sink = watch(replace(CONFIG, point_examples=1))
    rng = np.random.default_rng(1)
    for number in range(80):
        trained = rng.uniform(0.1, 0.6, 512).astype(np.float32)
        off = rng.normal(0.0, 0.02, 512) if number < 50 else rng.normal(0.0, 0.2, 512)
        served = np.clip(trained + off, 0.01, 0.99)
        one.on_measured(
            [
                replace(measured(SECOND * (1_000 + number), float(n % 3 == 0), float(t)), served=s)
                for n, (t, s) in enumerate(zip(trained, served, strict=True))
            ]
        )
        if number == 49:
            assert not {"skew/distance", "skew/order"} & streams(sink)
    assert {"skew/distance", "skew/order"} <= streams(sink)
    assert {one.kind for one in sink.signals if one.stream.startswith("skew/")} == {"model"}


class Counting:
    """A probe that says how often it was asked, and jumps when told so."""

    def __init__(self) -> None:
        self.asked = 0
        self.jump = 0.0

    def read(self, event_time_ms: int) -> dict[str, float]:
        self.asked += 1
        return {"vectors/norm": 1.0 + 0.01 * (self.asked % 2) + self.jump}

    def save(self) -> State:
        return {"asked": self.asked}

    def load(self, state: State) -> None:
        self.asked = state["asked"]


def test_what_probes_read_off_the_learners_is_watched_and_saved() -> None:
    probe, sink = Counting(), ListSink()
    parts = DriftWatchParts(
        config=CONFIG, metrics=Metrics(), sinks=[sink], probes={"counting": probe}
    )
    one = DriftWatch(SCHEMA, parts)
    report = LearnReport(0.5, 1)
    for number in range(200):
        probe.jump = float(number >= 150)
        one.on_demand(demand(1_000_000 + SECOND * number, "u", "i"))
        one.on_step(number, report, report)
    assert streams(sink) == {"vectors/norm"}
    assert probe.asked == 200
    again = Counting()
    DriftWatch(SCHEMA, replace(parts, probes={"counting": again})).load(one.save())
    assert again.asked == 200


def test_state_from_before_servers_were_watched_starts_that_afresh() -> None:
    one, _ = watch()
    state: Any = one.save()
    for name in ("skew", "probes", "arrived"):
        del state[name]
    state["shown"] = [0.0] * 5
    again, _ = watch()
    again.load(state)
    shown(again, 0, 40, served=0.4)


def test_time_is_believed_as_the_settings_of_the_watermark_say() -> None:
    trusting = DriftWatchParts(
        config=CONFIG, metrics=Metrics(), watermark=WatermarkConfig(max_jump_ms=0)
    )
    one = DriftWatch(SCHEMA, trusting)
    label(one, 1_000, 100, rate=0.1)
    label(one, 1_100, 100, rate=0.6)
    assert one.live()
    one.on_measured([measured(2**52, 0.0, 0.5)])  # believed: whatever was live is over by then
    assert one.live() == []


@pytest.mark.parametrize("cut", [7, 133, 250])
def test_watch_survives_a_restart_and_goes_on_to_the_same_bits(cut: int) -> None:
    def lead(one: DriftWatch, first: int, last: int) -> None:
        for number in range(first, last):
            time_ms = 1_000_000 + SECOND * number
            plan = "free" if number < 200 or number % 2 else "pro"
            shown_now = demand(time_ms, f"u{number % 9}", f"i{number % 13}", plan=plan)
            served_N = np.array([0.1 + 0.002 * number], np.float32)
            arrivals = Arrivals(events=number, duplicates=number // 7)
            one.on_demand(replace(shown_now, served_N=served_N, arrivals=arrivals))
            rate = 0.2 if number < 180 else 0.8
            one.on_measured(
                [
                    replace(measured(time_ms, float(n < 10 * rate), 0.3), served=0.25)
                    for n in range(10)
                ]
            )
            user = UserView(user_id="u", last_impression_ms=time_ms - 7)
            one.on_ranks([PositiveAction(user, "i", time_ms)], np.array([1]))

    (whole, told), (first, _), (again, told_again) = watch(), watch(), watch()
    lead(whole, 0, 300)
    lead(first, 0, cut)
    state: Any = copy.deepcopy(first.save())
    again.load(state)
    assert state_hash(again.save()) == state_hash(first.save())
    lead(again, cut, 300)
    assert state_hash(again.save()) == state_hash(whole.save())
    last = {(one.stream, one.since_ms): one for one in told.signals}
    assert all(last[one.stream, one.since_ms] == one for one in told_again.signals)
    assert told.signals
