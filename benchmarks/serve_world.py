"""The world that benchmarks serve: trained once, answered from by a process of its own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from domain.clock import SystemClock
from domain.events import Event, Feedback, ItemUpdate
from stream.sqlite_log import SqliteLog

ROOT = Path(__file__).resolve().parents[1]
USERS = 20
HISTORY = 200
CLOCK = SystemClock()


def train_world(folder: Path, num_items: int) -> None:
    """Lead a world through a real trainer: its snapshot is what everybody serves."""
    (folder / "data").mkdir()
    log = SqliteLog(folder / "data" / "events.sqlite")
    events = _events(num_items, CLOCK.now_ms() - 3_600_000)
    while batch := list(itertools.islice(events, 5_000)):
        log.append(batch)
    log.close()
    overrides = ["metrics.trainer_port=0", "drift.detectors=[]"]
    words = [word for one in overrides for word in ("--set", one)]
    subprocess.run(
        [sys.executable, "-m", "app.cli", "train", "--data-dir", folder / "data", "--until-end",
         *words],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _events(num_items: int, start_ms: int) -> Iterator[Event]:
    random = np.random.default_rng(7)
    for number in range(num_items):
        yield ItemUpdate(event_id=f"item-{number}", time_ms=start_ms, item_id=f"i{number}")
    for count, user in itertools.product(range(HISTORY), range(USERS)):
        yield Feedback(
            event_id=f"click-{user}-{count}",
            time_ms=start_ms + 10_000 * count + user,
            user_id=f"u{user}",
            item_id=f"i{random.integers(num_items)}",
            kind="click",
        )


@contextmanager
def process(command: list[str], log: Path) -> Iterator[psutil.Process]:
    """Run a process while the block runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(60)
