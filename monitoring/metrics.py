"""Every Prometheus instrument of Headrace, once.

One `Metrics` per process, made by the composition root and passed to whoever counts something.
Instruments are grouped by the package whose work they describe; the name on the wire is
`headrace_<package>_<noun>_<unit>`. `docs/metrics.md` has the question each one answers, and a test
keeps page and file in step.

Label values are few and known: enumerations below, or names from the configuration (heads,
variants, streams, partitions). User ids, item ids and request ids never become labels: each value
is a time series that Prometheus keeps for weeks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)

from domain.examples import LearnReport
from monitoring.freshness_metrics import FreshnessMetrics
from monitoring.head_quality import HeadQuality
from monitoring.index_metrics import IndexMetrics
from monitoring.instruments import Maker
from monitoring.prequential_quality import Scope
from monitoring.prequential_ranks import RankQuality
from monitoring.reaction_metrics import ReactionMetrics

EVENT_KINDS = ("impression", "feedback", "item_update", "user_update")
DEAD_LETTER_REASONS = ("undecodable", "contradictory", "schema")
STREAM_ERRORS = ("log_unavailable", "log_gap", "dead_letter", "snapshot")
ROLES = ("final", "early_negative", "correction")
LEARNERS = ("ranking", "retrieval")
CALIBRATION_STAGES = ("before", "after")
SCOPES: tuple[Scope, ...] = ("progressive", "window")
METHODS = (
    "recommend",
    "retrieve",
    "rank",
    "publish",
    "batchrecommend",
    "batchretrieve",
    "batchrank",
    "publishstream",
    "watchsignals",
    "listsnapshots",
    "promote",
    "rollback",
)
PATHS = ("ranked", "retrieved", "popular", "cold_start")
QUEUES = ("thread", "turn")
LOOKUPS = ("hit", "miss")
STAGES = ("retrieve", "rank", "compensate", "log")
DRIFT_DETECTORS = ("adwin", "page_hinkley", "kswin")
FIELD_DETECTORS = ("psi", "share")
CONFIGURED = ()
"""For labels whose values come from the configuration: heads, variants, streams, partitions."""

# A request should take 5 to 50 ms and is refused or late beyond a second: six buckets below 10 ms
# tell a healthy p50 from a slow one, the rest place the p99.
REQUEST_BUCKETS_S = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0
)  # fmt: skip
# A stage is a part of a request, so it needs finer buckets at the fast end.
RANK_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Requests in one pass of the ranker."""

STAGE_BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0
)  # fmt: skip
# Steps of a few examples take milliseconds, of thousands seconds.
STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
DELTA_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
PUBLISH_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
CANDIDATE_BUCKETS = (0.0, 1.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)


class Metrics:
    """All instruments of one process over a registry of its own.

    Attributes:
        registry: what an exporter shows; includes the process's CPU, memory and file descriptors.
        instruments: every declaration, in order.
    """

    def __init__(self) -> None:
        # A second series per counter and histogram would say only when this process began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        maker = Maker(self.registry)
        self.stream = StreamMetrics(maker)
        self.snapshot = SnapshotMetrics(maker)
        self.journal = JournalMetrics(maker)
        self.retrieval = RetrievalMetrics(maker)
        self.ranking = RankingMetrics(maker)
        self.memory = MemoryMetrics(maker)
        self.monitoring = MonitoringMetrics(maker)
        self.serving = ServingMetrics(maker)
        self.app = AppMetrics(maker)
        self.instruments = tuple(maker.made)


