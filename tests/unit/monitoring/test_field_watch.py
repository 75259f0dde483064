"""Fields: distances against a direct computation, sketches that add up, and signals that end."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]
from scipy.stats import wasserstein_distance  # type: ignore[import-untyped]

from domain.errors import ConfigError
from domain.events import Features
from domain.features import FeatureSchema, Field
from domain.requests import RankingRequest, UserView
from domain.state import state_hash
from monitoring import field_distance
from monitoring.drift_sinks import ListSink
from monitoring.field_drift import FieldDrift
from monitoring.field_sketch import BINS, TOP_VALUES, CategoricalSketch, NumericSketch
from monitoring.field_watch import FieldState, FieldWatch, FieldWatchConfig
from monitoring.metrics import Metrics
from monitoring.signal_book import BookRules, SignalBook

SCHEMA = FeatureSchema(
    fields=(
        Field(name="plan", entity="user", kind="categorical"),
        Field(name="price", entity="item", kind="numeric"),
        Field(name="tags", entity="item", kind="multi"),
        Field(name="vector", entity="item", kind="dense", size=2),
    )
)
CONFIG = FieldWatchConfig(
    max_requests_per_s=10.0, step_requests=50, window_steps=4, reference_steps=8, report_ms=0
)
PLANS = ("free", "basic", "pro")


def request(rng: np.random.Generator, user: Features | None = None, **item: Any) -> RankingRequest:
    user = {"plan": PLANS[int(rng.integers(3))]} if user is None else user
    given: dict[str, Any] = {
        "price": float(rng.normal(10.0, 2.0)),
        "tags": tuple(f"t{int(one)}" for one in rng.integers(5, size=2)),
        "vector": (float(rng.normal()), 1.0),
    } | item
    features: Features = {name: value for name, value in given.items() if value is not None}
    return RankingRequest(
        user=UserView(user_id="u", features=user),
        item_ids=("i", "j"),
        item_features=(features, features),
        time_ms=0,
    )


def run(
    watch: FieldWatch, count: int, first: int = 0, seed: int = 0, **changed: Any
) -> list[FieldState]:
    """Show requests, a tenth of a second apart, and return the states between them."""
    rng = np.random.default_rng(seed)
    states = [
        watch.observe(request(rng, **changed), 1_000_000 + 100 * (first + number))
        for number in range(count)
    ]
    return [state for state in states if state is not None]


def drift_of(watch: FieldWatch, sink: ListSink) -> FieldDrift:
    rules = BookRules(refractory_ms=0, live_ms=10**9, max_live=100)
    book = SignalBook(rules, Metrics(), [sink])
    return FieldDrift(watch, CONFIG, book, [sink])


# Distances


def test_psi_is_what_its_formula_says_on_the_same_bins() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.integers(0, 500, (2, 12)).astype(np.float64)
        p, q = ((x + 0.5) / (x.sum() + 6.0) for x in (b, a))
        direct = sum(
            (pi - qi) * math.log(pi / qi) for pi, qi in zip(p.tolist(), q.tolist(), strict=True)
        )
        assert float(field_distance.psi(a, b)) == pytest.approx(direct, abs=1e-9)


def test_other_distances_agree_with_scipy() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(1, 500, (2, 9)).astype(np.float64)
    p, q = field_distance.shares(a), field_distance.shares(b)
    expected = jensenshannon(p, q, base=2)
    assert float(field_distance.jensen_shannon(a, b)) == pytest.approx(expected)
    at = np.sort(rng.normal(size=9))
    assert float(field_distance.wasserstein(a, b, at)) == pytest.approx(
        wasserstein_distance(at, at, a, b)
    )


def test_bins_that_are_not_live_count_for_nothing() -> None:
    a, b = np.array([5.0, 9.0, 0.0]), np.array([9.0, 5.0, 0.0])
    live = np.array([True, True, False])
    assert float(field_distance.psi(a, b, live)) == float(field_distance.psi(a[:2], b[:2]))
    assert float(field_distance.jensen_shannon(a, b, live)) == pytest.approx(
        float(field_distance.jensen_shannon(a[:2], b[:2]))
    )


# Sketches


def test_frequent_texts_get_a_bin_each_and_the_rest_share_the_others() -> None:
    sketch = CategoricalSketch(several=False)
    assert sketch.add([f"v{i:02d}" for i in range(40) for _ in range(i + 1)]) == 0
    sketch.fix()
    counts = sketch.take()
    assert sketch.labels()[:2] == ("v39", "v38")
    assert counts[:2].tolist() == [40, 39]
    assert counts[TOP_VALUES:].sum() == sum(range(1, 40 - TOP_VALUES + 1))
    sketch.add(["v39", "never seen", None])
    assert (sketch.values, sketch.unseen) == (2, 1)
    assert sketch.take().sum() == 2


def test_numbers_fall_into_bins_of_equal_count_and_stranger_ones_are_missing() -> None:
    sketch = NumericSketch(vector=False)
    assert sketch.add([float(i) for i in range(1_600)] + [math.nan, None, math.inf]) == 3
    sketch.fix()
    counts = sketch.take()
    assert counts[:16].tolist() == [100] * 16
    assert counts[16:].sum() == 0
    assert len([label for label in sketch.labels() if label]) == 16
    sketch.add([-5.0, 99.99, 100.0, 1e9])
    assert np.flatnonzero(sketch.take()).tolist() == [0, 1, 15]


def test_constant_number_has_a_bin_below_and_one_from_it_on() -> None:
    sketch = NumericSketch(vector=False)
    sketch.add([3.0] * 100)
    sketch.fix()
    sketch.take()
    sketch.add([2.0, 3.0, 4.0])
    assert sketch.take()[:2].tolist() == [1, 2]


def test_counts_of_two_halves_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    values = [f"v{int(one)}" for one in rng.zipf(1.5, 3_000) % 200]
    first = CategoricalSketch(several=False)
    first.add(values[:1_000])
    first.fix()
    fixed = first.save()
    first.take()

    def counted(part: Sequence[str]) -> Any:
        sketch = CategoricalSketch(several=False)
        sketch.load(copy.deepcopy(fixed))
        sketch.take()
        sketch.add(list(part))
        return sketch.take()

    assert (counted(values[1_000:2_000]) + counted(values[2_000:])).tolist() == counted(
        values[1_000:]
    ).tolist()
    assert len(counted(values)) == BINS


# The watch


def test_calm_fields_stay_far_below_the_threshold() -> None:
    watch = FieldWatch(SCHEMA, CONFIG)
    states = run(watch, 2_000)
    assert len(states) == 2_000 // 50 - 8 - 3
    for state in states:
        assert (state.psi_reference < 0.1 + 2.0 * state.calm).all()
        assert state.missing.tolist() == [0.0] * 4
    assert watch.names == ("user.plan", "item.price", "item.tags", "item.vector")
    assert np.isnan(states[0].psi_day).all()  # there is no last day yet
    assert not np.isnan(states[-1].psi_day).any()


def test_psi_of_the_watch_is_that_of_all_values_counted_directly() -> None:
    watch = FieldWatch(SCHEMA, CONFIG)
    rng = np.random.default_rng(5)
    shares = [[0.5, 0.3, 0.2]] * 400 + [[0.2, 0.3, 0.5]] * 200
    plans = [PLANS[int(rng.choice(3, p=share))] for share in shares]
    state = None
    for number, plan in enumerate(plans):
        one = request(rng, user={"plan": plan})
        state = watch.observe(one, 1_000_000 + 100 * number) or state
    assert state is not None
    reference = np.array([plans[:400].count(plan) for plan in PLANS], np.float64)
    now = np.array([plans[-200:].count(plan) for plan in PLANS], np.float64)
    others = np.zeros(8)  # bins for values that did not come
    direct = field_distance.psi(np.append(reference, others), np.append(now, others))
    assert state.psi_reference[0] == pytest.approx(float(direct), abs=1e-9)


def test_no_more_requests_are_looked_at_than_allowed_per_second() -> None:
    watch = FieldWatch(SCHEMA, CONFIG)
    rng = np.random.default_rng(0)
    one = request(rng)
    for number in range(1_000):  # a request per millisecond
        watch.observe(one, 1_000_000 + number)
    assert watch.save()["now"]["requests"] == 10
    off = FieldWatch(SCHEMA, FieldWatchConfig(max_requests_per_s=0.0))
    assert run(off, 10) == []
    assert off.save()["now"]["requests"] == 0


def test_stuck_field_gives_a_signal_that_says_what_moved_and_ends_when_mended() -> None:
    watch, sink = FieldWatch(SCHEMA, CONFIG), ListSink()
    drift = drift_of(watch, sink)
    for states in (
        run(watch, 1_000),
        run(watch, 400, first=1_000, seed=1, user={"plan": "unknown"}),
    ):
        for state in states:
            drift.take(state)
    [signal] = sink.signals
    assert (signal.stream, signal.detector, signal.kind) == ("field/user.plan", "psi", "covariate")
    assert signal.severity == "large"
    assert 1_090_000 <= signal.since_ms <= 1_110_000
    assert signal.contributors[0][0].startswith("other")
    assert drift.explain(signal) == (("user.plan", 1.0),)
    for state in run(watch, 400, first=1_400, seed=2):
        drift.take(state)
    assert sink.signals[0].ended_ms is not None
    assert drift.explain(signal) == ()


def test_values_that_are_missing_are_a_signal_of_their_own() -> None:
    watch, sink = FieldWatch(SCHEMA, CONFIG), ListSink()
    drift = drift_of(watch, sink)
    states = run(watch, 1_000)
    assert [drift.take(state) for state in states] == [[]] * len(states)
    found = [drift.take(state) for state in run(watch, 300, first=1_000, seed=1, price=None)]
    given = [signal for signals in found for signal in signals]
    assert "missing/item.price" in [signal.stream for signal in given]
    signal = next(one for one in given if one.stream == "missing/item.price")
    assert (signal.detector, signal.measure, signal.before) == ("share", "share", 0.0)
    assert signal.after >= 0.4


def test_new_values_are_a_signal_of_their_own() -> None:
    watch, sink = FieldWatch(SCHEMA, CONFIG), ListSink()
    drift = drift_of(watch, sink)
    for state in run(watch, 1_200):
        drift.take(state)
    rng = np.random.default_rng(9)
    for number in range(300):
        new = request(rng, tags=(f"new{number}", f"newer{number}"))
        after = watch.observe(new, 1_000_000 + 100 * (1_200 + number))
        if after is not None:
            drift.take(after)
    assert "unseen/item.tags" in [signal.stream for signal in sink.signals]


def test_reports_carry_every_field_and_its_distributions() -> None:
    watch, sink = FieldWatch(SCHEMA, CONFIG), ListSink()
    drift = drift_of(watch, sink)
    for state in run(watch, 1_000):
        drift.take(state)
    assert {window.field for window in sink.windows} == set(watch.names)
    assert sink.windows[-1].psi_reference is not None
    assert sink.windows[0].psi_day is None
    found = {(one.field, one.role): one for one in watch.distributions()}
    plans = found["user.plan", "now"]
    assert set(plans.labels[:3]) == set(PLANS)
    assert sum(plans.counts) == 200
    assert ("item.price", "reference") in found


@pytest.mark.parametrize("cut", [10, 120, 430, 777, 1_234])
def test_load_continues_bit_for_bit_where_save_stood(cut: int) -> None:
    rng = np.random.default_rng(4)
    requests = [request(rng) for _ in range(1_500)]

    def lead(pair: tuple[FieldWatch, FieldDrift], first: int, last: int) -> None:
        for number in range(first, last):
            state = pair[0].observe(requests[number], 1_000_000 + 100 * number)
            if state is not None:
                pair[1].take(state)

    def fresh() -> tuple[FieldWatch, FieldDrift]:
        watch = FieldWatch(SCHEMA, CONFIG)
        return watch, drift_of(watch, ListSink())

    def state_of(pair: tuple[FieldWatch, FieldDrift]) -> str:
        return state_hash({"watch": pair[0].save(), "drift": pair[1].save()})

    straight, before, after = fresh(), fresh(), fresh()
    lead(straight, 0, 1_500)
    lead(before, 0, cut)
    after[0].load(copy.deepcopy(before[0].save()))
    after[1].load(copy.deepcopy(before[1].save()))
    assert state_of(after) == state_of(before)
    lead(before, cut, 1_500)  # saving in between changes nothing
    lead(after, cut, 1_500)
    assert state_of(after) == state_of(straight)
    assert state_of(before) == state_of(straight)


def test_state_does_not_grow_with_the_stream() -> None:
    def size(count: int) -> int:
        watch = FieldWatch(SCHEMA, CONFIG)
        run(watch, count)
        sketches = watch.save()["sketches"]
        return sum(np.asarray(one["counts"]).nbytes for one in sketches.values())

    assert size(600) == size(2_400)


def test_schema_without_fields_is_watched_in_vain() -> None:
    watch = FieldWatch(FeatureSchema(), CONFIG)
    assert run(watch, 1_000) == []
    assert watch.distributions() == []


@pytest.mark.parametrize(
    "bad",
    [
        {"max_requests_per_s": -1.0},
        {"step_requests": 0},
        {"reference_steps": 3},
        {"psi_from": 0.0},
        {"share_from": 0.0},
        {"report_ms": -1},
    ],
)
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^drift\.fields\.{next(iter(bad))} "):
        FieldWatchConfig(**bad)
