"""The instruments: names, labels and what is shown when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from domain.examples import LearnReport, Role
from domain.recommendations import Path as AnswerPath
from monitoring.head_quality import HeadQuality
from monitoring.metrics import PATHS, ROLES, Metrics
from monitoring.prequential_ranks import RankQuality

QUALITY = HeadQuality(
    examples=10,
    positives=4,
    auc=0.75,
    auc_error=0.0,
    gauc=None,
    gauc_examples=0,
    log_loss=0.5,
    normalized_entropy=0.9,
    calibration=1.1,
    expected_calibration_error=0.02,
)


def test_names_begin_with_the_package_whose_work_they_describe() -> None:
    root = Path(__file__).parents[3]
    for instrument in Metrics().instruments:
        prefix, package, rest = instrument.name.split("_", 2)
        assert prefix == "headrace"
        assert (root / package / "__init__.py").exists(), instrument.name
        assert rest
        assert (instrument.kind == "counter") == rest.endswith("_total"), instrument.name


def test_two_instances_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.stream.steps.inc()
    assert other.registry.get_sample_value("headrace_stream_steps_total") == 0.0


def test_counters_with_known_label_values_start_at_zero() -> None:
    value = Metrics().registry.get_sample_value
    assert value("headrace_stream_dead_letters_total", {"reason_class": "undecodable"}) == 0.0
    assert value("headrace_serving_answers_total", {"path": "popular"}) == 0.0


def test_gauges_are_not_shown_before_they_are_set() -> None:
    metrics = Metrics()
    assert b"headrace_snapshot_age_seconds" not in generate_latest(metrics.registry)
    metrics.snapshot.age_seconds.set_function(lambda: 2.5)
    metrics.snapshot.size_bytes.set(7)
    metrics.serving.in_flight.inc()
    metrics.serving.in_flight.dec()
    value = metrics.registry.get_sample_value
    assert value("headrace_snapshot_age_seconds") == 2.5
    assert value("headrace_snapshot_size_bytes") == 7.0
    assert value("headrace_serving_in_flight_requests") == 0.0
    assert value("headrace_stream_pending_impressions") is None


def test_label_values_cover_the_words_of_the_domain() -> None:
    assert set(ROLES) == set(Role.__args__)  # type: ignore[attr-defined]
    assert set(PATHS) == set(AnswerPath.__args__)  # type: ignore[attr-defined]


def test_learning_is_counted_per_learner_and_an_empty_batch_keeps_the_loss() -> None:
    metrics = Metrics()
    metrics.stream.observe_learning("ranking", LearnReport(0.5, 8, quarantined=2))
    metrics.stream.observe_learning("ranking", LearnReport(float("nan"), 0))
    value = metrics.registry.get_sample_value
    learner = {"learner": "ranking"}
    assert value("headrace_stream_learned_examples_total", learner) == 8.0
    assert value("headrace_stream_quarantined_examples_total", learner) == 2.0
    assert value("headrace_stream_loss", learner) == 0.5
    assert value("headrace_stream_learned_examples_total", {"learner": "retrieval"}) == 0.0


def test_publishing_a_snapshot_sets_all_its_numbers() -> None:
    metrics = Metrics()
    metrics.snapshot.observe_publish(seconds=0.3, size_bytes=1_000, step=17)
    value = metrics.registry.get_sample_value
    assert value("headrace_snapshot_publishes_total") == 1.0
    assert value("headrace_snapshot_publish_seconds_sum") == 0.3
    assert value("headrace_snapshot_size_bytes") == 1_000.0
    assert value("headrace_snapshot_last_step") == 17.0


def test_quality_that_cannot_be_computed_leaves_the_page() -> None:
    metrics = Metrics()
    labels = {"variant": "base", "head": "click", "scope": "window"}
    value = metrics.registry.get_sample_value
    metrics.monitoring.observe_quality("base", "window", {"click": QUALITY})
    assert value("headrace_monitoring_auc_ratio", labels) == 0.75
    assert value("headrace_monitoring_calibration_ratio", labels) == 1.1
    assert value("headrace_monitoring_gauc_ratio", labels) is None

    metrics.monitoring.observe_quality("base", "window", {"click": replace(QUALITY, auc=None)})
    assert value("headrace_monitoring_auc_ratio", labels) is None


def test_retrieval_quality_is_shown_per_scope() -> None:
    metrics = Metrics()
    found = RankQuality(evaluated=4, recall_at_k=0.25, ndcg_at_k=0.2, mrr=0.1)
    metrics.retrieval.observe_quality("progressive", found)
    value = metrics.registry.get_sample_value
    assert value("headrace_retrieval_recall_at_20_ratio", {"scope": "progressive"}) == 0.25
    assert value("headrace_retrieval_mrr_ratio", {"scope": "progressive"}) == 0.1


@pytest.mark.parametrize(
    "name", ["headrace_serving_request_seconds", "headrace_serving_stage_seconds"]
)
def test_request_buckets_tell_one_millisecond_from_a_thousand(name: str) -> None:
    metrics = Metrics()
    page = generate_latest(metrics.registry).decode()
    for edge in ("0.001", "0.01", "0.1", "1.0"):
        assert f'{name}_bucket{{le="{edge}"' in page