class StreamMetrics:
    """Event log to learning steps."""

    def __init__(self, make: Maker) -> None:
        self.events = make.counter(
            "stream_events_total", "Events taken in, repeats included.", kind=EVENT_KINDS
        )
        self.duplicates = make.counter(
            "stream_duplicates_total", "Events dropped because their id was seen before."
        )
        self.late_events = make.counter(
            "stream_late_events_total", "Events older than the watermark when they arrived."
        )
        self.dead_letters = make.counter(
            "stream_dead_letters_total", "Records set aside.", reason_class=DEAD_LETTER_REASONS
        )
        self.examples = make.counter("stream_examples_total", "Examples joined.", role=ROLES)
        self.pending_impressions = make.gauge(
            "stream_pending_impressions", "Impressions whose attribution window is open."
        )
        self.event_time_seconds = make.gauge(
            "stream_event_time_seconds", "Newest event time, in seconds since 1970 UTC."
        )
        self.watermark_delay_seconds = make.gauge(
            "stream_watermark_delay_seconds", "Newest event time minus watermark."
        )
        self.clock_jumps = make.counter(
            "stream_clock_jumps_total", "Events refused a say in the watermark: too far ahead."
        )
        self.consumer_lag_records = make.gauge(
            "stream_consumer_lag_records",
            "Newest offset minus the offset read next.",
            partition=CONFIGURED,
        )
        self.log_failures = make.counter(
            "stream_log_failures_total", "Reads or writes the event log could not serve."
        )
        self.lost_records = make.counter(
            "stream_lost_records_total",
            "Records that were gone before they were read.",
            partition=CONFIGURED,
        )
        self.last_error_time_seconds = make.gauge(
            "stream_last_error_time_seconds",
            "When it last happened, in seconds since 1970 UTC.",
            kind=STREAM_ERRORS,
        )
        self.reads = make.counter("stream_reads_total", "Reads that the event log answered.")
        self.read_records = make.counter("stream_read_records_total", "Records read.")
        self.read_bytes = make.counter("stream_read_bytes_total", "Bytes of records read.")
        self.queue_events = make.gauge(
            "stream_queue_events", "Decoded events that wait for the learner."
        )
        self.queue_bytes = make.gauge(
            "stream_queue_bytes", "The same in bytes, as they were in the log."
        )
        self.steps = make.counter("stream_steps_total", "Learning steps taken.")
        self.step_seconds = make.histogram(
            "stream_step_seconds", "Time to learn from one micro-batch.", STEP_BUCKETS_S
        )
        self.learned_examples = make.counter(
            "stream_learned_examples_total", "Examples learned from.", learner=LEARNERS
        )
        self.quarantined_examples = make.counter(
            "stream_quarantined_examples_total",
            "Examples set aside because loss or gradient was not finite.",
            learner=LEARNERS,
        )
        self.loss = make.gauge(
            "stream_loss", "Training loss of the newest micro-batch.", learner=LEARNERS
        )

    def observe_read(self, records: int, size_bytes: int) -> None:
        """Count one answered read; an empty one counts too."""
        self.reads.inc()
        self.read_records.inc(records)
        self.read_bytes.inc(size_bytes)

    def observe_error(self, kind: str, time_ms: int) -> None:
        """Remember when something last went wrong; `kind` is one of STREAM_ERRORS."""
        self.last_error_time_seconds.labels(kind=kind).set(time_ms / 1_000)

    def observe_learning(self, learner: str, report: LearnReport) -> None:
        """Count one learner's share of a step; an empty batch leaves the loss as it was."""
        self.learned_examples.labels(learner=learner).inc(report.examples)
        self.quarantined_examples.labels(learner=learner).inc(report.quarantined)
        if math.isfinite(report.loss):
            self.loss.labels(learner=learner).set(report.loss)


class SnapshotMetrics:
    """Snapshots, as their publisher sees them."""

    def __init__(self, make: Maker) -> None:
        self.publish_seconds = make.histogram(
            "snapshot_publish_seconds", "Time to write and publish a snapshot.", PUBLISH_BUCKETS_S
        )
        self.publishes = make.counter("snapshot_publishes_total", "Snapshots published.")
        self.publish_failures = make.counter(
            "snapshot_publish_failures_total", "Snapshots that could not be published."
        )
        self.age_seconds = make.gauge(
            "snapshot_age_seconds", "Processing time since the newest snapshot was published."
        )
        self.size_bytes = make.gauge("snapshot_size_bytes", "Size of the newest snapshot.")
        self.last_step = make.gauge("snapshot_last_step", "Learning step of the newest snapshot.")
        self.deltas = make.counter("snapshot_deltas_total", "Deltas published.")
        self.delta_failures = make.counter(
            "snapshot_delta_failures_total", "Deltas that could not be published."
        )
        self.delta_bytes = make.counter("snapshot_delta_bytes_total", "Size of published deltas.")
        self.delta_seconds = make.histogram(
            "snapshot_delta_seconds", "Time to take and publish a delta.", DELTA_BUCKETS_S
        )

    def observe_delta(self, *, seconds: float, size_bytes: int) -> None:
        """Count one published delta."""
        self.deltas.inc()
        self.delta_bytes.inc(size_bytes)
        self.delta_seconds.observe(seconds)

    def observe_publish(self, *, seconds: float, size_bytes: int, step: int) -> None:
        """Count one published snapshot."""
        self.publishes.inc()
        self.publish_seconds.observe(seconds)
        self.size_bytes.set(size_bytes)
        self.last_step.set(step)


