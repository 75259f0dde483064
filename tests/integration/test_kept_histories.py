"""A server that keeps encoded histories counts how often that paid, and answers the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.server_wiring import running_server
from domain.clock import SystemClock
from domain.events import Impression
from monitoring.metrics import Metrics
from tests.loop_worlds import tiny_settings, tiny_world
from tests.trainer_worlds import Workshop
from tests.unit.serving.running_server import until

SETTINGS = tiny_settings(
    "ranking.history_cache.max_bytes=1000000",
    "ranking.backbone.blocks=2",
    "trainer.poll_timeout_s=0.001",
    "server.address=127.0.0.1:0",
    "watcher.poll_ms=10",
)
LATE_MS = 2_000_000_000_000


def test_server_counts_look_ups_of_histories(tmp_path: Path) -> None:
    schema, events = tiny_world(40)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(events)
    workshop.run_to_end()
    workshop.close()
    data = replace(SETTINGS.data, dir=str(tmp_path))
    settings, metrics = SETTINGS.model_copy(update={"data": data}), Metrics()
    with running_server(settings, schema, SystemClock(), metrics) as server:
        until(lambda: server.slot.snapshot_id != "", 20.0)
        models = server.slot.current()
        request = next(
            asked
            for each in events
            if isinstance(each, Impression)
            for asked in [models.feature_store.request(each.user_id, ("i1", "i2"), LATE_MS, {})]
            if len(asked.user.history)
        )
        with models.weights_lock.read():
            captured = models.ranker.capture(request)
            answers = [models.ranker.predict([captured])[0] for _ in range(3)]
    assert answers[0].probabilities.tolist() == answers[2].probabilities.tolist()
    count = metrics.registry.get_sample_value
    name = "headrace_ranking_history_lookups_total"
    assert count(name, {"outcome": "miss"}) == 1.0
    assert count(name, {"outcome": "hit"}) == 2.0
    assert (count("headrace_ranking_history_cache_bytes") or 0.0) > 0.0
