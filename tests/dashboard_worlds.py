"""Records of a run that has ended, small enough to be said aloud, and a dashboard over them.

For an hour a trainer took in 10 events a second, a server answered 2 requests a second, each within
5 ms; a week before, normalized entropy was 0.8, now it is 0.9. One drift signal is live, one ended.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.dashboard_process import records_of
from app.settings import load_settings
from domain.clock import ManualClock
from monitoring.dashboard.records import Records
from monitoring.drift_signal import DriftSignal
from monitoring.field_report import FieldDistribution, FieldWindow, Role
from monitoring.history_recorder import sample_of
from monitoring.metric_history import HistoryConfig, MetricHistory
from monitoring.metrics import Metrics
from monitoring.signal_store import FILE_NAME, SignalStore
from snapshot.local_store import LocalSnapshotStore

NOW_MS = 1_800_000_000_000
"""2027-01-15 08:00:00 UTC."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SERVER = "server 127.0.0.1:50051"
STEP_MS = 60_000

LIVE = DriftSignal(
    stream="field/item.category",
    kind="covariate",
    detector="psi",
    time_ms=NOW_MS - 1_200_000,
    since_ms=NOW_MS - 1_800_000,
    before=0.0,
    after=1.5,
    deviations=0.0,
    points_before=10,
    points_after=2,
    measure="psi",
    compared_with="the reference",
    contributors=(("news", 0.75), ("sport", 0.25)),
)
ENDED = DriftSignal(
    stream="label_rate/click",
    kind="label",
    detector="adwin",
    time_ms=NOW_MS - 2 * HOUR_MS,
    since_ms=NOW_MS - 2 * HOUR_MS - 60_000,
    before=0.2,
    after=0.3,
    deviations=4.0,
    points_before=40,
    points_after=10,
    ended_ms=NOW_MS - HOUR_MS,
)


def records_in(folder: Path, *settings: str) -> Records:
    """What a dashboard reads from a data folder, at `NOW_MS`."""
    records = records_of(load_settings(None, [f'data.dir="{folder}"', *settings]))
    records.clock = ManualClock(NOW_MS)
    return records


def past_run(folder: Path, *, lasted_ms: int = HOUR_MS, ended: bool = True) -> Path:
    """Write everything a run leaves behind; returns the folder."""
    folder.mkdir(parents=True)
    _write_metrics(folder, lasted_ms, ended)
    _write_drift(folder)
    _write_snapshots(folder)
    (folder / "reports").mkdir()
    for number, name in enumerate(("old.html", "new.json", "notes.txt")):
        path = folder / "reports" / name
        path.write_text(f"<h1>{name}</h1><script>document.title = 'ran'</script>")
        os.utime(path, (NOW_MS / 1_000 - 60 + number, NOW_MS / 1_000 - 60 + number))
    return folder


def _write_metrics(folder: Path, lasted_ms: int, ended: bool) -> None:
    history = MetricHistory(folder / "history.sqlite", HistoryConfig())
    week_ago = _trained(0.8)
    history.begin("trainer", NOW_MS - 7 * DAY_MS)
    history.write("trainer", NOW_MS - 7 * DAY_MS, sample_of(week_ago))
    trainer, server = _trained(0.9), Metrics()
    begin_ms = NOW_MS - lasted_ms
    history.begin("trainer", begin_ms)
    history.begin(SERVER, begin_ms)
    seconds = STEP_MS // 1_000
    for now_ms in range(begin_ms, NOW_MS + 1, STEP_MS):
        trainer.stream.event_time_seconds.set(now_ms / 1_000)
        history.write("trainer", now_ms, sample_of(trainer))
        history.write(SERVER, now_ms, sample_of(server))
        trainer.stream.events.labels(kind="impression").inc(8 * seconds)
        trainer.stream.events.labels(kind="feedback").inc(2 * seconds)
        server.serving.requests.labels(method="recommend", code="OK").inc(2 * seconds)
        server.serving.answers.labels(path="ranked").inc(2 * seconds)
        server.serving.model_age_seconds.set(42.0)
        for _ in range(2 * seconds):
            server.serving.request_seconds.labels(method="recommend").observe(0.004)
    if ended:
        history.end("trainer", NOW_MS)
        history.end(SERVER, NOW_MS)
    history.close()


def _trained(entropy: float) -> Metrics:
    """What a trainer shows after an hour, with this normalized entropy."""
    metrics = Metrics()
    quality = metrics.monitoring
    for variant, more in (("online", 0.05), ("online+memory", 0.0)):
        own = {"variant": variant, "head": "click", "scope": "window"}
        quality.normalized_entropy.labels(**own).set(entropy + more)
        quality.auc.labels(**own).set(0.75 - more)
        quality.calibration.labels(**own).set(1.0 + more)
    metrics.retrieval.recall_at_20.labels(scope="window").set(0.25)
    metrics.retrieval.mrr.labels(scope="window").set(0.125)
    metrics.retrieval.catalog_items.set(1_234)
    metrics.memory.weight.labels(head="click").set(0.4)
    metrics.snapshot.age_seconds.set(7.0)
    metrics.stream.consumer_lag_records.labels(partition="events/0").set(3)
    return metrics


def _write_drift(folder: Path) -> None:
    store = SignalStore(folder / FILE_NAME)
    store.write([LIVE, ENDED])
    for number in range(12):
        ended_ms = NOW_MS - (11 - number) * 300_000
        store.write_windows(
            [
                _window("item.category", ended_ms, psi=1.5 if number >= 8 else 0.02),
                _window("user.country", ended_ms, psi=0.01),
            ]
        )
    store.write_distributions(
        [
            _distribution("item.category", role, counts)
            for role, counts in (("reference", (50, 50)), ("now", (90, 10)))
        ]
    )
    store.write_distributions([_distribution("user.country", "reference", (1, 3))])
    store.close()


def _window(field: str, ended_ms: int, *, psi: float) -> FieldWindow:
    return FieldWindow(
        field=field,
        started_ms=ended_ms - 300_000,
        ended_ms=ended_ms,
        examples=3_000,
        missing=0.125,
        unseen=0.0,
        psi_reference=psi,
        psi_day=psi / 2,
        distance_reference=0.25,
        distance_day=None,
    )


def _distribution(field: str, role: Role, counts: Sequence[float]) -> FieldDistribution:
    return FieldDistribution(
        field=field, role=role, ended_ms=NOW_MS, labels=("news", "sport"), counts=tuple(counts)
    )


def _write_snapshots(folder: Path) -> None:
    store = LocalSnapshotStore(folder / "snapshots")
    for step in (10, 20, 30):
        store.publish(
            {"ranking": {"weights": np.full(4, float(step))}},
            positions={"events/0": step},
            step=step,
            event_time_ms=NOW_MS - (40 - step) * 60_000,
            schema_hash="x",
            extra={"events": 100 * step},
        )
    store.close()
