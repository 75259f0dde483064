"""A trainer and a broker are killed under load, and nobody who asks for a list notices."""

from __future__ import annotations

from pathlib import Path

from deploy.kafka.broker import BrokerError
from tests.faults.serving_campaign import KILLS, deployment, disturb, table
from tests.kafka_broker import give_up


def test_no_recommend_fails_while_trainer_and_broker_are_away(tmp_path: Path) -> None:
    try:
        with deployment(tmp_path) as running:
            phases = disturb(running, 0.0, KILLS)
    except BrokerError as error:
        give_up(str(error))
    print(table(phases))
    assert [(phase.name, phase.failed) for phase in phases] == [(name, 0) for name in KILLS]
    assert min(phase.answered for phase in phases) >= 50
    broker_killed = phases[-1]
    # While the log is away lists go out without an impression id, and events are refused.
    assert broker_killed.unlogged > 0
    assert broker_killed.refused_events > 0
