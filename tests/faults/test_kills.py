"""A quick selection of the campaign: `make faults` kills by the hundred, this by the handful."""

from __future__ import annotations

from pathlib import Path

from tests.faults.fault_worlds import Stream
from tests.faults.lives import Zygote
from tests.faults.points import POINTS, RANDOM
from tests.faults.runs import PRODUCER, Place, RunPlan, make_run
from tests.kafka_broker import own_broker


def test_killed_trainers_on_the_embedded_log_end_with_the_bits_of_one_that_never_was(
    forks: Zygote, tmp_path: Path
) -> None:
    points = (
        RANDOM,
        "between publish and commit",
        "before fsync, half the file lost",
        "in the joiner",
        "while a delta is written",
        "in a learning step",
    )
    plan = RunPlan(
        name="embedded",
        stream=Stream(160, seed=20),
        policy="fast",
        points=points,
        in_full=frozenset({0}),
    )
    result = make_run(plan, Place(tmp_path, forks))
    assert str(result.verdict) == "equal"
    assert result.kills.total() + len(result.unused) == len(points)
    assert result.kills[RANDOM] == 1
    assert result.kills.total() >= 3
    assert result.records > 400


def test_killed_trainers_producer_and_broker_lose_nothing_on_a_live_kafka(
    forks: Zygote, tmp_path: Path
) -> None:
    plan = RunPlan(
        name="kafka",
        stream=Stream(100, seed=21),
        policy="wait",
        points=("between segment and snapshot", "after a dead letter"),
        live=True,
        broker_kills=1,
        producer_kills=1,
    )
    result = make_run(plan, Place(tmp_path, forks, own_broker()))
    assert str(result.verdict) == "equal"
    assert result.broker_kills == 1
    assert result.kills[PRODUCER] == 1
    assert result.kills.total() >= 3
    assert result.records > 250


def test_every_point_says_what_it_wraps() -> None:
    for name, point in POINTS.items():
        assert point.calls >= 1, name
        assert point.targets, name
