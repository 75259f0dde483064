"""Noisy little streams, and trainers small enough to be killed by the hundred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.features import FeatureSchema
from replay.scenarios import Noise, Scenario
from replay.simulator import SimulatedDataset
from tests.faults.backends import TestLog
from tests.loop_worlds import tiny_scenario
from tests.process_helpers import flags, write_schema

NOISE = Noise(
    duplicate_rate=0.05, late_rate=0.03, late_by_ms=600_000, malformed_rate=0.02, disorder_ms=5_000
)
TRAINING = (
    "joiner.attribution_window_ms=360_000",
    "joiner.fast_delay_ms=20_000",
    "batcher.max_examples=40",
    "batcher.linger_ms=150_000",
    "trainer.max_records=15",
    "trainer.queue_events=30",
    "checkpoint.every_s=0.1",
    "deltas.every_ms=30",
    # Old snapshots must go early, or no process would ever be killed while one is deleted.
    "snapshot.keep=2",
)


@dataclass(frozen=True, slots=True)
class Stream:
    """A simulated stream with duplicates, late events, disorder and broken records."""

    num_lists: int
    seed: int

    @property
    def scenario(self) -> Scenario:
        """Return the scenario it is made from."""
        return tiny_scenario(self.num_lists, seed=self.seed, noise=NOISE)

    @property
    def schema(self) -> FeatureSchema:
        """Return the schema of its events."""
        return SimulatedDataset(self.scenario).schema


def train_arguments(
    data_dir: Path, stream: Stream, test_log: TestLog, policy: str, extra: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the arguments of `headrace` for a trainer of small models."""
    schema = write_schema(data_dir.parent / "schema.toml", stream.schema)
    settings = flags(f"joiner.policy={policy}", *TRAINING, *test_log.settings)
    place = ("--data-dir", str(data_dir), "--log", test_log.url)
    return ("train", *extra, *place, *schema, *settings)
