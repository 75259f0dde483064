"""A trainer killed again and again, without a word, ends with the bits of one that never was."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.learners import LearnerConfigs, build_learners
from domain.event_log import Positions
from domain.state import State, state_hash
from replay.scenarios import Noise
from replay.simulator import SimulatedDataset, simulate
from snapshot.local_store import LocalSnapshotStore, Snapshot
from stream.codec import encode
from stream.sqlite_log import PARTITION, SqliteLog
from tests.loop_worlds import tiny_scenario, tiny_settings
from tests.process_helpers import (
    START_S,
    Headrace,
    flags,
    headrace,
    run_headrace,
    wait_until,
    write_schema,
)

NUM_LISTS = 160
NUM_KILLS = 2
NOISE = Noise(
    duplicate_rate=0.05, late_rate=0.03, late_by_ms=600_000, malformed_rate=0.02, disorder_ms=5_000
)
TRAINING = (
    "joiner.policy=fast",
    "joiner.attribution_window_ms=360_000",
    "joiner.fast_delay_ms=20_000",
    "batcher.max_examples=40",
    "trainer.max_records=15",
    "checkpoint.every_s=0.1",
)
COMPONENTS = ("stream", "ranking", "memory", "retrieval")


def _fill(data_dir: Path) -> Positions:
    """Write a noisy stream, broken records included, to the embedded log of a folder."""
    log = SqliteLog(data_dir / "events.sqlite")
    arrivals = simulate(tiny_scenario(NUM_LISTS, noise=NOISE))
    log.append_raw(
        [
            (arrival.key, arrival.raw if arrival.event is None else encode(arrival.event))
            for arrival in arrivals
        ]
    )
    ends = log.end_positions()
    log.close()
    return ends


def _command(data_dir: Path) -> list[str]:
    schema = SimulatedDataset(tiny_scenario(NUM_LISTS)).schema
    config = write_schema(data_dir.parent / "schema.toml", schema)
    return ["train", "--until-end", "--data-dir", str(data_dir), *config, *flags(*TRAINING)]


def _current(data_dir: Path) -> Snapshot:
    return LocalSnapshotStore(data_dir / "snapshots").load_current()


def _progress(data_dir: Path) -> int:
    """How far the current snapshot reaches into the log."""
    store = LocalSnapshotStore(data_dir / "snapshots")
    if store.current_id() is None:
        return 0
    return store.load_current(components=()).manifest.positions[PARTITION]


def _dead_letters(data_dir: Path) -> list[tuple[int, str]]:
    log = SqliteLog(data_dir / "events.sqlite")
    letters = [(letter.offset, letter.reason) for letter in log.dead_letters()]
    log.close()
    return letters


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """A trainer that nobody disturbs; ask for its folder to wait until it has ended."""
    data_dir = tmp_path_factory.mktemp("never-killed") / "data"
    _fill(data_dir)
    with headrace(*_command(data_dir), output=data_dir / "trainer.log") as trainer:

        def folder() -> Path:
            assert trainer.wait(120.0) == 0, trainer.said
            return data_dir

        yield folder


def _kill_one_after_another(data_dir: Path, end: int) -> list[int]:
    """Kill trainers at random moments; return how far each had come in the log."""
    rng = np.random.default_rng(20)
    killed_at = []
    for kill in range(NUM_KILLS):
        # Somewhere in the next part of the log, and then at any point of a step or a checkpoint.
        target = int(end * (kill + rng.uniform(0.1, 0.6)) / NUM_KILLS)
        with headrace(*_command(data_dir), output=data_dir / "trainer.log") as trainer:

            def is_there(target: int = target, trainer: Headrace = trainer) -> bool:
                return _progress(data_dir) > target or trainer.process.poll() is not None

            wait_until(is_there, START_S, f"a snapshot beyond {target}")
            time.sleep(rng.uniform(0.0, 0.05))
            trainer.process.send_signal(signal.SIGKILL)
            assert trainer.wait() == -signal.SIGKILL, trainer.said
        killed_at.append(_progress(data_dir))
    return killed_at


def test_killed_trainer_ends_with_the_bits_of_one_that_never_was(
    never_killed: Callable[[], Path], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    end = _fill(data_dir)[PARTITION]
    killed_at = _kill_one_after_another(data_dir, end)
    assert 0 < killed_at[0] < killed_at[1] < end

    status, said = run_headrace(*_command(data_dir), output=data_dir / "trainer.log")
    assert status == 0, said
    assert "Traceback" not in said
    expected, found = _current(never_killed()), _current(data_dir)
    assert {name: state_hash(found.states[name]) for name in COMPONENTS} == {
        name: state_hash(expected.states[name]) for name in COMPONENTS
    }
    assert found.manifest.positions == expected.manifest.positions
    assert found.manifest.step == expected.manifest.step
    assert LocalSnapshotStore(data_dir / "snapshots").verify("current") == []
    assert _dead_letters(data_dir) == _dead_letters(never_killed())


def test_trainer_learns_a_whole_log_and_stops_at_its_end(
    never_killed: Callable[[], Path],
) -> None:
    data_dir = never_killed()
    snapshot = _current(data_dir)
    log = SqliteLog(data_dir / "events.sqlite")
    assert snapshot.manifest.positions == log.end_positions() == log.committed()
    log.close()
    assert snapshot.states["stream"]["counts"]["steps"] > 30
    assert len(_dead_letters(data_dir)) > 3


def test_what_the_trainer_learned_is_no_longer_what_it_began_with(
    never_killed: Callable[[], Path],
) -> None:
    learned = _current(never_killed()).states
    untrained = build_learners(
        SimulatedDataset(tiny_scenario()).schema, LearnerConfigs.of(tiny_settings())
    )
    fresh: dict[str, State] = {
        "ranking": untrained.ranking.save(),
        "memory": untrained.memory.save(),
        "retrieval": untrained.retrieval.save(),
    }
    for name, state in fresh.items():
        assert state_hash(learned[name]) != state_hash(state), name
    # The weights themselves have moved, not only the counts beside them.
    assert state_hash(learned["ranking"]["dense"]) != state_hash(fresh["ranking"]["dense"])
    assert state_hash(learned["retrieval"]["queries"]) != state_hash(fresh["retrieval"]["queries"])
