"""From samples to curves: rates, quantiles, gaps, and the moment of an event time."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, Histogram

from monitoring.dashboard import curves, page
from monitoring.metric_history import Frame, Series

INF = "+Inf"


def frame(times_s: list[float], **columns: list[float]) -> Frame:
    """A frame whose columns are named NAME or NAME__label__value."""
    found: dict[Series, np.ndarray] = {}
    for key, values in columns.items():
        name, *label = key.split("__")
        labels = ((label[0], label[1]),) if label else ()
        found[(name, labels)] = np.array(values, float)
    return Frame(np.array([int(1_000 * one) for one in times_s], np.int64), found)


def test_rate_is_increase_per_second_and_survives_a_restart() -> None:
    found = curves.rate(frame([0, 10, 20, 25], c=[100, 150, 20, 30]), "c")
    np.testing.assert_allclose(found, [np.nan, 5.0, 2.0, 2.0])


def test_rate_adds_up_what_matches() -> None:
    both = frame([0, 10], c__kind__a=[0, 10], c__kind__b=[5, 25])
    assert curves.rate(both, "c")[1] == 3.0
    assert curves.rate(both, "c", kind="b")[1] == 2.0
    assert np.isnan(curves.rate(both, "c", kind="nope")).all()


def test_recent_counts_only_what_is_recent() -> None:
    counted = frame([0, 60, 120, 180], c=[0, 5, 7, 8])
    assert curves.recent(counted, 60_000, "c") == 1
    assert curves.recent(counted, 120_000, "c") == 3
    assert curves.recent(counted, 10**9, "c") == 8
    assert curves.recent(counted, 60_000, "nope") is None
    assert curves.recent(frame([0], c=[5]), 60_000, "c") is None


def buckets(*rows: tuple[float, float, float, float]) -> Frame:
    """Cumulative counts of the buckets 1, 2, 4 and infinity, a row for each sample."""
    columns = np.array(rows, float).T
    return Frame(
        np.arange(len(rows), dtype=np.int64) * 1_000,
        {
            ("h_bucket", (("le", bound),)): columns[number]
            for number, bound in enumerate(("1.0", "2.0", "4.0", INF))
        },
    )


def test_quantile_lies_where_the_share_is_reached() -> None:
    # Of ten values, five are at most 1 and ten at most 2: the median is 1, the p75 in the middle.
    found = buckets((0, 0, 0, 0), (5, 10, 10, 10))
    assert curves.quantile(found, 0.5, "h")[1] == 1.0
    assert curves.quantile(found, 0.75, "h")[1] == 1.5
    assert curves.quantile_of_last(found, 10**6, 0.75, "h") == 1.5


def test_quantile_beyond_the_last_bucket_is_its_bound_and_without_values_there_is_none() -> None:
    found = buckets((0, 0, 0, 0), (0, 0, 0, 3), (0, 0, 0, 3))
    assert curves.quantile(found, 0.5, "h")[1] == 4.0
    assert np.isnan(curves.quantile(found, 0.5, "h")[[0, 2]]).all()
    assert curves.quantile_of_last(found, 1_000, 0.5, "h") is None
    assert curves.quantile_of_last(found, 1_000, 0.5, "nope") is None


def test_bucket_bounds_are_found_as_the_client_writes_them() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("h", "h", registry=registry, buckets=(0.0001, 0.0075, 1, 2000))
    histogram.observe(0.005)
    (family,) = registry.collect()
    bounds = [one.labels["le"] for one in family.samples if one.name == "h_bucket"]
    times = np.array([0, 1_000], np.int64)
    found = Frame(
        times,
        {
            ("h_bucket", (("le", bound),)): np.array([0.0, float(float(bound) >= 0.0075)])
            for bound in bounds
        },
    )
    last = curves.quantile_of_last(found, 10_000, 1.0, "h")
    assert last == curves.quantile(found, 1.0, "h")[1] == 0.0075


def test_a_pause_is_a_gap_in_the_line() -> None:
    times = np.array([0, 5, 10, 400, 405], np.int64) * 1_000
    times_ms, values = curves.with_gaps(times, np.array([1.0, 2, 3, 4, 5]))
    np.testing.assert_array_equal(values, [1, 2, 3, np.nan, 4, 5])
    assert times_ms.tolist() == [0, 5_000, 10_000, 10_001, 400_000, 405_000]


def test_thinned_samples_before_fine_ones_are_no_pause() -> None:
    times = np.array([0, 300, 600, 900, 905, 910], np.int64) * 1_000
    assert len(curves.with_gaps(times, np.arange(6.0))[0]) == 6


def test_event_time_is_found_on_the_axis_of_processing_time() -> None:
    samples = frame([0, 10, 20], headrace_stream_event_time_seconds=[1_000, 1_100, 1_200])
    assert curves.processing_time(samples, 1_050_000) == 10_000
    assert curves.processing_time(samples, 1_000_000) == 0
    assert curves.processing_time(samples, 900_000) is None, "before what the samples cover"
    assert curves.processing_time(samples, 1_300_000) is None, "after it"
    assert curves.processing_time(frame([0]), 1) is None


def test_addresses_keep_the_span_and_forget_the_rest() -> None:
    view = page.view_of("/drift", "?span=6h&field=item.category")
    assert view.address("/quality") == "/quality?span=6h"
    assert page.view_of("/drift", view.address(measure="day").partition("?")[2]).asked == {
        "field": "item.category",
        "measure": "day",
    }
    assert page.view_of("/quality", "?span=nonsense").span == "1h"