class JournalMetrics:
    """The step journal on the disk."""

    def __init__(self, make: Maker) -> None:
        self.size_bytes = make.gauge("stream_journal_size_bytes", "Size of all segments kept.")
        self.segments = make.gauge("stream_journal_segments", "Segments kept.")

    def observe(self, size_bytes: int, segments: int) -> None:
        """Show what a checkpoint left behind."""
        self.size_bytes.set(size_bytes)
        self.segments.set(segments)


class RetrievalMetrics:
    """The catalog and how well it is searched.

    Attributes:
        index: what searches of the index find, in a server.
    """

    def __init__(self, make: Maker) -> None:
        self.catalog_items = make.gauge("retrieval_catalog_items", "Items that may be retrieved.")
        self.recall_at_20 = make.gauge(
            "retrieval_recall_at_20_ratio",
            "Share of taken items ranked in the first 20 of the whole catalog beforehand.",
            scope=SCOPES,
        )
        self.mrr = make.gauge(
            "retrieval_mrr_ratio", "Mean reciprocal rank of taken items.", scope=SCOPES
        )
        self.index = IndexMetrics(make)

    def observe_quality(self, scope: str, quality: RankQuality) -> None:
        """Show how well retrieval ranked what users then took (k must be 20)."""
        _show(self.recall_at_20, quality.recall_at_k, scope=scope)
        _show(self.mrr, quality.mrr, scope=scope)


class RankingMetrics:
    """The ranker's embedding tables, its calibration, and users' encoded histories."""

    def __init__(self, make: Maker) -> None:
        self.embedding_rows = make.gauge("ranking_embedding_rows", "Rows in use, all tables.")
        self.calibration_error = make.gauge(
            "ranking_calibration_error_ratio",
            "Mean distance of prediction and rate over 15 bins of the score, lately.",
            head=CONFIGURED,
            stage=CALIBRATION_STAGES,
        )
        self.history_lookups = make.counter(
            "ranking_history_lookups_total",
            "Look-ups of a user's encoded history.",
            outcome=LOOKUPS,
        )
        self.history_cache_bytes = make.gauge(
            "ranking_history_cache_bytes", "Size of the encoded histories kept."
        )

    def observe_lookup(self, found: bool, num_bytes: int) -> None:
        """Count a look-up of an encoded history, and show what all of them take."""
        self.history_lookups.labels(outcome="hit" if found else "miss").inc()
        self.history_cache_bytes.set(num_bytes)


class MemoryMetrics:
    """The error memory."""

    def __init__(self, make: Maker) -> None:
        self.weight = make.gauge(
            "memory_lambda", "Weight of the correction; 0 is no correction.", head=CONFIGURED
        )
        self.size_bytes = make.gauge("memory_size_bytes", "What the memory keeps, in bytes.")


