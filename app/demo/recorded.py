"""The demo with recorded impressions: published through the real server, learned as they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.progress import track

from app.demo.probe import FreshnessProbe
from app.demo.report import print_demo_report
from app.demo.run import (
    DemoPlace,
    demo_folder,
    free_port,
    wait_until_learned,
)
from app.processes import children
from app.readiness import wait_until_serving
from app.replay_run import REPLAY_LINGER_MS
from app.schema_file import schema_to_toml
from app.settings import load_settings
from domain.clock import SystemClock
from domain.errors import DatasetError, ProcessError
from domain.events import Event, Impression
from protos.headrace.v1 import (
    events_pb2,
    events_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
)
from replay.dataset import Dataset
from stream.codec import event_to_message
from stream.open_log import open_log

DEFAULT_LIMIT = 12_000
_BATCH = 500
_NUM_ASKED = 300
_NUM_PROBES = 10
_CALL_TIMEOUT_S = 10.0


def run_recorded_demo(dataset: Dataset, keep: Path | None, console: Console) -> dict[str, Any]:
    """Publish a dataset to a running Headrace; print and return what happened.

    Event times are moved by a whole number of days, so that the recording ends within the last day
    and hours stay hours.

    Raises:
        DatasetError: the dataset has no impressions.
        ProcessError: a process ended by itself.
    """
    clock = SystemClock()
    with console.status(f"reading {dataset.name}"):
        events = _moved_to(clock.now_ms(), list(dataset.events()))
    shown = [event for event in events if isinstance(event, Impression)]
    if not shown:
        raise DatasetError(f"{dataset.name}: the demo needs impressions, and it has none")
    with demo_folder(keep) as folder:
        place = DemoPlace(folder=folder, address=f"127.0.0.1:{free_port()}", clock=clock)
        place.config.write_text(schema_to_toml(dataset.schema))
        commands = _commands(dataset, place, freeze_at_ms=shown[len(shown) // 2].time_ms)
        log = open_log(load_settings(place.config, [f"data.dir='{folder}'"]).data.log_url)
        with children(commands, folder / "logs") as services:
            with console.status("starting the event log, the trainer and the gRPC server"):
                wait_until_serving(place.address, services, clock)
            num_published = _publish(events, place, console)
            with console.status("letting the trainer catch up"):
                wait_until_learned(services, log, clock, within_s=120.0)
            users = _ask([event.user_id for event in shown[-_NUM_ASKED:]], place)
            probed = list(dict.fromkeys(event.user_id for event in reversed(shown)))[:_NUM_PROBES]
            kind = dataset.schema.heads[0].feedback_kind
            freshness = FreshnessProbe(place.address, clock, kind).seconds(probed)
        report = {
            "comparison": json.loads(place.comparison.read_text()),
            "users": {**users, "published": num_published},
            "freshness_s": freshness,
            "dead_letters": len(log.dead_letters()),
            "malformed": 0,
        }
        log.close()
        print_demo_report(report, console, moment="half-way")
        return report


def _moved_to(now_ms: int, events: list[Event]) -> list[Event]:
    newest_ms = max((event.time_ms for event in events), default=now_ms)
    day_ms = 24 * 60 * 60 * 1000
    shift_ms = (now_ms - newest_ms) // day_ms * day_ms
    return [replace(event, time_ms=event.time_ms + shift_ms) for event in events]


def _commands(dataset: Dataset, place: DemoPlace, freeze_at_ms: int) -> list[tuple[str, list[str]]]:
    window_ms = dataset.joiner_hints.attribution_window_ms
    settings = [
        "checkpoint.every_s=5",
        f"batcher.linger_ms={REPLAY_LINGER_MS}",
        f"evaluation.freeze_at_ms={freeze_at_ms}",
        f"evaluation.report='{place.comparison}'",
        "evaluation.window_ms=3600000",
        "metrics.trainer_port=0",
        "metrics.server_port=0",
    ]
    if window_ms is not None:
        settings.append(f"joiner.attribution_window_ms={window_ms + 1}")
    shared = ["--config", str(place.config), "--data-dir", str(place.folder)]
    for setting in settings:
        shared += ["--set", setting]
    return [
        ("trainer", ["train", *shared]),
        ("server", ["serve", *shared, "--grpc", place.address]),
    ]


def _publish(events: Sequence[Event], place: DemoPlace, console: Console) -> int:
    """Publish everything, in order, as fast as the server takes it."""
    stub = events_pb2_grpc.EventsStub(grpc.insecure_channel(place.address))
    starts = range(0, len(events), _BATCH)
    for start in track(starts, description="publishing", console=console, transient=True):
        batch = [event_to_message(event) for event in events[start : start + _BATCH]]
        try:
            stub.Publish(events_pb2.PublishRequest(events=batch), timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise ProcessError(f"the server refused to publish: {error.details()}") from error
    return len(events)


def _ask(user_ids: Sequence[str], place: DemoPlace) -> dict[str, Any]:
    """Ask for a list for each user; return how long that took."""
    stub = recommender_pb2_grpc.RecommenderStub(grpc.insecure_channel(place.address))
    latencies_ms = []
    for user_id in user_ids:
        started_s = place.clock.stopwatch_s()
        stub.Recommend(
            recommender_pb2.RecommendRequest(user_id=user_id, limit=10), timeout=_CALL_TIMEOUT_S
        )
        latencies_ms.append((place.clock.stopwatch_s() - started_s) * 1_000)
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    return {"lists": len(user_ids), "failed": 0, "p50_ms": float(p50), "p99_ms": float(p99)}
