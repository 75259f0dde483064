"""The trainer as a process: reads the log, learns, publishes, until told to stop."""

from __future__ import annotations

from app.delta_ways import delta_publisher
from app.drift_sinks import drift_sinks
from app.errors import stop_on_signals
from app.learners import LearnerConfigs, build_learners
from app.process_setup import metric_history, metrics_page, set_up_process
from app.processes import stop_with_parent
from app.reactions_wiring import build_reactions
from app.settings import Settings
from app.trainer_observers import build_observers
from app.trainer_wiring import TrainerPlace, build_loop, build_trainer
from domain.clock import SystemClock
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from stream.open_log import open_log


def run_trainer(settings: Settings, *, until_end: bool) -> None:
    """Run a trainer in this process until it is told to stop.

    Raises:
        ConfigError: the data folder belongs to another schema or other learners.
        SnapshotError: there are snapshots, but none is whole; or another trainer works here.
        LogError: the event log cannot be opened.
    """
    metrics, clock = Metrics(), SystemClock()
    set_up_process(settings, metrics, "trainer")
    schema = settings.schema_declared
    learners = build_learners(schema, LearnerConfigs.of(settings))
    with drift_sinks(settings, metrics) as sinks, stop_on_signals() as stop:
        stop_with_parent(stop)
        reactions = build_reactions(settings, learners, metrics, sinks.reactions)
        hearers = sinks.signals if reactions is None else (*sinks.signals, reactions)
        observers, comparison = build_observers(settings, schema, learners, clock, metrics, hearers)
        loop = build_loop(settings, schema, learners, metrics, observers, reactions)
        settings.data.path.mkdir(parents=True, exist_ok=True)
        log = open_log(settings.data.log_url, kafka=settings.kafka)
        store = LocalSnapshotStore(settings.data.snapshots, settings.snapshot)
        store.become_writer()
        with delta_publisher(settings) as publisher:
            place = TrainerPlace(
                log=log, store=store, clock=clock, metrics=metrics, delta_publisher=publisher
            )
            trainer = build_trainer(settings, loop, place)
            with (
                metrics_page(settings.metrics, "trainer", metrics, trainer.readiness),
                metric_history(settings, "trainer", metrics, clock),
            ):
                trainer.run(stop, until_end=until_end)
        if comparison is not None:
            comparison.write(loop)
        log.close()