class MonitoringMetrics:
    """Quality of the scores, drift, and what went wrong."""

    def __init__(self, make: Maker) -> None:
        def quality(name: str, text: str) -> Gauge:
            return make.gauge(
                f"monitoring_{name}", text, variant=CONFIGURED, head=CONFIGURED, scope=SCOPES
            )

        self.auc = quality("auc_ratio", "Chance that a positive is scored above a negative.")
        self.gauc = quality("gauc_ratio", "AUC per session, weighted by its impressions.")
        self.normalized_entropy = quality(
            "normalized_entropy_ratio", "Log loss over that of predicting the mean rate."
        )
        self.calibration = quality("calibration_ratio", "Mean prediction over mean label.")
        self.log_loss = quality("log_loss", "Mean log loss.")
        self.drift_signals = make.counter(
            "monitoring_drift_signals_total",
            "Drift signals given.",
            detector=DRIFT_DETECTORS,
            stream=CONFIGURED,
        )
        self.drift_stream_value = make.gauge(
            "monitoring_drift_stream_value",
            "Newest point of a watched stream, in the stream's own unit.",
            stream=CONFIGURED,
        )
        self.drift_live_signals = make.gauge(
            "monitoring_drift_live_signals", "Drift signals that have not ended."
        )
        self.drift_live_severity = make.gauge(
            "monitoring_drift_live_severity",
            "Severity of a stream's live signal: 0 none, 1 small, 2 medium, 3 large.",
            stream=CONFIGURED,
        )
        self.drift_ended = make.counter(
            "monitoring_drift_ended_total",
            "Drift signals that ended: recovered, or normal by now.",
            stream=CONFIGURED,
        )
        self.reactions = ReactionMetrics(make)
        self.webhook_failures = make.counter(
            "monitoring_webhook_failures_total", "Drift signals that no web hook took."
        )
        self.logged_errors = make.counter(
            "monitoring_logged_errors_total", "Log records of level error or above."
        )
        self.last_error_time_seconds = make.gauge(
            "monitoring_last_error_time_seconds",
            "When the newest such record was written, in seconds since 1970 UTC.",
        )

    def observe_quality(
        self, variant: str, scope: str, qualities: Mapping[str, HeadQuality]
    ) -> None:
        """Show the quality of each head; a number that cannot be computed leaves the page."""
        for head, quality in qualities.items():
            for gauge, value in (
                (self.auc, quality.auc),
                (self.gauc, quality.gauc),
                (self.normalized_entropy, quality.normalized_entropy),
                (self.calibration, quality.calibration),
                (self.log_loss, quality.log_loss),
            ):
                _show(gauge, value, variant=variant, head=head, scope=scope)


class ServingMetrics:
    """Requests and the models that answer them.

    Attributes:
        freshness: how soon what happens changes answers.
    """

    def __init__(self, make: Maker) -> None:
        self.requests = make.counter(
            "serving_requests_total",
            "Requests answered, by gRPC status.",
            method=METHODS,
            code=CONFIGURED,
        )
        self.request_seconds = make.histogram(
            "serving_request_seconds", "Time to answer.", REQUEST_BUCKETS_S, method=METHODS
        )
        self.stage_seconds = make.histogram(
            "serving_stage_seconds", "Time in one stage.", STAGE_BUCKETS_S, stage=STAGES
        )
        self.answers = make.counter(
            "serving_answers_total", "Recommendations, by the path that answered.", path=PATHS
        )
        self.candidates = make.histogram(
            "serving_candidates", "Candidates retrieved per request.", CANDIDATE_BUCKETS
        )
        self.explored_items = make.counter(
            "serving_explored_items_total", "Items shown to be explored, not for their score."
        )
        self.in_flight = make.gauge("serving_in_flight_requests", "Requests being answered.")
        self.refused = make.counter(
            "serving_refused_total", "Requests refused early because too many were waiting."
        )
        self.over_quota = make.counter(
            "serving_over_quota_total", "Requests refused because their client asked too often."
        )
        self.queue_seconds = make.histogram(
            "serving_queue_seconds",
            "Time that a request waited before work on it began.",
            STAGE_BUCKETS_S,
            place=QUEUES,
        )
        self.rank_batch_size = make.histogram(
            "serving_rank_batch_size", "Requests that were ranked in one pass.", RANK_BATCHES
        )
        self.model_age_seconds = make.gauge(
            "serving_model_age_seconds", "Newest event in the served models to now."
        )
        self.snapshot_swaps = make.counter(
            "serving_snapshot_swaps_total", "Snapshots taken into service."
        )
        self.snapshot_refused = make.counter(
            "serving_snapshot_refused_total", "Snapshots found unfit and not served."
        )
        self.tail_lag_seconds = make.gauge(
            "serving_tail_lag_seconds", "Newest event in served histories to now."
        )
        self.freshness = FreshnessMetrics(make)
        self.impressions_logged = make.counter(
            "serving_impressions_logged_total", "Shown lists written to the event log."
        )
        self.impression_log_failures = make.counter(
            "serving_impression_log_failures_total", "Shown lists that could not be written."
        )


class AppMetrics:
    """What runs here."""

    def __init__(self, make: Maker) -> None:
        self.info = make.gauge(
            "app_info",
            "Always 1; the labels say what runs.",
            process=CONFIGURED,
            version=CONFIGURED,
        )


def _show(gauge: Gauge, value: float | None, **labels: str) -> None:
    """Set a gauge, or take it off the page: a stale number would look like a fresh one."""
    if value is None:
        with contextlib.suppress(KeyError):  # older clients complain of what was never shown
            gauge.remove(*labels.values())
    else:
        gauge.labels(**labels).set(value)
